"""Links as real schemas have them: further columns, an order, links that others made, a key of their own."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import Column, Links, Reference, SchemaMap, Stat, Stats, SyncEngine, TableMap
from syncline.engine.render.links import LinkTable
from syncline.maps.ids import Id, IdRule
from syncline.maps.table_map import Ownership
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.messages.verification import Verification
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by
from tests.kit.cases import further


@dataclass(frozen=True)
class Shape:
    """Types of keys and ids on both sides of a link, and the array that names members."""

    key: str
    array: str
    id: Id | None
    id_type: str
    number: str = "{}"
    """A key in SQL, from a number."""
    column: str = "id"

    def key_of(self, n: int) -> str:
        return self.number.format(n)

    def array_of(self, *members: int | None) -> str:
        if self.array == "jsonb":
            return f"to_jsonb(ARRAY[{', '.join('NULL' if n is None else self.key_of(n) for n in members)}]::{self.key}[])"
        items = ", ".join("NULL" if n is None else self.key_of(n) for n in members)
        return f"ARRAY[{items}]::{self.array}"


TEXTS = Shape(key="text", array="text[]", id=None, id_type="uuid", number="'k{}'")
NUMBERS = Shape(key="bigint", array="bigint[]", id=Id(rule=IdRule.SAME), id_type="bigint")
UUIDS = Shape(
    key="uuid",
    array="varchar[]",
    id=Id(rule=IdRule.SAME),
    id_type="uuid",
    number="'0000000{}-ABCD-4000-8000-00000000000F'",
)
MADE = Shape(
    key="integer",
    array="jsonb",
    id=Id(rule=IdRule.EXPRESSION, expression="'n' || $1", type="text", column="made"),
    id_type="text",
    column="made",
)
SHAPES = {"text": TEXTS, "bigint": NUMBERS, "uuid": UUIDS, "expression": MADE}


def map_of(shape: Shape, *, owned: Ownership = Ownership.ALL, position: str | None = "ordinal") -> SchemaMap:
    types = {} if shape.key == "text" else {"k": shape.key}
    node_types = types | ({"fact_ids": shape.array} if shape.array != "text[]" else {})
    facts = TableMap(
        name="facts", source="w_facts", key=("k",), types=types, id=shape.id, columns=(Column(name="title"),)
    )
    links = Links(
        table="node_facts",
        source="fact_ids",
        owner="node_id",
        member="fact_id",
        parent="facts",
        rejected_by="rejections",
        columns={"relevance": "1.0", "linked_at": "now()", "said": "'of ' || t.title"},
        position=position,
        owned=owned,
    )
    nodes = TableMap(
        name="nodes",
        source="w_nodes",
        key=("k",),
        types=node_types,
        id=shape.id,
        columns=(Column(name="title"),),
        links=(links,),
        stats=Stats(
            table="node_stats",
            owner="node_id",
            columns=(Stat(column="n", counted="node_facts", by=("node_id",)),),
        ),
    )
    pair = {} if shape.key == "text" else {"node": shape.key, "fact": shape.key}
    rejections = TableMap(
        name="rejections",
        source="w_rejections",
        key=("node", "fact"),
        types=pair,
        references=(
            Reference(column="node", parent="nodes", required=True),
            Reference(column="fact", parent="facts", required=True),
        ),
    )
    return SchemaMap(name="full", tables=(facts, nodes, rejections))


def source(shape: Shape) -> str:
    return (
        f"CREATE TABLE w_facts (k {shape.key} PRIMARY KEY, title text);"
        f"CREATE TABLE w_nodes (k {shape.key} PRIMARY KEY, title text, fact_ids {shape.array});"
        f"CREATE TABLE w_rejections (node {shape.key}, fact {shape.key}, PRIMARY KEY (node, fact));"
    )


def target(shape: Shape) -> str:
    own = f"{shape.column} {shape.id_type} PRIMARY KEY, title text, sync_version bigint, sync_run bigint"
    key = "" if shape.id is not None and shape.id.rule is IdRule.SAME else f", key {shape.key} NOT NULL"
    return (
        f"CREATE TABLE facts ({own}{key}); CREATE TABLE nodes ({own}{key});"
        # As an ORM makes them: the table has a key of its own, and fills its columns itself.
        "CREATE TABLE node_facts (row_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),"
        f" node_id {shape.id_type} NOT NULL REFERENCES nodes, fact_id {shape.id_type} NOT NULL REFERENCES facts,"
        " ordinal integer NOT NULL DEFAULT 0, relevance float NOT NULL, linked_at timestamp NOT NULL, said text,"
        " UNIQUE (node_id, fact_id));"
        f"CREATE TABLE rejections (node {shape.id_type} REFERENCES nodes, fact {shape.id_type} REFERENCES facts,"
        " sync_version bigint, sync_run bigint, PRIMARY KEY (node, fact));"
        f"CREATE TABLE node_stats (node_id {shape.id_type} PRIMARY KEY REFERENCES nodes ON DELETE CASCADE, n bigint DEFAULT 0)"
    )


@dataclass(frozen=True)
class Site:
    """A graph whose links are synced by a map."""

    graph: TestGraph
    shape: Shape

    async def start(self, schema_map: SchemaMap) -> None:
        await made_by(self.graph, write=source(self.shape), target=target(self.shape))
        await adopt(self.graph.write, "kg", schema_map)

    async def facts(self, *numbers: int) -> None:
        for n in numbers:
            await write(self.graph, f"INSERT INTO w_facts VALUES ({self.shape.key_of(n)}, 'f{n}')")

    async def node(self, n: int, *members: int | None) -> None:
        key, array = self.shape.key_of(n), self.shape.array_of(*members)
        await write(
            self.graph,
            f"INSERT INTO w_nodes VALUES ({key}, 'n{n}', {array})"
            " ON CONFLICT (k) DO UPDATE SET fact_ids = excluded.fact_ids",
        )

    async def delete(self, table: str, n: int) -> None:
        await write(self.graph, f"DELETE FROM {table} WHERE k = {self.shape.key_of(n)}")

    async def reject(self, node: int, fact: int) -> None:
        values = f"{self.shape.key_of(node)}, {self.shape.key_of(fact)}"
        await write(self.graph, f"INSERT INTO w_rejections VALUES ({values})")

    async def cycle(self, schema_map: SchemaMap) -> SyncResult:
        result = await SyncEngine(schema_map).run_cycle(self.graph.context())
        assert [table.error for table in result.tables if table.error] == []
        assert result.status is CycleStatus.DRAINED
        return result

    async def links(self, *columns: str) -> list[tuple[object, ...]]:
        listed = ", ".join(("n.title", "f.title", *columns))
        id_ = self.shape.column
        return await read(
            self.graph,
            f"SELECT {listed} FROM node_facts l JOIN nodes n ON n.{id_} = l.node_id"
            f" JOIN facts f ON f.{id_} = l.fact_id ORDER BY 1, l.ordinal, 2",
        )

    async def others(self, node: int, fact: int) -> None:
        """Make a link as another program would."""
        id_ = self.shape.column
        await on_target(
            self.graph,
            "INSERT INTO node_facts (node_id, fact_id, relevance, linked_at, said)"
            f" SELECT n.{id_}, f.{id_}, 7, '2001-01-01', 'by hand' FROM nodes n, facts f"
            f" WHERE n.title = 'n{node}' AND f.title = 'f{fact}'",
        )

    async def compared(self, schema_map: SchemaMap, *, repair: bool = False) -> Verification:
        context = self.graph.context()
        return await verify(
            schema_map,
            write=context.write,
            target=context.target,
            vectors=None,
            embedding="none",
            keys=5,
            repair=repair,
            who="a test",
            why="a test",
        )

    async def damage(self, schema_map: SchemaMap, *, repair: bool = False) -> dict[str, tuple[int, int, int]]:
        """Return relation -> missing, extra and stale keys, of those that differ. Counts are told by their rows."""
        found = await self.compared(schema_map, repair=repair)
        assert [relation.problem for relation in found.relations if relation.problem] == []
        return {
            relation.name: (relation.missing.count, relation.extra.count, relation.stale.count)
            for relation in found.relations
            if relation.damaged
        }


@pytest_asyncio.fixture(loop_scope="session")
async def graph(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        yield graph


def reread(result: SyncResult) -> list[str]:
    return [table.table for table in result.tables if table.reread]


@pytest.mark.long(after=1)
@pytest.mark.parametrize("name", ["text", "expression", *further("bigint", "uuid")])
async def test_columns_and_position(graph: TestGraph, name: str) -> None:
    """Every way in which a link is made fills its columns; what readers change in them stays; order follows."""
    site, schema_map = Site(graph, SHAPES[name]), map_of(SHAPES[name])
    await site.start(schema_map)
    await site.facts(1, 2, 3)
    await site.node(1, None, 3, 1, 3, 9, 2)
    await site.node(2)
    await site.reject(1, 2)
    result = await site.cycle(schema_map)
    assert result.parked == 1
    filled = ("l.ordinal", "l.relevance", "l.said", "l.linked_at > now()::timestamp - interval '1 hour'")
    assert await site.links(*filled) == [
        ("n1", "f3", 2, 1.0, "of n1", True),
        ("n1", "f1", 3, 1.0, "of n1", True),
    ]
    assert await site.damage(schema_map) == {}

    # Readers own the columns; the rejection ends, the missing member arrives, the array is put in another order.
    await on_target(graph, "UPDATE node_facts SET relevance = 0.5, said = 'mine' WHERE ordinal = 3")
    await write(graph, "DELETE FROM w_rejections")
    await site.facts(9)
    await site.cycle(schema_map)
    assert await site.links("l.ordinal", "l.relevance", "l.said") == [
        ("n1", "f3", 2, 1.0, "of n1"),
        ("n1", "f1", 3, 0.5, "mine"),
        ("n1", "f9", 5, 1.0, "of n1"),
        ("n1", "f2", 6, 1.0, "of n1"),
    ]
    assert await site.damage(schema_map) == {}
    rows = await read(graph, "SELECT row_id FROM node_facts ORDER BY row_id")
    await site.node(1, 2, 1, 9, 3)
    assert (await site.cycle(schema_map)).links == 4
    assert await site.links("l.ordinal", "l.relevance") == [
        ("n1", "f2", 1, 1.0),
        ("n1", "f1", 2, 0.5),
        ("n1", "f9", 3, 1.0),
        ("n1", "f3", 4, 1.0),
    ]
    assert await read(graph, "SELECT row_id FROM node_facts ORDER BY row_id") == rows
    assert await site.damage(schema_map) == {}
    assert (await site.cycle(schema_map)).links == 0

    # A member leaves and returns: its link is parked with its place, and made again with the map's columns.
    await site.delete("w_facts", 1)
    assert (await site.cycle(schema_map)).parked == 1
    assert [row[1] for row in await site.links()] == ["f2", "f9", "f3"]
    assert await site.damage(schema_map) == {}
    await site.facts(1)
    await site.cycle(schema_map)
    assert (await site.links("l.ordinal", "l.relevance"))[1] == ("n1", "f1", 2, 1.0)
    assert await site.damage(schema_map) == {}

    # What is damaged is found and repaired, with the columns filled.
    await on_target(graph, "UPDATE node_facts SET ordinal = 30 - ordinal WHERE ordinal IN (2, 3)")
    await on_target(graph, "DELETE FROM node_facts WHERE ordinal = 4")
    assert (await site.damage(schema_map, repair=True))["node_facts"] == (1, 0, 2)
    await site.cycle(schema_map)
    assert await site.links("l.ordinal", "l.relevance") == [
        (f"n{1}", f"f{fact}", place, 1.0) for place, fact in enumerate((2, 1, 9, 3), 1)
    ]
    assert await site.damage(schema_map) == {}

    await site.delete("w_nodes", 1)
    await site.cycle(schema_map)
    assert await site.links() == []
    assert await site.damage(schema_map) == {}


@pytest.mark.long(after=1)
@pytest.mark.parametrize("name", ["bigint", "uuid", *further("text", "expression")])
async def test_links_that_others_made_stay(graph: TestGraph, name: str) -> None:
    site, schema_map = Site(graph, SHAPES[name]), map_of(SHAPES[name], owned=Ownership.OURS)
    await site.start(schema_map)
    await site.facts(1, 2, 3, 4)
    await site.node(1, 1, 2)
    await site.node(2, 2)
    await site.cycle(schema_map)
    await site.others(1, 3)
    await site.others(1, 4)
    assert await site.damage(schema_map) == {"node_stats": (0, 0, 1)}, (
        "others' links are counted with the next change"
    )

    # The array names one that others made, and lets go of one that the engine made.
    await site.node(1, 4, 2)
    await site.cycle(schema_map)
    assert sorted(await site.links("l.relevance")) == [
        ("n1", "f2", 1.0),
        ("n1", "f3", 7.0),
        ("n1", "f4", 7.0),
        ("n2", "f2", 1.0),
    ]
    assert await read(graph, "SELECT ours, count(*) FROM sync_link GROUP BY 1 ORDER BY 1") == [
        (False, 1),
        (True, 2),
    ]
    assert await site.damage(schema_map) == {}

    # Both have made 4: it stays when the array lets go of it.
    await site.node(1, 2)
    await site.cycle(schema_map)
    assert {row[1] for row in await site.links() if row[0] == "n1"} == {"f2", "f3", "f4"}
    assert await read(graph, "SELECT ours FROM sync_link") == [(True,), (True,)]
    assert await site.damage(schema_map) == {}

    # A rejection removes what the engine made, and nothing else.
    await site.reject(1, 2)
    await site.reject(1, 3)
    await site.cycle(schema_map)
    assert {row[1] for row in await site.links() if row[0] == "n1"} == {"f3", "f4"}
    assert await site.damage(schema_map) == {}
    await write(graph, "DELETE FROM w_rejections")
    await site.cycle(schema_map)
    assert {row[1] for row in await site.links() if row[0] == "n1"} == {"f2", "f3", "f4"}
    assert await site.damage(schema_map) == {}

    # A member leaves: all links to it do. What the array names returns with it, as the engine's.
    await site.node(1, 2, 4)
    await site.cycle(schema_map)
    await site.delete("w_facts", 4)
    await site.delete("w_facts", 3)
    assert (await site.cycle(schema_map)).parked == 1
    assert [row[1] for row in await site.links() if row[0] == "n1"] == ["f2"]
    assert await site.damage(schema_map) == {}
    await site.facts(3, 4)
    await site.cycle(schema_map)
    assert sorted(await site.links("l.relevance")) == [
        ("n1", "f2", 1.0),
        ("n1", "f4", 1.0),
        ("n2", "f2", 1.0),
    ]
    assert await read(graph, "SELECT count(*) FROM sync_link WHERE ours") == [(3,)]
    assert await site.damage(schema_map) == {}


@pytest.mark.long("test_links_that_others_made_stay")
async def test_repair_leaves_links_of_others(graph: TestGraph) -> None:
    site, schema_map = Site(graph, TEXTS), map_of(TEXTS, owned=Ownership.OURS)
    await site.start(schema_map)
    await site.facts(1, 2, 3)
    await site.node(1, 1, 2)
    await site.cycle(schema_map)
    await site.others(1, 3)
    # One of ours was deleted, one was made and is named no longer, as if a cycle had missed it.
    await on_target(graph, "DELETE FROM node_facts USING facts f WHERE f.id = fact_id AND f.title = 'f1'")
    await on_target(
        graph,
        "INSERT INTO sync_link SELECT 'node_facts', node_id, fact_id, true FROM node_facts WHERE relevance = 7",
    )
    assert (await site.damage(schema_map, repair=True))["node_facts"] == (1, 1, 0)
    await site.others(1, 1)
    await site.cycle(schema_map)
    assert [row[1] for row in await site.links()] == ["f1", "f2"]
    await on_target(graph, "DELETE FROM sync_link")
    assert await site.damage(schema_map) == {}, "what the engine does not know as its own is others'"


async def test_owner_leaves_with_all_its_links(graph: TestGraph) -> None:
    site, schema_map = Site(graph, NUMBERS), map_of(NUMBERS, owned=Ownership.OURS)
    await site.start(schema_map)
    await site.facts(1, 2)
    await site.node(1, 1)
    await site.node(2, 1)
    await site.cycle(schema_map)
    await site.others(1, 2)
    await site.others(2, 2)
    await site.delete("w_nodes", 1)
    await site.cycle(schema_map)
    assert sorted(await site.links()) == [("n2", "f1"), ("n2", "f2")]
    assert await read(graph, "SELECT count(*) FROM sync_link") == [(1,)]
    assert (await site.damage(schema_map)).keys() <= {"node_stats"}


@pytest.mark.long("test_columns_and_position")
async def test_ownership_and_columns_change(graph: TestGraph) -> None:
    """Links made while all were the engine's are its own afterwards; the other way round others' links leave."""
    site, everything, ours = Site(graph, TEXTS), map_of(TEXTS), map_of(TEXTS, owned=Ownership.OURS)
    await site.start(everything)
    await site.facts(1, 2, 3)
    await site.node(1, 1, 2)
    await site.cycle(everything)
    changed = await site.cycle(ours)
    assert (reread(changed), len(changed.map_changes)) == ([], 1)
    await site.others(1, 3)
    await site.node(1, 2)
    await site.cycle(ours)
    assert sorted(row[1] for row in await site.links()) == ["f2", "f3"]
    assert await site.damage(ours) == {}
    changed = await site.cycle(everything)
    assert reread(changed) == ["nodes"]
    assert sorted(row[1] for row in await site.links()) == ["f2"]
    assert await read(graph, "SELECT count(*) FROM sync_link") == [(0,)]
    assert await site.damage(everything) == {}


async def test_position_is_added_and_left(graph: TestGraph) -> None:
    site, without, placed = Site(graph, UUIDS), map_of(UUIDS, position=None), map_of(UUIDS)
    await site.start(without)
    await site.facts(1, 2)
    await site.node(1, 2, 1, 9)
    await site.cycle(without)
    changed = await site.cycle(placed)
    assert reread(changed) == ["nodes"]
    assert await site.links("l.ordinal") == [("n1", "f2", 1), ("n1", "f1", 2)]
    await site.facts(9)
    await site.cycle(placed)
    assert (await site.links("l.ordinal"))[2] == ("n1", "f9", 3)
    changed = await site.cycle(without)
    assert reread(changed) == []


@pytest.mark.parametrize("size", [3_000, pytest.param(100_000, marks=pytest.mark.proof)])
async def test_many_members_of_one_array(graph: TestGraph, size: int) -> None:
    """A long array is made, put in another order and taken away, each in one statement."""
    site, schema_map = Site(graph, TEXTS), map_of(TEXTS, owned=Ownership.OURS)
    await site.start(schema_map)
    await write(graph, f"INSERT INTO w_facts SELECT 'k' || i, 'f' || i FROM generate_series(1, {size}) i")
    named = "SELECT array_agg('k' || i ORDER BY i {}) FROM generate_series(1, {}) i"
    await write(graph, f"INSERT INTO w_nodes SELECT 'big', 'n1', ({named.format('', size + 10)})")
    result = await site.cycle(schema_map)
    assert (result.links, result.parked) == (size, 10)
    assert await site.damage(schema_map) == {}
    await write(graph, f"UPDATE w_nodes SET fact_ids = ({named.format('DESC', size)})")
    await site.cycle(schema_map)
    places = "SELECT min(ordinal), max(ordinal), count(DISTINCT ordinal) FROM node_facts"
    assert await read(graph, places) == [(1, size, size)]
    assert await site.damage(schema_map) == {}
    await write(graph, "UPDATE w_nodes SET fact_ids = '{}'")
    assert (await site.cycle(schema_map)).links == size
    assert await read(graph, "SELECT count(*) FROM sync_link") == [(0,)]


async def test_a_link_that_is_refused_is_its_owners_fault(graph: TestGraph) -> None:
    """A column's value that the table rejects makes the owner a dead letter; the others are linked."""
    site, schema_map = Site(graph, TEXTS), map_of(TEXTS)
    await site.start(schema_map)
    await on_target(graph, "ALTER TABLE node_facts ADD CHECK (said NOT IN ('of n2', 'of n4'))")
    await site.facts(1)
    await site.node(1, 1)
    await site.node(2, 1)
    await site.node(3, 9)
    await site.node(4, 9)
    result = await site.cycle(schema_map)
    assert result.failures == 1
    assert await site.links() == [("n1", "f1")]
    await site.facts(9)
    await site.cycle(schema_map)
    assert await site.links() == [("n1", "f1"), ("n3", "f9")]
    assert await read(graph, "SELECT key FROM sync_dead_letter ORDER BY 1") == [(["k2"],), (["k4"],)]
    await on_target(graph, "ALTER TABLE node_facts DROP CONSTRAINT node_facts_said_check")
    await write(graph, "UPDATE w_nodes SET title = title || '!' WHERE k IN ('k2', 'k4')")
    await site.cycle(schema_map)
    assert await site.links("said") == [
        ("n1", "f1", "of n1"),
        ("n2!", "f1", "of n2!"),
        ("n3", "f9", "of n3"),
        ("n4!", "f9", "of n4!"),
    ]
    assert await site.damage(schema_map) == {}


@pytest.mark.long("test_columns_and_position")
async def test_position_that_is_unique_per_owner(graph: TestGraph) -> None:
    """Places change hands within a statement: members swap, leave and arrive."""
    site, schema_map = Site(graph, TEXTS), map_of(TEXTS)
    await site.start(schema_map)
    await on_target(graph, "ALTER TABLE node_facts ADD UNIQUE (node_id, ordinal) DEFERRABLE")
    await site.facts(1, 2, 3, 4)
    await site.node(1, 1, 2, 9, 3)
    await site.cycle(schema_map)
    for members in ((2, 1, 9, 3), (4, 3, 2), (1, 2, 3, 4, 9), (3, 9)):
        await site.node(1, *members)
        await site.cycle(schema_map)
        places = [(f"f{fact}", place) for place, fact in enumerate(members, 1) if fact != 9]
        assert [row[1:] for row in await site.links("l.ordinal")] == places
        assert await site.damage(schema_map) == {}
    await site.facts(9)
    await site.cycle(schema_map)
    assert [row[1:] for row in await site.links("l.ordinal")] == [("f3", 1), ("f9", 2)]
    assert await site.damage(schema_map) == {}


async def test_links_of_others_are_told_apart_in_a_schema(graph: TestGraph) -> None:
    """As a promotion asks that would leave them behind."""
    site, schema_map = Site(graph, NUMBERS), map_of(NUMBERS, owned=Ownership.OURS)
    await site.start(schema_map)
    await site.facts(1, 2)
    await site.node(1, 1)
    await site.cycle(schema_map)
    nodes = schema_map["nodes"]
    query = LinkTable(schema_map, nodes, nodes.links[0]).of_others("kg")
    assert await read(graph, query) == [(False,)]
    await site.others(1, 2)
    assert await read(graph, query) == [(True,)]


@pytest.mark.long("test_columns_and_position")
async def test_owner_with_a_key_of_two_columns(graph: TestGraph) -> None:
    """Its parked links keep the whole key, and their places."""
    goods = TableMap(name="goods", source="w_goods", key=("sku",), columns=(Column(name="title"),))
    links = Links(
        table="order_goods",
        source="skus",
        owner="o",
        member="g",
        parent="goods",
        columns={"note": "t.note"},
        position="place",
        owned=Ownership.OURS,
    )
    orders = TableMap(
        name="orders",
        source="w_orders",
        key=("shop", "number"),
        types={"shop": "smallint", "number": "bigint"},
        id=Id(rule=IdRule.EXPRESSION, expression="$1::text || '/' || $2", type="text", column="nr"),
        stamped=False,
        columns=(Column(name="note"),),
        links=(links,),
    )
    schema_map = SchemaMap(name="orders", tables=(goods, orders))
    site = Site(graph, TEXTS)
    await made_by(
        graph,
        write="CREATE TABLE w_goods (sku text PRIMARY KEY, title text);"
        "CREATE TABLE w_orders (shop smallint, number bigint, note text, skus text[], PRIMARY KEY (shop, number));"
        "INSERT INTO w_goods VALUES ('s1', 'spade'), ('s2', 'saw');"
        "INSERT INTO w_orders VALUES (1, 10, 'a', '{s9,s2,s1}'), (2, 10, 'b', '{s1}')",
        target="CREATE TABLE goods (id uuid PRIMARY KEY, key text, title text, sync_version bigint, sync_run bigint);"
        "CREATE TABLE orders (nr text PRIMARY KEY, shop smallint, number bigint, note text);"
        "CREATE TABLE order_goods (o text REFERENCES orders, g uuid REFERENCES goods, note text NOT NULL,"
        " place bigint NOT NULL, PRIMARY KEY (g, o))",
    )
    await adopt(graph.write, "kg", schema_map)
    query = "SELECT o, key, l.note, place FROM order_goods l JOIN goods ON id = g ORDER BY o, place"
    assert (await site.cycle(schema_map)).parked == 1
    landed = [("1/10", "s2", "a", 2), ("1/10", "s1", "a", 3), ("2/10", "s1", "b", 1)]
    assert await read(graph, query) == landed
    await write(graph, "DELETE FROM w_goods WHERE sku = 's1'; INSERT INTO w_goods VALUES ('s9', 'sieve')")
    assert (await site.cycle(schema_map)).parked == 2
    assert await read(graph, query) == [("1/10", "s9", "a", 1), ("1/10", "s2", "a", 2)]
    assert await site.damage(schema_map) == {}
    await write(graph, "INSERT INTO w_goods VALUES ('s1', 'spade')")
    await site.cycle(schema_map)
    assert await read(graph, query) == [("1/10", "s9", "a", 1), *landed]
    assert await read(graph, "SELECT count(*) FROM sync_link WHERE ours") == [(4,)]
    assert await site.damage(schema_map) == {}
    await write(graph, "DELETE FROM w_orders WHERE shop = 1")
    await site.cycle(schema_map)
    assert await read(graph, query) == landed[2:]
    assert await read(graph, "SELECT count(*) FROM sync_link WHERE ours") == [(1,)]
    assert await site.damage(schema_map) == {}
