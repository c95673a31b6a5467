"""Who works for a stack: what is left of one that has ended."""

import os
from pathlib import Path

import psutil

__all__ = ["working_for"]


def working_for(state: Path) -> list[str]:
    """Return the command lines of all processes, but this one, that name a stack's state folder or stand in it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            words = [*process.cmdline(), *process.environ().values(), process.cwd()]
        except psutil.Error:
            continue
        if any(str(state) in word for word in words):
            found.append(f"{process.pid}: {' '.join(process.cmdline())}")
    return found
