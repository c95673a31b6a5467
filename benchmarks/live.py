"""Live lane: single-row changes, ten a second, while all rows of their graph are loaded for the first time.

`python -m benchmarks.live [--rows N] [--lanes N] [--set NAME=VALUE …]`: how soon each is visible to readers.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from benchmarks.growth import fill, server_with
from benchmarks.lab import SCHEMA, NoEmbedding, fresh_store, timed_cycle
from benchmarks.ranges import OneProcess
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine
from syncline.messages.sync import CycleProgress, SyncResult
from syncline.migrations import migrate_graph
from syncline.provider import SyncContext
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from tests.kit.pages import replace_between
from tests.kit.seen import Seen

__all__ = ["main", "measure"]

ROWS = (1_000_000, 10_000_000)
REPORT = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """| First load with changes beside, 10 a second | Took | Changes | Visible after: median | p99 | Longest |
|---|--:|--:|--:|--:|--:|"""


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
            load = asyncio.create_task(cycle())
            # What was written before it is the load's own.
            first = asyncio.create_task(begun.wait())
            await asyncio.wait([load, first], return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
            async with write.driver() as writer, target.driver() as reader:
                seen = Seen(writer, reader, nodes, "node")
                await seen.watch(load, cycle)
            timing = await load
            if others is not None:
                await others.ended()
            await vectors.close()
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
