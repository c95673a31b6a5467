"""What a running cycle says of how far it is."""

from syncline.engine import run_cycle
from syncline.messages import CycleStatus
from syncline.testing.graphs import TestGraph, write


async def test_what_is_expected_is_told_where_one_batch_is_not_enough(graph: TestGraph) -> None:
    insert = "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'node' FROM generate_series(1, 25) AS i"
    await write(graph, insert)
    result = await run_cycle(graph.context(batch_rows=10))
    assert result.status is CycleStatus.DRAINED
    told = [
        (table.captured, table.expected)
        for progress in graph.heartbeats
        for table in progress.tables
        if table.table == "nodes"
    ]
    assert list(dict.fromkeys(told)) == [(10, 25), (20, 25), (25, 25)]


async def test_nothing_is_counted_for_a_cycle_of_one_batch(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'a node')")
    await run_cycle(graph.context())
    assert {table.expected for progress in graph.heartbeats for table in progress.tables} == {None}
