"""A real PgBouncer between the product and its Postgres: session mode works, no other mode is used."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from pydantic import SecretStr

from syncline.capture.listen.connection import ListenConnection
from syncline.engine import run_cycle
from syncline.errors import PoolerUnsupported
from syncline.messages.base import GraphRef
from syncline.messages.sync import CycleStatus
from syncline.migrations import migrate_control, migrate_graph, migrate_write
from syncline.operator.health.check import CheckStatus, bounded
from syncline.operator.health.postgres import check_postgres
from syncline.provider import GraphSchema, GraphVectors, SyncContext
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, write

if TYPE_CHECKING:
    from conftest import Pooler

GRAPHS = [f"g{number}" for number in range(8)]


@asynccontextmanager
async def opened(dsn: str, name: str = "write", pool_size: int = 2) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(name, SecretStr(dsn), pool_size=pool_size, application_name="syncline-test")
    yield store
    await store.close()


@pytest.mark.parametrize("pool_size", [1, 2, 5])
async def test_session_mode_by_default(
    pooler: "Callable[..., Pooler]", new_database: Callable[..., str], pool_size: int
) -> None:
    """A pooler that assigns sessions takes our connections as it is installed, however few it has."""
    async with opened(pooler("session", pool_size=pool_size).through(new_database())) as store:
        for _ in range(2):
            async with store.driver() as connection:
                assert await connection.fetchval("SELECT current_setting('row_security')") == "off"
                assert await connection.fetchval("SHOW application_name") == "syncline-test"
            await store.close()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize(("pool_size", "round_robin"), [(1, 0), (2, 0), (2, 1), (5, 0), (5, 1)])
async def test_other_modes_refused(
    pooler: "Callable[..., Pooler]",
    new_database: Callable[..., str],
    mode: str,
    pool_size: int,
    round_robin: int,
) -> None:
    """Whatever hands out the sessions, nothing is done with them, and the sentence has the store and the fix."""
    running = pooler(mode, pool_size=pool_size, server_round_robin=round_robin)
    dsn = running.through(new_database())
    async with opened(dsn) as store:

        async def take() -> None:
            async with store.driver():
                raise AssertionError("a connection was given out")

        for _ in range(3):
            with pytest.raises(PoolerUnsupported) as refused:
                await take()
        # Another worker may have the server's own port.
        assert (refused.value.store, refused.value.retryable) == ("write", True)
        assert "pool_mode" in str(refused.value)
        ways: list[Callable[[], Awaitable[object]]] = [
            lambda: store.alone("listener").__aenter__(),
            lambda: migrate_write(store, "kg"),
            lambda: migrate_graph(store, "kg"),
            lambda: migrate_control(store),
        ]
        for way in ways:
            with pytest.raises(PoolerUnsupported):
                await way()
        examined = await bounded(
            "write-db",
            10,
            lambda: check_postgres("write-db", store, wanted=2, setting="SYNCLINE_WRITE_DSN", writers=True),
            fix="Bring the server up.",
        )
        assert [(check.status, check.fix) for check in examined] == [
            (CheckStatus.FAIL, PoolerUnsupported.fix)
        ]


@pytest.fixture
async def graphs(
    graph: TestGraph, new_database: Callable[..., str]
) -> AsyncIterator[Callable[[str, str], list[SyncContext]]]:
    """A function `(write dsn, graph dsn) -> contexts`: eight graphs of one write-db and one graph-db."""
    for schema in GRAPHS:
        await migrate_write(graph.write, schema)
        await migrate_graph(graph.target, schema)
        async with graph.write.driver() as connection:
            await connection.execute(
                f"INSERT INTO {schema}.write_raw_sources (id, title)"
                f" SELECT '{schema}-' || i, '{schema}' FROM generate_series(1, 300) i"
            )
    stores: list[PostgresStore] = []

    def contexts(write: str, target: str) -> list[SyncContext]:
        made = []
        for number, schema in enumerate(GRAPHS):
            pair = [
                PostgresStore(name, SecretStr(dsn), pool_size=1, application_name="syncline-test")
                for name, dsn in (("write", write), ("graph", target))
            ]
            stores.extend(pair)
            context = graph.context(batch_rows=50)
            made.append(
                replace(
                    context,
                    graph=GraphRef(id=UUID(int=number), slug=schema),
                    write=GraphSchema(store=pair[0], schema=schema),
                    target=GraphSchema(store=pair[1], schema=schema),
                    vectors=GraphVectors(store=context.vectors.store, prefix=f"{schema}_"),
                )
            )
        return made

    yield contexts
    for store in stores:
        await store.close()


async def titles(graph: TestGraph) -> dict[str, set[str]]:
    async with graph.target.driver() as connection:
        found = {}
        for schema in GRAPHS:
            rows = await connection.fetch(f"SELECT DISTINCT title FROM {schema}.raw_sources")
            found[schema] = {row["title"] for row in rows}
        return found


@pytest.mark.parametrize("pool_size", [1, 2])
async def test_transaction_mode_mixes_no_graphs(
    pooler: "Callable[..., Pooler]",
    graph: TestGraph,
    graphs: Callable[[str, str], list[SyncContext]],
    pool_size: int,
) -> None:
    """Eight graphs at once, which had each other's rows before: each is refused and none is written to."""
    running = pooler("transaction", pool_size=pool_size)
    contexts = graphs(running.through(graph.write_dsn), running.through(graph.target_dsn))
    ended = await asyncio.gather(*map(run_cycle, contexts), return_exceptions=True)
    assert await titles(graph) == {schema: set() for schema in GRAPHS}
    assert {type(each) for each in ended} == {PoolerUnsupported}


async def test_session_mode_whole_cycles(
    pooler: "Callable[..., Pooler]", graph: TestGraph, graphs: Callable[[str, str], list[SyncContext]]
) -> None:
    """Eight cycles at once behind a pooler with room for their sessions: each graph has its own rows."""
    running = pooler("session", pool_size=20)
    contexts = graphs(running.through(graph.write_dsn), running.through(graph.target_dsn))
    ended = await asyncio.gather(*map(run_cycle, contexts))
    assert {result.status for result in ended} == {CycleStatus.DRAINED}
    assert await titles(graph) == {schema: {schema} for schema in GRAPHS}


async def test_mode_changed_under_cycles(
    pooler: "Callable[..., Pooler]", graph: TestGraph, graphs: Callable[[str, str], list[SyncContext]]
) -> None:
    """A pooler that stops keeping sessions under running cycles: they may fail, but mix nothing."""
    running = pooler("session", pool_size=30)
    contexts = graphs(running.through(graph.write_dsn), running.through(graph.target_dsn))
    await asyncio.gather(*map(run_cycle, contexts))
    running.set_mode("transaction", pool_size=2)
    for number in range(4):
        for schema in GRAPHS:
            await write(
                graph,
                f"INSERT INTO {schema}.write_raw_sources (id, title)"
                f" SELECT '{schema}-{number}-' || i, '{schema}' FROM generate_series(1, 200) i",
            )
        await asyncio.gather(*map(run_cycle, contexts), return_exceptions=True)
        assert await titles(graph) == {schema: {schema} for schema in GRAPHS}
    restarted = graphs(running.through(graph.write_dsn), running.through(graph.target_dsn))
    ended = await asyncio.gather(*map(run_cycle, restarted), return_exceptions=True)
    assert {type(each) for each in ended} == {PoolerUnsupported}


async def test_session_mode_migrates_and_listens(
    pooler: "Callable[..., Pooler]", new_database: Callable[..., str]
) -> None:
    """Migrations, the control plane and the listener's connection work behind a pooler by default."""
    async with opened(pooler("session", pool_size=3).through(new_database())) as store:
        assert await migrate_control(store)
        assert await migrate_write(store, "kg")
        assert await migrate_graph(store, "other")
        async with store.alone("listener", synchronous_commit="off", lock_timeout="2000") as connection:
            line = ListenConnection(connection, "test")
            await line.listen(lambda _schema, _xid: None)
            await line.check()
            assert await connection.fetchval("SHOW lock_timeout") == "2s"
