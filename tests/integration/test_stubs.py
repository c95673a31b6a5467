"""Stubs: rows that are made while what a reference names is missing; the row takes its stub over, with all that refers to it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.engine import SchemaMap
from syncline.operator.explain import explain
from syncline.testing.graphs import TestGraph, on_target, write
from tests.integration.test_shapes import Site, graph, made
from tests.kit.bare_graph import bare_graph

__all__ = ["graph"]

MAP = """
  people:
    source: person
    stats: {table: people_stats, owner: person_id, columns: {quotes: {counted: quotes, by: person_id}}}
  sources:
    source: raw_source
    types: {id: uuid}
    id: same
    columns: {uri: text, content_hash: text, state: text}
    stats:
      columns: {quotes: {counted: quotes, by: source_id}}
    vector: {collection: raw, text: t.uri, payload: {state: t.state}}
  facts: {source: fact, columns: {content: text}}
  quotes:
    source: quote
    key: [fact, number]
    types: {number: integer}
    id: hash
    references:
      fact: {parent: facts, target: fact_id}
      hash: {parent: sources, target: source_id, by: content_hash, stub: {uri: s.source_uri, state: "'stub'"}}
      person: {parent: people, target: person_id, stub: true}
    columns: {words: text}
    source_only: {source_uri: text}
    vector: {collection: quotes, text: t.words, payload: {source: t.source_id}}
"""
SOURCE = """
CREATE TABLE person (id text PRIMARY KEY);
CREATE TABLE raw_source (id uuid PRIMARY KEY, uri text, content_hash text, state text);
CREATE TABLE fact (id text PRIMARY KEY, content text);
CREATE TABLE quote (
    fact text, number integer, hash text, source_uri text, person text DEFAULT 'p', words text, PRIMARY KEY (fact, number)
);
INSERT INTO fact VALUES ('f', 'F'), ('g', 'G');
"""
STAMPS = "sync_version bigint, sync_run bigint"
TARGET = f"""
CREATE TABLE people (id uuid PRIMARY KEY, key text NOT NULL UNIQUE, {STAMPS});
CREATE TABLE people_stats (person_id uuid PRIMARY KEY REFERENCES people ON DELETE CASCADE, quotes integer DEFAULT 0);
CREATE TABLE sources (
    id uuid PRIMARY KEY, uri text NOT NULL, content_hash varchar(40) NOT NULL UNIQUE, state text NOT NULL,
    reads integer NOT NULL DEFAULT 0, quotes integer, {STAMPS}
);
CREATE TABLE facts (id uuid PRIMARY KEY, key text, content text, {STAMPS});
CREATE TABLE quotes (
    id uuid PRIMARY KEY, fact_id uuid NOT NULL REFERENCES facts, number integer NOT NULL,
    source_id uuid NOT NULL REFERENCES sources, person_id uuid NOT NULL REFERENCES people, words text, {STAMPS},
    UNIQUE (fact_id, source_id)
);
"""
FOUND = """
SELECT s.uri, s.content_hash, s.state, s.quotes, string_agg(q.words, ',' ORDER BY words) AS words
FROM kg.sources s LEFT JOIN kg.quotes q ON q.source_id = s.id GROUP BY s.id ORDER BY 2
"""
QUOTES = "INSERT INTO kg.quote VALUES ('f', 1, 'h1', 'http://1', 'p', 'one'), ('g', 1, 'h1', 'http://1', 'q', 'two')"
ID = "00000000-0000-0000-0000-00000000000"
Row = tuple[object, ...]


@pytest_asyncio.fixture(loop_scope="session")
async def site(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Site]:
    async with bare_graph(new_database, tmp_path) as graph:
        site = await made(graph, MAP, source=SOURCE, target=TARGET)
        assert await site.misfits() == {}
        await write(graph, QUOTES)
        assert (await site.cycle()).parked == 0
        yield site


async def found(site: Site, query: str = FOUND) -> list[Row]:
    return [tuple(row.values()) for row in await site.rows(query)]


async def stubs(site: Site) -> list[Row]:
    return await found(site, "SELECT table_name FROM kg.sync_kept WHERE stub ORDER BY 1")


async def test_rows_refer_to_a_stub_until_the_row_comes_and_takes_it_over(site: Site) -> None:
    assert await found(site) == [("http://1", "h1", "stub", 2, "one,two")]
    assert await found(
        site, "SELECT key, quotes FROM kg.people JOIN kg.people_stats ON person_id = id ORDER BY 1"
    ) == [
        ("p", 1),
        ("q", 1),
    ]
    assert await stubs(site) == [("people",), ("people",), ("sources",)]
    await site.equal()
    await on_target(site.graph, "UPDATE kg.sources SET reads = 7; UPDATE kg.quotes SET words = words")
    # The row has an id of its own, and what refers to it follows in the transaction that brings it.
    await write(
        site.graph,
        f"INSERT INTO kg.raw_source VALUES ('{ID}1', 'http://real', 'h1', 'fetched'); INSERT INTO kg.person VALUES ('p')",
    )
    result = await site.cycle()
    assert [each.table for each in result.tables if each.deletes] == []
    assert result.vectors.upserted == 3
    assert await found(site) == [("http://real", "h1", "fetched", 2, "one,two")]
    assert await found(site, "SELECT id::text, reads FROM kg.sources") == [(f"{ID}1", 7)]
    assert await stubs(site) == [("people",)]
    await site.equal()
    # A row with a source leaves as any other; what refers to it gets a stub again.
    await write(site.graph, "DELETE FROM kg.raw_source; DELETE FROM kg.person")
    await site.cycle()
    assert await found(site) == [("http://1", "h1", "stub", 2, "one,two")]
    assert await stubs(site) == [("people",), ("people",), ("sources",)]
    await site.equal()


async def test_a_stub_leaves_with_the_last_row_that_refers_to_it(site: Site) -> None:
    await write(site.graph, "DELETE FROM kg.quote WHERE fact = 'f'")
    await site.cycle()
    assert await found(site) == [("http://1", "h1", "stub", 1, "two")]
    assert await stubs(site) == [("people",), ("sources",)]
    await site.equal()
    await write(site.graph, "UPDATE kg.quote SET hash = 'h2', source_uri = 'http://2', person = 'r'")
    await site.cycle()
    assert await found(site) == [("http://2", "h2", "stub", 1, "two")]
    assert await found(site, "SELECT key FROM kg.people") == [("r",)]
    await site.equal()
    await write(site.graph, "DELETE FROM kg.quote")
    await site.cycle()
    assert await found(site) == [] == await stubs(site)
    assert await found(site, "SELECT key FROM kg.people") == []
    await site.equal()


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    "rule",
    [
        "hash",
        "{rule: uuid5, namespace: 6ba7b810-9dad-11d1-80b4-00c04fd430c8}",
        "{rule: expression, expression: md5('x' || $1)::uuid, type: uuid}",
    ],
)
async def test_ids_of_every_rule_are_taken_over(graph: TestGraph, rule: str) -> None:
    site = await made(
        graph,
        MAP.replace("    types: {id: uuid}\n    id: same\n", f"    id: {rule}\n").replace(
            "      columns: {quotes: {counted: quotes, by: source_id}}",
            "      {table: counts, owner: source_id, columns: {quotes: {counted: quotes, by: source_id}}}",
        ),
        source=SOURCE.replace("id uuid", "id text"),
        target=TARGET.replace(
            "    id uuid PRIMARY KEY, uri", "    id uuid PRIMARY KEY, key text NOT NULL UNIQUE, uri"
        )
        + "CREATE TABLE counts (source_id uuid PRIMARY KEY REFERENCES sources ON DELETE CASCADE, quotes integer DEFAULT 0)",
    )
    await write(graph, QUOTES)
    await site.cycle()
    counted = FOUND.replace("s.quotes", "(SELECT quotes FROM kg.counts c WHERE c.source_id = s.id) AS quotes")
    assert await found(site, counted) == [("http://1", "h1", "stub", 2, "one,two")]
    await site.equal()
    await write(graph, "INSERT INTO kg.raw_source VALUES ('a key', 'http://real', 'h1', 'fetched')")
    await site.cycle()
    assert await found(site, counted) == [("http://real", "h1", "fetched", 2, "one,two")]
    assert await found(site, "SELECT key FROM kg.sources") == [("a key",)]
    await site.equal()


async def test_map_check_says_what_a_stub_lacks(site: Site) -> None:
    await on_target(
        site.graph,
        "ALTER TABLE kg.sources ADD COLUMN licence text NOT NULL DEFAULT ''; ALTER TABLE kg.sources ALTER licence DROP DEFAULT;"
        "ALTER TABLE kg.people ADD COLUMN name text NOT NULL DEFAULT ''; ALTER TABLE kg.people ALTER name DROP DEFAULT",
    )
    told = await site.misfits()
    assert told.keys() == {
        "tables.sources.columns",
        "tables.people.columns",
        "tables.quotes.references.hash.stub",
        "tables.quotes.references.person.stub",
    }
    assert "a stub that quotes makes does not fill it" in told["tables.quotes.references.hash.stub"]
    await on_target(
        site.graph, "ALTER TABLE kg.sources DROP COLUMN licence; ALTER TABLE kg.people DROP COLUMN name"
    )
    references = tuple(
        replace(one, stub={"uri": "s.nothing", "state": "s.words"}) if one.column == "hash" else one
        for one in site.map["quotes"].references
    )
    tables = (replace(each, references=references) if each.name == "quotes" else each for each in site.map)
    other = Site(site.graph, SchemaMap(name="other", tables=tuple(tables)))
    assert (await other.misfits()).keys() == {"tables.quotes.references.hash.stub.uri"}
    await on_target(site.graph, "DROP TABLE kg.sync_kept")
    told = await site.misfits()
    assert told.keys() == {"tables.people", "tables.sources"}
    assert "syncline migrate" in told["tables.people"]


async def test_two_tables_that_refer_to_one_by_value_are_both_matched_again(graph: TestGraph) -> None:
    """Its statement had two parts of one name."""
    child = "source: {0}\n    references: {{hash: {{parent: sources, target: source_id, by: hash}}}}"
    table = "(id uuid PRIMARY KEY, key text, source_id uuid, sync_version bigint, sync_run bigint)"
    site = await made(
        graph,
        f"  sources: {{source: src, columns: [hash]}}\n  ones:\n    {child.format('one')}\n  twos:\n    {child.format('two')}\n",
        source="CREATE TABLE src (id text PRIMARY KEY, hash text);"
        "CREATE TABLE one (id text PRIMARY KEY, hash text); CREATE TABLE two (id text PRIMARY KEY, hash text);"
        "INSERT INTO src VALUES ('s', 'h'); INSERT INTO one VALUES ('1', 'h'); INSERT INTO two VALUES ('2', 'h')",
        target="CREATE TABLE sources (id uuid PRIMARY KEY, key text, hash text, sync_version bigint, sync_run bigint);"
        f"CREATE TABLE ones {table}; CREATE TABLE twos {table}",
    )
    await site.cycle()
    await write(graph, "UPDATE kg.src SET hash = 'g'")
    assert (await site.cycle()).parked == 2
    await site.equal()


@pytest.mark.long("test_rows_refer_to_a_stub_until_the_row_comes_and_takes_it_over")
async def test_a_row_that_was_there_takes_over_what_refers_to_a_stub(site: Site) -> None:
    await write(site.graph, f"INSERT INTO kg.raw_source VALUES ('{ID}2', 'http://x', 'h9', 'fetched')")
    await site.cycle()
    assert [row[1] for row in await found(site)] == ["h1", "h9"]
    await write(site.graph, "UPDATE kg.raw_source SET content_hash = 'h1'")
    await site.cycle()
    assert await found(site) == [("http://x", "h1", "fetched", 2, "one,two")]
    await site.equal()
    # And it goes away under them: to another value, whose stub it leaves behind.
    await write(site.graph, "UPDATE kg.raw_source SET content_hash = 'h2'")
    await site.cycle()
    assert await found(site) == [
        ("http://1", "h1", "stub", 2, "one,two"),
        ("http://x", "h2", "fetched", 0, None),
    ]
    await site.equal()


@pytest.mark.long(
    "test_rows_refer_to_a_stub_until_the_row_comes_and_takes_it_over",
    "test_a_stub_that_cannot_be_made_is_a_dead_letter_of_the_row_that_wants_it",
)
async def test_a_row_that_is_refused_leaves_its_stub_and_takes_it_over_when_it_is_mended(site: Site) -> None:
    await write(site.graph, f"INSERT INTO kg.raw_source VALUES ('{ID}3', 'http://bad', 'h1', NULL)")
    result = await site.cycle()
    assert sum(each.failures for each in result.tables) == 1
    [row] = await found(site)
    assert row[1:] == ("h1", "stub", 2, "one,two")
    assert len(await stubs(site)) == 3
    await write(site.graph, "UPDATE kg.raw_source SET state = 'queued'")
    await site.cycle()
    assert await found(site) == [("http://bad", "h1", "queued", 2, "one,two")]
    await site.equal()


async def test_a_stub_that_cannot_be_made_is_a_dead_letter_of_the_row_that_wants_it(site: Site) -> None:
    await write(
        site.graph,
        "INSERT INTO kg.quote VALUES ('g', 2, 'h5', NULL, 'p', 'no uri'), ('f', 2, 'h6', 'http://6', 'p', 'good')",
    )
    result = await site.cycle()
    assert sum(each.failures for each in result.tables) == 1
    assert [row[1] for row in await found(site)] == ["h1", "h6"]
    await write(site.graph, "UPDATE kg.quote SET source_uri = 'http://5' WHERE source_uri IS NULL")
    await site.cycle()
    assert [row[1] for row in await found(site)] == ["h1", "h5", "h6"]
    await site.equal()


async def test_verify_repair_and_explain_know_stubs(site: Site) -> None:
    context = site.graph.context()
    row = await explain(context.write, context.target, context.vectors, site.map, table="people", key=["p"])
    assert row.state.value == "in_step"
    assert "a stub since" in row.verdict
    # A stub that nobody knows is extra, and what refers to it makes another.
    await on_target(site.graph, "DELETE FROM kg.sync_kept WHERE table_name = 'sources'")
    verified = await site.verified(repair=True)
    assert {
        each.name: (each.extra.count, each.missing.count) for each in verified.relations if each.damaged
    } == {
        "sources": (1, 0),
        "raw": (0, 1),
    }
    await site.cycle()
    assert await found(site) == [("http://1", "h1", "stub", 2, "one,two")]
    await site.equal()
    # Nobody asks for what stubs stand for: they stay as long as they are needed.
    await on_target(
        site.graph,
        "INSERT INTO kg.sync_requeue (table_name, row_id, key, reason) SELECT table_name, row_id, key, 'x' FROM kg.sync_kept",
    )
    before = await found(
        site, "SELECT id, xmin FROM kg.sources UNION ALL SELECT id, xmin FROM kg.people ORDER BY 1"
    )
    await site.cycle()
    assert before == await found(
        site, "SELECT id, xmin FROM kg.sources UNION ALL SELECT id, xmin FROM kg.people ORDER BY 1"
    )
    await site.equal()


async def test_a_map_that_makes_stubs_no_longer_parks_what_refers_to_them(site: Site) -> None:
    def without(table: str) -> SchemaMap:
        tables = tuple(
            replace(
                each,
                references=tuple(
                    replace(one, stub=None) if one.parent == table else one for one in each.references
                ),
            )
            for each in site.map
        )
        return SchemaMap(name="plain", tables=tables)

    left = Site(site.graph, without("sources"))
    assert (await left.cycle()).parked == 2
    assert await found(site) == []
    assert await stubs(site) == []
    await left.equal()
    assert (await site.cycle()).parked == 0
    assert await found(site) == [("http://1", "h1", "stub", 2, "one,two")]
    await site.equal()
