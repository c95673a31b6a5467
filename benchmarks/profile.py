"""Where the engine's time goes: `python -m benchmarks.profile [--rows N]` times each statement of a load.

A statement's time is the driver's: from the call to the answer. COPY runs on both databases at once.
"""

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asyncpg import Connection

from benchmarks.observed import SCHEMA, LoggedStore, Watch, database, running_server, say, timed_cycle
from benchmarks.synthetic import generate
from syncline.migrations import migrate_graph, migrate_write
from syncline.samples import load_sample, open_sample
from syncline.stores.qdrant_embedded import EmbeddedQdrantStore


@contextmanager
def copies_noted(store: LoggedStore) -> Iterator[None]:
    """Note COPY into a table as well, among the statements of the store that it goes to."""
    plain = Connection.copy_to_table

    async def noted(self: Connection, table: str, **options: Any) -> str:
        begun = time.perf_counter()
        status: str = await plain(self, table, **options)
        store.statements.note(f"COPY {table}", time.perf_counter() - begun)
        return status

    Connection.copy_to_table = noted
    try:
        yield
    finally:
        Connection.copy_to_table = plain


def shortened(statement: str, width: int = 150) -> str:
    """Return a statement as one line that tells it from others."""
    text = re.sub(r"--[^\n]*\n", "", statement)
    text = " ".join(text.split())
    into = re.findall(r"(?:INSERT INTO|DELETE FROM|UPDATE) \"?[\w.]+\"?", text)
    return f"[{', '.join(dict.fromkeys(into))}] {text}"[:width]


async def profile(rows: int, dict_dir: Path | None, top: int) -> None:
    """Load once and print the statements that took longest."""
    with (
        tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder,
        running_server(Path(folder)) as server,
    ):
        async with database(server, "write") as write, database(server, "graph") as target:
            await migrate_write(write, SCHEMA)
            await migrate_graph(target, SCHEMA)
            if dict_dir is None:
                async with write.driver() as connection:
                    rows = await generate(connection, rows)
            else:
                loaded = await load_sample(write, SCHEMA, open_sample("wordnet", dict_dir=dict_dir))
                rows = sum(loaded.values())
            server.psql("CHECKPOINT")
            target.statements.told.clear()
            vectors = EmbeddedQdrantStore("benchmark", Path(folder) / "qdrant")
            with copies_noted(target):
                timing = await timed_cycle(Watch(server), write, target, vectors, with_vectors=False)
            await vectors.close()
            cost = timing.rows
            say(
                f"{rows:,} rows in {cost.seconds:.1f} s, {rows / cost.seconds:,.0f} rows/s; worker CPU "
                f"{cost.worker:.1f} s, Postgres CPU {cost.postgres:.1f} s, {timing.result.batches} batches"
            )
            told = sorted(target.statements.told.items(), key=lambda item: -item[1][1])
            say(f"all statements on the graph-db: {sum(seconds for _, (_, seconds) in told):.1f} s")
            for statement, (times, seconds) in told[:top]:
                say(f"{seconds:7.2f} s {times:4.0f}x {shortened(statement)}")


def main() -> None:
    """Profile a load, synthetic or of WordNet."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=200_000)
    arguments.add_argument("--dict", type=Path, help="WordNet's data files instead of synthetic rows")
    arguments.add_argument("--top", type=int, default=25)
    options = arguments.parse_args()
    asyncio.run(profile(options.rows, options.dict, options.top))


if __name__ == "__main__":
    main()
