"""Which cycles of a worker may linger, and which make room."""

import asyncio
from types import SimpleNamespace
from typing import cast
from unittest.mock import AsyncMock, Mock

import pytest

from activities.linger import GraphLinger, LingerPlaces
from syncline.control.graphs import Graph, draft_graph
from syncline.control.services import Services
from syncline.messages.base import GraphStatus
from syncline.stores.leases import Leases, leased


def cycles(places: LingerPlaces, count: int) -> list[GraphLinger]:
    return [GraphLinger(places, Mock(), Mock(), Mock(), seconds=5) for _ in range(count)]


def test_half_of_the_slots_linger_and_make_room_oldest_first() -> None:
    places = LingerPlaces(8)
    first, second, *others = cycles(places, 5)
    with places.working(), places.working():
        assert [places.enter(cycle) for cycle in (first, second, *others)] == [True] * 4 + [False]
        assert not places.needed(first)
        with places.working(), places.working(), places.working(), places.working():
            assert not places.needed(first)
            # Of eight slots two are to stay free.
            with places.working():
                assert (places.needed(first), places.needed(second)) == (True, False)
                places.leave(first)
                assert places.needed(second)
                assert not places.enter(first)


def test_only_slot_of_a_worker_does_not_linger() -> None:
    places = LingerPlaces(1)
    with places.working():
        assert not places.enter(cycles(places, 1)[0])


@pytest.mark.parametrize(
    ("fields", "worker", "seconds"),
    [
        ({}, {}, 5),
        ({"linger_seconds": 2}, {}, 2),
        ({"linger_seconds": 2}, {"linger_seconds": 0}, 2),
        ({"linger_seconds": 0}, {}, None),
        ({"notify": False}, {}, None),
        ({}, {"linger_seconds": 0}, None),
        ({}, {"notify": False}, None),
    ],
)
def test_record_and_settings_say_how_long(
    fields: dict[str, object],
    worker: dict[str, object],
    seconds: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("activities.linger.activity", Mock())
    settings = SimpleNamespace(**{"linger_seconds": 5, "notify": True, **worker})
    graph = SimpleNamespace(
        schedule=draft_graph({"slug": "g", "schedule": fields}).schedule, status=GraphStatus.ACTIVE
    )
    found = LingerPlaces(8).of(cast(Services, SimpleNamespace(settings=settings)), cast(Graph, graph))
    assert (None if found is None else found.seconds) == seconds


async def test_release_waits_until_the_look_at_the_record_has_given_its_connection_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cycle ends with it: a connection that is still out is one that its provider left open."""
    leases, looking = Leases(), asyncio.Event()

    async def close() -> None:
        """Close it."""

    async def get(_: object) -> None:
        with leased("graph", close):
            looking.set()
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(0.01)

    graphs = SimpleNamespace(get=get, sharing=AsyncMock(return_value=()))
    services = SimpleNamespace(graphs=graphs, write_schema=Mock())
    monkeypatch.setattr("activities.linger.mute", AsyncMock(return_value=True))
    monkeypatch.setattr("activities.linger._RECORD", 0)
    leave = GraphLinger(LingerPlaces(8), cast(Services, services), Mock(), Mock(), seconds=5)
    with leases.counting():
        assert await leave.mute()
    await looking.wait()
    await leave.release()
    assert await leases.take_back() == []
