"""What capture costs the writer: the same writes on tables with it and without, in turn.

A worker listens, and has muted the writers, as it does while a graph is written to all the time.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from benchmarks.cpu import PostgresCpu
from benchmarks.lab import SCHEMA, fresh_store
from syncline.capture.install.steps import QUIET, STATE, qualified
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.migrations import migrate_write
from syncline.sql import literal, statements_of

CLIENTS = 4
SINGLE = 2_000
BULK = 50_000


async def measure_triggers(server: EmbeddedPostgres, rounds: int = 5) -> list[tuple[str, str]]:
    """Return the lines of the report."""
    cpu = PostgresCpu(server.data_dir)
    async with fresh_store(server, "writer") as write:
        await migrate_write(write, SCHEMA)
        dsn = server.dsn("writer")
        admin = await asyncpg.connect(dsn, server_settings={"search_path": SCHEMA})
        await admin.execute(
            "CREATE TABLE plain (LIKE write_nodes INCLUDING DEFAULTS);"
            "ALTER TABLE plain DROP COLUMN sync_xid, ADD PRIMARY KEY (id)"
        )
        clients = [
            await asyncpg.connect(dsn, server_settings={"search_path": SCHEMA}) for _ in range(CLIENTS)
        ]
        spent: dict[tuple[str, str], list[tuple[float, float]]] = {}
        async with _listening(dsn):
            for _ in range(rounds):
                for table in ("plain", "write_nodes"):
                    for name, work in _writes(admin, clients, table).items():
                        before, started = cpu.seconds(), time.perf_counter()
                        await work()
                        took = (time.perf_counter() - started, cpu.seconds() - before)
                        spent.setdefault((name, table), []).append(took)
                    await admin.execute(f"TRUNCATE {table}")
        for connection in (admin, *clients):
            await connection.close()
    lines = []
    for name in _writes(admin, clients, "plain"):
        rows = BULK if "bulk" in name else CLIENTS * SINGLE
        (plain, plain_cpu), (captured, captured_cpu) = (
            (statistics.median(side) for side in zip(*spent[name, table], strict=True))
            for table in ("plain", "write_nodes")
        )
        lines.append(
            (
                name,
                f"{plain / rows * 1e6:.1f} → {captured / rows * 1e6:.1f} µs a row | **{captured / plain:.2f}** "
                f"| {plain_cpu / rows * 1e6:.1f} → {captured_cpu / rows * 1e6:.1f} µs "
                f"| {captured_cpu / plain_cpu:.2f}",
            )
        )
        print(f"writer: {name}: {lines[-1][1]}", flush=True)
    return lines


@asynccontextmanager
async def _listening(dsn: str) -> AsyncIterator[None]:
    """Be what the writers see of a worker that listens."""
    connection = await asyncpg.connect(dsn)
    mute = statements_of("syncline.capture.listen")(
        "throttle", state=qualified(SCHEMA, STATE), quiet=literal(qualified(SCHEMA, QUIET))
    )

    async def muting() -> None:
        while True:
            await connection.execute(mute.replace("$1", "3"))
            await asyncio.sleep(1)

    await connection.execute("INSERT INTO syncline.listener VALUES ('benchmark', 'infinity', '3')")
    task = asyncio.create_task(muting())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await connection.close()


def _writes(
    admin: asyncpg.Connection, clients: list[asyncpg.Connection], table: str
) -> dict[str, Callable[[], Awaitable[None]]]:
    async def each(sql: str) -> None:
        async def one(number: int, connection: asyncpg.Connection) -> None:
            statement = await connection.prepare(sql)
            for row in range(SINGLE):
                await statement.fetch(f"{number}-{row}")

        await asyncio.gather(*(one(number, connection) for number, connection in enumerate(clients)))

    async def bulk(sql: str) -> None:
        await admin.execute(sql)

    return {
        "4 clients, single inserts": lambda: each(f"INSERT INTO {table} (id, concept) VALUES ($1, 'c')"),
        "4 clients, single updates": lambda: each(f"UPDATE {table} SET concept = 'd' WHERE id = $1"),
        "4 clients, single deletes": lambda: each(f"DELETE FROM {table} WHERE id = $1"),
        "bulk insert": lambda: bulk(
            f"INSERT INTO {table} (id, concept) SELECT 'b' || i, 'c' FROM generate_series(1, {BULK}) i"
        ),
        "bulk update": lambda: bulk(f"UPDATE {table} SET concept = 'd'"),
        "bulk delete": lambda: bulk(f"DELETE FROM {table}"),
    }
