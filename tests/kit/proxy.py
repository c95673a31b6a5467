"""A TCP proxy in front of a server, which can fall silent as a broken middlebox does: nothing is closed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["SilentProxy", "silent_proxy"]

_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SilentProxy:
    """A proxy that runs. What it has swallowed is lost: it goes on to acknowledge, and forwards no more."""

    def __init__(self, far_end: Callable[[], Awaitable[_Ends]]) -> None:
        self._far_end = far_end
        self._open: set[asyncio.Event] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []
        self.port = 0
        self.passed = [0, 0]
        """Bytes that went to the server, and bytes that came back."""
        self.silent_after: tuple[int | None, int | None] = (None, None)
        """Bytes in each direction after which all that is open falls silent."""
        self.deaf = False
        """Whether connections that are made from now on are not answered either."""
        self.slow = 0.0
        """Seconds before each part of what the server answers is passed on."""

    def through(self, dsn: str) -> str:
        """Return the connection string of the same Postgres database through the proxy."""
        return f"postgresql://postgres@127.0.0.1:{self.port}{urlsplit(dsn).path}"

    def fall_silent(self) -> None:
        """Forward nothing any more on the connections that are open."""
        for silent in self._open:
            silent.set()

    def cut(self) -> None:
        """Let nothing through from now on; connections that are made get no answer."""
        self.deaf = True
        self.fall_silent()

    def mend(self) -> None:
        """Let new connections through; those that were open, or made meanwhile, stay silent."""
        self.deaf = False

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task of its own."""
        self._ends.append(writer)
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for end in self._ends:
            end.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes, both ways, until one side ends."""
        silent = asyncio.Event()
        try:
            back_reader, back_writer = await self._far_end()
        except OSError:  # the server is away: the connection's end says so
            writer.transport.abort()
            return
        if self.deaf:
            silent.set()
        self._open.add(silent)
        self._ends.append(back_writer)
        pumps = [
            asyncio.create_task(self._pump(0, reader, back_writer, silent)),
            asyncio.create_task(self._pump(1, back_reader, writer, silent)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, back_writer):
                end.transport.abort()
            self._open.discard(silent)

    async def _pump(
        self, way: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silent: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(65536):
                if silent.is_set():
                    continue
                self.passed[way] += len(chunk)
                limit = self.silent_after[way]
                if limit is not None and self.passed[way] > limit:
                    self.fall_silent()
                    continue
                if way == 1 and self.slow:
                    await asyncio.sleep(self.slow)
                writer.write(chunk)
                await writer.drain()


@asynccontextmanager
async def silent_proxy(to: Path | int) -> AsyncIterator[SilentProxy]:
    """Run a proxy in front of a Unix socket, or of a port of this machine."""
    proxy = SilentProxy(
        (lambda: asyncio.open_unix_connection(str(to)))
        if isinstance(to, Path)
        else (lambda: asyncio.open_connection("127.0.0.1", to))
    )
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
