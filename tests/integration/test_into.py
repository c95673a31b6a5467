"""Several sources of one row: each writes its columns, waits for the row, and leaves it as it would be without it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.engine import SchemaMap, SyncEngine
from syncline.operator.explain import explain
from syncline.operator.target_tables import target_tables
from syncline.shadow.comparison import _relations
from syncline.testing.graphs import on_target, write
from tests.integration.test_shapes import Site, made
from tests.kit.bare_graph import bare_graph

MAP = """
  groups:
    source: team
    stats:
      columns: {best: {counted: nodes, by: group_id, value: max(c.score)}}
  nodes:
    source: node
    columns: [title]
    references: {team: {parent: groups, target: group_id}}
    vector: {collection: nodes, text: t.title, payload: {score: t.score, note: t.note}}
  scores:
    source: score
    into: nodes
    key: node
    columns:
      score: double precision
      level: {type: integer, value: round(s.score)}
      kind: {type: text, value: "'scored'"}
    otherwise: {level: "-1", kind: "'plain'"}
  notes:
    source: note
    into: nodes
    key: node_id
    present: NOT hidden
    columns: {note: {source: body}, meta: jsonb}
"""
SOURCE = """
CREATE TABLE team (id text PRIMARY KEY);
CREATE TABLE node (id text PRIMARY KEY, title text, team text);
CREATE TABLE score (node text PRIMARY KEY, score double precision);
CREATE TABLE note (node_id text PRIMARY KEY, body text, meta jsonb, hidden boolean DEFAULT false);
INSERT INTO team VALUES ('t');
"""
TARGET = """
CREATE TABLE groups (id uuid PRIMARY KEY, key text, best double precision, sync_version bigint, sync_run bigint);
CREATE TABLE nodes (
    id uuid PRIMARY KEY, key text, title text, group_id uuid, score double precision, level integer NOT NULL,
    kind varchar(9) NOT NULL DEFAULT 'nothing', note text CHECK (note <> 'bad') DEFAULT 'd', meta jsonb, reads integer DEFAULT 0,
    sync_version bigint, sync_run bigint
);
"""
ROWS = "SELECT key, title, score, level, kind, note FROM kg.nodes ORDER BY key"
Row = tuple[object, ...]


@pytest_asyncio.fixture(loop_scope="session")
async def site(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Site]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield await made(graph, MAP, source=SOURCE, target=TARGET)


async def rows(site: Site) -> list[Row]:
    return [tuple(row.values()) for row in await site.rows(ROWS)]


async def best(site: Site) -> object:
    [row] = await site.rows("SELECT best FROM kg.groups")
    return row["best"]


async def test_each_source_writes_its_columns_and_waits_for_the_row(site: Site) -> None:
    assert await site.misfits() == {}
    await write(
        site.graph, "INSERT INTO kg.score VALUES ('a', 1.6); INSERT INTO kg.note VALUES ('a', 'of a', '{}')"
    )
    assert (await site.cycle()).parked == 2
    await site.equal()
    await write(site.graph, "INSERT INTO kg.node VALUES ('a', 'A', 't'), ('b', 'B', 't')")
    assert (await site.cycle()).parked == 0
    assert await rows(site) == [("a", "A", 1.6, 2, "scored", "of a"), ("b", "B", None, -1, "plain", None)]
    assert await best(site) == 1.6
    await site.equal()

    # Each changes, and nobody else's column is written.
    await on_target(site.graph, "UPDATE kg.nodes SET reads = 3")
    await write(
        site.graph,
        "UPDATE kg.score SET score = 4.2; UPDATE kg.node SET title = 'AA' WHERE id = 'a';"
        "INSERT INTO kg.note VALUES ('b', 'of b', '{}')",
    )
    result = await site.cycle()
    assert result.vectors.upserted == 2
    assert await rows(site) == [("a", "AA", 4.2, 4, "scored", "of a"), ("b", "B", None, -1, "plain", "of b")]
    assert await best(site) == 4.2
    await site.equal()

    # A source row leaves: by a delete, by its condition. The target row stays.
    await write(site.graph, "DELETE FROM kg.score; UPDATE kg.note SET hidden = true WHERE node_id = 'b'")
    await site.cycle()
    assert await rows(site) == [("a", "AA", None, -1, "plain", "of a"), ("b", "B", None, -1, "plain", None)]
    assert await best(site) is None
    await site.equal()
    assert await site.rows("SELECT DISTINCT reads FROM kg.nodes") == [{"reads": 3}]

    # The row leaves: what is written into it waits again, and returns with it.
    await write(site.graph, "DELETE FROM kg.node WHERE id = 'a'")
    assert (await site.cycle()).parked == 1
    await site.equal()
    await write(site.graph, "INSERT INTO kg.node VALUES ('a', 'again', 't')")
    assert (await site.cycle()).parked == 0
    assert await rows(site) == [
        ("a", "again", None, -1, "plain", "of a"),
        ("b", "B", None, -1, "plain", None),
    ]
    await site.equal()
    # A key moves from one row to another.
    await write(
        site.graph,
        "UPDATE kg.note SET hidden = true; UPDATE kg.note SET hidden = false, body = 'm' WHERE node_id = 'a'",
    )
    await write(
        site.graph,
        "DELETE FROM kg.note WHERE node_id = 'b'; UPDATE kg.note SET node_id = 'b' WHERE node_id = 'a'",
    )
    await site.cycle()
    assert [row[-1] for row in await rows(site)] == [None, "m"]
    await site.equal()


async def test_damage_is_found_in_the_table_map_whose_column_it_is_and_repaired(site: Site) -> None:
    await write(
        site.graph,
        "INSERT INTO kg.node SELECT chr(96 + n), 'n', 't' FROM generate_series(1, 4) n;"
        "INSERT INTO kg.score VALUES ('a', 1), ('b', 2); INSERT INTO kg.note VALUES ('a', NULL, NULL)",
    )
    await site.cycle()
    await site.equal()
    before = await rows(site)
    await on_target(
        site.graph,
        "UPDATE kg.nodes SET level = 9 WHERE key = 'a'; UPDATE kg.nodes SET score = NULL, level = -1, kind = 'plain' WHERE key = 'b';"
        "UPDATE kg.nodes SET kind = 'x' WHERE key = 'c'; UPDATE kg.nodes SET note = 'x' WHERE key = 'd'",
    )
    found = await site.verified(repair=True)
    told = {
        each.name: (each.stale.keys, each.missing.keys, each.extra.keys)
        for each in found.relations
        if each.damaged
    }
    told.pop("groups", None)
    told.pop("nodes", None)
    assert told == {
        "scores": ((("a",),), (("b",),), (("c",),)),
        "notes": ((), (), (("d",),)),
    }
    await site.cycle()
    await site.equal()
    assert await rows(site) == before


async def test_a_refused_value_is_a_dead_letter_and_explained(site: Site) -> None:
    graph = site.graph
    await write(graph, "INSERT INTO kg.node VALUES ('a', 'A', 't'), ('b', 'B', 't')")
    await write(graph, "INSERT INTO kg.note VALUES ('a', 'bad'), ('b', 'good')")
    await site.cycle()
    assert [row[-1] for row in await rows(site)] == [None, "good"]
    context = graph.context()

    async def state(table: str, key: str) -> str:
        row = await explain(context.write, context.target, context.vectors, site.map, table=table, key=[key])
        return row.state.value

    assert [await state("notes", key) for key in "abc"] == ["retrying", "in_step", "unknown_key"]
    await write(
        graph, "UPDATE kg.note SET body = 'better' WHERE node_id = 'a'; INSERT INTO kg.score VALUES ('c', 1)"
    )
    await site.cycle()
    assert [await state("notes", key) for key in "abc"] == ["in_step", "in_step", "unknown_key"]
    assert [await state("scores", key) for key in "abc"] == ["unknown_key", "unknown_key", "parked"]
    await site.equal()


@pytest.mark.long("test_each_source_writes_its_columns_and_waits_for_the_row")
async def test_a_source_that_comes_into_the_map_fills_rows_that_stand_there(site: Site) -> None:
    whole = site.map
    await write(
        site.graph,
        "INSERT INTO kg.node VALUES ('a', 'A', 't'), ('b', 'B', 't'); INSERT INTO kg.score VALUES ('b', 2)",
    )
    await on_target(site.graph, "ALTER TABLE kg.nodes ALTER level DROP NOT NULL")
    site.map = type(whole)(
        name="shapes", tables=tuple(table for table in whole if table.name in ("groups", "nodes", "notes"))
    )
    await SyncEngine(site.map).run_cycle(site.graph.context())
    assert [row[3:5] for row in await rows(site)] == [(None, "nothing"), (None, "nothing")]
    site.map = whole
    await site.cycle()
    await site.cycle()
    assert [row[2:5] for row in await rows(site)] == [(None, -1, "plain"), (2, 2, "scored")]
    await site.equal()
    scores = replace(whole["scores"], otherwise={"level": "0", "kind": "'none'"})
    tables = (scores if table.name == "scores" else table for table in whole)
    site.map = SchemaMap(name="shapes", tables=tuple(tables))
    await site.cycle()
    await site.cycle()
    assert [row[2:5] for row in await rows(site)] == [(None, 0, "none"), (2, 2, "scored")]
    await site.equal()


async def test_what_does_not_fit_is_told_and_target_tables_are_made_with_all_columns(site: Site) -> None:
    ddl = target_tables(site.map, "kg", types={("groups", "best"): "double precision"})
    assert list(ddl) == ["groups", "nodes"]
    await on_target(site.graph, f"DROP TABLE kg.nodes, kg.groups; {ddl['groups']} {ddl['nodes']}")
    assert await site.misfits() == {}
    await on_target(
        site.graph, "ALTER TABLE kg.nodes ALTER note SET NOT NULL, ALTER meta TYPE text, DROP level"
    )
    told = await site.misfits()
    assert "writes NULL for rows without a source row" in told["tables.notes.columns.note"]
    assert "kg.nodes.meta is text, and notes wants jsonb" in told["tables.notes.columns.meta"]
    assert (
        "Column kg.nodes.level is missing; scores wants it as integer" in told["tables.scores.columns.level"]
    )


@pytest.mark.long("test_each_source_writes_its_columns_and_waits_for_the_row")
async def test_sources_of_one_row_pass_unique_values_to_each_other(site: Site) -> None:
    await on_target(site.graph, "ALTER TABLE kg.nodes ADD UNIQUE (note)")
    await write(site.graph, "INSERT INTO kg.node VALUES ('a', 'A', 't'), ('b', 'B', 't'), ('c', 'C', 't')")
    await write(site.graph, "INSERT INTO kg.note VALUES ('a', 'x'), ('b', 'y'), ('c', 'z')")
    await site.cycle()
    await write(
        site.graph, "UPDATE kg.note SET body = CASE body WHEN 'x' THEN 'y' WHEN 'y' THEN 'z' ELSE 'x' END"
    )
    await site.cycle()
    assert [row[-1] for row in await rows(site)] == ["y", "z", "x"]
    await site.equal()


NUMBERED = """
  nodes:
    source: node
    types: {id: bigint}
    id: {rule: same, column: nr}
    columns: [title]
  extras:
    source: extra
    key: node_id
    types: {node_id: bigint}
    into: nodes
    columns: {price: numeric}
"""


@pytest.mark.long("test_each_source_writes_its_columns_and_waits_for_the_row")
async def test_keys_of_another_type_name_the_row_too(
    new_database: Callable[..., str], tmp_path: Path
) -> None:
    async with bare_graph(new_database, tmp_path) as graph:
        numbered = await made(
            graph,
            NUMBERED,
            source="CREATE TABLE node (id bigint PRIMARY KEY, title text);"
            "CREATE TABLE extra (node_id bigint PRIMARY KEY, price numeric);",
            target="CREATE TABLE nodes (nr bigint PRIMARY KEY, title text, price numeric,"
            " sync_version bigint, sync_run bigint);",
        )
        await write(graph, "INSERT INTO kg.extra VALUES (1, 1.50), (2, 2)")
        await write(graph, "INSERT INTO kg.node VALUES (1, 'a'), (3, 'c')")
        assert (await numbered.cycle()).parked == 1
        await numbered.equal()
        await on_target(graph, "UPDATE kg.nodes SET price = 9")
        found = await numbered.verified(repair=True)
        damaged = [each for each in found.relations if each.damaged]
        assert [(each.name, each.stale.keys, each.extra.keys) for each in damaged] == [
            ("extras", (("1",),), (("3",),))
        ]
        await numbered.cycle()
        await numbered.equal()
        await write(graph, "INSERT INTO kg.node VALUES (2, 'b'); DELETE FROM kg.node WHERE id = 1")
        assert (await numbered.cycle()).parked == 1
        await numbered.equal()
        left = await numbered.rows("SELECT nr, price::text FROM kg.nodes ORDER BY nr")
        assert [tuple(row.values()) for row in left] == [(2, "2"), (3, None)]


async def test_a_shadow_is_compared_in_the_tables_that_there_are(site: Site) -> None:
    found = [(each.name, each.kind.value) for table in site.map for each in _relations(table)]
    assert found == [("groups", "rows"), ("nodes", "rows")]
