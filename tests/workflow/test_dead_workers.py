"""A worker that is frozen or killed while its cycle holds a graph: the graph is not left standing still."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from syncline.graphs import Graph
from syncline.messages import CycleStatus
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.worker_process import WorkerProcess, environment_of

ROOT = Path(__file__).parents[2]
NODES = "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 40) i"
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

    async def another(self, pid: int) -> asyncpg.Record:
        """Return the session that holds the graph, once it is not this one any more."""
        found: list[asyncpg.Record] = []

        async def taken() -> bool:
            holder = await self.holder()
            found[:] = [] if holder is None or holder["pid"] == pid else [holder]
            return bool(found)

        await eventually(taken, seconds=120)
        return found[0]

    async def rows(self) -> tuple[int, int, int]:
        """Return how many nodes there are, how many versions they have had, and how often it was taken."""
        row = await self.target.fetchrow(
            "SELECT (SELECT count(*) FROM nodes) AS nodes, (SELECT sum(sync_version) FROM nodes) AS versions,"
            " fence FROM sync_state"
        )
        return row["nodes"], row["versions"], row["fence"]


@pytest.fixture
async def scene(idle_lab: SyncLab) -> AsyncIterator[Scene]:
    graph = await idle_lab.add_graph("default", prepare=True)
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
    }


@asynccontextmanager
async def working(environment: dict[str, str]) -> AsyncIterator[WorkerProcess]:
    async with WorkerProcess.running(ROOT / "worker.py", environment) as worker:
        await worker.says('"worker ready"')
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


async def test_the_next_attempt_takes_the_graph_from_a_frozen_worker(
    scene: Scene, environment: dict[str, str]
) -> None:
    """Frozen between two transactions, before the fence: its session would hold the graph for ever."""
    async with working(environment) as worker:
        async with locked(scene.write, "write_nodes"):
            run = await scene.lab.start(scene.graph)
            first = await scene.held(state="idle")
            os.kill(worker.process.pid, signal.SIGSTOP)
        async with scene.lab.worker():
            result = (await asyncio.wait_for(run.result(), 60)).result
            assert (result.status, result.rows) == (CycleStatus.DRAINED, 40)
            assert first["application_name"].startswith(f"syncline {run.first_execution_run_id} #1 ")
            before = await scene.rows()
            assert before == (40, 40, 1)
        await thaw(worker)
        assert await scene.rows() == before
        assert '"cycle ended"' not in worker.said


async def test_a_run_takes_the_graph_from_a_frozen_worker_whose_run_was_terminated(
    scene: Scene, environment: dict[str, str]
) -> None:
    async with working(environment) as worker:
        async with locked(scene.write, "write_nodes"):
            run = await scene.lab.start(scene.graph)
            held = await scene.held(state="idle")
            os.kill(worker.process.pid, signal.SIGSTOP)
        async with scene.lab.worker():
            # As long as it is open it may be at work, whatever its session does.
            result = (await scene.lab.run(scene.graph)).result
            assert result.status is CycleStatus.ALREADY_RUNNING
            assert result.holder is not None
            holder = result.holder
            found = (holder.pid, holder.run_id, holder.attempt)
            assert found == (held["pid"], run.first_execution_run_id, 1)
            await run.terminate()
            async with asyncio.timeout(60):
                while (result := (await scene.lab.run(scene.graph)).result).holder is not None:
                    await asyncio.sleep(1)
        assert (result.status, result.rows) == (CycleStatus.DRAINED, 40)
        before = await scene.rows()
        await thaw(worker)
        assert await scene.rows() == before == (40, 40, 1)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_dead_workers_statement_does_not_keep_the_graph(
    scene: Scene, environment: dict[str, str], fault: signal.Signals
) -> None:
    """It waits for a table, for as long as that is locked: the next attempt is not to wait for its end."""
    async with working(environment) as worker:
        async with locked(scene.target, "nodes"):
            run = await scene.lab.start(scene.graph)
            first = await scene.held(state="active")
            os.kill(worker.process.pid, fault)
            dead = time.monotonic()
            async with scene.lab.worker():
                holder = await scene.another(first["pid"])
                seconds = time.monotonic() - dead
                assert " #2 " in holder["application_name"]
                # The heartbeat's timeout is 20 s of it.
                assert seconds < 27
        async with scene.lab.worker():
            result = (await asyncio.wait_for(run.result(), 60)).result
        assert result.status is CycleStatus.DRAINED
        assert (await scene.rows())[:2] == (40, 40)
        if fault is signal.SIGSTOP:
            before = await scene.rows()
            await thaw(worker)
            assert await scene.rows() == before
