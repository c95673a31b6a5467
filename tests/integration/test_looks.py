"""A cycle that finds its graph taken leaves a mark, and whoever has the graph looks once more before it ends.

The write-db and the graph-db are on servers of their own: on one, the horizon that the graph-db's transactions
hold back hides what is lost.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.embedding_development import DevelopmentEmbedding
from syncline.engine import run_cycle
from syncline.messages import CycleStatus, SyncResult
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, read, write
from syncline.testing.one_graph import prepare_templates

MARKS = "SELECT coalesce(pg_sequence_last_value('sync_look'), 0) AS marks"
FACT = "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready')"
NODE = "INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')"


@pytest.fixture(scope="module")
def write_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A second server, for write-dbs alone."""
    bin_dir: Path | None = request.config.getoption("postgres_bin", None)
    with tempfile.TemporaryDirectory(prefix="syncline-pg-write-") as folder:
        server = PostgresServer(Path(folder) / "data", bin_dir=bin_dir)
        try:
            running = server.start()
            running.psql("ALTER SYSTEM SET fsync = off")
            running.psql("SELECT pg_reload_conf()")
            yield running
        finally:
            server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def write_template(write_server: EmbeddedPostgres) -> str:
    template, _ = await prepare_templates(write_server)
    return template


@pytest_asyncio.fixture(loop_scope="session")
async def apart(
    graph: TestGraph, write_server: EmbeddedPostgres, write_template: str, unique: Callable[[str], str]
) -> AsyncIterator[TestGraph]:
    """The graph, with its write-db on the other server."""
    name = unique("write")
    write_server.psql(f'CREATE DATABASE "{name}" TEMPLATE "{write_template}"')
    dsn = write_server.dsn(name)
    store = PostgresStore("write", SecretStr(dsn), pool_size=4, application_name="syncline-test")
    yield replace(graph, write=store, write_dsn=dsn)
    await store.close()


class Slow(DevelopmentEmbedding):
    """An embedding service that answers once it is let."""

    def __init__(self) -> None:
        super().__init__(64)
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> numpy.ndarray:
        self.asked.set()
        await self.may.wait()
        return await super().embed(texts)


@asynccontextmanager
async def embedding(graph: TestGraph, **fields: object) -> AsyncIterator["asyncio.Task[SyncResult]"]:
    """A cycle that has read all of its write-db, and waits for its embeddings until this is left."""
    slow = Slow()
    await write(graph, FACT)
    cycle = asyncio.create_task(run_cycle(replace(graph.context(**fields), embedding=slow)))  # type: ignore[arg-type]
    await asyncio.wait_for(slow.asked.wait(), 10)
    yield cycle
    slow.may.set()
    await asyncio.wait_for(asyncio.wait({cycle}), 10)


async def nodes(graph: TestGraph) -> set[str]:
    return {row["key"] for row in await read(graph, "SELECT key FROM nodes")}


async def marks(graph: TestGraph) -> int:
    return int((await read(graph, MARKS))[0]["marks"])


async def test_holder_looks_again_for_a_loser(apart: TestGraph) -> None:
    """What was written after the holder's last look arrives by the holder, and is counted as its own."""
    async with embedding(apart) as holder:
        await write(apart, NODE, "late")
        assert (await run_cycle(apart.context())).status is CycleStatus.ALREADY_RUNNING
        assert await nodes(apart) == set()
    result = holder.result()
    assert await nodes(apart) == {"late"}
    assert (result.status, result.rows, result.look_owed) == (CycleStatus.DRAINED, 2, False)
    assert {table.table: table.rows for table in result.tables if table.rows} == {"facts": 1, "nodes": 1}
    assert (result.vectors.upserted, result.vectors.embedded, result.vectors.pending) == (2, 2, 0)


async def test_many_losers_cost_one_more_look(apart: TestGraph) -> None:
    async with embedding(apart) as holder:
        for node in ("a", "b", "c"):
            await write(apart, NODE, node)
        losers = await asyncio.gather(*(run_cycle(apart.context()) for _ in range(3)))
        assert {loser.status for loser in losers} == {CycleStatus.ALREADY_RUNNING}
        assert await marks(apart) == 3
    result = holder.result()
    assert (result.rows, result.batches) == (4, 2)
    assert await nodes(apart) == {"a", "b", "c"}
