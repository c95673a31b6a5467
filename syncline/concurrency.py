"""Somebody else's work within bounds: it may never end, ignore its cancellation, or end the process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

__all__ = ["PATIENCE", "BaseExceptionRaised", "CancelIgnored", "TimedOut", "bounded"]

PATIENCE: Final = 10.0
"""Seconds that work has for its end after it was cancelled."""

T = TypeVar("T")

_not_ended: set[asyncio.Task[object]] = set()
"""Work that went on after its cancellation: an event loop holds its tasks by weak references alone."""


class TimedOut(Exception):
    """The work did not end in time; it was cancelled, and has ended."""


class CancelIgnored(Exception):
    """The work went on after its cancellation, and was left to itself."""


class BaseExceptionRaised(Exception):
    """The work raised what would have ended the process, or a cancellation that nobody asked for."""


async def bounded(work: Awaitable[T], *, seconds: float, patience: float = PATIENCE) -> T:
    """Return what the work, in a task of its own, returns; raise what it raises.

    Raise Overran after `seconds`, and Abandoned when work that was cancelled, for that reason or because the
    caller was, has not ended `patience` seconds later. Raise Escaped in place of SystemExit and the like: a
    task that raises one ends the event loop of everybody.
    """
    task = asyncio.create_task(_kept_in(work))
    try:
        ended, _ = await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        await _stop(task, patience)
        raise
    if not ended:
        await _stop(task, patience)
        raise TimedOut
    if task.cancelled():
        raise BaseExceptionRaised("CancelledError")
    return task.result()


async def _kept_in(work: Awaitable[T]) -> T:
    try:
        return await work
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise BaseExceptionRaised(type(error).__name__) from error


async def _stop(task: "asyncio.Task[T]", patience: float) -> None:
    _not_ended.add(task)
    task.add_done_callback(_discard)
    task.cancel()
    ended, _ = await asyncio.wait([task], timeout=patience)
    if not ended:
        raise CancelIgnored


def _discard(task: "asyncio.Task[T]") -> None:
    _not_ended.discard(task)
    if not task.cancelled():
        task.exception()  # nobody is left to hear it


async def each_batch(
    total: int, *, size: int, in_flight: int, send: Callable[[slice], Awaitable[None]]
) -> None:
    """Send every slice of `total` items, at most `in_flight` at once, in no guaranteed order.

    The first failure cancels the rest and is raised as it is. At most `in_flight` batches exist in memory.
    """
    starts = iter(range(0, total, size))

    async def send_batches() -> None:
        for start in starts:
            await send(slice(start, min(start + size, total)))

    lanes = [asyncio.ensure_future(send_batches()) for _ in range(min(in_flight, -(-total // size)))]
    try:
        await asyncio.gather(*lanes)
    finally:
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
