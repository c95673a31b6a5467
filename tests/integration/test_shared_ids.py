"""Ids by an expression that two keys share: the row that stands there is the one key's, whatever becomes of the other."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import SyncEngine
from syncline.maps.document import read_map
from syncline.messages.sync import CycleStatus
from syncline.migrations import migrate_bookkeeping
from syncline.operator.parked import Obstacle
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify
from tests.integration.test_shapes import made
from tests.kit.bare_graph import bare_graph, made_by

URL = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"
SOURCES = """
CREATE TABLE w_runs (name text PRIMARY KEY, title text, gone bool NOT NULL DEFAULT false);
CREATE TABLE w_steps (id text PRIMARY KEY, run text, after text, runs text[]);
"""
BESIDE = {True: ", beside: true", False: ""}


def document(*, beside: bool) -> str:
    return f"""
version: 1
name: shared
tables:
  runs:
    source: w_runs
    key: name
    id: {{rule: expression, type: text, expression: lower($1){BESIDE[beside]}}}
    present: NOT gone
    columns: [title]
  steps:
    source: w_steps
    references: {{run: runs, after: {{parent: runs, required: false}}}}
    links: {{step_runs: {{source: runs, owner: step, member: run, parent: runs}}}}
"""


def targets(*, beside: bool) -> str:
    own = "" if beside else ", key text NOT NULL, sync_version bigint, sync_run bigint"
    return f"""
CREATE TABLE runs (id text PRIMARY KEY, title text{own});
CREATE TABLE steps (id uuid PRIMARY KEY, key text, run text REFERENCES runs, after text REFERENCES runs, sync_version bigint, sync_run bigint);
CREATE TABLE step_runs (step uuid REFERENCES steps, run text REFERENCES runs, PRIMARY KEY (step, run));
"""


@pytest_asyncio.fixture(loop_scope="session")
async def empty(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield graph


@pytest.mark.long(after=1)
@pytest.mark.parametrize("beside", [True, False], ids=["beside", "with its key"])
@pytest.mark.parametrize(
    "leaves", ["DELETE FROM w_runs WHERE name = 'A'", "UPDATE w_runs SET gone = true WHERE name = 'A'"]
)
async def test_a_rejected_row_that_leaves_takes_nothing_of_another_with_it(
    empty: TestGraph, beside: bool, leaves: str
) -> None:
    shared = read_map(document(beside=beside), source="shared.yaml")
    await made_by(
        empty,
        write=f"SET search_path = kg; {SOURCES}",
        target=f"SET search_path = kg; {targets(beside=beside)}",
    )
    await migrate_bookkeeping(empty.target, "kg")
    await adopt(empty.write, "kg", shared)
    engine = SyncEngine(shared)

    async def cycle() -> list[tuple[object, ...]]:
        result = await engine.run_cycle(empty.context())
        assert ([table.error for table in result.tables if table.error], result.status) == (
            [],
            CycleStatus.DRAINED,
        )
        return [tuple(row) for row in await read(empty, "SELECT key[1] FROM sync_dead_letter")]

    async def damaged() -> list[str]:
        context = empty.context()
        found = await verify(
            shared, write=context.write, target=context.target, vectors=None, embedding="none"
        )
        return [str(relation) for relation in found.relations if relation.damaged or relation.problem]

    await write(
        empty, "INSERT INTO w_runs VALUES ('a', 'first'); INSERT INTO w_steps VALUES ('s', 'a', 'a', '{a}')"
    )
    assert await cycle() == []
    await write(empty, "INSERT INTO w_runs VALUES ('A', 'second')")
    assert await cycle() == [("A",)]
    assert await read(empty, "SELECT title FROM runs") == [("first",)]
    await write(empty, leaves)
    assert await cycle() == []
    assert await read(empty, "SELECT title, run, after FROM runs, steps") == [("first", "a", "a")]
    assert await read(empty, "SELECT run FROM step_runs") == [("a",)]
    assert await read(empty, "SELECT * FROM sync_parked_row") == []
    assert await damaged() == []


KEYED = """
CREATE TABLE w_runs (id text PRIMARY KEY, title text, next text);
CREATE TABLE w_steps (id text PRIMARY KEY, run text);
CREATE TABLE w_notes (id text PRIMARY KEY, about text, runs text[]);
CREATE TABLE w_marks (run text, name text, PRIMARY KEY (run, name));
CREATE TABLE w_scores (run text PRIMARY KEY, score integer);
"""


@pytest.mark.long(after=1)
@pytest.mark.parametrize("beside", [True, False], ids=["beside", "with its key"])
async def test_a_reference_names_a_key_not_the_row_that_stands_under_its_id(
    empty: TestGraph, beside: bool
) -> None:
    own = "" if beside else ", key text, sync_version bigint, sync_run bigint"
    site = await made(
        empty,
        f"""
  runs:
    source: w_runs
    id: {{rule: expression, type: text, expression: lower($1){BESIDE[beside]}}}
    columns: [title]
    references: {{next: {{parent: runs, required: false}}}}
  steps: {{source: w_steps, references: {{run: runs}}}}
  notes:
    source: w_notes
    references: {{about: {{parent: runs, required: false}}}}
    links: {{note_runs: {{source: runs, owner: note, member: run, parent: runs}}}}
  marks: {{source: w_marks, key: [run, name], references: {{run: runs}}}}
  scores: {{source: w_scores, key: run, into: runs, columns: {{score: integer}}}}
""",
        source=KEYED,
        target=f"""
CREATE TABLE runs (id text PRIMARY KEY, title text, next text REFERENCES runs, score integer{own});
CREATE TABLE steps (id uuid PRIMARY KEY, key text, run text NOT NULL REFERENCES runs, sync_version bigint, sync_run bigint);
CREATE TABLE notes (id uuid PRIMARY KEY, key text, about text REFERENCES runs, sync_version bigint, sync_run bigint);
CREATE TABLE note_runs (note uuid REFERENCES notes, run text REFERENCES runs, PRIMARY KEY (note, run));
CREATE TABLE marks (run text REFERENCES runs, name text, sync_version bigint, sync_run bigint, PRIMARY KEY (run, name));
""",
    )
    await write(empty, "INSERT INTO w_runs VALUES ('a', 'first', 'A'); INSERT INTO w_marks VALUES ('a', 'm')")
    await site.cycle()
    await write(
        empty,
        "INSERT INTO w_steps VALUES ('s', 'A'); INSERT INTO w_notes VALUES ('n', 'A', '{A}');"
        "INSERT INTO w_marks VALUES ('A', 'm'); INSERT INTO w_scores VALUES ('A', 5)",
    )
    result = await site.cycle()
    # What names 'A' waits for it, and nothing of it is written to 'a', which has its id.
    assert result.parked == 6
    assert await site.rows("SELECT id, title, next, score FROM kg.runs") == [
        {"id": "a", "title": "first", "next": None, "score": None}
    ]
    assert await site.rows("SELECT * FROM kg.steps, kg.note_runs") == []
    await site.equal()
    summary = await site.parked()
    assert [(each.key, each.obstacle) for each in summary.awaited] == [("A", Obstacle.MISSING)]
    # A join row of 'A' that leaves takes none of 'a' with it.
    await write(empty, "DELETE FROM w_marks WHERE run = 'A'")
    await site.cycle()
    assert await site.rows("SELECT run FROM kg.marks") == [{"run": "a"}]
    # 'A' is refused while 'a' stands there, and lands with all that waits for it when that leaves.
    await write(empty, "INSERT INTO w_runs VALUES ('A', 'second')")
    await site.cycle()
    assert [each.obstacle for each in (await site.parked()).awaited] == [Obstacle.RETRYING]
    assert (await site.explained("runs", "A")).graph.exists is False
    await site.equal()
    await write(empty, "DELETE FROM w_runs WHERE id = 'a'")
    result = await site.cycle()
    assert result.parked == 1  # the join row of 'a'
    assert await site.rows("SELECT title, score, run, about FROM kg.runs, kg.steps, kg.notes") == [
        {"title": "second", "score": 5, "run": "a", "about": "a"}
    ]
    assert await site.rows("SELECT run FROM kg.note_runs") == [{"run": "a"}]
    await site.equal()


@pytest.mark.long(after=1)
@pytest.mark.parametrize("by", ["", ", by: name"], ids=["by key", "by value"])
async def test_a_stub_is_made_for_the_key_that_is_named(empty: TestGraph, by: str) -> None:
    site = await made(
        empty,
        f"""
  runs: {{source: run, id: {{rule: expression, type: text, expression: lower($1)}}, columns: [name]}}
  steps: {{source: step, references: {{run: {{parent: runs, target: run_id{by}, stub: true}}}}}}
""",
        source="CREATE TABLE run (id text PRIMARY KEY, name text); CREATE TABLE step (id text PRIMARY KEY, run text)",
        target="CREATE TABLE runs (id text PRIMARY KEY, key text, name text, sync_version bigint, sync_run bigint);"
        "CREATE TABLE steps (id uuid PRIMARY KEY, key text, run_id text REFERENCES runs, sync_version bigint, sync_run bigint)",
    )
    await write(empty, "INSERT INTO step VALUES ('s', 'a'), ('t', 'A')")
    result = await site.cycle()
    assert (result.dead_letters, len(await site.rows("SELECT * FROM kg.runs"))) == (1, 1)
    await site.equal()
    # The one that has the id leaves: the other gets its stub.
    await write(empty, "DELETE FROM step WHERE id = (SELECT 's')")
    await write(empty, "UPDATE step SET run = 'A' WHERE id = 't'")
    await site.cycle()
    result = await site.cycle()
    assert [row["id"] for row in await site.rows("SELECT id FROM kg.runs")] == ["a" if not by else "stub:a"]
    await site.equal()


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("rule", "made_id"),
    [
        (f"rule: uuid5, namespace: {URL}", f"syncline.uuid5('{URL}'::uuid, 'a')"),
        ("rule: expression, type: uuid, expression: md5($1)::uuid", "md5('a')::uuid"),
    ],
    ids=["uuid5", "expression"],
)
async def test_a_reference_names_no_row_of_readers(empty: TestGraph, rule: str, made_id: str) -> None:
    site = await made(
        empty,
        f"""
  runs: {{source: run, id: {{{rule}, beside: true}}, columns: [title]}}
  steps:
    source: step
    references: {{run: runs, next: {{parent: runs, required: false}}}}
    links: {{step_runs: {{source: runs, owner: step, member: run, parent: runs}}}}
""",
        source="CREATE TABLE run (id text PRIMARY KEY, title text); CREATE TABLE step (id text PRIMARY KEY, run text, next text, runs text[])",
        target="CREATE TABLE runs (id uuid PRIMARY KEY, title text);"
        "CREATE TABLE steps (id uuid PRIMARY KEY, key text, run uuid REFERENCES runs, next uuid REFERENCES runs, sync_version bigint, sync_run bigint);"
        "CREATE TABLE step_runs (step uuid REFERENCES steps, run uuid REFERENCES runs, PRIMARY KEY (step, run))",
    )
    await on_target(empty, f"INSERT INTO kg.runs SELECT {made_id}, 'of readers'")
    await write(
        empty,
        "INSERT INTO run VALUES ('b', 'B'); INSERT INTO step VALUES ('x', 'a', NULL, '{a}'), ('y', 'b', 'a', '{a,b}')",
    )
    assert (await site.cycle()).parked == 3
    assert await site.rows("SELECT title FROM kg.step_runs l JOIN kg.runs r ON r.id = l.run") == [
        {"title": "B"}
    ]
    await site.equal()
    await write(empty, "INSERT INTO run VALUES ('a', 'A')")
    assert (await site.cycle()).parked == 0
    assert await site.rows("SELECT title FROM kg.steps s JOIN kg.runs r ON r.id = s.run ORDER BY 1") == [
        {"title": "A"}, {"title": "B"}
    ]  # fmt: skip
    await site.equal()


@pytest.mark.long("test_a_reference_names_a_key_not_the_row_that_stands_under_its_id")
async def test_keys_of_several_columns_that_share_an_id_are_told_apart(empty: TestGraph) -> None:
    site = await made(
        empty,
        """
  runs: {source: run, key: [a, b], id: {rule: expression, type: text, expression: "$1 || '/' || $2"}}
  steps: {source: step, references: {run: {parent: runs, columns: [a, b], target: run_id}}}
""",
        source="CREATE TABLE run (a text, b text, PRIMARY KEY (a, b)); CREATE TABLE step (id text PRIMARY KEY, a text, b text)",
        target="CREATE TABLE runs (id text PRIMARY KEY, a text, b text, sync_version bigint, sync_run bigint);"
        "CREATE TABLE steps (id uuid PRIMARY KEY, key text, run_id text REFERENCES runs, sync_version bigint, sync_run bigint)",
    )
    await write(
        empty,
        "INSERT INTO run VALUES ('x', 'y/z'); INSERT INTO step VALUES ('1', 'x', 'y/z'), ('2', 'x/y', 'z')",
    )
    assert (await site.cycle()).parked == 1
    await site.equal()
    await write(empty, "INSERT INTO run VALUES ('x/y', 'z')")
    await site.cycle()
    await write(empty, "DELETE FROM run WHERE a = 'x'")
    assert (await site.cycle()).parked == 1
    assert await site.rows("SELECT key FROM kg.steps") == [{"key": "2"}]
    await site.equal()
