"""A large graph is rebuilt under readers and writers, and its worker is killed in every step."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from temporalio.client import WorkflowFailureError

from providers.default import DefaultSyncProvider
from syncline.control.graphs import Graph
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.worker_process import WorkerProcess, environment_of
from tests.kit.command_line import CommandLine
from tests.kit.pages import one_row, replace_lines
from tests.kit.readable_qdrant import ReadableQdrant

ROOT = Path(__file__).parents[2]
READS, WRITES = 500, 100
READERS = 10


@dataclass
class Load:
    """Readers of single rows, over connections of their own, and a writer."""

    graph: Graph
    graph_dsn: str
    write_dsn: str
    rows: int
    reads: int = 0
    writes: int = 0
    slowest: float = 0.0
    errors: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stopped = asyncio.Event()
        tasks = [asyncio.create_task(self._read(number, stopped)) for number in range(READERS)]
        tasks.append(asyncio.create_task(self._write(stopped)))
        try:
            yield
        finally:
            stopped.set()
            await asyncio.gather(*tasks)

    async def _read(self, number: int, stopped: asyncio.Event) -> None:
        chosen, schema = random.Random(number), self.graph.schema_name
        connection = await asyncpg.connect(self.graph_dsn)
        view = await connection.prepare(f"SELECT uri FROM {schema}.sources WHERE key = $1")
        table = await connection.prepare(
            f"SELECT uri FROM {schema}.raw_sources WHERE id = syncline.key_uuid($1)"
        )
        following = time.monotonic()
        try:
            while not stopped.is_set():
                key, begun = f"r{chosen.randint(1, self.rows)}", time.monotonic()
                statement = view if number % 2 else table
                try:
                    found = await statement.fetchval(key)
                except asyncpg.PostgresError as error:
                    self.errors.append(repr(error))
                    return
                self.reads += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
                if found is None:
                    self.missing.append(key)
                following += READERS / READS
                await asyncio.sleep(max(0.0, following - time.monotonic()))
        finally:
            await connection.close()

    async def _write(self, stopped: asyncio.Event) -> None:
        chosen, schema = random.Random(0), self.graph.schema_name
        connection = await asyncpg.connect(self.write_dsn)
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
) -> None:
    given: int | None = request.config.getoption("--rebuild-rows")
    rows = given or 20_000
    slug, schema, settings = scene.graph.slug, scene.graph.schema_name, scene.lab.services.settings
    graph_dsn, write_dsn = settings.graph_dsn.get_secret_value(), settings.write_dsn.get_secret_value()
    writer = await asyncpg.connect(write_dsn)
    await writer.execute(
        f"INSERT INTO {schema}.write_raw_sources (id, uri)"
        f" SELECT 'r' || i, 'https://example.org/' || i FROM generate_series(1, {rows}) i;"
        f"INSERT INTO {schema}.write_nodes (id, concept)"
        f" SELECT 'n' || i, 'node ' || i FROM generate_series(1, 500) i"
    )
    await writer.close()
    load = Load(scene.graph, graph_dsn, write_dsn, rows)
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
                return found == rows and await reader.fetchval(f"SELECT count(*) FROM {schema}.nodes") == 500
            finally:
                await reader.close()

        await eventually(loaded, seconds=patience)
        reader = await asyncpg.connect(graph_dsn)
        await reader.execute(
            f"CREATE VIEW {schema}.sources AS SELECT key, uri FROM {schema}.raw_sources;"
            f"CREATE INDEX by_uri ON {schema}.raw_sources (uri); ANALYZE {schema}.raw_sources"
        )
        await reader.close()
        begun = time.monotonic()
        async with load.running():
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
    for name in ("reads", "writes", "slowest"):
        record_property(name, getattr(load, name))
    record_property("pauses", pauses)
    record_property("rollback_seconds", round(went_back, 1))
    assert load.errors == []
    assert load.missing == []
    assert max(pauses, default=0.0) < 1
    assert went_back < 5
    if given is not None:
        replace_lines(
            ROOT / "docs" / "rebuild.md",
            "proof:rebuild",
            one_row(
                {
                    "Rows": f"{rows:,}",
                    "Kills": str(scene.kills),
                    "Took": f"{took:.0f} s",
                    "Reads": f"{load.reads:,}",
                    "Writes": f"{load.writes:,}",
                    "Failed, or nothing found": str(len(load.errors) + len(load.missing)),
                    "Slowest read": f"{load.slowest:.2f} s",
                    "Pause": f"{max(pauses, default=0.0):.2f} s",
                    "Rollback": f"{went_back:.1f} s",
                }
            ),
        )
