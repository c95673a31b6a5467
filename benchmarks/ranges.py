"""Ranges: one graph is loaded by one lane, by two of one process, and by two processes, in turn.

`python -m benchmarks.ranges [--rows N] [--rounds N]`: by the clock, by CPU, and what bounds it.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import structlog
from pydantic import SecretStr

from benchmarks.cpu import PostgresCpu, cpu_seconds
from benchmarks.growth import fill
from benchmarks.lab import SCHEMA, NoEmbedding, fresh_store, timed_cycle
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine
from syncline.messages.base import GraphRef
from syncline.messages.sync import CycleProgress, SyncResult
from syncline.migrations import migrate_graph
from syncline.provider import (
    CycleBudget,
    GraphSchema,
    GraphVectors,
    NoOptions,
    NullMeter,
    RunIdentity,
    SyncContext,
)
from syncline.settings import Settings
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore

__all__ = ["Helper", "OneProcess", "main", "measure"]

ROWS, ROUNDS = 1_200_000, 2
_NOBODY, _TASK, _PROCESS = "ranges, alone", "2 lanes, one process", "2 processes, a lane each"
_ONE = "one lane"


class OneProcess:
    """Calls further lanes as tasks of this process; none for `number` 1."""

    def __init__(self, engine: SyncEngine, *, come: bool) -> None:
        self.number = 2
        self._engine, self._come = engine, come
        self.context: SyncContext | None = None
        self._tasks: list[asyncio.Task[object]] = []

    async def call(self) -> None:
        """Start the other lane, once."""
        if not self._come or self._tasks or self.context is None:
            return
        context = replace(self.context, heartbeat=lambda _: None)
        work = self._engine.load_ranges(context, lane="task", over=lambda: False)
        self._tasks.append(asyncio.create_task(work))

    async def ended(self) -> float:
        """Return the CPU seconds of other processes, once the lane has ended."""
        await asyncio.gather(*self._tasks)
        return 0.0


@dataclass
class Helper:
    """A second process with one lane, which is there before the cycle begins."""

    process: asyncio.subprocess.Process
    context: SyncContext | None = None
    number: int = 2
    called: bool = False
    before: float = field(default=0.0)

    @classmethod
    @asynccontextmanager
    async def started(cls, write: str, target: str) -> "AsyncIterator[Helper]":
        """Start it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "benchmarks.ranges", "--lane"),
            env=os.environ | {"LANE_WRITE": write, "LANE_TARGET": target},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        if process.stdout is None:
            raise SystemExit("the lane has no output")
        await process.stdout.readline()
        helper = cls(process, before=cpu_seconds(process.pid))
        try:
            yield helper
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def call(self) -> None:
        """Tell it whose loads these are, once."""
        if self.called or self.context is None or self.process.stdin is None:
            return
        self.called = True
        self.process.stdin.write(f"{self.context.run.run_id}\n".encode())
        await self.process.stdin.drain()

    async def ended(self) -> float:
        """Return the CPU seconds that it took."""
        if self.process.stdout is None:
            raise SystemExit("the lane has no output")
        told = json.loads(await self.process.stdout.readline())
        return float(told["cpu"]) - self.before


async def lane() -> None:
    """Be the second process: its stores are told by the environment, its run by the input."""
    write, target = (
        PostgresStore(name, SecretStr(os.environ[variable]), pool_size=4, application_name="lane")
        for name, variable in (("write", "LANE_WRITE"), ("graph", "LANE_TARGET"))
    )
    engine = SyncEngine(KNOWLEDGE_GRAPH)
    with tempfile.TemporaryDirectory(prefix="syncline-lane-") as folder:
        vectors = EmbeddedQdrantStore("lane", Path(folder))
        for store in (write, target):
            async with store.driver() as connection:
                await connection.execute("SELECT")
        print("ready", flush=True)
        run = (await asyncio.to_thread(sys.stdin.readline)).strip()
        context = SyncContext(
            graph=GraphRef(id=UUID(int=1), slug="benchmark"),
            run=RunIdentity(workflow_id="benchmark", run_id=run),
            write=GraphSchema(store=write, schema=SCHEMA),
            target=GraphSchema(store=target, schema=SCHEMA),
            vectors=GraphVectors(store=vectors, prefix="benchmark_"),
            embedding=NoEmbedding(),
            budget=CycleBudget(batch_rows=Settings.model_fields["batch_rows"].default, seconds=3600),
            options=NoOptions(),
            heartbeat=lambda _: None,
            log=structlog.get_logger(),
            meter=NullMeter(),
        )
        result = await engine.load_ranges(context, lane="process", over=lambda: False)
        print(json.dumps({"cpu": cpu_seconds(os.getpid()), "ranges": result.ranges}), flush=True)
        await vectors.close()
    for store in (write, target):
        await store.close()


@dataclass(frozen=True)
class Load:
    """One first load."""

    seconds: float
    """Until the graph-db had everything, keys and indexes too."""
    loading: float
    """Of these, until the last row was there."""
    postgres: float
    """CPU seconds of the server, of all its processes."""
    python: float
    """CPU seconds of the workers."""
    batches: int

    @property
    def cores(self) -> float:
        """How many cores were busy in the mean."""
        return (self.postgres + self.python) / self.seconds


async def measure(
    server: EmbeddedPostgres, folder: Path, write: PostgresStore, way: str, number: int
) -> Load:
    """Load an empty graph-db in one way."""
    name, engine = f"graph{number}", SyncEngine(KNOWLEDGE_GRAPH)
    async with fresh_store(server, name) as target:
        await migrate_graph(target, SCHEMA)
        server.psql("CHECKPOINT")
        vectors = EmbeddedQdrantStore("benchmark", folder / name)
        clock, last = PostgresCpu(folder / "postgres"), [0.0]
        try:
            if way == _PROCESS:
                async with Helper.started(server.dsn("write"), server.dsn(name)) as helper:
                    return await _load(engine, write, target, vectors, helper, clock, last)
            lanes = None if way == _ONE else OneProcess(engine, come=way == _TASK)
            return await _load(engine, write, target, vectors, lanes, clock, last)
        finally:
            await vectors.close()


async def _load(
    engine: SyncEngine,
    write: PostgresStore,
    target: PostgresStore,
    vectors: EmbeddedQdrantStore,
    lanes: OneProcess | Helper | None,
    clock: PostgresCpu,
    last: list[float],
) -> Load:
    async def run(context: SyncContext) -> SyncResult:
        beat = context.heartbeat

        def heard(progress: CycleProgress) -> None:
            beat(progress)
            if any(table.loading for table in progress.tables):
                last[0] = time.perf_counter()

        context = replace(context, heartbeat=heard)
        if lanes is not None:
            lanes.context = context = replace(context, lanes=lanes)
        return await engine.run_cycle(context)

    started, postgres, python = time.perf_counter(), clock.seconds(), cpu_seconds(os.getpid())
    timing = await timed_cycle(write, target, vectors, NoEmbedding(), run=run)
    postgres, python = clock.seconds() - postgres, cpu_seconds(os.getpid()) - python
    others = 0.0 if lanes is None else await lanes.ended()
    return Load(timing.rows_seconds, last[0] - started, postgres, python + others, timing.result.batches)


def report(loads: dict[str, list[Load]], rows: int) -> list[str]:
    """Return the lines of the report."""
    lines = []
    one = loads[_ONE]
    for way, measured in loads.items():
        ratios = [mine.seconds / its.seconds for mine, its in zip(one, measured, strict=True)]
        loading = [mine.loading / its.loading for mine, its in zip(one, measured, strict=True)]
        best = min(measured, key=lambda load: load.seconds)
        lines.append(
            f"{way:<26} {rows / best.seconds:>9,.0f} rows/s  {statistics.median(ratios):.2f} of one lane "
            f"(rows alone {statistics.median(loading):.2f})  CPU {best.postgres:.1f} s Postgres, {best.python:.1f} s workers, "
            f"{best.cores:.2f} cores of {os.cpu_count()}"
        )
    return lines


async def _measure(rows: int, rounds: int, say: Callable[[str], object]) -> None:
    nodes = rows // 6
    loads: dict[str, list[Load]] = {way: [] for way in (_ONE, _NOBODY, _TASK, _PROCESS)}
    with tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder:
        postgres = PostgresServer(Path(folder) / "postgres")
        server = postgres.start()
        try:
            async with fresh_store(server, "write") as write:
                await fill(write, nodes)
                for number in range(rounds):
                    for place, (way, measured) in enumerate(loads.items()):
                        load = await measure(server, Path(folder), write, way, number * 10 + place)
                        measured.append(load)
                        say(
                            f"round {number + 1}, {way}: {load.seconds:.1f} s, {load.batches} batches, {load.postgres:.1f} s Postgres, {load.python:.1f} s workers, {load.cores:.2f} cores"
                        )
        finally:
            postgres.stop()
    for line in report(loads, nodes * 6 + 4):
        say(line)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="of the write-db, in six tables")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--lane", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    if given.lane:
        asyncio.run(lane())
    else:
        asyncio.run(_measure(given.rows, given.rounds, lambda line: print(line, flush=True)))


if __name__ == "__main__":
    main()
