"""Connections to a write-db whose search_path is one graph's schema."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from syncline.provider import GraphSchema

__all__ = ["BY_INDEX", "SCHEMA_PATH", "by_index", "looking_up", "on_schema"]

BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
"""For a transaction that looks entries up by key or reads them in order. Any other way reads all of a table,
and is what the planner takes where it lacks statistics."""

SCHEMA_PATH_OF_SESSION = """
SELECT set_config('search_path', quote_ident($1), false), to_regclass(quote_ident($1) || '.sync_state')
"""
"""Puts a schema on the search_path, and refuses one that the role may not use: else it is left out of it
without a word, and its tables do not exist."""
SCHEMA_PATH = SCHEMA_PATH_OF_SESSION.replace("false", "true")
"""The same until the transaction ends."""


@asynccontextmanager
async def by_index(connection: asyncpg.Connection, *, readonly: bool = False) -> AsyncIterator[None]:
    """Enter a transaction whose plans go by an index where one can answer."""
    async with connection.transaction(readonly=readonly):
        await connection.execute(BY_INDEX)
        yield


@asynccontextmanager
async def looking_up(connection: asyncpg.Connection, *, few: bool) -> AsyncIterator[None]:
    """Have rows, if they are `few`, look up what they are joined with by index, in the caller's transaction.

    Without statistics the planner takes each for many, and reads a table of any size instead. Only for
    statements in which every join has an index: others would compare each row with each.
    """
    if few:
        await connection.execute(_set("off"))
    yield
    if few:
        await connection.execute(_set("DEFAULT"))


def _set(value: str) -> str:
    return ";".join(f"SET LOCAL enable_{way} TO {value}" for way in ("hashjoin", "mergejoin", "seqscan"))


@asynccontextmanager
async def on_schema(place: GraphSchema) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection whose search_path is the graph's schema, and give it back without it."""
    async with place.store.driver() as connection:
        await connection.execute(SCHEMA_PATH_OF_SESSION, place.schema)
        yield connection
        # As the session began.
        await connection.execute("SET search_path = pg_catalog, pg_temp")
