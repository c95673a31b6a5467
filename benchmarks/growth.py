"""Growth: synthetic graphs of growing size, each loaded by the engine and by hand in a process of its own.

`python -m benchmarks.growth ROWS [--alone] [--set NAME=VALUE …]` is one of them; `--alone`: without the load by
hand; `--set`: on a server with this setting.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.lab import SCHEMA, NoEmbedding, fresh_store, timed_by_hand, timed_cycle
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.migrations import migrate_graph, migrate_write
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
IDLE = 200

# In WordNet's proportions: one node, one fact with its source, three edges.
FILL = """
INSERT INTO write_raw_sources (id, title) SELECT 'source' || i, 'source ' || i FROM generate_series(0, 3) i;
INSERT INTO write_facts (id, content, dedup_status)
    SELECT 'fact' || i, md5(i::text) || ' ' || md5((i + 1)::text), 'ready' FROM generate_series(1, {nodes}) i;
INSERT INTO write_fact_sources (fact_id, raw_source_id, attribution)
    SELECT 'fact' || i, 'source' || i % 4, 'synthetic' FROM generate_series(1, {nodes}) i;
INSERT INTO write_nodes (id, concept, definition, parent_id, fact_ids, metadata)
    SELECT 'node' || i, md5(i::text), md5((i * 7)::text) || md5((i * 11)::text),
           CASE WHEN i > 1 THEN 'node' || (i / 2) END, ARRAY['fact' || i], jsonb_build_object('n', i)
    FROM generate_series(1, {nodes}) i;
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids)
    SELECT 'edge' || i || '-' || k, 'node' || i, 'node' || (1 + (i::bigint * 7919 * k) % {nodes}), 'related',
           ARRAY['fact' || i]
    FROM generate_series(1, {nodes}) i, generate_series(1, 3) k;
"""


async def load(size: int, *, compared: bool = True, settings: Sequence[str] = ()) -> dict[str, float]:
    """Load a graph of about `size` rows of the write-db; return rows, seconds, MiB, CPU seconds, and an idle cycle's.

    `compared`: load it by hand too. `settings`: of the server, as NAME=VALUE.
    """
    nodes = size // 6
    with (
        tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder,
        server_with(Path(folder) / "postgres", settings) as server,
    ):
        async with (
            fresh_store(server, "write") as write,
            fresh_store(server, "graph") as target,
            fresh_store(server, "bare") as bare,
        ):
            await fill(write, nodes)
            for store in (target, bare):
                await migrate_graph(store, SCHEMA)
            server.psql("CHECKPOINT")
            vectors = EmbeddedQdrantStore("benchmark", Path(folder) / "qdrant")
            timing = await timed_cycle(write, target, vectors, NoEmbedding())
            memory = peak_memory()
            await _forget_points(server, target)
            idle = [await timed_cycle(write, target, vectors, NoEmbedding()) for _ in range(IDLE)]
            await vectors.close()
            by_hand = (await timed_by_hand(server, write, bare))[0] if compared else 0.0
            return {
                "bare": by_hand,
                "rows": nodes * 6 + 4,
                "seconds": timing.rows_seconds,
                "cpu": timing.cpu_seconds,
                "memory": memory,
                "idle": statistics.median(each.rows_seconds + each.vector_seconds for each in idle),
                "idle_cpu": statistics.mean(each.cpu_seconds for each in idle),
            }


@contextmanager
def server_with(folder: Path, settings: Sequence[str]) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of its own, with these settings as NAME=VALUE, while entered."""
    postgres = PostgresServer(folder)
    server = postgres.start()
    try:
        if settings:
            for name, value in (each.split("=", 1) for each in settings):
                server.psql(f"ALTER SYSTEM SET {name} = '{value}'")
            postgres.stop()
            server = postgres.start()
        yield server
    finally:
        postgres.stop()


async def _forget_points(server: EmbeddedPostgres, target: PostgresStore) -> None:
    """Empty the queue of points, as if all were written: an idle cycle has none to look at."""
    async with target.driver() as connection:
        await connection.execute(
            f"DELETE FROM {SCHEMA}.sync_outbox; DELETE FROM {SCHEMA}.sync_vector_delay", timeout=None
        )
    server.psql("VACUUM ANALYZE", "graph")


def peak_memory() -> float:
    """Return the most memory that this process ever held, in MiB.

    Not ru_maxrss: that begins with what the parent held when it started us.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell a process's peak memory")


async def fill(write: PostgresStore, nodes: int) -> None:
    """Fill a write-db that is still without tables."""
    await migrate_write(write, SCHEMA)
    async with write.driver() as connection:
        await connection.execute(f"SET search_path = {SCHEMA}")
        await connection.execute(FILL.format(nodes=nodes))
        await connection.execute("SET search_path = pg_catalog, pg_temp; ANALYZE")


def measure_growth() -> list[tuple[str, str]]:
    """Return the lines of the report."""
    lines = []
    idle: list[float] = []
    speeds: dict[str, list[float]] = {"seconds": [], "bare": []}
    for size in SIZES:
        told = subprocess.run(
            [sys.executable, "-m", "benchmarks.growth", str(size)], check=True, capture_output=True, text=True
        )
        found = json.loads(told.stdout.splitlines()[-1])
        for side, measured in speeds.items():
            measured.append(found["rows"] / found[side])
        lines.append(
            (
                f"{found['rows']:,} rows",
                f"{found['seconds']:.1f} s, {speeds['seconds'][-1]:,.0f} rows/s, worker CPU "
                f"{found['cpu']:.1f} s, peak memory {found['memory']:.0f} MiB; "
                f"bare {found['bare']:.1f} s, {found['bare'] / found['seconds']:.2f}; "
                f"an idle cycle {found['idle'] * 1000:.1f} ms, worker CPU {found['idle_cpu'] * 1000:.1f} ms",
            )
        )
        idle.append(found["idle"])
        print(f"growth: {lines[-1][0]}: {lines[-1][1]}", flush=True)
    engine, bare = (measured[-1] / measured[-2] for measured in speeds.values())
    lines.append(("Rows/s at the largest size, at a tenth of it = 1", f"{engine:.2f}; bare {bare:.2f}"))
    lines.append(("An idle cycle at the largest size, at a tenth of it = 1", f"{idle[-1] / idle[-2]:.2f}"))
    return lines


def main() -> None:
    """Load one graph, and print what that took as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("rows", type=int)
    arguments.add_argument("--alone", action="store_true")
    arguments.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = arguments.parse_args()
    print(json.dumps(asyncio.run(load(options.rows, compared=not options.alone, settings=options.set))))


if __name__ == "__main__":
    main()
