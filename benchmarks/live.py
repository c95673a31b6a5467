"""Live lane: single-row changes, ten a second, while all rows of their graph are loaded for the first time.

`python -m benchmarks.live [--rows N] [--lanes N] [--set NAME=VALUE …]`: how soon each is visible to readers.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import asyncpg
import structlog

from benchmarks.growth import fill, server_with
from benchmarks.lab import SCHEMA, NoEmbedding, Timing, fresh_store, timed_cycle
from benchmarks.ranges import OneProcess
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine
from syncline.messages.sync import CycleProgress, SyncResult
from syncline.migrations import migrate_graph
from syncline.provider import SyncContext
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from tests.kit.pages import replace_between

__all__ = ["Seen", "main", "measure"]

ROWS = (1_000_000, 10_000_000)
EVERY = 0.1
REPORT = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """| First load with changes beside, 10 a second | Took | Changes | Visible after: median | p99 | Longest |
|---|--:|--:|--:|--:|--:|"""


@dataclass
class Seen:
    """Changes nodes, two known ones for each new one, and looks for each change until readers have it."""

    write: PostgresStore
    target: PostgresStore
    nodes: int
    waited: list[float] = field(default_factory=list)
    """Seconds from commit to visible."""
    late: list[tuple[float, float]] = field(default_factory=list)
    """(Second of the load, seconds from commit to visible) of those that took longer than five."""
    _coming: dict[str, tuple[str, float]] = field(default_factory=dict)

    async def watch(self, load: "asyncio.Task[Timing]", again: Callable[[], Awaitable[object]]) -> None:
        """Write until the load has ended, then run `again` until each change is there; raise SystemExit if one is lost."""
        began, number = time.monotonic(), 0
        async with self.write.driver() as writer, self.target.driver() as reader:
            while not load.done():
                if time.monotonic() >= began + number * EVERY:
                    number += 1
                    await self._change(writer, number)
                await self._look(reader, began)
                await asyncio.sleep(EVERY / 4)
            if self._coming:
                await again()
                await self._look(reader, began)
        if self._coming:
            raise SystemExit(f"{len(self._coming)} changes are not visible after the load")

    async def _change(self, writer: asyncpg.Connection, number: int) -> None:
        key = f"fresh{number}" if number % 3 == 0 else f"node{number * 7919 % self.nodes + 1}"
        concept = f"changed {number}"
        await writer.execute(
            f"INSERT INTO {SCHEMA}.write_nodes (id, concept) VALUES ($1, $2)"
            " ON CONFLICT (id) DO UPDATE SET concept = excluded.concept",
            key,
            concept,
        )
        self._coming[key] = concept, time.monotonic()

    async def _look(self, reader: asyncpg.Connection, began: float) -> None:
        rows = await reader.fetch(
            f"SELECT key, concept FROM {SCHEMA}.nodes"
            " WHERE id IN (SELECT syncline.key_uuid(k) FROM unnest($1::text[]) k)",
            list(self._coming),
        )
        now = time.monotonic()
        for row in rows:
            concept, committed = self._coming[row["key"]]
            if row["concept"] == concept:
                self.waited.append(now - committed)
                if now - committed > 5:
                    self.late.append((committed - began, now - committed))
                del self._coming[row["key"]]

    def quantile(self, part: float) -> float:
        """Return a quantile of the seconds."""
        ordered = sorted(self.waited)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


async def measure(rows: int, lanes: int, settings: Sequence[str] = ()) -> str:
    """Load a graph of about `rows` rows, with changes beside; return the line of the report."""
    nodes = rows // 6
    with (
        tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder,
        server_with(Path(folder) / "postgres", settings) as server,
    ):
        async with fresh_store(server, "write") as write, fresh_store(server, "graph") as target:
            await fill(write, nodes)
            await migrate_graph(target, SCHEMA)
            server.psql("CHECKPOINT")
            vectors, engine = (
                EmbeddedQdrantStore("benchmark", Path(folder) / "qdrant"),
                SyncEngine(KNOWLEDGE_GRAPH),
            )
            others = OneProcess(engine, come=True) if lanes > 1 else None

            begun = asyncio.Event()

            async def run(context: SyncContext) -> SyncResult:
                beat = context.heartbeat

                def heard(progress: CycleProgress) -> None:
                    beat(progress)
                    begun.set()

                context = replace(context, heartbeat=heard)
                if others is not None:
                    others.context = context = replace(context, lanes=others)
                return await engine.run_cycle(context)

            cycle = partial(timed_cycle, write, target, vectors, NoEmbedding(), run=run)
            load, seen = asyncio.create_task(cycle()), Seen(write, target, nodes)
            # What was written before it is the load's own.
            first = asyncio.create_task(begun.wait())
            await asyncio.wait([load, first], return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
            await seen.watch(load, cycle)
            timing = await load
            if others is not None:
                await others.ended()
            await vectors.close()
    for at, waited in seen.late:
        print(f"late: at {at:.0f} s: {waited:.1f} s", flush=True)
    return (
        f"| {nodes * 6 + 4:,} rows, {lanes} {'lane' if lanes == 1 else 'lanes'} | {timing.rows_seconds:.1f} s | {len(seen.waited):,} | "
        f"{seen.quantile(0.5):.2f} s | {seen.quantile(0.99):.2f} s | {max(seen.waited):.2f} s |"
    )


def main() -> None:
    """Measure, print, and replace the table in docs/performance.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, action="append", help="instead of a million and ten million")
    arguments.add_argument("--lanes", type=int, default=1)
    arguments.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments.add_argument("--dry", action="store_true", help="leave the report as it is")
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    lines = [asyncio.run(measure(rows, options.lanes, options.set)) for rows in options.rows or ROWS]
    text = "\n".join([HEAD, *lines])
    print(text, flush=True)
    if not options.dry:
        replace_between(REPORT, "<!-- benchmark:live -->", "<!-- /benchmark:live -->", f"\n{text}\n")


if __name__ == "__main__":
    main()
