"""Child processes of the stack: their identity, starting them apart from our terminal, and ending them."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil
from pydantic import BaseModel, ConfigDict

from syncline.errors import DevStackError

__all__ = ["ChildProcess", "ProcessIdentity", "log_tail"]


class ProcessIdentity(BaseModel):
    """A process, told apart from a later one with the same pid by when it was created."""

    model_config = ConfigDict(frozen=True)

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Return the identity of a process, or None if it is gone."""
        try:
            return cls(pid=pid, create_time=psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def process(self) -> psutil.Process | None:
        """Return the process if it still runs."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.create_time) < 0.01
        except psutil.Error:
            return None
        return found if same and _runs(found) else None

    def end(self, *, patience: float) -> None:
        """End it and everything it started: SIGTERM, then SIGKILL after `patience` seconds. Blocks."""
        found = self.process()
        if found is None:
            return
        family = [found, *_descendants(found)]
        _signal_all(family[:1], signal.SIGTERM)
        alive = _wait_gone(family, patience)
        _signal_all(alive, signal.SIGKILL)
        _wait_gone(alive, 5)


class ChildProcess:
    """A child in a session of its own: Ctrl-C in our terminal does not reach it."""

    def __init__(self, process: asyncio.subprocess.Process, *, name: str, log: Path) -> None:
        self._process = process
        self.name = name
        self.log = log
        self.identity = ProcessIdentity.of(process.pid)

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Start it, appending its output to `log`, or raise DevStackError."""
        with log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *map(str, command),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    cwd=cwd,
                    env=env,
                    start_new_session=True,
                )
            except OSError as error:
                raise DevStackError(f"{name} cannot be started: {error}") from error
        return cls(process, name=name, log=log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, None while it runs; a negative number is the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end and return its exit status."""
        return await self._process.wait()

    async def stop(self, *, patience: float, hurry: asyncio.Event | None = None) -> bool:
        """End it: SIGTERM, then SIGKILL after `patience` seconds or on `hurry`. Say if SIGTERM was enough.

        The whole session goes with it, so that nothing it started outlives the stack.
        """
        ended = asyncio.ensure_future(self._process.wait())
        if self.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        hurried = asyncio.ensure_future((hurry or asyncio.Event()).wait())
        try:
            await asyncio.wait({ended, hurried}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            gently = ended.done()
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for zombies
                os.killpg(self.pid, signal.SIGKILL)
            await ended
            return gently
        finally:
            hurried.cancel()


def log_tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log file, indented, or say that there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 32_768))
            text = file.read().decode(errors="replace")
    except OSError:
        text = ""
    tail = [line for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(f"  {line}" for line in tail) or "  (its log is empty)"


def _wait_gone(processes: Sequence[psutil.Process], patience: float) -> list[psutil.Process]:
    """Wait for the ends of processes that are not our children and return those that still run."""
    deadline = time.monotonic() + patience
    alive = list(processes)
    while alive and time.monotonic() < deadline:
        alive = [process for process in alive if _runs(process)]
        time.sleep(0.05)
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        # Where nobody reaps orphans, a zombie is all that stays.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _signal_all(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue
