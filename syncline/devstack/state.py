"""The state folder: the lock that keeps it to one `syncline dev`, and the record of what that one runs."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from syncline import names
from syncline.devstack.environment import StackStores
from syncline.devstack.processes import ProcessIdentity
from syncline.errors import DevStackError
from syncline.private_folder import make_private

__all__ = ["GUARD", "RunningStack", "StateFolder", "private_files"]

GUARD: Final = "guard "
"""Begins what the guard of a killed stack writes into the lock file."""
_CLEARING: Final = 60.0
"""Seconds that it may take."""
_FOR_NOBODY_ELSE: Final = 0o077

_OWNER_ONLY: Final = 0o700
_OWNER_AND_ON_THE_WAY: Final = 0o711


@contextmanager
def private_files() -> Iterator[None]:
    """While it holds, what this process and its children make is for their user alone."""
    before = os.umask(_FOR_NOBODY_ELSE)
    try:
        yield
    finally:
        os.umask(before)


class RunningStack(BaseModel):
    """What a `syncline dev` wrote down about itself in `dev.json`."""

    model_config = ConfigDict(frozen=True)

    dev: ProcessIdentity
    children: dict[str, ProcessIdentity] = {}
    stores: StackStores | None = None
    temporal_address: str | None = None
    namespace: str | None = None
    task_queue: str = names.TASK_QUEUE


class StateFolder:
    """Everything that the stack writes is under this folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def temporal_log(self) -> Path:
        """Output of the Temporal dev server."""
        return self.path / "temporal.log"

    @property
    def worker_log(self) -> Path:
        """Output of the worker."""
        return self.path / "worker.log"

    @property
    def _record(self) -> Path:
        return self.path / "dev.json"

    def create(self) -> None:
        """Create the folder if it is missing, or raise DevStackError."""
        try:
            make_private(self.path)
            self.path.chmod(_OWNER_ONLY)
            for made_before in self.path.iterdir():
                if made_before.stat().st_uid == os.getuid():
                    made_before.chmod(made_before.stat().st_mode & ~_FOR_NOBODY_ELSE)
        except OSError as error:
            raise DevStackError(
                f"The state folder {self.path} cannot be created: {error.strerror}. "
                "Choose another with --state-dir."
            ) from error

    def keep_private(self, *, passed_through: bool) -> None:
        """Keep everybody else out again, but on the way to a folder inside if that is `passed_through`.

        The embedded PostgreSQL of root is another user's, and the wheel opens the way to it for all. Nobody
        may list the folder then, and what is in it is readable for its owner alone: `private_files`.
        """
        self.path.chmod(_OWNER_AND_ON_THE_WAY if passed_through else _OWNER_ONLY)

    @contextmanager
    def locked(self, *, as_guard: bool = False) -> Iterator[None]:
        """Hold the folder, or raise DevStackError naming who does.

        The operating system releases the lock when its holder dies, so it is never stale. A guard that ends
        what a killed stack has left is waited for.
        """
        try:
            descriptor = os.open(self.path / "dev.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DevStackError(
                f"The state folder {self.path} cannot be written: {error.strerror}. "
                "Choose another with --state-dir."
            ) from error
        try:
            until = time.monotonic() + _CLEARING
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                if not holder.startswith(GUARD) or as_guard or time.monotonic() > until:
                    raise DevStackError(
                        f"Another `syncline dev` (pid {holder}) is running over {self.path}; "
                        f"stop it (kill {holder}) or use --state-dir."
                    )
                time.sleep(0.1)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{GUARD if as_guard else ''}{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def write(self, running: RunningStack) -> None:
        """Write the record down, atomically: a reader sees the old or the new one."""
        draft = self._record.with_suffix(".tmp")
        draft.write_text(running.model_dump_json(indent=2) + "\n", encoding="utf-8")
        draft.replace(self._record)

    def read(self) -> RunningStack | None:
        """Return the record, or None if there is none that can be understood."""
        try:
            return RunningStack.model_validate_json(self._record.read_bytes())
        except (OSError, ValidationError):
            return None

    def delete_record(self) -> None:
        """Remove the record: the stack was stopped in order."""
        with contextlib.suppress(FileNotFoundError):
            self._record.unlink()

    def running(self) -> RunningStack | None:
        """Return the record of a stack that runs now and whose stores are up, else None."""
        record = self.read()
        if record is None or record.stores is None or record.dev.process() is None:
            return None
        return record

    def keep_one_old_log(self, log: Path) -> None:
        """Move the log of the previous start aside, so that each log is about one start and none grows on."""
        with contextlib.suppress(FileNotFoundError):
            log.replace(log.with_suffix(".previous.log"))
