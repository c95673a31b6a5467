"""Named: the key that a reference's text stands for, where the map says what texts name that are no keys."""

from typing import Final

from syncline.engine.keys import key_bytes
from syncline.engine.template import sql
from syncline.maps.key_types import KeyType, Kind
from syncline.maps.unreadable import Unreadable, UnreadableRule
from syncline.sql import literal

__all__ = ["named_key"]

_BITS: Final = {"smallint": 16, "int2": 16, "integer": 32, "int": 32, "int4": 32}


def named_key(unreadable: Unreadable, type_: KeyType, text: str, *, there: bool = False) -> str:
    """Return the form of the key of this type that a text stands for; NULL for none.

    It is immutable, and never an error. `there`: in the write-db, which has no `syncline.uuid5`.
    """
    key = "NULL" if unreadable.key is None else f"'{literal(type_.canonical(unreadable.key))}'"
    other = key
    if unreadable.rule is UnreadableRule.UUID5:
        namespace = literal(unreadable.namespace or "")
        made = sql(
            "uuid5_there" if there else "uuid5_here", namespace=namespace, text=text, bytes=key_bytes(text)
        ).strip()
        other = made if unreadable.key is None else sql("uuid5_or", text=text, made=made, key=key).strip()
    half = 2 ** (_BITS.get(type_.name, 64) - 1)
    name = {Kind.UUID: "named_uuid", Kind.INTEGER: "named_integer"}.get(type_.kind, "named_numeric")
    return sql(name, text=text, other=other, least=str(-half), greatest=str(half - 1)).strip()
