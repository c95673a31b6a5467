"""The rooms of a worker process: one for each provider whose cycles have a task queue of their own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from temporalio.client import Client

from activities.room import Room, Serve
from activities.watchdog import Watchdog
from syncline.services import Services

__all__ = ["rooms"]


@asynccontextmanager
async def rooms(
    client: Client, services: Services, *, serve: Serve, dump: bool = False
) -> AsyncIterator[Sequence[Room]]:
    """Have the cycles of every routed provider served in a room of its own while this is entered.

    Raise what keeps a room from opening. At the end they drain together; then they are closed, the last one
    first, and one that does not end is left behind.
    """
    opened: list[Room] = []
    watchdog = Watchdog(client, opened, services)
    watching = asyncio.create_task(watchdog.watch(dump=dump))
    try:
        for provider_id in services.registry.known("sync"):
            registered = services.registry.get("sync", provider_id)
            if registered is not None and registered.routed:
                room = Room(registered, client, services, serve=serve)
                opened.append(room)
                await room.open()
        yield opened
    finally:
        for room in opened:
            room.drain()
        for room in reversed(opened):
            await room.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
