"""A worker that is frozen or killed while its cycle holds a graph: the graph is not left standing still."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from temporalio.api.enums.v1 import PendingActivityState

from providers.default import DefaultSyncProvider
from syncline.control.graphs import Graph
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.testing.lab import Run, SyncLab, eventually
from syncline.testing.worker_process import WorkerProcess, environment_of
from tests.kit.cases import further

ROOT = Path(__file__).parents[2]
NODES = "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 40) i"
ROWS = 40
SLOW = """
CREATE TABLE slow ();
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF to_regclass('slow') IS NOT NULL THEN PERFORM pg_sleep(120); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER sleep BEFORE INSERT ON nodes EXECUTE FUNCTION sleep();
"""
HOLDER = """
SELECT a.pid, a.state, a.application_name FROM pg_stat_activity a JOIN pg_locks l USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()
  AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('syncline:' || $1, 0)
"""


class Scene:
    """A graph with changes that wait, and a worker in a process of its own; the test's own runs later."""

    def __init__(
        self, lab: SyncLab, graph: Graph, write: asyncpg.Connection, target: asyncpg.Connection
    ) -> None:
        self.lab, self.graph, self.write, self.target = lab, graph, write, target

    async def holder(self) -> asyncpg.Record | None:
        return await self.target.fetchrow(HOLDER, self.graph.schema_name)

    async def held(self, *, state: str) -> asyncpg.Record:
        """Return the session that holds the graph, once it is in this state and stays there."""
        found: list[asyncpg.Record] = []

        async def waits() -> bool:
            found[:] = [holder] if (holder := await self.holder()) is not None else []
            return bool(found) and found[0]["state"] == state

        await eventually(waits)
        await asyncio.sleep(0.5)
        await eventually(waits)
        return found[0]

    async def books(self) -> tuple[int, list[str]]:
        """Return how often the graph was taken, and which version of a row each node is."""
        fence = await self.target.fetchval("SELECT fence FROM sync_state")
        rows = await self.target.fetch(
            "SELECT ctid::text || ' ' || xmin::text AS version FROM nodes ORDER BY 1"
        )
        return fence, [row["version"] for row in rows]

    async def synced(self) -> None:
        """Wait until the nodes are there and nobody holds the graph."""

        async def there() -> bool:
            return len((await self.books())[1]) == ROWS and await self.holder() is None

        await eventually(there, seconds=100)


@pytest.fixture
async def scene(idle_lab: SyncLab) -> AsyncIterator[Scene]:
    graph = await idle_lab.add_graph(DefaultSyncProvider(), prepare=True)
    settings = idle_lab.services.settings
    path = {"search_path": graph.schema_name}
    write = await asyncpg.connect(settings.write_dsn.get_secret_value(), server_settings=path)
    target = await asyncpg.connect(settings.graph_dsn.get_secret_value(), server_settings=path)
    await write.execute(NODES)
    yield Scene(idle_lab, graph, write, target)
    await write.close()
    await target.close()


@pytest.fixture
def environment(idle_lab: SyncLab, temporal_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return environment_of(idle_lab.services.settings, temporal_environment, tmp_path) | {
        "SYNCLINE_QDRANT_PATH": str(tmp_path / "qdrant-of-the-worker"),
        "SYNCLINE_RECONCILE_SECONDS": "86400",
        # While it is at its one cycle it asks for no other: what is given to a frozen worker is lost for 20 s.
        "SYNCLINE_MAX_CONCURRENT_CYCLES": "1",
    }


@asynccontextmanager
async def working(environment: dict[str, str]) -> AsyncIterator[WorkerProcess]:
    async with WorkerProcess.running(ROOT / "worker.py", environment) as worker:
        await worker.logs('"worker ready"')
        try:
            yield worker
        finally:
            if worker.process.returncode is None:
                worker.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def locked(connection: asyncpg.Connection, table: str) -> AsyncIterator[None]:
    """Have whoever reads the table wait."""
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


async def thaw(worker: WorkerProcess) -> None:
    """Have the worker go on, until it has told what became of its cycle."""
    worker.process.send_signal(signal.SIGCONT)

    async def told() -> bool:
        return any(word in worker.said for word in ('"activity failed"', '"cycle cancelled"', "cycle ended"))

    await eventually(told)


@asynccontextmanager
async def frozen(
    scene: Scene, environment: dict[str, str]
) -> AsyncIterator[tuple[WorkerProcess, Run, asyncpg.Record]]:
    """A worker that is frozen between two transactions, before the fence; its run, and the session that it has.

    That session would hold the graph for ever.
    """
    async with working(environment) as worker:
        async with locked(scene.write, "write_nodes"):
            run = await scene.lab.start(scene.graph)
            held = await scene.held(state="idle")
            worker.process.send_signal(signal.SIGSTOP)
        yield worker, run, held


@pytest.mark.long("test_a_dead_workers_statement_does_not_keep_the_graph")
async def test_the_next_attempt_takes_the_graph_from_a_frozen_worker(
    scene: Scene, environment: dict[str, str]
) -> None:
    async with frozen(scene, environment) as (worker, run, first):
        async with scene.lab.worker():
            await scene.synced()
            books = await scene.books()
            assert books[0] == 1
            await thaw(worker)
            result = (await asyncio.wait_for(run.result(), 60)).result
        assert first["application_name"].startswith(f"syncline {run.first_execution_run_id} #1 ")
        assert (result.status, result.rows) == (CycleStatus.DRAINED, ROWS)
        assert await scene.books() == books


@pytest.mark.proof
async def test_a_run_takes_the_graph_from_a_frozen_worker_whose_run_was_terminated(
    scene: Scene, environment: dict[str, str]
) -> None:
    async with frozen(scene, environment) as (worker, run, held):
        async with scene.lab.worker():
            # As long as it is open it may be at work, whatever its session does.
            holder = (await scene.lab.run(scene.graph)).result.holder
            assert holder is not None
            found = (holder.pid, holder.run_id, holder.attempt)
            assert found == (held["pid"], run.first_execution_run_id, 1)
            await run.terminate()
            results: list[SyncResult] = []

            async def taken_over() -> bool:
                results.append((await scene.lab.run(scene.graph)).result)
                return results[-1].holder is None

            await eventually(taken_over, seconds=60)
        assert (results[-1].status, results[-1].rows) == (CycleStatus.DRAINED, ROWS)
        books = await scene.books()
        await thaw(worker)
        assert await scene.books() == books


@pytest.mark.parametrize("fault", [signal.SIGKILL, *further(signal.SIGSTOP)])
async def test_a_dead_workers_statement_does_not_keep_the_graph(
    scene: Scene, environment: dict[str, str], fault: signal.Signals
) -> None:
    """It would take two minutes more: the next attempt is not to wait for its end."""
    await scene.target.execute(SLOW)
    async with working(environment) as worker:
        run = await scene.lab.start(scene.graph)
        await scene.held(state="active")
        worker.process.send_signal(fault)
        dead = time.monotonic()
        await scene.target.execute("DROP TABLE slow")
        async with scene.lab.worker():
            await scene.synced()
            seconds = time.monotonic() - dead
            # The heartbeat's timeout is 20 s of it.
            assert seconds < 100
            books = await scene.books()
            if fault is signal.SIGSTOP:
                await thaw(worker)
            result = (await asyncio.wait_for(run.result(), 60)).result
        assert result.status is CycleStatus.DRAINED
        assert await scene.books() == books


@pytest.mark.proof
async def test_a_worker_killed_while_it_resolves_costs_its_heartbeat(
    scene: Scene, environment: dict[str, str]
) -> None:
    """Half a minute, which the question may take at the most, would be three times as long."""
    async with working(environment) as worker:
        async with locked(scene.target, "syncline.graphs"):
            run = await scene.lab.start(scene.graph)

            async def resolving() -> bool:
                pending = (await run.describe()).raw_description.pending_activities
                return any(
                    one.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED for one in pending
                )

            await eventually(resolving)
            worker.process.kill()
            dead = time.monotonic()
        async with scene.lab.worker():
            await scene.synced()
            assert time.monotonic() - dead < 25
