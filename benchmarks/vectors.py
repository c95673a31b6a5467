"""The vector pipe against stubs of an embedding service and of Qdrant: `python -m benchmarks.vectors`.

Prints what each case took, as a ratio to what its lanes allow, and the CPU seconds of the worker, of Postgres
and of the stubs: they say the same on a busy machine. Each case is a process of its own, so that its memory is
its own; so are the stubs. Once all cases have run, the table goes into docs/performance.md.
"""

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import structlog
from pydantic import SecretStr

from benchmarks.cpu import PostgresCpu, cpu_seconds
from benchmarks.engine import ROOT
from benchmarks.lab import SCHEMA, fresh_store
from benchmarks.vector_stubs import SECONDS_PER_HUNDRED
from syncline.devstack.postgres import PostgresServer
from syncline.embeddings.openai import OpenAIEmbedding
from syncline.engine import run_cycle
from syncline.messages.base import GraphRef
from syncline.messages.sync import SyncResult
from syncline.migrations import migrate_graph, migrate_write
from syncline.provider import (
    CycleBudget,
    GraphSchema,
    GraphVectors,
    NoOptions,
    NullMeter,
    RetryRules,
    RunIdentity,
    SyncContext,
)
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_server import QdrantServerStore
from tests.kit.pages import replace_between

REPORT = ROOT / "docs" / "performance.md"
_WRITE = """
INSERT INTO write_facts (id, content, dedup_status)
SELECT 'f' || i, 'fact ' || i || ': ' || repeat('some words of a fact ', 6), 'ready' FROM generate_series(1, $1::int) i
"""


@dataclass(frozen=True)
class Case:
    """One run."""

    name: str
    points: int
    lanes: int
    dimensions: int = 384
    slow_every: int = 0
    quota: int = 0
    """Requests that the service answers in each window of `window_seconds`; 0 is any number."""
    window_seconds: float = 60

    @property
    def allowed_seconds(self) -> float:
        """What its lanes need if nothing else takes time; a slow request takes ten times as long."""
        slow = 1 + 9 / self.slow_every if self.slow_every else 1
        return self.points / 100 * SECONDS_PER_HUNDRED * slow / self.lanes


def cases(points: int) -> list[Case]:
    """Return the cases of the report."""
    return [
        Case("4 lanes", points, 4),
        Case("16 lanes", points, 16),
        Case("4 lanes, one slow request in ten", points // 2, 4, slow_every=10),
        Case("16 lanes, 1,536 dimensions", points // 2, 16, dimensions=1536),
        Case("quota of 30 requests a minute", 5_000, 16, quota=5, window_seconds=10),
    ]


async def run_case(case: Case, write_dsn: str, target_dsn: str, url: str) -> dict[str, float]:
    """Drain the points of one case; return its numbers."""
    service = OpenAIEmbedding(url, "stub", case.dimensions, lanes=case.lanes)
    store = QdrantServerStore("stub", url)
    # As the worker does at its start.
    gc.collect()
    gc.freeze()
    cycles, started, cpu = 0, time.perf_counter(), time.process_time()
    async with _stores(write_dsn, target_dsn) as (write, target):
        context = _context(write, target, store, service)
        while True:
            result: SyncResult = await run_cycle(context)
            cycles += 1
            if result.vectors.pending == 0:
                break
            await asyncio.sleep(0.2)
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    async with httpx.AsyncClient() as client:
        counts = (await client.get(f"{url}/counts")).json()
    await service.close()
    await store.close()
    return {
        "seconds": seconds,
        "worker": used,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "cycles": cycles,
        "paid": counts["texts"],
        "requests": counts["requests"],
        "landed": counts["points"],
    }


def _context(
    write: PostgresStore, target: PostgresStore, store: QdrantServerStore, service: OpenAIEmbedding
) -> SyncContext:
    return SyncContext(
        graph=GraphRef(id=UUID(int=1), slug="benchmark"),
        run=RunIdentity(workflow_id="benchmark", run_id=str(uuid4())),
        write=GraphSchema(store=write, schema=SCHEMA),
        target=GraphSchema(store=target, schema=SCHEMA),
        vectors=GraphVectors(store=store, prefix="benchmark_"),
        embedding=service,
        budget=CycleBudget(batch_rows=250_000, seconds=3600),
        options=NoOptions(),
        heartbeat=lambda _: None,
        log=structlog.get_logger(),
        meter=NullMeter(),
        retry=RetryRules(vector_seconds=0),
    )


@asynccontextmanager
async def _stores(write_dsn: str, target_dsn: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    write = PostgresStore("write", SecretStr(write_dsn), pool_size=4, application_name="benchmark")
    target = PostgresStore("graph", SecretStr(target_dsn), pool_size=4, application_name="benchmark")
    try:
        yield write, target
    finally:
        await write.close()
        await target.close()


async def measure(chosen: list[Case]) -> list[str]:
    """Run the cases one after the other and print a line for each; return the rows of the table."""
    rows: list[str] = []
    with tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder:
        postgres = PostgresServer(Path(folder) / "postgres")
        server = postgres.start()
        # Its workers would be counted.
        server.psql("ALTER SYSTEM SET autovacuum = off")
        server.psql("SELECT pg_reload_conf()")
        cpu = PostgresCpu(Path(folder) / "postgres")
        try:
            for case in chosen:
                async with fresh_store(server, "write") as write, fresh_store(server, "graph") as target:
                    await migrate_write(write, SCHEMA)
                    await migrate_graph(target, SCHEMA)
                    async with write.driver() as connection:
                        await connection.execute(f"SET search_path = {SCHEMA}")
                        await connection.execute(_WRITE, case.points)
                    await _land_rows(write, target)
                with _Stub(case) as stub:
                    arguments = [json.dumps(asdict(case)), server.dsn("write"), server.dsn("graph"), stub.url]
                    command = [sys.executable, "-m", "benchmarks.vectors", "--case", *arguments]
                    before = cpu.seconds()
                    done = await asyncio.to_thread(
                        subprocess.run, command, check=True, stdout=subprocess.PIPE, text=True
                    )
                    found = json.loads(done.stdout.splitlines()[-1])
                    found |= {"postgres": cpu.seconds() - before, "stubs": stub.cpu()}
                rows.append(_report(case, found))
        finally:
            postgres.stop()
    return rows


async def _land_rows(write: PostgresStore, target: PostgresStore) -> None:
    """Fill the graph-db and the outbox, without a vector store."""
    away = QdrantServerStore("away", "http://127.0.0.1:9")
    service = OpenAIEmbedding("http://127.0.0.1:9", "stub", 8)
    await run_cycle(_context(write, target, away, service))
    await away.close()
    await service.close()


def _report(case: Case, found: dict[str, float]) -> str:
    """Print what a case took; return its row of the table."""
    ratio = case.allowed_seconds / found["seconds"]
    cpu = {name: found[name] / case.points * 100_000 for name in ("worker", "postgres", "stubs")}
    paid = found["paid"] / found["landed"]
    allowed = (
        ""
        if case.quota
        else f"{case.lanes} lanes allow {case.allowed_seconds:.1f} s ({ratio:.2f}); "
        f"the worker's CPU alone is {found['worker']:.1f} s. "
    )
    sys.stdout.write(
        f"{case.name}: {case.points:,} points in {found['seconds']:.1f} s. {allowed}"
        f"CPU per 100,000: worker {cpu['worker']:.1f} s, Postgres {cpu['postgres']:.1f} s, "
        f"stubs {cpu['stubs']:.1f} s. {found['mib']:.0f} MiB, paid / landed {paid:.3f} "
        f"in {found['requests']:.0f} requests and {found['cycles']:.0f} cycles\n"
    )
    sys.stdout.flush()
    ways = "" if case.quota else f"{case.allowed_seconds:.1f} s, **{ratio:.2f}**"
    return (
        f"| {case.name}, {case.points:,} points | {found['seconds']:.1f} s | {ways} | {found['worker']:.1f} s | "
        f"{cpu['worker']:.1f}, {cpu['postgres']:.1f}, {cpu['stubs']:.1f} s | {found['mib']:.0f} MiB | {paid:.2f} |"
    )


def _table(rows: list[str]) -> str:
    head = (
        f"50 ms for 100 texts; at a load of {os.getloadavg()[1]:.0f} on {os.cpu_count()} cores | Took | "
        "Its lanes allow, ratio | The worker's CPU alone | CPU per 100,000: worker, Postgres, stubs | Peak memory | "
        "Paid / landed"
    )
    return "\n".join([f"| {head} |", f"|---|{'--:|' * 6}", *rows])


class _Stub:
    """The stubs in a process of their own."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.url = ""

    def __enter__(self) -> "_Stub":
        command = [sys.executable, "-m", "benchmarks.vector_stubs", json.dumps(asdict(self._case))]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"
        self._began = cpu_seconds(self._process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def cpu(self) -> float:
        """Return the CPU seconds since the stubs were there."""
        return cpu_seconds(self._process.pid) - self._began


def main() -> None:
    """Run the benchmark, or one of its cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=235_000)
    parser.add_argument("--only", type=int, help="number of one case, from 1")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case, *rest = arguments.case
        sys.stdout.write(json.dumps(asyncio.run(run_case(Case(**json.loads(case)), *rest))) + "\n")
    else:
        chosen = cases(arguments.points)
        if arguments.only is not None:
            asyncio.run(measure([chosen[arguments.only - 1]]))
            return
        table = _table(asyncio.run(measure(chosen)))
        mark = "benchmark:vectors"
        replace_between(REPORT, f"<!-- {mark} -->\n", f"\n<!-- /{mark} -->", table)


if __name__ == "__main__":
    main()
