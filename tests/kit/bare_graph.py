"""A graph whose tables a test makes itself, in two new databases."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.migrations import migrate_bookkeeping
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.testing.graphs import TestGraph

_TEMPLATE = "template_bookkeeping"
_servers_with_template: set[str] = set()


@asynccontextmanager
async def bare_graph(new_database: Callable[..., str], folder: Path) -> AsyncIterator[TestGraph]:
    """Open the stores of a graph without a table in them; its points are kept under `folder`.

    Its graph-db has the bookkeeping tables of schema `kg`: who migrates them again finds all done.
    """
    write_dsn = new_database()
    target_dsn = new_database(await _template(write_dsn))
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


async def _template(dsn: str) -> str:
    """Return the name of a database of this server that has the bookkeeping tables; the first makes it."""
    server = dsn.partition("?")[2]
    if server not in _servers_with_template:
        connection = await asyncpg.connect(dsn)
        await connection.execute(f'CREATE DATABASE "{_TEMPLATE}"')
        await connection.close()
        there = SecretStr(re.sub(r"/\w+\?", f"/{_TEMPLATE}?", dsn))
        store = PostgresStore(_TEMPLATE, there, pool_size=1, application_name="template")
        await migrate_bookkeeping(store, "kg")
        await store.close()
        _servers_with_template.add(server)
    return _TEMPLATE
