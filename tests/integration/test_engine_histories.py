"""A state machine of writers and cycles: whatever happens in between, at the end the stores say the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from syncline.engine import KNOWLEDGE_GRAPH, run_cycle
from syncline.messages.sync import CycleStatus
from syncline.provider import RetryRules
from syncline.testing.graphs import TestGraph
from syncline.testing.truth import differences
from tests.kit.damage import damage
from tests.kit.deaths import Deaths
from tests.kit.history_world import WRITERS, HistoryWorld
from tests.kit.linger import lingering
from tests.kit.writer import KEYS

TABLES = [table.source for table in KNOWLEDGE_GRAPH]
ALL = ", ".join(TABLES)


class World(HistoryWorld):
    """The graph, and what kills its cycles."""

    async def _prepare(self) -> None:
        await Deaths.prepare(self.control)
        self.deaths = Deaths(self.graph, self.control, run_cycle)

    async def clear(self) -> None:
        for writer in self.writers:
            await writer.end(commit=False)
        await self.admin.execute(f"TRUNCATE {ALL}")
        await self.cycle()

    async def cycle(self, batch_rows: int = 1000) -> None:
        context = replace(self.graph.context(batch_rows=batch_rows), retry=RetryRules(vector_seconds=0))
        result = await run_cycle(context)
        assert (result.status, result.failures) == (CycleStatus.DRAINED, 0), result

    async def lingers(
        self, batch_rows: int, meanwhile: Callable[[], Awaitable[None]], *, dies: bool
    ) -> list[str]:
        """Have a cycle linger; return what it has not seen though it announced nothing."""
        # As a second attempt it lingers whether it finds something or not.
        async with lingering(self.graph, batch_rows=batch_rows, attempt=2) as (leave, cycle):
            await meanwhile()
            if dies:
                cycle.cancel()
                await asyncio.wait({cycle})
        if dies:
            await self.graph.wait_until_free()
            return [] if leave.announced else ["a cycle that died announced nothing"]
        assert cycle.result().status is CycleStatus.DRAINED
        return [] if leave.announced else await differences(self.graph)


@pytest.fixture
def world(
    graph_templates: tuple[str, str], new_database: Callable[..., str], tmp_path: Path
) -> Iterator[World]:
    write_dsn, target_dsn = (new_database(template) for template in graph_templates)
    world = World(write_dsn, target_dsn, tmp_path / "qdrant")
    yield world
    world.close()


writer = st.integers(0, WRITERS - 1)
key = st.integers(0, KEYS - 1)
refers = st.tuples(*[st.integers(0, WRITERS * KEYS - 1)] * 3)
# What others hang on more often than the rest: a history has to have something to break.
table = st.sampled_from([*TABLES, *["write_nodes"] * 4, *["write_facts"] * 2, *["write_edges"] * 2])
batch_rows = st.sampled_from([1, 2, 3, 1000])


def machine_in(world: World) -> type[RuleBasedStateMachine]:
    class Histories(RuleBasedStateMachine):
        """Inserts, updates, deletes, link changes, late commits, rollbacks; cycles that end or die."""

        def __init__(self) -> None:
            super().__init__()
            self.open: set[int] = set()

        @initialize()
        def empty(self) -> None:
            world.run(world.clear())

        @rule(by=writer, table=table, key=key, refers=refers, flag=st.booleans())
        def put(self, by: int, table: str, key: int, refers: tuple[int, int, int], flag: bool) -> None:
            self.open.add(by)
            world.run(world.writers[by].put(table, key, refers, flag))

        @rule(by=writer, key=key, refers=refers)
        def relink(self, by: int, key: int, refers: tuple[int, int, int]) -> None:
            self.open.add(by)
            facts = [f"fact{number}" for number in refers]
            world.run(
                world.writers[by].execute(
                    "UPDATE write_nodes SET fact_ids = $2 WHERE id = $1", f"node{by * KEYS + key}", facts
                )
            )

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

        @rule(by=writer, key=key, refers=refers)
        def grow(self, by: int, key: int, refers: tuple[int, int, int]) -> None:
            """Several rows that hang together, in one transaction that is over at once."""

            async def grow() -> None:
                writer = world.writers[by]
                for table in ("write_raw_sources", "write_facts", "write_nodes", "write_edges"):
                    await writer.put(table, key, refers, True)
                await writer.end(commit=True)

            self.open.discard(by)
            world.run(grow())

        @rule(batch_rows=batch_rows)
        def cycle(self, batch_rows: int) -> None:
            world.run(world.cycle(batch_rows))

        @rule(
            batch_rows=batch_rows,
            by=writer,
            key=key,
            refers=refers,
            commit=st.sampled_from([True, True, False]),
            dies=st.sampled_from([False, False, False, True]),
        )
        def cycle_lingers(
            self,
            batch_rows: int,
            by: int,
            key: int,
            refers: tuple[int, int, int],
            commit: bool,
            dies: bool,
        ) -> None:
            """One writes meanwhile, and ends or does not; what is not announced at the end is there."""

            async def meanwhile() -> None:
                for table in ("write_facts", "write_nodes", "write_edges"):
                    await world.writers[by].put(table, key, refers, True)
                if commit:
                    await world.writers[by].end(commit=True)

            self.open.add(by)
            if commit:
                self.open.discard(by)
            assert world.run(world.lingers(batch_rows, meanwhile, dies=dies)) == []

        @rule(batch_rows=batch_rows, after=st.integers(1, 4), inside=st.booleans())
        def cycle_dies(self, batch_rows: int, after: int, inside: bool) -> None:
            die = world.deaths.in_a_commit if inside else world.deaths.between_commits
            world.run(die(batch_rows, after))

        @rule(batch_rows=batch_rows, milliseconds=st.integers(1, 30))
        def cycle_dies_anywhere(self, batch_rows: int, milliseconds: int) -> None:
            world.run(world.deaths.anywhere(batch_rows, milliseconds / 1000))

        def teardown(self) -> None:
            async def settle() -> list[str]:
                for writer in world.writers:
                    await writer.end(commit=True)
                await world.cycle()
                # Two judges: an independent model in Python, and the verification that operators have.
                return [*await differences(world.graph), *await damage(world.graph, vectors=True)]

            assert world.run(settle()) == []

    return Histories


def test_no_history_loses_a_change(world: World) -> None:
    tell(world, histories=6, steps=15)


@pytest.mark.proof
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(1, 7), ids="part {} of 6".format)
def test_three_hundred_histories_lose_no_change(world: World, part: int) -> None:
    tell(world, histories=50, steps=20)


def tell(world: World, *, histories: int, steps: int) -> None:
    """Have so many histories happen, each other than the others; parts may be told by processes of their own."""
    run_state_machine_as_test(
        machine_in(world),
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            # Where the machine is known as a CI server, all parts would be the same histories.
            derandomize=False,
            suppress_health_check=list(HealthCheck),
            # Making a failing history shorter would run it again for many minutes; it is replayed by its seed.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
        ),
    )


@asynccontextmanager
async def writing(graph: TestGraph) -> AsyncIterator[asyncpg.Connection]:
    connection = await graph.connect_write()
    try:
        yield connection
    finally:
        await connection.close()


_examples = count()


_storms = given(
    plans=st.lists(
        st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=3, max_size=8), min_size=3, max_size=4
    ),
    batch_rows=st.sampled_from([7, 50, 1000]),
)
_in_one_graph = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(_in_one_graph, max_examples=3)
@_storms
async def test_writers_that_really_run_at_once_lose_nothing(
    graph: TestGraph, plans: list[list[tuple[int, bool]]], batch_rows: int
) -> None:
    await storm(graph, plans, batch_rows)


@pytest.mark.proof
@pytest.mark.timeout(3000)
@settings(_in_one_graph, max_examples=40)
@_storms
async def test_forty_storms_of_writers_lose_nothing(
    graph: TestGraph, plans: list[list[tuple[int, bool]]], batch_rows: int
) -> None:
    await storm(graph, plans, batch_rows)


async def storm(graph: TestGraph, plans: list[list[tuple[int, bool]]], batch_rows: int) -> None:
    """Write by the plans, all at once and while cycles run; nothing may be missing at the end."""
    example = next(_examples)
    still_writing = True

    async def write(number: int, plan: list[tuple[int, bool]]) -> None:
        async with writing(graph) as connection:
            for step, (rows, commit) in enumerate(plan):
                transaction = connection.transaction()
                await transaction.start()
                for part in range(3):  # so that transactions of different writers overlap
                    await connection.execute(
                        "INSERT INTO write_nodes (id, concept, parent_id, updated_at)"
                        " SELECT $1 || i, 'c', $1 || (i - 1), '2020-01-01' FROM generate_series(1, $2) i",
                        f"{example}:{number}:{step}:{part}:",
                        rows,
                    )
                    await asyncio.sleep(0.01)
                if step:
                    await connection.execute(
                        "DELETE FROM write_nodes WHERE id LIKE $1", f"{example}:{number}:{step - 1}:%2%"
                    )
                await (transaction.commit() if commit else transaction.rollback())

    async def sync() -> None:
        while still_writing:
            await run_cycle(graph.context(batch_rows=batch_rows))

    syncing = asyncio.create_task(sync())
    await asyncio.gather(*(write(number, plan) for number, plan in enumerate(plans)))
    still_writing = False
    await syncing
    result = await run_cycle(graph.context(batch_rows=batch_rows))
    assert result.status is CycleStatus.DRAINED
    assert await differences(graph) == []
