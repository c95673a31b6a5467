"""Needed privileges, as data: for the worker, the owner, and the graphs' writers and readers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from syncline.sql import quoted

__all__ = [
    "CHANGE",
    "CONTROL_SCHEMA",
    "READ",
    "Kind",
    "Place",
    "Right",
    "grant",
    "owner_rights",
    "reader_rights",
    "worker_control_rights",
    "worker_graph_rights",
    "worker_write_rights",
    "writer_rights",
]

Kind = Literal["database", "schema", "table", "sequence", "function", "role"]

CONTROL_SCHEMA: Final = "syncline"
VERSION_TABLE: Final = "sync_schema_version"
"""Repeats `syncline.migrations`, which is slow to import."""

READ: Final = ("SELECT",)
CHANGE: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
KEEP: Final = ("SELECT", "INSERT", "UPDATE")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A graph's schema in one database. `tables`: those that its map reads there; None: unknown here."""

    schema: str
    tables: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Right:
    """Privileges on objects of one kind.

    `names` are objects of `schema`; None is every one there, and `ours` whether that includes names that
    begin with `sync_`. The database is the connection's. For `role` they are the roles to be a member of.
    """

    kind: Kind
    privileges: tuple[str, ...]
    why: str
    """Its purpose, in a few words."""
    schema: str = ""
    names: tuple[str, ...] | None = None
    ours: bool = False


def grant(kind: Kind, privileges: Sequence[str], place: str, role: str) -> str:
    """Return one GRANT, without the semicolon; `place` is quoted already."""
    if kind == "role":
        return f"GRANT {place} TO {quoted(role)}"
    return f"GRANT {', '.join(privileges)} ON {kind.upper()} {place} TO {quoted(role)}"


def worker_write_rights(places: Sequence[Place]) -> Iterator[Right]:
    """Yield what a syncing worker needs in a write-db."""
    yield Right(kind="database", privileges=("CONNECT",), why="connect")
    yield Right(
        kind="function",
        schema="pg_catalog",
        names=("pg_control_system", "pg_control_checkpoint"),
        privileges=("EXECUTE",),
        why="identify the cluster of the cursors",
    )
    yield Right(kind="schema", schema="syncline", privileges=("USAGE",), why="listen")
    yield Right(kind="table", schema="syncline", names=("listener",), privileges=KEEP, why="listen")
    for place in places:
        schema = place.schema
        yield Right(kind="schema", schema=schema, privileges=("USAGE",), why="read the graph")
        yield Right(
            kind="table", schema=schema, names=place.tables, privileges=READ, why="read the captured tables"
        )
        yield Right(
            kind="table",
            schema=schema,
            names=("sync_tombstone",),
            privileges=("SELECT", "DELETE"),
            why="read and prune deleted keys",
        )
        yield Right(
            kind="table",
            schema=schema,
            names=("sync_notify",),
            privileges=("SELECT", "UPDATE"),
            why="make writers notify, and mute them",
        )
        yield Right(
            kind="sequence", schema=schema, names=("sync_quiet",), privileges=("UPDATE",), why="mute writers"
        )
        yield Right(
            kind="table", schema=schema, names=("sync_position",), privileges=KEEP, why="store the position"
        )
        yield Right(
            kind="table", schema=schema, names=(VERSION_TABLE,), privileges=READ, why="compare revisions"
        )


def worker_graph_rights(places: Sequence[Place]) -> Iterator[Right]:
    """Yield what a syncing worker needs in a graph-db."""
    yield Right(kind="database", privileges=("CONNECT", "TEMPORARY"), why="connect, and stage batches")
    yield Right(kind="schema", schema="syncline", privileges=("USAGE",), why="call functions")
    yield Right(kind="function", schema="syncline", ours=True, privileges=("EXECUTE",), why="call functions")
    for place in places:
        schema = place.schema
        yield Right(kind="schema", schema=schema, privileges=("USAGE",), why="write the graph")
        yield Right(
            kind="table",
            schema=schema,
            ours=True,
            privileges=CHANGE,
            why="write the graph's rows and the bookkeeping tables",
        )
        yield Right(kind="sequence", schema=schema, ours=True, privileges=("USAGE",), why="number entries")


def worker_control_rights() -> Iterator[Right]:
    """Yield what a worker needs in the control plane's database."""
    schema = CONTROL_SCHEMA
    yield Right(kind="database", privileges=("CONNECT",), why="connect")
    yield Right(kind="schema", schema=schema, privileges=("USAGE",), why="read the control plane")
    yield Right(kind="table", schema=schema, names=(VERSION_TABLE,), privileges=READ, why="compare revisions")
    yield Right(
        kind="table", schema=schema, names=("graphs",), privileges=CHANGE, why="store the graphs' records"
    )
    yield Right(kind="table", schema=schema, names=("workers",), privileges=CHANGE, why="register workers")
    yield Right(
        kind="table",
        schema=schema,
        names=("required_providers",),
        privileges=("SELECT", "INSERT", "DELETE"),
        why="know which providers have no fallback",
    )
    yield Right(
        kind="table",
        schema=schema,
        names=("graph_audit",),
        privileges=("SELECT", "INSERT"),
        why="write the audit",
    )
    yield Right(
        kind="table",
        schema=schema,
        names=("maps",),
        privileges=("SELECT", "INSERT"),
        why="read and store maps",
    )
    yield Right(
        kind="table",
        schema=schema,
        names=("embedding_usage", "embedding_days"),
        privileges=CHANGE,
        why="book what embeddings use, and keep to budgets",
    )
    yield Right(
        kind="table",
        schema=schema,
        names=("graph_embeddings",),
        privileges=CHANGE,
        why="record what the graphs' vectors are made with",
    )
    yield Right(
        kind="table", schema=schema, names=("graph_rebuilds",), privileges=CHANGE, why="record rebuilds"
    )


def owner_rights(places: Sequence[Place] = ()) -> Iterator[Right]:
    """Yield what the migrating role needs in each database: it owns everything that it creates."""
    yield Right(
        kind="database", privileges=("CONNECT", "CREATE", "TEMPORARY"), why="create schemas and migrate them"
    )
    for place in places:
        # A schema that was there before, such as public, belongs to another role.
        yield Right(
            kind="schema", schema=place.schema, privileges=("USAGE", "CREATE"), why="create tables there"
        )


def writer_rights(places: Sequence[Place]) -> Iterator[Right]:
    """Yield what writers of graphs need in the write-db: nothing on Syncline's objects."""
    yield Right(kind="database", privileges=("CONNECT",), why="connect")
    for place in places:
        schema = place.schema
        yield Right(kind="schema", schema=schema, privileges=("USAGE",), why="write the graph")
        yield Right(kind="table", schema=schema, names=place.tables, privileges=CHANGE, why="write the graph")
        yield Right(kind="sequence", schema=schema, privileges=("USAGE",), why="number rows")


def reader_rights(places: Sequence[Place]) -> Iterator[Right]:
    """Yield what readers of graphs need in the graph-db: the rows, none of the bookkeeping tables."""
    yield Right(kind="database", privileges=("CONNECT",), why="connect")
    yield Right(kind="schema", schema="syncline", privileges=("USAGE",), why="ask what is visible")
    for place in places:
        yield Right(kind="schema", schema=place.schema, privileges=("USAGE",), why="read the graph")
        yield Right(kind="table", schema=place.schema, privileges=READ, why="read the graph")
