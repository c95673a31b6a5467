"""Key forms: SQL for a key's value as text and back (syncline.maps.key_types).

Those that read a text are for texts in the type's form.
"""

from typing import Final

from syncline.engine.template import sql
from syncline.maps.key_types import KeyType, Kind

__all__ = ["cast", "form", "ordered", "read", "safe", "spelled"]

_FORM: Final = {
    Kind.TEXT: "form_text",
    Kind.UUID: "form_uuid",
    Kind.INTEGER: "form_integer",
    Kind.NUMERIC: "form_numeric",
    Kind.DATE: "form_date",
    Kind.TIMESTAMP: "form_timestamp",
    Kind.TIMESTAMPTZ: "form_timestamptz",
    Kind.BYTES: "form_bytes",
}
_READ: Final = {
    Kind.TEXT: "read_text",
    Kind.UUID: "read_uuid",
    Kind.INTEGER: "read_integer",
    Kind.NUMERIC: "read_numeric",
    Kind.DATE: "read_date",
    Kind.TIMESTAMP: "read_timestamp",
    Kind.TIMESTAMPTZ: "read_timestamptz",
    Kind.BYTES: "read_bytes",
}
_CAST: Final = {
    Kind.TEXT: "cast_text",
    Kind.UUID: "cast_uuid",
    Kind.INTEGER: "cast_integer",
    Kind.NUMERIC: "cast_numeric",
    Kind.DATE: "cast_date",
    Kind.TIMESTAMP: "cast_timestamp",
    Kind.TIMESTAMPTZ: "cast_timestamptz",
    Kind.BYTES: "cast_bytes",
}
_SAFE: Final = {
    Kind.TEXT: "safe_text",
    Kind.UUID: "safe_uuid",
    Kind.INTEGER: "safe_integer",
    Kind.NUMERIC: "safe_numeric",
    Kind.DATE: "safe_date",
    Kind.TIMESTAMP: "safe_timestamp",
    Kind.TIMESTAMPTZ: "safe_timestamptz",
    Kind.BYTES: "safe_bytes",
}

_SPELLED: Final = {
    Kind.UUID: "spelled_uuid",
    Kind.INTEGER: "spelled_integer",
    Kind.NUMERIC: "spelled_numeric",
}


def form(type_: KeyType, value: str) -> str:
    """Return the expression for a value's text form."""
    return value if type_.plain else sql(_FORM[type_.kind], value=value).strip()


def read(type_: KeyType, text: str) -> str:
    """Return the expression for the value with this form; immutable, for the graph-db."""
    return sql(_READ[type_.kind], text=text, type=type_.native).strip()


def cast(type_: KeyType, text: str) -> str:
    """Return the expression for the value with this form, in either database."""
    return sql(_CAST[type_.kind], text=text, type=type_.native).strip()


def safe(type_: KeyType, text: str) -> str:
    """Like `cast`, but NULL for a text that is no value: a deleted key may be of an earlier type."""
    return sql(_SAFE[type_.kind], text=text).strip()


def spelled(type_: KeyType, text: str) -> str:
    """Like `read`, of a text in any spelling that Postgres takes, but NULL for one that is no value."""
    return sql(_SPELLED.get(type_.kind, _READ[type_.kind]), text=text, type=type_.native).strip()


def ordered(type_: KeyType, value: str) -> str:
    """Return the expression by which values are put in order: as the index of capture has them."""
    return f'{value} COLLATE "C"' if type_.kind is Kind.TEXT else value
