"""A gate for tests: tasks of any event loop wait at it, and any thread opens it."""

import asyncio
import threading

__all__ = ["Gate"]


class Gate:
    """Closed until it is opened. An `asyncio.Event` is for one loop, and a provider's cycles have another."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    @property
    def is_open(self) -> bool:
        """Whether it has been opened."""
        return self._opened.is_set()

    def open(self) -> None:
        """Let everybody through, now and later."""
        self._opened.set()

    async def wait(self) -> None:
        """Return once it is open."""
        while not self.is_open:  # noqa: ASYNC110 # whoever opens it may be in another thread
            await asyncio.sleep(0.01)
