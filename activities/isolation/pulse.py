"""Pulse of an event loop: since when it has not answered, asked from another thread."""

import asyncio
import contextlib
import time
from collections.abc import Callable

__all__ = ["LoopPulse"]


class LoopPulse:
    """Measures how long an event loop has been silent. For one caller; `gone` says that it has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, gone: Callable[[], bool] = lambda: False) -> None:
        self._loop, self._gone = loop, gone
        self._asked_at, self._answered = 0.0, True

    def silent_seconds(self) -> float:
        """Return the seconds since the event loop has not answered; ping it again once it has."""
        now = time.monotonic()
        if self._answered or self._gone():
            self._asked_at, self._answered = now, False
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._answer)
        return now - self._asked_at

    def reset(self) -> None:
        """Restart the measurement: the asking thread did not run either."""
        self._asked_at = time.monotonic()

    def _answer(self) -> None:
        self._answered = True
