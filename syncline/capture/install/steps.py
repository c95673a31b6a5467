"""Steps: the changes that adoption makes to a schema, each as a sentence and as SQL."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from syncline.sql import quoted

__all__ = [
    "LISTENER",
    "NOTIFY_FUNCTION",
    "NOTIFY_TRIGGER",
    "POSITIONS",
    "QUIET",
    "SHARED_SCHEMA",
    "SHARED_VERSION_FUNCTION",
    "STATE",
    "SYNC_COLUMN",
    "TENANT",
    "TOKEN",
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
    """One atomic change. Its statements are one transaction, unless they are `alone`."""

    sentence: str
    """What it does, in a sentence."""
    statements: tuple[str, ...]
    lock: str | None = None
    """The statement that runs first and acquires every lock for which writers may wait."""
    locked: tuple[str, ...] = ()
    """The tables, quoted, whose writers wait until the step ends."""
    shared: bool = False
    """Whether it changes schema `syncline`, which all graphs of the database share."""
    role: str | None = None
    """Acting role: the tables' owner, so that created objects get no more privileges; None: the caller."""
    alone: bool = False
    """Whether each statement runs outside a transaction, as CONCURRENTLY requires. Blocks no writer."""

    @property
    def script(self) -> str:
        """The SQL as an operator could run it."""
        statements = self.statements if self.lock is None else (self.lock, *self.statements)
        lines = [f"{statement.rstrip()};" for statement in (*self.settings, *statements)]
        if self.alone:
            return "\n".join(lines if self.role is None else [*lines, "RESET ROLE;"])
        return "\n".join(["BEGIN;", *lines, "COMMIT;"])

    @property
    def settings(self) -> tuple[str, ...]:
        """The statements that come first: set the role, and a search_path of pg_catalog only."""
        role = None if self.role is None else quoted(self.role)
        if self.alone:
            return () if role is None else (f"SET ROLE {role}",)
        path = "SET LOCAL search_path = pg_catalog, pg_temp"
        return (path,) if role is None else (f"SET LOCAL ROLE {role}", path)


@dataclass(frozen=True, kw_only=True)
class AdoptionPlan:
    """The remaining steps for a schema; empty if it is complete."""

    schema: str
    steps: tuple[Step, ...]


SHARED_SCHEMA: Final = "syncline"
VERSION_FUNCTION: Final = "capture_version"
SHARED_VERSION_FUNCTION: Final = (SHARED_SCHEMA, "capture_version")
"""The function with which earlier releases stamped rows of all schemas: owned by the first adopting role."""
SYNC_COLUMN: Final = "sync_xid"
TOMBSTONES: Final = "sync_tombstone"
TENANT: Final = "tenant"
"""The column of deleted keys that says whose a row was."""
POSITIONS: Final = "sync_position"
"""The table of positions: one row for each graph-db schema that reads it."""
NOTIFY_TRIGGER: Final = "capture_notify"
NOTIFY_FUNCTION: Final = "sync_notify"
STATE: Final = "sync_notify"
"""The table that holds whether a schema's writers are to notify."""
QUIET: Final = "sync_quiet"
"""The sequence that holds until when they are muted."""
LISTENER: Final = (SHARED_SCHEMA, "listener")
TOKEN: Final = (SHARED_SCHEMA, "token")
"""The function by which writers name their transaction, to wait for it."""

_LONGEST = 63


def qualified(schema: str, name: str) -> str:
    """Return a schema-qualified name, quoted."""
    return f"{quoted(schema)}.{quoted(name)}"


def fitted(prefix: str, name: str, suffix: str = "") -> str:
    """Return prefix, name and suffix as one identifier; a name that is too long is shortened with a hash."""
    whole = f"{prefix}{name}{suffix}"
    if len(whole.encode()) <= _LONGEST:
        return whole
    # Postgres would truncate it silently, and two long names with the same start would collide.
    return _cut(prefix, name, suffix)


def index_name(table: str, taken: frozenset[str]) -> str:
    """Return a name for a table's index that is not in `taken`."""
    name = fitted("", table, "_sync")
    return name if name not in taken else _cut("", table, "_sync")


def _cut(prefix: str, name: str, suffix: str) -> str:
    digest = sha256(name.encode()).hexdigest()[:8]
    room = _LONGEST - len(f"{prefix}_{digest}{suffix}".encode())
    return f"{prefix}{name.encode()[:room].decode(errors='ignore')}_{digest}{suffix}"
