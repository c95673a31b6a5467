"""Lag of a graph and its shadow: what each has yet to do, and what one has that the other lacks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.engine.capture import Pending, ask_pending
from syncline.engine.render.statements import DELETES, Cursor, SchemaStatements
from syncline.engine.schema_transaction import SCHEMA_PATH
from syncline.engine.state import Ledger, read_ledger
from syncline.engine.table_map import SchemaMap
from syncline.errors import StoreRejected
from syncline.maps.key_types import KeyType, Kind, key_place
from syncline.provider import GraphSchema
from syncline.quoting import counted
from syncline.sql import quoted, statements_of

__all__ = ["Progress", "behind_live", "lags", "progress_of", "progress_of_both", "undone", "unknown_lag"]

_sql = statements_of("syncline.shadow")


_SEQ = KeyType("bigint", Kind.INTEGER)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state of one side at one moment."""

    ledger: Ledger
    pending: Pending
    points: int
    """Number of outbox entries."""
    dead: int
    """Number of dead letters."""
    parked: int
    """Number of parked rows and references."""
    key_types: Mapping[str, Sequence[KeyType]]
    """Table -> types of its key."""

    def place(self, name: str) -> tuple[int, tuple[object, ...]]:
        """Return something that orders how far a table, or the deleted keys, were read."""
        load = self.ledger.loads.get(name)
        cursor = self.ledger.cursors[name] if load is None else load.cursor
        types = (_SEQ,) if name == DELETES else self.key_types[name]
        return cursor.xid, key_place(cursor.key or (), types)

    @property
    def untouched(self) -> bool:
        """Whether nothing was ever read, although the write-db has rows."""
        return bool(self.tables) and all(cursor == Cursor() for cursor in self.ledger.cursors.values())

    @property
    def tables(self) -> frozenset[str]:
        """Tables with rows still to be read."""
        return self.pending.tables | self.ledger.loads.keys() | ({DELETES} if self.pending.deletes else set())


async def progress_of(
    connection: asyncpg.Connection, place: GraphSchema, write: GraphSchema, statements: SchemaStatements
) -> Progress:
    """Return a side's progress; `connection` is to its database, with its schema on the search_path."""
    ledger = await read_ledger(connection, tables=statements.tables, run_id="")
    owed = await connection.fetchrow(_sql("owed", schema=quoted(place.schema)))
    tables = list(statements.tables)
    async with write.store.driver() as source:
        pending = await ask_pending(source, statements, write.schema, ledger, tables)
    types = {name: table.table.key_types for name, table in statements.tables.items()}
    return Progress(ledger=ledger, pending=pending, **owed, key_types=types)


async def progress_of_both(
    connection: asyncpg.Connection,
    live: GraphSchema,
    shadow: GraphSchema,
    write: GraphSchema,
    statements: SchemaStatements,
) -> tuple[Progress, Progress]:
    """Return the progress of the live graph, then of its shadow, within a transaction of their database.

    The shadow's schema is on its search_path afterwards. Raise StoreError.
    """
    found = []
    # What the live graph has read has to be there for what the shadow lacks of it to be seen.
    write = write.with_floor()
    for place in (live, shadow):
        await connection.execute(SCHEMA_PATH, place.schema)
        found.append(await progress_of(connection, place, write, statements))
        write.store.floor.rise(found[-1].ledger.reached)
    return found[0], found[1]


def unknown_lag(error: StoreRejected) -> str:
    """Return, in words, that a store has refused to tell what a shadow lacks."""
    return f"whether it is behind is unknown: {error}"


async def behind_live(services: Services, graph: Graph, schema_map: SchemaMap) -> Sequence[str]:
    """Return what a graph's shadow lacks of the live graph at this moment, in words; raise StoreError.

    Rows that are parked in it alone count: what they wait for may never come.
    """
    live, shadow = services.target_schema(graph), services.target_schema(graph, shadow=True)
    write, statements = services.write_schema(graph), SchemaStatements(schema_map)
    async with live.store.driver() as connection, connection.transaction():
        try:
            ahead, progress = await progress_of_both(connection, live, shadow, write, statements)
        except StoreRejected as error:
            return [unknown_lag(error)]
    more = progress.parked - ahead.parked
    return [*lags(progress, ahead), *([f"{counted(more, 'more row')} are parked in it"] if more > 0 else [])]


def undone(side: Progress) -> Iterator[str]:
    """Yield what a side has yet to do, in words."""
    if side.untouched:
        yield "has never been synced"
        return
    if side.tables:
        yield f"has yet to read {', '.join(sorted(side.tables))}"
    if side.pending.held:
        yield "waits for an open transaction of the write-db"
    if side.ledger.comparisons:
        yield f"has yet to compare the keys of {', '.join(sorted(side.ledger.comparisons))}"
    if side.ledger.withheld:
        yield f"withholds the removal of rows of {', '.join(sorted(side.ledger.withheld))}"
    if side.ledger.requeued or side.ledger.released:
        yield "has rows to retry"
    if side.points:
        yield f"has {counted(side.points, 'point')} to write to the vector store"


def lags(shadow: Progress, live: Progress) -> Iterator[str]:
    """Yield what the shadow lacks of the live graph, in words; what neither has read does not count."""
    if shadow.untouched:
        yield "it has never been synced"
        return
    behind = sorted(name for name in shadow.tables if _passed(live, shadow, name))
    if behind:
        yield f"it has yet to read what the live graph has: {', '.join(behind)}"
    elif shadow.pending.held and live.ledger.reached > shadow.pending.horizon:
        yield "it has yet to look at what the live graph has read"
    if shadow.ledger.comparisons:
        yield f"it has yet to compare the keys of {', '.join(sorted(shadow.ledger.comparisons))}"
    if shadow.points:
        yield f"it has {counted(shadow.points, 'point')} to write to the vector store"
    if shadow.dead > live.dead:
        yield f"{shadow.dead:,} rows were rejected in it, {live.dead:,} in the live graph"


def _passed(ahead: Progress, behind: Progress, name: str) -> bool:
    """Return whether one side has read more of a table that the other has yet to read."""
    if name not in ahead.tables:
        return True
    return ahead.place(name) > behind.place(name)
