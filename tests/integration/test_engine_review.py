"""The engine's corners: other table maps, unusual keys, cycles that stop in awkward places."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from uuid import uuid4

import asyncpg
import pytest

from syncline.engine import cycle as cycle_module
from syncline.engine import run_cycle
from syncline.engine.cycle import SyncEngine
from syncline.engine.keys import key_uuid
from syncline.engine.tablemap import Reference, SchemaMap, TableMap
from syncline.messages import CycleProgress, CycleStatus, SyncEvent, SyncResult
from syncline.testing.graphs import TestGraph
from syncline.testing.truth import differences


class KilledError(Exception):
    """What stops a cycle between two commits."""


async def write(graph: TestGraph, sql: str, *arguments: object) -> None:
    connection = await graph.connect_write()
    try:
        await connection.execute(sql, *arguments)
    finally:
        await connection.close()


async def on_target(graph: TestGraph, sql: str) -> None:
    connection = await graph.connect_target()
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def read(graph: TestGraph, sql: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await graph.connect_target()
    try:
        return list(await connection.fetch(sql, *arguments))
    finally:
        await connection.close()


async def create(graph: TestGraph, source: str, columns: str, target: str) -> None:
    """Create a captured source table with key column `id` and its target tables."""
    await write(
        graph,
        f"CREATE TABLE {source} ({columns}, sync_xid xid8 NOT NULL DEFAULT pg_current_xact_id());"
        f"CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON {source}"
        " FOR EACH ROW EXECUTE FUNCTION syncline.capture_version();",
    )
    await on_target(graph, target)


async def cycle(graph: TestGraph, *tables: TableMap, batch_rows: int = 50_000) -> SyncResult:
    engine = SyncEngine(SchemaMap(name="other", tables=tables))
    result = await engine.run_cycle(graph.context(batch_rows=batch_rows))
    assert [table.error for table in result.tables if table.error] == []
    return result


@asynccontextmanager
async def events_of(graph: TestGraph) -> AsyncIterator[list[SyncEvent]]:
    """Yield the list that every event told until the block ends is in, once it has ended."""
    connection = await graph.connect_target()
    events: list[SyncEvent] = []

    def received(*arguments: object) -> None:
        events.append(SyncEvent.model_validate_json(str(arguments[-1])))

    await connection.add_listener("syncline", received)
    yield events
    await connection.execute("SELECT 1")
    await connection.close()


async def test_what_an_arriving_parent_completes_is_told_of_the_table_it_belongs_to(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('n', 'N', '{f}');"
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids)"
        " VALUES ('e', 'n', 'n', 'x', '{f}')",
    )
    await run_cycle(graph.context())
    await write(graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f', 'F', 'ready')")
    async with events_of(graph) as events:
        result = await run_cycle(graph.context())
    assert {table.table: table.links for table in result.tables if table.links} == {"nodes": 1, "edges": 1}
    assert [event.links for event in events] == [{"nodes": 1, "edges": 1}]
    assert events[0].rows["facts"] == 1


async def test_a_reference_completed_by_another_table_is_a_changed_row_of_its_own_table(
    graph: TestGraph,
) -> None:
    await create(
        graph,
        "write_a",
        "id text PRIMARY KEY",
        "CREATE TABLE a (id uuid PRIMARY KEY, key text, sync_version bigint)",
    )
    await create(
        graph,
        "write_b",
        "id text PRIMARY KEY, a_id text",
        "CREATE TABLE b (id uuid PRIMARY KEY, key text, a_id uuid REFERENCES a, sync_version bigint)",
    )
    a = TableMap(name="a", source="write_a")
    b = TableMap(
        name="b", source="write_b", references=(Reference(column="a_id", parent="a", required=False),)
    )
    await write(graph, "INSERT INTO write_b (id, a_id) VALUES ('b', 'a')")
    assert (await cycle(graph, a, b)).parked == 1
    await write(graph, "INSERT INTO write_a (id) VALUES ('a')")
    async with events_of(graph) as events:
        result = await cycle(graph, a, b)
    assert {table.table: table.rows for table in result.tables} == {"a": 1, "b": 1}
    assert [event.rows for event in events] == [{"a": 1, "b": 1}]
    assert [row["a_id"] for row in await read(graph, "SELECT a_id FROM b")] == [key_uuid("a")]


async def test_rows_that_a_later_attempt_finds_after_the_event_are_told_too(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'A')")
    run_id = str(uuid4())

    def die_at_vectors(progress: CycleProgress) -> None:
        if progress.phase == "vectors":
            raise KilledError

    async with events_of(graph) as events:
        with pytest.raises(KilledError):
            await run_cycle(replace(graph.context(run_id=run_id), heartbeat=die_at_vectors))
        await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('b', 'B'), ('c', 'C')")
        result = await run_cycle(graph.context(run_id=run_id, attempt=2))
    assert [event.rows for event in events] == [{"nodes": 1}, {"nodes": 2}]
    assert result.rows == 3  # the whole run's
    assert await differences(graph) == []


async def test_a_cycle_without_time_for_its_vectors_is_not_drained(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'A')")
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(cycle_module, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def late(_: CycleProgress) -> None:
        clock.now = 1000.0

    result = await run_cycle(replace(graph.context(seconds=10), heartbeat=late))
    assert (result.rows, result.status, result.vectors.pending) == (1, CycleStatus.BUDGET_SPENT, 1)


async def test_a_rescan_that_is_cut_short_goes_on_in_the_next_cycle(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f', 'F', 'ready');"
        "INSERT INTO write_nodes (id, concept) VALUES ('n', 'N')",
    )
    await run_cycle(graph.context())
    # As if this write-db had replaced another, whose cursors happen to be plausible here.
    await on_target(graph, "UPDATE sync_state SET write_system_id = 1; DELETE FROM facts; DELETE FROM nodes")

    def die(_: CycleProgress) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        await run_cycle(replace(graph.context(), heartbeat=die))
    await run_cycle(graph.context())
    assert await differences(graph) == []


def table(name: str = "t", **arguments: object) -> TableMap:
    return TableMap(name=name, source=f"write_{name}", **arguments)  # type: ignore[arg-type]


_PAIR = table(
    "p",
    key=("a", "b"),
    references=(
        Reference(column="a", parent="n", required=True),
        Reference(column="b", parent="n", required=True),
    ),
)


KEYS = [
    "", " ", "'", '"', "\\", "\\x41", "$1", "$2", "{", "}", "{a,b}", ",", "NULL", "null", "@{key}", "%s",
    "a\nb", "\t", "é", "e\u0301", "日本", "🙂", "\u200b", "\x01", "A", "a", "a ", "x" * 20_000,
]  # fmt: skip
