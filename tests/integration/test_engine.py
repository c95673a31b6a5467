"""The engine's invariants on real stores: nothing lost, nothing twice, nothing blocked."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from syncline.capture.install.install import adopt
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, run_cycle
from syncline.engine.keys import key_uuid
from syncline.errors import CycleFenced, SchemaMismatch, StoreUnavailable
from syncline.messages.sync import CycleProgress, CycleStatus, SyncEvent, SyncResult
from syncline.provider import GraphSchema, RetryRules
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.truth import differences
from tests.kit.cases import further
from tests.kit.cycle_clock import CycleClock

SEED = """
INSERT INTO write_raw_sources (id, uri, title)
    VALUES ('r1', 'https://example.org', 'One'), ('r2', NULL, 'Two');
INSERT INTO write_facts (id, content, dedup_status)
    VALUES ('f1', 'one', 'ready'), ('f2', 'two', 'ready'), ('f3', 'three', 'pending');
INSERT INTO write_fact_sources (fact_id, raw_source_id, attribution)
    VALUES ('f1', 'r1', 'a'), ('f2', 'r2', 'b');
INSERT INTO write_nodes (id, concept, definition, parent_id, fact_ids, visibility, creator_id, metadata)
    VALUES ('n1', 'Child', 'a child', 'n2', '{f1,f2,f1}', 'private', 'u1', '{"a": [1, null]}'),
           ('n2', 'Parent', NULL, NULL, '{f2}', 'public', NULL, NULL);
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed, fact_ids)
    VALUES ('e1', 'n1', 'n2', 'child_of', true, '{f1}'), ('e2', 'n2', 'n1', 'sibling', false, '{}'),
           ('e3', 'n1', 'n2', 'sibling', false, '{}');
"""


@asynccontextmanager
async def writer(graph: TestGraph) -> AsyncIterator[asyncpg.Connection]:
    connection = await graph.connect_write()
    try:
        yield connection
    finally:
        await connection.close()


async def write_nodes(graph: TestGraph, number: int) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, $1) i",
        number,
    )


async def footprint(graph: TestGraph) -> list[asyncpg.Record]:
    """Row versions of everything in the graph's schema: any write at all changes it."""
    tables = await read(graph, "SELECT tablename FROM pg_tables WHERE schemaname = 'kg' ORDER BY 1")
    return [
        row
        for table in tables
        for row in await read(graph, f"SELECT ctid::text, xmin::text FROM {table['tablename']} ORDER BY 1")
    ]


async def test_every_row_link_and_vector_arrives(graph: TestGraph) -> None:
    await write(graph, SEED)
    result = await run_cycle(graph.context())
    assert result.status is CycleStatus.DRAINED
    assert {table.table: table.rows for table in result.tables if table.rows} == {
        "raw_sources": 2,
        "facts": 2,
        "fact_sources": 2,
        "nodes": 2,
        "edges": 3,
    }
    assert (result.links, result.parked, result.failures) == (4, 0, 0)
    assert result.vectors.upserted == result.vectors.embedded == 4
    assert await differences(graph) == []


async def test_a_second_cycle_writes_nothing(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    before = await footprint(graph)
    result = await run_cycle(graph.context())
    assert (result.status, result.rows, result.links, result.batches) == (CycleStatus.DRAINED, 0, 0, 0)
    assert await footprint(graph) == before


async def test_an_idle_cycle_asks_the_write_db_one_query(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    asked: list[str] = []
    async with graph.write.driver() as connection:
        connection.add_query_logger(lambda record: asked.append(record.query))
    await run_cycle(graph.context())
    # In a transaction of its own, whose settings are one message.
    begin, _, commit = asked
    assert begin.startswith("BEGIN")
    assert commit == "COMMIT"


@pytest.mark.long("test_a_cycle_that_runs_out_of_time_says_so_and_the_next_goes_on")
async def test_a_thousand_changed_rows_travel_in_one_cycle(graph: TestGraph) -> None:
    await write(
        graph, "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 5000) i"
    )
    await run_cycle(graph.context())
    await write(graph, "UPDATE write_nodes SET concept = 'changed ' || id WHERE id LIKE 'n1___'")
    result = await run_cycle(graph.context())
    assert (result.rows, result.vectors.embedded, result.batches) == (1000, 1000, 1)
    assert await differences(graph) == []


async def test_rows_of_one_transaction_and_timestamp_survive_small_batches(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept, updated_at)"
        " SELECT 'n' || i, 'c', '2020-01-01' FROM generate_series(1, 5000) i",
    )
    result = await run_cycle(graph.context(batch_rows=500))
    assert (result.rows, result.status) == (5000, CycleStatus.DRAINED)
    assert await differences(graph) == []


async def test_a_transaction_that_commits_late_is_not_missed(graph: TestGraph) -> None:
    async with writer(graph) as late, writer(graph) as early:
        async with late.transaction():
            await late.execute("INSERT INTO write_nodes (id, concept) VALUES ('late', 'began first')")
            await early.execute("INSERT INTO write_nodes (id, concept) VALUES ('early', 'committed first')")
            result = await run_cycle(graph.context())
            assert result.rows == 0  # held back behind the open transaction, and it says so
            assert result.oldest_writer is not None
            assert result.oldest_writer.age_seconds is not None
            assert result.lag_seconds >= result.oldest_writer.age_seconds
        result = await run_cycle(graph.context())
        assert result.rows == 2
    assert await differences(graph) == []


async def test_capture_ends_at_the_horizon_of_an_open_transaction(graph: TestGraph) -> None:
    """A row below the horizon is read, and the rows of younger transactions stay for the cycle after it."""
    async with writer(graph) as late, writer(graph) as early:
        await early.execute("INSERT INTO write_nodes (id, concept) VALUES ('first', 'below the horizon')")
        async with late.transaction():
            await late.execute("INSERT INTO write_nodes (id, concept) VALUES ('late', 'began next')")
            await early.execute("INSERT INTO write_nodes (id, concept) VALUES ('early', 'committed next')")
            assert (await run_cycle(graph.context())).rows == 1
        assert (await run_cycle(graph.context())).rows == 2
    assert await differences(graph) == []


async def test_the_oldest_writer_is_named(graph: TestGraph) -> None:
    connection = await asyncpg.connect(graph.write_dsn, server_settings={"application_name": "slow-import"})
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO kg.write_nodes (id, concept) VALUES ('x', 'x')")
            result = await run_cycle(graph.context())
    finally:
        await connection.close()
    assert result.oldest_writer is not None
    assert result.oldest_writer.application_name == "slow-import"
    assert result.oldest_writer.database == graph.write_dsn.split("/")[3].split("?")[0]


async def test_a_writer_that_the_worker_may_not_look_at_is_told_all_the_same(graph: TestGraph) -> None:
    admin = await graph.connect_write()
    await admin.execute(
        "DROP ROLE IF EXISTS bystander; CREATE ROLE bystander LOGIN;"
        "GRANT USAGE ON SCHEMA kg TO bystander; GRANT SELECT ON ALL TABLES IN SCHEMA kg TO bystander"
    )
    dsn = SecretStr(graph.write_dsn.replace("postgres@", "bystander@"))
    store = PostgresStore("write", dsn, pool_size=2, application_name="bystander")
    try:
        async with admin.transaction():
            await admin.execute("INSERT INTO write_nodes (id, concept) VALUES ('x', 'x')")
            result = await run_cycle(replace(graph.context(), write=GraphSchema(store=store, schema="kg")))
    finally:
        await store.close()
        await admin.execute("DROP OWNED BY bystander; DROP ROLE bystander")
        await admin.close()
    assert result.oldest_writer is not None
    assert result.oldest_writer.age_seconds is None


async def test_lag_counts_from_when_the_graph_fell_behind(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    connection = await graph.connect_target()
    await connection.execute("ALTER TABLE facts RENAME COLUMN content TO contents")
    await write(graph, "UPDATE write_facts SET content = 'new' WHERE id = 'f1'")
    first = await run_cycle(graph.context())
    await connection.execute("UPDATE sync_state SET behind_since = behind_since - interval '1 hour'")
    second = await run_cycle(graph.context())
    assert first.lag_seconds < 60
    assert second.lag_seconds > 3600
    await connection.execute("ALTER TABLE facts RENAME COLUMN contents TO content")
    assert (await run_cycle(graph.context())).lag_seconds == 0
    assert (await connection.fetchval("SELECT behind_since FROM sync_state")) is None
    await connection.close()


async def test_changed_links_and_cleared_references_travel(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    await write(graph, "UPDATE write_nodes SET fact_ids = '{f2}', parent_id = NULL WHERE id = 'n1'")
    result = await run_cycle(graph.context())
    assert (result.rows, result.links) == (1, 1)
    assert await differences(graph) == []


async def test_provenance_of_a_fact_that_is_already_there_arrives(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    await write(graph, "INSERT INTO write_fact_sources (fact_id, raw_source_id) VALUES ('f1', 'r2')")
    result = await run_cycle(graph.context())
    assert result.rows == 1
    assert await differences(graph) == []


@pytest.mark.parametrize("batch_rows", [1, *further(2, 50_000)])
async def test_children_wait_for_their_parents_and_block_nobody(graph: TestGraph, batch_rows: int) -> None:
    await write(
        graph,
        """
        INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids)
            VALUES ('e1', 'a', 'b', 'knows', '{f1}'), ('e2', 'a', 'c', 'knows', '{}');
        INSERT INTO write_fact_sources (fact_id, raw_source_id) VALUES ('f1', 'r1');
        INSERT INTO write_nodes (id, concept, parent_id, source_concept_id, fact_ids)
            VALUES ('a', 'A', 'b', 'zz', '{f1}');
        """,
    )
    result = await run_cycle(graph.context(batch_rows=batch_rows))
    assert (result.rows, result.failures, result.status) == (1, 0, CycleStatus.DRAINED)
    assert result.parked == 6  # two edges, one provenance, one link, two references
    waiting = await read(graph, "SELECT waits_for_key FROM sync_parked_row ORDER BY 1")
    assert [row["waits_for_key"] for row in waiting] == ["b", "c", "f1"]
    assert await differences(graph) == []

    await write(
        graph,
        """
        INSERT INTO write_nodes (id, concept, parent_id) VALUES ('b', 'B', 'a'), ('c', 'C', 'b');
        INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'F', 'ready');
        """,
    )
    result = await run_cycle(graph.context(batch_rows=batch_rows))
    assert result.parked == 2  # the provenance waits for its source now, one reference for 'zz'
    assert await differences(graph) == []
    await write(graph, "INSERT INTO write_raw_sources (id) VALUES ('r1')")
    result = await run_cycle(graph.context(batch_rows=batch_rows))
    assert result.parked == 1
    assert await differences(graph) == []


async def test_a_newer_version_replaces_the_parked_one(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)"
        " VALUES ('e', 'a', 'a', 'old')",
    )
    await run_cycle(graph.context())
    await write(graph, "UPDATE write_edges SET relationship_type = 'new'")
    assert (await run_cycle(graph.context())).parked == 1
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'A')")
    assert (await run_cycle(graph.context())).parked == 0
    assert await differences(graph) == []


async def test_nodes_that_refer_to_each_other_arrive_in_any_order(graph: TestGraph) -> None:
    await write(
        graph, "INSERT INTO write_nodes (id, concept, parent_id) VALUES ('a', 'A', 'b'), ('b', 'B', 'a')"
    )
    result = await run_cycle(graph.context(batch_rows=1))
    assert (result.parked, result.failures) == (0, 0)
    assert await differences(graph) == []


async def test_a_fact_that_is_not_ready_holds_back_only_itself(graph: TestGraph) -> None:
    await write(
        graph,
        """
        INSERT INTO write_facts (id, content) VALUES ('f', 'pending');
        INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('n', 'N', '{f}');
        """,
    )
    result = await run_cycle(graph.context())
    assert (result.rows, result.parked, result.status) == (1, 1, CycleStatus.DRAINED)
    await write(graph, "UPDATE write_facts SET dedup_status = 'ready'")
    result = await run_cycle(graph.context())
    assert (result.rows, result.links, result.parked) == (1, 1, 0)
    assert await differences(graph) == []


class KilledError(Exception):
    """What stops a cycle between two commits."""


async def test_a_cycle_that_dies_leaves_whole_batches_and_the_next_attempt_finishes(graph: TestGraph) -> None:
    await write(
        graph, "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 1000) i"
    )
    run_id = str(uuid4())
    context = graph.context(run_id=run_id, batch_rows=100)

    def die_after_three(progress: CycleProgress) -> None:
        if progress.tables[0].rows == 300:
            raise KilledError

    with pytest.raises(KilledError):
        await run_cycle(replace(context, heartbeat=die_after_three))
    await graph.wait_until_free()
    assert len(await read(graph, "SELECT FROM nodes")) == 300
    result = await run_cycle(graph.context(run_id=run_id, attempt=2, batch_rows=100))
    assert (result.rows, result.batches) == (1000, 11)  # the whole run's, not the attempt's
    assert await differences(graph) == []


async def listen(graph: TestGraph) -> tuple[asyncpg.Connection, list[SyncEvent]]:
    connection = await graph.connect_target()
    events: list[SyncEvent] = []

    def received(*arguments: object) -> None:
        events.append(SyncEvent.model_validate_json(str(arguments[-1])))

    await connection.add_listener("syncline", received)
    return connection, events


async def test_one_event_tells_what_a_run_changed_and_idle_runs_tell_nothing(graph: TestGraph) -> None:
    connection, events = await listen(graph)
    await write(graph, SEED)
    context = graph.context()
    await run_cycle(context)
    await run_cycle(graph.context())
    await connection.execute("SELECT 1")
    await connection.close()
    assert len(events) == 1
    assert events[0].run_id == context.run.run_id
    assert events[0].rows == {"raw_sources": 2, "facts": 2, "fact_sources": 2, "nodes": 2, "edges": 3}
    assert events[0].links == {"nodes": 3, "edges": 1}


async def test_changes_of_a_run_that_died_are_told_by_the_next(graph: TestGraph) -> None:
    connection, events = await listen(graph)
    await write(
        graph, "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 20) i"
    )

    def die(_: CycleProgress) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        await run_cycle(replace(graph.context(batch_rows=15), heartbeat=die))
    await graph.wait_until_free()
    result = await run_cycle(graph.context(batch_rows=15))
    assert result.rows == 5  # its own
    await connection.execute("SELECT 1")
    await connection.close()
    assert [event.rows for event in events] == [{"nodes": 20}]  # every change once


async def test_two_cycles_of_one_graph_never_overlap(graph: TestGraph) -> None:
    await write(graph, SEED)
    results = []

    async def run_another() -> None:
        results.append(await run_cycle(graph.context()))

    started: list[asyncio.Task[None]] = []

    def start_another(_: CycleProgress) -> None:
        if not started:
            started.append(asyncio.create_task(run_another()))

    holder = await graph.target._connect()
    await holder.execute("SET search_path = kg")
    await holder.execute("SELECT pg_advisory_lock(hashtextextended('syncline:' || current_schema(), 0))")
    loser = await run_cycle(graph.context())
    assert (loser.status, loser.rows) == (CycleStatus.ALREADY_RUNNING, 0)
    await holder.close()
    winner = await run_cycle(replace(graph.context(), heartbeat=start_another))
    await asyncio.gather(*started)
    assert winner.status is CycleStatus.DRAINED
    assert {result.status for result in results} <= {CycleStatus.ALREADY_RUNNING, CycleStatus.DRAINED}
    assert await differences(graph) == []


async def test_a_new_attempt_takes_the_graph_from_the_earlier_one_of_its_run(graph: TestGraph) -> None:
    await write(graph, SEED)
    run_id = str(uuid4())
    inside: list[asyncio.Task[SyncResult]] = []

    def try_again(_: CycleProgress) -> None:
        if not inside:
            inside.append(asyncio.create_task(run_cycle(graph.context(run_id=run_id, attempt=2))))

    first = run_cycle(replace(graph.context(run_id=run_id, batch_rows=1), heartbeat=try_again))
    with pytest.raises((StoreUnavailable, CycleFenced)):
        await first
    assert (await inside[0]).status is CycleStatus.DRAINED
    assert await differences(graph) == []


async def test_a_cycle_that_was_overtaken_cannot_commit(graph: TestGraph) -> None:
    await write(
        graph, "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 10) i"
    )
    overtaker = await graph.connect_target()
    overtaken: list[asyncio.Task[str]] = []

    def overtake(_: CycleProgress) -> None:
        if not overtaken:
            overtaken.append(
                asyncio.create_task(overtaker.execute("UPDATE sync_state SET fence = fence + 1"))
            )

    cycle = asyncio.create_task(run_cycle(replace(graph.context(batch_rows=1), heartbeat=overtake)))
    with pytest.raises(CycleFenced):
        await cycle
    await overtaken[0]
    await overtaker.close()
    committed = len(await read(graph, "SELECT FROM nodes"))
    assert 0 < committed < 10
    cursor = await read(graph, "SELECT key FROM sync_cursor WHERE table_name = 'nodes'")
    assert len(cursor) == 1
    await run_cycle(graph.context())
    assert await differences(graph) == []


async def test_a_cycle_that_runs_out_of_time_says_so_and_the_next_goes_on(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_cycle(graph.context())  # by which the tables were seen to be as declared
    await write(
        graph, "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 500) i"
    )
    clock = CycleClock(monkeypatch)

    def late(progress: CycleProgress) -> None:
        if progress.committed.rows >= 40:
            clock.spend()

    first = await run_cycle(replace(graph.context(batch_rows=4), heartbeat=late))
    assert first.status is CycleStatus.BUDGET_SPENT
    assert 40 <= first.rows < 500
    second = await run_cycle(graph.context())
    assert second.status is CycleStatus.DRAINED
    assert first.rows + second.rows == 500
    assert await differences(graph) == []


async def test_a_table_that_fails_is_a_failed_cycle_and_the_others_go_on(graph: TestGraph) -> None:
    connection = await graph.connect_target()
    await run_cycle(graph.context())  # by which the tables were seen to be as declared
    await connection.execute("ALTER TABLE facts RENAME COLUMN content TO contents")
    await write(graph, SEED)
    result = await run_cycle(graph.context())
    facts = next(table for table in result.tables if table.table == "facts")
    assert (result.status, result.failures, facts.failures, facts.rows) == (CycleStatus.FAILED, 1, 1, 0)
    assert facts.error is not None
    assert "42703" in facts.error
    assert "'graph'" in facts.error  # the store that refused
    assert next(table.rows for table in result.tables if table.table == "nodes") == 2
    # From now on the table is looked at before anything is tried, and all that is wrong with it is told.
    again = next(table for table in (await run_cycle(graph.context())).tables if table.table == "facts")
    assert again.error is not None
    assert "kg.facts.content is missing" in again.error
    await connection.execute("ALTER TABLE facts RENAME COLUMN contents TO content")
    await connection.close()
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert await differences(graph) == []


async def test_a_source_table_that_is_not_as_declared_fails_alone_and_is_named(graph: TestGraph) -> None:
    await write(graph, SEED)
    await write(graph, "ALTER TABLE write_edges RENAME COLUMN weight TO heft")
    engine = SyncEngine(KNOWLEDGE_GRAPH)
    result = await engine.run_cycle(graph.context())
    edges = next(table for table in result.tables if table.table == "edges")
    assert edges.error is not None
    assert "kg.write_edges.weight is missing" in edges.error
    await write(graph, "ALTER TABLE write_edges RENAME COLUMN heft TO weight")
    assert (await engine.run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert await differences(graph) == []


async def test_an_absent_vector_store_delays_vectors_and_nothing_else(graph: TestGraph) -> None:
    await write(graph, SEED)
    away = QdrantServerStore("away", "http://127.0.0.1:9", None, 2)
    context = replace(graph.context(), retry=RetryRules(vector_seconds=0))
    result = await run_cycle(replace(context, vectors=replace(context.vectors, store=away)))
    await away.close()
    assert result.status is CycleStatus.VECTORS_DELAYED
    assert (result.rows, result.vectors.pending) == (11, 4)
    assert result.vectors.error is not None
    result = await run_cycle(graph.context())
    assert (result.status, result.vectors.upserted) == (CycleStatus.DRAINED, 4)
    assert await differences(graph) == []


async def test_text_that_did_not_change_is_not_embedded_again(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    await write(graph, "UPDATE write_nodes SET visibility = 'private' WHERE id = 'n2'")
    result = await run_cycle(graph.context())
    assert (result.vectors.upserted, result.vectors.embedded) == (1, 0)
    assert await differences(graph) == []
    await write(graph, "UPDATE write_nodes SET definition = 'another' WHERE id = 'n2'")
    assert (await run_cycle(graph.context())).vectors.embedded == 1


async def test_a_cursor_of_another_cluster_means_a_full_rescan(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    connection = await graph.connect_target()
    await connection.execute("UPDATE sync_state SET write_cluster = '1/1'")
    await write(graph, "UPDATE write_nodes SET concept = 'X' WHERE id = 'n1'")
    result = await run_cycle(graph.context())
    assert result.rescanned
    assert result.rows == 1  # the rest was read again and found equal
    await connection.execute("UPDATE sync_cursor SET xid = xid + 1000000")  # as after a restored backup
    await connection.close()
    await write(graph, "UPDATE write_nodes SET concept = 'Y' WHERE id = 'n1'")
    result = await run_cycle(graph.context())
    assert (result.rescanned, result.rows) == (True, 1)
    assert not (await run_cycle(graph.context())).rescanned
    assert await differences(graph) == []


async def test_a_write_db_without_its_deleted_keys_is_one_sentence_with_the_fix(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    await write(graph, "DROP TABLE sync_tombstone")
    with pytest.raises(SchemaMismatch, match=r"'kg' has no table sync_tombstone, .* `syncline graph adopt`"):
        await run_cycle(graph.context())


@pytest.mark.long("test_a_cycle_that_runs_out_of_time_says_so_and_the_next_goes_on")
async def test_memory_is_bounded_by_what_is_in_flight_and_not_by_the_backlog(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_raw_sources (id, content)"
        " SELECT 'r' || i, repeat(md5(i::text), 32 * 1024) FROM generate_series(1, 150) i",
    )
    tracemalloc.start()
    try:
        result = await run_cycle(graph.context())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.rows == 150
    assert peak < 30 * 1024**2, f"{peak:,} bytes for a batch of 150 MiB"


async def test_ids_are_equal_in_python_and_in_sql(graph: TestGraph) -> None:
    keys = ["", "a", "country:FR", "back\\slash", "\\x41", "é 日本 🙂", "a'b\n\t", "x" * 10_000]
    rows = await read(graph, "SELECT k, syncline.key_uuid(k) AS id FROM unnest($1::text[]) k", keys)
    assert [row["id"] for row in rows] == [key_uuid(key) for key in keys]
    assert {row["id"].version for row in rows} == {8}


async def test_json_survives_parking(graph: TestGraph) -> None:
    metadata = {"a": [1, 2.5, None, {"b": "é"}], "c": True}
    await write(
        graph,
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, weight, metadata)"
        " VALUES ('e', 'a', 'a', 'x', 0.1, $1)",
        json.dumps(metadata),
    )
    await run_cycle(graph.context())
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'A')")
    await run_cycle(graph.context())
    rows = await read(graph, "SELECT metadata, weight FROM edges")
    assert (json.loads(rows[0]["metadata"]), rows[0]["weight"]) == (metadata, 0.1)
    assert await differences(graph) == []


PARTITIONED = """
ALTER TABLE write_raw_sources RENAME TO before;
CREATE TABLE write_raw_sources (LIKE before INCLUDING DEFAULTS, PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE sources_0 PARTITION OF write_raw_sources FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE sources_1 PARTITION OF write_raw_sources FOR VALUES WITH (MODULUS 2, REMAINDER 1);
DROP TABLE before;
"""


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SELECT", "ANALYZE write_raw_sources"),
        ("SELECT", "SELECT"),
        (PARTITIONED, "ANALYZE sources_0"),
        (PARTITIONED, "SELECT"),
        *further((PARTITIONED, "ANALYZE write_raw_sources")),
    ],
    ids=["counted", "never counted", "counted in part", "partitioned, never counted", "partitioned"],
)
async def test_rows_with_long_texts_travel_in_smaller_batches(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    monkeypatch.setattr("syncline.engine.drain._BATCH_BYTES", 2**20)
    await write(graph, before)
    await adopt(graph.write, "kg", KNOWLEDGE_GRAPH)
    await write(
        graph,
        # 64 KiB that do not compress to less than half.
        "INSERT INTO write_raw_sources (id, content) SELECT 'source' || i,"
        " (SELECT string_agg(md5(i || '-' || n), '') FROM generate_series(1, 2048) n) FROM generate_series(1, 60) i",
    )
    await write(graph, after)
    result = await run_cycle(graph.context())
    assert result.rows == 60
    assert 2 <= result.batches <= 5


DIES_IN_ITS_SECOND_COMMIT = """
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM nodes) > 3 THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER die AFTER INSERT OR UPDATE ON sync_cursor DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION die();
"""


async def test_a_crash_inside_a_commit_leaves_the_batches_before_it_whole(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f', 'f', 'ready')")
    await run_cycle(graph.context())
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept, fact_ids)"
        " SELECT 'n' || i, 'c', ARRAY['f'] FROM generate_series(0, 9) i",
    )
    await on_target(graph, DIES_IN_ITS_SECOND_COMMIT)
    with pytest.raises(StoreUnavailable):
        await run_cycle(graph.context(batch_rows=3))
    await graph.wait_until_free()
    left = "SELECT (SELECT count(*) FROM {0}) AS n"
    tables = {"nodes": 3, "node_facts": 3, "node_stats": 3, "sync_outbox": 3}
    assert {table: (await read(graph, left.format(table)))[0]["n"] for table in tables} == tables
    [cursor] = await read(graph, "SELECT key FROM sync_cursor WHERE table_name = 'nodes'")
    assert cursor["key"] == ["n2"]
    await on_target(graph, "DROP FUNCTION die CASCADE")
    assert (await run_cycle(graph.context(batch_rows=3))).status is CycleStatus.DRAINED
    assert await differences(graph) == []
