"""Shapes of real schemas: columns renamed, cast and made, counters in the row, and what readers own."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import SchemaMap, SyncEngine
from syncline.maps.document import read_map, write_map
from syncline.messages.sync import SyncResult
from syncline.messages.verification import Verification
from syncline.migrations import migrate_bookkeeping
from syncline.operator.explain import explain
from syncline.operator.explanation import Explanation
from syncline.operator.map_check import check_map
from syncline.operator.parked import ParkedSummary, summarize_parked
from syncline.operator.target_tables import target_tables
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by


@dataclass
class Site:
    """A graph, and the map that it is synced by."""

    graph: TestGraph
    map: SchemaMap

    async def cycle(self) -> SyncResult:
        result = await SyncEngine(self.map).run_cycle(self.graph.context())
        assert [table.error for table in result.tables if table.error] == []
        return result

    async def verified(self, *, repair: bool = False) -> Verification:
        context = self.graph.context()
        return await verify(
            self.map, write=context.write, target=context.target, vectors=context.vectors,
            embedding=context.embedding.name, repair=repair, who="test", why="test",
        )  # fmt: skip

    async def equal(self) -> None:
        found = await self.verified()
        assert [each for each in found.relations if each.damaged or each.problem] == []

    async def misfits(self, text: str = "") -> dict[str, str]:
        """Return path -> problem, errors only."""
        context = self.graph.context()
        found = await check_map(self.map, context.write, context.target, text=text or write_map(self.map))
        told: dict[str, str] = {}
        for each in found.misfits:
            if each.weight == "error":
                told[each.path] = f"{told.get(each.path, '')} {each.problem}".lstrip()
        return told

    async def parked(self) -> ParkedSummary:
        context = self.graph.context()
        return await summarize_parked(context.write, context.target, self.map)

    async def explained(self, table: str, *key: str) -> Explanation:
        context = self.graph.context()
        return await explain(
            context.write, context.target, context.vectors, self.map, table=table, key=list(key)
        )

    async def rows(self, sql: str) -> list[Mapping[str, object]]:
        return [dict(row) for row in await read(self.graph, sql)]


@pytest_asyncio.fixture(loop_scope="session")
async def graph(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield graph


async def made(graph: TestGraph, document: str, *, source: str, target: str, capture: bool = True) -> Site:
    """Return the site of a map, captured, over the tables of these scripts."""
    schema_map = read_map(f"version: 1\nname: shapes\ntables:\n{document}", source="shapes.yaml")
    assert read_map(write_map(schema_map), source="again") == schema_map
    await made_by(graph, write=f"SET search_path = kg; {source}", target=f"SET search_path = kg; {target}")
    await migrate_bookkeeping(graph.target, "kg")
    if capture:
        await adopt(graph.write, "kg", schema_map)
    return Site(graph, schema_map)


SHELF = """
  books:
    source: book
    types: {id: bigint}
    id: same
    columns:
      title: text
      pages: {type: integer, source: page_count}
      isbn: {source: id}
      made_at: {type: timestamptz, source: {created_at: timestamp}}
      language: {value: "'en'"}
      author: {source: [first, last], value: s.first || ' ' || s.last}
      publisher: {type: varchar, source: {meta: jsonb}, value: s.meta->'by'->>0}
      mood: {type: mood, source: kind}
      price: {type: numeric, source: price}
      tags: {type: "varchar[]", source: {labels: "text[]"}}
      first_tag: {source: labels, value: "s.labels[1]"}
      score: {type: real, source: {rating: numeric}, value: s.rating * 2}
      size: smallint
    expressions:
      shelf: upper(s.title)
"""
BOOK = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN small AS smallint CHECK (value > 0);
CREATE TABLE book (
    id bigint PRIMARY KEY, title text, page_count integer, created_at timestamp, first text, last text, meta jsonb,
    kind mood, price numeric, labels text[], rating numeric, size small, unseen text
);
"""
BOOKS = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN amount AS numeric CHECK (value >= 0);
CREATE DOMAIN small AS smallint;
CREATE TABLE books (
    id bigint PRIMARY KEY, title varchar(20), pages integer, isbn text, made_at timestamptz, language text, author text,
    publisher varchar(9), mood mood, price amount, tags varchar[], first_tag text, score real, size small,
    shelf varchar(20), notes text DEFAULT 'none', read integer NOT NULL DEFAULT 0,
    words tsvector GENERATED ALWAYS AS (to_tsvector('simple', title)) STORED, sync_version bigint, sync_run bigint
);
"""
ROWS = """
INSERT INTO kg.book SELECT n, 't' || n, 10 * n, '2026-03-29 02:30', 'A', 'B', '{"by": ["Ace", 1.50]}', 'glad', 1.50,
    ARRAY['x', 'y'], 0.1, 1 FROM generate_series(1, 13) n;
"""


async def test_columns_are_renamed_cast_and_made(graph: TestGraph) -> None:
    site = await made(graph, SHELF, source=BOOK, target=BOOKS)
    assert await site.misfits() == {}
    await write(graph, ROWS)
    await site.cycle()
    await site.equal()
    [book] = await site.rows("SELECT b.*, b.made_at::text FROM kg.books b WHERE id = 2")
    expected = {
        "title": "t2", "pages": 20, "isbn": "2", "made_at": "2026-03-29 02:30:00+00", "language": "en",
        "author": "A B", "publisher": "Ace", "mood": "glad", "tags": ["x", "y"], "first_tag": "x", "size": 1,
        "shelf": "T2", "notes": "none", "read": 0, "words": "'t2':1",
    }  # fmt: skip
    assert {name: book[name] for name in expected} == expected
    assert str(book["price"]) == "1.50"

    # Each value alone: only what it is made of changes, so the images of both types are compared.
    changes = [
        "page_count = 7",
        "created_at = now()",
        "first = 'C'",
        "meta = '{}'",
        "kind = 'sad'",
        "price = 1.5",
    ]
    changes += ["labels = '{}'", "rating = 2", "size = 2", "title = 'new'", "unseen = 'x'"]
    await write(graph, "".join(f"UPDATE kg.book SET {c} WHERE id = {n};" for n, c in enumerate(changes, 1)))
    result = await site.cycle()
    assert [(table.captured, table.rows) for table in result.tables] == [(len(changes), len(changes) - 1)]
    await site.equal()
    await write(graph, "DELETE FROM kg.book WHERE id > 1")
    await site.cycle()
    await site.equal()
    assert await site.rows("SELECT id, pages, shelf FROM kg.books") == [{"id": 1, "pages": 7, "shelf": "T1"}]


@pytest.mark.long(
    "test_counts_in_the_row_follow_what_a_batch_touches", "test_columns_are_renamed_cast_and_made"
)
async def test_damage_of_a_made_column_is_found_and_repaired(graph: TestGraph) -> None:
    site = await made(graph, SHELF, source=BOOK, target=BOOKS)
    await write(graph, ROWS)
    await site.cycle()
    damage = {
        "pages": "0", "isbn": "'0'", "made_at": "now()", "language": "'de'", "author": "''", "publisher": "NULL",
        "mood": "'sad'", "price": "1.5", "tags": "'{}'", "first_tag": "''", "score": "9", "size": "9", "shelf": "''",
    }  # fmt: skip
    for n, (column, value) in enumerate(damage.items(), 1):
        await on_target(
            graph, f"UPDATE kg.books SET {column} = {value}, notes = 'mine', read = 7 WHERE id = {n}"
        )
    found = await site.verified(repair=True)
    assert [(each.name, each.stale.count) for each in found.relations if each.damaged] == [("books", 13)]
    await site.cycle()
    await site.equal()
    assert await site.rows("SELECT DISTINCT notes, read FROM kg.books") == [{"notes": "mine", "read": 7}]


async def test_what_columns_cannot_be_is_told_by_map_check(graph: TestGraph) -> None:
    document = SHELF.replace("price: {type: numeric, source: price}", "price: numeric")
    document = document.replace("mood: {type: mood, source: kind}", "kind: text")
    document = document.replace(
        "      shelf: upper(s.title)\n", "      shelf: length(s.title)\n      words: s.title\n"
    )
    document = document.replace("s.meta->'by'->>0", "s.meta + 1").replace(
        "pages: {type: integer", "pages: {type: bigint"
    )
    site = await made(
        graph, document, source=BOOK, target=BOOKS.replace("mood mood", "kind mood"), capture=False
    )
    found = await site.misfits()
    told = {path.removeprefix("tables.books."): problem for path, problem in found.items()}
    assert "not captured" in told.pop("source", "not captured")
    assert "is a domain" in told["columns.price"], told
    assert "source: price" in told["columns.price"]
    assert "mood, an enum, and books wants text" in told["columns.kind"]
    assert "operator does not exist" in told["columns.publisher"]
    assert "kg.book.page_count is integer, and books wants bigint" in told["columns.pages"]
    assert "cannot be matched" in told["expressions.shelf"]
    assert "generated from other columns" in told["expressions.words"]
    assert len(told) == 6


async def test_target_tables_are_made_for_made_columns(graph: TestGraph) -> None:
    site = await made(graph, SHELF, source=BOOK, target="CREATE TYPE mood AS ENUM ('sad', 'glad');")
    ddl = target_tables(site.map, "kg", types={("books", "shelf"): "text"})
    await on_target(graph, f"SET search_path = kg; {ddl['books']}")
    assert await site.misfits() == {}
    await write(graph, ROWS)
    await site.cycle()
    await site.equal()


async def test_a_parent_is_found_by_a_renamed_column(graph: TestGraph) -> None:
    site = await made(
        graph,
        """
  docs:
    source: doc
    columns: {hash: {source: body}}
  quotes:
    source: quote
    references: {of: {parent: docs, by: hash}}
""",
        source="CREATE TABLE doc (id text PRIMARY KEY, body text); CREATE TABLE quote (id text PRIMARY KEY, of text);",
        target="CREATE TABLE docs (id uuid PRIMARY KEY, key text, hash text, sync_version bigint, sync_run bigint);"
        "CREATE TABLE quotes (id uuid PRIMARY KEY, key text, of uuid, sync_version bigint, sync_run bigint);",
    )
    await write(graph, "INSERT INTO kg.quote VALUES ('q', 'b')")
    assert (await site.cycle()).parked == 1
    context = graph.context()
    summary = await summarize_parked(context.write, context.target, site.map, limit=5)
    [waiting] = summary.awaited
    assert (waiting.key, waiting.named_by, waiting.obstacle) == ("b", "hash", "missing")
    quote = await explain(context.write, context.target, context.vectors, site.map, table="quotes", key=["q"])
    assert quote.state == "parked"
    await write(graph, "INSERT INTO kg.doc VALUES ('d', 'b')")
    assert (await site.cycle()).parked == 0
    await site.equal()
    await write(graph, "UPDATE kg.doc SET body = 'c'")
    assert (await site.cycle()).parked == 1
    await site.equal()


WEB = """
  nodes:
    source: node
    id: {rule: same, column: nr}
    types: {id: uuid, above: uuid}
    columns: [title]
    references: {above: {parent: nodes, required: false, target: above_nr}}
    stats:
      columns:
        below: {counted: nodes, by: above_nr}
        outgoing: {counted: edges, by: from_nr}
        incoming: {counted: edges, by: to_nr}
        degree: {counted: edges, by: [from_nr, to_nr]}
        weight: {counted: edges, by: from_nr, value: avg(c.weight)}
        tags: {counted: node_tags, by: node}
    links:
      node_tags: {source: tags, owner: node, member: tag, parent: nodes}
    vector: {collection: nodes, text: t.title, payload: {title: t.title}}
  edges:
    source: edge
    id: hash
    types: {from: uuid, to: uuid}
    columns: {weight: real}
    references: {from: {parent: nodes, target: from_nr}, to: {parent: nodes, target: to_nr}}
"""
NODE = """
CREATE TABLE node (id uuid PRIMARY KEY, title text, above uuid, tags text[]);
CREATE TABLE edge (id text PRIMARY KEY, weight real, "from" uuid, "to" uuid);
"""
NODES = """
CREATE TABLE nodes (
    nr uuid PRIMARY KEY, title text, above_nr uuid, below smallint NOT NULL, outgoing integer NOT NULL, incoming bigint,
    degree numeric, weight real, tags bigint DEFAULT 7, reads integer NOT NULL DEFAULT 0, sync_version bigint,
    sync_run bigint
);
CREATE TABLE node_tags (node uuid, tag uuid, PRIMARY KEY (node, tag));
CREATE TABLE edges (
    id uuid PRIMARY KEY, key text, weight real, from_nr uuid, to_nr uuid, sync_version bigint, sync_run bigint
);
"""
COUNTS = "below, outgoing, incoming, degree::int, weight::int, tags"


def nr(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def node(number: int, above: int | None = None, tags: tuple[int, ...] = ()) -> str:
    over = "NULL" if above is None else f"'{nr(above)}'"
    array = ",".join(map(nr, tags))
    return f"INSERT INTO kg.node VALUES ('{nr(number)}', 'n{number}', {over}, '{{{array}}}');"


def edge(name: str, start: int, end: int, weight: int = 1) -> str:
    return f"INSERT INTO kg.edge VALUES ('{name}', {weight}, '{nr(start)}', '{nr(end)}');"


async def counts_of(site: Site, number: int) -> tuple[object, ...]:
    [row] = await site.rows(f"SELECT {COUNTS} FROM kg.nodes WHERE nr = '{nr(number)}'")
    return tuple(row.values())


async def test_counts_in_the_row_follow_what_a_batch_touches(graph: TestGraph) -> None:
    site = await made(graph, WEB, source=NODE, target=NODES)
    assert await site.misfits() == {}
    await write(graph, node(1) + node(2, 1, (1, 2)) + node(3, 1) + edge("a", 1, 2, 2) + edge("b", 1, 1, 4))
    result = await site.cycle()
    assert result.vectors.upserted == 3
    assert await counts_of(site, 1) == (2, 2, 1, 2, 3, 0)
    assert await counts_of(site, 2) == (0, 0, 1, 1, None, 2)
    assert await counts_of(site, 3) == (0, 0, 0, 0, None, 0)
    await site.equal()

    # Readers count as well, and neither overwrites the other; a changed count writes no point.
    await on_target(graph, "UPDATE kg.nodes SET reads = 5")
    await write(graph, edge("c", 3, 1) + "DELETE FROM kg.edge WHERE id = 'b';" + node(4, 3))
    result = await site.cycle()
    assert result.vectors.upserted == 1, "the new node's alone"
    assert await counts_of(site, 1) == (2, 1, 1, 2, 2, 0)
    assert await counts_of(site, 3) == (1, 1, 0, 1, 1, 0)
    # The row itself changes, and its counts stay.
    await write(graph, f"UPDATE kg.node SET title = 'new', above = NULL WHERE id = '{nr(3)}'")
    await site.cycle()
    assert await counts_of(site, 1) == (1, 1, 1, 2, 2, 0)
    assert await counts_of(site, 3) == (1, 1, 0, 1, 1, 0)
    await site.equal()
    # A node leaves with its edges; what only waits for it is counted no more.
    await write(graph, f"DELETE FROM kg.node WHERE id = '{nr(3)}'")
    await site.cycle()
    assert await counts_of(site, 1) == (1, 1, 0, 1, 2, 0)
    await site.equal()
    await write(graph, node(3, 1))
    await site.cycle()
    assert await counts_of(site, 3) == (1, 1, 0, 1, 1, 0)
    await site.equal()
    assert await site.rows("SELECT title, reads FROM kg.nodes ORDER BY title") == [
        {"title": "n1", "reads": 5},
        {"title": "n2", "reads": 5},
        {"title": "n3", "reads": 0},
        {"title": "n4", "reads": 0},
    ]


async def test_a_wrong_count_in_the_row_is_found_and_mended(graph: TestGraph) -> None:
    site = await made(graph, WEB, source=NODE, target=NODES)
    await write(graph, node(1) + node(2, 1, (1, 2)) + node(3) + edge("a", 1, 2, 2))
    await site.cycle()
    await on_target(graph, f"UPDATE kg.nodes SET below = 9, weight = NULL, reads = 5 WHERE nr = '{nr(1)}'")
    found = await site.verified(repair=True)
    [damaged] = [each for each in found.relations if each.damaged]
    assert (damaged.name, damaged.kind, damaged.stale.keys, damaged.queued) == (
        "nodes",
        "stats",
        ((nr(1),),),
        1,
    )
    await site.equal()
    assert (await site.cycle()).vectors.upserted == 0
    assert await counts_of(site, 1) == (1, 1, 0, 1, 2, 0)
    assert await site.rows("SELECT reads FROM kg.nodes WHERE title = 'n1'") == [{"reads": 5}]


@pytest.mark.long(
    "test_counts_in_the_row_follow_what_a_batch_touches", "test_columns_are_renamed_cast_and_made"
)
async def test_counts_that_come_into_the_map_are_made_in_the_rows_that_stand_there(graph: TestGraph) -> None:
    site = await made(
        graph,
        WEB.replace("outgoing: {", "# {"),
        source=NODE,
        target=NODES.replace("integer NOT NULL, inc", "integer, inc"),
    )
    await write(graph, node(1) + node(2, 1) + edge("a", 1, 2))
    await site.cycle()
    assert (await counts_of(site, 1))[1] is None
    site.map = read_map(f"version: 1\nname: shapes\ntables:\n{WEB}", source="shapes.yaml")
    result = await site.cycle()
    assert result.map_changes == ("nodes: count outgoing added; every count is made again.",)
    await site.equal()
    assert (await counts_of(site, 1))[1] == 1


@pytest.mark.long(
    "test_counts_in_the_row_follow_what_a_batch_touches", "test_columns_are_renamed_cast_and_made"
)
async def test_counts_by_numbers_are_made_again_too(graph: TestGraph) -> None:
    document = """
  shops:
    source: shop
    types: {id: bigint}
    id: {rule: same, column: shop_nr}
    stats:
      columns: {orders: {counted: orders, by: shop_nr}}
  orders:
    source: purchase
    types: {id: bigint, shop: bigint}
    id: same
    references: {shop: {parent: shops, target: shop_nr}}
"""
    without = document.replace("    stats:\n      columns: {orders: {counted: orders, by: shop_nr}}\n", "")
    stamps = "sync_version bigint, sync_run bigint"
    site = await made(
        graph,
        without,
        source="CREATE TABLE shop (id bigint PRIMARY KEY); CREATE TABLE purchase (id bigint PRIMARY KEY, shop bigint);",
        target=f"CREATE TABLE shops (shop_nr bigint PRIMARY KEY, orders integer, {stamps});"
        f"CREATE TABLE orders (id bigint PRIMARY KEY, shop_nr bigint, {stamps});",
    )
    await write(graph, "INSERT INTO kg.shop VALUES (1), (2); INSERT INTO kg.purchase VALUES (10, 1), (11, 1)")
    await site.cycle()
    site.map = read_map(f"version: 1\nname: shapes\ntables:\n{document}", source="shapes.yaml")
    await site.cycle()
    assert await site.rows("SELECT shop_nr, orders FROM kg.shops ORDER BY 1") == [
        {"shop_nr": 1, "orders": 2},
        {"shop_nr": 2, "orders": 0},
    ]
    await site.equal()


async def test_what_readers_own_in_a_row_survives_all_that_the_engine_does_to_it(graph: TestGraph) -> None:
    site = await made(
        graph,
        WEB,
        source=NODE + "ALTER TABLE node ADD UNIQUE (title) DEFERRABLE INITIALLY DEFERRED;",
        target=NODES + "ALTER TABLE nodes ADD UNIQUE (title);",
    )
    await write(graph, node(1, 9) + node(2, 1, (1, 9)) + node(3) + edge("a", 1, 2))
    await site.cycle()
    await on_target(graph, "UPDATE kg.nodes SET reads = right(nr::text, 1)::int")
    kept = [{"reads": n} for n in (1, 2, 3)]
    swapped = "UPDATE kg.node SET title = CASE title WHEN 'n1' THEN 'n2' ELSE 'n1' END WHERE title <> 'n3';"
    for change in (
        swapped,
        node(9),  # a reference and a link are released
        edge("b", 2, 1) + "DELETE FROM kg.edge WHERE id = 'a';",
        f"DELETE FROM kg.node WHERE id = '{nr(9)}'",
        "UPDATE kg.node SET id = id",  # nothing of it changes
    ):
        await write(graph, change)
        await site.cycle()
        await site.equal()
        assert await site.rows("SELECT reads FROM kg.nodes WHERE title <> 'n9' ORDER BY nr") == kept, change
    await on_target(graph, "UPDATE kg.nodes SET title = 'damaged ' || nr, below = 9, above_nr = NULL")
    await site.verified(repair=True)
    await site.cycle()
    await site.equal()
    assert await site.rows("SELECT reads FROM kg.nodes ORDER BY nr") == kept


@pytest.mark.long(
    "test_counts_in_the_row_follow_what_a_batch_touches", "test_columns_are_renamed_cast_and_made"
)
async def test_two_graphs_on_one_connection_have_each_their_own_type(graph: TestGraph) -> None:
    document = "  books:\n    source: book\n    stamped: false\n    columns: {kind: mood}\n"
    mood = "CREATE TYPE mood AS ENUM ('glad');"
    book = (
        f"{mood} CREATE TABLE book (id text PRIMARY KEY, kind mood); INSERT INTO book VALUES ('a', 'glad');"
    )
    books = f"{mood} CREATE TABLE books (id uuid PRIMARY KEY, key text, kind mood);"
    site = await made(graph, document, source=book, target=books)
    await made_by(
        graph,
        write=f"CREATE SCHEMA other; SET search_path = other; {book}",
        target=f"CREATE SCHEMA other; SET search_path = other; {books}",
    )
    await migrate_bookkeeping(graph.target, "other")
    await adopt(graph.write, "other", site.map)
    context = graph.context()
    engine = SyncEngine(site.map)
    other = replace(
        context, write=replace(context.write, schema="other"), target=replace(context.target, schema="other")
    )
    for each in (context, other, context):
        result = await engine.run_cycle(each)
        assert [table.error for table in result.tables if table.error] == []
        await write(graph, "INSERT INTO kg.book VALUES ('b', 'glad') ON CONFLICT DO NOTHING")
    assert await site.rows("SELECT kind::text FROM other.books") == [{"kind": "glad"}]
    assert await site.rows("SELECT key FROM kg.books ORDER BY key") == [{"key": "a"}, {"key": "b"}]
