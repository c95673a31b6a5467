"""Bounded execution of foreign coroutines, which may hang, ignore cancellation or raise SystemExit."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeVar

__all__ = ["PATIENCE", "BaseExceptionRaised", "CancelIgnored", "TimedOut", "all_of", "bounded", "each_batch"]

PATIENCE: Final = 10.0
"""Seconds that cancelled work has to end."""

T = TypeVar("T")

_not_ended: set[asyncio.Task[object]] = set()
"""Tasks that ignored their cancellation: an event loop only holds weak references to its tasks."""


class TimedOut(Exception):
    """The work did not end in time; it was cancelled, and has ended."""


class CancelIgnored(Exception):
    """The work ignored its cancellation, and was abandoned."""


class BaseExceptionRaised(Exception):
    """The work raised a BaseException such as SystemExit, or a CancelledError without being cancelled."""


async def bounded(work: Awaitable[T], *, seconds: float, patience: float = PATIENCE) -> T:
    """Run the work in a separate task; return its result or raise its exception.

    Raise TimedOut after `seconds`, and CancelIgnored if cancelled work (by the timeout or with the caller)
    has not ended `patience` seconds later. Raise BaseExceptionRaised in place of SystemExit and the like: a
    task that raises one ends the event loop.
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
        task.exception()  # mark it as retrieved: no caller is left


async def all_of(*parts: Coroutine[object, object, None]) -> None:
    """Run the parts together to their ends; the first failure cancels the others and is raised unchanged."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def each_batch(
    total: int, *, size: int, in_flight: int, send: Callable[[slice], Awaitable[None]]
) -> None:
    """Send all slices of `total` items, at most `in_flight` concurrently, in no guaranteed order.

    The first failure cancels the rest and is raised unchanged. At most `in_flight` batches are in memory.
    """
    if 0 < total <= size:
        await send(slice(0, total))
        return
    starts = iter(range(0, total, size))

    async def send_batches() -> None:
        for start in starts:
            await send(slice(start, min(start + size, total)))

    await all_of(*(send_batches() for _ in range(min(in_flight, -(-total // size)))))
