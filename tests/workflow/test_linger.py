"""A woken run that lingers: what it shows, what it costs Temporal, and who ends it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from activities.sync import SyncActivities
from providers.default import DefaultSyncProvider
from syncline import names
from syncline.control.graphs import Graph, GraphChanges
from syncline.control.services import Services
from syncline.messages.base import GraphStatus
from syncline.messages.sync import CycleStatus, SyncGraphInput, SyncGraphResult
from syncline.temporal.schedules.steer import start_now
from syncline.temporal.stalls import pending_of
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.worker_process import WorkerProcess, environment_of
from tests.workflow.test_carried_state import SELDOM, scheduled
from worker import create_worker

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def worker_as_deployed(client: Client, services: Services) -> AsyncIterator[Worker]:
    """A worker that signals progress once a minute: else each signal would be an event."""
    async with create_worker(client, SyncActivities(services, beat_seconds=0.2), services.settings) as worker:
        yield worker


class Scene:
    """A graph that lingers for long, its writer and its reader."""

    def __init__(
        self, lab: SyncLab, graph: Graph, write: asyncpg.Connection, target: asyncpg.Connection
    ) -> None:
        self.lab, self.graph, self.write, self.target = lab, graph, write, target

    async def put(self, node: str) -> None:
        await self.write.execute("INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')", node)

    async def arrived(self, node: str, *, seconds: float = 30) -> None:
        async def there() -> bool:
            return bool(await self.target.fetchval("SELECT count(*) FROM nodes WHERE key = $1", node))

        await eventually(there, seconds=seconds)

    async def lingers(self, run: WorkflowHandle) -> None:
        """Wait until the run says so to whoever asks for its status."""

        async def said() -> bool:
            return (
                await pending_of(self.lab.client, run.id, run.first_execution_run_id or run.run_id)
            ).lingers

        await eventually(said)

    async def muted(self) -> bool:
        return bool(await self.write.fetchval("SELECT muted_until > clock_timestamp() FROM sync_notify"))

    async def begun(self, node: str) -> WorkflowHandle:
        """Write a node, and return the run that has applied it and lingers."""
        runs = await scheduled(self.lab, self.graph)
        await self.put(node)
        run = await runs.next()
        await self.arrived(node)
        await eventually(self.muted)
        return run


@pytest.fixture
async def scene(idle_lab: SyncLab) -> AsyncIterator[Scene]:
    lab = replace(idle_lab, make_worker=worker_as_deployed)
    schedule = {**SELDOM, "linger_seconds": 60}
    graph = await lab.add_graph(DefaultSyncProvider(), prepare=True, schedule=schedule)
    settings = lab.services.settings
    path = {"search_path": graph.schema_name}
    write = await asyncpg.connect(settings.write_dsn.get_secret_value(), server_settings=path)
    target = await asyncpg.connect(settings.graph_dsn.get_secret_value(), server_settings=path)
    yield Scene(lab, graph, write, target)
    await write.close()
    await target.close()


async def test_lingering_run_shows_and_counts_what_it_does(scene: Scene) -> None:
    """No event more than a run of one pass; a run by hand has the graph meanwhile; a pause ends it."""
    lab = scene.lab
    async with lab.worker():
        run = await scene.begun("first")
        await scene.lingers(run)
        events = await lab.events(run)
        for node in ("second", "third"):
            await scene.put(node)
            await scene.arrived(node)
        assert await lab.events(run) == events
        by_hand = await lab.client.execute_workflow(
            names.SYNC_GRAPH,
            SyncGraphInput(graph=scene.graph.slug),
            id=names.sync_workflow_id(scene.graph.slug),
            task_queue=lab.task_queue,
            result_type=SyncGraphResult,
        )
        assert (by_hand.result.status, by_hand.result.lingered_seconds) == (CycleStatus.DRAINED, 0.0)
        await lab.services.graphs.update(scene.graph.id, GraphChanges(status=GraphStatus.PAUSED))
        done: SyncGraphResult = await run.result()
        assert (done.result.status, done.result.rows, done.result.vectors.upserted) == (
            CycleStatus.DRAINED,
            3,
            3,
        )
        assert done.result.lingered_passes == 2
        assert done.carried.totals.rows == 3
        assert len(await lab.events(run)) <= 18
        assert "lingered" in await lab.details(run)
        assert not await scene.muted()
    schedule = lab.client.get_schedule_handle(names.sync_schedule_id(scene.graph.slug))
    assert (await schedule.describe()).info.num_actions == 1


async def test_lingering_run_ends_for_a_triggered_one(scene: Scene) -> None:
    """An operator's trigger of its Schedule is not skipped because of it."""
    lab = scene.lab
    async with lab.worker():
        run = await scene.begun("first")
        await scene.lingers(run)
        await start_now(lab.client, scene.graph.slug)
        assert (await run.result()).result.rows == 1
        schedule = lab.client.get_schedule_handle(names.sync_schedule_id(scene.graph.slug))

        async def next_began() -> bool:
            return (await schedule.describe()).info.num_actions == 2

        await eventually(next_began)
        await lab.services.graphs.update(scene.graph.id, GraphChanges(status=GraphStatus.PAUSED))


async def test_lingering_run_ends_with_its_worker(scene: Scene) -> None:
    """A worker that stops does not wait for it, and no attempt is lost."""
    async with scene.lab.worker():
        run = await scene.begun("first")
    assert not await scene.muted()
    async with scene.lab.worker():
        done: SyncGraphResult = await run.result()
    assert (done.result.status, done.result.rows) == (CycleStatus.DRAINED, 1)
    started = [
        event.activity_task_started_event_attributes.attempt
        for event in (await run.fetch_history()).events
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert started == [1, 1]


@asynccontextmanager
async def other_worker(
    lab: SyncLab, temporal_environment: dict[str, str], folder: Path
) -> AsyncIterator[WorkerProcess]:
    environment = environment_of(lab.services.settings, temporal_environment, folder) | {
        "SYNCLINE_QDRANT_PATH": str(folder / "qdrant-of-the-worker"),
        "SYNCLINE_RECONCILE_SECONDS": "86400",
    }
    async with WorkerProcess.running(ROOT / "worker.py", environment) as worker:
        await worker.logs('"worker ready"')
        yield worker


@pytest.mark.long("test_lingering_run_ends_with_its_worker")
async def test_change_muted_by_a_killed_worker_arrives_by_the_next_attempt(
    scene: Scene, temporal_environment: dict[str, str], tmp_path: Path
) -> None:
    """Its writer told nobody, since the run that lingers would see it: that run goes on elsewhere."""
    async with other_worker(scene.lab, temporal_environment, tmp_path) as worker:
        run = await scene.begun("first")
        worker.process.kill()
        await worker.process.wait()
        await scene.put("second")
        assert await scene.muted()
        async with scene.lab.worker():
            await scene.arrived("second", seconds=60)
            await scene.lab.services.graphs.update(scene.graph.id, GraphChanges(status=GraphStatus.PAUSED))
            done: SyncGraphResult = await run.result()
    assert (done.result.status, done.result.rows) == (CycleStatus.DRAINED, 2)
