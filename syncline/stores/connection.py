"""Postgres connection: an asyncpg connection that tracks how long it waits for the server, and is watched.

The only module that uses private parts of the driver.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar
from uuid import uuid4

import asyncpg

from syncline.stores.dsn import Host, Keepalive
from syncline.stores.floor import Floor
from syncline.stores.watch import Watch

__all__ = ["Connection"]

T = TypeVar("T")

_KEEPALIVE: Final = (
    # Detects a dead peer within 25 seconds, whether data was in flight or not.
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPALIVE", 10),  # the same on macOS
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 25_000),
)


class Connection(asyncpg.Connection):  # type: ignore[misc]  # the driver ships no types
    """A driver connection, watched once `watched_by` is called."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *rest: Any) -> None:
        self._asking = _Asking(protocol)
        self._opening: str | None = None
        self._closing: str | None = None
        self._token = uuid4().hex[:12]
        self.begun = ""
        """Status of the last statement that `beginning` added to a BEGIN."""
        self.ended = ""
        """Status of the last statement run after such a transaction's commit."""
        self.opened_at = time.monotonic()
        self.called = ""
        """Its usual application name, while it does no named work."""
        self.floor = Floor()
        """What the server must have for what is read now."""
        self.host: Host | None = None
        """The host of the connection string that it is connected to."""
        super().__init__(self._asking, transport, *rest)
        _keep_alive(transport.get_extra_info("socket"))

    def watched_by(self, watch: Watch) -> None:
        """Notify the watch whenever the connection starts or stops waiting for the server."""
        self._asking.watch = watch

    @property
    def lost(self) -> str | None:
        """Why this connection was closed by the watch; None if it was not."""
        return None if self._asking.watch is None else self._asking.watch.lost

    def keep_alive(self, said: Keepalive) -> None:
        """Apply the connection string's client socket settings."""
        opened = self._transport.get_extra_info("socket")
        if opened is None or opened.family not in (socket.AF_INET, socket.AF_INET6):
            return
        told = {
            "TCP_KEEPIDLE": said.idle,
            "TCP_KEEPINTVL": said.interval,
            "TCP_KEEPCNT": said.count,
            "TCP_USER_TIMEOUT": said.user_timeout_ms,
        }
        if not said.on:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        for name, value in told.items():
            option = getattr(socket, name, None)
            if value is not None and option is not None:
                with suppress(OSError):
                    opened.setsockopt(socket.IPPROTO_TCP, option, value)

    def give_up(self) -> None:
        """Close the connection now; a waiting caller gets the error at once."""
        protocol = self._protocol
        self.terminate()
        if protocol is not None:
            # A COPY waiting for buffer space would wait forever.
            protocol.resume_writing()

    @contextmanager
    def beginning(self, opening: str, closing: str | None = None) -> Iterator[None]:
        """Send `opening` with the next BEGIN and `closing` with its COMMIT, without another round trip."""
        self._opening, self._closing = opening, closing
        try:
            yield
        finally:
            self._opening = self._closing = None

    def _get_unique_id(self, prefix: str) -> str:
        # The driver counts from one in every process. If a pooler mixes sessions, a missing prepared
        # statement is an error, while another client's statement of the same name would be executed.
        return f"{super()._get_unique_id(prefix)}{self._token}"

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Execute a statement, or a script without arguments, like the driver."""
        if self._opening is not None and query.startswith("BEGIN"):
            query, self._opening = f"{query} {self._opening}", None
            try:
                self.begun = await super().execute(query, timeout=timeout)
            except asyncpg.PostgresError:
                # The server has begun it, and the driver takes the next one for a part of it.
                self._top_xact = None
                with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await super().execute("ROLLBACK", timeout=timeout)
                raise
            return self.begun
        if self._closing is not None and query.startswith("COMMIT"):
            query, self._closing = f"{query} {self._closing}", None
            self.ended = await super().execute(query, timeout=timeout)
            return self.ended
        status: str = await super().execute(query, *args, timeout=timeout)
        return status


class _Asking:
    """Wraps the driver's protocol and records when it waits for the server."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.watch: Watch | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    async def query(self, *args: Any, **named: Any) -> Any:
        return await self._ask(self._protocol.query, *args, **named)

    async def prepare(self, *args: Any, **named: Any) -> Any:
        return await self._ask(self._protocol.prepare, *args, **named)

    async def bind(self, *args: Any, **named: Any) -> Any:
        return await self._ask(self._protocol.bind, *args, **named)

    async def execute(self, *args: Any, **named: Any) -> Any:
        return await self._ask(self._protocol.execute, *args, **named)

    async def bind_execute(self, *args: Any, **named: Any) -> Any:
        return await self._ask(self._protocol.bind_execute, *args, **named)

    async def bind_execute_many(self, *args: Any, **named: Any) -> Any:
        return await self._ask(self._protocol.bind_execute_many, *args, **named)

    async def close_statement(self, *args: Any, **named: Any) -> Any:
        return await self._ask(self._protocol.close_statement, *args, **named)

    async def copy_in(self, statement: str, reader: AsyncIterator[bytes] | None, *rest: Any) -> Any:
        return await self._ask(
            self._protocol.copy_in, statement, None if reader is None else self._sent(reader), *rest
        )

    async def copy_out(self, statement: str, sink: Callable[[bytes], Awaitable[None]], *rest: Any) -> Any:
        async def received(chunk: bytes) -> None:
            # While the consumer takes the chunk, we do not wait for the server.
            self._waits(False)
            await sink(chunk)
            self._waits(True)

        return await self._ask(self._protocol.copy_out, statement, received, *rest)

    async def _sent(self, reader: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._waits(False)
        async for chunk in reader:
            self._waits(True)
            yield chunk
            self._waits(False)
        self._waits(True)

    def _waits(self, waits: bool) -> None:
        if self.watch is not None:
            self.watch.waits(waits)

    async def _ask(self, ask: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
        watch = self.watch
        if watch is None:
            return await ask(*args, **named)
        watch.waits(True)
        try:
            return await ask(*args, **named)
        except Exception as error:
            if watch.lost is None:
                raise
            raise asyncpg.ConnectionDoesNotExistError(watch.lost) from error
        finally:
            watch.waits(False)


def _keep_alive(opened: socket.socket | None) -> None:
    if opened is None or opened.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # Not every system supports all of these options.
    with suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            with suppress(OSError):
                opened.setsockopt(socket.IPPROTO_TCP, option, value)
