"""How soon a wait returns after what it waits for is visible: `make bench-waits`.

A Temporal dev server with a database file, PostgreSQL and one worker process, as `syncline dev` has them. First one
wait after the other, then many at once for writes behind an open transaction.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
from pydantic import SecretStr
from temporalio.client import Client

from benchmarks.engine import REPORT, ROOT
from syncline import names
from syncline.control.graphs import draft_graph
from syncline.control.services import Services
from syncline.devstack.declaration import TemporalDeclaration
from syncline.devstack.environment import StackStores, clear_temporal_environment, worker_environment
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.devstack.processes import WorkerProcess
from syncline.devstack.temporal_server import TemporalServer
from syncline.logs import configure_logging
from syncline.messages.visibility import Visibility, WaitVisibleInput
from syncline.settings import Settings
from syncline.temporal.schedules.graph import ensure_schedule
from tests.kit.pages import replace_between
from tests.kit.ports import free_port

_SCHEMA = "waited"
_HEAD = "| From visible to answered | Waits | Median | p99 |\n|---|--:|--:|--:|"
_WAYS = _RUN, _ACTIVITY = "a run", "an activity of its own"
_WRITE = f"INSERT INTO {_SCHEMA}.write_nodes (id, concept) VALUES ($1, 'c')"  # a name of this module


class Bench:
    """One graph, a writer, a reader who is told when more is visible, and programs that wait."""

    def __init__(
        self, client: Client, task_queue: str, write: asyncpg.Connection, graph: asyncpg.Connection
    ) -> None:
        self._client, self._task_queue, self._write, self._graph = client, task_queue, write, graph
        self._told = asyncio.Event()

    async def begin(self) -> None:
        """Listen for what is visible."""
        await self._graph.add_listener(names.VISIBLE_CHANNEL, lambda *_: self._told.set())

    async def written(self) -> str:
        """Write one row and return its transaction's token."""
        async with self._write.transaction():
            await self._write.execute(_WRITE, uuid4().hex)
            return str(await self._write.fetchval("SELECT syncline.token()"))

    async def visible(self, token: str) -> float:
        """Return when the graph-db says that it is visible."""
        while True:
            self._told.clear()
            if await self._graph.fetchval("SELECT visible FROM syncline.visible($1, $2)", _SCHEMA, token):
                return time.monotonic()
            await self._told.wait()

    async def waited(self, token: str, way: str = _RUN) -> float:
        """Return when a wait has returned."""
        request = WaitVisibleInput(graph=_SCHEMA, token=token, seconds=120)
        if way == _ACTIVITY:
            answer = await self._client.execute_activity(
                names.WAIT_VISIBLE_ACTIVITY,
                request,
                id=f"wait/{_SCHEMA}/{token}",
                task_queue=names.waits_task_queue(self._task_queue),
                start_to_close_timeout=timedelta(seconds=140),
                heartbeat_timeout=timedelta(seconds=40),
                result_type=Visibility,
            )
        else:
            answer = await self._client.execute_workflow(
                names.WAIT_VISIBLE,
                request,
                id=f"wait/{_SCHEMA}/{token}",
                task_queue=self._task_queue,
                result_type=Visibility,
            )
        if not answer.visible:
            raise RuntimeError(f"not visible: {answer.reason}")
        return time.monotonic()

    async def singly(self, number: int) -> dict[str, list[tuple[float, float]]]:
        """Return, for each way in turn and each write, (commit to visible, visible to returned), in seconds."""
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in _WAYS}
        for _ in range(number):
            for way in _WAYS:
                token = await self.written()
                committed = time.monotonic()
                visible, returned = await asyncio.gather(self.visible(token), self.waited(token, way))
                found[way].append((visible - committed, max(0.0, returned - visible)))
                await asyncio.sleep(0.2)
        return found

    async def together(self, number: int, other: asyncpg.Connection, way: str) -> list[float]:
        """Return how long after it was visible each of so many waits returned."""
        held = other.transaction()
        await held.start()
        await other.execute(_WRITE, uuid4().hex)
        tokens = [await self.written() for _ in range(number)]
        waits = [asyncio.create_task(self.waited(token, way)) for token in tokens]
        await asyncio.sleep(max(5.0, number / 50))
        await held.commit()
        visible = await self.visible(tokens[-1])
        return [max(0.0, returned - visible) for returned in await asyncio.gather(*waits)]


def _line(name: str, seconds: list[float]) -> str:
    last = statistics.quantiles(seconds, n=100)[98]
    return (
        f"| {name} | {len(seconds)} | {statistics.median(seconds) * 1000:,.0f} ms | {last * 1000:,.0f} ms |"
    )


async def measure(server: EmbeddedPostgres, folder: Path, singly: int, together: int) -> list[str]:
    """Return the lines of the report."""
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
    connections = [await asyncpg.connect(stores.write_dsn) for _ in range(2)]
    connections.append(await asyncpg.connect(stores.graph_dsn))
    try:
        client = await temporal.ready()
        settings = Settings(write_dsn=SecretStr(stores.write_dsn), graph_dsn=SecretStr(stores.graph_dsn))
        async with Services.open(settings) as services:
            await services.prepare_control()
            await worker.start()
            graph = await services.graphs.add(draft_graph({"slug": _SCHEMA}))
            await services.prepare_graph(graph)
            await ensure_schedule(client, graph, task_queue=settings.task_queue, start_now=True)
        bench = Bench(client, settings.task_queue, connections[0], connections[2])
        await bench.begin()
        # The listener reads the records. Without a worker nothing would ever be visible.
        async with asyncio.timeout(60):
            await bench.waited(await bench.written())
        await asyncio.sleep(10)
        alone = await bench.singly(singly)
        many = {way: await bench.together(together, connections[1], way) for way in _WAYS if together}
    finally:
        for connection in connections:
            await connection.close()
        await worker.stop()
        await temporal.stop()
    committed = [visible for found in alone.values() for visible, _ in found]
    return [
        *(_line(f"One at a time, by {way}", [ended for _, ended in found]) for way, found in alone.items()),
        *(_line(f"{together} at once, by {way}", found) for way, found in many.items()),
        _line("For comparison: from commit to visible meanwhile", committed),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--singly", type=int, default=100)
    parser.add_argument("--together", type=int, default=1000)
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    configure_logging("ERROR", "console")
    clear_temporal_environment()
    with tempfile.TemporaryDirectory(prefix="syncline-waits-") as name:
        server = PostgresServer(Path(name) / "postgres")
        try:
            lines = asyncio.run(measure(server.start(), Path(name), given.singly, given.together))
        finally:
            server.stop()
    text = "\n".join([_HEAD, *lines])
    print(text)  # its purpose
    replace_between(given.report, "<!-- benchmark:waits -->", "<!-- /benchmark:waits -->", f"\n{text}\n")


if __name__ == "__main__":
    main()
