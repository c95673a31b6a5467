"""Turns: one at a time, in all threads, in the order of asking."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from syncline.turns import Turn


def test_tasks_of_several_event_loops_take_turns() -> None:
    turn, inside, most, total = Turn(), 0, 0, 0

    async def visit() -> None:
        nonlocal inside, most, total
        async with turn:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.0001)
            inside -= 1
            total += 1

    async def visits() -> None:
        await asyncio.gather(*(visit() for _ in range(50)))

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(asyncio.run, visits()) for _ in range(4)]:
            done.result(timeout=30)
    assert (most, total) == (1, 200)
    assert turn.take()


async def test_whoever_is_cancelled_lets_the_next_one_come() -> None:
    turn, order = Turn(), []

    async def visit(name: str) -> None:
        async with turn:
            order.append(name)

    assert turn.take()
    tasks = [asyncio.create_task(visit(name)) for name in "abc"]
    await asyncio.sleep(0)
    tasks[0].cancel()
    turn.pass_on()
    tasks[1].cancel()  # it is its turn already, and it has not begun
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["c"]
    assert turn.take()
