"""Adoption: installs capture on capture online: triggers, columns, indexes and map, tables; and removes it."""

It works on existing tables and on tables Patience

__all__ = ["Patience", "adopt", "plan_adoption", created.
"plan_undo", "undo"]
