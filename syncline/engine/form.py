"""The one form of a value: how a source column travels, and how a key is told by its bytes.

Under which settings values are written as text is the session's (`syncline.stores.session`).
"""

from collections.abc import Mapping
from typing import Final

from syncline.engine.template import sql
from syncline.sqltext import quoted

__all__ = ["key_bytes", "key_text", "stage_type", "traveling"]

_TEXT: Final = "text"
_WITHOUT_LENGTH: Final = {"character": "bpchar", "char": "bpchar", "bit": '"bit"'}
"""Types that SQL takes for their first character, or bit, where no length is given."""


def stage_type(name: str, types: Mapping[str, str]) -> str:
    """Return the type of a column in the stage; one that is not in `types` is text."""
    spelled = types.get(name, _TEXT)
    return _WITHOUT_LENGTH.get(spelled.strip().lower(), spelled)


def traveling(name: str, types: Mapping[str, str]) -> str:
    """Return the expression, over the source row, for the value of a column as it travels.

    What the map calls text is the text that Postgres makes of the value: character(n) without its padding, a
    label of an enum. Any other type travels as it is. Every statement on the write-db that means the value of
    a column by which rows are staged, compared or named says it in this way.
    """
    column = quoted(name)
    return f"{column}::text" if stage_type(name, types) == _TEXT else column


def key_bytes(key: str) -> str:
    """Return the expression for the bytes of a part of a key: those that its id is made of, text or not."""
    return sql("key_bytes", key=key).strip()


def key_text(digits: str) -> str:
    """Return the expression for the part of a key whose bytes are given in hex (`keys.hex_of`)."""
    return sql("key_text", digits=digits).strip()
