"""Heartbeats of a running activity, with its progress as details."""

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
    """Background heartbeats while entered, with the newest progress; announces progress periodically.

    It is the heartbeat callable of a `SyncContext`. New progress is sent at most every `progress_seconds`
    (default `beat_seconds`), immediately if the last heartbeat is that old. `announce` is awaited with the
    newest progress at most every `announce_seconds`, the first time after that interval, if it is new.
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
        """The newest progress; None before the first."""
        return self._latest

    def __call__(self, progress: ProgressT) -> None:
        """Record this progress, and send it now or with the next heartbeat that is due."""
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
            # Collected, not raised: the task's cancellation must not hide the activity's own error.
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_alive(self) -> None:
        announced: ProgressT | None = None
        due = time.monotonic() + self._announce_seconds
        while True:
            # Sleep first: most cycles end before, and each heartbeat costs the server a request.
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
        # Without heartbeats Temporal can neither detect a dead worker nor deliver a cancellation. A timer
        # that fires slightly early must not double the interval.
        if ago < 0.9 * (min(self._fresh_seconds, self._beat_seconds) if news else self._beat_seconds):
            return
        self._sent, self._sent_at = self._latest, time.monotonic()
        if self._latest is None:
            activity.heartbeat()
        else:
            activity.heartbeat(self._latest)
