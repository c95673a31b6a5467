"""Slots for the cycles of a worker, and the watch that has them obey a rate limit of the task queue.

The server hands an activity to the worker that asked for it (eagerly), if that has a free slot: that spares a
round trip, and passes by the task queue, with its rate limits. So while an operator has set one, no slot is
given to such an activity; it then waits in the queue like all others.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkerTuner,
)

from syncline.errors import SynclineError
from syncline.logs import get_log
from syncline.temporal.task_queues import describe_queue

__all__ = ["CycleSlots", "RateLimitWatch", "tuner_of"]

_EVERY: Final = 5.0
"""Seconds between two looks at the task queue's configuration."""


class RateLimitWatch:
    """Whether an operator limits the rate of a task queue's activities, as last seen."""

    def __init__(self, client: Client, task_queue: str, *, every: float = _EVERY) -> None:
        self._client = client
        self._task_queue = task_queue
        self._every = every
        self.limited = False

    def allows_eager(self) -> bool:
        """Return whether a cycle may pass by the task queue."""
        return not self.limited

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look again and again while entered; an error of Temporal leaves what was seen last."""
        task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _look(self) -> None:
        while True:
            with suppress(SynclineError, RPCError):
                found = await describe_queue(self._client, self._task_queue, activities=True)
                if self.limited != (found.limit is not None):
                    self.limited = found.limit is not None
                    get_log().info("task queue limit changed", limit=found.limit and str(found.limit))
            await asyncio.sleep(self._every)


class CycleSlots(CustomSlotSupplier):
    """`count` slots: the event loop grants them to polls, any thread to eager activities while `eager()`."""

    def __init__(self, count: int, *, eager: Callable[[], bool]) -> None:
        self._free = count
        self._eager = eager
        self._lock = threading.Lock()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:  # noqa: ARG002 # the contract's
        """Return a permit once a slot is free, first come, first served."""
        with self._lock:
            if self._free:
                self._free -= 1
                return SlotPermit()
            granted = self._loop.create_future()
            self._waiting.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._released()
            raise
        return SlotPermit()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002
        """Return a permit for an eager activity, None if no slot is free or none may be eager."""
        if not self._eager():
            return None
        with self._lock:
            if not self._free:
                return None
            self._free -= 1
        return SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Do nothing: the slot was counted when it was reserved."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:  # noqa: ARG002
        """Give the slot to who has waited longest. Called from a thread that may outlive the loop."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._released)

    def _released(self) -> None:
        with self._lock:
            while self._waiting:
                granted = self._waiting.popleft()
                if not granted.done():
                    granted.set_result(None)
                    return
            self._free += 1


def tuner_of(activities: CustomSlotSupplier, *, workflow_tasks: int = 1) -> WorkerTuner:
    """Return a tuner with these slots for activities, and as many for workflow tasks."""
    none = FixedSizeSlotSupplier(1)
    return WorkerTuner.create_composite(
        workflow_supplier=FixedSizeSlotSupplier(workflow_tasks),
        activity_supplier=activities,
        local_activity_supplier=none,
        nexus_supplier=none,
    )
