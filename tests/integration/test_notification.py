"""Writers of captured tables tell of changes, once per transaction, and only if somebody listens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline import names
from syncline.capture.install.install import adopt, plan_adoption, undo
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import run_cycle
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.table_map import Column, SchemaMap, TableMap
from syncline.messages.sync import CycleStatus
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph

SHOP = SchemaMap(
    name="shop",
    tables=(
        TableMap(name="items", source="item", columns=(Column(name="title"),)),
        TableMap(name="parts", source="part"),
    ),
)
TABLES = """
    CREATE SCHEMA shop; CREATE SCHEMA cellar;
    CREATE TABLE shop.item (id text PRIMARY KEY, title text);
    CREATE TABLE shop.part (id text PRIMARY KEY) PARTITION BY LIST (id);
    CREATE TABLE cellar.part_south PARTITION OF shop.part FOR VALUES IN ('south');
    CREATE TABLE shop.part_rest PARTITION OF shop.part DEFAULT;
"""
MUTED = "SELECT setval('shop.sync_quiet', 1000 * (extract(epoch FROM clock_timestamp())::bigint + {seconds}))"
LEASE = (
    "INSERT INTO syncline.listener (name, until, heard_below) VALUES ('test', clock_timestamp() + interval '1 h', '3') "
    "ON CONFLICT (name) DO UPDATE SET until = excluded.until"
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def store(postgres_server: EmbeddedPostgres) -> AsyncIterator[PostgresStore]:
    """A database with an adopted shop, in which somebody listens."""
    postgres_server.ensure_database("notification")
    store = PostgresStore(
        "write", SecretStr(postgres_server.dsn("notification")), pool_size=4, application_name="test"
    )
    async with store.driver() as connection:
        await connection.execute(TABLES)
        await adopt(store, "shop", SHOP)
        await connection.execute(LEASE)
    yield store
    await store.close()


@asynccontextmanager
async def heard(store: PostgresStore) -> AsyncIterator[list[tuple[int, str]]]:
    """What somebody who listens has heard, complete once this is left."""
    payloads: list[tuple[int, str]] = []
    async with store.alone("ear") as connection:

        def hear(_connection: object, _pid: int, _channel: str, payload: str) -> None:
            xid, _, schema = payload.partition(" ")
            payloads.append((int(xid), schema))

        await connection.add_listener(names.WRITE_CHANNEL, hear)
        yield payloads
        await connection.fetchval("SELECT 1")
        await asyncio.sleep(0)


@pytest.mark.long(after=4)
@pytest.mark.parametrize(
    ("statements", "times"),
    [
        (("INSERT INTO shop.item VALUES ('a', 't'), ('b', 't')",), 1),
        (("UPDATE shop.item SET title = 'u'",), 1),
        (("DELETE FROM shop.item WHERE id = 'a'",), 1),
        (("TRUNCATE shop.item",), 1),
        (
            (
                "INSERT INTO shop.item VALUES ('c')",
                "UPDATE shop.item SET title = 'v'",
                "DELETE FROM shop.item",
            ),
            1,
        ),
        (("UPDATE shop.item SET title = 'u' WHERE false",), 0),
        (("INSERT INTO shop.part VALUES ('north')",), 1),
        (("INSERT INTO cellar.part_south VALUES ('south')",), 1),
        (("DELETE FROM shop.part_rest",), 1),
        (("CREATE TEMP TABLE another (a int)",), 0),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_transaction_that_changes_rows_notifies_once_with_its_id_and_the_schema(
    store: PostgresStore, statements: tuple[str, ...], times: int
) -> None:
    async with heard(store) as payloads, store.driver() as connection, connection.transaction():
        for statement in statements:
            await connection.execute(statement)
        xid = await connection.fetchval("SELECT pg_current_xact_id_if_assigned()::text::bigint")
    assert payloads == [(xid, "shop")] * times


async def test_a_transaction_that_is_rolled_back_says_nothing(store: PostgresStore) -> None:
    async with heard(store) as payloads, store.alone("writer") as connection:
        await connection.execute("BEGIN; INSERT INTO shop.item VALUES ('x'); ROLLBACK")
    assert payloads == []


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    ("state", "isolation", "times"),
    [
        (MUTED.format(seconds=1), "read_committed", 0),
        ("UPDATE syncline.listener SET until = clock_timestamp()", "read_committed", 0),
        (MUTED.format(seconds=1), "repeatable_read", 0),
        (MUTED.format(seconds=-1), "read_committed", 1),
        (MUTED.format(seconds=3600), "read_committed", 1),
        ("UPDATE shop.sync_notify SET wanted = false", "read_committed", 0),
        ("UPDATE shop.sync_notify SET wanted = false", "serializable", 0),
        (
            "UPDATE shop.sync_notify SET muted_until = clock_timestamp() + interval '1 s'",
            "read_committed",
            0,
        ),
        # Its snapshot may be older than what it would have to look up.
        (
            "UPDATE shop.sync_notify SET muted_until = clock_timestamp() + interval '1 s'",
            "repeatable_read",
            1,
        ),
        ("UPDATE syncline.listener SET until = clock_timestamp()", "serializable", 1),
        # Somebody has set the clock back.
        (
            "UPDATE shop.sync_notify SET muted_until = clock_timestamp() + interval '1 h'",
            "read_committed",
            1,
        ),
    ],
    ids=lambda value: str(value).removeprefix("UPDATE ")[:60],
)
async def test_nobody_notifies_whom_nobody_would_hear(
    store: PostgresStore, state: str, isolation: str, times: int
) -> None:
    async with store.alone("writer") as connection:
        await connection.execute(state)
        try:
            async with heard(store) as payloads, connection.transaction(isolation=isolation):
                await connection.execute("INSERT INTO shop.item VALUES (gen_random_uuid()::text)")
            assert len(payloads) == times
        finally:
            await connection.execute(LEASE)
            await connection.execute("UPDATE shop.sync_notify SET wanted = true, muted_until = '-infinity'")
            await connection.execute("SELECT setval('shop.sync_quiet', 1)")


async def test_a_writer_without_any_right_on_what_is_looked_up_writes_and_is_heard(
    store: PostgresStore,
) -> None:
    async with store.alone("writer") as connection:
        await connection.execute(
            "CREATE ROLE notification_clerk; GRANT USAGE ON SCHEMA shop TO notification_clerk;"
            "GRANT INSERT ON shop.item TO notification_clerk; SET ROLE notification_clerk"
        )
        try:
            async with heard(store) as payloads:
                await connection.execute("INSERT INTO shop.item VALUES ('clerk')")
            assert len(payloads) == 1
        finally:
            await connection.execute(
                "RESET ROLE; DROP OWNED BY notification_clerk; DROP ROLE notification_clerk"
            )


async def test_tables_of_an_older_release_are_given_it_without_a_new_epoch(store: PostgresStore) -> None:
    async with store.driver() as connection:
        await connection.execute(
            "DROP TRIGGER capture_notify ON shop.item; DROP TRIGGER capture_notify ON cellar.part_south;"
            "CREATE OR REPLACE FUNCTION shop.sync_notify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        epoch = await connection.fetchval("SELECT 'shop.sync_tombstone'::regclass::oid")
        steps = await adopt(store, "shop", SHOP)
        assert [step.sentence for step in steps] == [
            "Create table and function shop.sync_notify, which notify workers of changes.",
            "Notify workers of changes of table shop.item: a statement trigger.",
            "Notify workers of changes of table shop.part: a statement trigger.",
        ]
        assert await connection.fetchval("SELECT 'shop.sync_tombstone'::regclass::oid") == epoch
        assert (await plan_adoption(connection, "shop", SHOP)).steps == ()
    async with heard(store) as payloads, store.driver() as connection:
        await connection.execute("INSERT INTO shop.item VALUES ('older')")
    assert len(payloads) == 1


async def test_capture_without_it_syncs_all_the_same(graph: TestGraph) -> None:
    async with graph.write.driver() as connection:
        for table in KNOWLEDGE_GRAPH:
            await connection.execute(f"DROP TRIGGER capture_notify ON kg.{table.source}")
        await connection.execute(
            "DROP FUNCTION kg.sync_notify(); DROP TABLE kg.sync_notify, syncline.listener;"
            "INSERT INTO kg.write_nodes (id, concept) VALUES ('n', 'c')"
        )
    result = await run_cycle(graph.context())
    assert (result.rows, result.status) == (1, CycleStatus.DRAINED)


async def test_undo_takes_it_away_and_leaves_what_another_schema_reads(graph: TestGraph) -> None:
    async with graph.write.driver() as connection:
        await connection.execute(
            "CREATE SCHEMA shop; CREATE TABLE shop.item (id text PRIMARY KEY, title text)"
        )
        small = SchemaMap(name="shop", tables=SHOP.tables[:1])
        await adopt(graph.write, "shop", small)
        await undo(graph.write, "shop", small)
        await connection.execute("INSERT INTO kg.write_nodes (id, concept) VALUES ('n', 'c')")
        await undo(graph.write, "kg", KNOWLEDGE_GRAPH)
        left = await connection.fetchval(
            "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'capture%'"
        ) + await connection.fetchval(
            "SELECT count(*) FROM pg_class WHERE relname IN ('sync_notify', 'listener', 'sync_tombstone')"
        )
        assert left == 0
        assert await connection.fetchval("SELECT to_regnamespace('syncline')") is None


async def test_a_cycle_says_that_committed_rows_wait_for_an_older_transaction(graph: TestGraph) -> None:
    holder, writer = await graph.connect_write(), await graph.connect_write()
    await holder.execute("BEGIN; SELECT pg_current_xact_id()")
    before = await run_cycle(graph.context())
    await writer.execute("INSERT INTO write_nodes (id, concept) VALUES ('n', 'c')")
    held = await run_cycle(graph.context())
    await holder.execute("COMMIT")
    landed = await run_cycle(graph.context())
    idle = await run_cycle(graph.context())
    assert [(each.rows, each.owes, each.idle) for each in (before, held, landed)] == [
        (0, False, True),
        (0, True, False),
        (1, False, False),
    ]
    assert idle.idle
    await holder.close()
    await writer.close()
