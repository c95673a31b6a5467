"""Generated histories: several writers with open transactions, cycles at any moment, some of them killed."""

import asyncio
from dataclasses import dataclass, replace
from itertools import count

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncline.engine import run_cycle
from syncline.messages import CycleProgress, CycleStatus
from syncline.testing.graphs import TestGraph
from syncline.testing.truth import differences

WRITERS = 3
KEYS = 3
_examples = count()


@dataclass(frozen=True)
class Put:
    """Writer `by` inserts or updates its own row `key` of a table; `refers` picks the rows it names."""

    by: int
    table: str
    key: int
    refers: tuple[int, int, int]
    ready: bool


@dataclass(frozen=True)
class End:
    """Writer `by` ends its transaction."""

    by: int
    commit: bool


@dataclass(frozen=True)
class Cycle:
    """A cycle runs, and dies after some commits if `dies_after` says so."""

    batch_rows: int
    dies_after: int | None


_writer = st.integers(0, WRITERS - 1)
_tables = st.sampled_from(["nodes", "nodes", "nodes", "edges", "facts", "fact_sources", "raw_sources"])
_refers = st.tuples(*[st.integers(0, WRITERS * KEYS - 1)] * 3)
STEPS = st.lists(
    st.one_of(
        st.builds(
            Put, by=_writer, table=_tables, key=st.integers(0, KEYS - 1), refers=_refers, ready=st.booleans()
        ),
        st.builds(End, by=_writer, commit=st.booleans()),
        st.builds(
            Cycle, batch_rows=st.sampled_from([1, 2, 3, 1000]), dies_after=st.none() | st.integers(1, 4)
        ),
    ),
    min_size=10,
    max_size=60,
)


class KilledError(Exception):
    """What stops a cycle between two commits."""


class Writer:
    """One connection that opens a transaction at its first write and keeps it until told to end it."""

    def __init__(self, connection: asyncpg.Connection, number: int, example: int) -> None:
        self._connection = connection
        self._number = number
        self._example = example
        self._transaction: asyncpg.transaction.Transaction | None = None

    def _name(self, kind: str, number: int) -> str:
        return f"{self._example}:{kind}:{number}"

    async def put(self, step: Put) -> None:
        if self._transaction is None:
            self._transaction = self._connection.transaction()
            await self._transaction.start()
        own = self._number * KEYS + step.key
        one, two, three = step.refers
        name = self._name
        facts = [name("fact", one), name("fact", two), name("fact", one)]
        match step.table:
            case "raw_sources":
                await self._upsert(step, id=name("source", own), title=f"title {one}")
            case "facts":
                status = "ready" if step.ready else "pending"
                await self._upsert(step, id=name("fact", own), content=f"fact {one}", dedup_status=status)
            case "fact_sources":
                await self._connection.execute(
                    "INSERT INTO write_fact_sources (fact_id, raw_source_id, attribution) VALUES ($1, $2, $3)"
                    " ON CONFLICT (fact_id, raw_source_id) DO UPDATE SET attribution = excluded.attribution",
                    name("fact", own),
                    name("source", one),
                    f"by {two}",
                )
            case "nodes":
                parent = name("node", two) if step.ready else None
                await self._upsert(
                    step,
                    id=name("node", own),
                    concept=f"concept {three}",
                    parent_id=parent,
                    source_concept_id=name("node", one),
                    fact_ids=facts if step.ready else facts[:1],
                    visibility="private" if step.ready else "public",
                )
            case "edges":
                await self._upsert(
                    step,
                    id=name("edge", own),
                    source_node_id=name("node", one),
                    target_node_id=name("node", two),
                    relationship_type=f"type {three}",
                    directed=step.ready,
                    fact_ids=facts,
                )

    async def _upsert(self, step: Put, **values: object) -> None:
        columns = list(values)
        # A fact that was ready stays ready: taking it back is a delete.
        changes = [
            f"{column} = CASE WHEN t.{column} = 'ready' THEN 'ready' ELSE excluded.{column} END"
            if column == "dedup_status"
            else f"{column} = excluded.{column}"
            for column in columns[1:]
        ]
        await self._connection.execute(
            f"INSERT INTO write_{step.table} AS t ({', '.join(columns)})"
            f" VALUES ({', '.join(f'${index + 1}' for index in range(len(columns)))})"
            f" ON CONFLICT (id) DO UPDATE SET {', '.join(changes)}",
            *values.values(),
        )

    async def end(self, *, commit: bool) -> None:
        if self._transaction is not None:
            await (self._transaction.commit() if commit else self._transaction.rollback())
            self._transaction = None


async def run(graph: TestGraph, step: Cycle) -> None:
    beats = count(1)

    def beat(_: CycleProgress) -> None:
        if next(beats) == step.dies_after:
            raise KilledError

    try:
        result = await run_cycle(replace(graph.context(batch_rows=step.batch_rows), heartbeat=beat))
    except KilledError:
        await graph.wait_until_free()
        return
    assert result.status is CycleStatus.DRAINED, result


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_no_history_loses_a_change(graph: TestGraph, steps: list[Put | End | Cycle]) -> None:
    example = next(_examples)
    connections = [await graph.connect_write() for _ in range(WRITERS)]
    writers = [Writer(connection, number, example) for number, connection in enumerate(connections)]
    try:
        for step in steps:
            match step:
                case Put():
                    await writers[step.by].put(step)
                case End():
                    await writers[step.by].end(commit=step.commit)
                case Cycle():
                    await run(graph, step)
        for writer in writers:
            await writer.end(commit=True)
        await run(graph, Cycle(batch_rows=1000, dies_after=None))
        assert await differences(graph) == []
    finally:
        for connection in connections:
            await connection.close()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plans=st.lists(
        st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=3, max_size=8), min_size=3, max_size=4
    ),
    batch_rows=st.sampled_from([7, 50, 1000]),
)
async def test_writers_that_really_run_at_once_lose_nothing(
    graph: TestGraph, plans: list[list[tuple[int, bool]]], batch_rows: int
) -> None:
    example = next(_examples)
    writing = True

    async def write(number: int, plan: list[tuple[int, bool]]) -> None:
        connection = await graph.connect_write()
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
            await (transaction.commit() if commit else transaction.rollback())
        await connection.close()

    async def sync() -> None:
        while writing:
            await run_cycle(graph.context(batch_rows=batch_rows))

    syncing = asyncio.create_task(sync())
    await asyncio.gather(*(write(number, plan) for number, plan in enumerate(plans)))
    writing = False
    await syncing
    await run(graph, Cycle(batch_rows=batch_rows, dies_after=None))
    assert await differences(graph) == []
