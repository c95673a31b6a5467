"""Capture that was off for a while under a running engine: noticed, told, and made good."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, run_cycle
from syncline.engine.table_map import Column, SchemaMap, TableMap
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.truth import differences

SEED = """
INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready'), ('f2', 'two', 'ready');
INSERT INTO write_nodes (id, concept, parent_id, fact_ids)
    VALUES ('n1', 'one', NULL, '{f1}'), ('n2', 'two', 'n1', '{f2}'), ('n3', 'three', NULL, '{}');
"""


def reread(result: SyncResult) -> set[str]:
    return {table.table for table in result.tables if table.reread}


@pytest_asyncio.fixture(loop_scope="session")
async def seeded(graph: TestGraph) -> TestGraph:
    await write(graph, SEED)
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    return graph


async def test_triggers_off_and_on_again(seeded: TestGraph) -> None:
    await write(
        seeded,
        "ALTER TABLE write_nodes DISABLE TRIGGER USER; UPDATE write_nodes SET concept = 'X' WHERE id = 'n1';"
        "DELETE FROM write_nodes WHERE id = 'n3'; INSERT INTO write_nodes (id, concept) VALUES ('n4', 'four');"
        "UPDATE write_nodes SET sync_xid = '1' WHERE id = 'n4';"
        "ALTER TABLE write_nodes ENABLE TRIGGER USER",
    )
    result = await run_cycle(seeded.context())
    assert (result.status, result.rescanned, reread(result)) == (CycleStatus.DRAINED, False, {"nodes"})
    assert await differences(seeded) == []
    result = await run_cycle(seeded.context())
    assert (result.idle, reread(result)) == (True, set())


async def test_triggers_that_stay_off_are_told(seeded: TestGraph) -> None:
    await write(seeded, "ALTER TABLE write_nodes DISABLE TRIGGER capture_delete")
    await write(seeded, "UPDATE write_facts SET content = 'other' WHERE id = 'f1'")
    result = await run_cycle(seeded.context())
    assert result.status is CycleStatus.FAILED
    [failed] = [table for table in result.tables if table.error]
    assert failed.table == "nodes"
    assert "not captured" in (failed.error or "")
    assert [row["content"] for row in await read(seeded, "SELECT content FROM facts WHERE key = 'f1'")] == [
        "other"
    ]
    await write(
        seeded,
        "DELETE FROM write_nodes WHERE id = 'n3'; ALTER TABLE write_nodes ENABLE TRIGGER capture_delete",
    )
    result = await run_cycle(seeded.context())
    assert (result.status, reread(result)) == (CycleStatus.DRAINED, {"nodes"})
    assert await differences(seeded) == []


@pytest.mark.parametrize("known", [True, False])
async def test_each_trigger_that_is_missing_is_told(seeded: TestGraph, known: bool) -> None:
    """Also where nothing is `known` of how the sources were captured, as after a restore of the graph-db."""
    connection = await seeded.connect_write()
    found = await connection.fetch(
        "SELECT tgname, pg_get_triggerdef(oid) AS made FROM pg_trigger"
        " WHERE tgrelid = 'kg.write_nodes'::regclass AND tgname ^@ 'capture_' AND tgname <> 'capture_notify'"
    )
    assert len(found) == 5
    # Earlier releases had one trigger for both.
    both = (
        "CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON kg.write_nodes FOR EACH ROW"
        " EXECUTE FUNCTION kg.capture_version()"
    )
    for name, made in [*found, ("capture_version", both)]:
        await connection.execute(f"DROP TRIGGER {name} ON kg.write_nodes")
        if not known:
            await on_target(seeded, "DELETE FROM sync_source")
        result = await run_cycle(seeded.context())
        assert [table.table for table in result.tables if table.error] == ["nodes"], name
        if made == both:
            await connection.execute("DROP TRIGGER capture_update ON kg.write_nodes")
        await connection.execute(f"{made}; ALTER TABLE kg.write_nodes ENABLE ALWAYS TRIGGER {name}")
        result = await run_cycle(seeded.context())
        assert (result.status, reread(result)) == (CycleStatus.DRAINED, {"nodes"} if known else set()), name
    await connection.close()


async def test_a_gap_while_no_engine_runs(seeded: TestGraph) -> None:
    await write(
        seeded,
        "ALTER TABLE write_facts DISABLE TRIGGER ALL; DELETE FROM write_facts WHERE id = 'f2';"
        "ALTER TABLE write_facts ENABLE TRIGGER ALL",
    )
    result = await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(seeded.context())
    assert reread(result) == {"facts"}
    assert await differences(seeded) == []


async def test_replica_role(seeded: TestGraph) -> None:
    await write(
        seeded,
        "SET session_replication_role = replica; UPDATE write_nodes SET concept = 'X' WHERE id = 'n1';"
        "DELETE FROM write_nodes WHERE id = 'n3'",
    )
    result = await run_cycle(seeded.context())
    assert (result.status, reread(result)) == (CycleStatus.DRAINED, set())
    assert await differences(seeded) == []


async def test_triggers_of_an_earlier_adoption_fire_always_from_now_on(seeded: TestGraph) -> None:
    origin = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'capture_%' AND tgenabled = 'O'"
    await write(seeded, "ALTER TABLE write_nodes ENABLE TRIGGER capture_delete")
    connection = await seeded.connect_write()
    try:
        epoch = await connection.fetchval("SELECT 'sync_tombstone'::regclass::oid")
        assert await connection.fetchval(origin) == 1
        assert len(await adopt(seeded.write, "kg", KNOWLEDGE_GRAPH)) == 1
        assert await adopt(seeded.write, "kg", KNOWLEDGE_GRAPH) == []
        assert await connection.fetchval(origin) == 0
        assert await connection.fetchval("SELECT 'sync_tombstone'::regclass::oid") == epoch
    finally:
        await connection.close()


async def test_a_swapped_table(seeded: TestGraph) -> None:
    await write(
        seeded,
        "ALTER TABLE write_nodes RENAME TO old_nodes; CREATE TABLE write_nodes (LIKE old_nodes INCLUDING ALL);"
        "INSERT INTO write_nodes SELECT * FROM old_nodes WHERE id <> 'n3';"
        "UPDATE write_nodes SET concept = 'X' WHERE id = 'n1'; DROP TABLE old_nodes",
    )
    result = await run_cycle(seeded.context())
    assert result.status is CycleStatus.FAILED
    await adopt(seeded.write, "kg", KNOWLEDGE_GRAPH)
    result = await run_cycle(seeded.context())
    assert result.status is CycleStatus.DRAINED
    assert await differences(seeded) == []


async def test_a_column_rewritten_in_place(seeded: TestGraph) -> None:
    await write(seeded, "ALTER TABLE write_nodes ALTER concept TYPE text USING upper(concept)")
    result = await run_cycle(seeded.context())
    assert reread(result) == {"nodes"}
    assert await differences(seeded) == []


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    "harmless",
    [
        "ALTER TABLE write_nodes ADD COLUMN own text; CREATE INDEX ON write_nodes (own)",
        "ANALYZE write_nodes; VACUUM FULL write_nodes",
        (
            "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER own BEFORE INSERT ON write_nodes FOR EACH ROW EXECUTE FUNCTION own()"
        ),
        "ALTER TABLE write_nodes ALTER concept SET STATISTICS 200, ALTER definition SET DEFAULT 'x'",
        "TRUNCATE write_nodes",
    ],
)
async def test_what_leaves_capture_as_it_was_is_no_reason(seeded: TestGraph, harmless: str) -> None:
    connection = await seeded.connect_write()
    for statement in harmless.split(";") if "VACUUM" in harmless else [harmless]:
        await connection.execute(statement)
    await connection.close()
    result = await run_cycle(seeded.context())
    assert (result.status, reread(result)) == (CycleStatus.DRAINED, set())
    if "own text" not in harmless:
        assert await differences(seeded) == []


PARTS = SchemaMap(
    name="parts",
    tables=(TableMap(name="parts", source="part", key=("id",), columns=(Column(name="note"),)),),
)


@pytest_asyncio.fixture(loop_scope="session")
async def parted(graph: TestGraph) -> AsyncIterator[TestGraph]:
    await write(
        graph,
        "DROP SCHEMA kg CASCADE; CREATE SCHEMA kg; CREATE TABLE kg.part (id text, note text, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        "CREATE TABLE kg.part_a PARTITION OF kg.part FOR VALUES FROM ('a') TO ('b');"
        "CREATE TABLE kg.part_b PARTITION OF kg.part FOR VALUES FROM ('b') TO ('c');"
        "INSERT INTO kg.part VALUES ('a1', 'x'), ('a2', 'x'), ('b1', 'x'), ('b2', 'x')",
    )
    await on_target(graph, "DROP SCHEMA kg CASCADE; CREATE SCHEMA kg")
    await migrate_bookkeeping(graph.target, "kg")
    await on_target(
        graph,
        "CREATE TABLE parts (id uuid PRIMARY KEY, key text NOT NULL, note text, sync_version bigint, sync_run bigint)",
    )
    await adopt(graph.write, "kg", PARTS)
    return graph


async def keys(graph: TestGraph) -> list[str]:
    return [
        f"{row['key']}={row['note']}" for row in await read(graph, "SELECT key, note FROM parts ORDER BY key")
    ]


async def test_partitions_come_and_go(parted: TestGraph) -> None:
    engine = SyncEngine(PARTS)
    assert (await engine.run_cycle(parted.context())).rows == 4
    # A new one is read like anything new.
    await write(
        parted,
        "CREATE TABLE part_c PARTITION OF part FOR VALUES FROM ('c') TO ('d'); INSERT INTO part VALUES ('c1', 'x')",
    )
    result = await engine.run_cycle(parted.context())
    assert (result.rows, reread(result)) == (1, set())
    # One that was changed on its own.
    await write(
        parted,
        "ALTER TABLE part DETACH PARTITION part_b; UPDATE part_b SET note = 'y' WHERE id = 'b1'; DELETE FROM part_b WHERE id = 'b2';"
        "ALTER TABLE part ATTACH PARTITION part_b FOR VALUES FROM ('b') TO ('c')",
    )
    result = await engine.run_cycle(parted.context())
    assert reread(result) == {"parts"}
    assert await keys(parted) == ["a1=x", "a2=x", "b1=y", "c1=x"]
    # One that came with rows, and one that went with its own.
    await write(
        parted,
        "CREATE TABLE part_d (LIKE part INCLUDING ALL); INSERT INTO part_d (id, note, sync_xid) VALUES ('d1', 'x', '0');"
        "ALTER TABLE part ATTACH PARTITION part_d FOR VALUES FROM ('d') TO ('e'); DROP TABLE part_a",
    )
    result = await engine.run_cycle(parted.context())
    assert reread(result) == {"parts"}
    assert await keys(parted) == ["b1=y", "c1=x", "d1=x"]
    assert (await engine.run_cycle(parted.context())).idle


async def test_a_reread_that_is_cut_off_is_finished_by_later_cycles(seeded: TestGraph) -> None:
    await write(
        seeded,
        "ALTER TABLE write_nodes DISABLE TRIGGER USER; DELETE FROM write_nodes WHERE id = 'n3';"
        "UPDATE write_nodes SET concept = 'X' WHERE id = 'n1'; ALTER TABLE write_nodes ENABLE TRIGGER USER",
    )
    result = await run_cycle(seeded.context(seconds=0))
    assert (result.status, reread(result)) == (CycleStatus.BUDGET_SPENT, {"nodes"})
    assert (await run_cycle(seeded.context())).status is CycleStatus.DRAINED
    assert await differences(seeded) == []


async def test_a_parked_row_that_went_in_a_gap_waits_no_longer(seeded: TestGraph) -> None:
    await write(
        seeded,
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type) VALUES ('e1', 'n1', 'away', 'r')",
    )
    assert (await run_cycle(seeded.context())).parked == 1
    await write(
        seeded,
        "ALTER TABLE write_edges DISABLE TRIGGER USER; DELETE FROM write_edges; ALTER TABLE write_edges ENABLE TRIGGER USER",
    )
    result = await run_cycle(seeded.context())
    assert (reread(result), result.parked) == ({"edges"}, 0)
