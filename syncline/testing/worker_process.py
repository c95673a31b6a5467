"""The worker as a process of its own, and what it says."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from syncline.settings import Settings
from syncline.testing.lab import eventually

__all__ = ["WorkerProcess", "environment_of"]


def environment_of(settings: Settings, temporal: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return what a worker over these stores has in its environment; of this process's it has PATH alone."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SYNCLINE_WRITE_DSN": settings.write_dsn.get_secret_value(),
        "SYNCLINE_GRAPH_DSN": settings.graph_dsn.get_secret_value(),
        "SYNCLINE_TASK_QUEUE": settings.task_queue,
        "SYNCLINE_LOG_FORMAT": "json",
        **temporal,
    }


class WorkerProcess:
    """A running `python worker.py`; `said` is what it has written to stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._reader = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def running(
        cls, script: Path, environment: Mapping[str, str], *, python: Path | None = None
    ) -> AsyncIterator[Self]:
        """Start the script with this environment, by another Python if one is given; kill it at the end."""
        process = await asyncio.create_subprocess_exec(
            python or sys.executable, str(script), env=environment, stderr=asyncio.subprocess.PIPE
        )
        worker = cls(process)
        try:
            yield worker
        finally:
            if process.returncode is None:
                process.kill()
            await worker.ended()

    async def logs(self, word: str, *, seconds: float = 60) -> None:
        """Return once it has said this; fail if it ends without.

        To start takes seconds of CPU, which a busy machine may not have for a while.
        """

        async def said() -> bool:
            if self.process.returncode is not None and word not in self.said:
                raise AssertionError(self.said)
            return word in self.said

        await eventually(said, seconds=seconds)

    async def ended(self) -> int:
        """Wait for its end, and return the exit status."""
        async with asyncio.timeout(30):
            status = await self.process.wait()
        await self._reader
        return status

    async def _read(self) -> None:
        if self.process.stderr is None:
            raise RuntimeError("its stderr is not piped")
        async for line in self.process.stderr:
            self.said += line.decode()
