"""A rolling deployment for real: worker processes of two environments, runs all the while, and what came of it."""

import asyncio
import json
import signal as signals
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final

import asyncpg
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter

from syncline import names
from syncline.control.graphs import draft_graph
from syncline.control.services import Services
from syncline.messages.provider_state import Outage, ProviderReturned
from syncline.messages.sync import ProviderResolution, SyncGraphResult
from syncline.temporal.client import GRAPH
from syncline.testing.lab import eventually
from syncline.testing.worker_process import WorkerProcess, environment_of

ROOT: Final = Path(__file__).parents[2]
PLUGIN: Final = "courier"
STEADY, FALLS_BACK, HOLDS, FAILS = "rolling-steady", "rolling-falls-back", "rolling-holds", "rolling-fails"
ON_MISSING: Final = {FALLS_BACK: "fallback", HOLDS: "hold", FAILS: "fail"}
DEFAULT: Final = {"provider": "default"}
GRAPHS: Final = (STEADY, *ON_MISSING)


Span = tuple[datetime, datetime]


def write_plugin(folder: Path) -> Path:
    """Write the project of a plugin that runs the built-in engine, and return its folder."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        f"""
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{PLUGIN}"
version = "1.0"
dependencies = ["syncline"]

[project.entry-points."syncline.providers"]
{PLUGIN} = "{PLUGIN}:Courier"
"""
    )
    (folder / f"{PLUGIN}.py").write_text(
        f"""
from syncline.engine import run_cycle
from syncline.provider import SyncProvider


class Courier(SyncProvider):
    id = "{PLUGIN}"
    version = "1.0"
    api_version = 1

    async def initialize(self, services):
        pass

    async def sync_cycle(self, context):
        return await run_cycle(context)

    async def close(self):
        pass
"""
    )
    return folder


@dataclass
class Worker:
    """One worker process, from its start to its end."""

    name: str
    has_plugin: bool
    process: WorkerProcess
    started: datetime
    ready: datetime
    draining: datetime | None = None
    ended: datetime | None = None

    def said(self, event: str, **fields: str) -> list[dict[str, object]]:
        """Return the lines that it logged of this event and with these fields."""
        lines = [json.loads(line) for line in self.process.said.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event and fields.items() <= line.items()]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What Temporal kept of one run."""

    graph: str
    status: WorkflowExecutionStatus | None
    began: datetime
    resolving: Span
    """From when the question for a provider was asked last, to its answer."""
    resolution: ProviderResolution | None
    result: SyncGraphResult | None
    returns: Sequence[ProviderReturned]
    failure: str | None

    @property
    def served_by(self) -> str | None:
        """The distribution whose provider ran the cycle, as `name version`; None if there was none."""
        served = self.result.result.served if self.result else None
        return served.distribution if served else None

    @property
    def away(self) -> Outage | None:
        """Since when no provider served the graph, as the run hands on."""
        return self.result.carried.outage if self.result else None


@dataclass
class Fleet:
    """The worker processes of one deployment."""

    client: Client
    environment: Mapping[str, str]
    folder: Path
    task_queue: str
    stack: AsyncExitStack
    workers: list[Worker] = field(default_factory=list)

    async def start(self, name: str, python: Path, *, has_plugin: bool) -> Worker:
        """Start a worker with this Python, and wait until it is ready."""
        started = now()
        process = await self.stack.enter_async_context(
            WorkerProcess.running(
                ROOT / "worker.py",
                {**self.environment, "SYNCLINE_QDRANT_PATH": str(self.folder / name)},
                python=python,
            )
        )
        await process.logs('"worker ready"')
        worker = Worker(name, has_plugin, process, started=started, ready=now())
        self.workers.append(worker)
        return worker

    async def stop(self, worker: Worker) -> None:
        """Send the worker SIGTERM, and wait for its end."""
        worker.draining = now()
        worker.process.process.send_signal(signals.SIGTERM)
        assert await worker.process.ended() == 0, worker.process.said
        worker.ended = now()

    async def further_runs(self, number: int) -> None:
        """Wait until each graph has begun and ended so many runs from now on."""
        since = now().isoformat()

        async def there() -> bool:
            ended = [
                run.typed_search_attributes.get(GRAPH)
                async for run in self.client.list_workflows(
                    f"{self.runs} AND StartTime > '{since}' AND ExecutionStatus != 'Running'"
                )
            ]
            return all(ended.count(graph) >= number for graph in GRAPHS)

        await patiently(there)

    async def idle(self, workflow: str) -> None:
        """Wait until no run of this type is open."""
        open_runs = (
            f"WorkflowType='{workflow}' AND TaskQueue='{self.task_queue}' AND ExecutionStatus = 'Running'"
        )

        async def none() -> bool:
            return (await self.client.count_workflows(open_runs)).count == 0

        await patiently(none)

    @property
    def runs(self) -> str:
        return f"WorkflowType='{names.SYNC_GRAPH}' AND TaskQueue='{self.task_queue}'"


async def patiently(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what takes seconds; asking all the while would slow it down."""

    async def looked() -> bool:
        await asyncio.sleep(0.4)
        return await condition()

    await eventually(looked, seconds=90)


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def writing(dsn: str, *, per_second: float = 40) -> AsyncIterator[None]:
    """Insert, change and delete rows of every graph in turn while this is entered.

    They are of a table without vectors: the embedded vector store is held by one process, and here are many.
    """
    connection = await asyncpg.connect(dsn)
    stop = asyncio.Event()

    async def write() -> None:
        for number in count(1):
            for graph in GRAPHS:
                table = f'"{schema(graph)}".write_raw_sources'
                await connection.execute(f"INSERT INTO {table} (id, title) VALUES ($1, 'new')", str(number))
                if number % 3 == 0:
                    await connection.execute(
                        f"UPDATE {table} SET title = title || '!' WHERE id = $1", str(number - 2)
                    )
                if number % 7 == 0:
                    await connection.execute(f"DELETE FROM {table} WHERE id = $1", str(number - 5))
            if stop.is_set():
                return
            await asyncio.sleep(len(GRAPHS) / per_second)

    writer = asyncio.create_task(write())
    try:
        yield
    finally:
        stop.set()
        await writer
        await connection.close()


def schema(graph: str) -> str:
    return graph.replace("-", "_")


async def rows(dsn: str, graph: str, table: str, key: str) -> Mapping[str, str]:
    """Return key -> title of a graph's rows."""
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetch(f'SELECT {key} AS key, title FROM "{schema(graph)}".{table}')
    finally:
        await connection.close()
    return {row["key"]: row["title"] for row in found}


@asynccontextmanager
async def announcements(dsn: str) -> AsyncIterator[dict[int, list[datetime]]]:
    """While this is entered, note by pid when the control plane was first and last seen to know of a worker."""
    seen: dict[int, list[datetime]] = {}
    connection = await asyncpg.connect(dsn)

    async def watch() -> None:
        while True:
            for row in await connection.fetch("SELECT identity FROM syncline.workers"):
                pid = int(row["identity"].rpartition(":")[2])
                seen.setdefault(pid, [now(), now()])[1] = now()
            await asyncio.sleep(0.05)

    watcher = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        await connection.close()


async def add_graphs(services: Services) -> None:
    """Add the graphs, each with its schemas, a run every other second, and nothing that starts more of them."""
    schedule = {"every_seconds": 2, "notify": False}
    for slug in GRAPHS:
        declared = {"provider": PLUGIN, "on_missing": ON_MISSING[slug]} if slug in ON_MISSING else DEFAULT
        draft = {"slug": slug, "schedule": schedule, "composition": {"sync": declared}}
        await services.prepare_graph(await services.graphs.add(draft_graph(draft)))


async def recorded(client: Client, query: str) -> list[Run]:
    """Return all runs of a query, in the order in which they began."""
    found = [
        (run, await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history())
        async for run in client.list_workflows(query)
    ]
    runs = [_read(run, history) for run, history in found]
    return sorted(runs, key=lambda run: run.began)


def _read(run: WorkflowExecution, history: WorkflowHistory) -> Run:
    decode = pydantic_data_converter.payload_converter.from_payload
    asked: dict[int, datetime] = {}
    span = (run.start_time, run.start_time)
    resolution = result = failure = None
    returns: list[ProviderReturned] = []
    graph = ""
    for event in history.events:
        at = event.event_time.ToDatetime(tzinfo=UTC)
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                [given] = event.workflow_execution_started_event_attributes.input.payloads
                graph = json.loads(given.data)["graph"]
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                if (
                    event.activity_task_scheduled_event_attributes.activity_type.name
                    == names.RESOLVE_PROVIDER
                ):
                    asked[event.event_id] = at
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                completed = event.activity_task_completed_event_attributes
                if completed.scheduled_event_id in asked:
                    span = (asked[completed.scheduled_event_id], at)
                    resolution = decode(completed.result.payloads[0], ProviderResolution)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED:
                failed = event.activity_task_failed_event_attributes
                failure = failed.failure.application_failure_info.type
                if failed.scheduled_event_id in asked:
                    span = (asked[failed.scheduled_event_id], at)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                signal = event.workflow_execution_signaled_event_attributes
                if signal.signal_name == names.PROVIDER_RETURNED:
                    returns.append(decode(signal.input.payloads[0], ProviderReturned))
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
                [given] = event.workflow_execution_completed_event_attributes.result.payloads
                result = decode(given, SyncGraphResult)
    return Run(
        graph=graph,
        status=run.status,
        began=run.start_time,
        resolving=span,
        resolution=resolution,
        result=result,
        returns=returns,
        failure=failure,
    )


def fleet_environment(services: Services, temporal: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return what every worker of the fleet has in its environment."""
    return environment_of(services.settings, temporal, folder) | {
        "SYNCLINE_POOL_SIZE": "4",
        "SYNCLINE_NOTIFY": "false",
        "SYNCLINE_RECONCILE_SECONDS": "1",
    }
