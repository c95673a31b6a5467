"""Connections that a piece of work leaves open, and those that tasks of it are about to give back."""

import asyncio

from syncline.stores.leases import Leases, leased


async def test_a_connection_that_comes_back_late_is_not_left_open() -> None:
    closed: list[str] = []
    leases = Leases()

    async def hold(store: str, seconds: float) -> None:
        async def release() -> None:
            closed.append(store)

        with leased(store, release):
            await asyncio.sleep(seconds)

    with leases.counting():
        late, kept = asyncio.create_task(hold("late", 0.05)), asyncio.create_task(hold("kept", 30))
    await asyncio.sleep(0)
    assert await leases.take_back() == ["kept"]
    assert closed == ["kept"]
    kept.cancel()
    await asyncio.gather(late, kept, return_exceptions=True)
