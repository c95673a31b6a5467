"""Round trips: how often a cycle talks to its stores, and which of its plans are kept."""

import pytest

from syncline.engine import run_cycle
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.render.statements import Cursor, SchemaStatements
from syncline.messages.sync import CycleStatus
from syncline.testing.graphs import TestGraph, on_target, read, write
from tests.integration.test_deletes import SEED

NOTED = """
CREATE TABLE noted (how text, rows int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO noted SELECT current_setting('plan_cache_mode'), count(*) FROM new_rows;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT ON edges REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION note();
ALTER TABLE edges ADD CONSTRAINT no_poison CHECK (relationship_type <> 'poison');
"""
EDGES = """
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)
    SELECT 'e' || i, 'a', 'b', CASE i WHEN $1 THEN 'poison' ELSE 'x' || i END FROM generate_series(1, 2500) i
"""


async def asked(graph: TestGraph) -> tuple[list[str], list[str]]:
    """Run a cycle; return what it says to the write-db and to the graph-db."""
    said: tuple[list[str], list[str]] = ([], [])
    loggers = []
    for store, queries in zip((graph.write, graph.target), said, strict=True):
        async with store.driver() as connection:
            loggers.append((connection, lambda record, queries=queries: queries.append(record.query)))
            connection.add_query_logger(loggers[-1][1])
    result = await run_cycle(graph.context())
    assert result.status is CycleStatus.DRAINED, result
    for connection, logger in loggers:
        connection.remove_query_logger(logger)
    return said


async def test_idle_cycle_takes_seven_round_trips(graph: TestGraph) -> None:
    await write(graph, SEED)
    await asked(graph)
    to_write, to_target = await asked(graph)
    assert len(to_write) == 3
    # The lock, the ledger, its commit; and the lock's release, which needs no transaction.
    assert len(to_target) == 4
    assert to_target[-1].startswith("SELECT pg_advisory_unlock")


async def test_idle_cycle_reports_what_waits(graph: TestGraph) -> None:
    await write(
        graph,
        SEED + "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)"
        " VALUES ('waits', 'a', 'nowhere', 'x')",
    )
    await run_cycle(graph.context())
    idle = await run_cycle(graph.context())
    assert (idle.batches, idle.parked, idle.dead_letters) == (0, 1, 0)
    assert {table.table: table.parked for table in idle.tables if table.parked} == {"edges": 1}


async def test_small_change_takes_few_round_trips(graph: TestGraph) -> None:
    await write(graph, SEED)
    await asked(graph)
    await write(graph, "UPDATE write_edges SET weight = 7")
    to_write, to_target = await asked(graph)
    assert len(to_write) <= 12
    # With a checkpoint, which is one of them, every five seconds at most.
    assert len(to_target) <= 29
    assert not [query for query in to_target if "SAVEPOINT" in query]


@pytest.mark.parametrize("poison", [0, 700])
async def test_plans_of_foreign_keys_are_kept_unless_a_stage_goes_in_parts(
    graph: TestGraph, poison: int
) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    await on_target(graph, NOTED)
    await write(graph, EDGES.replace("$1", str(poison)))
    result = await run_cycle(graph.context())
    assert result.dead_letters == (1 if poison else 0)
    noted = {(row["how"], row["rows"]) for row in await read(graph, "SELECT * FROM noted WHERE rows > 0")}
    if poison:
        assert {how for how, _ in noted} == {"force_custom_plan"}
    else:
        assert noted == {("auto", 2500)}


@pytest.mark.parametrize("cursor", [Cursor(xid=5), Cursor(xid=5, key=("a'\\b", "ö$1"))], ids=["start", "key"])
async def test_values_of_a_capture_stand_in_it(graph: TestGraph, cursor: Cursor) -> None:
    table = SchemaStatements(KNOWLEDGE_GRAPH).tables["fact_sources"]
    connection = await graph.connect_write()
    for key in (("a'\\b", "ö"), ("a'\\b", "ö$1"), ("a'\\b", "ö$11"), ("b", "")):
        await connection.execute(
            "INSERT INTO write_fact_sources (fact_id, raw_source_id, sync_xid) VALUES ($1, $2, '5')", *key
        )
    await connection.execute("UPDATE write_fact_sources SET sync_xid = '5'")
    horizon = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    given = (*cursor.parameters(), str(horizon))
    with_parameters = await connection.fetch(table.capture("kg", cursor, limit=10), *given)
    at = await connection.fetch(table.capture_at("kg", cursor, horizon=horizon, limit=10))
    await connection.close()
    assert at == with_parameters != []
