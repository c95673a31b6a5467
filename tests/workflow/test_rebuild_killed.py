"""A large graph is rebuilt under readers and writers, and its worker is killed in every step."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog
from temporalio.client import WorkflowFailureError

from providers.default import DefaultSyncProvider
from syncline.control.graphs import Graph
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.worker_process import WorkerProcess, environment_of
from tests.kit.command_line import CommandLine
from tests.kit.pages import one_row, replace_lines
from tests.kit.readable_qdrant import ReadableQdrant
from tests.kit.readers import Read, reading

ROOT = Path(__file__).parents[2]
READS, WRITES = 500, 100
NODES = 500
URI = "https://example.org/"


def reads_of(schema: str, rows: int) -> list[Read]:
    """Return what readers ask, by an index: rows by uri and by id, and short joins, through views and without."""
    return [
        Read(sql=f"SELECT key FROM {schema}.sources WHERE uri = $1", prefix=URI, keys=rows),
        Read(
            sql=f"SELECT uri FROM {schema}.raw_sources WHERE id = syncline.key_uuid($1)",
            prefix="r",
            keys=rows,
        ),
        Read(sql=f"SELECT concept, content FROM {schema}.known WHERE key = $1", prefix="n", keys=NODES),
    ]


@dataclass
class Load:
    """A writer, beside readers in processes of their own."""

    schema: str
    dsn: str
    rows: int
    writes: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stopped = asyncio.Event()
        writing = asyncio.create_task(self._write(stopped))
        try:
            yield
        finally:
            stopped.set()
            await writing

    async def _write(self, stopped: asyncio.Event) -> None:
        chosen, schema = random.Random(0), self.schema
        connection = await asyncpg.connect(self.dsn)
        following = time.monotonic()
        while not stopped.is_set():
            self.writes += 1
            if self.writes % 4:
                await connection.execute(
                    f"UPDATE {schema}.write_raw_sources SET title = $1 WHERE id = $2",
                    f"title {self.writes}",
                    f"r{chosen.randint(1, self.rows)}",
                )
            else:
                await connection.execute(
                    f"INSERT INTO {schema}.write_raw_sources (id, uri) VALUES ($1, $1)", f"w{self.writes}"
                )
            following += 1 / WRITES
            await asyncio.sleep(max(0.0, following - time.monotonic()))
        await connection.close()


@dataclass
class Scene:
    """The graph, a worker that is killed now and then, and runs of the graph one after the other."""

    lab: SyncLab
    graph: Graph
    environment: dict[str, str]
    worker: WorkerProcess | None = None
    kills: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Keep a worker running, and runs of the graph."""
        stopped = asyncio.Event()
        ready = asyncio.Event()
        tasks = [asyncio.create_task(self._work(stopped, ready)), asyncio.create_task(self._run(stopped))]
        await ready.wait()
        try:
            yield
        finally:
            stopped.set()
            if self.worker is not None:
                self.worker.process.kill()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, stopped: asyncio.Event, ready: asyncio.Event) -> None:
        while not stopped.is_set():
            async with WorkerProcess.running(ROOT / "worker.py", self.environment) as worker:
                await worker.logs('"worker ready"', seconds=120)
                self.worker = worker
                ready.set()
                await worker.process.wait()

    async def _run(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            with suppress(WorkflowFailureError):
                await self.lab.run(self.graph)
            await asyncio.sleep(0.2)

    async def kill(self) -> None:
        """Kill the worker, and return once another one is ready."""
        killed = self.worker
        if killed is None:
            raise RuntimeError("there is no worker")
        killed.process.kill()
        self.kills += 1

        async def replaced() -> bool:
            return self.worker is not killed

        await eventually(replaced, seconds=180)

    async def killed_while(self, doing: Awaitable[Any], *after: float) -> Any:
        """Kill the worker so many seconds after something began, each time; return its outcome."""
        task = asyncio.ensure_future(doing)
        for seconds in after:
            await asyncio.wait([task], timeout=seconds)
            if not task.done():
                await self.kill()
        return await task


@pytest.fixture
async def scene(
    idle_lab: SyncLab, temporal_environment: dict[str, str], tmp_path: Path
) -> AsyncIterator[Scene]:
    with ReadableQdrant() as qdrant:
        graph = await idle_lab.add_graph(DefaultSyncProvider(), prepare=True)
        yield Scene(
            idle_lab,
            graph,
            environment_of(idle_lab.services.settings, temporal_environment, tmp_path)
            | {
                "SYNCLINE_QDRANT_URL": qdrant.url,
                "SYNCLINE_RECONCILE_SECONDS": "86400",
                "SYNCLINE_NOTIFY": "false",
            },
        )


@pytest.mark.proof
@pytest.mark.timeout(10_800)
async def test_readers_miss_nothing_while_a_large_graph_is_rebuilt_and_its_worker_killed(
    scene: Scene,
    syncline: CommandLine,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    tmp_path: Path,
) -> None:
    given: int | None = request.config.getoption("--rebuild-rows")
    rows = given or 20_000
    slug, schema, settings = scene.graph.slug, scene.graph.schema_name, scene.lab.services.settings
    graph_dsn, write_dsn = settings.graph_dsn.get_secret_value(), settings.write_dsn.get_secret_value()
    writer = await asyncpg.connect(write_dsn)
    await writer.execute(
        f"INSERT INTO {schema}.write_raw_sources (id, uri)"
        f" SELECT 'r' || i, '{URI}' || i FROM generate_series(1, {rows}) i;"
        f"INSERT INTO {schema}.write_facts (id, content, dedup_status)"
        f" SELECT 'f' || i, 'fact ' || i, 'ready' FROM generate_series(1, {NODES}) i;"
        f"INSERT INTO {schema}.write_nodes (id, concept, fact_ids)"
        f" SELECT 'n' || i, 'node ' || i, ARRAY['f' || i] FROM generate_series(1, {NODES}) i"
    )
    await writer.close()
    load = Load(schema, write_dsn, rows)
    patience = 120 + rows / 200

    async def state() -> str:
        found: Any = await syncline.answer("rebuild status", slug)
        return str(found["state"])

    async def ready() -> bool:
        return await state() == "ready"

    async with scene.serving():

        async def loaded() -> bool:
            reader = await asyncpg.connect(graph_dsn)
            try:
                found: int = await reader.fetchval(f"SELECT count(*) FROM {schema}.raw_sources")
                linked = await reader.fetchval(f"SELECT count(*) FROM {schema}.node_facts")
                return found == rows and linked == NODES
            finally:
                await reader.close()

        await eventually(loaded, seconds=patience)
        reader = await asyncpg.connect(graph_dsn)
        await reader.execute(
            f"CREATE VIEW {schema}.sources AS SELECT key, uri FROM {schema}.raw_sources;"
            f"CREATE VIEW {schema}.known AS SELECT n.key, n.concept, f.content FROM {schema}.nodes n"
            f" JOIN {schema}.node_facts l ON l.node_id = n.id JOIN {schema}.facts f ON f.id = l.fact_id;"
            f"CREATE INDEX by_uri ON {schema}.raw_sources (uri); ANALYZE"
        )
        await reader.close()
        begun = time.monotonic()
        readers = reading(graph_dsn, reads_of(schema, rows), tmp_path, rate=READS)
        async with load.running(), readers as figures:
            await scene.killed_while(syncline.answer("rebuild start", slug, "--timeout", "1200"), 1.0)
            for part in (2.0, 5.0):
                await asyncio.sleep(part)
                await scene.kill()
            await eventually(ready, seconds=patience)
            switched: Any = await scene.killed_while(
                syncline.answer("rebuild switch", slug, "--timeout", "7200"), 1.5, 4.0
            )
            assert switched["state"] == "switched", switched
            went_back = time.monotonic()
            back: Any = await syncline.answer("rebuild rollback", slug)
            went_back = time.monotonic() - went_back
            again: Any = await scene.killed_while(
                syncline.answer("rebuild switch", slug, "--timeout", "7200"), 2.5
            )
            assert again["state"] == "switched", again
            await asyncio.sleep(2)
            await scene.killed_while(syncline.answer("rebuild drop", slug, "--yes", "--timeout", "1200"), 1.0)
        took = time.monotonic() - begun
        assert await state() == "none"
        verified = await syncline("verify", slug)
        assert verified.status == 0, verified.out
    pauses = [
        float(line.partition("waited ")[2].split()[0])
        for answer in (switched, back, again)
        for line in answer["did"]
        if "readers waited" in line
    ]
    told = {
        "Rows": f"{rows:,}",
        "Kills": str(scene.kills),
        "Took": f"{took:.0f} s",
        "Reads": f"{figures.reads:,}",
        "Reads a second": f"{figures.reached:.0f} of {figures.offered:.0f}",
        "Failed, or nothing found": str(figures.failed.total() + figures.missing),
        "Half of them within": f"{1000 * figures.within(0.5):.1f} ms",
        "99 % within": f"{1000 * figures.within(0.99):.0f} ms",
        "All within": f"{figures.within(1):.2f} s",
        "Longest time without a read": f"{figures.gap:.2f} s",
        "Writes a second": f"{load.writes / took:.0f}",
        "Pause": f"{max(pauses, default=0.0):.2f} s",
        "Rollback": f"{went_back:.1f} s",
    }
    for name, value in told.items():
        record_property(name, value)
    structlog.get_logger().info("rebuilt under readers and kills", **told)
    assert figures.failed == {}
    assert figures.missing == 0
    assert max(pauses, default=0.0) < 1
    assert went_back < 5
    if given is not None:
        replace_lines(ROOT / "docs" / "rebuild.md", "proof:rebuild", one_row(told))
