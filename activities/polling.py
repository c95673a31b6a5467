"""Polling control: the workers of a process poll only while the process can log in to its stores.

Tasks taken without access to the stores would fail; another worker may have correct settings.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from temporalio.worker import Worker

from activities.isolation.thread import ProviderThread
from syncline.control.readiness import stores_regained
from syncline.control.services import Services
from syncline.logs import get_log

__all__ = ["first_of", "polling"]

_LOOK: Final = 1.0
"""Seconds between two checks whether the stores refuse this process."""


@asynccontextmanager
async def polling(
    workers: Callable[[], Sequence[Worker]],
    opened: Sequence[ProviderThread],
    services: Services,
    leaving: asyncio.Event,
) -> AsyncIterator[None]:
    """Run the workers while entered, until `leaving` is set, and only while the stores are usable.

    An error of a worker is raised in the body of the context.
    """
    owner, polls = asyncio.current_task(), asyncio.Event()
    task = asyncio.create_task(_poll(workers, opened, services, leaving, polls))

    def ended(task: asyncio.Task[None]) -> None:
        polls.set()
        if not task.cancelled() and task.exception() is not None and owner is not None:
            owner.cancel()

    task.add_done_callback(ended)
    try:
        await polls.wait()
        yield
    finally:
        leaving.set()
        await task


async def _poll(
    workers: Callable[[], Sequence[Worker]],
    opened: Sequence[ProviderThread],
    services: Services,
    leaving: asyncio.Event,
    polls: asyncio.Event,
) -> None:
    log = get_log()
    while True:
        async with AsyncExitStack() as stack:
            running = [await stack.enter_async_context(worker) for worker in workers()]
            polls.set()
            while not leaving.is_set() and not services.usability.barred:
                await _waited(leaving, _LOOK)
            if not leaving.is_set():
                # Its tasks would fail; another worker may have correct settings.
                log.error("worker stopped polling", problems=services.usability.problems())
                for room in opened:
                    room.pause()
            await asyncio.gather(*(worker.shutdown() for worker in running))
        if leaving.is_set():
            return
        await first_of(leaving.wait(), stores_regained(services))
        if leaving.is_set():
            return
        log.info("worker polls again")


async def _waited(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def first_of(*awaited: Coroutine[object, object, object]) -> None:
    """Return when the first of them returns, and cancel the others; raise its error."""
    tasks = [asyncio.create_task(each) for each in awaited]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
