"""What capture costs the writer: the same writes on tables with it and without, in turn.

A worker listens, and has muted the writers, as it does while a graph is written to all the time. Between the two is the
least that a list of changes in order costs, written by hand: a column with the transaction and the index, which every
UPDATE sets itself, and one INSERT of a DELETE's keys into a table with a primary key; no trigger.
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
TABLES = ("plain", "by_hand", "write_nodes")


async def measure_triggers(server: EmbeddedPostgres, rounds: int = 5) -> list[tuple[str, str]]:
    """Return the lines of the report."""
    cpu = PostgresCpu(server.data_dir)
    async with fresh_store(server, "writer") as write:
        await migrate_write(write, SCHEMA)
        dsn = server.dsn("writer")
        admin = await asyncpg.connect(dsn, server_settings={"search_path": SCHEMA})
        await admin.execute(
            "CREATE TABLE plain (LIKE write_nodes INCLUDING DEFAULTS);"
            "ALTER TABLE plain DROP COLUMN sync_xid, ADD PRIMARY KEY (id);"
            "CREATE TABLE by_hand (LIKE write_nodes INCLUDING ALL);"
            "CREATE TABLE deleted_by_hand (xid xid8 DEFAULT pg_current_xact_id(), key text, PRIMARY KEY (xid, key))"
        )
        clients = [
            await asyncpg.connect(dsn, server_settings={"search_path": SCHEMA}) for _ in range(CLIENTS)
        ]
        spent: dict[tuple[str, str], list[tuple[float, float]]] = {}
        async with _listening(dsn):
            for _ in range(rounds):
                for table in TABLES:
                    for name, work in _writes(admin, clients, table).items():
                        before, started = cpu.seconds(), time.perf_counter()
                        await work()
                        took = (time.perf_counter() - started, cpu.seconds() - before)
                        spent.setdefault((name, table), []).append(took)
                    await admin.execute(
                        f"TRUNCATE {table}; DELETE FROM sync_tombstone; TRUNCATE deleted_by_hand"
                    )
        for connection in (admin, *clients):
            await connection.close()
    lines = []
    for name in _writes(admin, clients, "plain"):
        rows = BULK if "bulk" in name else CLIENTS * SINGLE
        clock, spent_cpu = (
            [statistics.median(each[kind] for each in spent[name, table]) / rows * 1e6 for table in TABLES]
            for kind in (0, 1)
        )
        lines.append((name, f"{_compared(clock)} | {_compared(spent_cpu)}"))
        print(f"writer: {name}: {lines[-1][1]}", flush=True)
    return lines


def _compared(found: list[float]) -> str:
    """Return microseconds without, by hand and with capture; how many times the first that is, and the second."""
    plain, by_hand, captured = found
    return (
        f"{plain:.1f}, {by_hand:.1f}, {captured:.1f} µs | {by_hand / plain:.2f} | **{captured / plain:.2f}** "
        f"| {captured / by_hand:.2f}"
    )


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

    stamp = ", sync_xid = pg_current_xact_id()" if table == "by_hand" else ""

    def delete(condition: str) -> str:
        gone = f"DELETE FROM {table}{condition}"
        if table != "by_hand":
            return gone
        return f"WITH gone AS ({gone} RETURNING id) INSERT INTO deleted_by_hand (key) SELECT id FROM gone"

    return {
        "4 clients, single inserts": lambda: each(f"INSERT INTO {table} (id, concept) VALUES ($1, 'c')"),
        "4 clients, single updates": lambda: each(f"UPDATE {table} SET concept = 'd'{stamp} WHERE id = $1"),
        "4 clients, single deletes": lambda: each(delete(" WHERE id = $1")),
        "bulk insert": lambda: bulk(
            f"INSERT INTO {table} (id, concept) SELECT 'b' || i, 'c' FROM generate_series(1, {BULK}) i"
        ),
        "bulk update": lambda: bulk(f"UPDATE {table} SET concept = 'd'{stamp}"),
        "bulk delete": lambda: bulk(delete("")),
    }
