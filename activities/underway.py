"""The cycles that run now in one event loop, for whoever has to end them from another."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from temporalio import activity

__all__ = ["UnderWay", "UnderWayHere"]


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """One attempt of a cycle. `task` belongs to its loop: cancel it by `call_soon_threadsafe`."""

    graph: str
    task_token: bytes
    task: "asyncio.Task[object]"


class UnderWayHere:
    """What runs now. It may be read from any thread."""

    def __init__(self) -> None:
        self._now: dict[bytes, UnderWay] = {}

    @contextmanager
    def entered(self, graph: str) -> Iterator[None]:
        """Have the present activity among them while this is entered."""
        token, task = activity.info().task_token, asyncio.current_task()
        if task is None:
            raise RuntimeError("an activity runs in a task")
        self._now[token] = UnderWay(graph=graph, task_token=token, task=task)
        try:
            yield
        finally:
            del self._now[token]

    def all(self) -> Sequence[UnderWay]:
        """Return them."""
        return list(self._now.values())
