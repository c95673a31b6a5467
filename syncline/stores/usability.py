"""Which stores this process is refused by: a fault of its settings, which another need not have."""

import threading
from collections.abc import Sequence
from typing import Final

from syncline.errors import StoreUnusable

__all__ = ["SYSTEM", "Usability"]

SYSTEM: Final = ("write", "graph", "control")
"""The stores without which no graph can be synced."""


class Usability:
    """What became of the last login to each store; the threads of a process share one of these."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: dict[str, StoreUnusable] = {}

    def note(self, store: str, problem: StoreUnusable | None) -> None:
        """Keep why a login was refused, or that one has succeeded."""
        with self._lock:
            if problem is None:
                self._refused.pop(store, None)
            else:
                self._refused[store] = problem

    def refused(self) -> Sequence[str]:
        """Return the names of the stores that refuse this process."""
        with self._lock:
            return sorted(self._refused)

    def problems(self) -> Sequence[str]:
        """Return what is wrong with each of them, a sentence for one."""
        with self._lock:
            return [str(self._refused[store]) for store in sorted(self._refused)]

    @property
    def barred(self) -> bool:
        """Whether this process cannot sync any graph: one of the system's own stores refuses it."""
        return any(store in SYSTEM for store in self.refused())
