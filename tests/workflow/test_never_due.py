"""A Schedule that never comes again, or all too often, is told wherever somebody looks."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from syncline import names
from syncline.control.graphs import Graph, GraphChanges, GraphDraft, draft_graph, graph_changes
from syncline.control.schedule_spec import ScheduleSpec as WrittenSpec
from syncline.errors import GraphInvalid
from syncline.messages.operator import AddGraphInput
from syncline.messages.sync import Reconciliation
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.temporal.schedules.list import due_schedules, list_schedules
from syncline.temporal.schedules.reconcile import reconcile, reconcile_now
from syncline.testing.lab import SyncLab, eventually
from tests.kit.command_line import CommandLine
from workflows.operations import OPERATIONS, DescribeFleet, DescribeGraphs, DescribeHealth
from workflows.reconcile import ReconcileSchedules
from workflows.sync_graph import SyncGraph
from workflows.visibility import WaitVisible

NEVER = "0 0 30 2 *"
PAST = timedelta(seconds=-1)
DAY = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(days=1))])


@pytest.fixture
def schedules(idle_lab: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]) -> CommandLine:
    """The commands that need no worker."""
    return temporal_only(idle_lab)


async def scheduled(lab: SyncLab, **fields: object) -> Graph:
    graph = await lab.add_graph(**{"schedule": {"every_seconds": 86_400}, **fields})
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    return graph


async def change(lab: SyncLab, slug: str, changed: Callable[[Schedule], None]) -> None:
    """Change a graph's Schedule as an operator does in the Web UI, and wait until the list has it."""
    handle = lab.client.get_schedule_handle(names.sync_schedule_id(slug))

    def update(current: ScheduleUpdateInput) -> ScheduleUpdate:
        changed(current.description.schedule)
        return ScheduleUpdate(current.description.schedule)

    await handle.update(update)

    async def listed() -> bool:
        found = {schedule.slug: schedule for schedule in await list_schedules(lab.client)}
        described = await handle.describe()
        times = [] if described.schedule.state.paused else described.info.next_action_times
        return slug in found and (found[slug].next_at is None) == (len(times) == 0)

    await eventually(listed)


def never(schedule: Schedule) -> None:
    schedule.spec = ScheduleSpec(cron_expressions=[NEVER])


def ended(schedule: Schedule) -> None:
    schedule.spec.end_at = datetime.now(UTC) + PAST


async def reconciled(lab: SyncLab) -> Reconciliation:
    return await reconcile(
        lab.client, lab.services.graphs.records, task_queue=lab.task_queue, progressed=lambda _: None
    )


async def checks(syncline: CommandLine) -> dict[str, dict]:
    answer = await syncline.answer("doctor", "--timeout", "1", status=1)  # there is no worker
    return {check["name"]: check for check in answer["checks"]}


@pytest.mark.parametrize("cron", [NEVER, "0 0 0 31 4 * *", "0 0 1 1 * 2020", "TZ=Europe/Berlin 0 0 31 9 *"])
def test_draft_graph_refuses_a_cron_that_never_comes(cron: str) -> None:
    with pytest.raises(GraphInvalid) as refused:
        draft_graph({"slug": "world", "schedule": {"cron": cron}})
    assert (refused.value.graph, refused.value.field) == ("world", "schedule.cron")
    assert cron in str(refused.value)
    with pytest.raises(GraphInvalid):
        graph_changes("world", {"schedule": {"cron": cron}})


def test_a_record_that_never_comes_is_read_and_renamed() -> None:
    """What is stored stays readable: its last time may have passed since it was written."""
    assert WrittenSpec(cron=NEVER).cron == NEVER
    assert graph_changes("world", {"name": "World"}) == GraphChanges(name="World")


def test_workflows_are_all_that_workers_serve() -> None:
    served = (
        SyncGraph,
        ReconcileSchedules,
        DescribeFleet,
        DescribeHealth,
        DescribeGraphs,
        WaitVisible,
        *OPERATIONS,
    )
    assert {workflow.__temporal_workflow_definition.name for workflow in served} == names.WORKFLOWS


async def test_graph_add_refuses_a_cron_that_never_comes(lab: SyncLab, syncline: CommandLine) -> None:
    slug = lab.unique("graph")
    refused = await syncline("graph", "add", slug, "--cron", NEVER)
    assert (refused.status, refused.out) == (2, "")
    assert NEVER in refused.err
    # As anything but our command line starts it.
    request = AddGraphInput(draft=GraphDraft(slug=slug, schedule=WrittenSpec(cron=NEVER)))
    failed = await lab.client.start_workflow(
        names.ADD_GRAPH, request, id=lab.unique("add"), task_queue=lab.task_queue
    )
    assert (await lab.failure(failed)).type == "GraphInvalid"
    assert (await syncline("graph", "show", slug)).status == 2


async def test_graph_set_refuses_a_cron_that_never_comes(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await scheduled(lab)
    refused = await syncline("graph", "set", graph.slug, "--cron", NEVER)
    assert (refused.status, refused.out) == (2, "")
    assert NEVER in refused.err
    assert (await lab.services.graphs.get(graph.slug)).schedule == graph.schedule


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("options", "warned"),
    [
        (("--cron", "* * * * * * *"), "every 1 s"),
        (("--every-seconds", "9"), "every 9 s"),
        (("--cron", "0 0 1 1 * 2099"), "2099-01-01"),
        (("--every-seconds", "10"), None),
    ],
)
async def test_graph_set_warns_of_times_that_are_hardly_meant(
    lab: SyncLab, syncline: CommandLine, options: tuple[str, str], warned: str | None
) -> None:
    graph = await lab.add_graph(status="paused", schedule={"every_seconds": 3600})
    said = await syncline("graph", "set", graph.slug, *options)
    assert said.status == 0
    assert said.err.startswith("warning: ") == (warned is not None)
    assert (warned or "") in said.err


async def test_reconcile_tells_a_record_that_never_comes_at_once(
    lab: SyncLab, syncline: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = GraphDraft(slug=lab.unique("graph"), schedule=WrittenSpec(cron=NEVER))
    await lab.services.graphs.add(draft)
    first = await reconcile_now(lab.client, task_queue=lab.task_queue, seconds=30)
    assert (first.created, first.never_due) == (1, 1)
    assert f"syncline graph set {draft.slug}" in first.never_due_graphs[draft.slug]
    said = await syncline("schedule", "reconcile")
    assert said.status == 0
    assert said.out.splitlines()[-1].split() == ["never", "due", "1"]
    assert draft.slug in said.err
    assert capsys.readouterr().out.count("schedule never due") == 1


@pytest.mark.long(after=1)
@pytest.mark.parametrize("changed", [never, ended], ids=lambda changed: changed.__name__)
async def test_a_schedule_that_never_comes_again_is_told(
    idle_lab: SyncLab, schedules: CommandLine, changed: Callable[[Schedule], None]
) -> None:
    graph = await scheduled(idle_lab)
    await change(idle_lab, graph.slug, changed)

    result = await reconciled(idle_lab)
    assert (result.unchanged, list(result.never_due_graphs)) == (1, [graph.slug])
    [row] = [row for row in await schedules.answer("status") if row["graph"] == graph.slug]
    # Nor does a worker run: both are told.
    assert [finding["state"] for finding in row["findings"]] == ["no worker", "never due"]
    assert row["schedule"]["due"]["kind"] == "never"
    report = await schedules.answer("status GRAPH", graph.slug)
    assert [finding["state"] for finding in report["findings"]] == ["no worker", "never due"]
    assert f"syncline graph set {graph.slug}" in report["schedule"]["due"]["fix"]
    said = await schedules("status", graph.slug)
    assert report["schedule"]["due"]["problem"] in said.out
    told = (await checks(schedules))[f"schedule {names.sync_schedule_id(graph.slug)}"]
    assert told["status"] == "fail"

    handle = idle_lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug))
    await handle.pause(note="not now")
    assert (await schedules.answer("status GRAPH", graph.slug))["standing"] == "paused"
    assert (await due_schedules(idle_lab.client, task_queue=idle_lab.task_queue)).problems == []


async def test_a_schedule_whose_runs_are_used_up_says_so(idle_lab: SyncLab, schedules: CommandLine) -> None:
    graph = await scheduled(idle_lab)

    def limited(schedule: Schedule) -> None:
        schedule.spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(seconds=1))])
        schedule.state = replace(schedule.state, limited_actions=True, remaining_actions=1)

    await change(idle_lab, graph.slug, limited)

    async def used_up() -> bool:
        due = (await schedules.answer("status GRAPH", graph.slug))["schedule"]["due"]
        return due is not None and due["kind"] == "never" and "limited" in due["problem"]

    await eventually(used_up)


async def test_doctor_tells_schedules_of_its_own_task_queue(
    idle_lab: SyncLab, schedules: CommandLine
) -> None:
    """An operator's nightly verification that never comes; that of another installation is not its business."""
    lab = idle_lab
    graph = await lab.add_graph(schedule={"every_seconds": 1})
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    own = {}
    for name, task_queue in (("own", lab.task_queue), ("other", lab.unique("queue"))):
        own[name] = lab.unique("nightly")
        action = ScheduleActionStartWorkflow(
            names.VERIFY_GRAPH, {"graph": graph.slug}, id=own[name], task_queue=task_queue
        )
        spec = replace(DAY, end_at=datetime.now(UTC) + PAST)
        await lab.client.create_schedule(own[name], Schedule(action=action, spec=spec, state=ScheduleState()))

    found: dict[str, dict] = {}

    async def listed() -> bool:
        found.clear()
        found.update(await checks(schedules))
        return f"schedule {own['own']}" in found

    await eventually(listed)
    assert found[f"schedule {own['own']}"]["status"] == "fail"
    assert f"--schedule-id {own['own']}" in found[f"schedule {own['own']}"]["fix"]
    assert f"schedule {own['other']}" not in found
    rapid = found[f"schedule {names.sync_schedule_id(graph.slug)}"]
    assert (rapid["status"], "every 1 s" in rapid["found"]) == ("warn", True)


async def test_a_schedule_that_is_next_due_after_years_is_told(
    idle_lab: SyncLab, schedules: CommandLine
) -> None:
    graph = await scheduled(idle_lab)

    def seldom(schedule: Schedule) -> None:
        schedule.spec = ScheduleSpec(cron_expressions=["0 0 1 1 * 2099"])

    await change(idle_lab, graph.slug, seldom)
    report = await schedules.answer("status GRAPH", graph.slug)
    assert (report["standing"], report["schedule"]["due"]["kind"]) == ("no worker", "rare")
    assert (await reconciled(idle_lab)).never_due == 0
