"""Ids: the one deterministic function from a TEXT key to a UUID, equal in Python and in SQL."""

from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID


def key_uuid(key: str) -> UUID:
    """Return the id of a key, the same that `syncline.key_uuid(key)` returns in the graph-db.

    The first 16 bytes of the key's SHA-256 with bytes 6 and 8 set to 0x80: a UUIDv8 (RFC 9562) that keeps 112
    bits of the hash. Core PostgreSQL has SHA-256 and no SHA-1, so uuid5 would need an extension.
    """
    digest = bytearray(sha256(key.encode()).digest()[:16])
    digest[6] = digest[8] = 0x80
    return UUID(bytes=bytes(digest))


def row_uuid(key: Sequence[str]) -> UUID:
    """Return the id of a row in the engine's books, the same that `syncline.row_uuid(key)` returns in SQL.

    A key of one column has its own id; a key of several has the id of their ids, one after the other.
    """
    if len(key) == 1:
        return key_uuid(key[0])
    return key_uuid("".join(str(key_uuid(part)) for part in key))
