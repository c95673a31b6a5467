"""Foreseen: a graph-db as it looks once a first sync has listed the rows that it takes over.

Rows that no list has are somebody else's, so nothing can be compared with them before the first sync. That
lists those that stand under the id of a source row, or have its values in the natural key. Here the same is
done in a transaction that is rolled back: its own table `sync_row`, temporary, hides that of the bookkeeping,
and so does `sync_kept`, if stubs of another engine stand there.
Source rows are copied as a cycle would stage them, of the tables alone that a comparison asks for.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from syncline.engine.capture import read_rows
from syncline.engine.listing import identify
from syncline.engine.render.identity import Identity
from syncline.engine.render.statements import Cursor, SchemaStatements, TableStatements
from syncline.engine.table_map import SchemaMap
from syncline.provider import GraphSchema
from syncline.sql import literal, quoted, statements_of
from syncline.verify.snapshots import Side, ready
from syncline.verify.standing_stubs import StandingStubs

__all__ = ["Foreseen"]

_sql = statements_of("syncline.verify")

_ALL = 2**62
"""More transactions, and rows, than there are."""


class Foreseen:
    """One graph's target before its first sync."""

    def __init__(self, schema_map: SchemaMap, write: GraphSchema) -> None:
        self._map, self._write = schema_map, write
        self.stubs = StandingStubs()
        """Rows that the takeover lists as stubs."""
        self._statements = SchemaStatements(schema_map)

    @asynccontextmanager
    async def open(self, place: GraphSchema, tables: Collection[str]) -> AsyncIterator[Side]:
        """Yield a snapshot of the graph-db in which the rows of these tables and their parents are listed."""
        needed = self._needed(tables)
        names = [table.name for table in self._map if table.name in needed and table.listed]
        async with place.store.driver() as connection:
            writes = bool(names or self.stubs.counts)
            transaction = connection.transaction(isolation="repeatable_read", readonly=not writes)
            await transaction.start()
            try:
                side = await ready(place, connection)
                if names:
                    await self._list(side, place.schema, names)
                if self.stubs.counts:
                    await side.fetch(_sql("foreseen_kept", schema=quoted(place.schema)))
                    await side.fetch(_sql("foreseen_kept_index"))
                    await self.stubs.enter(side)
                yield side
            finally:
                if not connection.is_closed():
                    await transaction.rollback()

    def _needed(self, tables: Collection[str]) -> set[str]:
        needed: set[str] = set()
        waiting = list(tables)
        while waiting:
            name = waiting.pop()
            if name not in needed and name in {table.name for table in self._map}:
                needed.add(name)
                table = self._map[name]
                waiting += [*table.parents, *([table.into] if table.into else [])]
        return needed

    async def _list(self, side: Side, schema: str, names: list[str]) -> None:
        await side.fetch(_sql("foreseen_create", schema=quoted(schema)))
        await side.fetch(_sql("foreseen_known", schema=quoted(schema)), names)
        # Parents first: what a natural key refers to has its id in the list.
        for name in names:
            await self._enter(side, self._statements.tables[name])
            await side.fetch("ANALYZE pg_temp.sync_row")

    async def _enter(self, side: Side, table: TableStatements) -> None:
        connection = side.connection
        with side.store.errors_mapped():
            await connection.execute(table.create_stage)
            async with (
                self._write.store.driver() as source,
                read_rows(
                    source, table, place=self._write, cursor=Cursor(), horizon=_ALL, limit=_ALL
                ) as reading,
            ):
                await reading.copy_into(connection, table.stage_name, table.stage_columns)
            for statement in table.waiting.resolve:
                await connection.execute(statement)
            # Not by the target's default: a sequence does not roll back.
            await identify(connection, table.listing, assigning=False)
            own = Identity(self._map, table.table)
            entered = _sql(
                "foreseen_enter",
                table=literal(table.table.name),
                key=table.key,
                id=table.listing.entry_id,
                stage=table.stage,
                target=quoted(table.table.target),
                own=own.column,
                staged=own.staged,
            )
            await connection.execute(entered)
            await connection.execute(_sql("foreseen_entered", stage=table.stage))
