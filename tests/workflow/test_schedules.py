"""Schedules follow the graphs' records, and leave to operators what is theirs."""

from datetime import timedelta

import pytest
from temporalio.client import ScheduleActionStartWorkflow, ScheduleOverlapPolicy, ScheduleUpdate
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.control.graphs import Graph, GraphChanges
from syncline.temporal.schedules.graph import PAUSED_WITH_GRAPH, ensure_schedule
from syncline.temporal.schedules.list import list_schedule_ids
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider


async def ensure(lab: SyncLab, graph: Graph) -> str:
    return await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)


def schedule_of(lab: SyncLab, graph: Graph):
    return lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug))


async def test_a_new_graph_gets_a_schedule(idle_lab: SyncLab) -> None:
    # Not any name: of one in sixty the offset is nothing, which comes back as None.
    graph = await idle_lab.add_graph(slug="a-new-graph")
    assert await ensure(idle_lab, graph) == "created"

    described = await schedule_of(idle_lab, graph).describe()
    action, policy = described.schedule.action, described.schedule.policy
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert (action.workflow, action.id) == ("SyncGraph", f"sync-graph/{graph.slug}")
    assert action.execution_timeout == timedelta(hours=3)
    assert action.task_queue == idle_lab.task_queue
    [interval] = described.schedule.spec.intervals
    assert interval.every == timedelta(seconds=60)
    assert interval.offset is not None
    assert timedelta(0) <= interval.offset < timedelta(seconds=60)
    assert policy.overlap is ScheduleOverlapPolicy.SKIP
    assert policy.catchup_window == timedelta(seconds=60)
    assert policy.pause_on_failure is False
    assert not described.schedule.state.paused


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("slug", "second"), [("world", 1375), ("wordnet", 49), ("genes", 2281), ("papers", 1266)]
)
async def test_a_graph_keeps_its_place_in_the_hour(idle_lab: SyncLab, slug: str, second: int) -> None:
    graph = await idle_lab.add_graph(slug=slug, schedule={"every_seconds": 3600})
    await ensure(idle_lab, graph)
    described = await schedule_of(idle_lab, graph).describe()
    await schedule_of(idle_lab, graph).delete()
    assert described.schedule.spec.intervals[0].offset == timedelta(seconds=second)


async def test_a_graph_that_did_not_change_is_left_alone(idle_lab: SyncLab) -> None:
    graph = await idle_lab.add_graph()
    await ensure(idle_lab, graph)
    before = await schedule_of(idle_lab, graph).describe()
    assert await ensure(idle_lab, graph) == "unchanged"
    after = await schedule_of(idle_lab, graph).describe()
    assert after.info.last_updated_at == before.info.last_updated_at


async def test_a_changed_interval_or_cron_reaches_the_schedule(idle_lab: SyncLab) -> None:
    graph = await idle_lab.add_graph()
    await ensure(idle_lab, graph)
    graph = await idle_lab.services.graphs.update(
        graph.slug, GraphChanges.model_validate({"schedule": {"every_seconds": 300}})
    )
    assert await ensure(idle_lab, graph) == "updated"
    described = await schedule_of(idle_lab, graph).describe()
    assert described.schedule.spec.intervals[0].every == timedelta(minutes=5)
    assert described.schedule.policy.catchup_window == timedelta(minutes=5)

    graph = await idle_lab.services.graphs.update(
        graph.slug, GraphChanges.model_validate({"schedule": {"cron": "30 4 * * *"}})
    )
    assert await ensure(idle_lab, graph) == "updated"
    described = await schedule_of(idle_lab, graph).describe()
    assert described.schedule.spec.intervals == []
    [calendar] = described.schedule.spec.calendars
    assert (calendar.hour[0].start, calendar.minute[0].start) == (4, 30)
    assert await ensure(idle_lab, graph) == "unchanged"


async def test_another_task_queue_reaches_the_schedule(idle_lab: SyncLab) -> None:
    graph = await idle_lab.add_graph()
    await ensure(idle_lab, graph)
    assert await ensure_schedule(idle_lab.client, graph, task_queue="elsewhere") == "updated"


async def test_an_operators_pause_survives_a_change(idle_lab: SyncLab) -> None:
    graph = await idle_lab.add_graph()
    await ensure(idle_lab, graph)
    await schedule_of(idle_lab, graph).pause(note="hands off, I am looking at it")
    graph = await idle_lab.services.graphs.update(
        graph.slug, GraphChanges.model_validate({"schedule": {"every_seconds": 300}})
    )
    assert await ensure(idle_lab, graph) == "updated"
    state = (await schedule_of(idle_lab, graph).describe()).schedule.state
    assert (state.paused, state.note) == (True, "hands off, I am looking at it")


async def test_an_operators_pause_while_a_change_is_written_stays(
    idle_lab: SyncLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = await idle_lab.add_graph()
    await ensure(idle_lab, graph)
    schedule, service = schedule_of(idle_lab, graph), idle_lab.client.workflow_service
    update = service.update_schedule

    async def pause_first(*arguments: object, **keywords: object) -> object:
        monkeypatch.undo()
        await schedule.pause(note="mine")
        return await update(*arguments, **keywords)

    monkeypatch.setattr(service, "update_schedule", pause_first)
    graph = await idle_lab.services.graphs.update(
        graph.slug, GraphChanges.model_validate({"schedule": {"every_seconds": 300}})
    )
    assert await ensure(idle_lab, graph) == "updated"
    described = await schedule.describe()
    assert (described.schedule.state.paused, described.schedule.state.note) == (True, "mine")
    assert described.schedule.spec.intervals[0].every == timedelta(seconds=300)


async def test_a_schedule_is_paused_and_resumed_with_its_graph(idle_lab: SyncLab) -> None:
    graph = await idle_lab.add_graph(status="paused")
    assert await ensure(idle_lab, graph) == "created"
    state = (await schedule_of(idle_lab, graph).describe()).schedule.state
    assert (state.paused, state.note) == (True, PAUSED_WITH_GRAPH)

    active = await idle_lab.services.graphs.update(
        graph.slug, GraphChanges.model_validate({"status": "active"})
    )
    assert await ensure(idle_lab, active) == "updated"
    assert not (await schedule_of(idle_lab, graph).describe()).schedule.state.paused
    assert await ensure(idle_lab, active) == "unchanged"


async def test_an_operators_pause_outlives_the_graphs(idle_lab: SyncLab) -> None:
    graph = await idle_lab.add_graph()
    await ensure(idle_lab, graph)
    await schedule_of(idle_lab, graph).pause(note="mine")
    paused = await idle_lab.services.graphs.update(
        graph.slug, GraphChanges.model_validate({"status": "paused"})
    )
    assert await ensure(idle_lab, paused) == "unchanged"
    active = await idle_lab.services.graphs.update(
        graph.slug, GraphChanges.model_validate({"status": "active"})
    )
    assert await ensure(idle_lab, active) == "unchanged"
    state = (await schedule_of(idle_lab, graph).describe()).schedule.state
    assert (state.paused, state.note) == (True, "mine")


async def test_an_archived_graph_has_no_schedule(idle_lab: SyncLab) -> None:
    graph = await idle_lab.add_graph()
    await ensure(idle_lab, graph)
    archived = await idle_lab.services.graphs.update(
        graph.slug, GraphChanges.model_validate({"status": "archived"})
    )
    assert await ensure(idle_lab, archived) == "deleted"
    with pytest.raises(RPCError) as gone:
        await schedule_of(idle_lab, graph).describe()
    assert gone.value.status is RPCStatusCode.NOT_FOUND
    assert await ensure(idle_lab, archived) == "absent"


async def test_a_change_by_hand_stays_until_the_graph_changes(idle_lab: SyncLab) -> None:
    graph = await idle_lab.add_graph()
    await ensure(idle_lab, graph)

    def slower(current):
        current.description.schedule.spec.intervals[0].every = timedelta(seconds=90)
        return ScheduleUpdate(schedule=current.description.schedule)

    await schedule_of(idle_lab, graph).update(slower)
    assert await ensure(idle_lab, graph) == "unchanged"
    described = await schedule_of(idle_lab, graph).describe()
    assert described.schedule.spec.intervals[0].every == timedelta(seconds=90)


async def test_schedules_of_graphs_are_listed(idle_lab: SyncLab) -> None:
    graph = await idle_lab.add_graph()
    await ensure(idle_lab, graph)

    async def listed() -> bool:
        return names.sync_schedule_id(graph.slug) in await list_schedule_ids(idle_lab.client)

    await eventually(listed)


async def test_a_scheduled_run_is_found_by_its_graph_and_has_a_summary(lab: SyncLab) -> None:
    graph = await lab.add_graph(FakeProvider(), schedule={"every_seconds": 2_592_000})
    await ensure(lab, graph)
    await schedule_of(lab, graph).trigger()

    async def found() -> bool:
        query = f"SynclineGraph='{graph.slug}' AND ExecutionStatus='Completed'"
        return [run async for run in lab.client.list_workflows(query)] != []

    await eventually(found)
    [execution] = [run async for run in lab.client.list_workflows(f"SynclineGraph='{graph.slug}'")]
    assert execution.id.startswith(f"sync-graph/{graph.slug}")
    described = await lab.client.get_workflow_handle(execution.id, run_id=execution.run_id).describe()
    assert await described.static_summary() == f"Sync graph {graph.slug}"
    assert (await described.memo())["graph"] == graph.slug
    run = lab.client.get_workflow_handle(execution.id, run_id=execution.run_id)
    assert await lab.attributes(run) == {
        "SynclineGraph": graph.slug,
        "SynclineProvider": "fake",
        "SynclineFallback": False,
        "SynclineRows": 0,
        "SynclineFailures": 0,
    }
    # It began with them. Setting one costs the server as much as an activity, and most runs are idle.
    assert "UPSERT_WORKFLOW_SEARCH_ATTRIBUTES" not in await lab.events(run)
