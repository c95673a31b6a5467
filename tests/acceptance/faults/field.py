"""Real parts to break: two Postgres clusters, Temporal, Qdrant's client, an embedding service, two workers."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import asyncpg
from pydantic import SecretStr
from temporalio.client import Client, ScheduleOverlapPolicy, WorkflowFailureError, WorkflowHandle

from syncline import names
from syncline.control.graphs import Graph, draft_graph
from syncline.control.services import Services
from syncline.devstack.declaration import TemporalDeclaration
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.devstack.temporal_server import TemporalServer
from syncline.errors import NoWorker
from syncline.settings import Settings
from syncline.temporal.runs import ListedRun, RunStatus, runs_of
from syncline.temporal.schedules.reconcile import reconcile_now
from syncline.testing.worker_process import WorkerProcess
from tests.acceptance.faults.services import DIMENSIONS, EmbeddingServer, QdrantFront
from tests.kit.ports import free_port
from tests.kit.proxy import SilentProxy, silent_proxy

__all__ = ["ROWS", "Field", "Member", "Seen"]

ROOT: Final = Path(__file__).parents[3]
ROWS: Final = 2000
QUEUE: Final = "faults"
_EVERY: Final = 10
"""Seconds between the runs of a graph's Schedule."""
_WRITTEN: Final = """
INSERT INTO write_nodes (id, concept, definition)
SELECT 'n' || i, 'concept ' || i, md5(i::text) FROM generate_series(1, $1::int) i
"""
_LANDED: Final = "SELECT count(*) FROM nodes"
_DIFFERENT: Final = """
SELECT count(*) FROM generate_series(1, $1::int) i FULL JOIN nodes n
ON n.key = 'n' || i AND n.concept = 'concept ' || i AND n.definition = md5(i::text)
WHERE n.key IS NULL OR i IS NULL
"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What an operator sees at one moment."""

    status: str
    """What `syncline status` says of the graph."""
    doctor: tuple[str, ...]
    """The checks of `syncline doctor` that are not well."""
    web: str
    """What the Web UI shows of the newest run."""

    @property
    def silent(self) -> bool:
        """Whether nothing of it says that anything is wrong."""
        return self.status in ("ok", "running") and not self.doctor


@dataclass(kw_only=True)
class Member:
    """One worker process, and its own cable to Temporal."""

    process: WorkerProcess
    temporal: SilentProxy
    life: AsyncExitStack

    @property
    def pid(self) -> int:
        return self.process.process.pid

    @property
    def ended(self) -> bool:
        return self.process.process.returncode is not None


@dataclass(kw_only=True)
class Field:
    """All of it. What happens to a graph is told by `announced`: rows of `nodes` by graph."""

    folder: Path
    write_server: EmbeddedPostgres
    graph_server: EmbeddedPostgres
    temporal_server: TemporalServer
    declared: TemporalDeclaration
    client: Client
    services: Services
    cables: dict[str, SilentProxy]
    embedding: EmbeddingServer
    embedding_url: str
    qdrant: QdrantFront
    members: list[Member] = field(default_factory=list)
    announced: dict[str, int] = field(default_factory=dict)
    usual: frozenset[str] = frozenset()
    """Checks of `syncline doctor` that are not well here to begin with."""

    @classmethod
    @asynccontextmanager
    async def standing(cls, folder: Path) -> AsyncIterator[Self]:
        """Start everything, with two workers; end it."""
        async with AsyncExitStack() as stack:
            servers = {side: PostgresServer(folder / side) for side in ("write", "graph")}
            running = {}
            for side, server in servers.items():
                stack.callback(server.stop)
                running[side] = server.start()
                running[side].ensure_database(side)
            declared = TemporalDeclaration(port=free_port(), ui_port=free_port())
            temporal = TemporalServer(
                declared, database=folder / "t" / "temporal.db", log=folder / "temporal.log"
            )
            await temporal.start()
            stack.push_async_callback(temporal.stop)
            client = await temporal.ready()
            embedding, qdrant = EmbeddingServer(), QdrantFront()
            url = stack.enter_context(embedding.running())
            front = stack.enter_context(qdrant.running())
            ends = {side: server.socket_dir / ".s.PGSQL.5432" for side, server in running.items()}
            cables = {name: await stack.enter_async_context(silent_proxy(end)) for name, end in ends.items()}
            cables["qdrant"] = await stack.enter_async_context(
                silent_proxy(int(front.url.rpartition(":")[2]))
            )
            settings = Settings(
                write_dsn=SecretStr(running["write"].dsn("write")),
                graph_dsn=SecretStr(running["graph"].dsn("graph")),
                qdrant_path=folder / "qdrant",
                task_queue=QUEUE,
                pool_size=4,
            )
            services = await stack.enter_async_context(Services.open(settings))
            await services.prepare_control()
            made = cls(
                folder=folder, write_server=running["write"], graph_server=running["graph"],
                temporal_server=temporal, declared=declared, client=client, services=services, cables=cables,
                embedding=embedding, embedding_url=url, qdrant=qdrant,
            )  # fmt: skip
            await stack.enter_async_context(made._listening())
            stack.push_async_callback(made._end_members)
            await made.complete()
            made.usual = frozenset((await made._unwell()) or ())
            yield made

    async def complete(self) -> None:
        """Have two workers that serve: those that are gone are replaced."""
        self.members = [member for member in self.members if not member.ended]
        while len(self.members) < 2:
            life = AsyncExitStack()
            wire = await life.enter_async_context(silent_proxy(self.declared.port))
            environment = {**self.worker_environment, "TEMPORAL_ADDRESS": f"127.0.0.1:{wire.port}"}
            process = await life.enter_async_context(WorkerProcess.running(ROOT / "worker.py", environment))
            self.members.append(Member(process=process, temporal=wire, life=life))
        for member in self.members:
            await member.process.logs("worker ready")

    async def victim(self, slug: str) -> Member:
        """Return the worker that has the open run's activity."""
        while True:
            for run in await runs_of(self.client, slug, limit=3):
                handle = self.client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
                described = await handle.describe()
                for activity in described.raw_description.pending_activities:
                    pid = activity.last_worker_identity.rpartition(":")[2]
                    for member in self.members:
                        if pid == str(member.pid):
                            return member
            await asyncio.sleep(0.1)

    async def add_graph(self, slug: str) -> Graph:
        """Add a graph that runs by a Schedule, and whose first run has ended."""
        graph = await self.services.graphs.add(
            draft_graph(
                {
                    "slug": slug,
                    "schedule": {"every_seconds": _EVERY},
                    "composition": {"sync": {"provider": "default"}},
                }
            )
        )
        await self.services.prepare_graph(graph)
        await self._reconciled()
        while not any(not run.open for run in await runs_of(self.client, slug, limit=3)):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        return graph

    async def _reconciled(self) -> None:
        """Have the graph's Schedule made, once workers are back from what the last fault did to them."""
        until = time.monotonic() + 120
        while True:
            try:
                await reconcile_now(self.client, task_queue=QUEUE, seconds=60)
            except NoWorker:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.5)
            else:
                return

    async def write(self, graph: Graph) -> None:
        """Write the rows of the test, in one transaction."""
        async with self.on("write", graph) as connection:
            await connection.execute(_WRITTEN, ROWS)

    async def trigger(self, graph: Graph) -> None:
        """Have the Schedule start a run, unless the change has done so."""
        handle = self.client.get_schedule_handle(names.sync_schedule_id(graph.slug))
        await handle.trigger(overlap=ScheduleOverlapPolicy.SKIP)

    async def landed(self, graph: Graph) -> int:
        """Return how many rows are there."""
        async with self.on("graph", graph) as connection:
            return int(await connection.fetchval(_LANDED))

    async def different(self, graph: Graph) -> int:
        """Return how many rows are missing, too many or other than they were written."""
        async with self.on("graph", graph) as connection:
            return int(await connection.fetchval(_DIFFERENT, ROWS))

    async def missing_vectors(self, graph: Graph) -> int:
        """Return how many points are missing or too many."""
        async with self.on("graph", graph) as connection:
            ids = {row["id"] for row in await connection.fetch("SELECT id FROM nodes")}
        return len(ids ^ self.qdrant.ids(f"{graph.qdrant_prefix}nodes"))

    @asynccontextmanager
    async def on(self, side: str, graph: Graph | None = None) -> AsyncIterator[asyncpg.Connection]:
        """Open a connection of our own, which no fault touches."""
        server = self.write_server if side == "write" else self.graph_server
        options = {} if graph is None else {"search_path": graph.schema_name}
        connection = await asyncpg.connect(server.dsn(side), server_settings=options)
        try:
            yield connection
        finally:
            await connection.close()

    async def run_of(self, slug: str) -> ListedRun:
        """Return the graph's open run, or else its newest."""
        runs = await runs_of(self.client, slug, limit=5)
        return next((run for run in runs if run.open), runs[0])

    async def look(self, slug: str) -> Seen:
        """Return what an operator sees now, from a machine that reaches everything that is there."""
        status, doctor, web = await asyncio.gather(
            self._said("status", slug, "--timeout", "3"), self._unwell(), self._web(slug)
        )
        standing = str(status["standing"]) if isinstance(status, dict) else "Temporal cannot be reached"
        unwell = ("temporal",) if doctor is None else tuple(name for name in doctor if name not in self.usual)
        return Seen(status=standing, doctor=unwell, web=web)

    async def archive(self, graph: Graph) -> None:
        """Let it rest, so that the next has the field for itself."""
        handle = self.client.get_schedule_handle(names.sync_schedule_id(graph.slug))
        await handle.delete()
        async with self.on("graph") as connection:
            await connection.execute(
                "UPDATE syncline.graphs SET status = 'archived' WHERE slug = $1", graph.slug
            )

    async def temporal_away(self) -> None:
        """Kill Temporal."""
        identity = self.temporal_server.child.identity
        assert identity is not None
        os.kill(identity.pid, signal.SIGKILL)

    async def temporal_back(self) -> None:
        """Start it again over the same database."""
        await self.temporal_server.start()
        await self.temporal_server.ready()

    @property
    def worker_environment(self) -> dict[str, str]:
        """What both workers have in their environment."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "SYNCLINE_WRITE_DSN": f"postgresql://postgres@127.0.0.1:{self.cables['write'].port}/write",
            "SYNCLINE_GRAPH_DSN": f"postgresql://postgres@127.0.0.1:{self.cables['graph'].port}/graph",
            "SYNCLINE_QDRANT_URL": f"http://127.0.0.1:{self.cables['qdrant'].port}",
            "SYNCLINE_EMBEDDING": "openai",
            "SYNCLINE_EMBEDDING_URL": self.embedding_url,
            "SYNCLINE_EMBEDDING_API_KEY": "k",
            "SYNCLINE_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
            "SYNCLINE_TASK_QUEUE": QUEUE,
            "SYNCLINE_BATCH_ROWS": "50",
            "SYNCLINE_LOG_FORMAT": "json",
        }

    async def _unwell(self) -> tuple[str, ...] | None:
        """Return the checks of `syncline doctor` that are not well; None if it answers nothing."""
        found = await self._said("doctor", "--timeout", "6")
        if not isinstance(found, dict):
            return None
        return tuple(check["name"] for check in found["checks"] if check["status"] in ("warn", "fail"))

    async def _web(self, slug: str) -> str:
        """Return the newest run's status, and what the page of a run shows of its activity."""
        try:
            async with asyncio.timeout(3):
                run = await self.run_of(slug)
                handle = self.client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
                described = await handle.describe()
        except (Exception, TimeoutError):
            return "-"
        shown = run.status.value.capitalize()
        if run.status is RunStatus.FAILED:
            shown += f": {(await self._failure(handle))[:60]}"
        for activity in described.raw_description.pending_activities:
            shown += f", {activity.activity_type.name} attempt {activity.attempt}"
            if activity.HasField("last_failure"):
                failure = activity.last_failure
                shown += f": {(failure.message or failure.cause.message).partition('. ')[0][:60]}"
        return shown

    async def _failure(self, handle: WorkflowHandle[object, object]) -> str:
        try:
            await handle.result()
        except WorkflowFailureError as error:
            return str(error.cause).partition(". ")[0]
        return ""

    async def _said(self, *arguments: str) -> object:
        """Return the JSON that a command prints, None if it prints none."""
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("syncline"), *arguments, "--json",
            env={**self.worker_environment, "TEMPORAL_ADDRESS": self.declared.address},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            out, _ = await process.communicate()
        finally:
            # Whoever looks is cancelled once the rows are there.
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            return json.loads(out)
        except ValueError:
            return None

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        """Count what is announced to downstream caches."""

        def heard(_: object, __: int, ___: str, payload: object) -> None:
            event = json.loads(str(payload))
            rows = int(event["rows"].get("nodes", 0))
            self.announced[event["graph"]] = self.announced.get(event["graph"], 0) + rows

        async with self.on("graph") as connection:
            await connection.add_listener(names.NOTIFY_CHANNEL, heard)
            yield

    async def _end_members(self) -> None:
        for member in self.members:
            if not member.ended:
                os.kill(member.pid, signal.SIGCONT)
            await member.life.aclose()
