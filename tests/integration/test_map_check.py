"""`syncline map check` on real databases: every misfit at once, and its statements mend what they are said to."""

import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr
from typer.testing import CliRunner

from syncline.capture.install.install import adopt
from syncline.cli import app
from syncline.engine import KNOWLEDGE_GRAPH
from syncline.maps.document import read_map
from syncline.migrations import migrate_bookkeeping, migrate_graph, migrate_write
from syncline.operator.map_check import MapCheck, check_map
from syncline.provider import GraphSchema
from syncline.stores.dsn import parse_dsn
from syncline.stores.postgres import PostgresStore

SHOP = """version: 1
name: shop
tables:
  makers:
    source: maker
    columns: {name: text}
  items:
    source: item
    key: sku
    columns:
      title: text
      price: numeric
      words: tsvector
      size: integer
      made: timestamptz
    references:
      maker: {parent: makers, target: maker_id}
    links:
      item_tags: {source: tags, owner: item_id, member: tag_id, parent: tags}
    expressions:
      title: upper(s.titel)
      size: s.title || 'x'
    vector:
      collection: items
      text: t.titel
      payload: {price: t.price}
    stats:
      table: item_stats
      owner: item_id
      columns: {tags: {counted: item_tags, by: item_id}}
  tags:
    source: tag
    key: name
    present: shown and hiden
  orders:
    source: purchase
"""

TABLES = """
CREATE SCHEMA shop;
CREATE TABLE shop.maker (id text PRIMARY KEY, name varchar(80));
CREATE TABLE shop.item (
    sku text, title text, price numeric(12, 2), words tsvector, size bigint, maker text, tags text[], made timestamptz
);
CREATE TABLE shop.tag (name text PRIMARY KEY, shown boolean);
"""
TARGETS = """
CREATE TABLE shop.makers (id uuid PRIMARY KEY, key text, name varchar(40), sync_version bigint, sync_run bigint);
CREATE TABLE shop.items (
    id uuid, key text, title text, price numeric(10, 2), size text, maker_id uuid, made timestamptz,
    words tsvector GENERATED ALWAYS AS (to_tsvector('simple', title)) STORED,
    sort_key text NOT NULL, sync_version bigint, sync_run bigint
);
CREATE TABLE shop.item_tags (item_id uuid, tag_id uuid, PRIMARY KEY (item_id, tag_id));
CREATE TABLE shop.tags (id uuid PRIMARY KEY, key text, sync_version bigint, sync_run bigint);
CREATE VIEW shop.item_stats AS SELECT id AS item_id, 0 AS tags FROM shop.items;
"""


@pytest.fixture
def dsns(new_database: Callable[..., str]) -> tuple[str, str]:
    return new_database(), new_database()


def opened(dsns: tuple[str, str]) -> tuple[GraphSchema, GraphSchema]:
    write, graph = (
        PostgresStore(role, SecretStr(dsn), pool_size=3, application_name="test")
        for role, dsn in zip(("write", "graph"), dsns, strict=True)
    )
    return GraphSchema(store=write, schema="shop"), GraphSchema(store=graph, schema="shop")


@pytest_asyncio.fixture(loop_scope="session")
async def places(dsns: tuple[str, str]) -> AsyncIterator[tuple[GraphSchema, GraphSchema]]:
    places = opened(dsns)
    yield places
    for place in places:
        await place.store.close()


async def run(place: GraphSchema, statements: str) -> None:
    async with place.store.driver() as connection:
        await connection.execute(statements)


def told(found: MapCheck) -> list[tuple[str, str, int | None, str]]:
    return [(misfit.store, misfit.path, misfit.line, misfit.problem) for misfit in found.misfits]


async def test_every_misfit_is_told_at_once_and_its_statement_mends_it(
    places: tuple[GraphSchema, GraphSchema],
) -> None:
    write, graph = places
    await run(write, TABLES)
    await migrate_bookkeeping(graph.store, "shop")
    await run(graph, TARGETS)
    found = await check_map(read_map(SHOP, source="shop.yaml"), write, graph, text=SHOP)
    errors = [
        (m.store, m.path, m.line, m.statement is not None) for m in found.misfits if m.weight == "error"
    ]
    assert errors == [
        ("write", "tables.items.columns.size", 14, False),  # bigint, not integer
        ("write", "tables.items.key", 9, True),  # allows NULL
        ("write", "tables.items.key", 9, True),  # not unique
        ("write", "tables.orders.source", 36, False),  # no such table
        ("write", "tables.tags.present", 34, False),  # no such column
        ("write", "tables.makers.source", 5, False),  # not captured
        ("write", "tables.tags.source", 32, False),  # not captured
        ("graph", "tables.items", 7, True),  # no primary key
        ("graph", "tables.items.columns", 10, True),  # sort_key NOT NULL
        ("graph", "tables.items", 7, False),  # stats are a view
        ("graph", "tables.orders", 35, True),  # no such table
        ("graph", "tables.items.columns.words", 13, True),  # generated
        ("graph", "tables.items.expressions.title", 21, False),  # no such column
        ("graph", "tables.items.vector.text", 25, False),  # no such column
    ], told(found)
    advice = [(m.path, m.statement) for m in found.misfits if m.weight == "advice"]
    assert advice == [
        ("tables.makers.columns.name", 'ALTER TABLE "shop"."makers" ALTER COLUMN "name" TYPE character varying(80)'),
        ("tables.items.columns.price", 'ALTER TABLE "shop"."items" ALTER COLUMN "price" TYPE numeric(12,2)'),
        ("tables.items.references.maker", 'ALTER TABLE "shop"."items" ADD FOREIGN KEY ("maker_id") REFERENCES "shop"."makers" ("id") ON DELETE CASCADE'),
        ("tables.items.links.item_tags", 'ALTER TABLE "shop"."item_tags" ADD FOREIGN KEY ("tag_id") REFERENCES "shop"."tags" ("id") ON DELETE CASCADE'),
    ]  # fmt: skip
    # What the statements do not mend, the map and the makers of the tables do.
    for misfit in found.misfits:
        if misfit.statement is not None:
            await run(write if misfit.store == "write" else graph, misfit.statement)
    await run(write, "CREATE TABLE shop.purchase (id text PRIMARY KEY)")
    await run(
        graph,
        "DROP VIEW shop.item_stats; CREATE TABLE shop.item_stats (item_id uuid PRIMARY KEY REFERENCES shop.items ON DELETE CASCADE, tags bigint NOT NULL DEFAULT 0)",
    )
    mended = SHOP.replace("titel", "title").replace("and hiden", "").replace("size: integer", "size: bigint")
    schema_map = read_map(mended, source="shop.yaml")
    await adopt(write.store, "shop", schema_map)
    found = await check_map(schema_map, write, graph, text=mended)
    assert [(m.path, m.weight) for m in found.misfits] == [("tables.items.links.item_tags", "advice")], told(
        found
    )
    assert found.fits


async def test_the_built_in_map_fits_what_migrations_make(places: tuple[GraphSchema, GraphSchema]) -> None:
    write, graph = places
    await migrate_write(write.store, "shop")
    await migrate_graph(graph.store, "shop")
    assert told(await check_map(KNOWLEDGE_GRAPH, write, graph)) == []


async def test_the_statements_for_missing_tables_make_what_the_map_needs(
    places: tuple[GraphSchema, GraphSchema],
) -> None:
    write, graph = places
    await migrate_write(write.store, "shop")
    await migrate_bookkeeping(graph.store, "shop")
    found = await check_map(KNOWLEDGE_GRAPH, write, graph)
    statements = list(dict.fromkeys(misfit.statement for misfit in found.misfits))
    assert len(statements) == 16
    for statement in statements:
        assert statement is not None
        await run(graph, statement)
    assert told(await check_map(KNOWLEDGE_GRAPH, write, graph)) == []


async def test_expressions_that_cannot_be_checked_and_ids_that_postgres_gives_are_told(
    places: tuple[GraphSchema, GraphSchema],
) -> None:
    write, graph = places
    document = """version: 1
name: shop
tables:
  tags:
    source: tag
    key: name
    source_only: {mood: mood}
    expressions: {words: s.mood}
    columns: {place: bigint}
"""
    await run(write, "CREATE SCHEMA shop; CREATE DOMAIN shop.mood AS text;"
        "CREATE TABLE shop.tag (name text PRIMARY KEY, mood shop.mood, place bigint)")  # fmt: skip
    await migrate_bookkeeping(graph.store, "shop")
    await run(graph, "CREATE TABLE shop.tags (id uuid PRIMARY KEY, key text, words text,"
        "place bigint GENERATED ALWAYS AS IDENTITY, sync_version bigint, sync_run bigint)")  # fmt: skip
    found = await check_map(read_map(document, source="shop"), write, graph, text=document)
    assert [(m.store, m.line, m.problem) for m in found.misfits if m.store == "graph"] == [
        (
            "graph",
            9,
            "shop.tags.place is GENERATED ALWAYS AS IDENTITY, so no id can be written to it; let it be BY DEFAULT.",
        ),
        ("graph", 8, 'The expressions of tags could not be checked: [42704] type "mood" does not exist.'),
    ]


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("written", "path", "said"),
    [
        ("present: n = 'some'", "present", "invalid input syntax"),
        ("present: count(*) > 0", "present", "aggregate functions are not allowed"),
        ("present: row_number() OVER () > 1", "present", "window functions are not allowed"),
        ("expressions: {title: max(s.title)}", "expressions.title", "aggregate functions are not allowed"),
    ],
)
async def test_sql_that_is_no_value_of_one_row_is_told(
    places: tuple[GraphSchema, GraphSchema], written: str, path: str, said: str
) -> None:
    write, graph = places
    await run(
        write, "CREATE SCHEMA shop; CREATE TABLE shop.item (id text PRIMARY KEY, n integer, title text)"
    )
    await migrate_bookkeeping(graph.store, "shop")
    await run(graph, "CREATE TABLE shop.items (id uuid PRIMARY KEY, key text, title text)")
    text = "version: 1\nname: shop\ntables:\n  items:\n    source: item\n    stamped: false\n    columns: [title]\n"
    schema_map = read_map(f"{text}    {written}\n", source="shop.yaml")
    await adopt(
        write.store, "shop", replace(schema_map, tables=(replace(schema_map.tables[0], present="true"),))
    )
    found = await check_map(schema_map, write, graph)
    [misfit] = [each for each in found.misfits if each.weight == "error"]
    assert (misfit.path, said in misfit.problem) == (f"tables.items.{path}", True), misfit.problem


@pytest.mark.long("test_every_misfit_is_told_at_once_and_its_statement_mends_it")
async def test_what_the_role_may_not_do_has_its_grant(
    places: tuple[GraphSchema, GraphSchema], dsns: tuple[str, str]
) -> None:
    write, graph = places
    document = "version: 1\nname: shop\ntables: {tags: {source: tag, key: name}}"
    schema_map = read_map(document, source="shop")
    await run(write, TABLES)
    await migrate_bookkeeping(graph.store, "shop")
    await run(graph, TARGETS)
    await adopt(write.store, "shop", schema_map)
    role = f"map_clerk_{os.getpid()}"
    try:
        await run(write, f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA shop TO {role}")
        await run(graph, f"GRANT USAGE ON SCHEMA shop TO {role}; GRANT SELECT, INSERT ON shop.tags TO {role}")
        clerks = opened((dsns[0].replace("postgres@", f"{role}@"), dsns[1].replace("postgres@", f"{role}@")))
        found = await check_map(schema_map, *clerks)
        assert [(misfit.store, misfit.statement) for misfit in found.misfits] == [
            ("write", f'GRANT SELECT ON TABLE shop.tag TO "{role}"'),
            ("graph", f'GRANT DELETE, UPDATE ON TABLE shop.tags TO "{role}"'),
        ], told(found)
        for misfit, place in zip(found.misfits, places, strict=True):
            assert misfit.statement is not None
            await run(place, misfit.statement)
        assert told(await check_map(schema_map, *clerks)) == []
        for place in clerks:
            await place.store.close()
    finally:
        for place in places:
            await run(place, f"DROP OWNED BY {role}")
        await run(write, f"DROP ROLE {role}")


def test_the_command_prints_misfits_with_lines_and_exits_with_1(
    new_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("SYNCLINE_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    dsns = [new_database(), new_database()]
    places = [parse_dsn(dsn).place for dsn in dsns]
    monkeypatch.setenv("SYNCLINE_WRITE_DSN", dsns[0])
    monkeypatch.setenv("SYNCLINE_GRAPH_DSN", dsns[1])
    (tmp_path / "shop.yaml").write_text("version: 1\nname: shop\ntables:\n  tags: {source: tag, key: name}\n")
    command = ["map", "check", "shop.yaml", "--write-schema", "shop"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1, result.stderr
    assert result.stdout.splitlines() == [
        "shop.yaml:4: write-db: Table shop.tag is missing; tags is made from it.",
        "graph-db: Schema shop has no bookkeeping tables of the engine: `syncline graph add` makes them.",
        "shop.yaml:4: graph-db: Table shop.tags is missing; tags is stored in it.",
        '    CREATE TABLE "shop"."tags" (',
        '        "id" uuid NOT NULL,',
        '        "key" text NOT NULL,',
        '        "sync_version" bigint,',
        '        "sync_run" bigint,',
        '        PRIMARY KEY ("id")',
        "    )",
        "map shop: 1 table, 3 misfits",
        f"write-db {places[0]}, graph-db {places[1]}",
    ]
    answer = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [misfit["line"] for misfit in answer["misfits"]] == [4, None, 4]
    (tmp_path / "shop.yaml").write_text("version: 1\nname: shop\ntables:\n  tags: {sorce: tag}\n")
    refused = CliRunner().invoke(app, command)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "line 4, tables.tags.sorce: unknown key 'sorce'. Did you mean 'source'?" in refused.stderr
    assert CliRunner().invoke(app, ["map", "check", "nothing.yaml"]).exit_code == 2


async def test_the_bookkeeping_is_missed_once_before_there_is_any(new_database: Callable[..., str]) -> None:
    write, target = (
        PostgresStore(name, SecretStr(new_database()), pool_size=2, application_name="syncline-test")
        for name in ("write", "graph")
    )
    kept = read_map(
        """version: 1
name: kept
tables:
  tags: {source: tag, id: {rule: uuid5, namespace: 6ba7b811-9dad-11d1-80b4-00c04fd430c8, beside: true}}
  runs: {source: run, columns: [name], marked: {name: "'gone'"}}
  days: {source: day}
  steps: {source: step, references: {day: {parent: days, stub: true}, tag: tags}}
""",
        source="kept",
    )
    found = await check_map(
        kept, GraphSchema(store=write, schema="kg"), GraphSchema(store=target, schema="kg")
    )
    told = [
        each.problem for each in found.misfits if "sync_" in each.problem or "bookkeeping" in each.problem
    ]
    assert told == ["Schema kg has no bookkeeping tables of the engine: `syncline graph add` makes them."]
    await write.close()
    await target.close()
