"""Connection watch: when a server does not answer for long, checks over another connection whether it works.

A long statement may take as long as it needs. A connection is closed if its peer is gone or no longer works
on the statement: TCP notices a dead peer only if packets are lost, and neither case if a proxy in between
keeps the connection open.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import asyncpg

from syncline.errors import StoreError, StoreUnavailable
from syncline.sql import statements_of

__all__ = ["Patience", "Seen", "Watch", "look"]

_sql = statements_of("syncline.stores")

_ATTEMPTS: Final = 2
"""Failures to connect that count as lost: a single one may be chance."""
_CLIENT: Final = 3.0
"""Times the patience for a server that waits for us: data in flight may take long."""
_SAME: Final = 5.0
"""Tolerance in seconds between the ages of a connection and of its server process."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for servers, in seconds."""

    connect: float = 10.0
    silent: float = 10.0
    """Before checking a silent server over another connection, which has `answer` seconds."""
    answer: float = 5.0
    close: float = 5.0


class Seen(Enum):
    """What another connection found out about the waiting one."""

    AT_WORK = "the server works on the statement"
    UNKNOWN = "it cannot be told"
    UNANSWERED = "the server does not answer at all"
    LOST = "the server has no such statement"


class Watch:
    """The watch of one connection.

    `look` gets the seconds waited so far; `give_up` closes the connection, and `lost` then has the reason.
    """

    def __init__(
        self, patience: Patience, *, look: Callable[[float], Awaitable[Seen]], give_up: Callable[[], None]
    ) -> None:
        self.lost: str | None = None
        self._seconds = patience.silent
        self._look, self._give_up = look, give_up
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def waits(self, waits: bool) -> None:
        """Note that waiting for the server starts or ends. Very cheap."""
        if not waits:
            self._since = None
            return
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        # A running timer is kept: it finds out itself how long to wait.
        if self._timer is None and self._looking is None:
            self._timer = loop.call_later(self._seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._since is None or self.lost is not None:
            return
        loop = asyncio.get_running_loop()
        left = self._since + self._seconds - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._due)
        else:
            self._looking = loop.create_task(self._look_after(self._since))

    async def _look_after(self, since: float) -> None:
        try:
            unanswered = 0
            while self._since == since:
                seen = await self._seen(asyncio.get_running_loop().time() - since)
                unanswered = unanswered + 1 if seen is Seen.UNANSWERED else 0
                if self._since != since:
                    break
                if seen is Seen.LOST or unanswered >= _ATTEMPTS:
                    waited = asyncio.get_running_loop().time() - since
                    self.lost = f"no answer for {waited:.0f} s, so the connection was closed"
                    self._give_up()
                    return
                await asyncio.sleep(self._seconds / 10 if unanswered else self._seconds)
        finally:
            self._looking = None
            if self._since is not None and self.lost is None:
                self.waits(True)

    async def _seen(self, waited: float) -> Seen:
        try:
            return await self._look(waited)
        except Exception:  # a failed check says nothing about the waiting connection
            return Seen.UNKNOWN


async def look(
    connect: Callable[[], Awaitable[asyncpg.Connection]],
    *,
    pid: int,
    age: float | None,
    waited: float,
    patience: Patience,
) -> Seen:
    """Ask a server whether its process `pid` works on the statement waited for.

    `age`: that of the connection; None behind a pooler, where the process may be older and another connection
    may have to queue.
    """
    try:
        async with asyncio.timeout(patience.answer):
            other = await connect()
    except TimeoutError:
        return Seen.UNANSWERED
    except StoreError as error:
        if isinstance(error, StoreUnavailable) and isinstance(
            error.__cause__, TimeoutError | ConnectionError
        ):
            return Seen.UNANSWERED
        return Seen.UNKNOWN  # the server answers but has no free slot; or its name does not resolve just now
    try:
        row = await other.fetchrow(_sql("backend"), pid, timeout=patience.answer)
    except TimeoutError:
        return Seen.UNKNOWN if age is None else Seen.UNANSWERED
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return Seen.UNKNOWN
    finally:
        other.terminate()
    return _judge(row, age=age, waited=waited, patience=patience)


def _judge(row: asyncpg.Record, *, age: float | None, waited: float, patience: Patience) -> Seen:
    another = row["age"] is None or (age is not None and abs(row["age"] - age) > _SAME)
    if another:
        # Several standbys may share one address.
        return Seen.UNKNOWN if row["standby"] else Seen.LOST
    if row["state"] is None or row["state"] == "disabled":
        return Seen.UNKNOWN
    if row["state"].startswith("idle"):
        return Seen.LOST if row["unchanged"] >= patience.silent else Seen.UNKNOWN
    if row["wait_event_type"] == "Client" and waited >= _CLIENT * patience.silent:
        return Seen.LOST
    return Seen.AT_WORK
