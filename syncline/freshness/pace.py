"""Pace: no more than so many runs a second, of whatever store, in the order in which they are asked for."""

import asyncio

__all__ = ["Pace"]


class Pace:
    """Turns, evenly spaced. Who waits longest is next."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._next = 0.0
        self._waiting = asyncio.Lock()

    def seconds(self, turns: int) -> float:
        """Return how long so many turns take."""
        return turns * self._interval

    async def turn(self) -> None:
        """Return when it is the caller's turn."""
        async with self._waiting:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._next - loop.time()))
            self._next = max(self._next, loop.time()) + self._interval
