"""The pace of an embedding service finds what the service gains from, and obeys what it asks for."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from syncline.embeddings.pace import Held, Pace, pace_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def run(pace: Pace, clock: Clock, seconds: Callable[[int, int], float], requests: int = 400) -> None:
    """Send full requests that take `seconds(lanes, texts)`, as many at once as there are lanes."""
    for _ in range(requests):
        async with pace.request() as request:
            clock.now += seconds(pace.lanes, pace.rows)
            pace.answered(request, pace.rows, full=True)
            clock.now = 100.0


def pace_with(**limits: int) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace("e", clock=clock, **limits), clock


async def test_lanes_and_texts_grow_while_the_service_gains() -> None:
    pace, clock = pace_with(most_lanes=16, most_rows=256)
    await run(pace, clock, lambda lanes, rows: 0.05)
    assert (pace.lanes, pace.rows) == (16, 256)


async def test_a_service_of_one_thread_is_asked_one_by_one() -> None:
    pace, clock = pace_with()
    await run(pace, clock, lambda lanes, rows: 0.01 * rows * lanes)
    assert pace.lanes <= 2
    assert pace.rows <= 16


async def test_a_slow_service_gets_requests_that_end_soon() -> None:
    pace, clock = pace_with()
    await run(pace, clock, lambda lanes, rows: 1.0 * rows, requests=20)
    assert pace.rows <= 4


async def test_lanes_are_halved_once_for_all_requests_that_were_under_way() -> None:
    pace, clock = pace_with(most_rows=8)
    await run(pace, clock, lambda lanes, rows: 0.05)
    assert pace.lanes == 16
    async with pace.request() as one, pace.request() as two:
        pace.overloaded(one)
        pace.overloaded(two)
    assert pace.lanes == 8
    await run(pace, clock, lambda lanes, rows: 0.05, requests=9 * 8 + 1)
    assert pace.lanes == 10


async def test_what_was_too_large_is_not_sent_again() -> None:
    pace, clock = pace_with()
    await run(pace, clock, lambda lanes, rows: 0.05)
    pace.too_large(256, 500_000)
    assert (pace.rows, pace.most_bytes) == (128, 250_000)
    await run(pace, clock, lambda lanes, rows: 0.05)
    assert pace.rows == 128


async def test_no_more_requests_than_lanes_are_sent() -> None:
    pace, _ = pace_with()
    pace.lanes = 2
    at_once = most = 0

    async def send() -> None:
        nonlocal at_once, most
        async with pace.request():
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.001)
            at_once -= 1

    await asyncio.gather(*(send() for _ in range(20)))
    assert most == 2


async def test_a_long_hold_is_told_and_a_short_one_is_waited_for() -> None:
    pace = Pace("e")
    pace.hold_until(datetime.now(UTC) + timedelta(seconds=30))
    pace.hold_until(datetime.now(UTC) + timedelta(seconds=1))
    with pytest.raises(Held) as held:
        await pace.turn()
    assert 28 < (held.value.until - datetime.now(UTC)).total_seconds() <= 30
    other = Pace("f")
    other.hold_until(datetime.now(UTC) + timedelta(seconds=0.02))
    await other.turn()
    assert other.held_until is None


def test_one_address_has_one_pace_and_what_has_none_gets_one() -> None:
    one = Pace.of_this_process("e", "http://a", most_lanes=4, most_rows=8)
    assert Pace.of_this_process("e", "http://a", most_lanes=4, most_rows=8) is one
    assert Pace.of_this_process("e", "http://b", most_lanes=4, most_rows=8) is not one

    class Service:
        pass

    @dataclass
    class Unhashable:
        pass

    service = Service()
    assert pace_of(service, "s") is pace_of(service, "s")
    assert pace_of(Unhashable(), "s").most_lanes == 4
