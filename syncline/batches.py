"""Batches sent over a network: bounded in size and in number under way."""

import asyncio
from collections.abc import Awaitable, Callable


async def each_batch(
    total: int, *, size: int, in_flight: int, send: Callable[[slice], Awaitable[None]]
) -> None:
    """Send every slice of `total` items, at most `in_flight` at once, in no guaranteed order.

    The first failure cancels the rest and is raised as it is. At most `in_flight` batches exist in memory.
    """
    starts = iter(range(0, total, size))

    async def take_turns() -> None:
        for start in starts:
            await send(slice(start, min(start + size, total)))

    lanes = [asyncio.ensure_future(take_turns()) for _ in range(min(in_flight, -(-total // size)))]
    try:
        await asyncio.gather(*lanes)
    finally:
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
