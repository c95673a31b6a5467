"""Locks: one adoption per schema at a time, and short waits so that writers are not blocked for long."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

from syncline.capture.install.steps import Step
from syncline.capture.install.triggers import sql
from syncline.errors import AdoptionBlocked, StoreError
from syncline.stores.postgres import PostgresStore

__all__ = ["PATIENT", "OnWait", "Patience", "alone_in", "lock_holder", "report_lock_waits", "take_step"]

_POLL: Final = 0.1
_SCHEMA_LOCK = "hashtextextended('syncline.adoption:' || $1, 0)"
# The lock of the migrations: both create schema `syncline`, and two concurrent attempts would fail.
_SHARED_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('syncline.migrations', 0))"

_NOT_FREE = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a step waits for its locks. Later writers queue behind it, so it gives up and retries."""

    lock_timeout: float = 2.0
    """Seconds of one attempt."""
    attempts: int = 10
    pause: float = 1.0
    """Seconds between attempts, in which queued writers continue."""


PATIENT: Final = Patience()


@asynccontextmanager
async def alone_in(connection: asyncpg.Connection, schema: str) -> AsyncIterator[None]:
    """Wait until no other adoption works on the schema, and keep others out.

    After an exception the lock is released with the connection, which must not be used again.
    """
    # Polling, because a session waiting for the lock would hold a snapshot, for whose end the holder's CREATE
    # INDEX CONCURRENTLY waits.
    while not await connection.fetchval(f"SELECT pg_try_advisory_lock({_SCHEMA_LOCK})", schema):  # noqa: ASYNC110
        await asyncio.sleep(_POLL)
    yield
    await connection.execute(f"SELECT pg_advisory_unlock({_SCHEMA_LOCK})", schema)


async def take_step(connection: asyncpg.Connection, step: Step, patience: Patience) -> None:
    """Run a step, or raise AdoptionBlocked if its locks were not free in any attempt."""
    if step.alone:
        await _take_alone(connection, step)
        return
    for attempt in range(1, patience.attempts + 1):
        try:
            async with connection.transaction():
                await _take(connection, step, lock_timeout=patience.lock_timeout)
        except _NOT_FREE as error:
            # Immediately, while the sessions that block are likely still there.
            holders = await _holders(connection, step.locked)
            if attempt == patience.attempts:
                raise AdoptionBlocked(
                    step.sentence, holders=holders, attempts=attempt, seconds=patience.lock_timeout
                ) from error
            await asyncio.sleep(patience.pause)
        else:
            return


async def _take(connection: asyncpg.Connection, step: Step, *, lock_timeout: float) -> None:
    for setting in step.settings:
        await connection.execute(setting)
    milliseconds = str(max(1, round(lock_timeout * 1000)))
    await connection.execute("SELECT set_config('lock_timeout', $1, true)", milliseconds)
    if step.shared:
        await connection.execute(_SHARED_LOCK)
    if step.lock is not None:
        # lock_timeout applies per lock, and a partitioned table has one per partition.
        await _limit_statement(connection, milliseconds)
        await connection.execute(step.lock)
    await _limit_statement(connection, "0")
    for statement in step.statements:
        await connection.execute(statement)


async def _limit_statement(connection: asyncpg.Connection, milliseconds: str) -> None:
    await connection.execute("SELECT set_config('statement_timeout', $1, true)", milliseconds)


async def _take_alone(connection: asyncpg.Connection, step: Step) -> None:
    # It waits for older transactions and blocks nobody: a limit would only waste its work. RESET would
    # restore the role's and database's settings, not the session's.
    before = await connection.fetchrow(
        "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'),"
        " current_setting('role')"
    )
    await connection.execute("; ".join([*step.settings, "SET lock_timeout = 0; SET statement_timeout = 0"]))
    for statement in step.statements:
        await connection.execute(statement)
    await connection.execute(
        "SELECT set_config('lock_timeout', $1, false), set_config('statement_timeout', $2, false),"
        " set_config('role', $3, false)",
        *before,
    )


async def _holders(connection: asyncpg.Connection, tables: Sequence[str]) -> list[str]:
    return [lock_holder(row) for row in await connection.fetch(sql("holders"), list(tables))]


def lock_holder(row: asyncpg.Record) -> str:
    """Return a readable description of a session from `holders` or `blockers`."""
    # Postgres shows other roles' application names only to members of pg_read_all_stats.
    parts = [f"'{row['name']}'" if row["name"] else "", row["state"] or ""]
    if row["seconds"] is not None:
        parts.append(f"for {row['seconds']:.0f} s")
    about = ", ".join(part for part in parts if part)
    return f"{row['holder']} ({about})" if about else str(row["holder"])


OnWait = Callable[[str], object]

_SILENCE: Final = 5.0


@asynccontextmanager
async def report_lock_waits(
    store: PostgresStore, connection: asyncpg.Connection, step: Step, on_wait: OnWait
) -> AsyncIterator[None]:
    """While the step runs on `connection`, report every few seconds which sessions block it."""
    watching = asyncio.create_task(_watch(store, connection.get_server_pid(), step, on_wait))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(store: PostgresStore, pid: int, step: Step, on_wait: OnWait) -> None:
    while True:
        await asyncio.sleep(_SILENCE)
        try:
            async with store.driver() as connection:
                rows = await connection.fetch(sql("blockers"), pid)
        except StoreError:
            # The pool has no second connection: skip this report.
            continue
        if rows:
            on_wait(f"Still waiting for {'; '.join(lock_holder(row) for row in rows)}: {step.sentence}")
