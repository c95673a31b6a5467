"""Adoption on a real Postgres: existing tables become captured while in use, and are given back."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from syncline.capture.install.catalog import read_catalog
from syncline.capture.install.checks import check_source, check_target, types_of, uncaptured
from syncline.capture.install.install import adopt, plan_adoption, undo
from syncline.capture.install.locks import Patience
from syncline.capture.install.triggers import (
    earlier_tombstone_bodies,
    function_definition,
    tombstone_function,
)
from syncline.cli import app
from syncline.control.graphs import GraphDraft
from syncline.control.services import Services
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import run_cycle
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.render.tenants import deleted_keys_of
from syncline.engine.table_map import Column, Links, Reference, SchemaMap, TableMap
from syncline.errors import AdoptionBlocked, SchemaMismatch, SynclineError
from syncline.maps.document import write_map
from syncline.messages.sync import CycleStatus
from syncline.migrations import migrate_graph, migrate_write
from syncline.operator.health.tenancy import check_capture
from syncline.settings import load_settings
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, read
from tests.kit.cases import further

SHOP = SchemaMap(
    name="shop",
    tables=(
        TableMap(
            name="items",
            source="item",
            key=("sku",),
            columns=(Column(name="title"), Column(name="price", type="numeric(10, 2)")),
        ),
        TableMap(name="tags", source="tag", key=("name",)),
        TableMap(
            name="taggings",
            source="item_tag",
            key=("sku", "tag"),
            references=(
                Reference(column="sku", parent="items", required=True),
                Reference(column="tag", parent="tags", required=True),
            ),
        ),
    ),
)
TABLES = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.item (sku varchar(40) PRIMARY KEY, title text, price numeric(12, 2));
    CREATE TABLE shop.tag (name text PRIMARY KEY);
    CREATE TABLE shop.item_tag (sku text, tag text, PRIMARY KEY (tag, sku));
"""
ONCE = Patience(lock_timeout=0.5, attempts=1)


@pytest.fixture
def dsn(new_database: Callable[..., str]) -> str:
    return new_database()


@pytest_asyncio.fixture(loop_scope="session")
async def store(dsn: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore("write", SecretStr(dsn), pool_size=6, application_name="test")
    yield store
    await store.close()


@pytest_asyncio.fixture(loop_scope="session")
async def connect(dsn: str) -> AsyncIterator[Callable[..., Any]]:
    """A function that opens a writer's own connection."""
    opened: list[asyncpg.Connection] = []

    async def connect(**settings: str) -> asyncpg.Connection:
        opened.append(await asyncpg.connect(dsn, server_settings={"application_name": "shop", **settings}))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.terminate()


@pytest_asyncio.fixture(loop_scope="session")
async def writer(connect: Callable[..., Any]) -> asyncpg.Connection:
    """A writer in a database that has the shop's tables, with 1000 items."""
    connection = await connect()
    await connection.execute(TABLES)
    await connection.execute(
        "INSERT INTO shop.item SELECT 'sku ' || n, 'title', n FROM generate_series(1, 1000) AS n"
    )
    return connection


async def _everything(connection: asyncpg.Connection) -> list[tuple[object, ...]]:
    """Return all that a schema is made of, as its definitions."""
    ours = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
    rows = await connection.fetch(
        f"""
        SELECT 'schema', n.nspname, NULL, NULL FROM pg_namespace n WHERE {ours}
        UNION ALL
        SELECT c.relkind::text, c.oid::regclass::text,
               a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE {ours}
        UNION ALL
        SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid::text
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {ours}
        UNION ALL
        SELECT 'trigger', t.tgrelid::regclass::text, pg_get_triggerdef(t.oid), t.tgenabled::text
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {ours} AND NOT t.tgisinternal
        UNION ALL
        SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(o.oid)
        FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace WHERE {ours}
        UNION ALL
        SELECT 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid), p.proacl::text
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {ours} AND p.prokind = 'f'
        ORDER BY 1, 2, 3, 4
        """
    )
    return [tuple(row) for row in rows]


async def _touched(connection: asyncpg.Connection) -> list[tuple[object, ...]]:
    """Return every catalogue row that DDL would have replaced."""
    rows = await connection.fetch(
        "SELECT 'class', oid, xmin::text FROM pg_class UNION ALL SELECT 'proc', oid, xmin::text FROM pg_proc "
        "UNION ALL SELECT 'trigger', oid, xmin::text FROM pg_trigger "
        "UNION ALL SELECT 'attribute', attrelid, xmin::text FROM pg_attribute "
        "UNION ALL SELECT 'namespace', oid, xmin::text FROM pg_namespace ORDER BY 1, 2, 3"
    )
    return [tuple(row) for row in rows]


async def _tombstones(connection: asyncpg.Connection, schema: str = "shop") -> list[tuple[str, list[str]]]:
    each = deleted_keys_of(None, f"{schema}.sync_tombstone", rows="true")
    rows = await connection.fetch(f"SELECT source_table, key FROM {each} ORDER BY sync_xid, seq")
    return [(row["source_table"], row["key"]) for row in rows]


async def _in_transaction(connection: asyncpg.Connection, *statements: str) -> int:
    """Run the statements in one transaction and return its id."""
    async with connection.transaction():
        for statement in statements:
            await connection.execute(statement)
        return int(await connection.fetchval("SELECT pg_current_xact_id()::text"))


async def _stamps(connection: asyncpg.Connection, table: str = "shop.item") -> dict[int, int]:
    rows = await connection.fetch(f"SELECT sync_xid::text, count(*) AS n FROM {table} GROUP BY sync_xid")
    return {int(row["sync_xid"]): row["n"] for row in rows}


async def _until(condition: Callable[[], Any]) -> Any:
    """Return what the condition gives, once that is something."""
    async with asyncio.timeout(60):
        while not (found := await condition()):  # noqa: ASYNC110 # it comes about in Postgres
            await asyncio.sleep(0.01)
    return found


# What it does


async def test_an_existing_table_is_adopted_without_a_rewrite_and_its_rows_are_of_transaction_0(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    file = "SELECT pg_relation_filenode('shop.item')"
    before = await writer.fetchval(file)
    await adopt(store, "shop", SHOP)
    assert await writer.fetchval(file) == before
    assert await _stamps(writer) == {0: 1000}


async def test_a_write_after_adoption_is_stamped_whatever_the_writer_says(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await adopt(store, "shop", SHOP)
    inserted = await _in_transaction(writer, "INSERT INTO shop.item (sku, sync_xid) VALUES ('new', '7')")
    updated = await _in_transaction(writer, "UPDATE shop.item SET title = 'other' WHERE price <= 10")
    assert await _stamps(writer) == {0: 990, inserted: 1, updated: 10}


async def test_a_stamp_from_elsewhere_is_replaced(store: PostgresStore, writer: asyncpg.Connection) -> None:
    """The default stamps most rows: the trigger stamps those that bring another one, or none."""
    await adopt(store, "shop", SHOP)
    await writer.execute("DELETE FROM shop.item")
    named = "INSERT INTO shop.item (sku, title, sync_xid) VALUES ('{}', 'x', '{}')"
    inserted = await _in_transaction(writer, named.format("a", 0), named.format("b", 2**40))
    async with writer.transaction():
        copied = await writer.fetchval("SELECT pg_current_xact_id()::text::bigint")
        await writer.copy_records_to_table(
            "item", schema_name="shop", columns=["sku", "title", "sync_xid"], records=[("c", "x", 3)]
        )
    updated = await _in_transaction(writer, "UPDATE shop.item SET sync_xid = '5' WHERE sku = 'a'")
    await writer.execute("ALTER TABLE shop.item ALTER sync_xid DROP DEFAULT, ALTER sync_xid SET DEFAULT '0'")
    late = await _in_transaction(writer, "INSERT INTO shop.item (sku, title) VALUES ('d', 'x')")
    assert await _stamps(writer) == {inserted: 1, copied: 1, updated: 1, late: 1}


async def test_capture_looks_for_nothing_in_the_writers_search_path(
    store: PostgresStore, writer: asyncpg.Connection, connect: Callable[..., Any]
) -> None:
    await adopt(store, "shop", SHOP)
    operators = [
        *((name, "text") for name in ("=", "<>", "||")),
        *((name, "timestamptz") for name in ("<", ">")),
        *((name, "bigint") for name in ("=", "/", "-", "+")),
        *((name, "xid8") for name in ("=", "<>")),
    ]
    await writer.execute(
        "CREATE SCHEMA evil; CREATE DOMAIN evil.text AS pg_catalog.text CHECK (length(VALUE) > 1000)"
    )
    for number, (name, of) in enumerate(operators):
        gives = "pg_catalog.text" if name == "||" else "bigint" if name in "/-+" else "boolean"
        type_ = "pg_catalog.text" if of == "text" else of
        await writer.execute(
            f"CREATE FUNCTION evil.f{number}({type_}, {type_}) RETURNS {gives} LANGUAGE plpgsql"
            " AS 'BEGIN RAISE EXCEPTION ''ran''; END';"
            f"CREATE OPERATOR evil.{name} (LEFTARG = {type_}, RIGHTARG = {type_}, FUNCTION = evil.f{number})"
        )
    for name, gives in (
        ("clock_timestamp", "timestamptz"),
        ("pg_current_xact_id", "xid8"),
        ("row_number", "bigint"),
    ):
        await writer.execute(
            f"CREATE FUNCTION evil.{name}() RETURNS {gives} LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''ran''; END'"
        )
    await writer.execute("INSERT INTO syncline.listener VALUES ('x', 'infinity', '3')")
    stranger = await connect(search_path="evil, pg_catalog")
    try:
        with pytest.raises(asyncpg.RaiseError, match="ran"):
            await stranger.execute("SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text")
        await stranger.execute("INSERT INTO shop.item VALUES ('a', 'x'), ('b', 'x'), ('c', 'x')")
        await stranger.execute("UPDATE shop.item SET sku = 'd' WHERE sku OPERATOR(pg_catalog.=) 'a'")
        await stranger.execute("DELETE FROM shop.item")
        await stranger.execute("TRUNCATE shop.item")
    finally:
        await stranger.close()
    assert len(await _tombstones(writer)) == 1004


@pytest.mark.parametrize("condition", ["", "WHEN (NEW.sync_xid IS DISTINCT FROM pg_current_xact_id())"])
async def test_capture_of_an_earlier_release_is_noticed_replaced_and_misses_nothing(
    store: PostgresStore, writer: asyncpg.Connection, condition: str
) -> None:
    await adopt(store, "shop", SHOP)
    async with store.driver() as connection:
        catalog = await read_catalog(connection, "shop", types=types_of(SHOP))
    tables = {table.source: (catalog.tables[table.source], table.key) for table in SHOP}
    for source, (table, key) in tables.items():
        [earlier] = earlier_tombstone_bodies(table, key)
        await writer.execute(
            f"{function_definition(tombstone_function(table), earlier)};"
            f"DROP TRIGGER capture_version ON shop.{source}; DROP TRIGGER capture_update ON shop.{source};"
            f"CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON shop.{source} FOR EACH ROW {condition} "
            f"EXECUTE FUNCTION shop.capture_version(); ALTER TABLE shop.{source} ENABLE ALWAYS TRIGGER capture_version;"
            "ALTER TABLE shop.sync_tombstone ALTER key SET STORAGE EXTENDED"
        )
    await writer.execute("DELETE FROM shop.item WHERE price <= 20")
    epoch = await writer.fetchval("SELECT 'shop.sync_tombstone'::regclass::oid")
    async with store.driver() as connection:
        catalog = await read_catalog(connection, "shop", types=types_of(SHOP))
        assert uncaptured(catalog, SHOP) == []
    [told] = await check_capture("write-db", store, {"shop": "shop"})
    assert told.status == "warn"
    assert told.fix is not None
    assert "graph adopt" in told.fix
    assert len(await adopt(store, "shop", SHOP)) == 1 + len(tables)
    assert await adopt(store, "shop", SHOP) == []
    await writer.execute("UPDATE shop.item SET title = 'later' WHERE price = 900")
    assert await writer.fetchval("SELECT sync_xid > '0' FROM shop.item WHERE price = 900")
    [told] = await check_capture("write-db", store, {"shop": "shop"})
    assert told.status == "ok"
    await writer.execute("DELETE FROM shop.item WHERE price <= 40")
    assert await writer.fetchval("SELECT count(*) FROM shop.sync_tombstone") == 20 + 9
    assert await writer.fetchval("SELECT 'shop.sync_tombstone'::regclass::oid") == epoch
    assert sorted(key for _, key in await _tombstones(writer)) == sorted([f"sku {n}"] for n in range(1, 41))
    # A condition that is not ours lets changes escape.
    await writer.execute(
        "DROP TRIGGER capture_version ON shop.item; CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON shop.item "
        "FOR EACH ROW WHEN (NEW.sku IS NULL) EXECUTE FUNCTION shop.capture_version()"
    )
    async with store.driver() as connection:
        catalog = await read_catalog(connection, "shop", types=types_of(SHOP))
        assert len(uncaptured(catalog, SHOP)) == 1


async def test_deleting_many_rows_leaves_each_key_packed_with_the_deleting_transaction(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await adopt(store, "shop", SHOP)
    deleted = await _in_transaction(writer, "DELETE FROM shop.item WHERE price <= 500")
    rows = await writer.fetch("SELECT * FROM shop.sync_tombstone")
    assert {row["source_table"] for row in rows} == {"item"}
    assert {row["sync_xid"] for row in rows} == {deleted}
    assert len(rows) == 9
    keys = [key for _, key in await _tombstones(writer)]
    assert sorted(keys) == sorted([f"sku {n}"] for n in range(1, 501))


async def test_a_delete_that_is_rolled_back_or_finds_nothing_leaves_no_tombstone(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await adopt(store, "shop", SHOP)
    await writer.execute("DELETE FROM shop.item WHERE sku = 'none'")
    await writer.execute("BEGIN; DELETE FROM shop.item; ROLLBACK")
    assert await _tombstones(writer) == []


async def test_a_changed_key_leaves_a_tombstone_of_the_old_one(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await adopt(store, "shop", SHOP)
    await writer.execute("INSERT INTO shop.item_tag VALUES ('sku 1', 'red'), ('sku 2', 'red')")
    await writer.execute("UPDATE shop.item_tag SET tag = 'RED' WHERE sku = 'sku 1'")
    await writer.execute("UPDATE shop.item_tag SET tag = tag, sku = sku")
    await writer.execute("UPDATE shop.item SET title = 'other'")
    # In the order of the map's key, which is not the order of the table's.
    assert await _tombstones(writer) == [("item_tag", ["sku 1", "red"])]


async def test_a_key_that_another_trigger_changes_leaves_a_tombstone_too(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await adopt(store, "shop", SHOP)
    await writer.execute(
        "CREATE FUNCTION shop.lower() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.sku := upper(NEW.sku); RETURN NEW; END $$;"
        "CREATE TRIGGER a BEFORE UPDATE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.lower()"
    )
    await writer.execute("UPDATE shop.item SET title = 'other' WHERE sku = 'sku 1'")
    assert await _tombstones(writer) == [("item", ["sku 1"])]


async def test_truncating_leaves_a_tombstone_of_every_row(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await adopt(store, "shop", SHOP)
    await writer.execute("INSERT INTO shop.tag VALUES ('a'), ('b'); TRUNCATE shop.tag, shop.item")
    tombstones = await _tombstones(writer)
    assert len(tombstones) == 1002
    assert [key for table, key in tombstones if table == "tag"] == [["a"], ["b"]]


async def test_a_writer_needs_no_rights_but_those_on_its_own_table(
    store: PostgresStore, writer: asyncpg.Connection, connect: Callable[..., Any]
) -> None:
    await adopt(store, "shop", SHOP)
    role = f"clerk_{os.getpid()}"
    await writer.execute(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA shop TO {role};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON shop.item TO {role}"
    )
    clerk = await connect(search_path="")
    try:
        await clerk.execute(f"SET ROLE {role}")
        # An own table of that name must not catch what is written for ours.
        await clerk.execute("CREATE TEMP TABLE sync_tombstone (source_table text, key text[])")
        await clerk.execute("INSERT INTO shop.item VALUES ('a', 'x'), ('b', 'x'), ('c', 'x')")
        await clerk.execute("UPDATE shop.item SET sku = 'd' WHERE sku = 'a'")
        await clerk.execute("DELETE FROM shop.item WHERE sku = 'b'")
        assert await _tombstones(writer) == [("item", ["a"]), ("item", ["b"])]
        await clerk.execute("TRUNCATE shop.item")
        assert len(await _tombstones(writer)) == 1004
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await clerk.execute("SELECT FROM shop.sync_tombstone")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await clerk.execute(
                "CREATE TEMP TABLE forged (sku text, sync_xid xid8);"
                "CREATE TRIGGER t AFTER UPDATE ON forged FOR EACH ROW "
                "EXECUTE FUNCTION shop.sync_tombstone_item()"
            )
    finally:
        await clerk.close()
        await writer.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_key_of_a_megabyte_can_be_deleted(store: PostgresStore, writer: asyncpg.Connection) -> None:
    # So long a key has no place in its own table's index either, unless it compresses well.
    await adopt(store, "shop", SHOP)
    await writer.execute("INSERT INTO shop.tag VALUES (repeat('x', 100000))")
    await writer.execute("DELETE FROM shop.tag")
    assert await _tombstones(writer) == [("tag", ["x" * 100_000])]


async def test_the_index_is_used_for_the_engines_order(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await adopt(store, "shop", SHOP)
    await writer.execute("ANALYZE shop.item; SET enable_sort = off")
    plan = await writer.fetch(
        "EXPLAIN SELECT * FROM shop.item WHERE "
        "(sync_xid, \"sku\" COLLATE \"C\") > ('0'::xid8, 'sku 7'::text) "
        'ORDER BY sync_xid, "sku" COLLATE "C" LIMIT 10'
    )
    text = "\n".join(row[0] for row in plan)
    assert "Index Scan using item_sync" in text
    assert "Index Cond: (ROW(sync_xid" in text
    assert "Sort" not in text


# Again, dry, back, and interrupted


async def test_adopting_twice_changes_nothing(store: PostgresStore, writer: asyncpg.Connection) -> None:
    assert len(await adopt(store, "shop", SHOP)) == 11
    before = await _touched(writer)
    assert await adopt(store, "shop", SHOP) == []
    assert await _touched(writer) == before


async def test_fresh_tables_get_their_capture_from_adoption(store: PostgresStore) -> None:
    await migrate_write(store, "kg")
    async with store.driver() as connection:
        assert (await plan_adoption(connection, "kg", KNOWLEDGE_GRAPH)).steps == ()
        assert await connection.fetchval(
            "SELECT count(*) FROM pg_trigger WHERE tgname = 'capture_delete'"
        ) == len(KNOWLEDGE_GRAPH.tables)


async def test_planning_changes_nothing(store: PostgresStore, writer: asyncpg.Connection) -> None:
    before = await _touched(writer)
    async with store.driver() as connection:
        plan = await plan_adoption(connection, "shop", SHOP)
    assert await _touched(writer) == before
    assert [step.sentence for step in plan.steps] == [
        "Create the function that stamps rows, shop.capture_version().",
        (
            "Create table shop.sync_tombstone for the keys of deleted rows"
            " and shop.sync_position to detect a restore to an earlier time."
        ),
        "Create table syncline.listener, in which workers register that they listen.",
        "Create function syncline.token(), by which writers name their transaction.",
        "Create table and function shop.sync_notify, which notify workers of changes.",
        *(
            sentence
            for table in ("item", "tag", "item_tag")
            for sentence in (
                (
                    f"Capture every change of table shop.{table}: "
                    "column sync_xid, triggers for versions, for deletes and for notifications."
                ),
                f"Build index {table}_sync on shop.{table}.",
            )
        ),
    ]


async def test_a_plan_can_be_carried_out_by_hand(store: PostgresStore, writer: asyncpg.Connection) -> None:
    async with store.driver() as connection:
        for step in (await plan_adoption(connection, "shop", SHOP)).steps:
            if step.alone:
                for statement in step.statements:
                    await writer.execute(statement)
            else:
                await writer.execute(step.script)
        assert (await plan_adoption(connection, "shop", SHOP)).steps == ()


async def test_undo_restores_the_exact_catalog_and_keeps_the_rows_and_adoption_works_again(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    before = await _everything(writer)
    await adopt(store, "shop", SHOP)
    adopted = await _everything(writer)
    assert adopted != before
    epoch = await writer.fetchval("SELECT 'shop.sync_tombstone'::regclass::oid")
    await writer.execute(
        "DELETE FROM shop.item WHERE price > 900; UPDATE shop.item SET title = 'x' WHERE price < 3"
    )
    assert await undo(store, "shop", SHOP)
    assert await _everything(writer) == before
    assert await undo(store, "shop", SHOP) == []
    assert await writer.fetchval("SELECT count(*) FROM shop.item") == 900
    await adopt(store, "shop", SHOP)
    assert await _everything(writer) == adopted
    assert await _stamps(writer) == {0: 900}
    assert await writer.fetchval("SELECT 'shop.sync_tombstone'::regclass::oid") != epoch


async def test_undo_leaves_what_another_graph_uses(store: PostgresStore, writer: asyncpg.Connection) -> None:
    await migrate_write(store, "kg")
    before = await _everything(writer)
    await adopt(store, "shop", SHOP)
    await undo(store, "shop", SHOP)
    assert await _everything(writer) == before
    await writer.execute("INSERT INTO kg.write_facts (id, content) VALUES ('f', 'c')")


async def test_undo_reaches_tables_that_have_left_the_map(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    before = await _everything(writer)
    await adopt(store, "shop", SHOP)
    await undo(store, "shop", SchemaMap(name="smaller", tables=SHOP.tables[:1]))
    assert await _everything(writer) == before


async def test_two_adoptions_at_once_do_it_once(store: PostgresStore, writer: asyncpg.Connection) -> None:
    done = await asyncio.gather(*(adopt(store, "shop", SHOP) for _ in range(4)))
    assert sorted(map(len, done)) == [0, 0, 0, 11]


async def test_schemas_are_adopted_side_by_side(store: PostgresStore, writer: asyncpg.Connection) -> None:
    for number in range(3):
        await writer.execute(TABLES.replace("shop", f"shop_{number}"))
    done = await asyncio.gather(*(adopt(store, f"shop_{number}", SHOP) for number in range(3)))
    # Each may have planned what they share, and then found it there.
    assert {len(steps) for steps in done} <= {8, 9, 10, 11}
    for number in range(3):
        assert await adopt(store, f"shop_{number}", SHOP) == []


class _Interrupted(Exception):
    pass


@pytest.mark.long(after=1)
@pytest.mark.parametrize("after", [0, 5, 9, *further(1, 2, 3, 4, 6, 7, 8)])
async def test_an_interrupted_adoption_is_finished_by_the_next(
    store: PostgresStore, writer: asyncpg.Connection, after: int
) -> None:
    taken = 0

    def interrupt(_: object) -> None:
        nonlocal taken
        taken += 1
        if taken > after:
            raise _Interrupted

    with pytest.raises(_Interrupted):
        await adopt(store, "shop", SHOP, on_step=interrupt)
    await adopt(store, "shop", SHOP)
    async with store.driver() as connection:
        assert (await plan_adoption(connection, "shop", SHOP)).steps == ()
    await writer.execute("DELETE FROM shop.item")
    assert len(await _tombstones(writer)) == 1000


async def test_an_index_whose_build_was_interrupted_is_built_again(
    store: PostgresStore, writer: asyncpg.Connection, connect: Callable[..., Any]
) -> None:
    await adopt(store, "shop", SHOP)
    await writer.execute("DROP INDEX shop.item_sync")
    reader = await connect()
    await reader.execute("BEGIN; DELETE FROM shop.item WHERE price = 1")
    build = asyncio.create_task(adopt(store, "shop", SHOP))
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%' AND wait_event_type = 'Lock'"
    )
    pid = await _until(lambda: writer.fetchval(waiting))
    await writer.execute("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(Exception, match=r"terminat|closed"):
        await build
    await reader.execute("ROLLBACK")
    assert await writer.fetchval(
        "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = 'shop.item_sync'::regclass"
    )
    [step] = await adopt(store, "shop", SHOP)
    assert step.sentence == "Build index item_sync on shop.item again, because its build was interrupted."
    assert await writer.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'shop.item_sync'::regclass"
    )


async def test_an_index_that_serves_as_well_is_left_and_used(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await adopt(store, "shop", SHOP)
    await writer.execute("ALTER INDEX shop.item_sync RENAME TO my_index")
    assert await adopt(store, "shop", SHOP) == []


async def test_an_index_name_that_is_taken_is_not_taken_away(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await writer.execute("CREATE TABLE shop.item_sync (id int)")
    await adopt(store, "shop", SHOP)
    assert await adopt(store, "shop", SHOP) == []
    assert (
        await writer.fetchval("SELECT relkind FROM pg_class WHERE oid = 'shop.item_sync'::regclass") == b"r"
    )


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE shop.item DISABLE TRIGGER capture_version",
        "DROP TRIGGER capture_delete ON shop.item",
        "DROP FUNCTION shop.sync_tombstone_item() CASCADE",
        (
            "CREATE OR REPLACE FUNCTION shop.sync_tombstone_item() RETURNS trigger LANGUAGE plpgsql "
            "AS $$ BEGIN RETURN NULL; END $$"
        ),
        "DROP TABLE shop.item; CREATE TABLE shop.item (sku text PRIMARY KEY, title text, price numeric)",
    ],
)
async def test_capture_that_had_a_gap_begins_a_new_epoch(
    store: PostgresStore, writer: asyncpg.Connection, damage: str
) -> None:
    await adopt(store, "shop", SHOP)
    epoch = await writer.fetchval("SELECT 'shop.sync_tombstone'::regclass::oid")
    sound = await _everything(writer)
    await writer.execute(damage)
    async with store.driver() as driver:
        [sentence] = uncaptured(await read_catalog(driver, "shop", types=types_of(SHOP)), SHOP)
    assert sentence.startswith("shop.item is not captured, so changes would be missed")
    await adopt(store, "shop", SHOP)
    assert await writer.fetchval("SELECT 'shop.sync_tombstone'::regclass::oid") != epoch
    if "DROP TABLE" not in damage:
        assert await _everything(writer) == sound
    await writer.execute(
        "INSERT INTO shop.item (sku) VALUES ('gone'); DELETE FROM shop.item WHERE sku = 'gone'"
    )
    assert await _tombstones(writer) == [("item", ["gone"])]


async def test_tables_of_release_0_1_keep_their_stamps_and_begin_a_new_epoch(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await writer.execute(
        "CREATE SCHEMA syncline;"
        "CREATE FUNCTION syncline.capture_version() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        "BEGIN\n    NEW.sync_xid := pg_current_xact_id();\n    RETURN NEW;\nEND\n$$;"
        "ALTER TABLE shop.item ADD sync_xid xid8 NOT NULL DEFAULT pg_current_xact_id();"
        'CREATE INDEX item_sync ON shop.item (sync_xid, sku COLLATE "C");'
        "CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON shop.item "
        "FOR EACH ROW EXECUTE FUNCTION syncline.capture_version()"
    )
    before = await _stamps(writer)
    steps = await adopt(store, "shop", SchemaMap(name="items", tables=SHOP.tables[:1]))
    assert await _stamps(writer) == before
    assert len(steps) == 6
    # The one that called the function of all schemas calls that of this one.
    assert steps[-1].script.count("DROP TRIGGER") == 1
    # Made last, when nothing can be missed any more.
    assert "CREATE TABLE" in steps[-1].statements[-1]


async def test_deleted_keys_that_no_cycle_has_read_outlive_another_adoption(graph: TestGraph) -> None:
    connection = await graph.connect_write()
    nodes = [(n, n, n) for n in ("a", "b", "c", "stays")]
    try:
        await connection.executemany("INSERT INTO write_nodes (id, concept) VALUES ($1, $2 || $3)", nodes)
        await run_cycle(graph.context())
        await connection.execute("DELETE FROM write_nodes WHERE id <> 'stays'")
        await connection.execute("UPDATE sync_tombstone SET sync_xid = '4000000000' WHERE key = '{c}'")
        epoch = await connection.fetchval("SELECT 'sync_tombstone'::regclass::oid")
        for other in ("write_edges", "write_llm_usage"):
            await connection.execute(f"DROP TRIGGER capture_delete ON {other}")
        await adopt(graph.write, "kg", KNOWLEDGE_GRAPH)
        assert await connection.fetchval("SELECT 'sync_tombstone'::regclass::oid") != epoch
        assert await _tombstones(connection, "kg") == [("write_nodes", [n]) for n in ("a", "b", "c")]
        result = await run_cycle(graph.context())
        assert (result.status, result.rescanned) == (CycleStatus.DRAINED, True)
    finally:
        await connection.close()
    assert [row["key"] for row in await read(graph, "SELECT key FROM nodes")] == ["stays"]


async def test_deletes_between_two_steps_of_a_first_adoption_are_kept(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await adopt(store, "shop", SHOP)
    await writer.execute("DROP TABLE shop.sync_tombstone; ALTER TABLE shop.tag DROP COLUMN sync_xid CASCADE")
    await writer.execute("DROP TRIGGER capture_key ON shop.item; DROP TRIGGER capture_key ON shop.item_tag")
    async with store.driver() as connection:
        steps = (await plan_adoption(connection, "shop", SHOP)).steps
    for step in steps:
        for statement in step.statements if step.alone else (step.script,):
            await writer.execute(statement)
        if "table shop.item:" in step.sentence:
            await writer.execute("DELETE FROM shop.item WHERE sku = 'sku 1'")
    assert await _tombstones(writer) == [("item", ["sku 1"])]


# Beside writers


async def test_a_table_that_is_in_use_is_given_up_soon_named_with_its_holder_and_adopted_later(
    store: PostgresStore, writer: asyncpg.Connection, connect: Callable[..., Any]
) -> None:
    holder, queued = await connect(application_name="nightly job"), await connect()
    await holder.execute("BEGIN; UPDATE shop.item SET title = 'held' WHERE price = 1")
    started = monotonic()
    adoption = asyncio.create_task(adopt(store, "shop", SHOP, patience=ONCE))
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
    await _until(lambda: writer.fetchval(waiting))
    write_began = monotonic()
    await queued.execute("UPDATE shop.item SET title = 'queued' WHERE price = 2")
    waited = monotonic() - write_began
    with pytest.raises(AdoptionBlocked) as blocked:
        await adoption
    # Neither would end before the holder does, otherwise.
    assert monotonic() - started < 100
    assert waited < 100
    assert f"pid {holder.get_server_pid()} ('nightly job', idle in transaction, for " in str(blocked.value)
    assert "shop.item" in str(blocked.value)
    assert await writer.fetchval(waiting) == 0
    # What came before the blocked step is done, and nothing of the step itself.
    assert "sync_xid" not in str(await _everything(writer)).partition("sync_tombstone")[0]
    await holder.execute("COMMIT")
    await adopt(store, "shop", SHOP, patience=ONCE)
    assert (await _stamps(writer))[0] == 1000


async def test_a_table_that_becomes_free_between_two_attempts_is_adopted(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await writer.execute("BEGIN; UPDATE shop.item SET title = 'held' WHERE price = 1")
    patience = Patience(lock_timeout=0.1, attempts=200, pause=0.1)
    adoption = asyncio.create_task(adopt(store, "shop", SHOP, patience=patience))
    await asyncio.sleep(0.7)
    assert not adoption.done()
    await writer.execute("COMMIT")
    assert len(await adoption) == 11


async def test_an_index_that_waits_for_a_transaction_says_for_whose_and_keeps_no_writer_waiting(
    store: PostgresStore,
    writer: asyncpg.Connection,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("syncline.capture.install.locks._SILENCE", 0.1)
    holder = await connect(application_name="long report")
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class")
    told: asyncio.Queue[str] = asyncio.Queue()
    adoption = asyncio.create_task(adopt(store, "shop", SHOP, on_wait=told.put_nowait))
    async with asyncio.timeout(20):
        sentence = await told.get()
    assert sentence.startswith(
        f"Still waiting for pid {holder.get_server_pid()} ('long report', idle in transaction"
    )
    assert sentence.endswith("Build index item_sync on shop.item.")
    async with asyncio.timeout(30):
        await writer.execute("UPDATE shop.item SET title = 'meanwhile'")
    await holder.execute("COMMIT")
    await adoption


async def test_writers_go_on_all_the_time_and_everything_they_write_afterwards_is_captured(
    store: PostgresStore, writer: asyncpg.Connection, connect: Callable[..., Any]
) -> None:
    stop = asyncio.Event()
    writes = [0, 0, 0]

    async def write(number: int) -> None:
        connection = await connect()
        while not stop.is_set():
            n = writes[number]
            async with connection.transaction():
                await connection.execute("INSERT INTO shop.item (sku, price) VALUES ($1, 0)", f"{number} {n}")
                await connection.execute(
                    "UPDATE shop.item SET title = $2 WHERE sku = $1", f"{number} {n // 2}", str(n)
                )
                await connection.execute("DELETE FROM shop.item WHERE sku = $1", f"{number} {n - 50}")
            writes[number] += 1

    async def until_each_wrote(count: int) -> None:
        async def wrote() -> bool:
            for task in writers:
                if task.done():
                    task.result()
            return min(writes) >= count

        await _until(wrote)

    writers = [asyncio.create_task(write(number)) for number in range(3)]
    await until_each_wrote(60)
    await adopt(store, "shop", SHOP, patience=Patience(attempts=60, pause=0.1))
    adopted = int(await writer.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))
    # Whatever was there before is of transaction 0, and whatever is written now has its transaction's stamp.
    first = [n + 1 for n in writes]
    await until_each_wrote(max(first) + 60)
    stop.set()
    await asyncio.gather(*writers)
    for number, began in enumerate(first):
        later = await writer.fetch(
            "SELECT sync_xid::text FROM shop.item WHERE sku LIKE $1 || ' %' "
            "AND split_part(sku, ' ', 2)::int >= $2",
            str(number),
            began,
        )
        assert len(later) >= 50
        assert all(int(row["sync_xid"]) >= adopted for row in later)
        deleted = {key[0] for table, key in await _tombstones(writer) if key[0].startswith(f"{number} ")}
        assert {f"{number} {n}" for n in range(began, writes[number] - 50)} <= deleted
    # A row that left before adoption has neither: it was never captured.
    assert await writer.fetchval("SELECT count(*) FROM shop.item WHERE sync_xid IS NULL") == 0


async def test_a_lock_on_many_partitions_keeps_writers_waiting_no_longer_than_one_lock(
    store: PostgresStore, parted: asyncpg.Connection, connect: Callable[..., Any]
) -> None:
    # One after the other they become free, each before the patience for its own lock ends.
    holders = [await connect() for _ in range(3)]
    for holder, partition in zip(
        holders, ("shop.part_north", "cellar.part_south", "shop.part_rest_0"), strict=True
    ):
        await holder.execute(f"BEGIN; LOCK TABLE {partition} IN ACCESS SHARE MODE")
    patience = Patience(lock_timeout=0.6, attempts=1)
    started = monotonic()
    adoption = asyncio.create_task(adopt(store, "shop", PARTS, patience=patience))
    while not await parted.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    for holder in holders:
        await asyncio.sleep(0.4)
        await holder.execute("COMMIT")
    with pytest.raises(AdoptionBlocked, match=r"table shop\.part:"):
        await adoption
    assert monotonic() - started < 100
    await adopt(store, "shop", PARTS, patience=ONCE)


# What it refuses


async def test_everything_that_does_not_fit_is_named_at_once_and_nothing_is_changed(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    schema_map = SchemaMap(
        name="wrong",
        tables=(
            TableMap(
                name="items",
                source="item",
                key=("sku",),
                columns=(
                    Column(name="price", type="double precision"),
                    Column(name="made", type="timestamptz"),
                    Column(name="size", type="int4"),
                ),
                source_only=(Column(name="weird", type="no_such_type"), Column(name="title")),
                present="nonsense > 1",
            ),
            TableMap(name="nothing", source="absent"),
            TableMap(name="tags", source="tag", key=("label",), columns=(Column(name="j", type="jsonb"),)),
            TableMap(
                name="colours",
                source="colour",
                references=(Reference(column="tag", parent="tags", required=False),),
                links=(
                    Links(table="a", source="items", owner="o", member="m", parent="items"),
                    Links(table="b", source="others", owner="o", member="m", parent="items"),
                ),
            ),
            TableMap(name="seen", source="seen"),
        ),
    )
    await writer.execute(
        "ALTER TABLE shop.item ADD made timestamp, ADD size bigint, ADD sync_xid bigint;"
        "ALTER TABLE shop.tag ADD j json, ADD label text;"
        "CREATE TABLE shop.colour (id uuid PRIMARY KEY, tag char(3), items text, others varchar[]);"
        "CREATE VIEW shop.seen AS SELECT 'x' AS id"
    )
    before = await _touched(writer)
    with pytest.raises(SchemaMismatch) as mismatch:
        await adopt(store, "shop", schema_map)
    assert await _touched(writer) == before
    assert list(mismatch.value.problems) == [
        (
            "shop.item.price is numeric, and items wants double precision; "
            "change the column to double precision, or the map to numeric."
        ),
        (
            "shop.item.made is timestamp without time zone, and items wants timestamp with time zone; "
            "change the column to timestamp with time zone, or the map to timestamp without time zone."
        ),
        (
            "shop.item.size is bigint, and items wants integer; "
            "change the column to integer, or the map to bigint."
        ),
        "items wants shop.item.weird to be no_such_type, a type that this database does not have.",
        "shop.item.sync_xid is bigint, but capture needs xid8; rename or drop it.",
        "Table shop.absent is missing; nothing is made from it.",
        "shop.tag.j is json, and tags wants jsonb; change the column to jsonb, or the map to json.",
        "shop.tag.label allows NULL and is part of the key; set it NOT NULL.",
        "shop.tag has no primary key or unique index on exactly (label); add one.",
        "shop.colour.id is uuid, and colours wants text; change the column to text, or the map to uuid.",
        (
            "shop.colour.items is text, and colours wants text[]; "
            "change the column to text[], or the map to text."
        ),
        (
            "shop.colour.others is character varying[], and colours wants text[]; "
            "change the column to text[], or the map to character varying[]."
        ),
        "shop.seen is a view, whose changes triggers cannot capture; name an ordinary table.",
    ]
    for problem in mismatch.value.problems:
        assert problem in str(mismatch.value)


async def test_a_condition_that_names_a_missing_column_is_refused(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    tags = TableMap(name="tags", source="tag", key=("name",), present="visible AND name <> ''")
    with pytest.raises(
        SchemaMismatch, match=r'tags: its condition .* is refused: .*column "visible" does not exist'
    ):
        await adopt(store, "shop", SchemaMap(name="visible", tables=(tags,)))


async def test_aliases_lengths_domains_and_enums_are_no_mismatch(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await writer.execute(
        "CREATE TYPE shop.mood AS ENUM ('good', 'bad');"
        "CREATE DOMAIN shop.label AS varchar(20); CREATE DOMAIN shop.short AS shop.label CHECK (VALUE <> '');"
        "CREATE TABLE shop.odd (id name PRIMARY KEY, m shop.mood, l shop.short, c char(3), "
        "d timestamptz(3), i int4, f float8, n numeric(8, 2), v varchar(9))"
    )
    columns = {
        **dict.fromkeys("mlcv", "text"),
        "d": "timestamp with time zone",
        "i": "int",
        "f": "float",
        "n": "decimal(4,1)",
    }
    odd = TableMap(
        name="odd",
        source="odd",
        columns=tuple(Column(name=name, type=kind) for name, kind in columns.items()),
    )
    await adopt(store, "shop", SchemaMap(name="odd", tables=(odd,)))


@pytest.mark.parametrize("kind", ["shop.mood", "char(3)"])
async def test_a_key_that_does_not_compare_as_text_is_refused(
    store: PostgresStore, writer: asyncpg.Connection, kind: str
) -> None:
    await writer.execute(
        f"CREATE TYPE shop.mood AS ENUM ('good', 'bad'); CREATE TABLE shop.odd (id {kind} PRIMARY KEY)"
    )
    with pytest.raises(
        SchemaMismatch, match="are compared byte by byte; change it to text or character varying"
    ):
        await adopt(store, "shop", SchemaMap(name="odd", tables=(TableMap(name="odd", source="odd"),)))


async def test_a_trigger_of_the_products_own_is_not_replaced(
    store: PostgresStore, writer: asyncpg.Connection
) -> None:
    await writer.execute(
        "CREATE FUNCTION shop.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER capture_delete AFTER DELETE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.audit()"
    )
    with pytest.raises(
        SchemaMismatch, match=r"shop.item has a trigger capture_delete that calls shop.audit\(\)"
    ):
        await adopt(store, "shop", SHOP)


async def test_a_role_that_does_not_own_the_table_is_told_so(
    store: PostgresStore, writer: asyncpg.Connection, dsn: str
) -> None:
    role = f"stranger_{os.getpid()}"
    await writer.execute(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE, CREATE ON SCHEMA shop TO {role};"
        f"GRANT CREATE ON DATABASE {dsn.partition('?')[0].rpartition('/')[2]} TO {role};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {role}"
    )
    stranger = PostgresStore(
        "write", SecretStr(dsn.replace("postgres@", f"{role}@")), pool_size=2, application_name="stranger"
    )
    try:
        with pytest.raises(SchemaMismatch, match="acts as 'postgres', who owns the tables of shop"):
            await adopt(stranger, "shop", SHOP)
    finally:
        await stranger.close()
        await writer.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


# Odd tables


LONG = "x" * 62
ODD = (
    'a "quoted" name',
    "it's",
    "Straße 雪",
    "select",
    "dollar $capture$ $$",
    "per%cent",
    "back\\slash",
    LONG + "a",
    LONG + "b",
)


async def test_odd_names_are_captured_each_for_itself(
    store: PostgresStore, connect: Callable[..., Any]
) -> None:
    connection = await connect()
    schema = 'An "odd" sch\'ema'

    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
    for name in ODD:
        await connection.execute(
            f"CREATE TABLE {quoted(schema)}.{quoted(name)} ({quoted(name)} text PRIMARY KEY, b text)"
        )
    schema_map = SchemaMap(
        name="odd",
        tables=tuple(TableMap(name=f"t{n}", source=name, key=(name,)) for n, name in enumerate(ODD)),
    )
    before = await _everything(connection)
    await adopt(store, schema, schema_map)
    for name in ODD:
        table = f"{quoted(schema)}.{quoted(name)}"
        await connection.execute(f"INSERT INTO {table} VALUES ('a'), ('b'), ('c')")
        await connection.execute(f"DELETE FROM {table} WHERE {quoted(name)} = 'a'")
        await connection.execute(f"UPDATE {table} SET {quoted(name)} = 'd' WHERE {quoted(name)} = 'b'")
        await connection.execute(f"TRUNCATE {table}")
    assert await _tombstones(connection, quoted(schema)) == [
        (name, [key]) for name in ODD for key in ("a", "b", *(["c", "d"]))
    ]
    assert await adopt(store, schema, schema_map) == []
    await undo(store, schema, schema_map)
    assert await _everything(connection) == before


PARTS = SchemaMap(
    name="parts",
    tables=(
        TableMap(name="regions", source="region"),
        TableMap(name="kinds", source="kind"),
        TableMap(
            name="parts",
            source="part",
            key=("id", "region"),
            references=(
                Reference(column="id", parent="kinds", required=True),
                Reference(column="region", parent="regions", required=True),
            ),
            columns=(Column(name="note"),),
        ),
    ),
)


@pytest_asyncio.fixture(loop_scope="session")
async def parted(connect: Callable[..., Any]) -> asyncpg.Connection:
    """A writer of a partitioned table, one of whose partitions is partitioned again and one elsewhere."""
    connection: asyncpg.Connection = await connect()
    await connection.execute(
        "CREATE SCHEMA shop; CREATE SCHEMA cellar;"
        "CREATE TABLE shop.region (id text PRIMARY KEY); CREATE TABLE shop.kind (id text PRIMARY KEY);"
        "CREATE TABLE shop.part (id text, region text, note text, PRIMARY KEY (id, region)) "
        "PARTITION BY LIST (region);"
        "CREATE TABLE shop.part_north PARTITION OF shop.part FOR VALUES IN ('north');"
        "CREATE TABLE cellar.part_south PARTITION OF shop.part FOR VALUES IN ('south');"
        "CREATE TABLE shop.part_rest PARTITION OF shop.part DEFAULT PARTITION BY HASH (id);"
        "CREATE TABLE shop.part_rest_0 PARTITION OF shop.part_rest FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
        "INSERT INTO shop.part SELECT 'p' || n, r FROM generate_series(1, 3) n, "
        "unnest('{north,south,east}'::text[]) r"
    )
    return connection


async def test_a_partitioned_table_is_captured_whichever_way_its_rows_go(
    store: PostgresStore, parted: asyncpg.Connection
) -> None:
    before = await _everything(parted)
    await adopt(store, "shop", PARTS)
    assert await adopt(store, "shop", PARTS) == []
    assert await _stamps(parted, "shop.part") == {0: 9}

    async def tombstones(statement: str) -> list[list[str]]:
        await parted.execute("DELETE FROM shop.sync_tombstone")
        await parted.execute(statement)
        return sorted(key for _, key in await _tombstones(parted))

    assert await tombstones("DELETE FROM shop.part WHERE id = 'p1' AND region <> 'north'") == [
        ["p1", "east"],
        ["p1", "south"],
    ]
    assert await tombstones("DELETE FROM shop.part_north WHERE id = 'p1'") == [["p1", "north"]]
    # A row that moves to another partition is deleted there and inserted here.
    assert await tombstones("UPDATE shop.part SET region = 'west' WHERE (id, region) = ('p3', 'north')") == [
        ["p3", "north"]
    ]
    moved = await parted.fetchval("SELECT sync_xid::text::int FROM shop.part WHERE region = 'west'")
    assert moved > 0
    assert await tombstones("UPDATE shop.part SET id = 'p4' WHERE (id, region) = ('p2', 'north')") == [
        ["p2", "north"]
    ]
    assert await tombstones("UPDATE shop.part SET note = 'x'") == []
    assert await tombstones("TRUNCATE cellar.part_south") == [["p2", "south"], ["p3", "south"]]
    everything = await parted.fetch("SELECT id, region FROM shop.part")
    gone = await tombstones("TRUNCATE shop.part")
    assert {tuple(key) for key in gone} == {tuple(row) for row in everything}
    await undo(store, "shop", PARTS)
    assert await _everything(parted) == before


async def test_a_new_partition_is_captured_and_adopted_without_a_new_epoch(
    store: PostgresStore, parted: asyncpg.Connection
) -> None:
    await adopt(store, "shop", PARTS)
    epoch = await parted.fetchval("SELECT 'shop.sync_tombstone'::regclass::oid")
    await parted.execute("DELETE FROM shop.part WHERE region = 'east'")
    await parted.execute("CREATE TABLE shop.part_west PARTITION OF shop.part FOR VALUES IN ('west')")
    await parted.execute("INSERT INTO shop.part VALUES ('p9', 'west'); DELETE FROM shop.part_west")
    assert (await _tombstones(parted))[-1] == ("part", ["p9", "west"])
    # Not a reason for the engine to stop: what is missing is the TRUNCATE of that partition alone.
    async with store.driver() as driver:
        assert uncaptured(await read_catalog(driver, "shop", types=types_of(PARTS)), PARTS) == []
    [step] = await adopt(store, "shop", PARTS)
    assert "capture_truncate" in step.script
    assert await parted.fetchval("SELECT 'shop.sync_tombstone'::regclass::oid") == epoch
    await parted.execute("INSERT INTO shop.part VALUES ('p8', 'west'); TRUNCATE shop.part_west")
    assert (await _tombstones(parted))[-1] == ("part", ["p8", "west"])


@pytest.mark.parametrize(
    ("ddl", "kind"),
    [
        ("CREATE TABLE shop.child () INHERITS (shop.tag)", "inheriting table"),
        (
            (
                "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
                "DROP TABLE shop.tag; CREATE FOREIGN TABLE shop.tag (name text NOT NULL) SERVER s"
            ),
            "foreign table",
        ),
        (
            "DROP TABLE shop.tag; CREATE MATERIALIZED VIEW shop.tag AS SELECT 'x'::text AS name",
            "materialized view",
        ),
        (
            (
                "DROP TABLE shop.tag;"
                "CREATE TABLE shop.tags (name text PRIMARY KEY) PARTITION BY HASH (name);"
                "CREATE TABLE shop.tag PARTITION OF shop.tags FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
            ),
            "partition",
        ),
    ],
)
async def test_what_triggers_cannot_capture_is_refused(
    store: PostgresStore, writer: asyncpg.Connection, ddl: str, kind: str
) -> None:
    await writer.execute(ddl)
    with pytest.raises(
        SchemaMismatch, match=rf"shop\.tag is an? {kind}, whose changes triggers cannot capture"
    ):
        await adopt(store, "shop", SHOP)


# The whole road


async def test_an_adopted_products_rows_arrive_and_so_does_what_was_written_while_it_was_undone(
    graph: TestGraph,
) -> None:
    await undo(graph.write, "kg", KNOWLEDGE_GRAPH)
    connection = await graph.connect_write()
    target = await graph.connect_target()

    async def arrived() -> dict[str, str]:
        await run_cycle(graph.context())
        return {row["key"]: row["concept"] for row in await target.fetch("SELECT key, concept FROM nodes")}

    try:
        await connection.execute("INSERT INTO write_nodes (id, concept) VALUES ('a', 'A'), ('b', 'B')")
        with pytest.raises(SynclineError, match=r"sync_xid|sync_tombstone|graph adopt"):
            await arrived()
        await adopt(graph.write, "kg", KNOWLEDGE_GRAPH)
        assert await arrived() == {"a": "A", "b": "B"}
        await connection.execute("DELETE FROM write_nodes WHERE id = 'a'")
        assert await arrived() == {"b": "B"}
        await undo(graph.write, "kg", KNOWLEDGE_GRAPH)
        await connection.execute("INSERT INTO write_nodes (id, concept) VALUES ('c', 'C')")
        await connection.execute("UPDATE write_nodes SET concept = 'other' WHERE id = 'b'")
        await adopt(graph.write, "kg", KNOWLEDGE_GRAPH)
        assert await arrived() == {"b": "other", "c": "C"}
    finally:
        await connection.close()
        await target.close()


# The graph-db side


async def test_the_graph_db_of_the_knowledge_graph_fits_its_map(store: PostgresStore) -> None:
    await migrate_graph(store, "kg")
    async with store.driver() as connection:
        catalog = await read_catalog(connection, "kg", types=types_of(KNOWLEDGE_GRAPH))
    assert check_target(catalog, KNOWLEDGE_GRAPH) == []


async def test_everything_that_is_wrong_in_a_graph_db_is_named_at_once(
    store: PostgresStore, connect: Callable[..., Any]
) -> None:
    await migrate_graph(store, "kg")
    connection = await connect(search_path="kg")
    await connection.execute(
        "DROP TABLE edge_facts, llm_usage;"
        "ALTER TABLE nodes DROP COLUMN visibility, ADD surprise int NOT NULL;"
        "ALTER TABLE nodes ADD harmless int NOT NULL DEFAULT 1;"
        "ALTER TABLE facts DROP COLUMN sync_run, ALTER sync_version TYPE int;"
        "ALTER TABLE node_facts DROP CONSTRAINT node_facts_pkey;"
        "ALTER TABLE node_stats DROP COLUMN edge_count;"
        "ALTER TABLE dimensions ALTER confidence TYPE numeric, ALTER content TYPE varchar(900)"
    )
    async with store.driver() as driver:
        catalog = await read_catalog(driver, "kg", types=types_of(KNOWLEDGE_GRAPH))
    assert check_target(catalog, KNOWLEDGE_GRAPH) == [
        (
            "kg.facts.sync_version is integer, and facts wants bigint; "
            "change the column to bigint, or the map to integer."
        ),
        "Column kg.facts.sync_run is missing; facts wants it as bigint: add it.",
        "Column kg.nodes.visibility is missing; nodes wants it as text: add it.",
        (
            "kg.nodes.surprise is NOT NULL without a default, and nodes does not fill it; "
            "give it a default, allow NULL or put it into the map."
        ),
        "kg.node_facts has no primary key or unique index on exactly (node_id, fact_id); add one.",
        "Column kg.node_stats.edge_count is missing; nodes wants it: add it.",
        "Table kg.edge_facts is missing; edges is stored in it.",
        (
            "kg.dimensions.confidence is numeric, and dimensions wants double precision; "
            "change the column to double precision, or the map to numeric."
        ),
        "Table kg.llm_usage is missing; llm_usage is stored in it.",
    ]


async def test_the_write_db_of_the_knowledge_graph_fits_its_map(store: PostgresStore) -> None:
    await migrate_write(store, "kg")
    async with store.driver() as connection:
        catalog = await read_catalog(connection, "kg", types=types_of(KNOWLEDGE_GRAPH))
    assert check_source(catalog, KNOWLEDGE_GRAPH) == []


# The command


@pytest.fixture
def syncline(
    dsn: str, new_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """A function that runs `syncline` over two empty databases."""
    for name in [name for name in os.environ if name.startswith(("SYNCLINE_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCLINE_WRITE_DSN", dsn)
    monkeypatch.setenv("SYNCLINE_GRAPH_DSN", new_database())
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.fixture
def adoptable(
    syncline: Callable[..., Result], postgres_server: EmbeddedPostgres, dsn: str
) -> Callable[[str], str]:
    """Graph `kg`, whose write-db tables have lost their capture. A function that asks its database."""
    database = dsn.partition("?")[0].rpartition("/")[2]

    async def add() -> None:
        async with Services.open(load_settings()) as services:
            await services.prepare_control()
            await services.graphs.add(GraphDraft(slug="kg"), prepare=services.prepare_graph)

    asyncio.run(add())
    assert syncline("graph", "adopt", "kg", "--undo").exit_code == 0
    return lambda sql: postgres_server.psql(sql, database)


COUNT = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'capture\\_%'"


def test_the_command_says_each_step_and_then_that_nothing_is_left(
    syncline: Callable[..., Result], adoptable: Callable[[str], str]
) -> None:
    adopted = syncline("graph", "adopt", "kg")
    assert (adopted.exit_code, adopted.stderr) == (0, "")
    lines = adopted.stdout.splitlines()
    assert lines[0] == "Create the function that stamps rows, kg.capture_version()."
    assert "Build index write_nodes_sync on kg.write_nodes." in lines
    assert adoptable(COUNT) == str(6 * len(KNOWLEDGE_GRAPH.tables))
    assert syncline("graph", "adopt", "kg").stdout == "Nothing to do: every table is captured.\n"
    undone = syncline("graph", "adopt", "kg", "--undo")
    assert "Drop table kg.sync_tombstone." in undone.stdout
    assert syncline("graph", "adopt", "kg", "--undo").stdout == "Nothing to do: no table is captured.\n"
    assert adoptable(COUNT) == "0"


@pytest.mark.long("test_the_command_says_each_step_and_then_that_nothing_is_left")
def test_a_dry_run_prints_a_script_that_does_the_same_and_does_nothing(
    syncline: Callable[..., Result],
    adoptable: Callable[[str], str],
    postgres_server: EmbeddedPostgres,
    dsn: str,
) -> None:
    script = syncline("graph", "adopt", "kg", "--dry-run")
    assert script.exit_code == 0
    index = script.stdout.partition("-- Build index write_nodes_sync on kg.write_nodes.\n")[2]
    assert "CREATE INDEX CONCURRENTLY" in index.partition("\n-- ")[0]
    assert adoptable(COUNT) == "0"
    run = [postgres_server.bin_dir / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", dsn]
    subprocess.run(run, input=script.stdout, text=True, check=True)
    assert syncline("graph", "adopt", "kg", "--dry-run").stdout == "Nothing to do: every table is captured.\n"
    undo_script = syncline("graph", "adopt", "kg", "--undo", "--dry-run")
    assert adoptable(COUNT) != "0"
    subprocess.run(run, input=undo_script.stdout, text=True, check=True)
    assert adoptable(COUNT) == "0"


@pytest.mark.long("test_the_command_says_each_step_and_then_that_nothing_is_left")
def test_the_steps_are_json_on_demand(
    syncline: Callable[..., Result], adoptable: Callable[[str], str]
) -> None:
    dry = json.loads(syncline("graph", "adopt", "kg", "--dry-run", "--json").stdout)
    assert (dry["graph"], dry["dry_run"], dry["undo"]) == ("kg", True, False)
    assert set(dry["steps"][0]) == {"sentence", "sql"}
    done = json.loads(syncline("graph", "adopt", "kg", "--json").stdout)
    assert done["steps"] == dry["steps"]
    assert json.loads(syncline("graph", "adopt", "kg", "--json").stdout)["steps"] == []


@pytest.mark.long("test_the_command_says_each_step_and_then_that_nothing_is_left")
def test_what_does_not_fit_is_said_in_sentences_with_status_2(
    syncline: Callable[..., Result], adoptable: Callable[[str], str]
) -> None:
    adoptable("ALTER TABLE kg.write_nodes DROP COLUMN visibility")
    adoptable("ALTER TABLE kg.write_facts ALTER COLUMN metadata TYPE json")
    refused = syncline("graph", "adopt", "kg")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.splitlines() == [
        "error: Schema 'kg' does not fit map 'knowledge_graph':",
        (
            "  - kg.write_facts.metadata is json, and facts wants jsonb; change the column to jsonb, "
            "or the map to json."
        ),
        "  - Column kg.write_nodes.visibility is missing; nodes wants it as text: add it.",
    ]


@pytest.mark.long("test_the_command_says_each_step_and_then_that_nothing_is_left")
def test_a_blocked_adoption_is_one_sentence_with_status_1(
    syncline: Callable[..., Result],
    adoptable: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: EmbeddedPostgres,
    dsn: str,
) -> None:
    monkeypatch.setattr("syncline.capture.install.locks.Patience", partial(Patience, attempts=2, pause=0.01))
    run = [postgres_server.bin_dir / "psql", "-Xqt", "-d", dsn]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("BEGIN; LOCK TABLE kg.write_nodes IN ROW EXCLUSIVE MODE; SELECT 'held';\n")
        holder.stdin.flush()
        assert holder.stdout.readline().strip() == "held"
        blocked = syncline("graph", "adopt", "kg", "--lock-timeout", "0.05")
        holder.stdin.close()
    assert blocked.exit_code == 1
    assert blocked.stderr.startswith("error: Not done: Capture every change of table kg.write_nodes: ")
    assert "('psql', idle in transaction, for " in blocked.stderr
    assert len(blocked.stderr.splitlines()) == 1


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    "name", ["nowhere", "syncline.engine:nothing", "no.module:X", "syncline.control.graphs:Graph"]
)
def test_a_map_that_is_none_is_refused(
    syncline: Callable[..., Result], adoptable: Callable[[str], str], name: str
) -> None:
    refused = syncline("graph", "adopt", "kg", "--map", name)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: Map {name} ")


@pytest.mark.long("test_writers_go_on_all_the_time_and_everything_they_write_afterwards_is_captured")
def test_another_map_can_be_named(
    syncline: Callable[..., Result], adoptable: Callable[[str], str], tmp_path: Path
) -> None:
    name = "syncline.engine.knowledge_graph:KNOWLEDGE_GRAPH"
    assert syncline("graph", "adopt", "kg", "--map", name).exit_code == 0
    document = tmp_path / "map.yaml"
    document.write_text(write_map(KNOWLEDGE_GRAPH), encoding="utf-8")
    adopted = syncline("graph", "adopt", "kg", "--map", str(document))
    assert adopted.stdout == "Nothing to do: every table is captured.\n"
