"""The slots of a room's worker: an event loop that is blocked gives none out, so few tasks come to it."""

import asyncio
import contextlib

from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkerTuner,
)

__all__ = ["slots_of_this_loop"]


def slots_of_this_loop(count: int) -> WorkerTuner:
    """Return what has a worker run `count` activities at once, and take one only while its loop runs."""
    none = FixedSizeSlotSupplier(1)
    return WorkerTuner.create_composite(
        workflow_supplier=none,
        activity_supplier=_SlotsOfALoop(count),
        local_activity_supplier=none,
        nexus_supplier=none,
    )


class _SlotsOfALoop(CustomSlotSupplier):
    """The SDK's own slots are given out by its threads, which poll on while the loop is blocked."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._loop = asyncio.get_running_loop()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:  # noqa: ARG002 # the contract's
        await self._free.acquire()
        return SlotPermit()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Nothing: it was counted when it was reserved."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:  # noqa: ARG002
        # Called by a thread of the SDK, which may outlive the loop.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._free.release)
