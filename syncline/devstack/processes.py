"""Child processes of the stack, the worker among them: their identity, ports, start and end."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil
from pydantic import BaseModel, ConfigDict

from syncline.errors import DevStackError

__all__ = ["ChildProcess", "ProcessIdentity", "WorkerProcess", "log_tail", "require_free_port"]


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


_RESTARTS = 3
_WINDOW = 60.0
"""More than `_RESTARTS` deaths within these seconds are a fault that restarting does not cure."""


class WorkerProcess:
    """Starts, watches and stops the worker."""

    def __init__(
        self,
        script: Path,
        environment: Mapping[str, str],
        *,
        log: Path,
        graceful_seconds: float,
        cwd: Path | None = None,
    ) -> None:
        self._script = script
        self._cwd = cwd
        self._environment = environment
        self._log = log
        self._graceful_seconds = graceful_seconds
        self._child: ChildProcess | None = None

    async def start(self) -> ChildProcess:
        """Start the worker, or raise DevStackError if it cannot be started."""
        self._child = await ChildProcess.start(
            "the worker",
            [sys.executable, self._script],
            log=self._log,
            cwd=self._cwd,
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


def require_free_port(ip: str, port: int, *, use: str, option: str, key: str) -> None:
    """Raise DevStackError if `port` cannot be bound, saying who has it and the way out.

    `use` says what the port is for; `option` and `key` are the command-line option and the key in
    `temporal-dev.yaml` that change it.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(ip, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise DevStackError(
            f"temporal.ip '{ip}' is not an address of this machine: {error.strerror}. 127.0.0.1 always works."
        ) from None
    with socket.socket(family, kind, proto) as probe:
        # Without it, connections of a server that has just stopped would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise DevStackError(
                    f"Port {port} ({use}) is taken{_owner(port)}. Stop that, or choose another with "
                    f"`syncline dev {option} N` or {key} in temporal-dev.yaml."
                ) from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise DevStackError(
                    f"temporal.ip '{ip}' is not an address of this machine. 127.0.0.1 always works."
                ) from None
            raise DevStackError(
                f"Port {port} ({use}) cannot be used: {error.strerror}. Choose another with "
                f"`syncline dev {option} N` or {key} in temporal-dev.yaml."
            ) from None


def _owner(port: int) -> str:
    """Return ` by NAME (pid N)`, or nothing where the system does not tell."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,)
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
