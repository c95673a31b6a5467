"""Features of the map in combination: stubs, marks, ids of every rule, keys of several columns, large batches."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.maps.document import read_map
from syncline.testing.graphs import TestGraph, write
from tests.integration.test_shapes import Site, made
from tests.kit.bare_graph import bare_graph

STAMPS = "sync_version bigint, sync_run bigint"
URL = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"


@pytest_asyncio.fixture(loop_scope="session")
async def graph(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield graph


@pytest.fixture
def any_is_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every batch for a large one."""
    monkeypatch.setattr("syncline.engine.merge._ANALYZE_FROM", 1)


async def settled(site: Site) -> None:
    """Sync, and see that nothing waits, is rejected, or differs."""
    result = await site.cycle()
    assert (result.status.value, result.parked) == ("drained", 0)
    await site.equal()
    assert await site.rows("SELECT table_name, key, sqlstate, message FROM kg.sync_dead_letter") == []
    assert await site.rows("SELECT * FROM kg.sync_outbox") == []
    assert await site.rows("SELECT * FROM kg.sync_requeue") == []


async def kept(site: Site) -> list[tuple[object, ...]]:
    return [
        tuple(row.values()) for row in await site.rows("SELECT table_name, stub FROM kg.sync_kept ORDER BY 1")
    ]


async def test_stubs_by_texts_that_are_no_keys(graph: TestGraph) -> None:
    site = await made(
        graph,
        f"""
  threads: {{source: thread, types: {{id: uuid}}, id: same, columns: [title]}}
  messages:
    source: message
    references:
      thread: {{parent: threads, target: thread_id, stub: true, unreadable: {{rule: uuid5, namespace: {URL}}}}}
""",
        source="CREATE TABLE thread (id uuid PRIMARY KEY, title text); CREATE TABLE message (id text PRIMARY KEY, thread text)",
        target=f"CREATE TABLE threads (id uuid PRIMARY KEY, title text, {STAMPS});"
        f"CREATE TABLE messages (id uuid PRIMARY KEY, key text, thread_id uuid NOT NULL REFERENCES threads, {STAMPS})",
    )
    assert await site.misfits() == {}
    await write(
        graph,
        "INSERT INTO kg.message VALUES ('a', 'no uuid'), ('b', 'no uuid'), ('c', '6BA7B8119dad11d180b400c04fd430c8')",
    )
    await settled(site)
    assert await kept(site) == [("threads", True)] * 2
    await write(graph, f"INSERT INTO kg.thread SELECT '{URL}', 'T'")
    await settled(site)
    assert await kept(site) == [("threads", True)]
    await write(graph, "DELETE FROM kg.message")
    await settled(site)
    assert await kept(site) == []


async def test_stubs_by_several_columns(graph: TestGraph) -> None:
    site = await made(
        graph,
        """
  orders: {source: o, key: [shop, number], types: {number: bigint}, id: hash, columns: [title]}
  lines:
    source: l
    types: {number: bigint}
    references: {purchase: {parent: orders, columns: [shop, number], target: order_id, stub: {title: "'?'"}}}
""",
        source="CREATE TABLE o (shop text, number bigint, title text, PRIMARY KEY (shop, number));"
        "CREATE TABLE l (id text PRIMARY KEY, shop text, number bigint)",
        target=f"CREATE TABLE orders (id uuid PRIMARY KEY, shop text NOT NULL, number bigint NOT NULL, title text NOT NULL, {STAMPS});"
        f"CREATE TABLE lines (id uuid PRIMARY KEY, key text, order_id uuid NOT NULL REFERENCES orders, {STAMPS})",
    )
    assert await site.misfits() == {}
    await write(graph, "INSERT INTO kg.l VALUES ('a', 's', 1), ('b', 's', 1)")
    await settled(site)
    assert await kept(site) == [("orders", True)]
    await write(graph, "INSERT INTO kg.o VALUES ('s', 1, 'T')")
    await settled(site)
    assert await kept(site) == []


@pytest.mark.long(after=1)
@pytest.mark.parametrize("by", ["", ", by: name"])
async def test_a_row_takes_over_a_stub_with_whose_key_it_shares_its_id(graph: TestGraph, by: str) -> None:
    site = await made(
        graph,
        f"""
  runs: {{source: run, id: {{rule: expression, type: text, expression: lower($1)}}, columns: [name]}}
  steps:
    source: step
    references: {{run: {{parent: runs, target: run_id{by}, stub: true}}}}
""",
        source="CREATE TABLE run (id text PRIMARY KEY, name text); CREATE TABLE step (id text PRIMARY KEY, run text)",
        target=f"CREATE TABLE runs (id text PRIMARY KEY, key text, name text, {STAMPS});"
        f"CREATE TABLE steps (id uuid PRIMARY KEY, key text, run_id text REFERENCES runs, {STAMPS})",
    )
    await write(graph, "INSERT INTO kg.step VALUES ('s', 'A')")
    await settled(site)
    await write(
        graph, f"INSERT INTO kg.run VALUES ('a', 'A'); UPDATE kg.step SET run = '{'A' if by else 'a'}'"
    )
    await settled(site)
    assert await kept(site) == []


@pytest.mark.usefixtures("any_is_many")
async def test_rows_that_left_and_returned_before_a_large_batch_are_listed(graph: TestGraph) -> None:
    site = await made(
        graph,
        "  runs: {source: run, id: {rule: hash, beside: true}, columns: [name], marked: {name: \"'gone'\"}}\n",
        source="CREATE TABLE run (id text PRIMARY KEY, name text)",
        target="CREATE TABLE runs (id uuid PRIMARY KEY, name text)",
    )
    await site.cycle()
    await write(graph, "INSERT INTO kg.run SELECT i, i FROM generate_series(1, 20) i")
    await write(graph, "DELETE FROM kg.run WHERE id::int < 10")
    await write(graph, "INSERT INTO kg.run SELECT i, i FROM generate_series(1, 5) i")
    await settled(site)
    assert (
        len(await site.rows("SELECT * FROM kg.sync_row"))
        == 16
        == len(await site.rows("SELECT * FROM kg.runs"))
    )


@pytest.mark.long(after=1)
@pytest.mark.parametrize("many", [True, False])
async def test_a_marked_row_gives_way_to_the_row_that_has_its_id(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    if many:
        monkeypatch.setattr("syncline.engine.merge._ANALYZE_FROM", 1)
    site = await made(
        graph,
        "  runs:\n    source: run\n    key: slug\n    id: {rule: column, source: uid, type: uuid}\n    columns: [name]\n"
        "    marked: {name: \"'gone'\"}\n",
        source="CREATE TABLE run (slug text PRIMARY KEY, uid uuid, name text)",
        target=f"CREATE TABLE runs (id uuid PRIMARY KEY, key text, name text, {STAMPS})",
    )
    await write(graph, f"INSERT INTO kg.run VALUES ('a', '{URL}', 'A')")
    await settled(site)
    await write(graph, "UPDATE kg.run SET slug = 'b'")
    await settled(site)
    assert await site.rows("SELECT key, name FROM kg.runs") == [{"key": "b", "name": "A"}]
    assert await kept(site) == []


@pytest.mark.long(after=1)
@pytest.mark.parametrize("ids", ["hash", "{rule: hash, beside: true, natural: [title]}"])
async def test_a_marked_row_waits_for_nothing_that_leaves_after_it(graph: TestGraph, ids: str) -> None:
    own = "" if "beside" in ids else f", key text, {STAMPS}"
    site = await made(
        graph,
        f"""
  authors: {{source: author}}
  books:
    source: book
    id: {ids}
    columns: [title]
    references: {{author: {{parent: authors, required: false, target: author_id}}}}
    marked: {{title: "'gone'"}}
""",
        source="CREATE TABLE author (id text PRIMARY KEY); CREATE TABLE book (id text PRIMARY KEY, title text, author text)",
        target=f"CREATE TABLE authors (id uuid PRIMARY KEY, key text, {STAMPS});"
        f"CREATE TABLE books (id uuid PRIMARY KEY, title text UNIQUE, author_id uuid REFERENCES authors{own})",
    )
    await write(graph, "INSERT INTO kg.author VALUES ('a'); INSERT INTO kg.book VALUES ('b', 'B', 'a')")
    await settled(site)
    await write(graph, "DELETE FROM kg.book")
    await settled(site)
    await write(graph, "DELETE FROM kg.author")
    await settled(site)
    assert await site.rows("SELECT title, author_id FROM kg.books") == [{"title": "gone", "author_id": None}]
    # It returns, and its author after it.
    await write(graph, "INSERT INTO kg.book VALUES ('b', 'B', 'a')")
    assert (await site.cycle()).parked == 1
    await write(graph, "INSERT INTO kg.author VALUES ('a')")
    await settled(site)
    assert await site.rows("SELECT title FROM kg.books WHERE author_id IS NOT NULL") == [{"title": "B"}]


PLAIN = (f"{{rule: uuid5, namespace: {URL}}}", f"{{rule: uuid5, namespace: {URL}, beside: true}}")
HASHED = ("hash", "{rule: hash, natural: [name], beside: true}")


@pytest.mark.long(after=1)
@pytest.mark.parametrize("ids", [PLAIN, PLAIN[::-1], HASHED], ids=["beside", "no longer beside", "natural"])
async def test_marked_rows_are_listed_when_their_table_is(graph: TestGraph, ids: tuple[str, str]) -> None:
    def document(id_: str) -> str:
        return f"""
  runs: {{source: run, id: {id_}, columns: [name], marked: {{name: "'gone ' || t.name"}}}}
  steps: {{source: step, references: {{run: {{parent: runs, target: run_id}}}}}}
"""

    site = await made(
        graph,
        document(ids[0]),
        source="CREATE TABLE run (id text PRIMARY KEY, name text); CREATE TABLE step (id text PRIMARY KEY, run text)",
        target=f"CREATE TABLE runs (id uuid PRIMARY KEY, key text, name text UNIQUE, {STAMPS});"
        f"CREATE TABLE steps (id uuid PRIMARY KEY, key text, run_id uuid NOT NULL REFERENCES runs, {STAMPS})",
    )
    await write(
        graph,
        "INSERT INTO kg.run VALUES ('a', 'A'), ('b', 'B'), ('c', 'C');"
        "INSERT INTO kg.step VALUES ('1', 'a'), ('2', 'b'), ('3', 'c')",
    )
    await settled(site)
    await write(graph, "DELETE FROM kg.run WHERE id > 'a'")
    await settled(site)
    other = Site(
        graph, read_map(f"version: 1\nname: shapes\ntables:\n{document(ids[1])}", source="shapes.yaml")
    )
    await settled(other)
    await write(graph, "INSERT INTO kg.run VALUES ('b', 'B2'); UPDATE kg.step SET id = id || ' again'")
    await settled(other)
    assert await site.rows("SELECT name FROM kg.runs JOIN kg.steps ON run_id = runs.id ORDER BY 1") == [
        {"name": "A"},
        {"name": "B2"},
        {"name": "gone C"},
    ]
    assert await kept(site) == [("runs", False)]


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    "leaves", ["DELETE FROM kg.run WHERE slug = 'a'", "UPDATE kg.run SET here = false WHERE slug = 'a'"]
)
async def test_a_rejected_row_gets_the_id_of_one_that_would_be_marked(graph: TestGraph, leaves: str) -> None:
    site = await made(
        graph,
        "  runs:\n    source: run\n    key: slug\n    id: {rule: column, source: uid, type: uuid}\n    columns: [name]\n"
        "    present: here\n    marked: {name: \"'gone'\"}\n",
        source="CREATE TABLE run (slug text PRIMARY KEY, uid uuid, name text, here boolean DEFAULT true)",
        target=f"CREATE TABLE runs (id uuid PRIMARY KEY, key text, name text, {STAMPS})",
    )
    await write(graph, f"INSERT INTO kg.run VALUES ('a', '{URL}', 'A')")
    await settled(site)
    await write(graph, f"INSERT INTO kg.run VALUES ('b', '{URL}', 'B')")
    await site.cycle()
    assert await site.rows("SELECT key, name FROM kg.runs") == [{"key": "a", "name": "A"}]
    await write(graph, leaves)
    await settled(site)
    assert await site.rows("SELECT key, name FROM kg.runs") == [{"key": "b", "name": "B"}]
    # And in one batch.
    await write(
        graph,
        f"UPDATE kg.run SET here = false WHERE slug = 'b'; INSERT INTO kg.run VALUES ('c', '{URL}', 'C')",
    )
    await settled(site)
    assert await site.rows("SELECT key, name FROM kg.runs") == [{"key": "c", "name": "C"}]
    assert await kept(site) == []
