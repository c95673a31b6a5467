"""A session that holds a lock of a graph and says nothing more, as that of a frozen worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from syncline.testing.graphs import TestGraph

__all__ = ["holding"]


@asynccontextmanager
async def holding(
    graph: TestGraph, lock: str, name: str, *, role: str = "postgres"
) -> AsyncIterator[asyncpg.Connection]:
    """Run the script `lock` in a session of this name and role on the graph-db, which is there while entered."""
    dsn = graph.target_dsn.replace("postgres@", f"{role}@")
    session = await asyncpg.connect(dsn, server_settings={"application_name": name})
    try:
        await session.execute(lock)
        yield session
    finally:
        session.terminate()
