"""Silence reports: while a drain runs, reports which of its services does not answer, and since when."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from syncline.messages.sync import Waiting
from syncline.stores.answer_watch import Watched

__all__ = ["silence_reported"]

_EVERY: Final = 1.0


@asynccontextmanager
async def silence_reported(
    report: Callable[[Waiting | None], None], services: Mapping[str, object]
) -> AsyncIterator[None]:
    """Report, while entered, that a service is silent, and None once all answer again.

    `services`: what operators call it -> the service. Those that are not `Watched` are never silent.
    """
    watched = {name: service for name, service in services.items() if isinstance(service, Watched)}

    def silent() -> Waiting | None:
        for name, service in watched.items():
            if service.silent_since is not None:
                return Waiting(on=name, since=service.silent_since)
        return None

    async def look() -> None:
        reported: Waiting | None = None
        while True:
            # Sleep first: most drains end before.
            await asyncio.sleep(_EVERY)
            if (found := silent()) != reported:
                reported = found
                report(found)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
