"""Names of what adoption adds. Each fits Postgres's 63 bytes and differs from every other table's."""

from hashlib import sha256
from typing import Final

from syncline.sqltext import quoted

__all__ = [
    "LISTENER",
    "NOTIFY_FUNCTION",
    "NOTIFY_TRIGGER",
    "POSITIONS",
    "SHARED_SCHEMA",
    "STATE",
    "SYNC_COLUMN",
    "TOMBSTONES",
    "VERSION_FUNCTION",
    "fitted",
    "index_name",
    "qualified",
]

SHARED_SCHEMA: Final = "syncline"
VERSION_FUNCTION: Final = (SHARED_SCHEMA, "capture_version")
SYNC_COLUMN: Final = "sync_xid"
TOMBSTONES: Final = "sync_tombstone"
POSITIONS: Final = "sync_position"
"""The table of what only the true past of a write-db has, a row for each graph-db schema that reads it."""
NOTIFY_TRIGGER: Final = "capture_notify"
NOTIFY_FUNCTION: Final = "sync_notify"
STATE: Final = "sync_notify"
"""The table that says whether a schema's writers are to notify."""
LISTENER: Final = (SHARED_SCHEMA, "listener")

_LONGEST = 63


def qualified(schema: str, name: str) -> str:
    """Return a name with its schema, quoted."""
    return f"{quoted(schema)}.{quoted(name)}"


def fitted(prefix: str, name: str, suffix: str = "") -> str:
    """Return prefix, name and suffix as one identifier; of too long a name, its beginning and a hash."""
    whole = f"{prefix}{name}{suffix}"
    if len(whole.encode()) <= _LONGEST:
        return whole
    # Postgres would cut it off without a word, and two long names that start alike would become one.
    return _cut(prefix, name, suffix)


def index_name(table: str, taken: frozenset[str]) -> str:
    """Return the name of a table's index, which nothing in `taken` has."""
    name = fitted("", table, "_sync")
    return name if name not in taken else _cut("", table, "_sync")


def _cut(prefix: str, name: str, suffix: str) -> str:
    digest = sha256(name.encode()).hexdigest()[:8]
    room = _LONGEST - len(f"{prefix}_{digest}{suffix}".encode())
    return f"{prefix}{name.encode()[:room].decode(errors='ignore')}_{digest}{suffix}"
