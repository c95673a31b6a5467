"""Key forms: SQL for a key's value as text and back (syncline.maps.key_types).

Those that read a text are for texts in the type's form.
"""

from syncline.engine.template import sql
from syncline.maps.key_types import KeyType, Kind

__all__ = ["cast", "form", "ordered", "read", "safe"]


def form(type_: KeyType, value: str) -> str:
    """Return the expression for a value's text form."""
    return value if type_.plain else sql(f"form_{type_.kind}", value=value).strip()


def read(type_: KeyType, text: str) -> str:
    """Return the expression for the value with this form; immutable, for the graph-db."""
    return sql(f"read_{type_.kind}", text=text, type=type_.native).strip()


def cast(type_: KeyType, text: str) -> str:
    """Return the expression for the value with this form, in either database."""
    return sql(f"cast_{type_.kind}", text=text, type=type_.native).strip()


def safe(type_: KeyType, text: str) -> str:
    """Like `cast`, but NULL for a text that is no value: a deleted key may be of an earlier type."""
    return sql(f"safe_{type_.kind}", text=text).strip()


def ordered(type_: KeyType, value: str) -> str:
    """Return the expression by which values are put in order: as the index of capture has them."""
    return f'{value} COLLATE "C"' if type_.kind is Kind.TEXT else value
