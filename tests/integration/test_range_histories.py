"""Histories of first loads that lanes read in ranges, while others write, and lanes and cycles die."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from syncline.engine import KNOWLEDGE_GRAPH
from syncline.engine.range_drain import RangeDrain
from syncline.messages.sync import CycleProgress, CycleStatus, LaneEnd, SyncResult
from syncline.provider import RetryRules, SyncContext
from syncline.testing.truth import differences
from tests.kit.damage import damage
from tests.kit.deaths import Deaths
from tests.kit.history_world import WRITERS, HistoryWorld
from tests.kit.lanes import Lanes, every_load_in_ranges
from tests.kit.writer import KEYS

SOURCES = [table.source for table in KNOWLEDGE_GRAPH]
ANEW = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'kg' AND tablename NOT IN (
        'sync_state', 'sync_engine_version', 'sync_schema_version', 'sync_made'
    ) LOOP EXECUTE format('TRUNCATE %I CASCADE', name); END LOOP;
    UPDATE sync_state SET progress = '{}', write_cluster = NULL, position = NULL, map_hash = NULL, load_below = NULL,
        load_due_at = NULL, lanes_after = NULL, checkpoint_at = NULL, noted_fence = NULL, behind_since = NULL;
END $$
"""

Write = tuple[int, str, int, tuple[int, int, int], bool, bool]


class World(HistoryWorld):
    """The graph, and the lanes of its cycles."""

    async def _prepare(self) -> None:
        # Of whoever commits a range, the cycle or a lane, after all of it was written.
        await Deaths.prepare(self.control, table="sync_range")
        self.engine, self.lanes = Lanes(), 0

    def context(self, batch_rows: int) -> SyncContext:
        return replace(self.graph.context(batch_rows=batch_rows), retry=RetryRules(vector_seconds=0))

    async def anew(self) -> None:
        """Let the graph begin at nothing, all that is written with it."""
        await self.control.execute(ANEW)

    async def clear(self) -> None:
        for writer in self.writers:
            await writer.end(commit=False)
        await self.admin.execute(f"TRUNCATE {', '.join(SOURCES)}")
        # What an earlier history has put off is put back.
        await self.cycle()
        await self.anew()

    async def write(self, what: Write, *, then_end: bool = True) -> None:
        by, table, key, refers, flag, commit = what
        await self.writers[by].put(table, key, refers, flag)
        if then_end:
            await self.writers[by].end(commit=commit)

    async def cycle(self, batch_rows: int = 1000, number: int = 1, meanwhile: Sequence[Write] = ()) -> None:
        lanes = replace(self.engine, number=number)
        async with lanes.beside(self.context(batch_rows)) as running:
            for what in meanwhile:
                await self.write(what)
                await asyncio.sleep(0.03)
            result = await running
        assert (result.status, result.failures) == (CycleStatus.DRAINED, 0), result
        for lane in lanes.running:
            assert lane.result().end is LaneEnd.DONE, lane.result()
            self.lanes += lane.result().ranges

    async def killed(self, batch_rows: int, number: int, after: int) -> None:
        """Have the backend end that commits a range as the so-and-so many-th."""

        async def cycle(context: SyncContext) -> SyncResult:
            return await replace(self.engine, number=number).cycle(
                replace(context, retry=RetryRules(vector_seconds=0))
            )

        await Deaths(self.graph, self.control, cycle).in_a_commit(batch_rows, after)

    async def stopped(self, batch_rows: int, number: int, after: int) -> None:
        """End a cycle at this heartbeat; its lanes go on, until another run has the graph."""
        lanes, beats = replace(self.engine, number=number), [0]
        stop = asyncio.Event()

        def beat(_: CycleProgress) -> None:
            beats[0] += 1
            if beats[0] >= after:
                stop.set()

        async with lanes.beside(replace(self.context(batch_rows), heartbeat=beat)) as running:
            waiting = asyncio.create_task(stop.wait())
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            running.cancel()
            waiting.cancel()
            await asyncio.wait({running})
            await self.graph.wait_until_free()
            await self.cycle(batch_rows)

    async def settled(self) -> list[str]:
        for writer in self.writers:
            await writer.end(commit=True)
        await self.cycle(3, 3)
        await self.cycle()
        found = await damage(self.graph)
        left = await self.control.fetch("SELECT * FROM sync_range")
        owed = await self.control.fetchval("SELECT count(*) FROM sync_owed")
        return [*await differences(self.graph, vectors=False), *found, *map(str, left), *["owed"] * owed]


@pytest.fixture
def world(
    graph_templates: tuple[str, str],
    new_database: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    every_load_in_ranges(monkeypatch)
    move = RangeDrain._move

    async def moved(drain: RangeDrain, *given: object) -> None:
        # Batches of a row or two are too quick to meet each other.
        await asyncio.sleep(0.03)
        await move(drain, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(RangeDrain, "_move", moved)
    world = World(*(new_database(template) for template in graph_templates), tmp_path / "qdrant", pool_size=8)
    yield world
    world.close()


writer = st.integers(0, WRITERS - 1)
key = st.integers(0, KEYS - 1)
refers = st.tuples(*[st.integers(0, WRITERS * KEYS - 1)] * 3)
table = st.sampled_from([*SOURCES, *["write_nodes"] * 6, *["write_facts"] * 2, *["write_edges"] * 2])
batch_rows = st.sampled_from([1, 3, 5])
number = st.sampled_from([2, 3])
written = st.tuples(writer, table, key, refers, st.booleans(), st.sampled_from([True, True, False]))


def machine_in(world: World) -> type[RuleBasedStateMachine]:
    class Histories(RuleBasedStateMachine):
        """Writers as in other histories; loads by lanes, which meet writes, and die."""

        def __init__(self) -> None:
            super().__init__()
            self.open: set[int] = set()

        @initialize(rows=st.lists(written, min_size=10, max_size=40))
        def filled(self, rows: list[Write]) -> None:
            async def fill() -> None:
                await world.clear()
                for row in rows:
                    await world.write((*row[:5], True))

            world.run(fill())

        @rule(by=writer, table=table, key=key, refers=refers, flag=st.booleans())
        def put(self, by: int, table: str, key: int, refers: tuple[int, int, int], flag: bool) -> None:
            self.open.add(by)
            world.run(world.writers[by].put(table, key, refers, flag))

        @rule(by=writer, table=table, key=key)
        def delete(self, by: int, table: str, key: int) -> None:
            self.open.add(by)
            world.run(world.writers[by].delete(table, key))

        @precondition(lambda self: self.open)
        @rule(commit=st.sampled_from([True, True, True, False]), data=st.data())
        def end(self, commit: bool, data: st.DataObject) -> None:
            by = data.draw(st.sampled_from(sorted(self.open)))
            self.open.discard(by)
            world.run(world.writers[by].end(commit=commit))

        @rule(batch_rows=batch_rows, number=number, meanwhile=st.lists(written, max_size=12))
        def cycle(self, batch_rows: int, number: int, meanwhile: list[Write]) -> None:
            self.open -= {what[0] for what in meanwhile}
            world.run(world.cycle(batch_rows, number, meanwhile))

        @rule(batch_rows=batch_rows, number=number, after=st.integers(1, 12))
        def cycle_or_lane_dies(self, batch_rows: int, number: int, after: int) -> None:
            world.run(world.killed(batch_rows, number, after))

        @rule(batch_rows=batch_rows, number=number, after=st.integers(1, 12))
        def cycle_stops(self, batch_rows: int, number: int, after: int) -> None:
            world.run(world.stopped(batch_rows, number, after))

        @rule()
        def anew(self) -> None:
            """Another first load of all that is there."""

            async def anew() -> None:
                await world.cycle()
                await world.anew()

            world.run(anew())

        def teardown(self) -> None:
            assert world.run(world.settled()) == []

    return Histories


def test_no_history_of_lanes_loses_a_change(world: World) -> None:
    told = 0
    # In some, no load is large enough for a lane to come in time.
    while not world.lanes and told < 12:
        tell(world, histories=2, steps=8)
        told += 1
    assert world.lanes


@pytest.mark.proof
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(1, 7), ids="part {} of 6".format)
def test_three_hundred_histories_of_lanes(world: World, part: int) -> None:
    tell(world, histories=50, steps=10)
    assert world.lanes > 100


def tell(world: World, *, histories: int, steps: int) -> None:
    """Have so many histories happen, each other than the others."""
    run_state_machine_as_test(
        machine_in(world),
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        ),
    )
