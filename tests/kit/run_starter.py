"""What starts runs, without a Temporal."""

from collections.abc import Awaitable, Callable

from syncline.control.graphs import Graph
from syncline.errors import SynclineError

__all__ = ["RunsStartedBy"]


class RunsStartedBy:
    """Starts a graph's run by this function. `there` says whether it can be, `to_come` what runs anyway."""

    def __init__(self, start: Callable[[Graph], Awaitable[str]]) -> None:
        self._start = start
        self.there = True
        self.to_come: frozenset[str] = frozenset()
        self.trouble: SynclineError | None = None
        """What keeps anybody from being told what comes."""
        self.asked: list[bool] = []
        """Whether runs had returned, each time that it was asked what comes."""

    async def trigger(self, graph: Graph) -> str:
        """Start its run."""
        return await self._start(graph)

    async def answers(self) -> bool:
        """Return `there`."""
        return self.there

    async def coming(self, *, returned: bool) -> frozenset[str]:
        """Return `to_come`."""
        self.asked.append(returned)
        if self.trouble is not None:
            raise self.trouble
        return self.to_come
