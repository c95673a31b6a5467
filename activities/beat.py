"""A running cycle's sign of life: heartbeats for Temporal, progress signals for people."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from temporalio import activity

from syncline.messages import CycleProgress

__all__ = ["CycleBeat"]


class CycleBeat:
    """Heartbeats while it is entered, whether the provider calls it or not, and announces progress.

    It is the heartbeat callable of a `SyncContext`. `announce` is awaited with the newest progress once
    `progress_seconds` have passed, and then at most once in that time, if there is anything new.
    """

    def __init__(
        self,
        announce: Callable[[CycleProgress], Awaitable[None]],
        *,
        beat_seconds: float,
        progress_seconds: float,
    ) -> None:
        self._announce = announce
        self._beat_seconds = beat_seconds
        self._progress_seconds = progress_seconds
        self._latest: CycleProgress | None = None
        self._task: asyncio.Task[None] | None = None

    def __call__(self, progress: CycleProgress) -> None:
        """Heartbeat with this progress."""
        self._latest = progress
        activity.heartbeat(progress)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            # A return value here: the beat's own end must not hide what ended the cycle.
            await asyncio.gather(self._task, return_exceptions=True)

    async def _beat(self) -> None:
        announced: CycleProgress | None = None
        due = time.monotonic() + self._progress_seconds
        while True:
            # Without a heartbeat Temporal can neither tell a dead worker nor deliver a cancellation.
            if self._latest is None:
                activity.heartbeat()
            else:
                activity.heartbeat(self._latest)
            if time.monotonic() >= due and self._latest is not announced and self._latest is not None:
                announced = self._latest
                await self._announce(announced)
                due = time.monotonic() + self._progress_seconds
            await asyncio.sleep(self._beat_seconds)
