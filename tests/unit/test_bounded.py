"""Somebody else's work within bounds: it ends in time, or is left behind, and cannot end the process."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from activities.isolation import thread as loops
from syncline.concurrency import BaseExceptionRaised, CancelIgnored, TimedOut, bounded


async def forever() -> None:
    await asyncio.Event().wait()


async def stubborn(until: asyncio.Event) -> None:
    while not until.is_set():
        try:
            await until.wait()
        except asyncio.CancelledError:
            continue


async def test_what_ends_in_time_gives_its_result_or_its_error() -> None:
    async def fails() -> None:
        raise OSError("no disk")

    assert await bounded(asyncio.sleep(0, "done"), seconds=5) == "done"
    with pytest.raises(OSError, match="no disk"):
        await bounded(fails(), seconds=5)


async def test_what_takes_too_long_is_cancelled() -> None:
    with pytest.raises(TimedOut):
        await bounded(forever(), seconds=0.01)


async def test_what_ignores_its_cancellation_is_left_behind() -> None:
    until = asyncio.Event()
    with pytest.raises(CancelIgnored):
        await bounded(stubborn(until), seconds=0.01, patience=0.01)
    until.set()


async def test_who_is_cancelled_takes_the_work_along() -> None:
    caller = asyncio.create_task(bounded(forever(), seconds=5))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_who_is_cancelled_does_not_wait_for_what_ignores_it() -> None:
    until = asyncio.Event()
    caller = asyncio.create_task(bounded(stubborn(until), seconds=5, patience=0.01))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(CancelIgnored):
        await caller
    until.set()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_what_would_end_the_process_is_an_error_like_any_other(kind: type[BaseException]) -> None:
    async def escapes() -> None:
        raise kind

    with pytest.raises(BaseExceptionRaised, match=kind.__name__):
        await bounded(escapes(), seconds=5)


@pytest.mark.parametrize("left", [0, 1])
def test_a_loop_ends_in_spite_of_tasks_that_do_not(left: int) -> None:
    kept = []

    async def main(beside: Callable[[], Awaitable[None]]) -> str:
        kept.append(asyncio.ensure_future(beside()))
        await asyncio.sleep(0)
        return "done"

    until = asyncio.Event()
    assert loops.run(main((lambda: stubborn(until)) if left else forever), patience=0.05) == "done"
    assert kept[0].done() is not bool(left)
