"""Running an event loop to its end: `asyncio.run` would wait for a task that ignores its cancellation."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from syncline.bounded import PATIENCE
from syncline.logs import get_log

__all__ = ["run", "wind_down"]

T = TypeVar("T")


def run(main: Coroutine[object, object, T], *, patience: float = PATIENCE) -> T:
    """Return what `main` returns; leave behind what goes on `patience` seconds after its cancellation."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        wind_down(loop, patience=patience)
        asyncio.set_event_loop(None)


def wind_down(loop: asyncio.AbstractEventLoop, *, patience: float = PATIENCE) -> None:
    """Cancel all tasks, and close the loop once they have ended, or `patience` seconds later."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=patience))
    left = [task.get_name() for task in tasks if not task.done()]
    if left:
        get_log().error("tasks that ignore their cancellation were left behind", tasks=left)
    else:
        loop.run_until_complete(loop.shutdown_asyncgens())
    # Not `shutdown_default_executor`, which waits for threads without end.
    loop.close()
