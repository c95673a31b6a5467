"""A change in the write-db starts its graph's run at once, through whatever keeps it from being heard."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

import asyncpg
import pytest
import pytest_asyncio

from syncline import names
from syncline.freshness import Listening
from syncline.freshness import ear as ear_module
from syncline.graphs import Graph, GraphChanges
from syncline.messages import SyncResult
from syncline.provider import SyncContext
from syncline.schedules import ensure_schedule
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from worker import listen

HOURLY = {"every_seconds": 3600}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby that asks more often than in production."""
    monkeypatch.setattr(ear_module, "_STANDBY", 0.2)


@asynccontextmanager
async def writer(lab: SyncLab, graph: Graph | None = None) -> AsyncIterator[asyncpg.Connection]:
    """A writer's own connection."""
    dsn = lab.services.settings.write_dsn.get_secret_value()
    settings = {} if graph is None else {"search_path": graph.schema_name}
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


async def scheduled(lab: SyncLab, provider: FakeProvider | None = None, **schedule: object) -> Graph:
    """A graph with its stores and its Schedule, which leaves it alone for an hour."""
    graph = await lab.add_graph(provider, prepare=True, schedule={**HOURLY, **schedule})
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    return graph


def schedule_of(lab: SyncLab, graph: Graph):
    return lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug))


async def starts(lab: SyncLab, graph: Graph) -> int:
    return (await schedule_of(lab, graph).describe()).info.num_actions


async def insert(connection: asyncpg.Connection, node: str) -> None:
    await connection.execute("INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')", node)


async def arrived(lab: SyncLab, graph: Graph, node: str) -> bool:
    async with lab.services.target_schema(graph).store.driver() as target:
        return bool(
            await target.fetchval(f'SELECT count(*) FROM "{graph.schema_name}".nodes WHERE key = $1', node)
        )


async def backends(lab: SyncLab) -> list[int]:
    """The server processes that listen."""
    async with writer(lab) as connection:
        rows = await connection.fetch(
            "SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid AND a.datname = current_database() "
            "WHERE l.locktype = 'advisory' AND l.granted AND a.application_name LIKE '%listener'"
        )
        return [row["pid"] for row in rows]


@pytest_asyncio.fixture(loop_scope="session")
async def listening(lab: SyncLab) -> AsyncIterator[Listening]:
    async with listen(lab.client, lab.services) as listening:
        yield listening


async def heard(lab: SyncLab) -> None:
    await eventually(lambda: _some(backends(lab)))
    async with writer(lab) as connection:
        await eventually(lambda: connection.fetchval("SELECT count(*) > 0 FROM syncline.listener"))


async def _some(found) -> bool:
    return bool(await found)


async def test_a_change_starts_the_run_at_once(lab: SyncLab) -> None:
    graph = await scheduled(lab)
    async with listen(lab.client, lab.services), writer(lab, graph) as connection:
        await heard(lab)
        for node in ("first", "second"):
            began = monotonic()
            await insert(connection, node)
            await eventually(lambda node=node: arrived(lab, graph, node), seconds=10)
            print("took", monotonic() - began)
            assert monotonic() - began < 30
        await asyncio.sleep(1.5)
        assert await starts(lab, graph) == 2
