"""Ids of rows that stand in a target already: found by a natural key, kept whatever the rule makes of the key."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import Column, Links, Reference, SchemaMap, SyncEngine, TableMap, VectorProjection
from syncline.maps.ids import Id, IdRule
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.migrations import migrate_bookkeeping
from syncline.operator.explain import explain
from syncline.operator.map_check import check_map
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by

SPACE = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"
NATURAL = ("source_id", "target_id", "type")
RULES = {
    "uuid5": Id(rule=IdRule.UUID5, namespace=SPACE, natural=NATURAL, beside=True),
    "hash": Id(rule=IdRule.HASH, natural=NATURAL, beside=True),
    "expression": Id(
        rule=IdRule.EXPRESSION, expression="md5($1)::uuid", type="uuid", natural=NATURAL, beside=True
    ),
    "column": Id(rule=IdRule.COLUMN, source="u", type="uuid", natural=NATURAL, beside=True),
}
MADE = {
    "uuid5": f"syncline.uuid5('{SPACE}', '%s')",
    "hash": "syncline.key_uuid('%s')",
    "expression": "md5('%s')::uuid",
    "column": "md5('%s')::uuid",
}
SOURCE = """
CREATE TABLE w_nodes (key text PRIMARY KEY, title text);
CREATE TABLE w_edges (key text PRIMARY KEY, u uuid, s text, t text, type text, weight int, seen text[]);
CREATE TABLE w_notes (key text PRIMARY KEY, edge text, text text);
INSERT INTO w_nodes VALUES ('a'), ('b'), ('c');
INSERT INTO w_edges (key, s, t, type, weight, seen) VALUES
    ('ab', 'a', 'b', 'is', 1, '{c}'), ('bc', 'b', 'c', 'is', 2, '{bc}'), ('ca', 'c', 'a', 'has', 3, '{ab}'), ('ad', 'a', 'd', 'is', 4, '{}');
UPDATE w_edges SET u = md5(key)::uuid, seen = CASE WHEN key = 'ab' THEN '{ca}' ELSE seen END;
INSERT INTO w_notes VALUES ('n1', 'ab', 'one'), ('n2', 'ca', 'two'), ('n3', 'ad', 'waits');
"""
TARGET = """
CREATE TABLE nodes (id uuid PRIMARY KEY, title text);
CREATE TABLE edges (
    id uuid PRIMARY KEY, source_id uuid NOT NULL REFERENCES nodes, target_id uuid NOT NULL REFERENCES nodes, type text, weight int,
    views int NOT NULL DEFAULT 0, UNIQUE (source_id, target_id, type)
);
CREATE TABLE seen (edge uuid REFERENCES edges, other uuid REFERENCES edges, PRIMARY KEY (edge, other));
CREATE TABLE notes (id uuid PRIMARY KEY, edge_id uuid NOT NULL REFERENCES edges, text text);
INSERT INTO nodes SELECT syncline.key_uuid(k), 'old' FROM unnest('{a,b,c}'::text[]) k;
INSERT INTO edges (id, source_id, target_id, type, weight, views) VALUES
    ('00000001-0000-4000-8000-000000000000', syncline.key_uuid('a'), syncline.key_uuid('b'), 'is', 7, 5),
    ('00000002-0000-4000-8000-000000000000', syncline.key_uuid('b'), syncline.key_uuid('c'), 'was', 8, 6);
"""
EDGES = "SELECT left(e.id::text, 8), e.type, e.weight, e.views, e.id = (CASE e.weight {cases} END) FROM edges e ORDER BY e.weight"
HELD, THEIRS = "00000001", "00000002"


def shape(id_: Id) -> SchemaMap:
    nodes = TableMap(
        name="nodes",
        source="w_nodes",
        key=("key",),
        id=Id(rule=IdRule.HASH, beside=True),
        columns=(Column(name="title"),),
    )
    edges = TableMap(
        name="edges",
        source="w_edges",
        key=("key",),
        id=id_,
        columns=(Column(name="type"), Column(name="weight", type="integer")),
        references=(
            Reference(column="s", parent="nodes", target="source_id"),
            Reference(column="t", parent="nodes", target="target_id"),
        ),
        links=(Links(table="seen", source="seen", owner="edge", member="other", parent="edges"),),
        vector=VectorProjection(collection="edges", text="t.type", payload={}),
    )
    notes = TableMap(
        name="notes",
        source="w_notes",
        key=("key",),
        id=Id(rule=IdRule.HASH, beside=True),
        columns=(Column(name="text"),),
        references=(Reference(column="edge", parent="edges", target="edge_id"),),
    )
    return SchemaMap(name="edges", tables=(nodes, edges, notes))


@pytest_asyncio.fixture(loop_scope="session")
async def site(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        await made_by(graph, write=SOURCE, target=TARGET)
        await adopt(graph.write, "kg", shape(RULES["uuid5"]))
        yield graph


async def edges(graph: TestGraph, rule: str) -> list[tuple[object, ...]]:
    """Each edge: key, by its rule's id or the one that was held; type, weight, views."""
    made = " ".join(f"WHEN {MADE[rule] % key} THEN '{key}'" for key in ("ab", "bc", "ca", "ad", "xx"))
    return await read(
        graph,
        f"SELECT CASE id {made} ELSE left(id::text, 8) END, type, weight, views FROM edges ORDER BY 1, 2",
    )


async def cycle(
    graph: TestGraph, schema_map: SchemaMap, script: str = "", *, failures: int = 0
) -> SyncResult:
    if script:
        await write(graph, script)
    result = await SyncEngine(schema_map).run_cycle(graph.context())
    assert [table.error for table in result.tables if table.error] == []
    assert result.status is CycleStatus.DRAINED
    assert result.failures == failures
    return result


async def equal(graph: TestGraph, schema_map: SchemaMap) -> None:
    context = graph.context()
    found = await verify(
        schema_map,
        write=context.write,
        target=context.target,
        vectors=context.vectors,
        embedding=context.embedding.name,
    )
    assert [one for one in found.relations if one.damaged or one.problem] == []


async def test_many_rows_find_their_ids_and_those_of_their_parents_at_once(
    site: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch of which nothing is listed, and of one with listed rows, rows that stand there, and new ones."""
    monkeypatch.setattr("syncline.engine.merge._ANALYZE_FROM", 1)
    book = shape(RULES["uuid5"])
    nodes, edges_, notes = book
    noted = replace(notes, id=Id(rule=IdRule.UUID5, namespace=SPACE, natural=("edge_id",), beside=True))
    book = replace(book, tables=(nodes, edges_, noted))
    stands = "INSERT INTO notes SELECT '{note}-0000-4000-8000-000000000000', id, 'theirs' FROM edges WHERE weight = {weight}"
    found = f"""SELECT n.text, coalesce((
        SELECT 'made' FROM unnest('{{n1,n2,n3,n4}}'::text[]) k WHERE n.id = syncline.uuid5('{SPACE}'::uuid, k)
    ), left(n.id::text, 8)), e.weight FROM notes n JOIN edges e ON e.id = n.edge_id ORDER BY 1"""
    await on_target(
        site, "CREATE UNIQUE INDEX ON notes (edge_id); " + stands.format(note="00000009", weight=7)
    )
    await cycle(site, book)
    assert await read(site, found) == [("one", "00000009", 1), ("two", "made", 3)]
    await on_target(site, stands.format(note="0000000a", weight=2))
    await cycle(
        site,
        book,
        "UPDATE w_notes SET text = 'one again' WHERE key = 'n1'; INSERT INTO w_nodes VALUES ('d');"
        "INSERT INTO w_notes VALUES ('n4', 'bc', 'four'), ('n5', 'nowhere', 'waits')",
    )
    assert await read(site, found) == [
        ("four", "0000000a", 2), ("one again", "00000009", 1), ("two", "made", 3), ("waits", "made", 4),
    ]  # fmt: skip
    await equal(site, book)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("rule", RULES)
async def test_a_row_that_stands_there_keeps_its_id_whatever_the_rule(site: TestGraph, rule: str) -> None:
    book = shape(RULES[rule])
    context = site.context()
    assert [
        one for one in (await check_map(book, context.write, context.target)).misfits if one.weight == "error"
    ] == []
    await cycle(site, book)
    assert await edges(site, rule) == [
        (HELD, "is", 1, 5),
        (THEIRS, "was", 8, 6),
        ("bc", "is", 2, 0),
        ("ca", "has", 3, 0),
    ]
    assert await read(site, "SELECT left(edge_id::text, 8) = '00000001' FROM notes ORDER BY text") == [
        (True,),
        (False,),
    ]
    assert await read(
        site, "SELECT count(*) FROM seen WHERE left(edge::text, 8) <> left(other::text, 8)"
    ) == [(2,)]
    await equal(site, book)

    # What was kept stays, whatever changes; a parent arrives; a row takes what readers made meanwhile.
    await on_target(
        site,
        "INSERT INTO nodes VALUES (syncline.key_uuid('d'));"
        "INSERT INTO edges (id, source_id, target_id, type) VALUES"
        " ('00000003-0000-4000-8000-000000000000', syncline.key_uuid('a'), syncline.key_uuid('d'), 'is')",
    )
    await cycle(
        site,
        book,
        "UPDATE w_edges SET type = 'was', weight = weight + 10 WHERE key IN ('ab', 'ca'); INSERT INTO w_nodes VALUES ('d')",
    )
    kept = [
        (HELD, "was", 11, 5),
        (THEIRS, "was", 8, 6),
        ("00000003", "is", 4, 0),
        ("bc", "is", 2, 0),
        ("ca", "was", 13, 0),
    ]
    assert await edges(site, rule) == kept
    assert await read(site, "SELECT count(*) FROM notes") == [(3,)]
    await equal(site, book)
    row = await explain(context.write, context.target, context.vectors, book, table="edges", key=["ab"])
    assert str(row.graph.id).startswith(HELD)

    # All rows are read once more, and found by the list.
    await on_target(
        site,
        "INSERT INTO sync_requeue (table_name, row_id, key, reason) SELECT table_name, row_id, key, 'test' FROM sync_row",
    )
    await cycle(site, book)
    assert await edges(site, rule) == kept

    # What is ours leaves.
    await cycle(site, book, "DELETE FROM w_notes; DELETE FROM w_edges")
    assert await edges(site, rule) == [(THEIRS, "was", 8, 6)]
    await equal(site, book)


async def test_a_row_of_another_key_is_not_taken(site: TestGraph) -> None:
    book = shape(RULES["uuid5"])
    await cycle(site, book)
    # The same values twice: the row that has them keeps them. And the id that the rule makes is another's.
    await on_target(
        site,
        f"INSERT INTO edges (id, source_id, target_id, type) VALUES"
        f" (syncline.uuid5('{SPACE}', 'xx'), syncline.key_uuid('b'), syncline.key_uuid('a'), 'is')",
    )
    await cycle(site, book, "INSERT INTO w_edges (key, s, t, type, weight) VALUES ('ba', 'b', 'a', 'is', 1)")
    await cycle(
        site,
        book,
        "INSERT INTO w_edges (key, s, t, type, weight) VALUES ('xx', 'c', 'b', 'is', 9), ('ab2', 'a', 'b', 'is', 9)",
        failures=2,
    )
    letters = await read(
        site, "SELECT key[1], sqlstate, held_by IS NOT NULL FROM sync_dead_letter ORDER BY 1"
    )
    assert letters == [("ab2", "23505", True), ("xx", "23505", True)]
    await cycle(site, book, "DELETE FROM w_notes; DELETE FROM w_edges WHERE key IN ('ab', 'ba')")
    assert await read(site, "SELECT key FROM sync_dead_letter") == []
    await equal(site, book)


@pytest.mark.long("test_a_row_that_stands_there_keeps_its_id_whatever_the_rule")
@pytest.mark.parametrize("rule", ["uuid5", "hash"])
async def test_a_map_that_begins_or_ends_to_find_rows(site: TestGraph, rule: str) -> None:
    finding = RULES[rule]
    book, plain = shape(finding), shape(replace(finding, natural=()))
    await on_target(site, "DELETE FROM edges WHERE weight = 7")
    await cycle(site, plain)
    before = await edges(site, rule)
    # It begins: rows keep their ids, and deletes of the same time are not missed.
    await cycle(site, book, "DELETE FROM w_edges WHERE key = 'bc'")
    assert await edges(site, rule) == [row for row in before if row[0] != "bc"]
    await equal(site, book)
    await cycle(site, plain, "UPDATE w_edges SET weight = 5 WHERE key = 'ab'")
    await equal(site, plain)
    # It ends with a row under another id, which it names.
    await cycle(site, book)
    await on_target(
        site,
        "INSERT INTO edges (id, source_id, target_id, type) VALUES"
        " ('00000003-0000-4000-8000-000000000000', syncline.key_uuid('c'), syncline.key_uuid('b'), 'is')",
    )
    await cycle(site, book, "INSERT INTO w_edges (key, s, t, type, weight) VALUES ('xx', 'c', 'b', 'is', 9)")
    result = await SyncEngine(plain).run_cycle(site.context())
    [error] = [table.error for table in result.tables if table.table == "edges"]
    assert error is not None
    statement = error[
        error.index('DELETE FROM "kg"."seen"') if '"kg"."seen"' in error else error.index("DELETE") :
    ]
    await on_target(site, statement[: statement.rindex(";")])
    assert (THEIRS, "was", 8, 6) in await edges(site, rule)
    await cycle(site, plain)
    assert ("xx", "is", 9, 0) in await edges(site, rule)
    await equal(site, plain)


async def test_map_check_wants_one_row_for_a_natural_key(site: TestGraph) -> None:
    await on_target(site, "ALTER TABLE edges DROP CONSTRAINT edges_source_id_target_id_type_key")
    context = site.context()
    found = await check_map(shape(RULES["uuid5"]), context.write, context.target)
    assert [(one.path, one.statement) for one in found.misfits if one.weight == "error"] == [
        (
            "tables.edges.id.natural",
            'CREATE UNIQUE INDEX ON "kg"."edges" ("source_id", "target_id", "type")',
        )
    ]


@pytest.mark.long("test_a_row_that_stands_there_keeps_its_id_whatever_the_rule")
async def test_a_shadow_keeps_no_ids(site: TestGraph) -> None:
    result = await SyncEngine(shape(RULES["uuid5"])).run_cycle(replace(site.context(), shadow=True))
    [error] = [table.error for table in result.tables if table.table == "edges"]
    assert error is not None
    assert "under which they stand" in error
