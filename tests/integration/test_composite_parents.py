"""Parents with keys of several columns: by the same columns, by an id made of the key, assigned or listed."""

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.maps.document import read_map
from syncline.messages.verification import Verdict
from syncline.operator.explain import explain
from syncline.operator.parked import list_parked, summarize_parked
from syncline.operator.target_tables import target_tables
from syncline.testing.graphs import TestGraph, on_target, write
from tests.integration.test_shapes import Site, made
from tests.kit.bare_graph import bare_graph

ORDERS = """
  orders:
    source: purchase
    key: [shop, number]
    types: {shop: smallint, number: bigint}
    columns: {customer: text}
"""
LINES = """
  lines:
    source: purchase_line
    key: [shop, number, line]
    types: {shop: smallint, number: bigint, line: integer}
    references: {purchase: {parent: orders, columns: [shop, number]%s}}
    columns: {item: text}
  notes:
    source: note
    types: {shop: smallint, number: numeric, line: integer}
    references:
      purchase: {parent: orders, columns: [shop, number]%s}
      about: {parent: lines, columns: [shop, number, line]%s}
    columns: {text: text%s}
  remarks: {source: remark, references: {note: notes}, columns: [text]}
"""
SOURCE = """
CREATE TABLE purchase (shop smallint, number bigint, customer text, PRIMARY KEY (shop, number));
CREATE TABLE purchase_line (shop smallint, number bigint, line integer, item text, PRIMARY KEY (shop, number, line));
CREATE TABLE note (id text PRIMARY KEY, shop smallint, number numeric, line integer, text text);
CREATE TABLE remark (id text PRIMARY KEY, note text, text text);
"""


RULES = {
    "hash": "{rule: hash}",
    "expression": (
        "{rule: expression, type: uuid, "
        "expression: \"syncline.uuid5('6ba7b811-9dad-11d1-80b4-00c04fd430c8', PARTS)\"}"
    ),
    "assigned": "{rule: assigned, type: bigint}",
    "beside": "{rule: hash, beside: true}",
}


def document(kind: str) -> str:
    """Return the map with ids of this kind for orders and lines."""
    if kind == "same":
        return ORDERS + LINES % (
            "",
            "",
            "",
            ", shop: smallint, number: {type: bigint, source: {number: numeric}}, line: integer",
        )
    targets = (
        ", target: order_id",
        ", target: order_id, required: false",
        ", target: line_id, required: false",
    )
    lines = LINES % (*targets, "")
    rules = [
        RULES[kind].replace("PARTS", parts) for parts in ("$1 || ':' || $2", "$1 || ':' || $2 || ':' || $3")
    ]
    orders = ORDERS.replace("    columns: {customer", f"    id: {rules[0]}\n    columns: {{customer")
    return orders + lines.replace("    columns: {item", f"    id: {rules[1]}\n    columns: {{item")


KINDS = ("same", "hash", "expression", "assigned", "beside")


async def opened(graph: TestGraph, kind: str) -> Site:
    schema_map = read_map(f"version: 1\nname: shapes\ntables:\n{document(kind)}", source="shapes.yaml")
    tables = "; ".join(target_tables(schema_map, "kg", types={}).values())
    return await made(graph, document(kind), source=SOURCE, target=tables)


@pytest_asyncio.fixture(loop_scope="session")
async def graph(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield graph


async def found(site: Site, kind: str) -> list[Mapping[str, object]]:
    """Return what a reader finds: notes with their order and line, by foreign keys."""
    if kind == "same":
        sql = """
            SELECT n.key AS note, o.customer, l.item FROM kg.notes n
            JOIN kg.orders o ON (o.shop, o.number) = (n.shop, n.number)
            JOIN kg.lines l ON (l.shop, l.number, l.line) = (n.shop, n.number, n.line)"""
    else:
        sql = """
            SELECT n.key AS note, o.customer, l.item FROM kg.notes n
            LEFT JOIN kg.orders o ON o.id = n.order_id LEFT JOIN kg.lines l ON l.id = n.line_id"""
    return await site.rows(f"{sql} ORDER BY n.key")


@pytest.mark.long(after=1)
@pytest.mark.parametrize("kind", KINDS)
async def test_rows_name_a_parent_by_several_columns(graph: TestGraph, kind: str) -> None:
    site = await opened(graph, kind)
    assert await site.misfits() == {}
    early = kind != "same"
    await write(
        graph,
        "INSERT INTO kg.purchase VALUES (1, 7, 'Ann'), (2, 7, 'Ben');"
        "INSERT INTO kg.purchase_line VALUES (1, 7, 1, 'pen'), (2, 7, 1, 'ink'), (3, 7, 1, 'none');"
        "INSERT INTO kg.note VALUES ('a', 1, 7.0, 1, 'x'), ('b', 2, 7, 1, 'y'), ('c', 3, 7, 1, 'z'), ('d', 2, 7, 2, 'w'),"
        " ('e', 1, NULL, 1, 'v'); INSERT INTO kg.remark VALUES ('r', 'c', 'of c'), ('s', 'a', 'of a')",
    )
    result = await site.cycle()
    # A row in which one of the columns is NULL names none, as in foreign keys.
    assert result.dead_letters == 0
    await site.equal()
    complete = [
        {"note": "a", "customer": "Ann", "item": "pen"},
        {"note": "b", "customer": "Ben", "item": "ink"},
    ]
    alone = [
        {"note": "c", "customer": None, "item": None},
        {"note": "d", "customer": "Ben", "item": None},
        {"note": "e", "customer": None, "item": None},
    ]
    assert await found(site, kind) == complete + (alone if early else [])
    context = graph.context()
    told = await explain(
        context.write, context.target, context.vectors, site.map, table="lines", key=["3", "7", "1"]
    )
    assert "orders" in str(told)
    page = await list_parked(context.target, site.map, "lines")
    assert [(entry.waits_for_table, entry.waits_for_key) for entry in page.entries] == [
        ("orders", '["3", "7"]')
    ]
    summary = await summarize_parked(context.write, context.target, site.map)
    assert all(row.obstacle.value == "missing" for row in summary.awaited if row.table == "orders"), summary

    # Parents arrive, and what waits for them, and for that, is released.
    await write(
        graph,
        "INSERT INTO kg.purchase VALUES (3, 7, 'Cem'); INSERT INTO kg.purchase_line VALUES (2, 7, 2, 'cap')",
    )
    assert (await site.cycle()).parked == 0
    await site.equal()
    assert [row["item"] for row in await found(site, kind)] == [
        "pen",
        "ink",
        "none",
        "cap",
        *([None] * early),
    ]

    # Changed: to another parent, and the parent itself.
    await write(
        graph,
        "UPDATE kg.note SET shop = 2 WHERE id = 'a'; UPDATE kg.purchase SET customer = 'Bea' WHERE shop = 2;"
        "UPDATE kg.note SET number = 8 WHERE id = 'b'; DELETE FROM kg.note WHERE id = 'e'",
    )
    assert (await site.cycle()).parked > 0
    await site.equal()
    assert (await found(site, kind))[0] == {"note": "a", "customer": "Bea", "item": "ink"}

    # A parent leaves with what cannot be without it, and returns.
    await write(graph, "DELETE FROM kg.purchase WHERE shop = 2")
    await site.cycle()
    await site.equal()
    assert await site.rows("SELECT item FROM kg.lines WHERE item = 'ink'") == []
    await write(
        graph,
        "INSERT INTO kg.purchase VALUES (2, 7, 'Bob'), (2, 8, 'Eve'); INSERT INTO kg.purchase_line VALUES (2, 8, 1, 'last')",
    )
    assert (await site.cycle()).parked == 0
    await site.equal()
    assert await found(site, kind) == [
        {"note": "a", "customer": "Bob", "item": "ink"},
        {"note": "b", "customer": "Eve", "item": "last"},
        {"note": "c", "customer": "Cem", "item": "none"},
        {"note": "d", "customer": "Bob", "item": "cap"},
    ]

    # What somebody breaks is found, and mended.
    await on_target(graph, "DELETE FROM kg.lines WHERE item = 'none'")
    verified = await site.verified(repair=True)
    assert {each.name for each in verified.relations if each.damaged} >= {"lines"}, Verdict.MISSING
    await site.cycle()
    await site.cycle()
    await site.equal()
    assert len(await found(site, kind)) == 4


TREE = """
  facts: {source: fact, types: {id: uuid}, id: same, columns: [title]}
  sources: {source: src, columns: [title]}
  quotes:
    source: quote
    key: [fact, src]
    types: {fact: uuid}
    references: {fact: {parent: facts, target: fact_id}, src: {parent: sources, target: source_id}}
    columns: {text: text}
  votes:
    source: vote
    types: {fact: uuid}
    references:
      fact: {parent: facts, target: fact_id}
      src: {parent: sources, target: source_id}
      quote: {parent: quotes, columns: [fact, src]}
    columns: {stars: integer}
  parts:
    source: part
    key: [shop, nr]
    types: {shop: integer, nr: integer, above: integer}
    id: hash
    references: {above_part: {parent: parts, columns: [shop, above], target: above_id, required: false}}
    columns: {title: text}
    vector: {collection: parts, text: t.title, payload: {above: t.above_id}}
    stats: {columns: {below: {counted: parts, by: above_id}}}
"""
TREE_SOURCE = """
CREATE TABLE fact (id uuid PRIMARY KEY, title text);
CREATE TABLE src (id text PRIMARY KEY, title text);
CREATE TABLE quote (fact uuid, src text, text text, PRIMARY KEY (fact, src));
CREATE TABLE vote (id text PRIMARY KEY, fact uuid, src text, stars integer);
CREATE TABLE part (shop integer, nr integer, above integer, title text, PRIMARY KEY (shop, nr));
"""


async def test_a_join_table_is_a_parent_and_a_tree_has_keys_of_columns(graph: TestGraph) -> None:
    schema_map = read_map(f"version: 1\nname: shapes\ntables:\n{TREE}", source="shapes.yaml")
    tables = "; ".join(target_tables(schema_map, "kg", types={}).values())
    site = await made(graph, TREE, source=TREE_SOURCE, target=tables)
    assert await site.misfits() == {}
    one = "0a000000-0000-4000-8000-000000000001"
    await write(
        graph,
        f"INSERT INTO kg.fact VALUES ('{one}', 'F'); INSERT INTO kg.src VALUES ('s', 'S'), ('\"', 'T');"
        f"INSERT INTO kg.quote VALUES ('{one}', '\"', 'q'); INSERT INTO kg.vote VALUES ('v', '{one}', 's', 5), ('w', '{one}', '\"', 4);"
        "INSERT INTO kg.part VALUES (1, 1, 2, 'leaf'), (1, 2, 3, 'stem'), (1, 3, NULL, 'root'), (2, 1, 9, 'alone')",
    )
    assert (await site.cycle()).parked == 2
    await site.equal()
    votes = "SELECT v.key FROM kg.votes v JOIN kg.quotes q ON (q.fact_id, q.source_id) = (v.fact_id, v.source_id) ORDER BY 1"
    assert [row["key"] for row in await site.rows(votes)] == ["w"]
    tree = "SELECT p.title, a.title AS above, p.below FROM kg.parts p LEFT JOIN kg.parts a ON a.id = p.above_id ORDER BY p.shop, p.nr"
    assert [tuple(row.values()) for row in await site.rows(tree)] == [
        ("leaf", "stem", 0), ("stem", "root", 1), ("root", None, 1), ("alone", None, 0),
    ]  # fmt: skip

    await write(
        graph,
        f"INSERT INTO kg.quote VALUES ('{one}', 's', 'r'); DELETE FROM kg.quote WHERE src = '\"';"
        "INSERT INTO kg.part VALUES (2, 9, NULL, 'late'); DELETE FROM kg.part WHERE nr = 2; UPDATE kg.part SET above = 1 WHERE nr = 3",
    )
    assert (await site.cycle()).parked == 2
    await site.equal()
    assert [row["key"] for row in await site.rows(votes)] == ["v"]
    assert [tuple(row.values()) for row in await site.rows(tree)] == [
        ("leaf", None, 1), ("root", "leaf", 0), ("alone", "late", 0), ("late", None, 1),
    ]  # fmt: skip
    await write(graph, "INSERT INTO kg.part VALUES (1, 2, NULL, 'stem'); DELETE FROM kg.fact")
    await site.cycle()
    await site.equal()
    assert [tuple(row.values()) for row in await site.rows(tree)][:2] == [
        ("leaf", "stem", 1),
        ("stem", None, 1),
    ]
    await on_target(graph, "UPDATE kg.parts SET above_id = NULL")
    assert [each.stale.count for each in (await site.verified(repair=True)).relations if each.damaged][
        :1
    ] == [3]
    await site.cycle()
    await site.equal()
