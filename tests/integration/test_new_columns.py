"""Columns that are added to sources, and others that were renamed, dropped or changed: noticed and named."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.capture.install.install import adopt
from syncline.control.audit import Actor
from syncline.control.maps import MapRepository
from syncline.engine import Column, SchemaMap, SyncEngine, TableMap
from syncline.maps.document import read_map, write_map
from syncline.messages.sync import CycleStatus, NewColumn, SyncResult
from syncline.migrations import migrate_bookkeeping, migrate_control
from syncline.operator.map_check import check_map
from syncline.operator.new_columns import Taken, take_columns
from syncline.provider import GraphSchema
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from tests.kit.bare_graph import bare_graph, made_by

GOODS = TableMap(
    name="goods",
    source="articles",
    key=("code",),
    columns=(Column(name="title"), Column(name="size", type="integer")),
)
SHOP = SchemaMap(name="shop", tables=(GOODS,))
WRITE = """
CREATE TABLE articles (code text PRIMARY KEY, title text, size integer, note text);
INSERT INTO articles VALUES ('b', 'bolt', 1, 'x'), ('n', 'nut', 2, 'y');
"""
TARGET = """
CREATE TABLE goods (
    id uuid PRIMARY KEY, key text NOT NULL, title text, size integer, sync_version bigint, sync_run bigint
);
"""


@pytest_asyncio.fixture(loop_scope="session")
async def shop(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    """A graph that is synced by SHOP; column `note` of its source is not in the map."""
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        await made_by(graph, write=WRITE, target=TARGET)
        await adopt(graph.write, "kg", SHOP)
        first = await SyncEngine(SHOP).run_cycle(graph.context())
        assert (first.rows, first.new_columns) == (2, ())
        yield graph


def columns(result: SyncResult) -> list[str]:
    return [f"{column.table}.{column.column} {column.type}" for column in result.new_columns]


async def test_a_column_is_noticed_by_the_next_cycle_and_told_until_it_is_decided(shop: TestGraph) -> None:
    engine = SyncEngine(SHOP)
    assert (await engine.run_cycle(shop.context())).new_columns == ()
    await write(shop, "ALTER TABLE articles ADD COLUMN price numeric(10, 2) DEFAULT 1")
    result = await engine.run_cycle(shop.context())
    assert columns(result) == ["goods.price numeric(10,2)"]
    assert (result.status, result.rows) == (CycleStatus.DRAINED, 0)
    # Told again by cycles that have nothing to do, and by another process.
    fence = "SELECT fence FROM sync_state"
    before = await read(shop, fence)
    for each in (engine, SyncEngine(SHOP)):
        result = await each.run_cycle(shop.context())
        assert (columns(result), result.idle) == (["goods.price numeric(10,2)"], True)
    assert await read(shop, fence) == before
    # Dropped again, there is nothing to decide; and so if the map leaves it alone.
    await write(shop, "ALTER TABLE articles DROP COLUMN price")
    assert (await engine.run_cycle(shop.context())).new_columns == ()
    await write(shop, "ALTER TABLE articles ADD COLUMN price integer")
    assert columns(await engine.run_cycle(shop.context())) == ["goods.price integer"]
    ignoring = SchemaMap(name="shop", tables=(replace(GOODS, ignored=("price",)),))
    result = await SyncEngine(ignoring).run_cycle(shop.context())
    assert (result.new_columns, [table.reread for table in result.tables]) == ((), [None])


async def test_a_frozen_graph_says_it_once(shop: TestGraph) -> None:
    engine = SyncEngine(SHOP)
    await write(shop, "ALTER TABLE articles ADD COLUMN price integer")
    result = await engine.run_cycle(shop.context(), frozen=True)
    assert result.new_columns == ()
    assert result.map_changes == ("goods: kg.articles.price was added and stays out.",)
    for each in (engine, SyncEngine(SHOP)):
        assert (await each.run_cycle(shop.context(), frozen=True)).map_changes == ()
    # Under another policy it is asked.
    assert columns(await engine.run_cycle(shop.context())) == ["goods.price integer"]


@pytest.mark.long("test_a_column_is_noticed_by_the_next_cycle_and_told_until_it_is_decided")
async def test_an_engine_in_place_of_a_missing_provider_asks_nothing(shop: TestGraph) -> None:
    await write(shop, "ALTER TABLE articles ADD COLUMN price integer")
    assert (await SyncEngine(SHOP).run_cycle(shop.context(), replacing=True)).new_columns == ()
    assert columns(await SyncEngine(SHOP).run_cycle(shop.context())) == ["goods.price integer"]


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        ("ADD COLUMN sync_run bigint", "", "Names that begin with sync_"),
        ("ADD COLUMN total integer GENERATED ALWAYS AS (size * 2) STORED", "", "Postgres computes it"),
        ("ADD COLUMN mood mood", "", "has no type mood"),
        ("ADD COLUMN key text", "", "writes key of goods already"),
        ("ADD COLUMN price integer", "ALTER TABLE goods ADD COLUMN price text", "is there as text"),
    ],
)
async def test_a_column_that_cannot_be_taken_as_it_is_says_why(
    shop: TestGraph, source: str, target: str, problem: str
) -> None:
    engine = SyncEngine(SHOP)
    await engine.run_cycle(shop.context())
    await on_target(shop, target or "SELECT")
    await write(shop, f"CREATE TYPE mood AS ENUM ('good'); ALTER TABLE articles {source}")
    [column] = (await engine.run_cycle(shop.context())).new_columns
    assert problem in (column.problem or "")


async def test_a_column_of_readers_is_not_taken(shop: TestGraph) -> None:
    await on_target(shop, "ALTER TABLE goods ADD COLUMN visits integer")
    await SyncEngine(SHOP).run_cycle(shop.context())
    await write(shop, "ALTER TABLE articles ADD COLUMN visits integer")
    [column] = (await SyncEngine(SHOP).run_cycle(shop.context())).new_columns
    assert "may be its readers' own" in (column.problem or "")


RENAMED = "ALTER TABLE articles RENAME COLUMN title TO name"


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("on_source", "on_graph", "said", "statement"),
    [
        (RENAMED, "", "kg.articles.title was renamed to name", None),
        ("ALTER TABLE articles DROP COLUMN title", "", "kg.articles.title was dropped", None),
        (
            "ALTER TABLE articles ALTER COLUMN size TYPE bigint",
            "",
            "kg.articles.size was changed from integer to bigint",
            None,
        ),
        (
            "ALTER TABLE articles ALTER COLUMN size TYPE bigint",
            "ALTER TABLE goods ALTER COLUMN size TYPE bigint",
            "kg.articles.size was changed from integer to bigint, in both databases. Give it that type in the",
            None,
        ),
        ("ALTER TABLE articles RENAME TO wares", "", "Table kg.articles was renamed to wares", None),
        ("ALTER TABLE articles RENAME COLUMN code TO number", "", "kg.articles.code was renamed", None),
        (
            "",
            "ALTER TABLE goods RENAME COLUMN title TO name",
            "kg.goods.title was renamed to name",
            'ALTER TABLE "kg"."goods" RENAME COLUMN "name" TO "title"',
        ),
        (
            "",
            "ALTER TABLE goods DROP COLUMN title",
            "kg.goods.title was dropped",
            'ALTER TABLE "kg"."goods" ADD COLUMN "title" text',
        ),
        (
            "",
            "ALTER TABLE goods ALTER COLUMN size TYPE date USING NULL",
            "kg.goods.size was changed from integer to date",
            'ALTER TABLE "kg"."goods" ALTER COLUMN "size" TYPE integer',
        ),
        (
            "",
            "ALTER TABLE goods RENAME TO wares",
            "Table kg.goods was renamed to wares",
            'ALTER TABLE "kg"."wares" RENAME TO "goods"',
        ),
        (
            "",
            "ALTER TABLE goods ADD owner text NOT NULL DEFAULT ''; ALTER TABLE goods ALTER owner DROP DEFAULT",
            "kg.goods.owner is NOT NULL without a default",
            'ALTER TABLE "kg"."goods" ALTER COLUMN "owner" DROP NOT NULL',
        ),
    ],
)
async def test_what_became_of_a_column_is_named_with_the_way_out(
    shop: TestGraph, on_source: str, on_graph: str, said: str, statement: str | None
) -> None:
    engine = SyncEngine(SHOP)
    await engine.run_cycle(shop.context())
    await write(shop, on_source or "SELECT")
    await on_target(shop, on_graph or "SELECT")
    if on_graph:
        await write(shop, "INSERT INTO articles VALUES ('g', 'gear', 3)")
    # A change of the graph-db is found by what it refuses.
    await engine.run_cycle(shop.context())
    result = await engine.run_cycle(shop.context())
    [error] = [table.error or "" for table in result.tables]
    assert said in error
    assert "is missing" not in error
    assert statement is None or statement in error
    assert statement is None or statement in error
    context = shop.context()
    checked = await check_map(SHOP, context.write, context.target)
    assert said in " ".join(misfit.problem for misfit in checked.misfits)
    assert "is missing" not in " ".join(misfit.problem for misfit in checked.misfits)
    assert result.new_columns == ()


async def test_a_role_that_may_not_alter_the_target_is_told_what_it_lacks(
    shop: TestGraph, unique: Callable[[str], str]
) -> None:
    role = unique("clerk").replace("-", "_")
    column = NewColumn(table="goods", source="kg.articles", column="price", type="numeric(6,2)")
    await migrate_control(shop.target)
    maps = MapRepository(shop.target)
    await maps.put("shop", write_map(SHOP), hash="", actor=Actor())
    await on_target(shop, f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA kg TO {role}")
    dsn = SecretStr(shop.target_dsn.replace("postgres@", f"{role}@"))

    async def taken(owner_role: str | None = None) -> Taken:
        store = PostgresStore("graph", dsn, pool_size=1, application_name="t", owner_role=owner_role)
        try:
            place = GraphSchema(store=store, schema="kg")
            return await take_columns(maps, "shop", place, [column], Actor(who="syncline"))
        finally:
            await store.close()

    try:
        refused = await taken()
        assert (refused.stored, refused.columns) == (None, ())
        assert refused.problems["goods.price"] == (
            f"Role '{role}' may not alter kg.goods, which belongs to 'postgres': run "
            '`ALTER TABLE "kg"."goods" ADD COLUMN IF NOT EXISTS "price" numeric(6,2);` as that role, or '
            f'`GRANT "postgres" TO "{role}";`.'
        )
        # It may act as the owner of graph schemas, if that is configured.
        await on_target(
            shop,
            f"ALTER ROLE {role} NOINHERIT; CREATE ROLE {role}_owner; GRANT {role}_owner TO {role}; GRANT ALL ON SCHEMA kg TO {role}_owner;"
            f"ALTER TABLE goods OWNER TO {role}_owner",
        )
        assert (await taken()).stored is None
        done = await taken(f"{role}_owner")
        assert done.stored is not None
        assert (done.stored.version, done.stored.who, done.problems) == (2, "syncline", {})
        document = read_map((await maps.get("shop")).document, source="shop")
        assert Column(name="price", type="numeric") in document["goods"].columns
        # Taken already, nothing is stored.
        assert (await taken(f"{role}_owner")).stored is None
    finally:
        await on_target(
            shop,
            f"ALTER TABLE goods OWNER TO postgres; DROP OWNED BY {role}, {role}_owner; DROP ROLE {role}, {role}_owner",
        )


@pytest.mark.long(after=1)
@pytest.mark.parametrize("volatile", [False, True])
@pytest.mark.parametrize("parted", [False, True])
async def test_a_column_of_a_rewritten_or_partitioned_source_is_filled_in_the_background_too(
    new_database: Callable[..., str], tmp_path: Path, volatile: bool, parted: bool
) -> None:
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        parts = " PARTITION BY HASH (code); CREATE TABLE part PARTITION OF articles FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
        await made_by(
            graph, write=WRITE.replace("note text);", f"note text){parts if parted else ''};"), target=TARGET
        )
        await adopt(graph.write, "kg", SHOP)
        assert (await SyncEngine(SHOP).run_cycle(graph.context())).rows == 2
        default = "(random() * 0 + 7)::integer" if volatile else "7"
        await write(graph, f"ALTER TABLE articles ADD COLUMN price integer DEFAULT {default}")
        await SyncEngine(SHOP).run_cycle(graph.context())
        await on_target(graph, "ALTER TABLE goods ADD COLUMN price integer")
        with_price = replace(GOODS, columns=(*GOODS.columns, Column(name="price", type="integer")))
        result = await SyncEngine(SchemaMap(name="shop", tables=(with_price,))).run_cycle(graph.context())
        [goods] = result.tables
        assert (goods.reread, goods.compared) == ("the map changed: column price added", None)
        assert await read(graph, "SELECT price FROM goods") == [(7,), (7,)]


async def test_a_column_that_is_left_out_is_no_new_one_when_it_is_renamed(shop: TestGraph) -> None:
    engine = SyncEngine(SHOP)
    await write(shop, "ALTER TABLE articles RENAME COLUMN note TO remark")
    assert (await engine.run_cycle(shop.context())).new_columns == ()
    # A column that has the old name is one that was added.
    await write(shop, "ALTER TABLE articles ADD COLUMN note text")
    assert columns(await engine.run_cycle(shop.context())) == ["goods.note text"]


async def test_a_source_of_two_tables_asks_once_and_one_of_them_may_take_it(shop: TestGraph) -> None:
    await on_target(
        shop,
        "CREATE TABLE labels (id uuid PRIMARY KEY, key text NOT NULL, price text, sync_version bigint, sync_run bigint)",
    )
    labels = TableMap(name="labels", source="articles", key=("code",))
    both = SchemaMap(name="shop", tables=(GOODS, labels))
    assert (await SyncEngine(both).run_cycle(shop.context())).new_columns == ()
    await write(shop, "ALTER TABLE articles ADD COLUMN price text DEFAULT 'x'")
    assert columns(await SyncEngine(both).run_cycle(shop.context())) == ["goods.price text"]
    taken = SchemaMap(name="shop", tables=(GOODS, replace(labels, columns=(Column(name="price"),))))
    result = await SyncEngine(taken).run_cycle(shop.context())
    assert (result.new_columns, await read(shop, "SELECT DISTINCT price FROM labels")) == ((), [("x",)])
    assert (await SyncEngine(taken).run_cycle(shop.context())).idle
