"""`syncline map check` of link tables: columns that nothing fills, positions, keys, and SQL that is refused."""

from collections.abc import AsyncIterator, Callable

import pytest_asyncio
from pydantic import SecretStr

from syncline.capture.install.install import adopt
from syncline.maps.document import read_map
from syncline.migrations import migrate_bookkeeping
from syncline.operator.map_check import MapCheck, check_map
from syncline.provider import GraphSchema
from syncline.stores.postgres import PostgresStore

MAP = """version: 1
name: shop
tables:
  tags: {source: tag}
  items:
    source: item
    columns: {title: text}
    links:
      item_tags:
        source: tags
        owner: item_id
        member: tag_id
        parent: tags
        # the rest
"""
FILLED = """
        position: place
        columns:
          relevance: 1.0
          linked_at: now()
          said: t.title || '!'
"""
SOURCE = """
CREATE SCHEMA shop;
CREATE TABLE shop.tag (id text PRIMARY KEY);
CREATE TABLE shop.item (id text PRIMARY KEY, title text, tags text[]);
"""
TARGET = """
CREATE SCHEMA shop;
CREATE TABLE shop.tags (id uuid PRIMARY KEY, key text, sync_version bigint, sync_run bigint);
CREATE TABLE shop.items (id uuid PRIMARY KEY, key text, title text, sync_version bigint, sync_run bigint);
"""
ORM = """
CREATE TABLE shop.item_tags (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    item_id uuid REFERENCES shop.items ON DELETE CASCADE, tag_id uuid REFERENCES shop.tags ON DELETE CASCADE,
    relevance float NOT NULL, linked_at timestamp NOT NULL, said text NOT NULL, place integer,
    UNIQUE (item_id, tag_id)
);
"""


@pytest_asyncio.fixture(loop_scope="session")
async def places(new_database: Callable[..., str]) -> AsyncIterator[tuple[GraphSchema, GraphSchema]]:
    write, graph = (
        PostgresStore(role, SecretStr(new_database()), pool_size=3, application_name="test")
        for role in ("write", "graph")
    )
    yield GraphSchema(store=write, schema="shop"), GraphSchema(store=graph, schema="shop")
    for store in (write, graph):
        await store.close()


async def run(place: GraphSchema, statements: str) -> None:
    async with place.store.driver() as connection:
        await connection.execute(statements)


async def made(places: tuple[GraphSchema, GraphSchema], links: str) -> None:
    write, graph = places
    await run(write, SOURCE)
    await run(graph, TARGET + links)
    await migrate_bookkeeping(graph.store, "shop")
    await adopt(write.store, "shop", read_map(MAP, source="shop"))


async def checked(places: tuple[GraphSchema, GraphSchema], document: str) -> MapCheck:
    return await check_map(read_map(document, source="shop"), *places, text=document)


async def test_unfilled_columns_are_told_with_the_line(places: tuple[GraphSchema, GraphSchema]) -> None:
    await made(places, ORM)
    found = await checked(places, MAP)
    assert [(misfit.path, misfit.line) for misfit in found.misfits] == [
        ("tables.items.links.item_tags", 9)
    ] * 3
    lines = {"relevance": "'0'", "linked_at": "now()", "said": "\"''\""}
    for misfit, (column, value) in zip(found.misfits, lines.items(), strict=True):
        assert f"`columns: {{{column}: {value}}}`" in misfit.problem
    # Each line is one that a map can have, and all of them mend it.
    more = "        columns:\n" + "".join(f"          {name}: {value}\n" for name, value in lines.items())
    assert (await checked(places, MAP + more)).misfits == ()
    assert (await checked(places, MAP + FILLED)).misfits == ()


async def test_link_columns_are_checked_by_postgres(places: tuple[GraphSchema, GraphSchema]) -> None:
    await made(places, ORM)
    document = MAP + FILLED.replace("1.0", "s.weight").replace("now()", "count(t.id)").replace("||", "&&")
    found = await checked(places, document + "          missing: '5'\n")
    told = {(misfit.path.rpartition(".")[2], misfit.line) for misfit in found.misfits}
    assert told == {("relevance", 18), ("linked_at", 19), ("said", 20), ("missing", 21)}


async def test_position_and_pair_are_checked(places: tuple[GraphSchema, GraphSchema]) -> None:
    table = ORM.replace("    UNIQUE (item_id, tag_id)", "    UNIQUE (item_id, place)").replace(
        "place integer", "place text"
    )
    await made(places, table)
    _, graph = places
    found = await checked(places, MAP + FILLED)
    assert [misfit.path for misfit in found.misfits] == [
        "tables.items",
        "tables.items.links.item_tags.position",
        "tables.items.links.item_tags.position",
    ]
    for misfit in found.misfits:
        assert misfit.statement is not None
        await run(graph, misfit.statement)
    # What is checked row by row has to go; the constraint that is checked at the end of a statement stays.
    [left] = (await checked(places, MAP + FILLED)).misfits
    await run(graph, "ALTER TABLE shop.item_tags DROP CONSTRAINT item_tags_item_id_place_key")
    assert "DEFERRABLE" in left.problem
    assert (await checked(places, MAP + FILLED)).misfits == ()
    await run(graph, "ALTER TABLE shop.item_tags DROP COLUMN place")
    [missing] = (await checked(places, MAP + FILLED)).misfits
    assert missing.statement is not None
    await run(graph, missing.statement)
    assert (await checked(places, MAP + FILLED)).misfits == ()


async def test_missing_link_table_gets_its_columns(places: tuple[GraphSchema, GraphSchema]) -> None:
    await made(places, "")
    [missing] = (await checked(places, MAP + FILLED)).misfits
    assert missing.statement is not None
    await run(places[1], missing.statement)
    assert (await checked(places, MAP + FILLED)).misfits == ()
    async with places[1].store.driver() as connection:
        rows = await connection.fetch(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'shop.item_tags'::regclass AND attnum > 2 ORDER BY attnum"
        )
    assert [tuple(row) for row in rows] == [
        ("place", "integer"),
        ("relevance", "numeric"),
        ("linked_at", "timestamp with time zone"),
        ("said", "text"),
    ]
