"""Lanes of a run: two workers load one graph, and none of it depends on the second."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from temporalio.client import WorkflowFailureError
from temporalio.worker import Worker

from activities.loads import CycleLanes, LoadActivities
from providers.default import DefaultSyncProvider
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.messages.sync import CycleStatus, LaneEnd
from syncline.registry import Registry
from syncline.testing.lab import SyncLab, eventually
from tests.integration.test_ranges import SEED
from tests.kit.lanes import every_load_in_ranges
from worker import create_loads_worker

TAKEN = "SELECT count(*) > 0 FROM sync_range WHERE lane <> 'cycle' AND batches > 0"


@pytest.fixture(autouse=True)
def _ranges(monkeypatch: pytest.MonkeyPatch, lab: SyncLab) -> None:
    every_load_in_ranges(monkeypatch)
    monkeypatch.setitem(lab.services.settings.__dict__, "load_lanes", 2)


@asynccontextmanager
async def second_worker(lab: SyncLab) -> AsyncIterator[Worker]:
    """The lanes of another worker, over connections of its own."""
    registry = Registry()
    registry.load([DefaultSyncProvider], allowed=())
    async with (
        Services.open(lab.services.settings, registry=registry) as services,
        create_loads_worker(lab.client, LoadActivities(services), services.settings) as worker,
    ):
        yield worker


@asynccontextmanager
async def loading(lab: SyncLab, rows: str) -> AsyncIterator[tuple[Graph, asyncpg.Connection]]:
    """A graph with rows to load, and a reader of its state."""
    graph = await lab.add_graph(DefaultSyncProvider(), prepare=True)
    path = {"search_path": graph.schema_name}
    write = await asyncpg.connect(lab.services.settings.write_dsn.get_secret_value(), server_settings=path)
    await write.execute(rows)
    await write.close()
    target = await asyncpg.connect(lab.services.settings.graph_dsn.get_secret_value(), server_settings=path)
    yield graph, target
    await target.close()


async def test_a_second_worker_takes_part_in_a_load(lab: SyncLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cycle waits here until it has; the run shows who did what, and counts each row once."""
    async with loading(lab, SEED) as (graph, target), second_worker(lab):
        call, asked = CycleLanes.call, []

        async def called(lanes: CycleLanes) -> None:
            await call(lanes)
            if not asked:
                asked.append(True)
                await eventually(lambda: target.fetchval(TAKEN))

        monkeypatch.setattr(CycleLanes, "call", called)
        run = await lab.start(graph, batch_rows=7)
        done = await run.result()
        assert (done.result.status, done.failures) == (CycleStatus.DRAINED, 0)
        captured = {table.table: table.captured for table in done.result.tables}
        assert [captured[name] for name in ("facts", "nodes", "edges")] == [81] * 3
        state = await lab.state(run)
        assert [lane.end for lane in state.lanes] == [LaneEnd.DONE]
        assert state.lanes[0].ranges > 0
        assert await target.fetchval("SELECT count(*) FROM nodes") == 81
        assert await target.fetchval("SELECT count(*) FROM sync_range") == 0


async def test_a_run_does_not_wait_for_lanes_that_nobody_takes(lab: SyncLab) -> None:
    """As where all other workers are of an earlier version: they do not poll that task queue."""
    async with loading(lab, SEED) as (graph, _):
        run = await lab.start(graph, batch_rows=20)
        done = await run.result()
        assert done.result.status is CycleStatus.DRAINED
        events = await lab.events(run)
        assert "ACTIVITY_TASK_CANCELED" in str(events)


async def test_a_cancelled_run_ends_its_lanes(lab: SyncLab, monkeypatch: pytest.MonkeyPatch) -> None:
    async with loading(lab, SEED) as (graph, target), second_worker(lab):
        call = CycleLanes.call

        async def called(lanes: CycleLanes) -> None:
            await call(lanes)
            await asyncio.Event().wait()

        monkeypatch.setattr(CycleLanes, "call", called)
        run = await lab.start(graph, batch_rows=1)
        await eventually(lambda: target.fetchval(TAKEN))
        await run.cancel()
        with pytest.raises(WorkflowFailureError):
            await run.result()
        left = await target.fetchval("SELECT sum(captured) FROM sync_range")
        assert left is not None
        await asyncio.sleep(0.3)
        assert await target.fetchval("SELECT sum(captured) FROM sync_range") == left
