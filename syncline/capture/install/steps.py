"""Steps: what adoption does to a schema, one after the other, as a sentence and as SQL."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from syncline.sql import quoted

__all__ = [
    "LISTENER",
    "NOTIFY_FUNCTION",
    "NOTIFY_TRIGGER",
    "POSITIONS",
    "SHARED_SCHEMA",
    "SHARED_VERSION_FUNCTION",
    "STATE",
    "SYNC_COLUMN",
    "TOMBSTONES",
    "VERSION_FUNCTION",
    "AdoptionPlan",
    "Step",
    "fitted",
    "index_name",
    "qualified",
]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One change that is done or not done. Its statements are one transaction, unless they are `alone`."""

    sentence: str
    """What it does, for a person."""
    statements: tuple[str, ...]
    lock: str | None = None
    """The statement before them that makes writers wait, and takes every lock that they could wait for."""
    locked: tuple[str, ...] = ()
    """The tables, quoted, whose writers wait until it is done."""
    shared: bool = False
    """Whether it changes schema `syncline`, which every graph of the database shares."""
    role: str | None = None
    """Who acts: the owner of the tables, so that nothing made here has more rights; None: who adopts."""
    alone: bool = False
    """Whether each statement runs outside any transaction, as CONCURRENTLY must. Writers wait for none."""

    @property
    def script(self) -> str:
        """The SQL as a person could run it."""
        statements = self.statements if self.lock is None else (self.lock, *self.statements)
        lines = [f"{statement.rstrip()};" for statement in (*self.settings, *statements)]
        if self.alone:
            return "\n".join(lines if self.role is None else [*lines, "RESET ROLE;"])
        return "\n".join(["BEGIN;", *lines, "COMMIT;"])

    @property
    def settings(self) -> tuple[str, ...]:
        """What is said before everything else: who acts, and that names are found in pg_catalog alone."""
        role = None if self.role is None else quoted(self.role)
        if self.alone:
            return () if role is None else (f"SET ROLE {role}",)
        path = "SET LOCAL search_path = pg_catalog, pg_temp"
        return (path,) if role is None else (f"SET LOCAL ROLE {role}", path)


@dataclass(frozen=True, kw_only=True)
class AdoptionPlan:
    """What is still to be done in a schema. Without steps, nothing is."""

    schema: str
    steps: tuple[Step, ...]


SHARED_SCHEMA: Final = "syncline"
VERSION_FUNCTION: Final = "capture_version"
SHARED_VERSION_FUNCTION: Final = (SHARED_SCHEMA, "capture_version")
"""What earlier releases stamped the rows of all schemas by: it belongs to whoever adopted first."""
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
