"""Rows of others in the tables of a graph: no cycle makes them, so a swap of schemas takes them away."""

from collections.abc import AsyncIterator, Sequence

import asyncpg

from syncline.engine.render.identity import Identity
from syncline.engine.render.links import LinkTable
from syncline.engine.table_map import SchemaMap
from syncline.provider import GraphSchema
from syncline.sql import quoted, statements_of

__all__ = ["rows_of_others"]

_sql = statements_of("syncline.shadow")


async def rows_of_others(live: GraphSchema, shadow: GraphSchema, schema_map: SchemaMap) -> Sequence[str]:
    """Return where others have rows or links in the live tables, or marked ones that only those have.

    In sentences; while there is no shadow, all marked rows count.
    """
    look = _Look(live, shadow, schema_map)
    async with live.store.driver() as connection:
        return [
            *[
                f"the shadow has none of the links that others made in '{name}'"
                async for name in look.links(connection)
            ],
            *[
                f"the shadow has none of the rows that others have in '{name}'"
                async for name in look.rows(connection)
            ],
            *[
                f"the shadow has not all of the rows that are marked in '{name}'"
                async for name in look.marked(connection)
            ],
        ]


class _Look:
    def __init__(self, live: GraphSchema, shadow: GraphSchema, schema_map: SchemaMap) -> None:
        self._live, self._shadow, self._map = live, shadow, schema_map

    async def links(self, connection: asyncpg.Connection) -> AsyncIterator[str]:
        """Yield the link tables with links of others."""
        for table in self._map:
            for links in table.links:
                full = LinkTable(self._map, table, links)
                query = full.of_others(self._live.schema)
                if full.ours and await self._finds(connection, links.table, query):
                    yield links.table

    async def rows(self, connection: asyncpg.Connection) -> AsyncIterator[str]:
        """Yield the tables with rows of others."""
        for table in self._map:
            if not table.listed:
                continue
            is_ours = Identity(self._map, table, schema=self._live.schema).is_ours("t")
            query = _sql("rows_of_others", live=self._place(table.name), is_ours=is_ours)
            if await self._finds(connection, table.name, query):
                yield table.name

    async def marked(self, connection: asyncpg.Connection) -> AsyncIterator[str]:
        """Yield the tables with marked rows that the shadow, which came later, has not."""
        made = (await connection.fetchrow(_sql("scratch"), self._shadow.schema))["made"]
        places = {"live": quoted(self._live.schema), "shadow": quoted(self._shadow.schema)}
        query = _sql("marked_only_here", **places) if made else _sql("marked_here", live=places["live"])
        for table in self._map:
            if table.marked and await connection.fetchval(query, table.name):
                yield table.name

    async def _finds(self, connection: asyncpg.Connection, name: str, query: str) -> bool:
        """Return whether the live schema has this table, and the query finds something in it."""
        there = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", self._place(name))
        return bool(there and await connection.fetchval(query))

    def _place(self, name: str) -> str:
        return f"{quoted(self._live.schema)}.{quoted(name)}"
