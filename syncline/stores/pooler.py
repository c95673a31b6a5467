"""Pooler detection: whether a pooler keeps sessions, tested with a value set in the session."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from uuid import uuid4

import asyncpg

from syncline.errors import StoreError

__all__ = ["keeps_sessions"]

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
