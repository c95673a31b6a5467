"""Bookkeeping beside the target and in its rows, against bare COPY + merge: `python -m benchmarks.beside`.

One write-db, a graph-db for each way; each way goes first in another round. CPU seconds are those of the server's
processes and of this one: they say the same on a busy machine. The table goes to the screen and into
docs/performance.md.
"""

import argparse
import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import structlog

from benchmarks.beside_maps import BESIDE, IN_ROW, Subject, subjects
from benchmarks.engine import ROOT
from benchmarks.lab import SCHEMA, Meter, NoEmbedding, both, fresh_store, timed_cycle
from syncline.capture.install.install import adopt
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.engine import SyncEngine
from syncline.migrations import migrate_bookkeeping, migrate_graph, migrate_write
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from tests.kit.pages import replace_between

REPORT = ROOT / "docs" / "performance.md"
SECTIONS = {False: "beside", True: "beside-rules"}
"""Whether it is of a rule of its own -> the section of the report."""
BARE, BARE_LISTED, BARE_ASKED = "bare", "bare, and a list", "bare, and what the map asks"
LOAD = "Initial load"
WAYS = (BARE, BARE_LISTED, BARE_ASKED, IN_ROW, BESIDE)


class Cost(NamedTuple):
    """What one step cost."""

    cpu: float
    wall: float


async def measured(meter: Meter, run: Callable[[], Awaitable[Cost | None]]) -> Cost:
    """Run; return the cost: what it returns, if it does."""
    cpu, started = meter.cpu(), time.perf_counter()
    told = await run()
    return told or Cost(meter.cpu() - cpu, time.perf_counter() - started)


Costs = dict[tuple[str, str], list[Cost]]
"""(step, way) -> what it cost in each round."""


async def measure(rows: int, rounds: int, chosen: Sequence[str]) -> dict[str, str]:
    """Return the table of each section."""
    found: dict[str, Costs] = {}
    with tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder:
        postgres = PostgresServer(Path(folder) / "postgres")
        server = postgres.start()
        # Its workers would be counted.
        server.psql("ALTER SYSTEM SET autovacuum = off")
        server.psql("SELECT pg_reload_conf()")
        meter = Meter(Path(folder) / "postgres")
        try:
            for turn in range(rounds):
                vectors = EmbeddedQdrantStore("benchmark", Path(folder) / f"qdrant{turn}")
                order = [*WAYS[turn % len(WAYS) :], *WAYS[: turn % len(WAYS)]]
                for subject in subjects(rows):
                    if not chosen or any(part in subject.name for part in chosen):
                        costs = found.setdefault(subject.name, {})
                        await _round(server, subject, order, meter, vectors, costs)
                await vectors.close()
        finally:
            postgres.stop()
    tables: dict[str, str] = {}
    for of_a_rule, section in SECTIONS.items():
        of_section = {name: costs for name, costs in found.items() if name.startswith("`") is of_a_rule}
        if of_section:
            tables[section] = _table(of_section, rows, rounds)
    return tables


async def _round(
    server: EmbeddedPostgres,
    subject: Subject,
    order: Sequence[str],
    meter: Meter,
    vectors: EmbeddedQdrantStore,
    costs: Costs,
) -> None:
    async with AsyncExitStack() as stack:
        write = await stack.enter_async_context(fresh_store(server, "write"))
        if subject.built_in:
            await migrate_write(write, SCHEMA)
        else:
            await _script(write, f"CREATE SCHEMA {SCHEMA}", subject.write)
            await adopt(write, SCHEMA, subject.ways[IN_ROW])
        await _script(write, subject.fill, "ANALYZE")
        stores: dict[str, PostgresStore] = {}
        for place, way in enumerate(order):
            store = await stack.enter_async_context(fresh_store(server, f"graph{place}"))
            await (migrate_graph if subject.built_in else migrate_bookkeeping)(store, SCHEMA)
            await _script(store, subject.targets.get(way, subject.targets[IN_ROW]))
            stores[way] = store
        engines = {way: SyncEngine(each) for way, each in subject.ways.items()}
        for step, changes in {LOAD: (), **subject.changes}.items():
            since = await _written(write, changes) if changes else None
            for way in order:
                server.psql("CHECKPOINT")

                async def run(way: str = way, since: int | None = since, step: str = step) -> Cost | None:
                    if way in engines:
                        # Without the points, of which a merge by hand has none.
                        timing = await timed_cycle(
                            write,
                            stores[way],
                            vectors,
                            NoEmbedding(),
                            run=engines[way].run_cycle,
                            clock=meter.cpu,
                        )
                        return Cost(timing.rows_cpu, timing.rows_seconds)
                    async with both(write, stores[way]) as (source, target):
                        more = {"listing": way != BARE, "asked": way == BARE_ASKED}
                        if since is not None and step.endswith("deleted"):
                            await subject.by_hand.delete(source, target, since=since, **more)
                        else:
                            await subject.by_hand.move(source, target, since=since, **more)
                    return None

                cost = await measured(meter, run)
                costs.setdefault((step, way), []).append(cost)
                print(f"{subject.name}, {step}, {way}: CPU {cost.cpu:.2f} s, {cost.wall:.2f} s", flush=True)
                if step == LOAD:
                    server.psql("VACUUM ANALYZE", f"graph{order.index(way)}")


def _table(found: Mapping[str, Costs], rows: int, rounds: int) -> str:
    steps = list(dict.fromkeys(step for costs in found.values() for step, _ in costs))
    lines = [
        f"| About {rows:,} rows, {f'medians of {rounds} rounds' if rounds > 1 else 'one round'} in turn at a load of {os.getloadavg()[1]:.0f} on "
        f"{os.cpu_count()} cores: CPU; speed by CPU and by the clock, bare = 1 | {' | '.join(steps)} |",
        f"|---{'|--:' * len(steps)}|",
    ]
    for name, costs in found.items():
        for way in WAYS:
            told = []
            for step in steps:
                bare, own = costs[step, BARE], costs[step, way]
                cpu, wall = (
                    median(
                        getattr(one, side) / getattr(other, side)
                        for one, other in zip(bare, own, strict=True)
                    )
                    for side in ("cpu", "wall")
                )
                told.append(f"{median(cost.cpu for cost in own):.2f} s, **{cpu:.2f}**, {wall:.2f}")
            lines.append(f"| {name}: {way} | {' | '.join(told)} |")
    return "\n".join(lines)


async def _script(store: PostgresStore, *scripts: str) -> None:
    async with store.driver() as connection, connection.transaction():
        await connection.execute(f"SET LOCAL search_path = {SCHEMA}")
        for script in filter(None, scripts):
            await connection.execute(script)


async def _written(store: PostgresStore, scripts: Sequence[str]) -> int:
    """Run the statements in one transaction; return its id."""
    async with store.driver() as connection, connection.transaction():
        await connection.execute(f"SET LOCAL search_path = {SCHEMA}")
        for script in scripts:
            await connection.execute(script)
        since: int = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
        return since


def main() -> None:
    """Measure; write the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", nargs="*", default=(), help="parts of the names of what is measured")
    options.add_argument("--print", action="store_true", help="leave docs/performance.md as it is")
    chosen = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for section, text in asyncio.run(measure(chosen.rows, chosen.rounds, chosen.only)).items():
        print(text)
        if not chosen.print:
            begin, end = f"<!-- benchmark:{section} -->", f"<!-- /benchmark:{section} -->"
            replace_between(REPORT, begin, end, f"\n{text}\n")


if __name__ == "__main__":
    main()
