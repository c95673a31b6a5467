"""Leave to linger for a cycle of one graph over real stores, until a test says that it is over."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from syncline.capture.listen.mute import announce, mute, unmute
from syncline.engine import run_cycle
from syncline.messages.sync import SyncResult
from syncline.provider import MUTED_SECONDS, Linger
from syncline.testing.graphs import SCHEMA, TestGraph

__all__ = ["Leave", "lingering"]


class Leave(Linger):
    """`announced` are the positions that were announced."""

    def __init__(self, graph: TestGraph, *, seconds: float = 60, longest: float = 60) -> None:
        self._graph, self._seconds, self._longest = graph, seconds, longest
        self.why: str | None = None
        self.muted, self.released = asyncio.Event(), False
        self.announced: list[int] = []

    @property
    def seconds(self) -> float:
        return self._seconds

    @property
    def longest(self) -> float:
        return self._longest

    def over(self) -> str | None:
        return self.why

    async def mute(self) -> bool:
        done = await mute(self._graph.write, SCHEMA, MUTED_SECONDS)
        self.muted.set()
        return done

    async def unmute(self) -> int:
        return await unmute(self._graph.write, SCHEMA)

    async def announce(self, below: int) -> None:
        self.announced.append(below)
        await announce(self._graph.write, SCHEMA, below)

    async def release(self) -> None:
        self.released = True


@asynccontextmanager
async def lingering(
    graph: TestGraph,
    *,
    leave: Leave | None = None,
    cycle: Callable[..., Awaitable[SyncResult]] = run_cycle,
    **fields: Any,
) -> AsyncIterator[tuple[Leave, "asyncio.Task[SyncResult]"]]:
    """A cycle, from when it lingers on; told that it is over, and awaited, when this is left."""
    leave = leave or Leave(graph)
    context = replace(graph.context(**fields), linger=leave)
    running = asyncio.ensure_future(cycle(context))
    began = asyncio.create_task(leave.muted.wait())
    await asyncio.wait({running, began}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    began.cancel()
    try:
        yield leave, running
    finally:
        leave.why = "the test is over"
        await asyncio.wait({running}, timeout=30)
