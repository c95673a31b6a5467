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

from benchmarks.growth import fill
from benchmarks.lab import SCHEMA, NoEmbedding, fresh_store, timed_cycle
from syncline.devstack.postgres import PostgresServer
from syncline.migrations import migrate_graph, migrate_write
from syncline.samples import load_sample, open_sample
from syncline.stores.qdrant_edge import EmbeddedQdrantStore

Told = dict[str, list[float]]
"""Statement -> how many times, and how many seconds in all."""


@contextmanager
def statements_timed(connection: Connection) -> Iterator[Told]:
    """Time what is said to a connection, COPY into a table included, of which the driver does not tell."""
    told: Told = {}

    def note(statement: str, seconds: float) -> None:
        entry = told.setdefault(statement, [0, 0.0])
        entry[0] += 1
        entry[1] += seconds

    def logged(record: Any) -> None:
        note(record.query, record.elapsed)

    plain = Connection.copy_to_table

    async def copied(self: Connection, table: str, **options: Any) -> str:
        begun = time.perf_counter()
        status: str = await plain(self, table, **options)
        note(f"COPY {table}", time.perf_counter() - begun)
        return status

    Connection.copy_to_table = copied
    connection.add_query_logger(logged)
    try:
        yield told
    finally:
        Connection.copy_to_table = plain
        connection.remove_query_logger(logged)


def shortened(statement: str, width: int = 150) -> str:
    """Return a statement as one line that tells it from others."""
    text = " ".join(re.sub(r"--[^\n]*\n", "", statement).split())
    into = re.findall(r"(?:INSERT INTO|DELETE FROM|UPDATE) \"?[\w.]+\"?", text)
    return f"[{', '.join(dict.fromkeys(into))}] {text}"[:width]


async def profile(rows: int, dict_dir: Path | None, top: int) -> None:
    """Load once and print the statements that took longest."""
    with tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder:
        postgres = PostgresServer(Path(folder) / "postgres")
        server = postgres.start()
        try:
            async with fresh_store(server, "write") as write, fresh_store(server, "graph") as target:
                if dict_dir is None:
                    await fill(write, rows // 6)
                else:
                    await migrate_write(write, SCHEMA)
                    rows = sum(
                        (await load_sample(write, SCHEMA, open_sample("wordnet", dict_dir=dict_dir))).values()
                    )
                await migrate_graph(target, SCHEMA)
                server.psql("CHECKPOINT")
                vectors = EmbeddedQdrantStore("benchmark", Path(folder) / "qdrant")
                # The cycle takes the connection that was given back last.
                async with target.driver() as connection:
                    pass
                with statements_timed(connection) as told:
                    timing = await timed_cycle(write, target, vectors, NoEmbedding())
                await vectors.close()
        finally:
            postgres.stop()
    print(
        f"{rows:,} rows in {timing.rows_seconds:.1f} s, {rows / timing.rows_seconds:,.0f} rows/s; "
        f"worker CPU {timing.cpu_seconds:.1f} s, {timing.result.batches} batches"
    )
    longest = sorted(told.items(), key=lambda entry: -entry[1][1])
    print(f"all statements on the graph-db: {sum(seconds for _, (_, seconds) in longest):.1f} s")
    for statement, (times, seconds) in longest[:top]:
        print(f"{seconds:7.2f} s {times:4.0f}x {shortened(statement)}")


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
