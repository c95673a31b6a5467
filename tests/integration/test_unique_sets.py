"""Unique values that rows hand on to each other: any set of rows that is valid as a set lands, in any order."""

import random
from dataclasses import dataclass, replace

import pytest

from syncline.capture.install.install import adopt
from syncline.engine import SyncEngine, run_cycle
from syncline.engine.table_map import Column, Reference, SchemaMap, TableMap
from syncline.messages.sync import CycleStatus
from syncline.provider import RetryRules
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.truth import differences
from tests.kit.cases import further

BOOKS = "key text, sync_version bigint, sync_run bigint"
LETTERS = "SELECT key[1] AS key, sqlstate, attempts, next_retry_at, held_by FROM sync_dead_letter ORDER BY 1"

NEW = "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed)"
TAKE = "UPDATE write_edges SET relationship_type = 't0' WHERE id = '{}'"


async def edges(graph: TestGraph, number: int) -> None:
    """Edges e0 … of type t0 … between two nodes, unique by both and type at the target."""
    await on_target(
        graph,
        "ALTER TABLE edges ADD CONSTRAINT one_edge UNIQUE (source_node_id, target_node_id, relationship_type)",
    )
    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f', 'F', 'ready');"
        "INSERT INTO write_nodes (id, concept) VALUES ('a', 'A'), ('b', 'B');"
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed, fact_ids)"
        f" SELECT 'e' || i, 'a', 'b', 't' || i, true, '{{f}}' FROM generate_series(0, {number - 1}) i",
    )
    result = await run_cycle(graph.context())
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, 0)


async def lands(graph: TestGraph) -> None:
    result = await run_cycle(graph.context())
    assert (result.status, result.failures, result.dead_letters) == (CycleStatus.DRAINED, 0, 0), result
    assert await differences(graph) == []


async def test_unique_swap_of_two_edges_lands(graph: TestGraph) -> None:
    await edges(graph, 2)
    await write(graph, "UPDATE write_edges SET relationship_type = CASE id WHEN 'e0' THEN 't1' ELSE 't0' END")
    await lands(graph)
    # What hangs on the rows was never away.
    assert await read(graph, "SELECT count(*) AS n FROM edge_facts") == [(2,)]


@pytest.mark.long(after=1)
@pytest.mark.parametrize("step", [1, -1, 5])
async def test_unique_shift_of_twelve_rows_lands(graph: TestGraph, step: int) -> None:
    await edges(graph, 12)
    await write(
        graph,
        "UPDATE write_edges SET relationship_type = 't' || (substr(relationship_type, 2)::int + $1)",
        step,
    )
    await lands(graph)


@pytest.mark.parametrize("length", [3, 40])
async def test_unique_ring_lands(graph: TestGraph, length: int) -> None:
    await edges(graph, length)
    await write(
        graph,
        f"UPDATE write_edges SET relationship_type = 't' || ((substr(id, 2)::int + 1) % {length})",
    )
    await lands(graph)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("batch_rows", [3, 5])
async def test_unique_ring_over_several_batches_lands_in_one_cycle(graph: TestGraph, batch_rows: int) -> None:
    await edges(graph, 12)
    await write(graph, "UPDATE write_edges SET relationship_type = 't' || ((substr(id, 2)::int + 1) % 12)")
    result = await run_cycle(graph.context(batch_rows=batch_rows))
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, 0)
    assert await differences(graph) == []


@pytest.mark.long("test_unique_ring_lands")
async def test_unique_swap_over_two_cycles_lands_with_the_second(graph: TestGraph) -> None:
    await edges(graph, 2)
    await write(graph, "UPDATE write_edges SET relationship_type = 't1' WHERE id = 'e0'")
    assert (await run_cycle(graph.context())).dead_letters == 1
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = NULL")  # it is dead already
    await write(graph, "UPDATE write_edges SET relationship_type = 't0' WHERE id = 'e1'")
    await run_cycle(graph.context())
    assert await read(graph, LETTERS) == []
    assert await differences(graph) == []


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    "freed",
    [
        "DELETE FROM write_edges WHERE id = 'e1'",
        "UPDATE write_edges SET relationship_type = 'other' WHERE id = 'e1'",
    ],
)
async def test_dead_letter_is_retried_when_the_holder_of_its_value_gives_it_up(
    graph: TestGraph, freed: str
) -> None:
    await edges(graph, 3)
    await write(graph, "UPDATE write_edges SET relationship_type = 't1' WHERE id = 'e0'")
    await run_cycle(graph.context())
    await write(graph, "UPDATE write_edges SET relationship_type = 't0' WHERE id = 'e2'")
    await run_cycle(graph.context())
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = NULL")
    assert [row["key"] for row in await read(graph, LETTERS)] == ["e0", "e2"]
    await write(graph, freed)
    await run_cycle(graph.context())
    assert await read(graph, LETTERS) == []
    assert await differences(graph) == []


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    "change",
    [
        f"DELETE FROM write_edges WHERE id = 'e0'; {NEW} VALUES ('new', 'a', 'b', 't0', true)",
        f"DELETE FROM write_edges WHERE id = 'e0'; {TAKE.format('e1')}; {NEW} VALUES ('new', 'a', 'b', 't1', true)",
        # Parked: the version that landed leaves, and its value is another's.
        f"UPDATE write_edges SET source_node_id = 'later' WHERE id = 'e0'; {TAKE.format('e1')}",
    ],
)
async def test_unique_value_of_a_row_that_leaves_is_anothers(graph: TestGraph, change: str) -> None:
    await edges(graph, 2)
    await write(graph, change)
    result = await run_cycle(graph.context())
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, 0)
    assert await differences(graph) == []


async def test_unique_sets_beside_a_poison_row_land_without_it(graph: TestGraph) -> None:
    await edges(graph, 6)
    await on_target(graph, "ALTER TABLE edges ADD CHECK (weight < 100)")
    # e0 and e1 swap; e2 -> e3 -> e4 -> free, of which e3 is refused for itself; e5 is poison of another kind.
    await write(
        graph,
        "UPDATE write_edges SET relationship_type = CASE id WHEN 'e0' THEN 't1' WHEN 'e1' THEN 't0'"
        " WHEN 'e2' THEN 't3' WHEN 'e3' THEN 't4' WHEN 'e4' THEN 'free' ELSE 't5' END,"
        " weight = CASE WHEN id IN ('e3', 'e5') THEN 100 ELSE 1 END",
    )
    result = await run_cycle(graph.context())
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, 3)
    # e2 wants what e3 keeps.
    letters = await read(graph, LETTERS)
    assert [(row["key"], row["sqlstate"]) for row in letters] == [
        ("e2", "23505"),
        ("e3", "23514"),
        ("e5", "23514"),
    ]
    assert [row["relationship_type"] for row in await read(graph, "SELECT * FROM edges ORDER BY key")] == [
        "t1", "t0", "t2", "t3", "free", "t5",
    ]  # fmt: skip
    # The one that is mended takes along whom it held up.
    await write(graph, "UPDATE write_edges SET weight = 1 WHERE id IN ('e3', 'e5')")
    await run_cycle(graph.context())
    assert await read(graph, LETTERS) == []
    assert await differences(graph) == []


@pytest.mark.long("test_unique_ring_lands")
async def test_retry_of_a_row_takes_along_those_that_it_held_up(graph: TestGraph) -> None:
    await edges(graph, 3)
    await on_target(graph, "ALTER TABLE edges ADD CONSTRAINT light CHECK (weight < 100)")
    await write(
        graph,
        "UPDATE write_edges SET relationship_type = 't' || ((substr(id, 2)::int + 1) % 3),"
        " weight = CASE WHEN id = 'e1' THEN 100 ELSE 1 END",
    )
    assert (await run_cycle(graph.context())).dead_letters == 3
    await on_target(graph, "ALTER TABLE edges DROP CONSTRAINT light")
    await on_target(
        graph, "UPDATE sync_dead_letter SET next_retry_at = CASE WHEN key[1] = 'e1' THEN now() END"
    )
    await run_cycle(graph.context())
    assert await read(graph, LETTERS) == []
    assert await differences(graph) == []


async def test_two_rows_of_one_batch_that_want_one_value_leave_one_out_and_take_nothing_back(
    graph: TestGraph,
) -> None:
    await edges(graph, 4)
    # e0 and e1 both want what e2 gives up to take what e3 had.
    await write(
        graph,
        "UPDATE write_edges SET relationship_type = CASE id WHEN 'e2' THEN 't3' WHEN 'e3' THEN 'free' ELSE 't2' END",
    )
    result = await run_cycle(graph.context())
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, 1)
    landed = {row["key"]: row["relationship_type"] for row in await read(graph, "SELECT * FROM edges")}
    assert (landed["e2"], landed["e3"]) == ("t3", "free")
    assert sorted([landed["e0"], landed["e1"]]) in (["t0", "t2"], ["t1", "t2"])


@dataclass(frozen=True)
class Shape:
    """A target with something unique, and what its source columns are for place `i` among the unique ones."""

    target: str
    columns: tuple[str, ...]
    values: str
    version: int = 0


SHAPES = {
    "text": Shape("a text NOT NULL UNIQUE, b int", ("a text", "b integer"), "'v' || i, 7"),
    "integer": Shape("a text, b int NOT NULL UNIQUE", ("a text", "b integer"), "'x', i"),
    "checked": Shape(
        "a text NOT NULL CHECK (a ~ '^v[0-9]+$') UNIQUE, b int", ("a text", "b integer"), "'v' || i, 7"
    ),
    "bounded": Shape(
        "a text, b int NOT NULL CHECK (b BETWEEN 0 AND 50) UNIQUE", ("a text", "b integer"), "'x', i"
    ),
    "two indexes": Shape(
        "a text NOT NULL UNIQUE, b int NOT NULL UNIQUE", ("a text", "b integer"), "'v' || i, 100 - i"
    ),
    "expression": Shape(
        "a text NOT NULL, b int; CREATE UNIQUE INDEX ON t (lower(a), (b % 3))",
        ("a text", "b integer"),
        "'V' || i, 3",
    ),
    "partial": Shape(
        "a text NOT NULL, b int; CREATE UNIQUE INDEX ON t (a) WHERE b > 0",
        ("a text", "b integer"),
        "'v' || i / 2, CASE WHEN i % 2 = 0 THEN 1 ELSE 0 END",
    ),
    "generated": Shape(
        "a text NOT NULL, b int, g text GENERATED ALWAYS AS (a || '!') STORED UNIQUE",
        ("a text", "b integer"),
        "'v' || i, 7",
    ),
    "exclusion": Shape(
        "a int4range NOT NULL, b int, EXCLUDE USING gist (a WITH &&)",
        ("a int4range", "b integer"),
        "int4range(i * 10, i * 10 + 10), 7",
    ),
    "nulls not distinct": Shape(
        "a text, b int, UNIQUE NULLS NOT DISTINCT (a)",
        ("a text", "b integer"),
        "CASE WHEN i > 0 THEN 'v' || i END, 7",
        version=15,
    ),
    "deferrable": Shape(
        "a text NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED, b int", ("a text", "b integer"), "'v' || i, 7"
    ),
    "uuid": Shape("a uuid NOT NULL UNIQUE, b int", ("a uuid", "b integer"), "md5(i::text)::uuid, 7"),
    "time": Shape(
        "a timestamptz NOT NULL UNIQUE, b int",
        ("a timestamptz", "b integer"),
        "timestamptz '2026-01-01Z' + i * interval '1 day', 7",
    ),
    "enumeration": Shape(
        "a mood NOT NULL UNIQUE, b int",
        ("a text", "b integer"),
        "('{a,b,c,d,e,f,g,h,i,j,k,l}'::text[])[i + 1], 7",
    ),
    "referred to": Shape(
        "a text NOT NULL UNIQUE, b int; CREATE TABLE theirs (a text REFERENCES t (a) ON UPDATE NO ACTION)",
        ("a text", "b integer"),
        "'v' || i, 7",
    ),
}
QUICK = ("text", "expression", "partial", "exclusion", "deferrable", "referred to")
"""One of each kind: what they are made of is all that the others differ by."""
ROWS = 12


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("name", "children"),
    [
        *((name, False) for name in QUICK),
        ("text", True),
        *further(
            *((name, False) for name in SHAPES if name not in QUICK), ("checked", True), ("enumeration", True)
        ),
    ],
)
async def test_random_permutations_land_whatever_is_unique(
    graph: TestGraph, name: str, children: bool
) -> None:
    shape = SHAPES[name]
    [version] = (await read(graph, "SELECT current_setting('server_version_num')::int / 10000"))[0]
    if version < shape.version:
        return
    first, *more = shape.target.split(";")
    await on_target(graph, "CREATE TYPE mood AS ENUM ('a','b','c','d','e','f','g','h','i','j','k','l')")
    await on_target(
        graph, f"CREATE TABLE t (id uuid PRIMARY KEY, {BOOKS}, mine text DEFAULT 'kept', {first})"
    )
    for statement in more:
        await on_target(graph, statement)
    if children:
        await on_target(
            graph,
            "CREATE TABLE cascading (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, t uuid NOT NULL REFERENCES t ON DELETE CASCADE);"
            "CREATE TABLE grandchild (c int NOT NULL REFERENCES cascading ON DELETE CASCADE);"
            "CREATE TABLE nulling (id int PRIMARY KEY, t uuid REFERENCES t ON DELETE SET NULL)",
        )
    types = [column.partition(" ") for column in shape.columns]
    await write(graph, "CREATE TYPE mood AS ENUM ('a')")
    await write(graph, f"CREATE TABLE w (id text PRIMARY KEY, {', '.join(shape.columns)})")
    expressions = {"a": "s.a::mood"} if name == "enumeration" else {}
    schema_map = SchemaMap(
        name="one",
        tables=(
            TableMap(
                name="t",
                source="w",
                columns=tuple(Column(name=column, type=type_) for column, _, type_ in types),
                expressions=expressions,
            ),
        ),
    )
    await adopt(graph.write, "kg", schema_map)
    engine = SyncEngine(schema_map)
    await write(
        graph,
        f"INSERT INTO w SELECT 'r' || i, {shape.values} FROM generate_series(0, {ROWS - 1}) i",
    )
    assert (await engine.run_cycle(graph.context())).dead_letters == 0
    await on_target(graph, "UPDATE t SET mine = key")
    if children:
        await on_target(
            graph,
            "INSERT INTO cascading (t) SELECT id FROM t; INSERT INTO grandchild SELECT id FROM cascading;"
            "INSERT INTO nulling SELECT row_number() OVER (), id FROM t",
        )
    chance = random.Random(name)
    for _ in range(2):
        places = list(range(ROWS))
        chance.shuffle(places)
        await write(
            graph,
            f"UPDATE w SET (a, b) = (SELECT {shape.values.replace('i::text', 'p::text')} FROM (SELECT p AS i, p) x)"
            " FROM unnest($1::int[]) WITH ORDINALITY AS u (p, n) WHERE w.id = 'r' || (n - 1)",
            places,
        )
        result = await engine.run_cycle(graph.context())
        assert (result.status, result.failures) == (CycleStatus.DRAINED, 0), result
        connection = await graph.connect_write()
        wanted = [tuple(row) for row in await connection.fetch("SELECT id, a::text, b FROM w ORDER BY id")]
        await connection.close()
        landed = [tuple(row) for row in await read(graph, "SELECT key, a::text, b FROM t ORDER BY key")]
        assert landed == wanted
    assert await read(graph, "SELECT FROM t WHERE mine <> key") == []
    if children:
        for child in ("cascading", "nulling"):
            assert len(await read(graph, f"SELECT FROM {child} JOIN t ON t.id = {child}.t")) == ROWS
        assert len(await read(graph, "SELECT FROM grandchild")) == ROWS


@pytest.mark.long(after=1)
@pytest.mark.parametrize("children", [None, "CASCADE", "SET NULL"])
async def test_unique_foreign_keys_that_are_required_swap_too(graph: TestGraph, children: str | None) -> None:
    await on_target(
        graph,
        f"CREATE TABLE p (id uuid PRIMARY KEY, {BOOKS});"
        f"CREATE TABLE t (id uuid PRIMARY KEY, {BOOKS}, v text, parent uuid NOT NULL REFERENCES p ON DELETE CASCADE,"
        " UNIQUE (parent))",
    )
    if children:
        await on_target(
            graph, f"CREATE TABLE theirs (id int PRIMARY KEY, t uuid REFERENCES t ON DELETE {children})"
        )
    await write(
        graph,
        "CREATE TABLE q (id text PRIMARY KEY); CREATE TABLE w (id text PRIMARY KEY, parent text, v text)",
    )
    schema_map = SchemaMap(
        name="two",
        tables=(
            TableMap(name="p", source="q"),
            TableMap(
                name="t",
                source="w",
                columns=(Column(name="v"),),
                references=(Reference(column="parent", parent="p", required=True),),
            ),
        ),
    )
    await adopt(graph.write, "kg", schema_map)
    engine = SyncEngine(schema_map)
    await write(
        graph,
        "INSERT INTO q SELECT 'p' || i FROM generate_series(0, 9) i;"
        "INSERT INTO w SELECT 'w' || i, 'p' || i, 'v' FROM generate_series(0, 8) i",
    )
    await engine.run_cycle(graph.context())
    if children:
        await on_target(graph, "INSERT INTO theirs SELECT row_number() OVER (), id FROM t")
    # A swap, a ring of three, a chain that ends at the free parent.
    await write(
        graph,
        "UPDATE w SET parent = ('{p1,p0,p3,p4,p2,p6,p7,p8,p9}'::text[])[substr(id, 2)::int + 1]",
    )
    result = await engine.run_cycle(graph.context())
    assert (result.status, result.failures) == (CycleStatus.DRAINED, 0), result
    landed = await read(graph, "SELECT p.key FROM t JOIN p ON p.id = t.parent ORDER BY t.key")
    assert [row["key"] for row in landed] == ["p1", "p0", "p3", "p4", "p2", "p6", "p7", "p8", "p9"]
    if children:
        assert len(await read(graph, "SELECT FROM theirs JOIN t ON t.id = theirs.t")) == 9


async def test_numbers_follow_rows_whose_place_was_taken_meanwhile(graph: TestGraph) -> None:
    await on_target(graph, "CREATE UNIQUE INDEX ON nodes (parent_id)")
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept, parent_id) VALUES"
        " ('a', 'A', NULL), ('b', 'B', NULL), ('c', 'C', 'a'), ('d', 'D', 'b')",
    )
    await run_cycle(graph.context())
    await write(
        graph,
        "UPDATE write_nodes SET parent_id = CASE id WHEN 'c' THEN 'b' ELSE 'a' END WHERE id IN ('c', 'd')",
    )
    await lands(graph)
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('e', 'E')")
    await write(
        graph,
        "UPDATE write_nodes SET parent_id = CASE id WHEN 'c' THEN 'e' ELSE 'b' END WHERE id IN ('c', 'd')",
    )
    await lands(graph)


@pytest.mark.long("test_unique_ring_lands")
async def test_long_shift_lands_in_few_statements(graph: TestGraph) -> None:
    await edges(graph, 3000)
    statements: list[str] = []
    async with graph.target.driver() as connection:
        connection.add_query_logger(lambda record: statements.append(record.query))
    await write(
        graph, "UPDATE write_edges SET relationship_type = 't' || (substr(relationship_type, 2)::int + 1)"
    )
    result = await run_cycle(graph.context())
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, 0)
    assert len([query for query in statements if "syncline.try_part" in query]) <= 2
    [row] = await read(
        graph, "SELECT count(*) AS n FROM edges WHERE relationship_type = 't' || (substr(key, 2)::int + 1)"
    )
    assert row["n"] == 3000


async def test_a_true_duplicate_dies_after_its_tries(graph: TestGraph) -> None:
    await edges(graph, 2)
    await write(graph, "UPDATE write_edges SET relationship_type = 't0' WHERE id = 'e1'")
    for _ in range(5):
        rules = RetryRules(dead_letter_seconds=60, dead_letter_attempts=5)
        await run_cycle(replace(graph.context(), retry=rules))
        await on_target(
            graph, "UPDATE sync_dead_letter SET next_retry_at = now() WHERE next_retry_at IS NOT NULL"
        )
    [letter] = await read(graph, LETTERS)
    assert (letter["attempts"], letter["next_retry_at"]) == (5, None)
