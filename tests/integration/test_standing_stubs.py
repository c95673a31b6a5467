"""A takeover of a target in which another engine made stubs: they are recognised, and go on as this one's."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.control.audit import Actor
from syncline.messages.takeover import Takeover
from syncline.testing.graphs import TestGraph, on_target, write
from syncline.verify.takeover import take_over
from tests.integration.test_shapes import Site, made
from tests.kit.bare_graph import bare_graph

MAP = """
  sources:
    source: source
    types: {id: uuid}
    id: same
    stamped: false
    columns: {uri: text, content_hash: text, title: text, state: text}
    stats: {columns: {quotes: {counted: quotes, by: source_id}}}
  authors: {source: author, stamped: false, columns: [name]}
  quotes:
    source: quote
    stamped: false
    columns: [words]
    source_only: [uri]
    references:
      content_hash: {parent: sources, target: source_id, by: content_hash, stub: {uri: s.uri, state: "'stub'"}}
      author: {parent: authors, target: author_id, stub: {name: "'?'"}}
"""
SOURCE = """
CREATE TABLE source (id uuid PRIMARY KEY, uri text, content_hash text, title text, state text);
CREATE TABLE author (id text PRIMARY KEY, name text);
CREATE TABLE quote (id text PRIMARY KEY, words text, uri text, content_hash text, author text);
"""
TARGET = """
CREATE TABLE sources (
    id uuid PRIMARY KEY, uri text, content_hash text UNIQUE, title text, state text, quotes bigint DEFAULT 0, reads int DEFAULT 0
);
CREATE TABLE authors (id uuid PRIMARY KEY, key text, name text NOT NULL);
CREATE TABLE quotes (
    id uuid PRIMARY KEY, key text, words text, source_id uuid NOT NULL REFERENCES sources, author_id uuid NOT NULL REFERENCES authors
);
"""
A, B, C, D = (f"0a000000-0000-4000-8000-00000000000{n}" for n in "abcd")


@pytest_asyncio.fixture(loop_scope="session")
async def site(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Site]:
    async with bare_graph(new_database, tmp_path) as graph:
        site = await made(graph, MAP, source=SOURCE, target=TARGET)
        await fill(graph)
        yield site


async def fill(graph: TestGraph) -> None:
    """What the other engine left. No row of the write-db has hash `b`, `c`, or `d`, nor author `ida` or `joe`."""
    await write(
        graph,
        f"INSERT INTO source VALUES ('{A}', 'u', 'a', 'A', 'here'); INSERT INTO author VALUES ('eve', 'Eve');"
        "INSERT INTO quote VALUES ('1', 'w', 'u', 'a', 'eve'), ('2', 'w', 'u2', 'b', 'ida'), ('3', 'w', 'u3', 'c', 'joe'), ('4', 'w', 'u4', 'e', 'eve')",
    )
    await on_target(
        graph,
        f"""
INSERT INTO sources (id, uri, content_hash, title, state, quotes, reads) VALUES
    ('{A}', 'u', 'a', 'A', 'here', 1, 5), ('{B}', 'other', 'b', NULL, 'stub', 1, 7),
    ('{C}', 'u3', 'c', 'Titled', 'stub', 1, 0), ('{D}', NULL, 'd', NULL, 'stub', 0, 0);
INSERT INTO authors SELECT syncline.key_uuid(k), k, n FROM (VALUES ('eve', 'Eve'), ('ida', '?'), ('joe', 'Joe')) v (k, n);
INSERT INTO quotes SELECT syncline.key_uuid(k), k, 'w', s::uuid, syncline.key_uuid(a)
FROM (VALUES ('1', '{A}', 'eve'), ('2', '{B}', 'ida'), ('3', '{C}', 'joe')) v (k, s, a)
""",
    )


async def taken(site: Site, *, dry: bool, delete_extra: bool = False) -> Takeover:
    context = site.graph.context()
    return await take_over(
        site.map,
        graph="kg",
        write=context.write,
        target=context.target,
        vectors=None,
        embedding="none",
        keys=10,
        delete_extra=delete_extra,
        actor=None if dry else Actor(who="test", why="test"),
    )


@pytest.mark.parametrize("delete_extra", [False, True])
async def test_stubs_of_another_engine_are_recognised(site: Site, delete_extra: bool) -> None:
    found = await taken(site, dry=True)
    # A row with more than a stub has is none, nor one to which nothing refers.
    assert found.stubs == {"sources": 1, "authors": 1}
    extra = {one.name: sorted(one.extra.keys) for one in found.found.relations if one.extra.count}
    assert extra == {"sources": [(C,), (D,)], "authors": [("joe",)]}
    assert "authors has 1 row that stand for missing ones: stubs from now on." in list(found.sentences())
    assert await site.rows("SELECT * FROM kg.sync_kept") == []
    await taken(site, dry=False, delete_extra=delete_extra)
    await site.cycle()
    await site.cycle()
    kept = await site.rows(
        "SELECT table_name, key[1] AS key, stub FROM kg.sync_kept WHERE key[1] NOT LIKE '________-%-8%'"
    )
    assert {"table_name": "authors", "key": "ida", "stub": True} in kept
    assert await site.rows(f"SELECT uri, reads FROM kg.sources WHERE id = '{B}'") == [
        {"uri": "other", "reads": 7}
    ]
    if delete_extra:
        await site.equal()
    # The parent comes, by key and by value: it takes over what stood for it, readers' columns too.
    await write(
        site.graph,
        f"INSERT INTO author VALUES ('ida', 'Ida'); INSERT INTO source VALUES ('{D[:-1]}f', 'u2', 'b', 'B', 'here')",
    )
    await site.cycle()
    rows = await site.rows(
        "SELECT a.name, s.id::text, s.title, s.reads, s.quotes FROM kg.quotes q JOIN kg.authors a ON a.id = author_id"
        " JOIN kg.sources s ON s.id = source_id WHERE q.key = '2'"
    )
    assert rows == [{"name": "Ida", "id": f"{D[:-1]}f", "title": "B", "reads": 7, "quotes": 1}]
    # A stub leaves with the last row that refers to it.
    await write(site.graph, "DELETE FROM quote")
    await site.cycle()
    left = await site.rows("SELECT table_name, key FROM kg.sync_kept")
    assert left == []
    if delete_extra:
        await site.equal()
