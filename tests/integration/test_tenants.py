"""Tenants: graphs that share source tables, each with the rows of one."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt, undo
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine
from syncline.errors import InputInvalid, SchemaMismatch, TenantInvalid
from syncline.maps.document import read_map
from syncline.maps.one_tenant import of_tenant
from syncline.messages.sync import CycleStatus
from syncline.migrations import migrate_bookkeeping
from syncline.operator.explain import explain
from syncline.operator.explanation import Explanation
from syncline.operator.map_check import check_map
from syncline.operator.maps import _of_its_tenant
from syncline.operator.parked import Obstacle, summarize_parked
from syncline.operator.proposing import create_targets, propose
from syncline.provider import GraphSchema
from tests.kit.bare_graph import bare_graph
from tests.kit.saas import EXAMPLE, SHARED, Saas, rows_of, saas_map, script, task, tenant


@pytest_asyncio.fixture(loop_scope="session")
async def saas(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Saas]:
    """Two tenants with graphs, and the tables that they share with others."""
    async with bare_graph(new_database, tmp_path) as stores:
        made = Saas(stores)
        await made.prepare([1, 2])
        yield made


async def test_each_graph_has_the_rows_of_its_tenant(saas: Saas) -> None:
    await saas.source(rows_of([1, 2, 3]))
    for number in (1, 2):
        result = await saas.cycle(number)
        assert (result.status, [t.error for t in result.tables if t.error]) == (CycleStatus.DRAINED, [])
        assert result.parked == 0
        assert await saas.titles(number) == [f"task {i} of {number}" for i in (1, 2, 3)]
        [[links, customers, plans]] = await saas.target(
            number,
            "SELECT (SELECT count(*) FROM task_labels), (SELECT string_agg(name, ',') FROM customers),"
            " (SELECT count(*) FROM plans)",
        )
        assert (links, customers, plans) == (3, f"customer of {number}", 2)
        found = await saas.compared(number)
        assert found.equal, found


async def both(saas: Saas) -> None:
    for number in (1, 2):
        result = await saas.cycle(number)
        assert [table.error for table in result.tables if table.error] == []


async def test_a_row_that_moves_to_another_tenant_leaves_the_first_graph_and_arrives_in_the_second(
    saas: Saas,
) -> None:
    await saas.source(rows_of([1, 2, 3]))
    await both(saas)
    moved = task(2, 1)
    await saas.source(
        f"UPDATE task SET tenant_id = '{tenant(2)}', project_id = '{task(1, 2)}', label_ids = '{{}}' WHERE id = '{moved}'"
    )
    await both(saas)
    assert await saas.titles(1) == ["task 1 of 1", "task 3 of 1"]
    assert await saas.titles(2) == ["task 1 of 2", "task 2 of 1", "task 2 of 2", "task 3 of 2"]
    for number in (1, 2):
        assert (await saas.compared(number)).equal
    row = await explained(saas, 1, moved)
    assert (row.write.exists, row.write.deleted_at is not None, row.graph.exists) == (False, True, False)
    assert (await explained(saas, 2, moved)).graph.exists

    # There and back in one transaction, and to nobody's: neither is lost, neither stays.
    await saas.source(
        f"BEGIN; UPDATE task SET tenant_id = '{tenant(1)}' WHERE id = '{moved}';"
        f"UPDATE task SET tenant_id = '{tenant(2)}', title = 'back' WHERE id = '{moved}'; COMMIT;"
        f"UPDATE customer SET tenant_id = '{tenant(9)}' WHERE tenant_id = '{tenant(1)}'"
    )
    await both(saas)
    assert "back" in await saas.titles(2)
    assert "back" not in await saas.titles(1)
    # Its customer has left, so its project and its tasks wait for one.
    assert await saas.titles(1) == []
    assert (await saas.compared(2)).equal
    assert not (await saas.compared(1)).damaged
    await saas.source(f"UPDATE customer SET tenant_id = '{tenant(1)}' WHERE tenant_id = '{tenant(9)}'")
    await both(saas)
    assert await saas.titles(1) == ["task 1 of 1", "task 3 of 1"]
    assert (await saas.compared(1)).equal


@pytest.mark.long("test_each_graph_has_the_rows_of_its_tenant")
async def test_what_other_tenants_delete_touches_nothing_and_is_not_even_read(saas: Saas) -> None:
    await saas.source(rows_of([1, 2, 3], tasks=20))
    await both(saas)
    before = await saas.target(1, "SELECT * FROM sync_cursor ORDER BY table_name")
    await saas.source(f"DELETE FROM task WHERE tenant_id = '{tenant(3)}'")
    # The same key of another tenant: a customer's number is unique among those of one.
    await saas.source(f"DELETE FROM customer WHERE tenant_id = '{tenant(3)}'")
    result = await saas.cycle(1)
    assert (result.batches, [t.deletes for t in result.tables if t.deletes]) == (0, [])
    assert await saas.target(1, "SELECT * FROM sync_cursor ORDER BY table_name") == before
    assert len(await saas.titles(1)) == 20
    # What all of them share is deleted for all.
    await saas.source("INSERT INTO plan VALUES ('old', 1)")
    await both(saas)
    await saas.source("DELETE FROM plan WHERE code = 'old'")
    await both(saas)
    for number in (1, 2):
        [[plans]] = await saas.target(number, "SELECT count(*) FROM plans")
        assert plans == 2
        assert (await saas.compared(number)).equal


async def test_truncate_and_bulk_deletes_reach_every_tenant(saas: Saas) -> None:
    await saas.source(rows_of([1, 2, 3]))
    await both(saas)
    await saas.source("TRUNCATE task")
    await both(saas)
    for number in (1, 2):
        assert await saas.titles(number) == []
        assert (await saas.compared(number)).equal


@pytest.mark.long(
    "test_each_graph_has_the_rows_of_its_tenant",
    "test_a_row_that_moves_to_another_tenant_leaves_the_first_graph_and_arrives_in_the_second",
)
async def test_a_repair_writes_what_is_missing_and_removes_what_is_another_tenants(saas: Saas) -> None:
    await saas.source(rows_of([1, 2]))
    await both(saas)
    await saas.target(1, f"DELETE FROM tasks WHERE id = '{task(1, 1)}';")
    await saas.target(
        1, f"INSERT INTO tasks (id, project_id, title) VALUES ('{task(3, 2)}', '{task(1, 1)}', 'not ours');"
    )
    found = await saas.compared(1, repair=True)
    assert found.damaged
    await both(saas)
    assert await saas.titles(1) == [f"task {i} of 1" for i in (1, 2, 3)]
    assert (await saas.compared(1)).equal
    assert (await saas.compared(2)).equal


async def test_parked_rows_of_a_tenant_wait_for_parents_of_the_tenant(saas: Saas) -> None:
    await saas.source(rows_of([1, 2]))
    await both(saas)
    # A project of another tenant is no parent here, whatever the source allows.
    await saas.source(
        f"INSERT INTO task (id, tenant_id, project_id, title) VALUES ('{task(9, 1)}', '{tenant(1)}', '{task(1, 2)}', 'lost')"
    )
    result = await saas.cycle(1)
    assert result.parked == 1
    summary = await summarize_parked(saas.context(1).write, saas.context(1).target, saas.map_of(1))
    [awaited] = summary.awaited
    assert (awaited.table, awaited.key, awaited.obstacle) == ("projects", task(1, 2), Obstacle.MISSING)
    assert "lost" not in [*await saas.titles(1), *await saas.titles(2)]
    await saas.source(
        f"UPDATE project SET tenant_id = '{tenant(1)}', customer = 1 WHERE id = '{task(1, 2)}';"
    )
    await both(saas)
    assert "lost" in await saas.titles(1)
    for number in (1, 2):
        assert not (await saas.compared(number)).damaged


@pytest.mark.long(
    "test_each_graph_has_the_rows_of_its_tenant",
    "test_a_row_that_moves_to_another_tenant_leaves_the_first_graph_and_arrives_in_the_second",
)
async def test_a_rejected_row_of_a_tenant_is_its_own_trouble(saas: Saas) -> None:
    await saas.target(1, "ALTER TABLE tasks ADD CHECK (title <> 'bad');")
    await saas.source(rows_of([1, 2]))
    await saas.source(f"UPDATE task SET title = 'bad' WHERE id IN ('{task(1, 1)}', '{task(1, 2)}')")
    await both(saas)
    assert await saas.titles(1) == ["task 2 of 1", "task 3 of 1"]
    assert "bad" in await saas.titles(2)
    row = await explained(saas, 1, task(1, 1))
    assert row.dead_letter is not None
    await saas.source(f"UPDATE task SET title = 'good' WHERE id = '{task(1, 1)}'")
    await both(saas)
    assert (await saas.compared(1)).equal


@pytest.mark.long(
    "test_each_graph_has_the_rows_of_its_tenant",
    "test_a_row_that_moves_to_another_tenant_leaves_the_first_graph_and_arrives_in_the_second",
)
async def test_a_graph_that_is_given_to_another_tenant_keeps_no_row_of_the_first(saas: Saas) -> None:
    await saas.source(rows_of([1, 2, 3]))
    await both(saas)
    result = await saas.engine.of_tenant(tenant(3)).run_cycle(saas.context(1))
    assert {change.split(":")[0] for change in result.map_changes} | {
        table.table for table in result.tables if table.reread
    } >= {"tasks", "customers"}
    assert await saas.titles(1) == [f"task {i} of 3" for i in (1, 2, 3)]
    [[customers]] = await saas.target(1, "SELECT string_agg(name, ',') FROM customers")
    assert customers == "customer of 3"


async def test_a_second_adoption_does_nothing_and_old_deleted_keys_are_read_by_all(saas: Saas) -> None:
    assert await adopt(saas.stores.write, SHARED, saas.map_of(1)) == []
    assert await adopt(saas.stores.write, SHARED, saas.schema_map) == []
    indexes = await saas.source(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'saas' AND indexdef LIKE '%sync_xid%' ORDER BY tablename"
    )
    by_tenant = [row["indexdef"] for row in indexes if "(tenant_id, sync_xid, " in row["indexdef"]]
    assert len(by_tenant) == 4, indexes


@pytest.mark.long(
    "test_each_graph_has_the_rows_of_its_tenant",
    "test_a_row_that_moves_to_another_tenant_leaves_the_first_graph_and_arrives_in_the_second",
)
async def test_tables_that_were_captured_before_they_had_tenants_are_captured_anew(
    new_database: Callable[..., str], tmp_path: Path
) -> None:
    async with bare_graph(new_database, tmp_path) as stores:
        saas = Saas(stores)
        before = replace(
            saas.schema_map, tables=tuple(replace(each, tenant=None) for each in saas.schema_map)
        )
        before = replace(
            before,
            tables=tuple(
                replace(each, key=("tenant_id", "number"), types={"tenant_id": "uuid", **each.types}, id=None)
                if each.name == "customers"
                else each
                for each in before
                if each.name in ("plans", "customers")
            ),
        )
        await saas.source(f"CREATE SCHEMA {SHARED}; SET search_path = {SHARED}; {script('source')}")
        await adopt(stores.write, SHARED, before)
        await saas.source(rows_of([1, 2]))
        await saas.source(f"INSERT INTO customer VALUES ('{tenant(1)}', 2, 'gone', 'free')")
        await saas.source("DELETE FROM customer WHERE number = 2")
        await migrate_bookkeeping(stores.target, "t01")
        await saas.target(1, script("target"))
        with pytest.raises(SchemaMismatch, match="`syncline graph adopt` to install capture by tenant"):
            await saas.cycle(1)
        assert await adopt(stores.write, SHARED, saas.schema_map)
        assert await adopt(stores.write, SHARED, saas.schema_map) == []
        result = await saas.cycle(1)
        assert result.status is CycleStatus.DRAINED
        assert (await saas.compared(1)).equal


@pytest.mark.long(
    "test_each_graph_has_the_rows_of_its_tenant",
    "test_a_row_that_moves_to_another_tenant_leaves_the_first_graph_and_arrives_in_the_second",
)
async def test_old_deleted_keys_are_pruned_by_the_graph_of_their_tenant_alone(saas: Saas) -> None:
    await saas.source(rows_of([1, 2, 3]))
    await both(saas)
    await saas.source("DELETE FROM task; INSERT INTO plan VALUES ('old', 1)")
    await both(saas)
    await saas.source("DELETE FROM plan WHERE code = 'old'")
    await saas.source("UPDATE sync_tombstone SET deleted_at = now() - interval '8 days'")
    left = "SELECT tenant, count(*) FROM sync_tombstone GROUP BY 1 ORDER BY 1"
    await saas.cycle(1)
    found = {row["tenant"]: row["count"] for row in await saas.source(left)}
    assert found == {"": 1, tenant(2): 3, tenant(3): 3}
    # What the first has pruned is nothing that the second has not read.
    second = await saas.cycle(2)
    assert (second.status, second.rescanned) == (CycleStatus.DRAINED, False)
    assert not await saas.target(2, "SELECT * FROM sync_comparison")
    await saas.cycle(2)
    found = {row["tenant"]: row["count"] for row in await saas.source(left)}
    assert found == {"": 1, tenant(3): 3}
    for number in (1, 2):
        assert (await saas.compared(number)).equal


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "none is given"),
        ("", "is no uuid"),
        ("7", "is no uuid"),
        (7, "is no uuid"),
        ("x' OR true --", "is no uuid"),
    ],
)
def test_a_value_that_is_no_tenant_is_refused(value: str | int | None, said: str) -> None:
    with pytest.raises(TenantInvalid, match=said) as refused:
        SyncEngine(saas_map()).of_tenant(value)
    assert not refused.value.retryable
    assert refused.value.fix
    assert "OR true" not in str(refused.value)


def test_a_map_without_tenants_takes_none() -> None:
    with pytest.raises(TenantInvalid, match="no table of the map has a `tenant`"):
        SyncEngine(KNOWLEDGE_GRAPH).of_tenant(tenant(1))
    engine = SyncEngine(KNOWLEDGE_GRAPH)
    assert engine.of_tenant(None) is engine


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("type_", "value", "other"),
    [("text", "o'Brien\\", "O'Brien\\"), ("varchar(20)", "é", "e"), ("bigint", 7, 70), ("smallint", -3, 3)],
)
async def test_tenants_of_other_types(
    new_database: Callable[..., str], tmp_path: Path, type_: str, value: str | int, other: str | int
) -> None:
    document = f"""
version: 1
name: other
tenant: {{column: "Whose is it", type: {type_}}}
tables:
  items: {{source: item, key: "Whose is it", types: {{"Whose is it": {type_}}}, columns: [title], stamped: false}}
"""
    document = document.replace('key: "Whose is it", types: {"Whose is it": ' + type_ + "}", "key: id")
    async with bare_graph(new_database, tmp_path) as stores:
        schema_map = read_map(document, source="x")
        connection = await stores.connect_write()
        await connection.execute(
            f'CREATE SCHEMA kg; CREATE TABLE kg.item (id text, "Whose is it" {type_}, title text,'
            ' UNIQUE (id, "Whose is it")); ALTER TABLE kg.item ALTER id SET NOT NULL'
        )
        await adopt(stores.write, "kg", schema_map)
        for whose, title in ((value, "ours"), (other, "theirs"), (None, "nobody's")):
            await connection.execute(
                f"INSERT INTO kg.item VALUES ('i', $1, '{title.replace(chr(39), '')}')", whose
            )
        await migrate_bookkeeping(stores.target, "kg")
        target = await stores.connect_target()
        await target.execute("CREATE TABLE kg.items (id uuid PRIMARY KEY, key text, title text)")
        engine = SyncEngine(schema_map).of_tenant(value)
        result = await engine.run_cycle(stores.context())
        assert [table.error for table in result.tables if table.error] == []
        assert await target.fetchval("SELECT string_agg(title, ',') FROM kg.items") == "ours"
        await connection.execute("DELETE FROM kg.item WHERE title = 'theirs'")
        assert (await engine.run_cycle(stores.context())).batches == 0
        await connection.execute("UPDATE kg.item SET \"Whose is it\" = NULL WHERE title = 'ours'")
        await engine.run_cycle(stores.context())
        assert await target.fetchval("SELECT count(*) FROM kg.items") == 0
        await connection.close()
        await target.close()


async def explained(saas: Saas, number: int, key: str) -> Explanation:
    context = saas.context(number)
    return await explain(
        context.write, context.target, context.vectors, saas.map_of(number), table="tasks", key=[key]
    )


OWNERS = """
CREATE TABLE tenant (id uuid PRIMARY KEY, name text);
CREATE TABLE currency (code text PRIMARY KEY);
CREATE TABLE rate (id uuid PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES tenant, currency text NOT NULL REFERENCES currency);
CREATE TABLE booking (
    tenant_id uuid NOT NULL REFERENCES tenant, number integer, rate_id uuid NOT NULL REFERENCES rate, above integer,
    PRIMARY KEY (tenant_id, number), FOREIGN KEY (tenant_id, above) REFERENCES booking
);
"""


async def test_a_map_is_proposed_by_the_column_of_the_tenant(saas: Saas) -> None:
    await saas.source(f"DROP TABLE task, project, label, customer, plan;{OWNERS}")
    write = GraphSchema(store=saas.stores.write, schema=SHARED)
    graph = GraphSchema(store=saas.stores.target, schema="made")
    with pytest.raises(InputInvalid, match="has a column 'tenant'"):
        await propose(write, graph, name="owned", tenant="tenant")
    proposal = await propose(write, graph, name="owned", tenant="tenant_id")
    proposed = read_map(proposal.document, source="x")
    assert {table.name: (table.tenant_column, table.key) for table in proposed} == {
        "tenant": ("id", ("id",)),
        "currency": (None, ("code",)),
        "rate": ("tenant_id", ("id",)),
        "booking": ("tenant_id", ("number",)),
    }
    assert {r.column: (r.parent, r.required) for r in proposed["booking"].references} == {
        "rate_id": ("rate", True),
        "above": ("booking", False),
        "tenant_id": ("tenant", True),
    }
    await create_targets(graph, proposal)
    await adopt(write.store, SHARED, proposed)
    fits = await check_map(of_tenant(proposed, tenant(1)), write, graph, text=proposal.document)
    assert fits.fits, fits.misfits
    await saas.source(
        f"INSERT INTO tenant VALUES ('{tenant(1)}', 'one'), ('{tenant(2)}', 'two'); INSERT INTO currency VALUES ('EUR');"
        f"INSERT INTO rate VALUES ('{task(1)}', '{tenant(1)}', 'EUR'), ('{task(2)}', '{tenant(2)}', 'EUR');"
        f"INSERT INTO booking VALUES ('{tenant(1)}', 1, '{task(1)}', NULL), ('{tenant(1)}', 2, '{task(1)}', 1),"
        f" ('{tenant(2)}', 1, '{task(2)}', NULL)"
    )
    context = replace(saas.context(1), target=graph)
    result = await SyncEngine(proposed).of_tenant(tenant(1)).run_cycle(context)
    assert ([t.error for t in result.tables if t.error], result.parked) == ([], 0)
    async with graph.store.driver() as connection:
        counts = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM made.tenant), (SELECT count(*) FROM made.booking),"
            " (SELECT count(above) FROM made.booking), (SELECT count(*) FROM made.currency)"
        )
    assert tuple(counts) == (1, 2, 1, 1)


async def test_map_check_says_what_of_a_tenant_does_not_fit(saas: Saas) -> None:
    await saas.source(
        "DROP TRIGGER capture_key ON label; ALTER TABLE label ALTER tenant_id TYPE text;"
        "ALTER TABLE project DROP COLUMN tenant_id CASCADE;"
    )
    context = saas.context(1)
    text = (EXAMPLE / "map.yaml").read_text()
    found = await check_map(saas.schema_map, context.write, context.target, text=text)
    said = {
        (misfit.table, misfit.path): misfit.problem for misfit in found.misfits if misfit.weight == "error"
    }
    assert "is text, and labels wants uuid" in said["labels", "tables.labels.tenant"]
    assert "saas.project.tenant_id is missing" in said["projects", "tables.projects.tenant"]


@pytest.mark.long(
    "test_each_graph_has_the_rows_of_its_tenant",
    "test_a_row_that_moves_to_another_tenant_leaves_the_first_graph_and_arrives_in_the_second",
)
async def test_a_source_that_is_partitioned_by_the_tenant(saas: Saas) -> None:
    await saas.source(
        "DROP TABLE label; CREATE TABLE label (id uuid, tenant_id uuid NOT NULL, name text NOT NULL,"
        " PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (tenant_id);"
        f"CREATE TABLE label_1 PARTITION OF label FOR VALUES IN ('{tenant(1)}');"
        "CREATE TABLE label_others PARTITION OF label DEFAULT"
    )
    assert await adopt(saas.stores.write, SHARED, saas.schema_map)
    assert await adopt(saas.stores.write, SHARED, saas.schema_map) == []
    await saas.source(rows_of([1, 2]))
    await both(saas)
    await saas.source(f"UPDATE label SET tenant_id = '{tenant(2)}', name = 'moved' WHERE name = 'urgent'")
    await both(saas)
    for number, names in ((1, None), (2, "moved,moved")):
        [[found]] = await saas.target(number, "SELECT string_agg(name, ',') FROM labels")
        assert found == names
        assert not (await saas.compared(number)).damaged
    await saas.source("TRUNCATE label_others")
    await both(saas)
    [[found]] = await saas.target(2, "SELECT count(*) FROM labels")
    assert found == 0
    assert await undo(saas.stores.write, SHARED, saas.schema_map)
    left = await saas.source("SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%sync_xid%'")
    assert left == []


def test_a_plugins_map_is_of_the_tenant_that_its_options_name() -> None:
    assert _of_its_tenant(KNOWLEDGE_GRAPH, "x") is KNOWLEDGE_GRAPH
    bound = _of_its_tenant(saas_map(), tenant(1))
    assert bound == of_tenant(saas_map(), tenant(1)) == _of_its_tenant(bound, None)
    for value in (None, True, {}, []):
        with pytest.raises(TenantInvalid):
            _of_its_tenant(saas_map(), value)
