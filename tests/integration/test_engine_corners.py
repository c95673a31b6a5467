"""The engine's corners: other table maps, unusual keys, cycles that stop in awkward places."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
from pydantic import SecretStr

from syncline.capture.install.install import adopt
from syncline.engine import cycle as cycle_module
from syncline.engine import run_cycle
from syncline.engine.capture import read_rows
from syncline.engine.cycle import SyncEngine
from syncline.engine.keys import key_uuid
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.table_map import Column, Links, Reference, SchemaMap, TableMap, VectorProjection
from syncline.errors import StoreRejected
from syncline.messages.sync import CycleProgress, CycleStatus, SyncEvent, SyncResult
from syncline.migrations import migrate_graph, migrate_write
from syncline.provider import GraphSchema
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.truth import differences
from tests.kit.cases import further
from tests.kit.cycle_clock import CycleClock


class KilledError(Exception):
    """What stops a cycle between two commits."""


async def create(graph: TestGraph, source: str, columns: str, target: str) -> None:
    """Create a captured source table with key column `id` and its target tables."""
    await write(
        graph,
        f"CREATE TABLE {source} ({columns}, sync_xid xid8 NOT NULL DEFAULT pg_current_xact_id());"
        f"CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON {source}"
        " FOR EACH ROW EXECUTE FUNCTION kg.capture_version();",
    )
    await on_target(graph, target)


async def cycle(graph: TestGraph, *tables: TableMap, batch_rows: int = 50_000) -> SyncResult:
    schema_map = SchemaMap(name="other", tables=tables)
    await adopt(graph.write, "kg", schema_map)
    engine = SyncEngine(schema_map)
    result = await engine.run_cycle(graph.context(batch_rows=batch_rows))
    assert [table.error for table in result.tables if table.error] == []
    return result


async def write_many_nodes(graph: TestGraph, number: int) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, $1) i",
        number,
    )


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
        "CREATE TABLE a (id uuid PRIMARY KEY, key text, sync_version bigint, sync_run bigint)",
    )
    await create(
        graph,
        "write_b",
        "id text PRIMARY KEY, a_id text",
        "CREATE TABLE b (id uuid PRIMARY KEY, key text, a_id uuid REFERENCES a, sync_version bigint, sync_run bigint)",
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
        await graph.wait_until_free()
        await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('b', 'B'), ('c', 'C')")
        result = await run_cycle(graph.context(run_id=run_id, attempt=2))
    assert [event.rows for event in events] == [{"nodes": 1}, {"nodes": 2}]
    assert result.rows == 3  # the whole run's
    assert await differences(graph) == []


async def test_a_cycle_without_time_for_its_vectors_is_not_drained(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'A')")
    result = await run_cycle(replace(graph.context(), heartbeat=CycleClock(monkeypatch).spend))
    assert (result.rows, result.status, result.vectors.pending) == (1, CycleStatus.BUDGET_SPENT, 1)


@pytest.mark.long("test_keys_of_any_shape_travel_wait_and_are_linked")
async def test_a_rescan_that_is_cut_short_goes_on_in_the_next_cycle(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f', 'F', 'ready');"
        "INSERT INTO write_nodes (id, concept) VALUES ('n', 'N')",
    )
    await run_cycle(graph.context())
    # As if this write-db had replaced another, whose cursors happen to be plausible here.
    await on_target(
        graph, "UPDATE sync_state SET write_cluster = '1/1'; DELETE FROM facts; DELETE FROM nodes"
    )

    def die(_: CycleProgress) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        await run_cycle(replace(graph.context(), heartbeat=die))
    await graph.wait_until_free()
    await run_cycle(graph.context())
    assert await differences(graph) == []


async def test_rows_stamped_by_another_cluster_are_never_left_out_in_silence(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) VALUES ('old', 'from a dump'), ('new', 'written here');"
        "ALTER TABLE write_nodes DISABLE TRIGGER USER;"
        "UPDATE write_nodes SET sync_xid = '4000000000' WHERE id = 'old';"
        "ALTER TABLE write_nodes ENABLE TRIGGER USER;",
    )
    for rows in (1, 0):
        result = await run_cycle(graph.context())
        nodes = next(table for table in result.tables if table.table == "nodes")
        assert (result.status, nodes.rows, nodes.drained) == (CycleStatus.FAILED, rows, False)
        assert nodes.error is not None
    await write(graph, nodes.error[nodes.error.index("UPDATE") :])  # what the operator is told to do
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert await differences(graph) == []


async def test_a_row_that_changes_its_parent_as_that_one_leaves_does_not_go_back_to_it(
    graph: TestGraph,
) -> None:
    await create(
        graph,
        "write_t",
        "id text PRIMARY KEY, parent text, ok boolean NOT NULL DEFAULT true",
        "CREATE TABLE t (id uuid PRIMARY KEY, key text, parent uuid REFERENCES t,"
        " sync_version bigint, sync_run bigint)",
    )
    tree = TableMap(
        name="t",
        source="write_t",
        present="ok",
        references=(Reference(column="parent", parent="t", required=False),),
        source_only=(Column(name="ok", type="boolean"),),
    )
    await write(graph, "INSERT INTO write_t VALUES ('p'), ('q'); INSERT INTO write_t VALUES ('a', 'p')")
    await cycle(graph, tree)
    await write(
        graph,
        "UPDATE write_t SET parent = CASE id WHEN 'a' THEN 'q' END, ok = id <> 'p' WHERE id IN ('a', 'p')",
    )
    assert (await cycle(graph, tree)).parked == 0
    await write(graph, "UPDATE write_t SET ok = true")
    await cycle(graph, tree)
    [row] = await read(graph, "SELECT parent FROM t WHERE key = 'a'")
    assert row["parent"] == key_uuid("q")


async def test_deleted_keys_stamped_by_another_cluster_are_never_left_out_in_silence(
    graph: TestGraph,
) -> None:
    await write_many_nodes(graph, 3)
    await run_cycle(graph.context())
    await write(
        graph,
        "DELETE FROM write_nodes WHERE id <> 'n3';"
        "UPDATE sync_tombstone SET sync_xid = '4000000000' WHERE key = '{n1}'",
    )
    for left in (["n1", "n3"], ["n1", "n3"]):
        result = await run_cycle(graph.context())
        assert result.status is CycleStatus.FAILED
        assert [row["key"] for row in await read(graph, "SELECT key FROM nodes ORDER BY key")] == left
    [error] = [table.error for table in result.tables if table.error is not None]
    await write(graph, error[error.index("UPDATE") :])  # what the operator is told to do
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert await differences(graph) == []
    assert (await run_cycle(graph.context())).batches == 0


async def test_a_committed_delete_that_an_open_transaction_holds_back_is_owed(graph: TestGraph) -> None:
    await write_many_nodes(graph, 1)
    await run_cycle(graph.context())
    connection = await graph.connect_write()
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_current_xact_id()")
            await write(graph, "DELETE FROM write_nodes")
            assert (await run_cycle(graph.context())).owes
    finally:
        await connection.close()
    assert not (await run_cycle(graph.context())).owes
    assert await read(graph, "SELECT FROM nodes") == []


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        ("DROP TABLE write_edges", "Table kg.write_edges was dropped, or moved"),
        (
            (
                "ALTER TABLE write_edges RENAME TO before; CREATE TABLE write_edges (LIKE before);"
                "ALTER TABLE write_edges ADD PRIMARY KEY (id), DROP COLUMN sync_xid"
            ),
            "kg.write_edges is not captured",
        ),
    ],
)
async def test_a_table_that_is_lost_while_a_worker_lives_fails_alone(
    graph: TestGraph, loss: str, sentence: str
) -> None:
    engine = SyncEngine(KNOWLEDGE_GRAPH)
    assert (await engine.run_cycle(graph.context())).status is CycleStatus.DRAINED
    await write(graph, loss)
    for number in (1, 2):
        await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')", f"n{number}")
        result = await engine.run_cycle(graph.context())
        assert result.status is CycleStatus.FAILED
        [lost] = [table for table in result.tables if table.error is not None]
        assert lost.table == "edges"
        assert lost.error is not None
        assert lost.error.startswith(sentence)
        assert len(await read(graph, "SELECT FROM nodes")) == number


async def test_a_source_that_fits_and_may_not_be_read_is_told_as_the_store_tells_it(graph: TestGraph) -> None:
    await write(
        graph,
        "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA kg TO reader;"
        "GRANT SELECT ON ALL TABLES IN SCHEMA kg TO reader; REVOKE SELECT ON write_edges FROM reader",
    )
    dsn = SecretStr(graph.write_dsn.replace("postgres@", "reader@"))
    store = PostgresStore("write", dsn, pool_size=2, application_name="test")
    context = replace(graph.context(), write=GraphSchema(store=store, schema="kg"))
    try:
        with pytest.raises(StoreRejected, match="permission denied for table write_edges"):
            await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(context)
    finally:
        await store.close()
        await write(graph, "DROP OWNED BY reader; DROP ROLE reader")


async def test_rows_asked_for_of_a_table_that_was_passed_are_read_before_the_cycle_ends(
    graph: TestGraph,
) -> None:
    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f', 'F', 'ready');"
        "INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('n', 'N', '{f}');"
        "INSERT INTO write_node_fact_rejections (node_id, fact_id) VALUES ('n', 'f')",
    )
    await run_cycle(graph.context())
    # A delete that left no tombstone, and the repair of it.
    await write(
        graph,
        "DELETE FROM write_node_fact_rejections; DELETE FROM sync_tombstone",
    )
    await on_target(
        graph,
        "INSERT INTO sync_requeue (table_name, row_id, key, reason)"
        " VALUES ('node_fact_rejections', syncline.row_uuid('{n,f}'), '{n,f}', 'repair')",
    )
    result = await run_cycle(graph.context())
    assert result.status is CycleStatus.DRAINED
    assert await read(graph, "SELECT table_name, key FROM sync_requeue") == []
    assert len(await read(graph, "SELECT FROM node_facts")) == 1


async def test_json_null_survives_parking(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, metadata)"
        " VALUES ('a', 'n', 'n', 'x', 'null'), ('b', 'n', 'n', 'x', NULL),"
        " ('c', 'n', 'n', 'x', '{\"a\": null}')",
    )
    await run_cycle(graph.context())
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'N')")
    await run_cycle(graph.context())
    assert await differences(graph) == []


@pytest.mark.long("test_keys_of_any_shape_travel_wait_and_are_linked")
async def test_a_table_of_nothing_but_its_composite_key_travels(graph: TestGraph) -> None:
    await create(
        graph,
        "write_a",
        "id text PRIMARY KEY",
        "CREATE TABLE a (id uuid PRIMARY KEY, key text, sync_version bigint, sync_run bigint)",
    )
    await create(
        graph,
        "write_pairs",
        "one text, two text, PRIMARY KEY (one, two)",
        "CREATE TABLE pairs (one uuid REFERENCES a, two uuid REFERENCES a, sync_version bigint, sync_run bigint,"
        " PRIMARY KEY (one, two))",
    )
    tables = (
        TableMap(name="a", source="write_a"),
        TableMap(
            name="pairs",
            source="write_pairs",
            key=("one", "two"),
            references=(
                Reference(column="one", parent="a", required=True),
                Reference(column="two", parent="a", required=True),
            ),
        ),
    )
    await write(graph, "INSERT INTO write_pairs VALUES ('x', 'y'), ('x', 'x'), ('y', 'x')")
    await write(graph, "INSERT INTO write_a VALUES ('x')")
    assert (await cycle(graph, *tables)).parked == 2
    await write(graph, "INSERT INTO write_a VALUES ('y'); UPDATE write_pairs SET one = one")
    assert (await cycle(graph, *tables, batch_rows=1)).parked == 0
    pairs = {(row["one"], row["two"]) for row in await read(graph, "SELECT * FROM pairs")}
    x, y = key_uuid("x"), key_uuid("y")
    assert pairs == {(x, y), (x, x), (y, x)}


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("column_type", "before", "after"),
    [
        ("json", '{"a": 1}', '{"a":  1}'),
        ("interval", "1 day", "24:00:00"),
        ("numeric", "1.0", "1.00"),
        ("box", "(2,1),(0,0)", "(1,2),(0,0)"),
        ("text", "a", None),
    ],
)
async def test_a_change_travels_though_the_type_calls_both_values_equal(
    graph: TestGraph, column_type: str, before: str, after: str | None
) -> None:
    await create(
        graph,
        "write_a",
        f"id text PRIMARY KEY, v {column_type}",
        f"CREATE TABLE a (id uuid PRIMARY KEY, key text, v {column_type}, sync_version bigint, sync_run bigint)",
    )
    a = TableMap(name="a", source="write_a", columns=(Column(name="v", type=column_type),))
    await write(graph, f"INSERT INTO write_a (id, v) VALUES ('a', '{before}'), ('b', NULL)")
    await cycle(graph, a)
    await write(graph, f"UPDATE write_a SET v = $1::text::{column_type} WHERE id = 'a'", after)
    assert (await cycle(graph, a)).rows == 1
    rows = await read(graph, "SELECT v::text FROM a ORDER BY key")
    assert [row["v"] for row in rows] == [after, None]
    await write(graph, "UPDATE write_a SET v = v")
    assert (await cycle(graph, a)).rows == 0


async def test_tables_whose_long_names_begin_alike_keep_apart(graph: TestGraph) -> None:
    one, two = "x" * 60 + "_1", "x" * 60 + "_2"
    tables = []
    for name, column in ((one, "a"), (two, "b")):
        await create(
            graph,
            f"w{name}"[:63],
            f"id text PRIMARY KEY, {column} text",
            f"CREATE TABLE {name} (id uuid PRIMARY KEY, key text, {column} text, sync_version bigint, sync_run bigint)",
        )
        tables.append(TableMap(name=name, source=f"w{name}"[:63], columns=(Column(name=column),)))
        await write(graph, f"INSERT INTO w{name} (id, {column}) VALUES ('k', 'value of {column}')")
    await cycle(graph, *tables)
    assert (await read(graph, f"SELECT a FROM {one}"))[0]["a"] == "value of a"
    assert (await read(graph, f"SELECT b FROM {two}"))[0]["b"] == "value of b"


@pytest.mark.long("test_keys_of_any_shape_travel_wait_and_are_linked")
async def test_names_that_need_quoting_or_sound_like_the_engines_own_travel(graph: TestGraph) -> None:
    names = [
        "order", "Group", "user", "a b", 'say "hi"', "ünï", "present", "row_id", "s", "t", "r", "excluded",
        "changed", "missing", "waits_for", "table_name", "owner", "member", "released", "image", "ref_parent",
        "point_id", "window", "system_user", "values", "interval", "coalesce", "row", "between", "xmlparse",
    ]  # fmt: skip
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    columns = ", ".join(f"{name} text" for name in quoted)
    await create(
        graph,
        '"Select"',
        f'"Key" text PRIMARY KEY, {columns}, "Parent Id" text, "Tag Ids" text[], "Other Ids" text[]',
        f'CREATE TABLE "Table" (id uuid PRIMARY KEY, key text, {columns}, sync_version bigint, sync_run bigint,'
        ' "Parent Id" uuid REFERENCES "Table");'
        'CREATE TABLE "Table Tags"'
        ' ("My Owner" uuid, "My Member" uuid, PRIMARY KEY ("My Owner", "My Member"));'
        'CREATE TABLE others ("order" uuid, "Group" uuid, PRIMARY KEY ("order", "Group"))',
    )
    table = TableMap(
        name="Table",
        source="Select",
        key=("Key",),
        columns=tuple(Column(name=name) for name in names),
        references=(Reference(column="Parent Id", parent="Table", required=False),),
        links=(
            Links(table="Table Tags", source="Tag Ids", owner="My Owner", member="My Member", parent="Table"),
            Links(table="others", source="Other Ids", owner="order", member="Group", parent="Table"),
        ),
    )
    await write(
        graph,
        f'INSERT INTO "Select" ("Key", {", ".join(quoted)}, "Parent Id", "Tag Ids", "Other Ids")'
        f" VALUES ('a', {', '.join(f'$1::text || {i}' for i in range(len(names)))}, 'b', '{{b,a}}', '{{b}}')",
        "v",
    )
    assert (await cycle(graph, table)).parked == 3
    await write(graph, 'INSERT INTO "Select" ("Key") VALUES (\'b\')')
    assert (await cycle(graph, table, batch_rows=1)).parked == 0
    row = (await read(graph, "SELECT * FROM \"Table\" WHERE key = 'a'"))[0]
    assert {name: row[name] for name in names} == {name: f"v{i}" for i, name in enumerate(names)}
    assert row["Parent Id"] == key_uuid("b")
    assert len(await read(graph, 'SELECT * FROM "Table Tags"')) == 2
    assert len(await read(graph, "SELECT * FROM others")) == 1


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


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param((table(), table()), id="one name twice"),
        pytest.param(
            (
                table("a", vector=VectorProjection(collection="c", text="t.key", payload={})),
                table("b", vector=VectorProjection(collection="c", text="t.key", payload={})),
            ),
            id="two tables in one collection",
        ),
        pytest.param(
            (
                table("n"),
                replace(
                    _PAIR,
                    references=(*_PAIR.references, Reference(column="c", parent="n", required=False)),
                ),
            ),
            id="an optional reference of a row without an id",
        ),
        pytest.param(
            (table("n"), _PAIR, table("c", references=(Reference(column="x", parent="p", required=True),))),
            id="a reference to a row without an id",
        ),
        pytest.param(
            (
                table("n"),
                table(
                    links=(
                        Links(table="l", source="x", owner="o", member="m", parent="n"),
                        Links(table="l", source="y", owner="o", member="m", parent="n"),
                    )
                ),
            ),
            id="two arrays in one link table",
        ),
        pytest.param((table(columns=(Column(name="key"),)),), id="a column named like the engine's own"),
        pytest.param((table(columns=(Column(name="sync_xid"),)),), id="the capture column"),
        pytest.param((table(columns=(Column(name="x"), Column(name="x"))),), id="one column twice"),
        pytest.param(
            (
                table(
                    columns=(Column(name="x"),),
                    references=(Reference(column="x", parent="t", required=False),),
                ),
            ),
            id="a column that is a reference too",
        ),
        pytest.param(
            (
                table(
                    references=(Reference(column="x", parent="t", required=False),),
                    expressions={"x": "s.ref_x"},
                ),
            ),
            id="an optional reference by expression",
        ),
    ],
)
def test_a_map_that_cannot_work_is_refused_when_it_is_declared(tables: tuple[TableMap, ...]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        SchemaMap(name="impossible", tables=tables)


async def test_a_row_without_a_text_has_no_vector_and_delays_none(graph: TestGraph) -> None:
    await create(
        graph,
        "write_a",
        "id text PRIMARY KEY, body text",
        "CREATE TABLE a (id uuid PRIMARY KEY, key text, body text, sync_version bigint, sync_run bigint)",
    )
    a = TableMap(
        name="a",
        source="write_a",
        columns=(Column(name="body"),),
        vector=VectorProjection(collection="a", text="t.body", payload={"key": "t.key"}),
    )
    await write(graph, "INSERT INTO write_a VALUES ('silent', NULL), ('speaking', 'words')")
    result = await cycle(graph, a)
    assert (result.status, result.vectors.upserted) == (CycleStatus.DRAINED, 1)
    await write(graph, "UPDATE write_a SET body = NULL")
    assert (await cycle(graph, a)).status is CycleStatus.DRAINED
    assert await graph.vectors.count("kg_a") == 0
    await write(graph, "UPDATE write_a SET body = 'words' WHERE id = 'speaking'")
    assert (await cycle(graph, a)).vectors.embedded == 1
    assert await graph.vectors.count("kg_a") == 1


async def test_a_collection_that_is_refused_does_not_hold_back_another(graph: TestGraph) -> None:
    tables = []
    for name in ("a", "b"):
        await create(
            graph,
            f"write_{name}",
            "id text PRIMARY KEY",
            f"CREATE TABLE {name} (id uuid PRIMARY KEY, key text, sync_version bigint, sync_run bigint)",
        )
        vector = VectorProjection(collection=name, text="t.key", payload={"key": "t.key"})
        tables.append(TableMap(name=name, source=f"write_{name}", vector=vector))
        await write(graph, f"INSERT INTO write_{name} VALUES ('k')")
    await graph.vectors.ensure_collection("kg_a", dimensions=3)
    result = await cycle(graph, *tables)
    assert (result.status, result.vectors.pending) == (CycleStatus.VECTORS_DELAYED, 1)
    assert result.vectors.error is not None
    assert await graph.vectors.count("kg_b") == 1


async def test_a_cancelled_cycle_frees_its_graph_though_a_statement_runs(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'A')")
    await on_target(
        graph,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';"
        "CREATE TRIGGER slow BEFORE INSERT ON nodes FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    running = asyncio.create_task(run_cycle(graph.context()))
    for _ in range(400):
        if await read(graph, "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            break
        await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for _ in range(100):
        if not await read(
            graph,
            "SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE locktype = 'advisory' AND datname = current_database()",
        ):
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the lock outlived its cycle by ten seconds")
    assert graph.target._engine.pool.checkedout() == graph.write._engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.long("test_keys_of_any_shape_travel_wait_and_are_linked")
async def test_more_cycles_than_connections_of_one_database_all_end(graph: TestGraph) -> None:
    store, another = (
        PostgresStore(name, SecretStr(graph.target_dsn), pool_size=1, application_name="syncline-test")
        for name in ("one", "another")
    )
    schemas = [f"g{number}" for number in range(3)]
    try:
        for schema in schemas:
            await migrate_graph(store, schema)
            await migrate_write(store, f"{schema}_write")
            await on_target(
                graph, f"INSERT INTO {schema}_write.write_nodes (id, concept) VALUES ('n', '{schema}')"
            )
        contexts = [
            replace(
                graph.context(),
                write=GraphSchema(store=another, schema=f"{schema}_write"),
                target=GraphSchema(store=store, schema=schema),
                vectors=replace(graph.context().vectors, prefix=f"{schema}_"),
            )
            for schema in schemas
        ]
        async with asyncio.timeout(60):
            results = await asyncio.gather(*(run_cycle(context) for context in contexts))
    finally:
        await store.close()
        await another.close()
    assert {result.rows for result in results} == {1}
    for schema in schemas:
        rows = await read(graph, f"SELECT concept FROM {schema}.nodes")
        assert [row["concept"] for row in rows] == [schema]


KEYS = [
    "", " ", "'", '"', "\\", "\\x41", "$1", "$2", "{", "}", "{a,b}", ",", "NULL", "null", "@{key}", "%s",
    "a\nb", "\t", "é", "e\u0301", "日本", "🙂", "\u200b", "\x01", "A", "a", "a ", "x" * 20_000,
]  # fmt: skip


@pytest.mark.parametrize("batch_rows", [5, *further(1, 1000)])
async def test_keys_of_any_shape_travel_wait_and_are_linked(graph: TestGraph, batch_rows: int) -> None:
    await write(
        graph,
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids)"
        " SELECT k, k, k, 'x', ARRAY[k, NULL, k] FROM unnest($1::text[]) k",
        KEYS,
    )
    await write(
        graph,
        "INSERT INTO write_fact_sources (fact_id, raw_source_id) SELECT k, k FROM unnest($1::text[]) k",
        KEYS,
    )
    assert (await run_cycle(graph.context(batch_rows=batch_rows))).rows == 0
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept, parent_id, fact_ids)"
        " SELECT k, 'c', k, ARRAY[k, NULL] FROM unnest($1::text[]) k",
        KEYS,
    )
    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status) SELECT k, 'c', 'ready'"
        " FROM unnest($1::text[]) k",
        KEYS,
    )
    await write(graph, "INSERT INTO write_raw_sources (id) SELECT k FROM unnest($1::text[]) k", KEYS)
    result = await run_cycle(graph.context(batch_rows=batch_rows))
    assert (result.parked, result.failures) == (0, 0)
    assert [line for line in await differences(graph) if "extra" not in line or "None" not in line] == []


async def test_a_source_that_breaks_in_an_unforeseen_way_ends_the_copy(graph: TestGraph) -> None:
    class Broken:
        async def execute(self, _: str) -> str:
            return ""

        async def copy_from_query(self, *arguments: object, **options: object) -> str:
            raise RuntimeError("unforeseen")

    statements = SyncEngine(SchemaMap(name="one", tables=(table("nodes"),))).statements.tables["nodes"]
    connection = await graph.connect_target()
    try:
        async with asyncio.timeout(30), connection.transaction():
            await connection.execute(statements.create_stage)
            reading = read_rows(
                Broken(),
                statements,
                place=graph.context().write,
                cursor=cycle_module.Cursor(),
                horizon=1,
                limit=1,
            )
            with pytest.raises(RuntimeError, match="unforeseen"):
                await reading.copy_into(connection, statements.stage_name, statements.stage_columns)
    finally:
        connection.terminate()


@pytest.mark.proof
async def test_a_run_of_very_many_tables_is_told_whole(graph: TestGraph) -> None:
    tables = []
    for number in range(150):
        name = f"table_{number:03}_" + "x" * 45
        tables.append(TableMap(name=name, source=f"w{number}"))
        await create(
            graph,
            f"w{number}",
            "id text PRIMARY KEY",
            f"CREATE TABLE {name} (id uuid PRIMARY KEY, key text, sync_version bigint, sync_run bigint)",
        )
        await write(graph, f"INSERT INTO w{number} VALUES ('k')")
    async with events_of(graph) as events:
        result = await cycle(graph, *tables)
    assert result.rows == 150
    told = [name for event in events for name in event.rows]
    assert sorted(told) == [table.name for table in tables]


@pytest.mark.long("test_keys_of_any_shape_travel_wait_and_are_linked")
async def test_a_reader_of_the_past_does_not_slow_the_vector_queue(graph: TestGraph) -> None:
    await write_many_nodes(graph, 6000)
    reader = await graph.connect_target()
    try:
        async with reader.transaction(isolation="repeatable_read"):
            await reader.execute("SELECT count(*) FROM nodes")  # from now on no deleted entry can be removed
            await run_cycle(graph.context())
    finally:
        await reader.close()
    async with graph.target.driver() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
    entries = await read(
        graph, "SELECT sum(idx_tup_read)::int AS n FROM pg_stat_user_indexes WHERE relname = 'sync_outbox'"
    )
    assert entries[0]["n"] < 20_000  # read once and deleted once, not read again by every later batch


@pytest.mark.long("test_keys_of_any_shape_travel_wait_and_are_linked")
async def test_two_graphs_of_one_database_share_connections_and_nothing_else(graph: TestGraph) -> None:
    await migrate_write(graph.write, "other")
    await migrate_graph(graph.target, "other")
    for step in range(3):
        await write(graph, f"INSERT INTO write_nodes (id, concept, parent_id) VALUES ('n{step}', 'kg', 'zz')")
        await write(
            graph, f"INSERT INTO other.write_nodes (id, concept, parent_id) VALUES ('n{step}', 'other', 'zz')"
        )
        context = graph.context()
        other = replace(
            context,
            write=replace(context.write, schema="other"),
            target=replace(context.target, schema="other"),
            vectors=replace(context.vectors, prefix="other_"),
        )
        results = await asyncio.gather(run_cycle(context), run_cycle(other))
        assert [(result.status, result.rows) for result in results] == [(CycleStatus.DRAINED, 1)] * 2
    assert await differences(graph) == []
    assert {row["concept"] for row in await read(graph, "SELECT concept FROM other.nodes")} == {"other"}
