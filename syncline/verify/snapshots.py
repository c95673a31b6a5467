"""Snapshots: a consistent view of both databases of a graph, with the cursors at that moment."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from syncline.engine.capture import needing_deleted_keys, pending_at
from syncline.engine.render.statements import Cursor, Load, SchemaStatements, positions_of
from syncline.engine.schema_problems import read_footing
from syncline.engine.state import read_ledger
from syncline.provider import GraphSchema
from syncline.sql import statements_of
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import read_settings

__all__ = [
    "Opening",
    "Side",
    "Snapshots",
    "open_side",
    "open_snapshot",
    "open_snapshots",
    "open_source",
    "ready",
]

_sql = statements_of("syncline.verify")

_PREFETCH = 1000


@dataclass(frozen=True)
class Side:
    """A connection in a transaction on a graph's schema; its errors name its store."""

    store: PostgresStore
    connection: asyncpg.Connection

    async def fetch(self, query: str, *parameters: object) -> list[asyncpg.Record]:
        """Return all rows of a query."""
        with self.store.errors_mapped():
            return list(await self.connection.fetch(query, *parameters))

    async def stream(self, query: str, *parameters: object) -> AsyncIterator[asyncpg.Record]:
        """Yield the rows of a query, with only a few in memory at a time."""
        with self.store.errors_mapped():
            async for record in self.connection.cursor(query, *parameters, prefetch=_PREFETCH):
                yield record


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    """A snapshot of each database, the graph-db's first.

    Rows, bookkeeping and cursors of the graph-db are committed together, so its snapshot shows exactly what
    was read of the write-db, whose snapshot is later: rows after the cursors there are pending.
    """

    target: Side
    write: Side
    cursors: Mapping[str, Cursor]
    schema: str
    """The write-db's schema, with which statements qualify their sources."""
    rescan: bool
    """Whether the cursors belong to another write-db, and were reset to the beginning here."""
    filling: frozenset[str] = frozenset()
    """Tables whose rows are being read again in the background, for columns that were added to the map."""
    loads: Mapping[str, Load] = field(default_factory=dict)
    """Table -> what is left of its load."""


Opening = Callable[[GraphSchema, Collection[str]], AbstractAsyncContextManager[Side]]
"""Opens a snapshot of the graph-db to compare these tables."""


def open_snapshot(
    target: GraphSchema, tables: Collection[str], opening: Opening | None
) -> AbstractAsyncContextManager[Side]:
    """Return a snapshot of the graph-db, as `opening` shows it if there is one."""
    return open_side(target, snapshot=True) if opening is None else opening(target, tables)


@asynccontextmanager
async def open_snapshots(
    write: GraphSchema,
    target: GraphSchema,
    statements: SchemaStatements,
    tables: Sequence[str],
    *,
    opening: Opening | None = None,
) -> AsyncIterator[Snapshots]:
    """Yield both snapshots, to compare these tables; takes no lock that a cycle or writer needs.

    With `opening`, which opens the graph-db, what a cycle would read now counts as read, of tables that none
    has read yet.
    """
    async with open_snapshot(target, tables, opening) as graph_db:
        ledger = await read_ledger(graph_db.connection, tables=statements.tables, run_id="")
        filling = await graph_db.fetch(_sql("filling"))
        async with open_source(write, statements.sources(write.schema, tables)) as write_db:
            # Only cluster and horizon are needed: pending rows are found table by table.
            positions = (await read_footing(write_db.connection, write.schema)).readable
            if positions:
                await write_db.connection.execute(read_settings([positions_of(write.schema)]))
            pending = await pending_at(
                write_db.connection, statements, write.schema, ledger, (), positions=positions
            )
            rescan = ledger.foreign_to(pending.cluster, pending.next_xid, pending.known) is not None
            if rescan:
                ledger = ledger.rescanned()
            cursors = dict(ledger.cursors)
            if opening is not None:
                read = Cursor(xid=pending.horizon)
                cursors |= {name: read for name in cursors if name not in ledger.stored}
            yield Snapshots(
                target=graph_db,
                write=write_db,
                schema=write.schema,
                cursors=cursors,
                rescan=rescan,
                filling=frozenset(row["table_name"] for row in filling),
                loads=ledger.loads,
            )


@asynccontextmanager
async def open_side(place: GraphSchema, *, snapshot: bool) -> AsyncIterator[Side]:
    """Yield a connection in a transaction: a read-only snapshot, or an ordinary one."""
    kind = "repeatable_read" if snapshot else "read_committed"
    async with (
        place.store.driver() as connection,
        connection.transaction(isolation=kind, readonly=snapshot),
    ):
        yield await ready(place, connection)


async def ready(place: GraphSchema, connection: asyncpg.Connection) -> Side:
    """Return the side of a connection in a transaction, with the settings of comparisons."""
    await connection.execute("SELECT set_config('search_path', quote_ident($1), true)", place.schema)
    await connection.fetch(_sql("settings"))
    return Side(place.store, connection)


@asynccontextmanager
async def open_source(place: GraphSchema, tables: Sequence[str]) -> AsyncIterator[Side]:
    """Yield a write-db connection with one snapshot of `tables`, qualified and quoted.

    Only pg_catalog is searched, and no other role's code runs: see `syncline.stores.tenants`.
    """
    async with (
        place.store.driver() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        with needing_deleted_keys(place.schema):
            await connection.execute(read_settings(tables))
        await connection.fetch(_sql("settings"))
        yield Side(place.store, connection)
