"""The network between two processes, which a test cuts: nothing is closed, and nothing comes through any more."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

__all__ = ["Cable", "cable"]

_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Cable:
    """A TCP proxy. What was open when it was cut stays dead when it is mended, as behind a middlebox."""

    def __init__(self, far_end: Callable[[], Awaitable[_Ends]]) -> None:
        self._far_end = far_end
        self._alive: set[asyncio.Event] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._whole = True
        self.port = 0

    def cut(self) -> None:
        """Let nothing through from now on; whoever connects gets no answer."""
        self._whole = False
        for alive in self._alive:
            alive.clear()

    def mend(self) -> None:
        """Let new connections through."""
        self._whole = True

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task of its own."""
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        alive = asyncio.Event()
        if self._whole:
            alive.set()
        self._alive.add(alive)
        writers = [writer]
        try:
            far_reader, far_writer = await self._far_end()
            writers.append(far_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(reader, far_writer, alive))
                pumps.create_task(_pump(far_reader, writer, alive))
        except (OSError, ExceptionGroup):
            pass  # the far end is away: whoever connected is told by the end of the connection
        finally:
            self._alive.discard(alive)
            for end in writers:
                end.transport.abort()


class _EndedError(Exception):
    """One side has closed."""


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, alive: asyncio.Event) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65536):
            if alive.is_set():
                writer.write(chunk)
                await writer.drain()
    raise _EndedError


@asynccontextmanager
async def cable(to: Path | int) -> AsyncIterator[Cable]:
    """Lay a cable to a Unix socket, or to a port of this machine."""
    made = Cable(
        (lambda: asyncio.open_unix_connection(str(to)))
        if isinstance(to, Path)
        else (lambda: asyncio.open_connection("127.0.0.1", to))
    )
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()
