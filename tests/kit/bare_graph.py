"""A graph whose tables a test makes itself, in two new databases."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.testing.graphs import TestGraph


@asynccontextmanager
async def bare_graph(new_database: Callable[..., str], folder: Path) -> AsyncIterator[TestGraph]:
    """Open the stores of a graph without a table in them; its points are kept under `folder`."""
    write_dsn, target_dsn = new_database(), new_database()
    write, target = (
        PostgresStore(name, SecretStr(dsn), pool_size=4, application_name="syncline-test")
        for name, dsn in (("write", write_dsn), ("graph", target_dsn))
    )
    vectors = EmbeddedQdrantStore("vectors", folder / "qdrant")
    yield TestGraph(
        write=write,
        target=target,
        write_dsn=write_dsn,
        target_dsn=target_dsn,
        vectors=vectors,
        embedding=DevelopmentEmbedding(16),
    )
    for store in (vectors, write, target):
        await store.close()


async def made_by(graph: TestGraph, *, write: str, target: str) -> None:
    """Run a script in each of the graph's databases, in which schema `kg` is there."""
    for opened, script in ((graph.connect_write(), write), (graph.connect_target(), target)):
        connection = await opened
        await connection.execute("CREATE SCHEMA IF NOT EXISTS kg")
        await connection.execute(script)
        await connection.close()
