"""CPU seconds of other processes: a Postgres server's, and one process's."""

from pathlib import Path

import psutil

__all__ = ["PostgresCpu", "cpu_seconds"]


class PostgresCpu:
    """All CPU seconds of a server, those of its ended processes too."""

    def __init__(self, folder: Path) -> None:
        self._server = psutil.Process(int((folder / "postmaster.pid").read_text().split("\n", 1)[0]))

    def seconds(self) -> float:
        """Return all CPU seconds so far."""
        ended, pid = self._server.cpu_times(), self._server.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        running = sum(map(cpu_seconds, [pid, *map(int, children)]))
        return ended.children_user + ended.children_system + running


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of one process; a clock tick is too long for short steps."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        return 0.0  # it has ended, and counts as its parent's
