"""Privileges that roles need: one list, printed by `syncline grants` and checked by `syncline doctor`."""
