"""The engine against bare COPY + merge, on all of WordNet; its growth; what capture costs: `make bench`.

Both sides move the same rows of the same write-db into equal graph-dbs on the same server, links, foreign
keys and numbers included, in turn, in one run. The tables go to the screen and into docs/performance.md.
"""

import argparse
import asyncio
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from benchmarks.bare import copy_and_delete
from benchmarks.growth import measure_growth
from benchmarks.lab import (
    SCHEMA,
    Meter,
    NoEmbedding,
    both,
    fresh_store,
    timed_by_hand,
    timed_cycle,
    timed_without_keys,
)
from benchmarks.triggers import measure_triggers
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.migrations import migrate_graph, migrate_write
from syncline.samples import load_sample, open_sample
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from tests.kit.pages import replace_between

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "docs" / "performance.md"
_RATIO = "Initial load, 731,568 rows"

Lines = list[tuple[str, str]]
Sides = tuple[float, float]
"""Bare, engine."""


async def measure(dict_dir: Path, rounds: int, *, only: str | None = None) -> dict[str, Lines]:
    """Return the lines of each table of the report, or of the `only` one."""
    if only == "growth":
        return {"growth": measure_growth()}
    with tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder:
        postgres = PostgresServer(Path(folder) / "postgres")
        server = postgres.start()
        try:
            writer = [] if only == "engine" else await measure_triggers(server)
            if only == "writer":
                return {"writer": writer}
            async with fresh_store(server, "write") as write:
                compared, alone = await _measure(
                    write, server, Path(folder), dict_dir, rounds, only=only is not None
                )
        finally:
            postgres.stop()
    if only:
        return {"engine": compared}
    return {"engine": compared, "alone": alone, "growth": measure_growth(), "writer": writer}


async def _measure(
    write: PostgresStore,
    server: EmbeddedPostgres,
    folder: Path,
    dict_dir: Path,
    rounds: int,
    *,
    only: bool,
) -> tuple[Lines, Lines]:
    await migrate_write(write, SCHEMA)
    loaded = await load_sample(write, SCHEMA, open_sample("wordnet", dict_dir=dict_dir))
    total = sum(loaded.values())
    async with write.driver() as connection:
        await connection.execute("ANALYZE")
    # Its workers would be counted.
    server.psql("ALTER SYSTEM SET autovacuum = off")
    server.psql("SELECT pg_reload_conf()")
    table, meter = _Comparison(), Meter(server.data_dir)
    cpu: list[float] = []
    for number in range(rounds):
        async with fresh_store(server, "bare") as bare, fresh_store(server, "graph") as target:
            for store in (bare, target):
                await migrate_graph(store, SCHEMA)
            vectors = EmbeddedQdrantStore("benchmark", folder / f"qdrant-{number}")
            # Each side goes first in every other round: a machine that slows down slows both.
            if number % 2 == 0:
                elapsed, numbers, by_hand = await timed_by_hand(server, write, bare, clock=meter.cpu)
            server.psql("CHECKPOINT")
            load = await timed_cycle(write, target, vectors, NoEmbedding(), clock=meter.cpu)
            if number % 2 == 1:
                elapsed, numbers, by_hand = await timed_by_hand(server, write, bare, clock=meter.cpu)
            cpu.append(load.cpu_seconds)
            table.add(
                f"Initial load, {total:,} rows", total, (elapsed, load.rows_seconds), (by_hand, load.rows_cpu)
            )
            bare_seconds = elapsed - numbers
            table.add("The same, the yardstick without numbers", total, (bare_seconds, load.rows_seconds))
            async with fresh_store(server, "bare_without_keys") as without:
                await migrate_graph(without, SCHEMA)
                seconds, by_hand = await timed_without_keys(server, write, without, clock=meter.cpu)
            name = "It against a bare load that puts keys and indexes off too"
            table.add(name, total, (seconds, load.rows_seconds), (by_hand, load.rows_cpu))
            for name in ("bare", "graph"):
                server.psql("VACUUM ANALYZE", name)
            for percent in (1, 10):
                await _changes(write, server, bare, target, vectors, percent, table, meter)
            await _deletes(write, server, bare, target, vectors, table, meter)
            if number == rounds - 1 and not only:
                embedding = DevelopmentEmbedding(384)
                drained = await timed_cycle(write, target, vectors, embedding)
                if drained.result.vectors.error:  # the service was away a moment ago, and waits its turn
                    await asyncio.sleep(60)
                    drained = await timed_cycle(write, target, vectors, embedding)
                idle = [await timed_cycle(write, target, vectors, embedding) for _ in range(200)]
                queries = await _idle_round_trips(write, target, vectors, embedding)
            await vectors.close()
    if only:
        return table.lines(), []
    points = drained.result.vectors.upserted
    alone = [
        ("Worker CPU of the initial load", f"{statistics.median(cpu):.1f} s"),
        (
            "Vectors of facts and nodes (384 dimensions, development embedding, embedded Qdrant)",
            f"{points:,}, {points / drained.vector_seconds:,.0f} vectors/s",
        ),
        ("Idle cycle, worker CPU", f"{statistics.mean(t.cpu_seconds for t in idle) * 1000:.1f} ms"),
        (
            "Idle cycle, elapsed",
            f"{statistics.median(t.rows_seconds + t.vector_seconds for t in idle) * 1000:.1f} ms",
        ),
        ("Idle cycle, round trips to the write-db: one query in a transaction", str(queries)),
    ]
    return table.lines(), alone


async def _changes(
    write: PostgresStore,
    server: EmbeddedPostgres,
    bare: PostgresStore,
    target: PostgresStore,
    vectors: EmbeddedQdrantStore,
    percent: int,
    table: "_Comparison",
    meter: Meter,
) -> None:
    """Change some of all facts, nodes and edges, spread over the tables."""
    since, rows = await _written(
        write,
        *(
            f"UPDATE write_{name} SET {change} WHERE (hashtext(id || '{percent}') & 2147483647) % 100 BETWEEN 0 AND {percent - 1}"
            for name, change in (
                ("facts", "content = content || '.'"),
                ("nodes", "definition = definition || '.', fact_ids = fact_ids || fact_ids"),
                ("edges", "weight = weight + 1"),
            )
        ),
    )
    elapsed, _, by_hand = await timed_by_hand(server, write, bare, since=since, clock=meter.cpu)
    server.psql("CHECKPOINT")
    timing = await timed_cycle(write, target, vectors, NoEmbedding(), clock=meter.cpu)
    name = f"{percent}% changed, {rows:,} rows"
    table.add(name, rows, (elapsed, timing.rows_seconds), (by_hand, timing.rows_cpu))


async def _deletes(
    write: PostgresStore,
    server: EmbeddedPostgres,
    bare: PostgresStore,
    target: PostgresStore,
    vectors: EmbeddedQdrantStore,
    table: "_Comparison",
    meter: Meter,
) -> None:
    """Delete some edges and put them back, so that the next round begins with all of them."""
    where = "(hashtext(id || 'd') & 2147483647) % 100 = 1"
    since, rows = await _written(
        write,
        f"CREATE TABLE kept AS SELECT * FROM write_edges WHERE {where}",
        f"DELETE FROM write_edges WHERE {where}",
    )
    rows //= 2
    server.psql("CHECKPOINT")
    cpu, started = meter.cpu(), time.perf_counter()
    async with both(write, bare) as (source, sink):
        await copy_and_delete(source, sink, since=since)
    elapsed, by_hand = time.perf_counter() - started, meter.cpu() - cpu
    server.psql("CHECKPOINT")
    timing = await timed_cycle(write, target, vectors, NoEmbedding(), clock=meter.cpu)
    name = f"1% of the edges deleted, {rows:,} rows"
    table.add(name, rows, (elapsed, timing.rows_seconds), (by_hand, timing.rows_cpu))
    await _written(write, "INSERT INTO write_edges SELECT * FROM kept", "DROP TABLE kept")


async def _written(write: PostgresStore, *statements: str) -> tuple[int, int]:
    """Run statements in one transaction; return its id and how many rows they wrote."""
    async with write.driver() as connection:
        rows = 0
        async with connection.transaction():
            await connection.execute(f"SET LOCAL search_path = {SCHEMA}")
            since = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
            for statement in statements:
                last = (await connection.execute(statement)).rpartition(" ")[2]
                rows += int(last) if last.isdigit() else 0
        return since, rows


async def _idle_round_trips(
    write: PostgresStore, target: PostgresStore, vectors: EmbeddedQdrantStore, embedding: DevelopmentEmbedding
) -> int:
    asked: list[str] = []
    async with write.driver() as connection:
        connection.add_query_logger(lambda record: asked.append(record.query))
    await timed_cycle(write, target, vectors, embedding)
    return len(asked)


class _Comparison:
    """Measurements of both sides, by what was done."""

    def __init__(self) -> None:
        self._measured: dict[str, list[tuple[int, Sides, Sides | None]]] = {}

    def add(self, name: str, rows: int, seconds: Sides, cpu: Sides | None = None) -> None:
        """Note one round: both sides' seconds, and their seconds of CPU."""
        # The rows that a change hits differ by a few from round to round.
        known = next((k for k in self._measured if k.partition(",")[0] == name.partition(",")[0]), name)
        self._measured.setdefault(known, []).append((rows, seconds, cpu))
        bare, engine = seconds
        print(f"{name}: bare {bare:.2f} s, engine {engine:.2f} s, {bare / engine:.2f}", flush=True)
        if cpu is not None:
            print(f"    CPU: bare {cpu[0]:.2f} s, engine {cpu[1]:.2f} s, {cpu[0] / cpu[1]:.2f}", flush=True)

    def lines(self) -> Lines:
        """Return the medians."""
        found = []
        for name, rounds in self._measured.items():
            bare, engine = (statistics.median(seconds[side] for _, seconds, _ in rounds) for side in (0, 1))
            ratio = _ratio([seconds for _, seconds, _ in rounds])
            spent = [cpu for _, _, cpu in rounds if cpu is not None]
            by_cpu = f"{_ratio(spent):.2f}" if spent else ""
            speed = f"{rounds[0][0] / engine:,.0f}"
            found.append((name, f"{bare:.2f} s | {engine:.2f} s | {speed} | **{ratio:.2f}** | {by_cpu}"))
        return found


def _ratio(rounds: Sequence[Sides]) -> float:
    return statistics.median(bare / engine for bare, engine in rounds)


HEADS = {
    "engine": "| WordNet 3.1, medians of {rounds} rounds in turn | Bare | Engine | Engine, rows/s | Bare = 1 | By CPU |\n|---|--:|--:|--:|--:|--:|",
    "alone": "| The engine alone | |\n|---|---|",
    "growth": "| Initial load of a synthetic graph, each in a process of its own | |\n|---|---|",
    "writer": "| A row written: bare, by hand, captured; medians of 5 rounds in turn | Clock | By hand, bare = 1 | Captured, bare = 1 | by hand = 1 | CPU of Postgres | By hand, bare = 1 | Captured, bare = 1 | by hand = 1 |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|",
}


def main() -> None:
    """Measure, print, and replace the tables in docs/performance.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--dict", type=Path, default=ROOT / ".wordnet" / "dict")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument(
        "--only",
        choices=["writer", "engine", "growth"],
        help="what capture costs, the engine against bare, or growing graphs, and nothing else",
    )
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    measured = asyncio.run(measure(options.dict, options.rounds, only=options.only))
    for name, lines in measured.items():
        rows = "\n".join(f"| {what} | {value} |" for what, value in lines)
        text = f"{HEADS[name].format(rounds=options.rounds)}\n{rows}"
        print(text)
        replace_between(REPORT, f"<!-- benchmark:{name} -->", f"<!-- /benchmark:{name} -->", f"\n{text}\n")
    if "engine" in measured:
        ratio = dict(measured["engine"])[_RATIO].rpartition("**")[0].rpartition("**")[2]
        replace_between(ROOT / "README.md", "<!-- ratio -->", "<!-- /ratio -->", ratio)
    if options.only is not None:
        return
    machine = f"Python {platform.python_version()}, PostgreSQL 18 embedded, {platform.machine()}."
    replace_between(REPORT, "<!-- machine -->", "<!-- /machine -->", machine)


if __name__ == "__main__":
    main()
