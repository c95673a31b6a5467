"""Usability: which stores reject this process, a fault of its settings that other processes may not have."""

import threading
from collections.abc import Sequence
from typing import Final

from syncline.errors import StoreUnusable

__all__ = ["SYSTEM", "Usability"]

SYSTEM: Final = ("write", "graph", "control")
"""The stores needed to sync any graph."""


class Usability:
    """Result of the last login to each store; shared by the threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: dict[str, StoreUnusable] = {}

    def note(self, store: str, problem: StoreUnusable | None) -> None:
        """Record why a login was rejected, or (None) that it succeeded."""
        with self._lock:
            if problem is None:
                self._refused.pop(store, None)
            else:
                self._refused[store] = problem

    def refused(self) -> Sequence[str]:
        """Return the names of the stores that reject this process."""
        with self._lock:
            return sorted(self._refused)

    def problems(self) -> Sequence[str]:
        """Return a sentence for each of these stores."""
        with self._lock:
            return [str(self._refused[store]) for store in sorted(self._refused)]

    @property
    def barred(self) -> bool:
        """Whether this process cannot sync any graph: a system store rejects it."""
        return any(store in SYSTEM for store in self.refused())
