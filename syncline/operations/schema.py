"""One transaction on a graph's schema, for what people ask and do by hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from syncline.engine.places import SCHEMA_PATH
from syncline.provider import GraphSchema
from syncline.sqltext import Statements, statements_of

__all__ = ["acting", "reading", "sql"]

sql: Statements = statements_of("syncline.operations")


@asynccontextmanager
async def reading(place: GraphSchema) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection that sees one moment of the graph's schema, and that cannot write."""
    async with (
        place.store.driver() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await _enter(connection, place)
        yield connection


@asynccontextmanager
async def acting(place: GraphSchema) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection in a transaction on the graph's schema that commits at the end."""
    async with place.store.driver() as connection, connection.transaction():
        await _enter(connection, place)
        yield connection


async def _enter(connection: asyncpg.Connection, place: GraphSchema) -> None:
    await connection.execute(SCHEMA_PATH, place.schema)
