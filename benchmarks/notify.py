"""What notification costs writers: single-row commits that reach the disk, with it and without, in turn."""

import asyncio
import os
import re
import statistics
from pathlib import Path
from typing import Final

import asyncpg

from benchmarks.lab import SCHEMA, fresh_store
from syncline import names
from syncline.capture.listen.listener import Listener
from syncline.capture.listen.starter import Directory, RateLimiter
from syncline.control.graphs import Graph, GraphRecords
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.migrations import migrate_write
from syncline.provider import NullMeter
from syncline.stores.postgres import PostgresStore
from syncline.testing.lab import eventually
from tests.kit.run_starter import RunsStartedBy

WRITERS: Final = (1, 8)
SECONDS: Final = 4

_INSERT: Final = f"INSERT INTO {SCHEMA}.write_nodes (id, concept) VALUES (gen_random_uuid()::text, 'c');\n"
_WITHOUT: Final = "Without notification"
_LISTENED_TO: Final = "With it, and a worker listens"
_ALWAYS: Final = (
    f"CREATE FUNCTION always() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$BEGIN PERFORM pg_notify('{names.WRITE_CHANNEL}', '{SCHEMA}'); RETURN NULL; END$$;"
    "CREATE TRIGGER always AFTER INSERT ON write_nodes FOR EACH STATEMENT EXECUTE FUNCTION always()"
)
_SILENT: Final = "ALTER TABLE write_nodes DISABLE TRIGGER capture_notify"
_KINDS: Final = {
    _WITHOUT: _SILENT,
    "With it, and nobody listens": "UPDATE syncline.listener SET until = '-infinity'",
    _LISTENED_TO: "SELECT",
    "For comparison: a NOTIFY in every commit": f"{_SILENT};{_ALWAYS}",
}


async def measure_notify(
    server: EmbeddedPostgres, graph: Graph, folder: Path, rounds: int
) -> list[tuple[str, str]]:
    """Return the lines of the report. The graph is one in the benchmark's schema."""
    (folder / "insert.sql").write_text(_INSERT)
    rates: dict[tuple[str, int], list[float]] = {}
    async with fresh_store(server, "notify") as write:
        await migrate_write(write, SCHEMA)
        for number in range(rounds):
            # Forwards and backwards: what slows the machine down slows all kinds.
            for kind in list(_KINDS)[:: 1 if number % 2 == 0 else -1]:
                for writers in WRITERS:
                    rate = await _rate(server, write, graph, folder, kind, writers)
                    rates.setdefault((kind, writers), []).append(rate)
                    print(f"notify: {kind}, {writers} writers: {rate:,.0f} commits/s", flush=True)
    lines = []
    for kind in _KINDS:
        cells = []
        for writers in WRITERS:
            without, rate = (statistics.median(rates[each, writers]) for each in (_WITHOUT, kind))
            ratio = statistics.median(
                a / b for a, b in zip(rates[kind, writers], rates[_WITHOUT, writers], strict=True)
            )
            cells.append(f"{rate:,.0f} | {ratio:.2f}" if kind != _WITHOUT else f"{without:,.0f} | 1")
        lines.append((kind, " | ".join(cells)))
    return lines


async def _rate(
    server: EmbeddedPostgres, write: PostgresStore, graph: Graph, folder: Path, kind: str, writers: int
) -> float:
    """Return the commits per second of so many writers."""
    connection = await asyncpg.connect(server.dsn("notify"), server_settings={"search_path": SCHEMA})
    listening: asyncio.Task[None] | None = None
    try:
        await connection.execute("TRUNCATE write_nodes; TRUNCATE sync_tombstone")
        await connection.execute("ALTER TABLE write_nodes ENABLE TRIGGER capture_notify")
        await connection.execute(_KINDS[kind])
        await connection.execute("CHECKPOINT")
        if kind == _LISTENED_TO:
            listening = await _listen(write, graph, connection)
        return await _pgbench(server, folder, writers)
    finally:
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        await connection.execute("DROP FUNCTION IF EXISTS always() CASCADE")
        await connection.close()


async def _listen(write: PostgresStore, graph: Graph, connection: asyncpg.Connection) -> "asyncio.Task[None]":
    """Listen as the worker does, with nothing to start."""

    async def records() -> GraphRecords:
        return GraphRecords(valid=[graph], invalid={})

    async def trigger(graph: Graph) -> str:
        return f"nothing for {graph.slug}"

    listener = Listener(
        write,
        None,
        name="benchmark",
        directory=Directory(records),
        limiter=RateLimiter(20),
        runs=RunsStartedBy(trigger),
        meter=NullMeter(),
    )
    task = asyncio.create_task(listener.run())
    lease = "SELECT count(*) FROM syncline.listener WHERE until > clock_timestamp()"
    await eventually(lambda: connection.fetchval(lease))
    return task


async def _pgbench(server: EmbeddedPostgres, folder: Path, writers: int) -> float:
    process = await asyncio.create_subprocess_exec(
        server.bin_dir / "pgbench", "-n", "-M", "prepared", "-f", str(folder / "insert.sql"),
        "-c", str(writers), "-j", "2", "-T", str(SECONDS), server.dsn("notify"),
        env={**os.environ, "PGOPTIONS": "-c synchronous_commit=on"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await process.communicate()
    found = re.search(rb"tps = ([\d.]+)", out)
    if found is None:
        raise SystemExit(f"pgbench failed: {error.decode()}")
    return float(found[1])
