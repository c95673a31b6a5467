"""pytest fixtures: a graph over a real write-db, graph-db and embedded vector store."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio
from pydantic import SecretStr

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.testing.one_graph import (
    SCHEMA,
    KeptSessions,
    TestGraph,
    hang_up,
    on_target,
    prepare_templates,
    read,
    write,
)

__all__ = ["SCHEMA", "TestGraph", "graph", "graph_templates", "on_target", "read", "write"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def graph_templates(postgres_server: EmbeddedPostgres) -> tuple[str, str]:
    """Names of the template databases of a migrated write-db and graph-db."""
    return await prepare_templates(postgres_server)


@pytest_asyncio.fixture(loop_scope="session")
async def graph(
    graph_templates: tuple[str, str], new_database: Callable[..., str], tmp_path: Path
) -> AsyncIterator[TestGraph]:
    """A graph with empty, migrated stores of its own."""
    write_dsn, target_dsn = (new_database(template) for template in graph_templates)
    write = PostgresStore("write", SecretStr(write_dsn), pool_size=4, application_name="syncline-test")
    target = PostgresStore("graph", SecretStr(target_dsn), pool_size=4, application_name="syncline-test")
    vectors = EmbeddedQdrantStore("vectors", tmp_path / "qdrant")
    graph = TestGraph(
        write=write,
        target=target,
        write_dsn=write_dsn,
        target_dsn=target_dsn,
        vectors=vectors,
        embedding=DevelopmentEmbedding(64),
        kept=KeptSessions(),
    )
    yield graph
    await hang_up(graph)
    await vectors.close()
    await write.close()
    await target.close()
