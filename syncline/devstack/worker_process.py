"""The worker of the stack: `worker.py` of the checkout, restarted when it dies."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from syncline.devstack.processes import ChildProcess, log_tail
from syncline.errors import DevStackError

__all__ = ["WorkerProcess", "find_worker"]

_RESTARTS = 3
_WINDOW = 60.0
"""More than `_RESTARTS` deaths within these seconds are a fault that restarting does not cure."""


def find_worker(root: Path) -> Path:
    """Return the script of the worker of the checkout at `root`, or raise DevStackError if there is none."""
    script = root / "worker.py"
    if not script.exists():
        raise DevStackError(
            f"There is no {script}. The worker is that of a checkout of Syncline: be in its folder, and keep "
            "temporal-dev.yaml next to worker.py."
        )
    return script


class WorkerProcess:
    """Starts, watches and stops the worker."""

    def __init__(
        self, root: Path, environment: Mapping[str, str], *, log: Path, graceful_seconds: float
    ) -> None:
        self._root = root
        self._environment = environment
        self._log = log
        self._graceful_seconds = graceful_seconds
        self._child: ChildProcess | None = None

    async def start(self) -> ChildProcess:
        """Start the worker, or raise DevStackError if there is none."""
        script = find_worker(self._root)
        self._child = await ChildProcess.start(
            "the worker",
            [sys.executable, script],
            log=self._log,
            cwd=script.parent,
            env=self._environment,
        )
        return self._child

    async def watch(self, *, restarted: Callable[[int, ChildProcess], None]) -> str:
        """Restart the worker whenever it ends; `restarted` gets the exit status and the new process.

        Return a sentence with the end of its log when it dies again and again.
        """
        deaths: deque[float] = deque(maxlen=_RESTARTS + 1)
        child = self._child or await self.start()
        while True:
            status = await child.wait()
            deaths.append(time.monotonic())
            if len(deaths) > _RESTARTS and deaths[-1] - deaths[0] < _WINDOW:
                return (
                    f"The worker died {len(deaths)} times within {_WINDOW:.0f} s, last with status {status}. "
                    f"Its log, {self._log}, ends with:\n{log_tail(self._log)}"
                )
            await asyncio.sleep(0.5 * len(deaths))
            child = await self.start()
            restarted(status, child)

    async def stop(self, *, hurry: asyncio.Event | None = None) -> bool:
        """Stop it and say if it drained in time; nothing happens if it was not started."""
        if self._child is None:
            return True
        return await self._child.stop(patience=self._graceful_seconds + 5, hurry=hurry)
