"""How soon a change is visible, and what that costs writers: `make bench-freshness`.

A Temporal dev server with a database file, PostgreSQL and one worker process, as `syncline dev` has them. Of three
graphs with a run a minute, two are told of changes, and the runs of one of these linger. The tables go to the screen and into docs/performance.md.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
from pydantic import SecretStr

from benchmarks.engine import REPORT, ROOT
from benchmarks.lab import SCHEMA
from benchmarks.notify import measure_notify
from syncline.control.graphs import Graph, draft_graph
from syncline.control.schedule_spec import ScheduleSpec
from syncline.control.services import Services
from syncline.devstack.declaration import TemporalDeclaration
from syncline.devstack.environment import StackStores, clear_temporal_environment, worker_environment
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.devstack.processes import WorkerProcess
from syncline.devstack.temporal_server import TemporalServer
from syncline.logs import configure_logging
from syncline.messages.base import GraphStatus
from syncline.settings import Settings
from syncline.temporal.schedules.graph import ensure_schedule
from tests.kit.pages import replace_between
from tests.kit.ports import free_port

_TOLD, _MINUTE = "With notification", "The schedule of once a minute alone"
_ENDING = "With notification, and runs that end at once (`linger_seconds` 0)"


async def measure_latency(
    server: EmbeddedPostgres, folder: Path, changes: int, seconds: float
) -> list[tuple[str, str]]:
    """Return the lines of the report: commit to visible, of as many changes at random moments on each side."""
    for name in ("write", "graph"):
        server.ensure_database(name)
    stores = StackStores(
        write_dsn=server.dsn("write"), graph_dsn=server.dsn("graph"), qdrant_path=folder / "qdrant"
    )
    declared = TemporalDeclaration(port=free_port(), ui_port=free_port())
    temporal = TemporalServer(declared, database=folder / "temporal.db", log=folder / "temporal.log")
    environment = worker_environment(stores, {}, address=declared.address, namespace=declared.namespace)
    worker = WorkerProcess(
        ROOT / "worker.py",
        environment | {"PYTHONPATH": str(ROOT)},
        log=folder / "worker.log",
        graceful_seconds=5,
    )
    await temporal.start()
    try:
        client = await temporal.ready()
        settings = Settings(write_dsn=SecretStr(stores.write_dsn), graph_dsn=SecretStr(stores.graph_dsn))
        async with Services.open(settings) as services:
            await services.prepare_control()
            await worker.start()
            graphs = {}
            sides: tuple[tuple[str, str, Mapping[str, object]], ...] = (
                (_TOLD, "told", {}),
                (_ENDING, "ending", {"linger_seconds": 0}),
                (_MINUTE, "minute", {"notify": False}),
            )
            for name, slug, schedule in sides:
                draft = draft_graph({"slug": slug, "schedule": {"every_seconds": 60, **schedule}})
                graphs[name] = await services.graphs.add(draft)
                await services.prepare_graph(graphs[name])
                await ensure_schedule(client, graphs[name], task_queue=settings.task_queue, start_now=True)
        # The listener reads the records, each side has had its first run.
        await asyncio.sleep(60)
        async with asyncio.timeout(seconds + 150):
            measured = await asyncio.gather(
                *(_latencies(stores, graph, changes, seconds) for graph in graphs.values())
            )
    finally:
        await worker.stop()
        await temporal.stop()
    lines = []
    for name, latencies in zip(graphs, measured, strict=True):
        median, last = statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]
        lines.append((name, f"{len(latencies)} | {median:,.3f} s | {last:,.2f} s | {max(latencies):,.2f} s"))
        print(f"latency: {name}: {lines[-1][1]}", flush=True)
    return lines


async def _latencies(stores: StackStores, graph: Graph, changes: int, seconds: float) -> list[float]:
    """Commit single rows at random moments within so many seconds; return how long each took to be visible."""
    place = {"search_path": graph.schema_name}
    writer = await asyncpg.connect(stores.write_dsn, server_settings=place | {"synchronous_commit": "on"})
    reader = await asyncpg.connect(stores.graph_dsn, server_settings=place)
    outstanding: dict[str, float] = {}
    latencies: list[float] = []

    async def write() -> None:
        began = time.perf_counter()
        for number, moment in enumerate(sorted(random.uniform(0, seconds) for _ in range(changes))):
            await asyncio.sleep(max(0.0, began + moment - time.perf_counter()))
            await writer.execute("INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')", str(number))
            outstanding[str(number)] = time.perf_counter()

    writing = asyncio.create_task(write())
    while outstanding or not writing.done():
        visible = await reader.fetch("SELECT key FROM nodes WHERE key = ANY ($1)", list(outstanding))
        latencies += [time.perf_counter() - outstanding.pop(row["key"]) for row in visible]
        await asyncio.sleep(0.01)
    await writing
    for connection in (writer, reader):
        await connection.close()
    return latencies


async def measure(options: argparse.Namespace) -> dict[str, list[tuple[str, str]]]:
    """Return the lines of each table."""
    now = datetime.now(UTC)
    graph = Graph(
        id=UUID(int=1), slug="benchmark", name="benchmark", status=GraphStatus.ACTIVE, is_default=False,
        write_store=None, graph_store=None, schema_name=SCHEMA, qdrant_prefix="benchmark_", qdrant_store=None,
        schedule=ScheduleSpec(), composition={}, created_at=now, updated_at=now,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="syncline-bench-") as name:
        folder = Path(name)
        postgres = PostgresServer(folder / "postgres")
        server = postgres.start()
        try:
            price = await measure_notify(server, graph, folder, options.rounds)
            latency = await measure_latency(server, folder, options.changes, options.seconds)
        finally:
            postgres.stop()
    return {"latency": latency, "notify": price}


HEADS = {
    "latency": "| From commit to visible, single-row changes at random moments | Changes | Median | p99 | Longest |\n|---|--:|--:|--:|--:|",
    "notify": "| Single-row commits per second, medians of {rounds} rounds in turn | 1 writer | Without = 1 | 8 writers | Without = 1 |\n|---|--:|--:|--:|--:|",
}


def main() -> None:
    """Measure, print, and replace the tables in docs/performance.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--changes", type=int, default=200)
    arguments.add_argument("--seconds", type=float, default=330)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--report", type=Path, default=REPORT)
    options = arguments.parse_args()
    configure_logging("ERROR", "console")
    clear_temporal_environment()
    os.environ.pop("SYNCLINE_TASK_QUEUE", None)
    for name, lines in asyncio.run(measure(options)).items():
        rows = "\n".join(f"| {what} | {value} |" for what, value in lines)
        text = f"{HEADS[name].format(rounds=options.rounds)}\n{rows}"
        print(text)
        replace_between(
            options.report, f"<!-- benchmark:{name} -->", f"<!-- /benchmark:{name} -->", f"\n{text}\n"
        )


if __name__ == "__main__":
    main()
