"""A running activity's sign of life: heartbeats for Temporal, whose details are its progress."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from temporalio import activity

__all__ = ["Heartbeater"]

ProgressT = TypeVar("ProgressT")


class Heartbeater(Generic[ProgressT]):
    """Heartbeats while it is entered, whether it is called or not, and announces progress.

    It is the heartbeat callable of a `SyncContext`. News of progress is in the details of a heartbeat at
    once, if the last is `progress_seconds` ago (without them `beat_seconds`), else as soon as it is.
    `announce`, if there is one, is awaited with the newest progress once `announce_seconds` have passed, and
    then at most once in that time, if there is news.
    """

    def __init__(
        self,
        announce: Callable[[ProgressT], Awaitable[None]] | None = None,
        *,
        beat_seconds: float,
        progress_seconds: float | None = None,
        announce_seconds: float = math.inf,
    ) -> None:
        self._announce = announce
        self._beat_seconds = beat_seconds
        self._fresh_seconds = beat_seconds if progress_seconds is None else progress_seconds
        self._announce_seconds = announce_seconds
        self._latest: ProgressT | None = None
        self._sent: ProgressT | None = None
        self._sent_at = -math.inf
        self._task: asyncio.Task[None] | None = None

    @property
    def latest(self) -> ProgressT | None:
        """The newest progress; None before there is any."""
        return self._latest

    def __call__(self, progress: ProgressT) -> None:
        """Heartbeat with this progress, now or soon."""
        self._latest = progress
        self._send_what_is_due()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep_alive())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            # A return value here: the beat's own end must not hide what ended the activity.
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_alive(self) -> None:
        announced: ProgressT | None = None
        due = time.monotonic() + self._announce_seconds
        while True:
            # First, since most cycles are over by then, and each heartbeat costs the server a request.
            await asyncio.sleep(min(self._beat_seconds, self._fresh_seconds, self._announce_seconds))
            self._send_what_is_due()
            latest = self._latest
            new = latest is not announced and time.monotonic() >= due
            if self._announce is not None and latest is not None and new:
                announced = latest
                await self._announce(announced)
                due = time.monotonic() + self._announce_seconds

    def _send_what_is_due(self) -> None:
        ago = time.monotonic() - self._sent_at
        news = self._latest is not self._sent
        # Without a heartbeat Temporal can neither tell a dead worker nor deliver a cancellation. A timer
        # that wakes a little early must not make that twice as long.
        if ago < 0.9 * (min(self._fresh_seconds, self._beat_seconds) if news else self._beat_seconds):
            return
        self._sent, self._sent_at = self._latest, time.monotonic()
        if self._latest is None:
            activity.heartbeat()
        else:
            activity.heartbeat(self._latest)
