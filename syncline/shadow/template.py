"""The `.sql` templates of shadows."""

from syncline.sqltext import Statements, statements_of

__all__ = ["sql"]

sql: Statements = statements_of("syncline.shadow")
