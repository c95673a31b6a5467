"""The trail says what each run changed, also of one that died; and the provider conforms."""

import asyncio

import pytest
from syncline_audit import AuditOptions, AuditProvider

from syncline.engine import run_cycle
from syncline.testing import exercise_provider
from syncline.testing.graphs import TestGraph, on_target, read, write

test_it_conforms = exercise_provider(AuditProvider, options={"keep_days": 30})

ROWS = "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'a concept' FROM generate_series(1, $1) i"
TRAIL = (
    "SELECT run_id, rows, deletes, workflow_id FROM audit_trail WHERE table_name = 'nodes' ORDER BY began_at"
)


async def trail(graph: TestGraph) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await read(graph, TRAIL)]


async def test_the_trail_has_each_run_that_changed_something(graph: TestGraph) -> None:
    provider, options = AuditProvider(), AuditOptions()
    await write(graph, ROWS, 3)
    await provider.sync_cycle(graph.context(run_id="first", options=options))
    await provider.sync_cycle(graph.context(run_id="idle", options=options))
    await write(graph, "DELETE FROM write_nodes WHERE id = 'n1'")
    await provider.sync_cycle(graph.context(run_id="second", options=options))
    assert await trail(graph) == [("first", 3, 0, "sync-graph/kg"), ("second", 0, 1, "sync-graph/kg")]


async def test_an_attempt_that_died_before_the_trail_was_written_is_in_it(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, options = AuditProvider(), AuditOptions()

    async def dies(*_: object) -> None:
        await run_cycle(graph.context(run_id="died"))
        raise asyncio.CancelledError

    await write(graph, ROWS, 3)
    monkeypatch.setattr("syncline_audit.run_cycle", dies)
    with pytest.raises(asyncio.CancelledError):
        await provider.sync_cycle(graph.context(run_id="died", options=options))
    monkeypatch.undo()
    assert await trail(graph) == []
    await provider.sync_cycle(graph.context(run_id="next", options=options))
    assert await trail(graph) == [("died", 3, 0, "sync-graph/kg")]


async def test_all_attempts_of_a_run_are_one_entry(graph: TestGraph) -> None:
    provider, options = AuditProvider(), AuditOptions()
    await write(graph, ROWS, 3)
    await run_cycle(graph.context(run_id="one"))
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n4', 'a concept')")
    await provider.sync_cycle(graph.context(run_id="one", attempt=2, options=options))
    assert await trail(graph) == [("one", 4, 0, "sync-graph/kg")]


async def test_what_is_too_old_is_forgotten_when_something_is_added(graph: TestGraph) -> None:
    provider, options = AuditProvider(), AuditOptions(keep_days=30)
    await write(graph, ROWS, 3)
    await provider.sync_cycle(graph.context(run_id="old", options=options))
    await on_target(graph, "UPDATE audit_trail SET began_at = now() - interval '31 days'")
    await provider.sync_cycle(graph.context(run_id="idle", options=options))
    assert [row[0] for row in await trail(graph)] == ["old"]
    await write(graph, "UPDATE write_nodes SET concept = 'another'")
    await provider.sync_cycle(graph.context(run_id="new", options=options))
    assert [row[0] for row in await trail(graph)] == ["new"]
