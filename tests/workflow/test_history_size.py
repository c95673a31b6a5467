"""What an idle run leaves in Temporal: every run of every graph is kept for days, and replayed."""

import json

from google.protobuf.message import Message as Proto
from temporalio.contrib.pydantic import pydantic_data_converter

from providers.default import DefaultSyncProvider
from syncline.control.graphs import graph_changes
from syncline.messages.sync import ProviderResolution, SyncGraphResult, SyncResult, TableProgress
from syncline.temporal.data_converter import MESSAGES
from syncline.testing.lab import SyncLab
from syncline.testing.providers import sync_result
from tests.workflow.test_carried_state import SELDOM, ScheduledRuns, scheduled

OURS, PLAIN = MESSAGES.payload_converter, pydantic_data_converter.payload_converter


async def scheduled_run(runs: ScheduledRuns) -> tuple[int, int, dict[str, object]]:
    """Have the graph's Schedule start a run; return events and bytes of its history, and its result."""
    run = await runs.next()
    await run.result(follow_runs=False)
    events: list[Proto] = list((await run.fetch_history()).events)
    completed = events[-1].workflow_execution_completed_event_attributes
    return (
        len(events),
        sum(event.ByteSize() for event in events),
        json.loads(completed.result.payloads[0].data),
    )


async def test_an_idle_run_keeps_no_zeros(kg: SyncLab) -> None:
    """Of nearly 14 KB seven were tables of zeros: in the cycle's result, the run's, and the next run's start."""
    kg.services.registry.register("sync", DefaultSyncProvider(), "syncline")
    graph = await kg.services.graphs.get("kg")
    changes = {"composition": {"sync": {"provider": "default"}}, "schedule": SELDOM}
    graph = await kg.services.graphs.update(graph.id, graph_changes(graph.slug, changes))
    runs = await scheduled(kg, graph)
    for _ in range(3):
        events, size, result = await scheduled_run(runs)
    assert events <= 17
    assert size < 7_200
    # Who reads it with Temporal's own tools finds every field of the run, and every table.
    assert result.keys() == SyncGraphResult.model_fields.keys()
    kept = SyncGraphResult.model_validate(result)
    assert result["result"].keys() == SyncResult.model_fields.keys()
    assert [table["table"] for table in result["result"]["tables"]] == [t.table for t in kept.result.tables]
    assert len(kept.result.tables) > 10


def test_other_releases_read_it_and_are_read() -> None:
    """A default that is left out is filled in by whoever reads, with or without this converter."""
    idle = sync_result()
    told = ProviderResolution.model_validate({"graph": {"id": "0" * 32, "slug": "g"}, "shadowed": True})
    run = SyncGraphResult(graph=told.graph, result=idle)
    for message in (idle, told, run):
        ours, plain = OURS.to_payload(message), PLAIN.to_payload(message)
        assert len(ours.data) < len(plain.data)
        for converter in (OURS, PLAIN):
            for payload in (ours, plain):
                assert converter.from_payload(payload, type(message)) == message
    [table] = json.loads(OURS.to_payload(idle).data)["tables"]
    assert table == {"table": "nodes", "drained": True}
    assert TableProgress.model_validate(table) == idle.tables[0]
