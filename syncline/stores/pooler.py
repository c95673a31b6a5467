"""Pooler: whether what is between us and a server keeps sessions, found out by a value that is set in one."""

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
"""Who asks next, of two: no rule by which a pooler hands out its connections gives each its own by chance."""
_WAIT: Final = 1.5
"""Seconds after which a connection that is not served, while another is, has to wait for a session's end."""


async def keeps_sessions(
    first: asyncpg.Connection, connect: Callable[[], Awaitable[asyncpg.Connection]], *, seconds: float
) -> bool:
    """Return whether a connection has its session to itself over several transactions, beside another one.

    `seconds` is how long each answer may take. Nothing else is left in the session than a value of our own.
    """
    one = _Session(first, seconds)
    await one.mark()
    if not (await one.kept() and await one.kept()):
        return False
    try:
        second = await connect()
    except StoreError:
        # There is no room for a second one; the first has kept its value.
        return await one.kept()
    other = _Session(second, seconds)
    served = asyncio.create_task(one.shared_with(other))
    try:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not served.done():
            # A pooler serves in order: who asks later and is answered first has a session of its own.
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
    """A value in what is taken for a session."""

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
        """Return whether the other one has this one's value."""
        return await other.has(self._value)

    async def has(self, value: str) -> bool:
        """Return whether it is this value that is there."""
        # By a script, whose status says how many rows there were: prepared statements may be somebody else's.
        is_there = f"pg_catalog.current_setting('{_NAME}', true) OPERATOR(pg_catalog.=) '{value}'"
        return await self._ask(f"SELECT WHERE {is_there}") == "SELECT 1"

    async def _ask(self, script: str) -> str:
        status: str = await self._connection.execute(script, timeout=self._seconds)
        return status
