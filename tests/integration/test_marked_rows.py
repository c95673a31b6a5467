"""Marked rows: what leaves the write-db stays in the target with columns set, out of counts and vectors, and returns."""

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
  shelves:
    source: shelf
    stats:
      columns: {books: {counted: books, by: shelf_id}}
  tags: {source: tag, marked: {gone: "'yes'"}, columns: {gone: {value: "'no'"}}}
  books:
    source: book
    key: isbn
    present: state = 'published'
    columns:
      title: text
      deleted_at: timestamptz
      state: {type: text, value: "'here'"}
    marked: {deleted_at: now(), state: "t.state || ', gone'"}
    references: {shelf: {parent: shelves, target: shelf_id}, sequel: {parent: books, required: false, target: sequel_id}}
    links: {book_tags: {source: tag_ids, owner: book_id, member: tag_id, parent: tags}}
    vector: {collection: books, text: t.title, payload: {title: t.title}}
  reviews:
    source: review
    types: {id: bigint}
    id: same
    references: {isbn: {parent: books, target: book_id}}
    columns: {body: text}
"""
SOURCE = """
CREATE TABLE shelf (id text PRIMARY KEY);
CREATE TABLE tag (id text PRIMARY KEY);
CREATE TABLE book (
    isbn text PRIMARY KEY, title text, state text DEFAULT 'published', deleted_at timestamptz, shelf text DEFAULT 's',
    sequel text, tag_ids text[] DEFAULT '{x}'
);
CREATE TABLE review (id bigint PRIMARY KEY, isbn text, body text);
INSERT INTO shelf VALUES ('s'); INSERT INTO tag VALUES ('x'), ('y');
INSERT INTO book (isbn, title, sequel) VALUES ('a', 'A', 'b'), ('b', 'B', NULL), ('c', 'C', 'a');
INSERT INTO review VALUES (1, 'a', 'good'), (2, 'b', 'better');
"""
STAMPS = "sync_version bigint, sync_run bigint"
TARGET = f"""
CREATE TABLE shelves (id uuid PRIMARY KEY, key text, books integer DEFAULT 0, {STAMPS});
CREATE TABLE tags (id uuid PRIMARY KEY, key text, gone text, {STAMPS});
CREATE TABLE books (
    id uuid PRIMARY KEY, key text, title text, deleted_at timestamptz, state text, shelf_id uuid NOT NULL REFERENCES shelves,
    sequel_id uuid REFERENCES books, reads integer DEFAULT 0, {STAMPS}
);
CREATE TABLE book_tags (book_id uuid REFERENCES books, tag_id uuid REFERENCES tags, PRIMARY KEY (book_id, tag_id));
CREATE TABLE reviews (id bigint PRIMARY KEY, book_id uuid NOT NULL REFERENCES books, body text, {STAMPS});
"""
BOOKS = "SELECT key, deleted_at IS NOT NULL AS gone, state FROM kg.books ORDER BY key"
Row = tuple[object, ...]


@pytest_asyncio.fixture(loop_scope="session")
async def site(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Site]:
    async with bare_graph(new_database, tmp_path) as graph:
        site = await made(graph, MAP, source=SOURCE, target=TARGET)
        assert await site.misfits() == {}
        await site.cycle()
        await site.equal()
        yield site


async def books(site: Site) -> list[Row]:
    return [tuple(row.values()) for row in await site.rows(BOOKS)]


async def number(site: Site, query: str) -> object:
    [row] = await site.rows(f"SELECT ({query}) AS found")
    return row["found"]


async def test_rows_that_leave_are_marked_and_return(site: Site) -> None:
    await on_target(site.graph, "UPDATE kg.books SET reads = 7")
    await write(
        site.graph,
        "DELETE FROM kg.book WHERE isbn = 'a'; UPDATE kg.book SET state = 'draft' WHERE isbn = 'b'",
    )
    result = await site.cycle()
    assert result.vectors.deleted == 2
    marked: list[Row] = [("a", True, "here, gone"), ("b", True, "here, gone"), ("c", False, "here")]
    assert await books(site) == marked
    # Who refers to them keeps the reference; they are not counted, and their own links leave.
    assert await number(site, "SELECT books FROM kg.shelves") == 1
    assert await number(site, "SELECT count(*) FROM kg.reviews") == 2
    assert await number(site, "SELECT count(sequel_id) FROM kg.books WHERE key = 'c'") == 1
    assert await number(site, "SELECT count(*) FROM kg.book_tags") == 1
    await site.equal()
    # What leaves twice keeps its mark; what hangs on it goes on.
    since = await number(site, "SELECT deleted_at FROM kg.books WHERE key = 'b'")
    await write(
        site.graph,
        "DELETE FROM kg.book WHERE isbn = 'b'; INSERT INTO kg.review VALUES (3, 'b', 'late');"
        "UPDATE kg.review SET body = 'bad' WHERE id = 1",
    )
    await site.cycle()
    assert await number(site, "SELECT deleted_at FROM kg.books WHERE key = 'b'") == since
    assert await number(site, "SELECT string_agg(body, ',' ORDER BY id) FROM kg.reviews") == "bad,better,late"
    await site.equal()
    # They return under the same key, and are rows like others.
    await write(
        site.graph, "INSERT INTO kg.book (isbn, title, tag_ids) VALUES ('a', 'A', '{x,y}'), ('b', 'B2', '{}')"
    )
    result = await site.cycle()
    assert result.vectors.upserted == 2
    assert await books(site) == [(key, False, "here") for key in "abc"]
    assert await number(site, "SELECT books FROM kg.shelves") == 3
    assert await number(site, "SELECT count(*) FROM kg.book_tags") == 3
    assert await number(site, "SELECT sum(reads) FROM kg.books") == 21
    assert await number(site, "SELECT count(*) FROM kg.sync_kept") == 0
    await site.equal()


@pytest.mark.long("test_rows_that_leave_are_marked_and_return")
async def test_a_row_that_says_itself_that_it_was_deleted_is_a_row_like_others(site: Site) -> None:
    await write(site.graph, "UPDATE kg.book SET deleted_at = '2026-01-01' WHERE isbn = 'a'")
    await site.cycle()
    assert await books(site) == [("a", True, "here"), ("b", False, "here"), ("c", False, "here")]
    assert await number(site, "SELECT books FROM kg.shelves") == 3
    await site.equal()


async def test_a_parent_that_leaves_takes_marked_rows_along(site: Site) -> None:
    await write(site.graph, "DELETE FROM kg.book WHERE isbn = 'a'")
    await site.cycle()
    await write(site.graph, "DELETE FROM kg.shelf")
    assert (await site.cycle()).parked == 4
    assert await books(site) == []
    assert await number(site, "SELECT count(*) FROM kg.sync_kept") == 0
    await site.equal()
    await write(site.graph, "INSERT INTO kg.shelf VALUES ('s')")
    assert (await site.cycle()).parked == 2
    assert [row[0] for row in await books(site)] == ["b", "c"]
    await site.equal()
    # In one batch: marked, and its parent gone.
    await write(site.graph, "DELETE FROM kg.book WHERE isbn = 'b'; DELETE FROM kg.shelf")
    await site.cycle()
    assert await books(site) == []
    assert await number(site, "SELECT count(*) FROM kg.sync_kept") == 0
    await site.equal()


async def test_verify_and_repair_know_marked_rows(site: Site) -> None:
    await write(site.graph, "DELETE FROM kg.book WHERE isbn = 'a'; DELETE FROM kg.tag WHERE id = 'x'")
    await site.cycle()
    await site.equal()
    # A mark of which nobody knows, a row that was missed, a mark that was taken back in the bookkeeping alone.
    await on_target(
        site.graph,
        "UPDATE kg.books SET state = 'here, gone' WHERE key = 'b'; DELETE FROM kg.sync_kept WHERE table_name = 'tags';"
        "UPDATE kg.tags SET gone = 'no' WHERE key = 'x'",
    )
    found = await site.verified(repair=True)
    assert {each.name: (each.stale.count, each.extra.count) for each in found.relations if each.damaged} == {
        "books": (1, 0),
        "tags": (0, 1),
    }
    await site.cycle()
    await site.equal()
    assert await number(site, "SELECT gone FROM kg.tags WHERE key = 'x'") == "yes"


async def test_explain_says_that_a_row_is_marked(site: Site) -> None:
    await write(
        site.graph,
        "DELETE FROM kg.book WHERE isbn = 'a'; UPDATE kg.book SET state = 'draft' WHERE isbn = 'b'",
    )
    await site.cycle()
    context = site.graph.context()
    for key, said in (("a", "not in the write-db"), ("b", "keeps it out")):
        row = await explain(
            context.write, context.target, context.vectors, site.map, table="books", key=[key]
        )
        assert (row.state.value, row.graph.marked_since is not None) == ("in_step", True), row.verdict
        assert said in row.verdict, row.verdict
        assert "marked" in row.verdict, row.verdict
        assert row.vector is not None
        assert (row.vector.wanted, row.vector.point) == (False, False)


async def test_a_map_that_marks_no_longer_removes_what_is_marked(site: Site) -> None:
    await write(site.graph, "DELETE FROM kg.book WHERE isbn = 'a'; DELETE FROM kg.review WHERE id = 1")
    await site.cycle()
    plain = tuple(replace(table, marked={}) if table.name == "books" else table for table in site.map)
    left = Site(site.graph, SchemaMap(name="plain", tables=plain))
    await left.cycle()
    assert [row[0] for row in await books(site)] == ["b", "c"]
    assert await number(site, "SELECT count(*) FROM kg.sync_kept") == 0
    await left.equal()
    # And back again: what leaves from now on is marked.
    await write(site.graph, "DELETE FROM kg.book WHERE isbn = 'b'")
    await site.cycle()
    assert await books(site) == [("b", True, "here, gone"), ("c", False, "here")]
    await site.equal()


IDS = {
    "same": ("id: same, types: {a: uuid}, key: a", "id uuid PRIMARY KEY", True),
    "uuid5": (
        "id: {rule: uuid5, namespace: 6ba7b810-9dad-11d1-80b4-00c04fd430c8, beside: true}, key: a",
        "id uuid PRIMARY KEY",
        False,
    ),
    "hash beside": ("id: {rule: hash, beside: true}, key: a", "id uuid PRIMARY KEY", False),
    "column": ("id: {rule: column, source: a, type: uuid}, key: b", "id uuid PRIMARY KEY, key text", True),
    "assigned": (
        "id: {rule: assigned, type: bigint, natural: [title], beside: true}, key: a",
        "id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        False,
    ),
    "several": ("id: same, key: [a, b], types: {b: integer}", "a text, b integer, PRIMARY KEY (a, b)", True),
    "hash of several": (
        "id: hash, key: [a, b], types: {b: integer}",
        "id uuid PRIMARY KEY, a text, b integer",
        True,
    ),
}
"""Name -> what the map says, the target's columns for it, and whether version and run stand there."""


@pytest.mark.long(after=1)
@pytest.mark.parametrize("name", IDS)
async def test_rows_with_ids_of_every_rule_are_marked_and_return(graph: TestGraph, name: str) -> None:
    said, columns, stamped = IDS[name]
    uuid, several = "a: uuid" in said or "source: a" in said, "[a, b]" in said
    key = "a, b" if several else "b" if "key: b" in said else "a"
    site = await made(
        graph,
        f"  things: {{source: thing, {said}, marked: {{title: \"'gone'\"}}, columns: {{title: text}}}}\n",
        source=f"CREATE TABLE thing (a {'uuid' if uuid else 'text'}, b {'integer' if several else 'text'}, title text,"
        f" PRIMARY KEY ({key}))",
        target=f"CREATE TABLE things ({columns}, title text{', ' + STAMPS if stamped else ''});"
        "CREATE UNIQUE INDEX ON things (title)",
    )
    rows = ", ".join(f"('{number:032x}', '{number}', 't{number}')" for number in (1, 2))
    await write(graph, f"INSERT INTO kg.thing VALUES {rows}")
    await site.cycle()
    before = await site.rows("SELECT * FROM kg.things ORDER BY title")
    assert len(before) == 2
    await write(graph, "DELETE FROM kg.thing WHERE title = 't1'")
    await site.cycle()
    await site.equal()
    assert [row["title"] for row in await site.rows("SELECT title FROM kg.things ORDER BY title")] == [
        "gone",
        "t2",
    ]
    await write(graph, f"INSERT INTO kg.thing VALUES ('{1:032x}', '1', 't1')")
    await site.cycle()
    await site.equal()
    after = await site.rows("SELECT * FROM kg.things ORDER BY title")
    stamps = {"sync_version", "sync_run"}
    kept = [[{name: row[name] for name in row.keys() - stamps} for row in rows] for rows in (before, after)]
    assert kept[0] == kept[1]
    assert await number(site, "SELECT count(*) FROM kg.sync_kept") == 0


async def test_map_check_reads_marks_over_the_rows_that_get_them(site: Site) -> None:
    marked = {"deleted_at": "t.nothing", "state": "count(*)::text"}
    tables = (replace(each, marked=marked) if each.name == "books" else each for each in site.map)
    told = await Site(site.graph, SchemaMap(name="other", tables=tuple(tables))).misfits()
    assert told.keys() == {"tables.books.marked.deleted_at", "tables.books.marked.state"}
