"""Ids beside the key: of a source column, assigned by the target, listed beside targets that readers share."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from uuid import UUID

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
from syncline.engine.render.identity import Identity
from syncline.maps.ids import Id, IdRule
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.messages.verification import Verification
from syncline.migrations import migrate_bookkeeping
from syncline.operator.explain import explain
from syncline.operator.explanation import RowState
from syncline.operator.map_check import check_map
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify
from syncline.verify.takeover import take_over
from tests.kit.bare_graph import bare_graph, made_by

NODES = TableMap(
    name="nodes",
    source="w_nodes",
    key=("key",),
    id=Id(rule=IdRule.COLUMN, source="node_uuid", type="uuid", beside=True),
    columns=(Column(name="title"),),
    references=(Reference(column="parent", parent="nodes", required=False, target="parent_id"),),
    links=(Links(table="related", source="related", owner="one", member="other", parent="nodes"),),
    stats=Stats(
        table="node_stats", owner="node", columns=(Stat(column="pages", counted="pages", by=("node",)),)
    ),
)
SOURCES = TableMap(
    name="sources",
    source="w_sources",
    key=("key",),
    id=Id(rule=IdRule.ASSIGNED, type="bigint", natural=("uri",), beside=True),
    columns=(Column(name="uri"), Column(name="title")),
    references=(Reference(column="origin", parent="sources", required=False),),
    links=(Links(table="cites", source="cites", owner="a", member="b", parent="sources"),),
)
PAGES = TableMap(
    name="pages",
    source="w_pages",
    key=("node", "number"),
    types={"number": "integer"},
    stamped=False,
    columns=(Column(name="text"),),
    references=(
        Reference(column="node", parent="nodes"),
        Reference(column="source", parent="sources", target="source_id"),
    ),
)
BOOK = SchemaMap(name="book", tables=(NODES, SOURCES, PAGES))
SOURCE = """
CREATE TABLE w_nodes (key text PRIMARY KEY, node_uuid uuid, title text, parent text, related text[]);
CREATE TABLE w_sources (key text PRIMARY KEY, uri text, title text, origin text, cites text[]);
CREATE TABLE w_pages (node text, number int, text text, source text, PRIMARY KEY (node, number));
"""
TARGET = """
CREATE TABLE nodes (
    id uuid PRIMARY KEY, title text, parent_id uuid REFERENCES nodes, access_count int NOT NULL DEFAULT 0
);
CREATE TABLE related (one uuid REFERENCES nodes, other uuid REFERENCES nodes, PRIMARY KEY (one, other));
CREATE TABLE node_stats (node uuid PRIMARY KEY REFERENCES nodes ON DELETE CASCADE, pages bigint DEFAULT 0);
CREATE TABLE sources (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, uri text UNIQUE, title text, note text,
    origin bigint REFERENCES sources
);
CREATE TABLE cites (a bigint REFERENCES sources, b bigint REFERENCES sources, PRIMARY KEY (a, b));
CREATE TABLE pages (
    node uuid REFERENCES nodes, number int, text text, source_id bigint NOT NULL REFERENCES sources,
    PRIMARY KEY (node, number)
);
"""
TREE = "SELECT n.title, n.id::text, p.title FROM nodes n LEFT JOIN nodes p ON p.id = n.parent_id ORDER BY 1"
RELATED = "SELECT a.title, b.title FROM related JOIN nodes a ON a.id = one JOIN nodes b ON b.id = other ORDER BY 1, 2"


def uuid(n: int) -> str:
    return f"{n:08d}-0000-4000-8000-000000000000"


@pytest_asyncio.fixture(loop_scope="session")
async def site(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        await made_by(graph, write=SOURCE, target=TARGET)
        await adopt(graph.write, "kg", BOOK)
        yield graph


async def cycle(graph: TestGraph, engine: SyncEngine, script: str = "") -> SyncResult:
    if script:
        await write(graph, script)
    result = await engine.run_cycle(graph.context())
    assert [table.error for table in result.tables if table.error] == []
    assert result.status is CycleStatus.DRAINED
    return result


async def compared(graph: TestGraph, *, allowed: str = "") -> Verification:
    context = graph.context()
    found = await verify(
        BOOK, write=context.write, target=context.target, vectors=None, embedding="none", keys=5
    )
    wrong = [
        (relation.name, relation.problem, relation.missing, relation.extra, relation.stale)
        for relation in found.relations
        if relation.damaged or relation.problem
    ]
    assert [line for line in wrong if line[0] != allowed] == []
    return found


NODE_ROWS = f"""
INSERT INTO w_nodes VALUES
    ('a', '{uuid(1)}', 'A', NULL, '{{b,c}}'), ('b', '{uuid(2)}', 'B', 'a', '{{}}'), ('c', '{uuid(3)}', 'C', 'b', '{{a}}');
INSERT INTO w_sources VALUES ('s', 'http://s', 'S', NULL, '{{t}}'), ('t', 'http://t', 'T', 's', '{{s,u}}');
INSERT INTO w_pages VALUES ('a', 1, 'one', 's'), ('b', 1, 'two', 't'), ('b', 2, 'waits', 'u'), ('d', 1, 'waits', 's');
"""


async def test_a_target_that_readers_share_keeps_what_is_theirs(site: TestGraph) -> None:
    # Readers' rows: one by itself, one by the natural key of a source, with links and a page of their own.
    await on_target(
        site,
        f"INSERT INTO nodes VALUES ('{uuid(90)}', 'theirs', NULL, 7), ('{uuid(2)}', 'old B', NULL, 5);"
        f"INSERT INTO related VALUES ('{uuid(90)}', '{uuid(2)}');"
        "INSERT INTO sources (uri, title, note) VALUES ('http://x', 'theirs', 'n'), ('http://t', 'old T', 'kept');",
    )
    engine = SyncEngine(BOOK)
    result = await cycle(site, engine, NODE_ROWS)
    assert result.parked == 3  # two pages, and a citation
    assert await read(site, "SELECT title, access_count FROM nodes ORDER BY id") == [
        ("A", 0),
        ("B", 5),
        ("C", 0),
        ("theirs", 7),
    ]
    assert await read(site, TREE) == [
        ("A", uuid(1), None),
        ("B", uuid(2), "A"),
        ("C", uuid(3), "B"),
        ("theirs", uuid(90), None),
    ]
    assert await read(site, RELATED) == [("A", "B"), ("A", "C"), ("C", "A"), ("theirs", "B")]
    assert await read(site, "SELECT id, title, note, origin FROM sources ORDER BY id") == [
        (1, "theirs", "n", None),
        (2, "T", "kept", 3),
        (3, "S", None, None),
    ]
    assert await read(site, "SELECT a, b FROM cites ORDER BY 1, 2") == [(2, 3), (3, 2)]
    assert await read(site, "SELECT text, source_id FROM pages ORDER BY 1") == [("one", 3), ("two", 2)]
    await compared(site)

    # Parents land later; values change; what readers wrote meanwhile stays.
    await on_target(site, f"UPDATE nodes SET access_count = 9 WHERE id = '{uuid(1)}'")
    result = await cycle(
        site,
        engine,
        f"INSERT INTO w_nodes VALUES ('d', '{uuid(4)}', 'D', 'c', '{{d}}'); INSERT INTO w_sources VALUES ('u', 'http://u');"
        "UPDATE w_nodes SET title = 'A2' WHERE key = 'a'; UPDATE w_sources SET uri = 'http://s2' WHERE key = 's'",
    )
    assert result.parked == 0
    assert await read(site, f"SELECT title, access_count FROM nodes WHERE id = '{uuid(1)}'") == [("A2", 9)]
    assert await read(site, "SELECT id, uri FROM sources WHERE title = 'S'") == [(3, "http://s2")]
    assert await read(site, "SELECT count(*) FROM pages JOIN sources ON source_id = id") == [(4,)]
    assert await read(site, f"SELECT pages FROM node_stats WHERE node = '{uuid(2)}'") == [(2,)]
    await compared(site)
    context = site.context()
    row = await explain(context.write, context.target, context.vectors, BOOK, table="nodes", key=["a"])
    assert (row.state, str(row.graph.id)) == (RowState.IN_STEP, uuid(1))
    assert row.graph.version is not None
    assert row.graph.synced_by is not None

    # Everything of ours leaves, and nothing else.
    await cycle(site, engine, "DELETE FROM w_pages; DELETE FROM w_nodes; TRUNCATE w_sources")
    assert await read(site, "SELECT title FROM nodes") == [("theirs",)]
    assert await read(site, "SELECT title FROM sources") == [("theirs",)]
    assert await read(site, "SELECT count(*) FROM sync_row") == [(0,)]
    await compared(site)


async def test_a_row_follows_its_id_with_all_that_hangs_on_it(site: TestGraph) -> None:
    engine = SyncEngine(BOOK)
    await cycle(site, engine, NODE_ROWS)
    # An id changes; two rows exchange theirs in one transaction.
    await cycle(
        site,
        engine,
        f"UPDATE w_nodes SET node_uuid = '{uuid(11)}' WHERE key = 'b';"
        f"UPDATE w_nodes SET node_uuid = CASE key WHEN 'a' THEN '{uuid(3)}' ELSE '{uuid(1)}' END::uuid WHERE key <> 'b'",
    )
    assert await read(site, TREE) == [("A", uuid(3), None), ("B", uuid(11), "A"), ("C", uuid(1), "B")]
    assert await read(site, RELATED) == [("A", "B"), ("A", "C"), ("C", "A")]
    assert await read(site, "SELECT text, node::text FROM pages ORDER BY 1") == [
        ("one", uuid(3)),
        ("two", uuid(11)),
    ]
    await compared(site)


@pytest.mark.long(
    "test_a_row_that_readers_hold_keeps_its_id", "test_a_target_that_readers_share_keeps_what_is_theirs"
)
async def test_two_keys_never_share_an_id(site: TestGraph) -> None:
    engine = SyncEngine(BOOK)
    await cycle(site, engine, NODE_ROWS)
    result = await cycle(
        site,
        engine,
        # One that a row has, two that are equal, one that is missing; and a row that wants another's.
        f"INSERT INTO w_nodes VALUES ('d', '{uuid(1)}', 'D'), ('e', '{uuid(5)}', 'E'), ('f', '{uuid(5)}', 'F'), ('g', NULL, 'G');"
        # It refers to the one that is refused, not to the row that has the id.
        f"INSERT INTO w_nodes VALUES ('h', '{uuid(12)}', 'H', 'd');"
        f"UPDATE w_nodes SET node_uuid = '{uuid(1)}', title = 'B2' WHERE key = 'b'",
    )
    assert result.failures == 4
    letters = await read(site, "SELECT key[1], sqlstate, message FROM sync_dead_letter ORDER BY 1")
    assert [(key, state) for key, state, _ in letters if key not in "ef"] == [
        ("b", "23505"),
        ("d", "23505"),
        ("g", "23502"),
    ]
    assert letters[0][2] == (
        'another key has the same value in column "id" of relation "nodes", which comes from "node_uuid" of the source'
    )
    titles = [title for title, *_ in await read(site, TREE)]
    assert titles[:3] == ["A", "B", "C"]
    assert titles[3:] in (["E", "H"], ["F", "H"])
    assert (await read(site, TREE))[-1] == ("H", uuid(12), None)
    await compared(site)
    # The holder leaves, or takes another id: the first in line has it.
    result = await cycle(
        site,
        engine,
        f"UPDATE w_nodes SET node_uuid = '{uuid(8)}' WHERE key = 'a'; UPDATE w_nodes SET node_uuid = '{uuid(7)}' WHERE key = 'd';"
        f"UPDATE w_nodes SET node_uuid = '{uuid(6)}' WHERE key = 'g'; DELETE FROM w_nodes WHERE key = '{titles[3].lower()}'"
        if isinstance(titles[3], str)
        else "",
    )
    assert await read(site, "SELECT key FROM sync_dead_letter") == []
    assert [(title, id_) for title, id_, _ in await read(site, TREE)][:4] == [
        ("A", uuid(8)),
        ("B2", uuid(1)),
        ("C", uuid(3)),
        ("D", uuid(7)),
    ]
    assert (await read(site, TREE))[-1] == ("H", uuid(12), "D")
    assert await read(site, "SELECT count(*) FROM nodes") == [(7,)]
    await compared(site)


async def test_a_row_that_readers_hold_keeps_its_id(site: TestGraph) -> None:
    engine = SyncEngine(BOOK)
    await cycle(site, engine, NODE_ROWS)
    await on_target(
        site,
        f"CREATE TABLE notes (node uuid REFERENCES nodes); INSERT INTO notes VALUES ('{uuid(2)}')",
    )
    move = f"UPDATE w_nodes SET node_uuid = CASE key WHEN 'b' THEN '{uuid(8)}' ELSE '{uuid(2)}' END::uuid, title = key"
    await cycle(site, engine, f"{move} WHERE key IN ('b', 'c')")
    letters = await read(site, "SELECT key[1], sqlstate FROM sync_dead_letter ORDER BY 1")
    assert letters == [("b", "23503"), ("c", "23505")]
    assert (await read(site, TREE))[:2] == [("A", uuid(1), None), ("B", uuid(2), "A")]
    await compared(site)
    await on_target(site, "DROP TABLE notes; UPDATE sync_dead_letter SET next_retry_at = now()")
    await cycle(site, engine)
    await cycle(site, engine)
    assert await read(site, TREE) == [("A", uuid(1), None), ("b", uuid(8), "A"), ("c", uuid(2), "b")]
    assert await read(site, "SELECT key FROM sync_dead_letter") == []
    await compared(site)


@pytest.mark.long(
    "test_a_row_that_readers_hold_keeps_its_id", "test_a_target_that_readers_share_keeps_what_is_theirs"
)
async def test_a_natural_key_that_is_another_keys_is_refused(site: TestGraph) -> None:
    engine = SyncEngine(BOOK)
    await cycle(site, engine, NODE_ROWS)
    await cycle(site, engine, "INSERT INTO w_sources VALUES ('s2', 'http://s', 'other')")
    [(key, state, held)] = await read(site, "SELECT key, sqlstate, held_by IS NOT NULL FROM sync_dead_letter")
    assert (key, state, held) == (["s2"], "23505", True)
    await cycle(site, engine, "DELETE FROM w_sources WHERE key = 's'")
    assert await read(site, "SELECT title FROM sources ORDER BY 1") == [("T",), ("other",)]
    await compared(site)


@pytest.mark.long(
    "test_a_row_that_readers_hold_keeps_its_id", "test_a_target_that_readers_share_keeps_what_is_theirs"
)
async def test_rows_that_somebody_deleted_return_under_their_ids(site: TestGraph) -> None:
    engine = SyncEngine(BOOK)
    await cycle(site, engine, NODE_ROWS)
    before = await read(site, "SELECT id, uri FROM sources ORDER BY 1")
    await on_target(
        site,
        "DELETE FROM pages; DELETE FROM cites; UPDATE sources SET origin = NULL; DELETE FROM sources WHERE uri = 'http://s';"
        "INSERT INTO sync_requeue (table_name, row_id, key, reason) SELECT table_name, row_id, key, 'test' FROM sync_row;"
        "INSERT INTO sync_requeue (table_name, row_id, key, reason)"
        " SELECT 'pages', syncline.row_uuid(key), key, 'test' FROM (VALUES (ARRAY['a', '1']), (ARRAY['b', '1'])) k (key)",
    )
    await cycle(site, engine)
    assert await read(site, "SELECT id, uri FROM sources ORDER BY 1") == before
    await compared(site)


async def test_deletes_that_were_not_captured_are_found_by_the_list(site: TestGraph) -> None:
    engine = SyncEngine(BOOK)
    await cycle(site, engine, NODE_ROWS)
    await on_target(site, f"INSERT INTO nodes VALUES ('{uuid(90)}', 'theirs')")
    connection = await site.connect_write()
    await connection.execute(
        "SET session_replication_role = replica; DELETE FROM kg.w_nodes WHERE key = 'c'; DELETE FROM kg.w_sources WHERE key = 's'"
    )
    await connection.close()
    names = ", ".join(f"('{table.name}', 'a test')" for table in BOOK)
    await on_target(site, f"INSERT INTO sync_comparison (table_name, reason) VALUES {names}")
    await cycle(site, engine)
    assert await read(site, "SELECT title FROM nodes ORDER BY 1") == [("A",), ("B",), ("theirs",)]
    assert await read(site, "SELECT title FROM sources") == [("T",)]


@pytest.mark.long(
    "test_a_row_that_readers_hold_keeps_its_id", "test_a_target_that_readers_share_keeps_what_is_theirs"
)
async def test_a_map_whose_ids_become_others_says_what_stands_in_the_way(site: TestGraph) -> None:
    await on_target(
        site, "ALTER TABLE nodes ADD key text; ALTER TABLE nodes ADD sync_version bigint, ADD sync_run bigint"
    )
    before = SchemaMap(name="book", tables=(replace(NODES, id=None), SOURCES, PAGES))
    await cycle(site, SyncEngine(before), NODE_ROWS)
    await on_target(site, "ALTER TABLE nodes ALTER key DROP NOT NULL")
    engine = SyncEngine(BOOK)
    result = await engine.run_cycle(site.context())
    [error] = [table.error for table in result.tables if table.table == "nodes"]
    assert error is not None
    assert "DELETE FROM" in error
    # The bookkeeping moves beside without another id: nothing is in the way.
    beside = SchemaMap(
        name="book", tables=(replace(NODES, id=Id(rule=IdRule.HASH, beside=True)), SOURCES, PAGES)
    )
    await cycle(site, SyncEngine(beside))
    assert await read(site, "SELECT count(*) FROM sync_row WHERE table_name = 'nodes'") == [(3,)]
    await cycle(site, SyncEngine(beside), "DELETE FROM w_nodes WHERE key = 'c'")
    assert await read(site, "SELECT title FROM nodes ORDER BY 1") == [("A",), ("B",)]


@pytest.mark.long(
    "test_a_row_that_readers_hold_keeps_its_id", "test_a_target_that_readers_share_keeps_what_is_theirs"
)
async def test_changed_points_and_counts_are_made_again_for_rows_of_ours(site: TestGraph) -> None:
    point = VectorProjection(collection="nodes", text="t.title", payload={"title": "t.title"})
    counts = Stats(
        table="source_stats", owner="of", columns=(Stat(column="pages", counted="pages", by=("source_id",)),)
    )
    await on_target(
        site,
        "CREATE TABLE source_stats (of bigint PRIMARY KEY REFERENCES sources ON DELETE CASCADE, pages bigint DEFAULT 0, "
        "texts bigint DEFAULT 0); ALTER TABLE nodes RENAME id TO node_id;"
        f"INSERT INTO nodes VALUES ('{uuid(90)}', 'theirs'); INSERT INTO sources (uri) VALUES ('http://x')",
    )
    id_ = replace(NODES.id or Id(rule=IdRule.HASH), column="node_id")

    def book(vector: VectorProjection, stats: Stats) -> SchemaMap:
        tables = (replace(NODES, id=id_, vector=vector), replace(SOURCES, stats=stats), PAGES)
        return SchemaMap(name="book", tables=tables)

    async def all_points(schema_map: SchemaMap) -> None:
        context = site.context()
        found = await verify(
            schema_map,
            write=context.write,
            target=context.target,
            vectors=context.vectors,
            embedding=context.embedding.name,
        )
        assert [relation.name for relation in found.relations if relation.damaged or relation.problem] == []

    before = book(point, counts)
    result = await cycle(site, SyncEngine(before), NODE_ROWS)
    assert result.vectors.upserted == 3
    await all_points(before)
    texts = Stat(column="texts", counted="pages", by=("source_id",), value="count(c.text)")
    after = book(replace(point, text="upper(t.title)"), replace(counts, columns=(*counts.columns, texts)))
    result = await cycle(site, SyncEngine(after))
    assert result.vectors.upserted == 3
    assert await read(site, "SELECT of, pages, texts FROM source_stats ORDER BY 1") == [(2, 1, 1), (3, 1, 1)]
    await all_points(after)
    await cycle(site, SyncEngine(after), f"UPDATE w_nodes SET node_uuid = '{uuid(9)}' WHERE key = 'a'")
    await all_points(after)


async def test_map_check_says_why_a_target_cannot_assign_ids(site: TestGraph) -> None:
    await on_target(
        site,
        "ALTER TABLE sources DROP CONSTRAINT sources_uri_key; ALTER TABLE sources ALTER id DROP IDENTITY",
    )
    context = site.context()
    found = await check_map(BOOK, context.write, context.target)
    assert [(misfit.path, misfit.statement) for misfit in found.misfits if misfit.weight == "error"] == [
        (
            "tables.sources.id",
            'ALTER TABLE "kg"."sources" ALTER COLUMN "id" ADD GENERATED BY DEFAULT AS IDENTITY',
        ),
        ("tables.sources.id.natural", 'CREATE UNIQUE INDEX ON "kg"."sources" ("uri")'),
    ]


@pytest.mark.long(
    "test_a_row_that_readers_hold_keeps_its_id", "test_a_target_that_readers_share_keeps_what_is_theirs"
)
async def test_a_shadow_assigns_no_ids_of_its_own(site: TestGraph) -> None:
    result = await SyncEngine(BOOK).run_cycle(replace(site.context(), shadow=True))
    [error] = [table.error for table in result.tables if table.error]
    assert error is not None
    assert "assigned by its target" in error


async def test_a_graph_without_the_list_says_how_to_get_it(site: TestGraph) -> None:
    await on_target(site, "DROP TABLE sync_row")
    result = await SyncEngine(BOOK).run_cycle(site.context())
    errors = {table.table: table.error or "" for table in result.tables}
    assert all("run `syncline migrate`" in error for error in errors.values()), errors


@pytest.mark.long(
    "test_a_row_that_readers_hold_keeps_its_id", "test_a_target_that_readers_share_keeps_what_is_theirs"
)
async def test_a_shadow_is_compared_by_the_list_of_its_own_schema(site: TestGraph) -> None:
    await cycle(site, SyncEngine(BOOK), NODE_ROWS)
    own = Identity(BOOK, NODES, schema="kg")
    connection = await site.connect_target()
    try:
        await connection.execute("SET search_path = pg_catalog")
        found = await connection.fetch(
            f"SELECT {own.key_of('t.id')}, {own.parts_of('t.id')} FROM kg.nodes t ORDER BY 1"
        )
    finally:
        await connection.close()
    assert [tuple(row) for row in found] == [("a", ["a"]), ("b", ["b"]), ("c", ["c"])]


@pytest.mark.long(
    "test_a_row_that_readers_hold_keeps_its_id", "test_a_target_that_readers_share_keeps_what_is_theirs"
)
async def test_another_rule_asks_to_delete_rows_of_ours_alone(site: TestGraph) -> None:
    before = SchemaMap(
        name="book", tables=(TableMap(name="nodes", source="w_nodes", key=("key",), id=Id(rule=IdRule.HASH, beside=True), columns=(Column(name="title"),)),)
    )  # fmt: skip
    await on_target(site, f"INSERT INTO nodes VALUES ('{uuid(90)}', 'theirs', NULL, 7)")
    await cycle(site, SyncEngine(before), NODE_ROWS)
    nodes = replace(NODES, references=(), links=(), stats=None)
    after = SchemaMap(name="book", tables=(nodes,))
    result = await SyncEngine(after).run_cycle(site.context())
    [said] = [table.error for table in result.tables if table.error]
    assert said is not None
    await on_target(site, f"DELETE{said.split(' DELETE', 1)[1].rsplit(';', 1)[0]}")
    assert await read(site, "SELECT title FROM nodes") == [("theirs",)]
    await cycle(site, SyncEngine(after))
    assert await read(site, "SELECT title, id::text FROM nodes ORDER BY 1") == [
        *((key.upper(), uuid(n)) for n, key in enumerate("abc", 1)), ("theirs", uuid(90))
    ]  # fmt: skip
    # And back.
    result = await SyncEngine(before).run_cycle(site.context())
    [said] = [table.error for table in result.tables if table.error]
    assert said is not None
    await on_target(site, f"DELETE{said.split(' DELETE', 1)[1].rsplit(';', 1)[0]}")
    await cycle(site, SyncEngine(before))
    assert await read(site, "SELECT title FROM nodes ORDER BY 1") == [("A",), ("B",), ("C",), ("theirs",)]


@pytest.mark.long(
    "test_a_row_that_readers_hold_keeps_its_id", "test_a_target_that_readers_share_keeps_what_is_theirs"
)
async def test_a_filled_target_of_listed_rows_is_taken_over(site: TestGraph) -> None:
    extra = TableMap(name="more", source="w_more", key=("key",), into="nodes", columns=(Column(name="note"),))
    whole = SchemaMap(name="book", tables=(*BOOK.tables, extra))
    connection = await site.connect_write()
    await connection.execute("SET search_path = kg; CREATE TABLE w_more (key text PRIMARY KEY, note text)")
    await connection.close()
    await on_target(site, "ALTER TABLE nodes ADD note text")
    await adopt(site.write, "kg", whole)
    await write(site, NODE_ROWS + "INSERT INTO w_more VALUES ('a', 'of a'), ('b', 'of b')")
    await on_target(
        site,
        f"INSERT INTO nodes (id, title, note) VALUES ('{uuid(1)}', 'A', 'of a'), ('{uuid(2)}', 'old', NULL), ('{uuid(90)}', 'theirs', 'x');"
        "INSERT INTO sources (uri, title) VALUES ('http://s', 'S'), ('http://x', 'theirs');"
        f"INSERT INTO pages VALUES ('{uuid(1)}', 1, 'one', 1), ('{uuid(90)}', 1, 'theirs', 2)",
    )
    context = site.context()
    found = await take_over(
        whole, graph="kg", write=context.write, target=context.target, vectors=None, embedding="none", keys=5
    )
    assert found.strange == ()
    assert found.refusals == ()
    assert [each.problem for each in found.found.relations if each.problem] == []
    await cycle(site, SyncEngine(whole))
    assert await read(site, "SELECT title, note FROM nodes ORDER BY id") == [
        ("A", "of a"), ("B", "of b"), ("C", None), ("theirs", "x")
    ]  # fmt: skip
    assert await read(site, "SELECT text, source_id FROM pages ORDER BY text") == [
        ("one", 1), ("theirs", 2), ("two", 3)
    ]  # fmt: skip
    context = site.context()
    verified = await verify(
        whole, write=context.write, target=context.target, vectors=None, embedding="none", keys=5
    )
    assert [each for each in verified.relations if each.damaged or each.problem] == []


async def test_a_row_is_known_by_whom_it_refers_to(site: TestGraph) -> None:
    """The natural key is a reference to a row whose id is looked up, too."""
    reports = TableMap(
        name="reports",
        source="w_reports",
        key=("node",),
        id=Id(rule=IdRule.ASSIGNED, type="bigint", natural=("node_id",), beside=True),
        columns=(Column(name="text"),),
        references=(Reference(column="node", parent="nodes", target="node_id"),),
    )
    book = SchemaMap(name="book", tables=(*BOOK.tables, reports))
    await on_target(
        site,
        "CREATE TABLE reports (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " node_id uuid NOT NULL UNIQUE REFERENCES nodes, text text);"
        f"INSERT INTO nodes VALUES ('{uuid(1)}', 'one');"
        f"INSERT INTO reports (id, node_id, text) OVERRIDING SYSTEM VALUE VALUES (77, '{uuid(1)}', 'old')",
    )
    await write(site, "CREATE TABLE kg.w_reports (node text PRIMARY KEY, text text)")
    await adopt(site.write, "kg", book)
    await write(
        site,
        f"INSERT INTO w_nodes VALUES ('a', '{uuid(1)}', 'one'); INSERT INTO w_reports VALUES ('a', 'new')",
    )
    await cycle(site, SyncEngine(book))
    assert await read(site, "SELECT * FROM reports") == [(77, UUID(uuid(1)), "new")]
    assert await read(site, "SELECT key FROM sync_dead_letter") == []


async def test_new_rows_have_the_id_of_an_expression_and_others_keep_theirs(site: TestGraph) -> None:
    edges = TableMap(
        name="edges",
        source="w_edges",
        key=("key",),
        id=Id(
            rule=IdRule.EXPRESSION, type="uuid", natural=("a", "b"), expression="md5($1)::uuid", beside=True
        ),
        columns=(Column(name="a"), Column(name="b"), Column(name="kind")),
    )
    graph_map = SchemaMap(name="edges", tables=(edges,))
    await on_target(
        site,
        "CREATE TABLE edges (id uuid PRIMARY KEY, a text, b text, kind text, UNIQUE (a, b));"
        f"INSERT INTO edges VALUES ('{uuid(1)}', 'x', 'y', 'old'), (md5('p|q')::uuid, 'p', 'q', 'old'),"
        f" ('{uuid(2)}', 'v', 'w', 'new')",
    )
    await write(
        site,
        "CREATE TABLE w_edges (key text PRIMARY KEY, a text, b text, kind text);"
        "INSERT INTO w_edges SELECT a || '|' || b, a, b, 'new' FROM (VALUES ('x', 'y'), ('p', 'q'), ('m', 'n'), ('v', 'w')) e (a, b)",
    )
    await adopt(site.write, "kg", graph_map)
    context = site.context()
    assert (await check_map(graph_map, context.write, context.target)).misfits == ()
    bad = replace(edges, id=replace(edges.id, expression="nowhere($1)"))
    found = await check_map(SchemaMap(name="edges", tables=(bad,)), context.write, context.target)
    assert [one.path for one in found.misfits] == ["tables.edges.id.expression"]
    made = "SELECT id, kind FROM edges WHERE a <> 'v' ORDER BY a"
    equal = f"SELECT xmin::text, kind FROM edges WHERE id = '{uuid(2)}'"
    before = await read(site, equal)
    await cycle(site, SyncEngine(graph_map))
    ids = [
        UUID(uuid(1)) if key == "x|y" else UUID(md5(key.encode()).hexdigest())
        for key in ("m|n", "p|q", "x|y")
    ]
    assert await read(site, made) == [(id_, "new") for id_ in ids]
    assert await read(site, equal) == before  # not written
    await cycle(site, SyncEngine(graph_map), "UPDATE w_edges SET kind = 'newer', b = 'z' WHERE a = 'x'")
    await cycle(site, SyncEngine(graph_map), "DELETE FROM w_edges WHERE a = 'p'")
    assert await read(site, made) == [(ids[0], "new"), (ids[2], "newer")]


async def test_a_row_whose_key_names_a_row_of_others_is_theirs(site: TestGraph) -> None:
    pages = "SELECT text FROM pages ORDER BY 1"
    await on_target(
        site,
        f"INSERT INTO nodes VALUES ('{uuid(90)}', 'theirs'); INSERT INTO sources (uri) VALUES ('http://x');"
        f"INSERT INTO pages SELECT '{uuid(90)}', 1, 'theirs', id FROM sources",
    )
    context = site.context()
    found = await take_over(
        BOOK, graph="kg", write=context.write, target=context.target, vectors=None, embedding="none", keys=5
    )
    assert (found.strange, found.extra_rows) == ((), 0)
    await cycle(site, SyncEngine(BOOK), NODE_ROWS)
    await compared(site)
    assert await read(site, pages) == [("one",), ("theirs",), ("two",)]


async def test_rows_that_name_a_row_that_is_taken_over_are_taken_over_too(site: TestGraph) -> None:
    facts = TableMap(name="facts", source="w_facts", stamped=False, id=Id(rule=IdRule.SAME))
    rejected = TableMap(
        name="rejected",
        source="w_rejected",
        key=("node", "fact"),
        stamped=False,
        references=(Reference(column="node", parent="nodes"), Reference(column="fact", parent="facts")),
    )
    nodes = replace(NODES, stats=None)
    book = SchemaMap(name="book", tables=(facts, nodes, rejected))
    await on_target(
        site,
        "CREATE TABLE facts (id text PRIMARY KEY); INSERT INTO facts VALUES ('f');"
        "CREATE TABLE rejected (node uuid REFERENCES nodes, fact text REFERENCES facts, PRIMARY KEY (node, fact));"
        f"INSERT INTO nodes VALUES ('{uuid(1)}', 'a'); INSERT INTO rejected VALUES ('{uuid(1)}', 'f');",
    )
    await write(
        site,
        "CREATE TABLE w_facts (id text PRIMARY KEY); CREATE TABLE w_rejected (node text, fact text, PRIMARY KEY (node, fact))",
    )
    await adopt(site.write, "kg", book)
    await write(
        site,
        f"INSERT INTO w_facts VALUES ('f'); INSERT INTO w_nodes VALUES ('a', '{uuid(1)}', 'a');"
        "INSERT INTO w_rejected VALUES ('a', 'f')",
    )
    await cycle(site, SyncEngine(book))
    assert await read(site, "SELECT key, sqlstate, message FROM sync_dead_letter") == []


@pytest.mark.long(
    "test_a_row_that_readers_hold_keeps_its_id", "test_a_target_that_readers_share_keeps_what_is_theirs"
)
async def test_a_row_that_is_not_listed_yet_leaves_with_what_hangs_on_it(site: TestGraph) -> None:
    """A map has begun to list rows, and the first row is to leave before it has been read again."""
    tables = (
        TableMap(name="sources", source="w_sources", key=("key",), id=Id(rule=IdRule.SAME, type="text"), stamped=False),
        replace(NODES, id=Id(rule=IdRule.HASH), links=(), stats=None, stamped=False, references=(Reference(column="parent", parent="sources", target="origin"),)),
        replace(PAGES, references=(PAGES.references[0],)),
    )  # fmt: skip
    await on_target(
        site,
        "DROP TABLE pages, cites, sources, node_stats, related; CREATE TABLE sources (id text PRIMARY KEY);"
        "ALTER TABLE nodes ADD key text, ADD origin text REFERENCES sources;"
        "CREATE TABLE pages (node uuid REFERENCES nodes, number int, text text, PRIMARY KEY (node, number))",
    )
    before = SchemaMap(name="book", tables=tables)
    await cycle(site, SyncEngine(before), NODE_ROWS + "UPDATE w_nodes SET parent = 's'")
    beside = replace(tables[1], id=Id(rule=IdRule.HASH, beside=True))
    await cycle(
        site,
        SyncEngine(SchemaMap(name="book", tables=(tables[0], beside, tables[2]))),
        "UPDATE w_nodes SET parent = 'none' WHERE key = 'b'",
    )
    assert await read(site, "SELECT table_name, message FROM sync_dead_letter") == []
    assert await read(site, "SELECT title FROM nodes ORDER BY 1") == [("A",), ("C",)]
    assert await read(site, "SELECT text FROM pages") == [("one",)]
    # And back, without the list: the keys are in the target again before a row has been read.
    await cycle(site, SyncEngine(before), "UPDATE w_nodes SET parent = 'none' WHERE key = 'a'")
    assert await read(site, "SELECT table_name, message FROM sync_dead_letter") == []
    assert await read(site, "SELECT title, key FROM nodes ORDER BY 1") == [("C", "c")]
    assert await read(site, "SELECT text FROM pages") == []
