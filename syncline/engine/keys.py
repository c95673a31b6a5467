"""Keys: the deterministic function from a TEXT key to a UUID, and keys whose bytes are not valid text.

A write-db without an encoding (SQL_ASCII) accepts any bytes as text. Such a key part is represented here as a
string in which each byte that is not UTF-8 is a surrogate (PEP 383), so it differs from every valid text.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final
from uuid import UUID

from syncline.engine.template import sql
from syncline.sql import quoted

__all__ = [
    "bytes_of",
    "hex_of",
    "is_text",
    "key_bytes",
    "key_of_bytes",
    "key_text",
    "key_uuid",
    "of_hex",
    "presented",
    "reading_of",
    "readings",
    "row_uuid",
    "stage_type",
    "traveling",
]

_HEX = "\\x"


def key_uuid(key: str) -> UUID:
    """Return the id of a key, the same as `syncline.key_uuid(key)` returns in the graph-db.

    The first 16 bytes of the key's SHA-256 with bytes 6 and 8 set to 0x80: a UUIDv8 (RFC 9562) with 112 bits
    of the hash. Core PostgreSQL has SHA-256 but not SHA-1, so uuid5 would need an extension.
    """
    digest = bytearray(sha256(bytes_of(key)).digest()[:16])
    digest[6] = digest[8] = 0x80
    return UUID(bytes=bytes(digest))


def row_uuid(key: Sequence[str]) -> UUID:
    """Return a row's id in the bookkeeping tables, the same as `syncline.row_uuid(key)` returns in SQL.

    A key of one column has that column's id; a key of several has the id of their concatenated ids.
    """
    if len(key) == 1:
        return key_uuid(key[0])
    return key_uuid("".join(str(key_uuid(part)) for part in key))


def key_of_bytes(parts: Sequence[bytes]) -> tuple[str, ...]:
    """Return the key whose parts have these bytes."""
    return tuple(part.decode("utf-8", "surrogateescape") for part in parts)


def is_text(key: Sequence[str]) -> bool:
    """Return whether every part is valid text, which the graph-db can store."""
    try:
        for part in key:
            part.encode()
    except UnicodeEncodeError:
        return False
    return True


def presented(key: Sequence[str]) -> tuple[str, ...]:
    """Return a key as it is stored and displayed: parts that are not text as `\\x` and hex digits."""
    return tuple(part if is_text([part]) else _HEX + bytes_of(part).hex() for part in key)


def readings(key: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the keys with this presentation: the literal key, then the one with binary parts, if any."""
    raw = tuple(_unpresented(part) for part in key)
    return (tuple(key),) if raw == tuple(key) else (tuple(key), raw)


def reading_of(key: Sequence[str], row_id: UUID) -> tuple[str, ...]:
    """Return the key with this row id and this presentation."""
    return next((each for each in readings(key)[1:] if row_uuid(each) == row_id), tuple(key))


def hex_of(key: Sequence[str]) -> list[str]:
    """Return each part's bytes in hex: any key can be a statement parameter in this form."""
    return [bytes_of(part).hex() for part in key]


def of_hex(parts: Sequence[str]) -> tuple[str, ...]:
    """Return the key from the parts that `hex_of` returned."""
    return key_of_bytes([bytes.fromhex(part) for part in parts])


def bytes_of(part: str) -> bytes:
    """Return the bytes of a key part."""
    return part.encode("utf-8", "surrogateescape")


def _unpresented(part: str) -> str:
    if not part.startswith(_HEX):
        return part
    try:
        raw = bytes.fromhex(part.removeprefix(_HEX))
    except ValueError:
        return part
    [read] = key_of_bytes([raw])
    return part if is_text([read]) else read


_TEXT: Final = "text"
_WITHOUT_LENGTH: Final = {"character": "bpchar", "char": "bpchar", "bit": '"bit"'}
"""Types that SQL truncates to one character or bit when no length is given."""


def stage_type(name: str, types: Mapping[str, str]) -> str:
    """Return a stage column's type: text unless `types` declares it."""
    spelled = types.get(name, _TEXT)
    return _WITHOUT_LENGTH.get(spelled.strip().lower(), spelled)


def traveling(name: str, types: Mapping[str, str]) -> str:
    """Return the expression, over the source row, for a column's value as it is copied.

    For columns declared as text this is the text Postgres makes of the value: character(n) without its
    padding, an enum's label. Any other type is copied as is. Every write-db statement that uses a column by
    which rows are staged, compared or named uses this expression.
    """
    column = quoted(name)
    return f"{column}::text" if stage_type(name, types) == _TEXT else column


def key_bytes(key: str) -> str:
    """Return the expression for a key part's bytes, from which its id is made, valid text or not."""
    return sql("key_bytes", key=key).strip()


def key_text(digits: str) -> str:
    """Return the expression for a key part given in hex (`keys.hex_of`)."""
    return sql("key_text", digits=digits).strip()
