"""Fairness: of tenants whose runs wait, each has its turn, by Temporal's fairness keys."""

from collections.abc import Callable

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import ScheduleActionStartWorkflow
from temporalio.common import Priority

from syncline import names
from syncline.control.graphs import Graph
from syncline.errors import GraphInvalid
from syncline.temporal.schedules.graph import graph_fingerprint
from syncline.testing.lab import SyncLab
from syncline.testing.providers import FakeProvider
from tests.kit.backlog import ended, started_by_the_clock, told_in_order
from tests.kit.command_line import CommandLine

FLOOD = 20


async def action_of(lab: SyncLab, graph: Graph) -> Priority:
    described = await lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug)).describe()
    action = described.schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    return action.priority


async def activities_of(lab: SyncLab, workflow_id: str) -> dict[str, str]:
    """The fairness keys that the activities of a run were scheduled with, by type."""
    keys = {}
    async for event in lab.client.get_workflow_handle(workflow_id).fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            scheduled = event.activity_task_scheduled_event_attributes
            keys[scheduled.activity_type.name] = scheduled.priority.fairness_key
    return keys


async def test_a_tenants_flood_does_not_keep_others_waiting(idle_lab: SyncLab) -> None:
    """Two graphs of one tenant have forty runs that wait; one run each of three others began to wait later."""
    lab, provider, order = told_in_order(idle_lab)
    flood = [await lab.add_graph(one, fairness_key="big") for one in (provider, provider.id)]
    small = [await lab.add_graph(provider.id) for _ in range(3)]
    for graph in flood:
        await started_by_the_clock(lab, graph, FLOOD)
    for graph in small:
        await started_by_the_clock(lab, graph, 1)
    async with lab.worker():
        await ended(lab)
    places = [order.index(graph.slug) for graph in small]
    # Turns: one of each tenant's. Workflow tasks and activities wait in two queues, so not to the place.
    assert max(places) <= FLOOD // 2, places


async def test_fairness_key_is_set_kept_and_taken_back(
    lab: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    """It reaches the Schedule at once, the runs by hand from there, and others when they are resolved."""
    graph, syncline = await lab.add_graph(FakeProvider()), temporal_only(lab)
    before = graph_fingerprint(graph, lab.task_queue)
    answer = await syncline.answer(
        "graph set", graph.slug, "--fairness-key", "tenant-7", "--fairness-weight", "2.5"
    )
    assert isinstance(answer, dict)
    assert (answer["fairness_key"], answer["fairness_weight"]) == ("tenant-7", 2.5)
    assert await action_of(lab, graph) == Priority(
        priority_key=3, fairness_key="tenant-7", fairness_weight=2.5
    )
    stored = await lab.services.graphs.get(graph.slug)
    assert graph_fingerprint(stored, lab.task_queue) != before
    assert (await syncline("sync", graph.slug)).status == 0
    by_hand = await lab.client.get_workflow_handle(names.sync_workflow_id(graph.slug)).describe()
    assert by_hand.raw_description.workflow_execution_info.priority.fairness_key == "tenant-7"
    # By a recipe of `temporal`, the run itself has none; its cycle has.
    run = await lab.start(graph)
    await run.result()
    assert await activities_of(lab, run.id) == {names.RESOLVE_PROVIDER: "", names.SYNC_CYCLE: "tenant-7"}

    await syncline.answer("graph set", graph.slug, "--fairness-key", "", "--fairness-weight", "0")
    assert await action_of(lab, graph) == Priority(priority_key=3, fairness_key=graph.slug)
    taken_back = await lab.services.graphs.get(graph.slug)
    assert (taken_back.fairness_key, taken_back.fairness_weight) == (None, None)


@pytest.mark.parametrize("bad", ["spaces here", "x" * 65, "ümlaut"])
async def test_fairness_key_that_temporal_would_not_take_is_refused(lab: SyncLab, bad: str) -> None:
    with pytest.raises(GraphInvalid, match="fairness_key"):
        await lab.add_graph(fairness_key=bad)
