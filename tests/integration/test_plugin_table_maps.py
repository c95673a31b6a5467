"""A plugin's own table map: a library of books, which has nothing to do with knowledge graphs."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import (
    Column,
    Links,
    Reference,
    SchemaMap,
    Stat,
    Stats,
    SyncEngine,
    TableMap,
    VectorProjection,
)
from syncline.messages.sync import CycleStatus
from syncline.migrations import migrate_bookkeeping
from syncline.provider import GraphSchema
from syncline.testing.graphs import TestGraph, read, write
from tests.kit.bare_graph import bare_graph, made_by

# docs/maps.md shows this very map.
LIBRARY = SchemaMap(
    name="library",
    tables=(
        TableMap(name="authors", source="author_drafts", key=("slug",), columns=(Column(name="name"),)),
        TableMap(
            name="books",
            source="book_drafts",
            key=("isbn",),
            present="state = 'published'",
            columns=(Column(name="title"), Column(name="pages", type="integer")),
            references=(Reference(column="sequel_of", parent="books", required=False),),
            links=(
                Links(
                    table="book_authors",
                    source="author_slugs",
                    owner="book_id",
                    member="author_id",
                    parent="authors",
                ),
            ),
            vector=VectorProjection(
                collection="books", text="t.title", payload={"isbn": "t.key"}, indexed=("isbn",)
            ),
            stats=Stats(
                table="book_numbers",
                owner="book_id",
                columns=(
                    Stat(column="copies", counted="copies", by=("book_id",)),
                    Stat(
                        column="shelves", counted="copies", by=("book_id",), value="count(DISTINCT c.shelf)"
                    ),
                ),
            ),
        ),
        TableMap(
            name="copies",
            source="copy_drafts",
            key=("barcode",),
            references=(Reference(column="isbn", parent="books", required=True, target="book_id"),),
            columns=(Column(name="shelf"),),
        ),
    ),
)

WRITE = """
CREATE TABLE author_drafts (slug varchar(40) PRIMARY KEY, name text);
CREATE TABLE book_drafts (isbn text PRIMARY KEY, title text, pages int, state text, sequel_of text, author_slugs text[]);
CREATE TABLE copy_drafts (barcode text PRIMARY KEY, isbn text, shelf text);
INSERT INTO author_drafts VALUES ('le-guin', 'Ursula K. Le Guin');
INSERT INTO book_drafts VALUES
    ('1', 'A Wizard of Earthsea', 205, 'published', NULL, '{le-guin}'),
    ('2', 'The Tombs of Atuan', 163, 'published', '1', '{le-guin,nobody}'),
    ('3', 'A draft', 1, 'draft', '2', '{}');
INSERT INTO copy_drafts VALUES ('c1', '1', 'A'), ('c2', '1', 'B'), ('c3', '3', 'A');
"""
TARGET = """
CREATE TABLE authors (id uuid PRIMARY KEY, key text NOT NULL, name text, sync_version bigint, sync_run bigint);
CREATE TABLE books (
    id uuid PRIMARY KEY, key text NOT NULL, title text, pages integer, sequel_of uuid REFERENCES books,
    sync_version bigint, sync_run bigint
);
CREATE TABLE book_authors (
    book_id uuid REFERENCES books, author_id uuid REFERENCES authors, PRIMARY KEY (book_id, author_id)
);
CREATE TABLE book_numbers (
    book_id uuid PRIMARY KEY REFERENCES books ON DELETE CASCADE, copies bigint DEFAULT 0, shelves bigint DEFAULT 0
);
CREATE TABLE copies (
    id uuid PRIMARY KEY, key text NOT NULL, book_id uuid NOT NULL REFERENCES books, shelf text,
    sync_version bigint, sync_run bigint
);
"""


@pytest_asyncio.fixture(loop_scope="session")
async def library(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        await made_by(graph, write=WRITE, target=TARGET)
        await adopt(graph.write, "kg", LIBRARY)
        yield graph


NUMBERS = "SELECT b.key, n.copies, n.shelves FROM book_numbers n JOIN books b ON b.id = n.book_id ORDER BY 1"


async def test_a_map_of_another_world_travels_whole(library: TestGraph) -> None:
    engine = SyncEngine(LIBRARY)
    result = await engine.run_cycle(library.context())
    assert (result.status, result.rows, result.parked) == (CycleStatus.DRAINED, 5, 2)
    assert await read(library, "SELECT key, pages FROM books ORDER BY 1") == [("1", 205), ("2", 163)]
    assert await read(library, NUMBERS) == [("1", 2, 2), ("2", 0, 0)]
    assert await library.vectors.count("kg_books") == 2

    await write(
        library,
        "UPDATE book_drafts SET state = 'published' WHERE isbn = '3';"
        "UPDATE copy_drafts SET isbn = '2', shelf = 'B' WHERE barcode = 'c1';"
        "DELETE FROM author_drafts; INSERT INTO author_drafts VALUES ('nobody', 'No Body')",
    )
    result = await engine.run_cycle(library.context())
    assert (result.status, result.parked) == (CycleStatus.DRAINED, 2)  # the links to her who left
    assert await read(library, NUMBERS) == [("1", 1, 1), ("2", 1, 1), ("3", 1, 1)]
    assert await read(library, "SELECT count(*) FROM book_authors") == [(1,)]

    await write(library, "TRUNCATE book_drafts")
    result = await engine.run_cycle(library.context())
    assert await read(library, "SELECT count(*) FROM books") == [(0,)]
    assert await library.vectors.count("kg_books") == 0
    assert result.parked == 3  # the copies


async def test_tables_that_do_not_fit_are_named_at_the_first_cycle_and_the_others_go_on(
    library: TestGraph,
) -> None:
    await write(library, "ALTER TABLE book_drafts DROP COLUMN title, ALTER COLUMN pages TYPE bigint")
    result = await SyncEngine(LIBRARY).run_cycle(library.context())
    errors = {table.table: table.error for table in result.tables if table.error}
    assert list(errors) == ["books"]
    assert "kg.book_drafts.title is missing" in errors["books"]
    assert "kg.book_drafts.pages is bigint" in errors["books"]
    assert await read(library, "SELECT key FROM authors") == [("le-guin",)]


async def test_tables_that_nobody_adopted_are_named(library: TestGraph) -> None:
    await write(library, "DROP TRIGGER capture_delete ON copy_drafts")
    result = await SyncEngine(LIBRARY).run_cycle(library.context())
    [error] = [table.error for table in result.tables if table.error]
    assert error is not None
    assert "copy_drafts is not captured" in error


async def test_two_schemas_of_one_map_keep_apart(library: TestGraph) -> None:
    for store, script in ((library.write, WRITE), (library.target, TARGET)):
        async with store.driver() as connection:
            await connection.execute("CREATE SCHEMA other; SET search_path = other")
            await connection.execute(script)
            await connection.execute("RESET search_path")
    await migrate_bookkeeping(library.target, "other")
    await adopt(library.write, "other", LIBRARY)
    engine = SyncEngine(LIBRARY)
    await write(library, "DELETE FROM other.author_drafts")
    context = library.context()
    other = replace(
        context,
        write=GraphSchema(store=library.write, schema="other"),
        target=GraphSchema(store=library.target, schema="other"),
        vectors=replace(context.vectors, prefix="other_"),
    )
    assert (await engine.run_cycle(other)).status is CycleStatus.DRAINED
    assert (await engine.run_cycle(context)).rows == 5
    assert await read(library, "SELECT count(*) FROM other.authors") == [(0,)]


async def test_a_map_says_itself_when_it_cannot_work() -> None:
    books = LIBRARY["books"]
    with pytest.raises(ValueError, match="stat copies counts copies by"):
        SchemaMap(
            name="x", tables=(LIBRARY["authors"], replace(books, stats=_counting("shelf")), LIBRARY["copies"])
        )
    with pytest.raises(ValueError, match="no text column"):
        chunk = TableMap(
            name="chunks",
            source="c",
            references=(Reference(column="h", parent="books", required=True, target="b", by="nothing"),),
        )
        SchemaMap(name="x", tables=(*LIBRARY.tables, chunk))
    with pytest.raises(ValueError, match="must have a key of two required references"):
        links = replace(books.links[0], rejected_by="copies")
        SchemaMap(name="x", tables=(LIBRARY["authors"], replace(books, links=(links,)), LIBRARY["copies"]))


def _counting(column: str) -> Stats:
    return Stats(table="n", owner="o", columns=(Stat(column="copies", counted="copies", by=(column,)),))
