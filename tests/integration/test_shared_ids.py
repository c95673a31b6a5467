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
from syncline.testing.graphs import TestGraph, read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by

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
