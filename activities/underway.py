"""The cycles that run now in one event loop, for whoever has to end them from another."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from temporalio import activity

__all__ = ["UnderWay", "UnderWayHere"]


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """One attempt of a cycle."""

    graph: str
    task_token: bytes


class UnderWayHere:
    """What runs now."""

    def __init__(self) -> None:
        self._now: dict[UnderWay, asyncio.Task[object]] = {}

    @contextmanager
    def entered(self, graph: str) -> Iterator[None]:
        """Have the present activity among them while this is entered."""
        cycle, task = UnderWay(graph=graph, task_token=activity.info().task_token), asyncio.current_task()
        if task is None:
            raise RuntimeError("an activity runs in a task")
        self._now[cycle] = task
        try:
            yield
        finally:
            del self._now[cycle]

    def all(self) -> Sequence[UnderWay]:
        """Return them, to any thread."""
        return list(self._now)

    def cancel_all(self) -> None:
        """Cancel them; only their own event loop may ask for it."""
        for task in self._now.values():
            task.cancel()
