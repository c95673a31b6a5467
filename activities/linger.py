"""Lingering cycles of a worker: which may stay open for further changes, and when they make room."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError

from syncline import names
from syncline.capture.listen.mute import announce, mute, unmute
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.errors import SynclineError
from syncline.logs import get_log
from syncline.messages.base import GraphStatus
from syncline.provider import MUTED_SECONDS, Linger
from syncline.temporal.schedules.make import describe

__all__ = ["LingerPlaces"]

_LONGEST: Final = 60.0
"""Longest time that a run lingers, however often its graph changes: what it has done is shown at its end."""
_RECORD: Final = 1.0
"""Seconds between two looks at the graph's record."""
_SCHEDULE: Final = 3
"""Every so many of these also look at its Schedule."""


class LingerPlaces:
    """The slots of one worker: at most half of them linger, and none that a waiting graph needs."""

    def __init__(self, slots: int) -> None:
        self._most, self._full = slots // 2, slots - max(1, slots // 4)
        self._working = 0
        self._lingering: dict[GraphLinger, None] = {}
        """In the order in which they began."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count an activity that uses a slot, lingering or not, while entered."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    def enter(self, cycle: "GraphLinger") -> bool:
        """Take a place; return False if there is none."""
        if len(self._lingering) >= self._most or self._working > self._full:
            return False
        self._lingering[cycle] = None
        return True

    def leave(self, cycle: "GraphLinger") -> None:
        """Give the place back."""
        self._lingering.pop(cycle, None)

    def needed(self, cycle: "GraphLinger") -> bool:
        """Return whether the cycle is to make room: slots are short, and it has lingered for longest."""
        short = self._working - self._full
        return short > 0 and cycle in list(self._lingering)[:short]

    def of(self, services: Services, graph: Graph) -> Linger | None:
        """Return what lets a cycle of the graph linger; None if its record or the settings do not."""
        wanted = graph.schedule.linger_seconds
        seconds = services.settings.linger_seconds if wanted is None else wanted
        notified = services.settings.notify and graph.schedule.notify
        if not (seconds and notified and graph.status is GraphStatus.ACTIVE):
            return None
        return GraphLinger(self, services, graph, activity.client(), seconds=seconds)


class GraphLinger(Linger):
    """The lingering of one cycle."""

    def __init__(
        self, places: LingerPlaces, services: Services, graph: Graph, client: Client, *, seconds: float
    ) -> None:
        self._places, self._services, self._graph, self._client = places, services, graph, client
        self._seconds = seconds
        self._watching: asyncio.Task[None] | None = None
        self._ended: str | None = None

    @property
    def seconds(self) -> float:
        """How long to wait for the next change."""
        return self._seconds

    @property
    def longest(self) -> float:
        """How long to linger in all."""
        return max(_LONGEST, self._seconds)

    def over(self) -> str | None:
        """Return why to end now."""
        if activity.is_worker_shutdown():
            return "the worker stops"
        if self._places.needed(self):
            return "its slot is needed"
        return self._ended

    async def mute(self) -> bool:
        """Mute the writers; first take a place, if there is one and no other graph reads their schema."""
        if self._watching is None:
            if not self._places.enter(self):
                return False
            # Its writers would not notify for that graph either.
            try:
                if await self._services.graphs.sharing(self._graph):
                    return False
            except SynclineError:  # the record of another graph is invalid
                return False
        write = self._services.write_schema(self._graph)
        if not await mute(write.store, write.schema, MUTED_SECONDS):
            return False
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return True

    async def unmute(self) -> int:
        """Let the writers notify again."""
        write = self._services.write_schema(self._graph)
        return await unmute(write.store, write.schema)

    async def announce(self, below: int) -> None:
        """Notify the listener."""
        write = self._services.write_schema(self._graph)
        await announce(write.store, write.schema, below)

    async def release(self) -> None:
        """Give the place back. Its look at the record has given its connection back when this returns."""
        self._places.leave(self)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Set why to end, once the record has changed, or the Schedule is paused or another run waits."""
        looks = 0
        while self._ended is None:
            await asyncio.sleep(_RECORD)
            looks += 1
            try:
                if await self._services.graphs.get(self._graph.id) != self._graph:
                    self._ended = "its record has changed"
                elif looks % _SCHEDULE == 0:
                    self._ended = await self._of_schedule()
            except Exception as error:
                # It can no longer be known whether it may.
                get_log().info("record of a lingering cycle not read", error=repr(error))
                self._ended = "its record cannot be read"

    async def _of_schedule(self) -> str | None:
        with suppress(RPCError):
            handle = self._client.get_schedule_handle(names.sync_schedule_id(self._graph.slug))
            found = await describe(handle)
            if found is None or found.schedule.state.paused:
                return "its Schedule is paused"
            if found.raw_description.info.buffer_size:
                return "another run waits"
        return None
