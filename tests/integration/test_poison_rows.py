"""Poison rows by any SQLSTATE: what a single row raises alone, while its neighbours land, is that row's."""

import pytest

from syncline.capture.install.install import adopt
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, run_cycle
from syncline.engine.table_map import Column, SchemaMap, TableMap
from syncline.errors import StoreUnavailable
from syncline.messages.sync import CycleStatus, SyncResult, TableProgress
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.truth import differences
from tests.kit.cases import further

UNUSUAL = ["42501", "40001", *further("0A000", "XX000", "55000", "57014", "53400", "25006")]
LETTERS = "SELECT key[1] AS key, sqlstate, attempts FROM sync_dead_letter ORDER BY 1"


def of(result: SyncResult, table: str) -> TableProgress:
    return next(progress for progress in result.tables if progress.table == table)


async def raising(graph: TestGraph, sqlstate: str, when: str, on: str = "INSERT OR UPDATE") -> None:
    """From now on a trigger on the target's nodes raises this."""
    row = "OLD" if on == "DELETE" else "NEW"
    await on_target(
        graph,
        "CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN IF {when} THEN RAISE 'no' USING ERRCODE = '{sqlstate}'; END IF; RETURN {row}; END $$;"
        f"CREATE OR REPLACE TRIGGER no BEFORE {on} ON nodes FOR EACH ROW EXECUTE FUNCTION no()",
    )


async def nodes(graph: TestGraph, first: int, last: int, poison: tuple[int, ...] = ()) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT to_char(i, 'FM0000'),"
        " CASE WHEN i = ANY ($3::int[]) THEN 'poison' ELSE 'c' END FROM generate_series($1::int, $2::int) i",
        first,
        last,
        list(poison),
    )


@pytest.mark.long(after=1)
@pytest.mark.parametrize("sqlstate", UNUSUAL)
async def test_poison_row_of_any_sqlstate_harms_only_itself(graph: TestGraph, sqlstate: str) -> None:
    poison = (1, 2, 3, 4, 99, 100)
    await raising(graph, sqlstate, "NEW.concept = 'poison'")
    await nodes(graph, 1, 100, poison)
    await write(graph, "INSERT INTO write_llm_usage (id, model_id) VALUES ('u', 'm')")
    result = await new_engine().run_cycle(graph.context())
    assert (result.status, of(result, "nodes").error) == (CycleStatus.DRAINED, None), of(
        result, "nodes"
    ).error
    assert (of(result, "nodes").rows, of(result, "llm_usage").rows) == (100 - len(poison), 1)
    assert [(row["key"], row["sqlstate"]) for row in await read(graph, LETTERS)] == [
        (f"{number:04}", sqlstate) for number in poison
    ]
    # Tried again alone they are what they were, and hold up nobody.
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    await nodes(graph, 101, 110)
    result = await run_cycle(graph.context())
    assert (result.status, of(result, "nodes").rows, result.dead_letters) == (
        CycleStatus.DRAINED,
        10,
        len(poison),
    )
    assert {row["attempts"] for row in await read(graph, LETTERS)} == {2}
    await on_target(graph, "DROP TRIGGER no ON nodes")
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    assert (await run_cycle(graph.context())).dead_letters == 0
    assert await differences(graph) == []


@pytest.mark.long("test_poison_row_of_any_sqlstate_harms_only_itself")
@pytest.mark.parametrize(("sqlstate", "batch_rows"), [("42501", 1), *further(("40001", 7), ("57014", 7))])
async def test_poison_row_is_found_in_small_batches(graph: TestGraph, sqlstate: str, batch_rows: int) -> None:
    await raising(graph, sqlstate, "NEW.concept = 'poison'")
    await nodes(graph, 1, 30, (1, 2, 15, 30))
    result = await new_engine().run_cycle(graph.context(batch_rows=batch_rows))
    assert (result.status, of(result, "nodes").rows, result.dead_letters) == (CycleStatus.DRAINED, 26, 4)


@pytest.mark.long("test_capture_that_fails_for_every_row_fills_no_books")
@pytest.mark.parametrize("sqlstate", ["42501", *further("57014")])
async def test_table_that_refuses_everything_fills_no_books(graph: TestGraph, sqlstate: str) -> None:
    await raising(graph, sqlstate, "true")
    await nodes(graph, 1, 300)
    await write(graph, "INSERT INTO write_llm_usage (id, model_id) VALUES ('u', 'm')")
    result = await new_engine().run_cycle(graph.context())
    error = of(result, "nodes").error
    assert error is not None
    assert sqlstate in error
    assert (result.status, result.dead_letters, of(result, "llm_usage").rows) == (CycleStatus.FAILED, 0, 1)
    await on_target(graph, "DROP TRIGGER no ON nodes")
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert await differences(graph) == []


@pytest.mark.parametrize("sqlstate", ["40001", *further("57014")])
async def test_store_that_refuses_everything_for_now_is_worth_a_retry(
    graph: TestGraph, sqlstate: str
) -> None:
    await raising(graph, sqlstate, "true")
    await nodes(graph, 1, 50)
    with pytest.raises(StoreUnavailable, match=sqlstate):
        await new_engine().run_cycle(graph.context())
    assert await read(graph, LETTERS) == []


@pytest.mark.long("test_poison_row_of_any_sqlstate_harms_only_itself")
async def test_missing_right_on_a_table_is_the_tables(graph: TestGraph) -> None:
    await raising(graph, "42501", "NEW.concept <> 'landed'")
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT 'l' || i, 'landed' FROM generate_series(1, 500) i",
    )
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    # What is there already is accepted again, and says nothing of what is refused.
    await write(graph, "UPDATE write_nodes SET concept = concept")
    await nodes(graph, 1, 500)
    result = await new_engine().run_cycle(graph.context())
    assert result.status is CycleStatus.FAILED
    assert result.dead_letters <= 3


async def test_a_lone_row_waits_for_a_neighbour_and_holds_up_no_other_table(graph: TestGraph) -> None:
    await raising(graph, "40001", "NEW.concept = 'poison'")
    await nodes(graph, 1, 1, (1,))
    await write(graph, "INSERT INTO write_llm_usage (id, model_id) VALUES ('u', 'm')")
    engine = new_engine()
    result = await engine.run_cycle(graph.context())
    assert (result.status, of(result, "llm_usage").rows, result.dead_letters) == (CycleStatus.FAILED, 1, 0)
    await nodes(graph, 2, 2)
    result = await engine.run_cycle(graph.context())
    assert (result.status, of(result, "nodes").rows, result.dead_letters) == (CycleStatus.DRAINED, 1, 1)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("sqlstate", ["42501", "40001", *further("57014")])
async def test_delete_that_raises_anything_holds_back_no_other(graph: TestGraph, sqlstate: str) -> None:
    await nodes(graph, 1, 20)
    await run_cycle(graph.context())
    await raising(graph, sqlstate, "OLD.key = '0007'", on="DELETE")
    await write(graph, "DELETE FROM write_nodes")
    result = await run_cycle(graph.context())
    assert (of(result, "nodes").deletes, result.status) == (19, CycleStatus.DRAINED)
    assert [(row["key"], row["sqlstate"]) for row in await read(graph, LETTERS)] == [("0007", sqlstate)]
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert [row["attempts"] for row in await read(graph, LETTERS)] == [2]
    await on_target(graph, "DROP TRIGGER no ON nodes")
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    assert (await run_cycle(graph.context())).dead_letters == 0
    assert await read(graph, "SELECT FROM nodes") == []


@pytest.mark.long("test_delete_that_raises_anything_holds_back_no_other")
@pytest.mark.parametrize("sqlstate", ["42501", *further("57014")])
async def test_deletes_that_are_all_refused_fill_no_books(graph: TestGraph, sqlstate: str) -> None:
    await nodes(graph, 1, 200)
    await run_cycle(graph.context())
    await raising(graph, sqlstate, "true", on="DELETE")
    await write(graph, "DELETE FROM write_nodes")
    await write(graph, "INSERT INTO write_llm_usage (id, model_id) VALUES ('u', 'm')")
    result = await run_cycle(graph.context())
    assert (result.status, result.dead_letters, of(result, "llm_usage").rows) == (CycleStatus.FAILED, 0, 1)
    await on_target(graph, "DROP TRIGGER no ON nodes")
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert await differences(graph) == []


async def of_one_table(graph: TestGraph, expression: str) -> SyncEngine:
    """A map of one table whose condition calls a function of the write-db."""
    await write(graph, "CREATE TABLE w (id text PRIMARY KEY, v text)")
    await on_target(
        graph, "CREATE TABLE t (id uuid PRIMARY KEY, key text, v text, sync_version bigint, sync_run bigint)"
    )
    table = TableMap(name="t", source="w", columns=(Column(name="v"),), present=expression)
    schema_map = SchemaMap(name="one", tables=(table,))
    await adopt(graph.write, "kg", schema_map)
    return SyncEngine(schema_map)


@pytest.mark.long("integration/test_refusal.py::test_a_row_that_cannot_even_be_read_harms_only_itself")
@pytest.mark.parametrize("sqlstate", ["42501", *further("40001", "57014")])
async def test_poison_row_at_capture_harms_only_itself(graph: TestGraph, sqlstate: str) -> None:
    poison = (1, 2, 29, 30)
    await write(
        graph,
        "CREATE FUNCTION kg.fits(v text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        f" IF v = 'poison' THEN RAISE 'no' USING ERRCODE = '{sqlstate}'; END IF; RETURN true; END $$",
    )
    engine = await of_one_table(graph, "kg.fits(v)")
    await write(
        graph,
        "INSERT INTO w SELECT to_char(i, 'FM00'), CASE WHEN i = ANY ($1::int[]) THEN 'poison' ELSE 'c' END"
        " FROM generate_series(1, 30) i",
        list(poison),
    )
    result = await engine.run_cycle(graph.context())
    assert (of(result, "t").error, of(result, "t").rows, result.dead_letters) == (
        None,
        30 - len(poison),
        len(poison),
    )
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    result = await engine.run_cycle(graph.context())
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, len(poison))
    await write(graph, "UPDATE w SET v = 'c' WHERE v = 'poison'")
    assert (await engine.run_cycle(graph.context())).dead_letters == 0
    assert len(await read(graph, "SELECT FROM t")) == 30


async def test_capture_that_fails_for_every_row_fills_no_books(graph: TestGraph) -> None:
    await write(
        graph,
        "CREATE FUNCTION kg.fits(v text) RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'no' USING ERRCODE = '42501'; END $$",
    )
    engine = await of_one_table(graph, "kg.fits(v)")
    await write(graph, "INSERT INTO w SELECT i::text, 'c' FROM generate_series(1, 500) i")
    result = await engine.run_cycle(graph.context())
    assert (result.status, result.dead_letters) == (CycleStatus.FAILED, 0)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("sqlstate", ["42501", "40001"])
async def test_row_that_waits_and_raises_when_it_is_released_harms_only_itself(
    graph: TestGraph, sqlstate: str
) -> None:
    await on_target(
        graph,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN IF NEW.key = 'v3' THEN RAISE 'no' USING ERRCODE = '{sqlstate}'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON node_versions FOR EACH ROW EXECUTE FUNCTION no()",
    )
    await write(
        graph,
        "INSERT INTO write_node_versions (id, node_id, version) SELECT 'v' || i, 'n', i FROM generate_series(1, 6) i",
    )
    assert (await run_cycle(graph.context())).parked == 6
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'N')")
    result = await run_cycle(graph.context())
    assert (result.status, result.parked, result.dead_letters) == (CycleStatus.DRAINED, 0, 1)
    assert len(await read(graph, "SELECT FROM node_versions")) == 5


def new_engine() -> SyncEngine:
    """An engine that remembers nothing of other tests' limits."""
    return SyncEngine(KNOWLEDGE_GRAPH)
