"""The engine against bare COPY + merge, on all of WordNet: `make bench`.

Both move the same rows of the same write-db into equal, empty graph-dbs on the same server, links and foreign
keys included, in turn, in one run. The table goes to the screen and into docs/performance.md.
"""

import argparse
import asyncio
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import structlog
from pydantic import SecretStr

from benchmarks.bare import copy_and_merge
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.embedding_development import DevelopmentEmbedding
from syncline.engine import run_cycle
from syncline.messages import CycleProgress, CycleStatus, GraphRef, SyncResult
from syncline.migrations import migrate_graph, migrate_write
from syncline.provider import (
    CycleBudget,
    GraphSchema,
    GraphVectors,
    NoOptions,
    NullMeter,
    RunIdentity,
    SyncContext,
)
from syncline.samples import load_sample, open_sample
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_embedded import EmbeddedQdrantStore

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmark:engine -->", "<!-- /benchmark:engine -->"
SCHEMA = "kg"
_RATIO = "**Speed of the engine, bare = 1**"


@dataclass(frozen=True)
class Timing:
    """One cycle: its result, its seconds until the graph-db had everything, and those until Qdrant had."""

    result: SyncResult
    rows_seconds: float
    vector_seconds: float
    cpu_seconds: float


async def timed_cycle(write: PostgresStore, target: PostgresStore, vectors: EmbeddedQdrantStore) -> Timing:
    """Run one cycle with the worker's default budget."""
    started = time.perf_counter()
    cpu = time.process_time()
    rows_done = started

    def beat(progress: CycleProgress) -> None:
        nonlocal rows_done
        if progress.phase == "capture":
            rows_done = time.perf_counter()

    result = await run_cycle(
        SyncContext(
            graph=GraphRef(id=UUID(int=1), slug="wordnet"),
            run=RunIdentity(workflow_id="benchmark", run_id=str(uuid4())),
            write=GraphSchema(store=write, schema=SCHEMA),
            target=GraphSchema(store=target, schema=SCHEMA),
            vectors=GraphVectors(store=vectors, prefix="wordnet_"),
            embedding=DevelopmentEmbedding(384),
            budget=CycleBudget(batch_rows=50_000, seconds=3600),
            options=NoOptions(),
            heartbeat=beat,
            log=structlog.get_logger(),
            meter=NullMeter(),
        )
    )
    ended = time.perf_counter()
    if result.status is not CycleStatus.DRAINED:
        raise SystemExit(f"the cycle did not drain: {result}")
    return Timing(result, rows_done - started, ended - rows_done, time.process_time() - cpu)


@asynccontextmanager
async def fresh_store(server: EmbeddedPostgres, name: str) -> AsyncIterator[PostgresStore]:
    """An empty database, with everything written so far on disk, so that no run pays for another's."""
    server.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    server.psql(f'CREATE DATABASE "{name}"')
    server.psql("CHECKPOINT")
    store = PostgresStore(name, SecretStr(server.dsn(name)), pool_size=4, application_name="benchmark")
    try:
        yield store
    finally:
        await store.close()


async def bare(write: PostgresStore, server: EmbeddedPostgres) -> float:
    """Return the seconds of the yardstick."""
    async with fresh_store(server, "bare") as target:
        await migrate_graph(target, SCHEMA)
        async with write.driver() as source, target.driver() as sink:
            for connection in (source, sink):
                await connection.execute(f"SET search_path = {SCHEMA}")
            started = time.perf_counter()
            await copy_and_merge(source, sink)
            elapsed = time.perf_counter() - started
            for connection in (source, sink):
                await connection.execute("RESET search_path")
        return elapsed


async def changed_rows(write: PostgresStore, number: int) -> None:
    """Change `number` nodes, spread over the table."""
    async with write.driver() as connection:
        await connection.execute(
            f"UPDATE {SCHEMA}.write_nodes SET definition = definition || '.'"
            f" WHERE id IN (SELECT id FROM {SCHEMA}.write_nodes ORDER BY md5(id) LIMIT $1)",
            number,
        )


async def measure(dict_dir: Path, rounds: int) -> list[tuple[str, str]]:
    """Return the rows of the report."""
    with tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder:
        postgres = PostgresServer(Path(folder) / "postgres")
        server = postgres.start()
        try:
            async with fresh_store(server, "write") as write:
                return await _measure(write, server, Path(folder), dict_dir, rounds)
        finally:
            postgres.stop()


async def _measure(
    write: PostgresStore, server: EmbeddedPostgres, folder: Path, dict_dir: Path, rounds: int
) -> list[tuple[str, str]]:
    await migrate_write(write, SCHEMA)
    started = time.perf_counter()
    loaded = await load_sample(write, SCHEMA, open_sample("wordnet", dict_dir=dict_dir))
    print(f"loaded {loaded} in {time.perf_counter() - started:.1f} s", flush=True)
    async with write.driver() as connection:
        await connection.execute("ANALYZE")
    bare_seconds: list[float] = []
    loads: list[Timing] = []
    for number in range(rounds):
        bare_seconds.append(await bare(write, server))
        async with fresh_store(server, "graph") as target:
            await migrate_graph(target, SCHEMA)
            vectors = EmbeddedQdrantStore("benchmark", folder / f"qdrant-{number}")
            loads.append(await timed_cycle(write, target, vectors))
            print(
                f"round {number + 1}: bare {bare_seconds[-1]:.1f} s, engine {loads[-1].rows_seconds:.1f} s"
                f" + vectors {loads[-1].vector_seconds:.1f} s",
                flush=True,
            )
            if number == rounds - 1:
                server.psql("VACUUM ANALYZE", "graph")
                await changed_rows(write, 1000)
                change = await timed_cycle(write, target, vectors)
                idle = [await timed_cycle(write, target, vectors) for _ in range(200)]
            await vectors.close()
    result = loads[-1].result
    moved = result.rows + result.links
    base = statistics.median(bare_seconds)
    load = statistics.median(timing.rows_seconds for timing in loads)
    ratio = statistics.median(b / timing.rows_seconds for b, timing in zip(bare_seconds, loads, strict=True))
    vector_rate = statistics.median(
        timing.result.vectors.upserted / timing.vector_seconds for timing in loads
    )
    captured = sum(loaded.values())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        ("Rows of the write-db", f"{captured:,}"),
        ("Rows and links of the graph-db", f"{moved:,}"),
        ("Bare COPY + one merge per table", f"{base:.1f} s, {captured / base:,.0f} rows/s"),
        ("Engine, with all of these", f"{load:.1f} s, {captured / load:,.0f} rows/s"),
        (_RATIO, f"**{ratio:.2f}**"),
        ("Vectors (384 dimensions, development embedding, embedded Qdrant)", f"{vector_rate:,.0f} vectors/s"),
        (
            "1,000 changed nodes, rows and vectors, one cycle",
            f"{(change.rows_seconds + change.vector_seconds) * 1000:.0f} ms",
        ),
        ("Idle cycle, worker CPU", f"{statistics.mean(t.cpu_seconds for t in idle) * 1000:.1f} ms"),
        (
            "Idle cycle, elapsed",
            f"{statistics.median(t.rows_seconds + t.vector_seconds for t in idle) * 1000:.1f} ms",
        ),
        ("Peak memory of the process", f"{memory:.0f} MiB"),
    ]


def report(rows: list[tuple[str, str]], rounds: int) -> str:
    """Return the table as markdown."""
    lines = [f"| WordNet 3.1, median of {rounds} rounds in turn | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    lines += ["", f"Python {platform.python_version()}, PostgreSQL 18 embedded, {platform.machine()}."]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and replace the table in docs/performance.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--dict", type=Path, default=ROOT / ".wordnet" / "dict")
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    measured = dict(asyncio.run(measure(options.dict, options.rounds)))
    table = report(list(measured.items()), options.rounds)
    print(table)
    replace_between(REPORT, BEGIN, END, f"\n{table}\n")
    replace_between(ROOT / "README.md", "<!-- ratio -->", "<!-- /ratio -->", measured[_RATIO].strip("*"))


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of a page."""
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}{text}{end}{after}")


if __name__ == "__main__":
    main()
