"""The `.sql` templates of verification."""

from syncline.sql import statements_of

__all__ = ["sql"]

_statement = statements_of("syncline.verify")


def sql(name: str, /, **fragments: str) -> str:
    """Return template `name` with its fragments filled in; raise KeyError if one is missing."""
    return _statement(name, **fragments).strip()
