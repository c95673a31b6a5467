"""The engine's `.sql` templates."""

from syncline.sql import Statements, statements_of

__all__ = ["sql"]

sql: Statements = statements_of("syncline.engine")
