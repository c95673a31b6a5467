"""Session settings: what holds on every connection, whatever role, database and host have set.

Set after connecting, since a pooler rejects unknown start-up parameters. Whether a pooler keeps sessions is
tested with a value that is set in one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final
from uuid import uuid4

import asyncpg

from syncline.errors import StoreError
from syncline.sql import literal

__all__ = ["begin_session", "keeps_sessions"]

_SETTINGS: Final = {
    # Unqualified names are found only where a transaction sets the path.
    "search_path": "pg_catalog, pg_temp",
    # A worker lost behind a network fault must not hold its graph's lock for hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "120000",
    # Limits meant for interactive use: a batch may take long, and connections idle between batches.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    # Rows hidden by a policy must raise an error, not look absent.
    "row_security": "off",
    "standard_conforming_strings": "on",
    # The same statement meets an empty table once and a million entries later. Foreign keys are checked, and
    # SQL functions run, by statements too: a transaction that writes many rows keeps its own plans.
    "plan_cache_mode": "force_custom_plan",
    # Before release 18 what a plan must not do has an estimated cost of ten billion: each small look that may
    # not read a whole table would be compiled first, for a second or more.
    "jit": "off",
    # A value must have one text form in every session: verification relies on it.
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "array_nulls": "on",
    "lc_numeric": "C",
    "lc_time": "C",
}
_WHERE_POSSIBLE: Final = {
    # A statement of a killed worker must not hold the graph. Not every system can detect that.
    "client_connection_check_interval": "2000",
    "tcp_user_timeout": "25000",
    # A batch is staged in a temporary table and read several times; memory is used only where one exists. It
    # has no effect in a session that already used a temporary table.
    "temp_buffers": "64MB",
    "lc_monetary": "C",
}


async def begin_session(
    connection: asyncpg.Connection, more: Mapping[str, str], *, only_at: int | None, seconds: float
) -> bool:
    """Apply all session settings, and `more`, in one round trip.

    With `only_at`, a server process id, nothing is set if another process answers; then returns False.
    """
    for settings in ({**_SETTINGS, **_WHERE_POSSIBLE, **more}, {**_SETTINGS, **more}):
        try:
            here = await connection.execute(_script(settings, only_at), timeout=seconds)
        except asyncpg.InvalidParameterValueError:
            continue
        if here == "SELECT 0":
            return False
        break
    else:
        raise RuntimeError("the settings of a session are wrong")
    if settings.keys() >= _WHERE_POSSIBLE.keys():
        return True
    for setting in _WHERE_POSSIBLE.items():
        try:
            await connection.execute(_script(dict([setting]), only_at), timeout=seconds)
        except asyncpg.InvalidParameterValueError:
            continue
    return True


def _script(settings: Mapping[str, str], only_at: int | None) -> str:
    here = "true" if only_at is None else f"pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {only_at}"
    listed = ", ".join(_pairs(settings))
    # The status of the last statement shows whether it is the right process: a script returns no rows.
    return (
        "SELECT pg_catalog.set_config(s.name, s.value, false)"  # noqa: S608 - names and values are ours
        f" FROM (VALUES {listed}) AS s (name, value)"
        f" WHERE {here} AND pg_catalog.current_setting(s.name, true) IS NOT NULL;"
        f" SELECT WHERE {here}"
    )


def _pairs(settings: Mapping[str, str]) -> Iterable[str]:
    return (f"('{literal(name)}'::text, '{literal(value)}'::text)" for name, value in settings.items())


_NAME: Final = "syncline.session"
_TURNS: Final = (0, 0, 1, 0, 1, 1, 0)
"""The order in which two connections query: no pooler rule gives each its own session by chance."""
_WAIT: Final = 1.5
"""After these seconds a connection not served while another is, must be waiting for a free session."""


async def keeps_sessions(
    first: asyncpg.Connection, connect: Callable[[], Awaitable[asyncpg.Connection]], *, seconds: float
) -> bool:
    """Return whether a connection keeps its session over several transactions, next to a second one.

    `seconds`: limit for each answer. It leaves nothing in the session but its test value.
    """
    one = _Session(first, seconds)
    await one.mark()
    if not (await one.kept() and await one.kept()):
        return False
    try:
        second = await connect()
    except StoreError:
        # No connection is left for a second one; the first has kept its value.
        return await one.kept()
    other = _Session(second, seconds)
    served = asyncio.create_task(one.shared_with(other))
    try:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not served.done():
            # A pooler serves in order: a later query answered first has a separate session.
            if not await one.kept():
                return False
            if loop.time() - began > _WAIT:
                return True
            await asyncio.wait([served], timeout=0.1)
        if served.exception() is not None:
            return await one.kept()
        if served.result():
            return False
        await other.mark()
        for turn in _TURNS:
            if not await (one, other)[turn].kept():
                return False
        return True
    finally:
        served.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await served
        second.terminate()


class _Session:
    """A test value in what may be a session."""

    def __init__(self, connection: asyncpg.Connection, seconds: float) -> None:
        self._connection, self._seconds = connection, seconds
        self._value = uuid4().hex

    async def mark(self) -> None:
        """Set the value."""
        await self._ask(f"SELECT pg_catalog.set_config('{_NAME}', '{self._value}', false)")

    async def kept(self) -> bool:
        """Return whether the value is still there."""
        return await self.has(self._value)

    async def shared_with(self, other: "_Session") -> bool:
        """Return whether the other session has this one's value."""
        return await other.has(self._value)

    async def has(self, value: str) -> bool:
        """Return whether the session has this value."""
        # By a script, whose status has the number of rows: prepared statements may belong to other sessions.
        is_there = f"pg_catalog.current_setting('{_NAME}', true) OPERATOR(pg_catalog.=) '{value}'"
        return await self._ask(f"SELECT WHERE {is_there}") == "SELECT 1"

    async def _ask(self, script: str) -> str:
        status: str = await self._connection.execute(script, timeout=self._seconds)
        return status
