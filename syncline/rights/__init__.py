"""The rights that roles need: one list, which `syncline grants` prints and `syncline doctor` checks."""
