"""Connections whose search_path is one graph's schema, and the lock that makes its cycles take turns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from syncline.engine.form import enter, leave
from syncline.provider import GraphSchema

__all__ = ["LOCK", "UNLOCK", "on_schema"]

LOCK = "SELECT pg_try_advisory_lock(hashtextextended('syncline:' || current_schema(), 0))"
UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('syncline:' || current_schema(), 0))"


@asynccontextmanager
async def on_schema(place: GraphSchema) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection whose search_path is the graph's schema, and give it back without it.

    Values are written and read in their one form meanwhile, whatever the role or the database is set to.
    """
    async with place.store.driver() as connection:
        await connection.execute(enter(local=False), place.schema)
        yield connection
        await connection.execute(leave())
