"""Which runs are started, and when, while those who start them are away or have much to do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from syncline.capture.listen import starter as starting
from syncline.capture.listen.debounce import Snapshot, TriggerDebouncer
from syncline.capture.listen.starter import Directory, ListenContext, RateLimiter, Starting
from syncline.control.graphs import Graph, GraphRecords, draft_graph
from syncline.errors import TemporalUnavailable
from syncline.provider import NullMeter
from syncline.testing.lab import eventually
from tests.kit.run_starter import RunsStartedBy

MANY = [f"g{number:03}" for number in range(40)]


class Bench:
    """What is due, what starts it, and what was started; all changes are of transaction 10."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(starting, "_AGAIN", 0.2)
        monkeypatch.setattr(starting, "_PROBE", 0.02)
        self.horizon = 11
        self.debouncer = TriggerDebouncer(Snapshot(xmin=10, xmax=10), window=1)
        self.news = asyncio.Event()
        self.tried: list[str] = []
        self.started: list[str] = []
        self.broken: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.lingering: set[str] = set()
        self.visible_below = 0
        self.runs = RunsStartedBy(self._start)

    async def _start(self, graph: Graph) -> str:
        self.tried.append(graph.slug)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.01)
        self.at_once -= 1
        if graph.slug in self.broken or not self.runs.there:
            raise TemporalUnavailable("nowhere", "default", "away")
        self.started.append(graph.slug)
        return "started"

    def hear(self, slugs: Sequence[str], xid: int = 10) -> None:
        for slug in slugs:
            self.debouncer.note(slug, xid, xid, now=asyncio.get_running_loop().time())
        self.news.set()

    async def muted(self, schema: str) -> float:
        return 4.0 if schema in self.lingering else 0.0

    async def seen(self, _graph: Graph) -> int:
        return self.visible_below

    async def snapshot(self) -> Snapshot:
        return Snapshot(xmin=self.horizon, xmax=self.horizon)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def read_records() -> GraphRecords:
            return GraphRecords(valid=[_graph(slug) for slug in MANY], invalid={})

        directory = Directory(read_records)
        await directory.read(older_than=0)
        context = ListenContext(
            store="write",
            key=None,
            directory=directory,
            limiter=RateLimiter(1000),
            runs=self.runs,
            meter=NullMeter(),
            report=lambda _: None,
            visible_below=self.seen,
        )
        starting = Starting(context, self.debouncer, snapshot=self.snapshot, news=self.news, muted=self.muted)
        task = asyncio.create_task(starting.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def nothing_due(self) -> bool:
        return self.debouncer.following() is None


def _graph(slug: str) -> Graph:
    now = datetime.now(UTC).isoformat()
    completed = draft_graph({"slug": slug, "schema_name": slug}).completed()
    return Graph.model_validate(
        {**completed, "id": uuid4(), "is_default": False, "created_at": now, "updated_at": now}
    )


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_nothing_is_tried_while_temporal_is_away_and_then_only_what_does_not_come_by_itself(
    bench: Bench,
) -> None:
    bench.runs.there = False
    bench.hear(MANY[:10])
    async with bench.running():
        await asyncio.sleep(0.5)
        # The first few, once; each would have taken ten seconds to fail.
        tried = len(bench.tried)
        assert tried <= 4
        bench.hear(MANY)
        bench.runs.to_come = frozenset(MANY[:30])
        bench.runs.there = True
        await eventually(bench.nothing_due)
    assert sorted(bench.started) == MANY[30:]
    assert bench.runs.asked == [True]
    assert len(bench.tried) == tried + 10


async def test_a_change_that_came_after_the_outage_is_started_though_a_run_comes(bench: Bench) -> None:
    bench.runs.there = False
    bench.hear(MANY[:1])
    async with bench.running():
        await asyncio.sleep(0.1)
        bench.runs.to_come, bench.runs.there = frozenset(MANY[:1]), True
        # Of a transaction that was not there when Temporal was seen away for the last time.
        bench.hear(MANY[:1], xid=12)
        await eventually(bench.nothing_due)
        assert bench.started == []
        assert bench.debouncer.held
        bench.horizon = 13
        bench.debouncer.moved(await bench.snapshot(), now=asyncio.get_running_loop().time())
        bench.news.set()

        async def started() -> bool:
            return bench.started == MANY[:1]

        await eventually(started)


async def test_one_graphs_own_trouble_holds_up_no_other(bench: Bench) -> None:
    bench.broken = {MANY[0]}
    bench.hear(MANY[:8])
    async with bench.running():

        async def others() -> bool:
            return sorted(bench.started) == MANY[1:8] and bench.tried.count(MANY[0]) >= 2

        await eventually(others)
        bench.broken = set()
        await eventually(bench.nothing_due)
    assert bench.runs.asked == []


async def test_a_crowd_is_looked_through_once_and_started_a_few_at_a_time(bench: Bench) -> None:
    bench.runs.to_come = frozenset(MANY[:25])
    bench.hear(MANY)
    async with bench.running():
        await eventually(bench.nothing_due)
    assert sorted(bench.started) == MANY[25:]
    assert bench.runs.asked == [False]
    assert 1 < bench.most_at_once <= 4


async def test_who_cannot_be_told_what_comes_starts_everything(bench: Bench) -> None:
    bench.runs.trouble = TemporalUnavailable("nowhere", "default", "not allowed to list")
    bench.runs.to_come = frozenset(MANY)
    bench.runs.there = False
    bench.hear(MANY)
    async with bench.running():
        await asyncio.sleep(0.2)
        bench.runs.there = True
        await eventually(bench.nothing_due)
    assert sorted(bench.started) == MANY
    # The crowd, and after the outage three times.
    assert bench.runs.asked[:4] == [False, True, True, True]


@pytest.mark.parametrize("visible_below", [10, 11])
async def test_change_is_left_to_a_lingering_cycle_and_started_only_if_it_was_not_seen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, visible_below: int
) -> None:
    """Another graph does not wait for it."""
    monkeypatch.setattr(starting, "_LINGERING", 0.01)
    bench.lingering.add(MANY[0])
    async with bench.running():
        bench.hear(MANY[:2])
        await eventually(lambda: _is(bench.started == [MANY[1]]))
        assert bench.debouncer.following() is not None
        bench.visible_below = visible_below
        bench.lingering.clear()
        await eventually(bench.nothing_due)
    # All changes are of transaction 10.
    assert bench.started == ([MANY[1]] if visible_below == 11 else [MANY[1], MANY[0]])


async def _is(found: bool) -> bool:
    return found
