"""A lock for which tasks of several event loops wait, each without holding up its loop."""

import asyncio
import contextlib
import threading
from collections import deque
from dataclasses import dataclass
from types import TracebackType

__all__ = ["Turn"]


@dataclass(eq=False)
class _Waiting:
    loop: asyncio.AbstractEventLoop
    come: "asyncio.Future[None]"
    granted: bool = False


class Turn:
    """Whoever has entered it has it alone, in all threads; the others come in the order of their asking."""

    def __init__(self) -> None:
        self._guard = threading.Lock()  # held for a few instructions at a time
        self._taken = False
        self._line: deque[_Waiting] = deque()

    def take(self) -> bool:
        """Return whether it was free, and is the caller's now, until `pass_on`."""
        with self._guard:
            free, self._taken = not self._taken, True
            return free

    def pass_on(self) -> None:
        """Let the next one come."""
        with self._guard:
            self._pass_on()

    async def __aenter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            loop = asyncio.get_running_loop()
            waiting = _Waiting(loop, loop.create_future())
            self._line.append(waiting)
        try:
            await waiting.come
        except asyncio.CancelledError:
            with self._guard:
                if waiting.granted:
                    self._pass_on()
                else:
                    self._line.remove(waiting)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pass_on()

    def _pass_on(self) -> None:
        while self._line:
            following = self._line.popleft()
            following.granted = True
            # A loop that was closed while a task of its waited has nobody to come.
            with contextlib.suppress(RuntimeError):
                following.loop.call_soon_threadsafe(_come, following.come)
                return
        self._taken = False


def _come(come: "asyncio.Future[None]") -> None:
    if not come.done():
        come.set_result(None)
