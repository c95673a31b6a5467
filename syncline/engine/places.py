"""Connections to a write-db whose search_path is one graph's schema."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from syncline.provider import GraphSchema

__all__ = ["on_schema"]


@asynccontextmanager
async def on_schema(place: GraphSchema) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection whose search_path is the graph's schema, and give it back without it."""
    async with place.store.driver() as connection:
        await connection.execute("SELECT set_config('search_path', quote_ident($1), false)", place.schema)
        yield connection
        await connection.execute("SET search_path = pg_catalog, pg_temp")  # as the session began
