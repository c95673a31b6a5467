"""Connections whose search_path is one graph's schema, and the lock that makes its cycles take turns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from syncline.provider import GraphSchema

__all__ = ["BY_INDEX", "LOCK", "UNLOCK", "by_index", "on_schema"]

LOCK = "SELECT pg_try_advisory_lock(hashtextextended('syncline:' || current_schema(), 0))"
UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('syncline:' || current_schema(), 0))"
BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
"""For a transaction that looks entries up by key or reads them in order, of a table whose statistics are missing or
old: every other way reads all of it for each batch."""


@asynccontextmanager
async def by_index(connection: asyncpg.Connection, *, readonly: bool = False) -> AsyncIterator[None]:
    """Enter a transaction whose plans go by an index where one can answer."""
    async with connection.transaction(readonly=readonly):
        await connection.execute(BY_INDEX)
        yield


@asynccontextmanager
async def on_schema(place: GraphSchema) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection whose search_path is the graph's schema, and give it back without it."""
    async with place.store.driver() as connection:
        await connection.execute("SELECT set_config('search_path', quote_ident($1), false)", place.schema)
        yield connection
        await connection.execute("RESET search_path")
