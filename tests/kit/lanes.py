"""Lanes for the loads of one graph, in the process of a test; and loads of a few rows that are read in ranges."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, ranges
from syncline.messages.sync import LaneResult, SyncResult
from syncline.provider import SyncContext
from tests.kit.loads import every_load

__all__ = ["Lanes", "every_load_in_ranges"]


def every_load_in_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every first load be read in ranges, each turn of a cycle one of them."""
    every_load(monkeypatch)
    monkeypatch.setattr(ranges, "WORTH_ROWS", 1)


@dataclass
class Lanes:
    """A cycle and its lanes: those that it calls come at once."""

    engine: SyncEngine = field(default_factory=lambda: SyncEngine(KNOWLEDGE_GRAPH))
    number: int = 3
    context: SyncContext | None = None
    calls: int = 0
    running: "list[asyncio.Task[LaneResult]]" = field(default_factory=list)

    async def call(self) -> None:
        """Start the others, once."""
        self.calls += 1
        if not self.running:
            self.running += [self.start(f"lane {number}") for number in range(1, self.number)]

    def start(self, name: str, *, over: Callable[[], bool] = lambda: False) -> "asyncio.Task[LaneResult]":
        """Start one lane of the present cycle."""
        if self.context is None:
            raise RuntimeError("no cycle has begun")
        context = replace(self.context, heartbeat=lambda _: None)
        return asyncio.create_task(self.engine.load_ranges(context, lane=name, over=over))

    async def cycle(self, context: SyncContext) -> SyncResult:
        """Run one cycle with its lanes, which end after it."""
        async with self.beside(context) as running:
            return await running

    @asynccontextmanager
    async def beside(self, context: SyncContext) -> "AsyncIterator[asyncio.Task[SyncResult]]":
        """Run one cycle with its lanes while entered."""
        self.context, self.running = replace(context, lanes=self), []
        running = asyncio.create_task(self.engine.run_cycle(self.context))
        try:
            yield running
        finally:
            running.cancel()
            [ended] = await asyncio.gather(running, return_exceptions=True)
            for task in self.running:
                if isinstance(ended, BaseException):
                    task.cancel()
            await asyncio.gather(*self.running, return_exceptions=True)
