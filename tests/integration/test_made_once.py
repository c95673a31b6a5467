"""What a cycle makes once: ids of the rows that it removes, and counts of rows that are counted elsewhere now."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import Column, Reference, SchemaMap, Stat, Stats, SyncEngine, TableMap
from syncline.engine.render.recount import Recount
from syncline.maps.ids import Id, IdRule
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import TestGraph, on_target, read
from tests.integration.test_listed_rows import cycle
from tests.kit.bare_graph import bare_graph, made_by

SHELVES = TableMap(
    name="shelves",
    source="w_shelves",
    types={"id": "uuid"},
    id=Id(rule=IdRule.SAME),
    stamped=False,
    columns=(Column(name="name"),),
    stats=Stats(columns=(Stat(column="books", counted="books", by=("shelf",)),)),
)
BOOKS = TableMap(
    name="books",
    source="w_books",
    key=("isbn",),
    types={"shelf": "uuid"},
    id=Id(rule=IdRule.EXPRESSION, type="uuid", expression="public.dear($1)"),
    columns=(Column(name="title"), Column(name="pages", type="bigint")),
    references=(Reference(column="shelf", parent="shelves"),),
)
SOURCE = """
CREATE TABLE w_shelves (id uuid PRIMARY KEY, name text);
CREATE TABLE w_books (isbn text PRIMARY KEY, title text, pages bigint, shelf uuid);
"""
TARGET = """
CREATE SEQUENCE public.calls;
CREATE FUNCTION public.dear(isbn text) RETURNS uuid LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM nextval('public.calls'); RETURN md5(isbn)::uuid; END $$;
CREATE TABLE shelves (id uuid PRIMARY KEY, name text, books bigint NOT NULL DEFAULT 0);
CREATE TABLE books (
    id uuid PRIMARY KEY, title text, pages bigint, shelf uuid NOT NULL REFERENCES shelves{own}
);
"""
OWN = ", key text NOT NULL, sync_version bigint, sync_run bigint"
ROWS = """
INSERT INTO w_shelves SELECT md5('shelf ' || i)::uuid, i FROM generate_series(1, 3) i;
INSERT INTO w_books SELECT i, 'Book ' || i, i, md5('shelf ' || 1 + i % 3)::uuid FROM generate_series(1, 30) i;
"""
COUNTS = "SELECT name, books FROM shelves ORDER BY 1"
CALLS = "SELECT last_value FROM public.calls"


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    request: pytest.FixtureRequest, new_database: Callable[..., str], tmp_path: Path
) -> AsyncIterator[tuple[TestGraph, SyncEngine]]:
    beside, stat = request.param
    shelves = replace(SHELVES, stats=Stats(columns=(stat,))) if stat is not None else SHELVES
    assert BOOKS.id is not None
    tables = (shelves, replace(BOOKS, id=replace(BOOKS.id, beside=beside)))
    library = SchemaMap(name="library", tables=tables)
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        await made_by(graph, write=SOURCE, target=TARGET.replace("{own}", "" if beside else OWN))
        await adopt(graph.write, "kg", library)
        engine = SyncEngine(library)
        await cycle(graph, engine, ROWS)
        yield graph, engine


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """For each recount that had something to do: under which label, and how many rows."""
    found: list[tuple[str, int]] = []
    plain = Recount.run

    async def run(recount: Recount, target: asyncpg.Connection, *, put_off: bool = False) -> bool:
        rows = await target.fetch(
            f"SELECT counted, count(DISTINCT id) FROM pg_temp.{recount.noted} GROUP BY 1"
        )
        found.extend((row[0], row[1]) for row in rows)
        return await plain(recount, target, put_off=put_off)

    monkeypatch.setattr(Recount, "run", run)
    return found


@pytest.mark.parametrize("site", [(True, None), (False, None)], indirect=True, ids=["beside", "in the row"])
async def test_an_id_of_a_removed_row_is_made_once_and_not_at_all_where_the_list_has_it(
    site: tuple[TestGraph, SyncEngine], request: pytest.FixtureRequest
) -> None:
    graph, engine = site
    listed = "beside" in request.node.callspec.id
    # As with the plan for many rows: a join makes what it compares again.
    await on_target(graph, "ANALYZE")
    [[before]] = await read(graph, CALLS)
    await cycle(graph, engine, "DELETE FROM w_books WHERE isbn::int % 3 = 0")
    [[after]] = await read(graph, CALLS)
    assert after - before == (0 if listed else 10)
    assert await read(graph, COUNTS) == [("1", 0), ("2", 10), ("3", 10)]


@pytest.mark.parametrize("site", [(True, None)], indirect=True)
async def test_a_row_that_is_counted_as_before_has_nothing_counted_again(
    site: tuple[TestGraph, SyncEngine], noted: list[tuple[str, int]]
) -> None:
    graph, engine = site
    await cycle(graph, engine, "UPDATE w_books SET title = title || '!', pages = 0")
    assert noted == []
    await cycle(graph, engine, "UPDATE w_books SET shelf = md5('shelf 2')::uuid WHERE isbn = '3'")
    assert noted == [("shelves/books", 2)]
    assert await read(graph, COUNTS) == [("1", 9), ("2", 11), ("3", 10)]


@pytest.mark.parametrize(
    "site",
    [(True, Stat(column="books", counted="books", by=("shelf",), value="coalesce(sum(c.pages), 0)::bigint"))],
    indirect=True,
)
async def test_what_is_summed_is_summed_again_with_every_row(site: tuple[TestGraph, SyncEngine]) -> None:
    graph, engine = site
    await cycle(graph, engine, "UPDATE w_books SET pages = 1")
    assert await read(graph, COUNTS) == [("1", 10), ("2", 10), ("3", 10)]
