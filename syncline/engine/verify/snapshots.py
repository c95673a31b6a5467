"""Snapshots: one moment of a graph in both of its databases, and how far the cursors had come at it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from syncline.engine.capture import ask_pending
from syncline.engine.fit import read_footing
from syncline.engine.ledger import read_ledger
from syncline.engine.statements import Cursor, SchemaStatements
from syncline.engine.verify.template import sql
from syncline.provider import GraphSchema
from syncline.stores.postgres import PostgresStore

__all__ = ["Side", "Snapshots", "open_side", "open_snapshots"]

_PREFETCH = 1000


@dataclass(frozen=True)
class Side:
    """A connection in a transaction on a graph's schema; what fails on it names its store."""

    store: PostgresStore
    connection: asyncpg.Connection

    async def fetch(self, query: str, *parameters: object) -> list[asyncpg.Record]:
        """Return all rows of a query."""
        with self.store.errors_mapped():
            return list(await self.connection.fetch(query, *parameters))

    async def stream(self, query: str, *parameters: object) -> AsyncIterator[asyncpg.Record]:
        """Yield the rows of a query, of which this process never holds more than a few."""
        with self.store.errors_mapped():
            async for record in self.connection.cursor(query, *parameters, prefetch=_PREFETCH):
                yield record


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    """Both databases at one moment each, the graph-db's first.

    Rows, books and cursors of the graph-db are committed together, so its snapshot says exactly what was read
    of the write-db, whose snapshot is later: what the cursors have not passed there is on its way.
    """

    target: Side
    write: Side
    cursors: Mapping[str, Cursor]
    rescan: bool
    """Whether the cursors are of another write-db, so that they were put back to the beginning here."""


@asynccontextmanager
async def open_snapshots(
    write: GraphSchema, target: GraphSchema, statements: SchemaStatements
) -> AsyncIterator[Snapshots]:
    """Yield both snapshots; nothing is locked by them that a cycle or a writer needs."""
    async with open_side(target, snapshot=True) as graph_db:
        ledger = await read_ledger(graph_db.connection, tables=statements.tables, run_id="")
        async with open_side(write, snapshot=True) as write_db:
            # Only the cluster and its horizon are asked for: what is pending is looked at table by table.
            positions = (await read_footing(write_db.connection, write.schema)).readable
            pending = await ask_pending(
                write_db.connection, statements, write.schema, ledger, (), positions=positions
            )
            rescan = ledger.foreign_to(pending.cluster, pending.horizon, pending.known) is not None
            if rescan:
                ledger = ledger.rescanned()
            yield Snapshots(target=graph_db, write=write_db, cursors=ledger.cursors, rescan=rescan)


@asynccontextmanager
async def open_side(place: GraphSchema, *, snapshot: bool) -> AsyncIterator[Side]:
    """Yield a connection in a transaction: one that sees one moment and cannot write, or an ordinary one."""
    kind = "repeatable_read" if snapshot else "read_committed"
    async with (
        place.store.driver() as connection,
        connection.transaction(isolation=kind, readonly=snapshot),
    ):
        await connection.fetch(sql("settings"), place.schema)
        yield Side(place.store, connection)
