"""Guard of a dev stack: a process that ends what the stack runs once `syncline dev` has died.

It waits for the end of its standard input, which only that process holds open: kill -9 closes it too. After
an orderly stop there is no record any more, and nothing to do. It takes the folder's lock, so that a stack
that starts meanwhile either waits for it or does this itself.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from syncline.devstack.state import RunningStack, StateFolder
from syncline.errors import DevStackError

__all__ = ["guarded"]

_PATIENCE: Final = 5.0
"""Seconds that each process has to end by itself; the next start continues what it was at."""
_CLEARING: Final = 60.0
"""Seconds that the dead process has to be gone."""


@contextmanager
def guarded(state: Path, data: Path) -> Iterator[None]:
    """While entered, a guard stands by; then it is ended if the record is deleted, else it goes to work.

    `data` is PostgreSQL's folder.
    """
    guard = subprocess.Popen(  # noqa: S603 # our own module
        [sys.executable, "-m", "syncline.devstack.guard", str(state), str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Neither Ctrl-C in the terminal nor the terminal's end reaches it.
        start_new_session=True,
    )
    try:
        yield
    finally:
        if StateFolder(state).read() is None:
            # What it would end has ended: nothing is left to it.
            guard.kill()
            guard.wait()
        if guard.stdin is not None:
            guard.stdin.close()


def main(state: Path, data: Path) -> None:
    """Wait for the end of standard input; end what the record in `state` names, and PostgreSQL."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    folder = StateFolder(state)
    record, until = folder.read(), time.monotonic() + _CLEARING
    while record is not None and time.monotonic() < until and folder.read() == record:
        # It closes its files first; a child that it was about to start may have its lock for a moment.
        if record.dev.process() is None:
            with suppress(DevStackError), folder.locked(as_guard=True):
                _clear(folder, record, data)
                return
        time.sleep(0.05)


def _clear(folder: StateFolder, record: RunningStack, data: Path) -> None:
    """End what the record names, and PostgreSQL, unless a stack that has started since has done so."""
    if folder.read() != record:
        return
    from syncline.devstack.postgres import PostgresServer

    for child in reversed(record.children.values()):
        child.end(patience=_PATIENCE)
    PostgresServer(data).stop()
    folder.delete_record()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
