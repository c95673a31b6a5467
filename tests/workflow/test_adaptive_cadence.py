"""The Schedule of an adaptive graph slows down while it is idle, and nothing is late for that."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import (
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleBackfill,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    WorkflowHandle,
)

from syncline import names
from syncline.capture.listen import listener as listening
from syncline.capture.listen import status as hearing
from syncline.control.graphs import Graph, GraphChanges
from syncline.errors import TemporalUnavailable
from syncline.messages.sync import Cadence, CycleStatus, SyncGraphResult, SyncResult
from syncline.provider import SyncContext
from syncline.temporal.schedules.graph import ensure_schedule, graph_fingerprint
from syncline.temporal.schedules.make import set_interval
from syncline.temporal.schedules.reconcile import reconcile
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from tests.kit.run_starter import RunsStartedBy
from worker import listen

ADAPTIVE = {"every_seconds": 1, "adaptive": True, "cadence": [2]}


class Busy(FakeProvider):
    """A provider that has something to do for the graphs that it is told of."""

    def __init__(self) -> None:
        super().__init__("busy", cycle=self._cycle)
        self.rows: dict[str, int] = {}
        self.broken: set[str] = set()

    async def _cycle(self, context: SyncContext) -> SyncResult:
        if context.graph.slug in self.broken:
            return sync_result(error="column gone")
        return sync_result(rows=self.rows.pop(context.graph.slug, 0))


@pytest.fixture
def lab(shared_lab: SyncLab) -> SyncLab:
    return shared_lab


@pytest.fixture(scope="module")
def busy(shared_lab: SyncLab) -> Busy:
    busy = Busy()
    shared_lab.services.registry.register("sync", busy, "lab 1.0")
    return busy


async def adaptive(lab: SyncLab, **schedule: object) -> Graph:
    graph = await lab.add_graph("busy", prepare=True, schedule={**ADAPTIVE, **schedule})
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    return graph


def schedule_of(lab: SyncLab, graph: Graph):
    return lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug))


def interval_of(described: ScheduleDescription) -> int:
    [interval] = described.schedule.spec.intervals
    return int(interval.every.total_seconds())


async def slowed(lab: SyncLab, graph: Graph, seconds: int) -> None:
    async def so() -> bool:
        return interval_of(await schedule_of(lab, graph).describe()) == seconds

    await eventually(so)


async def last(lab: SyncLab, graph: Graph) -> SyncGraphResult:
    """The result of the latest run that has ended."""
    query = f"SynclineGraph='{graph.slug}' AND ExecutionStatus='Completed'"
    async for run in lab.client.list_workflows(query, limit=1):
        return await lab.client.get_workflow_handle(
            run.id, run_id=run.run_id, result_type=SyncGraphResult
        ).result()
    raise AssertionError("no run has ended")


async def cadence(lab: SyncLab, graph: Graph) -> Cadence:
    found = (await last(lab, graph)).carried.cadence
    assert found is not None
    return found


async def slowed_by(lab: SyncLab, schedule: ScheduleHandle) -> WorkflowHandle:
    """The newest of the Schedule's runs that has changed its interval."""
    for recent in reversed((await schedule.describe()).info.recent_actions):
        action = recent.action
        assert isinstance(action, ScheduleActionExecutionStartWorkflow)
        # Of two runs that begin within a second both have the same workflow id.
        run = lab.client.get_workflow_handle(action.workflow_id, run_id=action.first_execution_run_id)
        await run.result()
        if "set_cadence" in await activities_of(run):
            return run
    raise AssertionError("no run has changed the interval")


async def activities_of(run: WorkflowHandle) -> list[str]:
    """The activities that the run has scheduled."""
    history = await run.fetch_history()
    return [
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


@asynccontextmanager
async def listened_to(lab: SyncLab) -> AsyncIterator[asyncpg.Connection]:
    """While a worker listens; yields a writer's connection."""
    connection = await asyncpg.connect(lab.services.settings.write_dsn.get_secret_value())
    try:
        async with listen(lab.client, lab.services):
            lease = "SELECT count(*) > 0 FROM syncline.listener WHERE until > clock_timestamp()"
            await eventually(lambda: connection.fetchval(lease))
            yield connection
        await connection.execute("UPDATE syncline.listener SET until = '-infinity'")
    finally:
        await connection.close()


async def test_it_slows_down_step_by_step_and_a_change_puts_it_back(lab: SyncLab, busy: Busy) -> None:
    graph = await adaptive(lab, cadence=[2, 4, 3600])
    async with listened_to(lab) as connection:
        await slowed(lab, graph, 2)
        await slowed(lab, graph, 4)

        async def carried() -> bool:
            return (await cadence(lab, graph)).every_seconds == 4

        await eventually(carried)
        now = await cadence(lab, graph)
        assert now.base_seconds == 1
        assert now.reason.startswith("Slowed down: idle since ")
        described = await schedule_of(lab, graph).describe()
        assert described.schedule.policy.catchup_window == timedelta(seconds=10)
        busy.rows[graph.slug] = 1
        await connection.execute(
            f"INSERT INTO {graph.schema_name}.write_facts (id, content) VALUES ('a', 'c')"
        )
        await slowed(lab, graph, 1)
    await schedule_of(lab, graph).delete()


@pytest.mark.long("test_it_slows_down_step_by_step_and_a_change_puts_it_back")
async def test_a_slow_schedule_survives_reconciliation_and_an_operators_pause_survives_it(
    lab: SyncLab, busy: Busy
) -> None:
    graph = await adaptive(lab)
    async with listened_to(lab):
        await slowed(lab, graph, 2)
    schedule = schedule_of(lab, graph)
    await schedule.pause(note="maintenance")
    result = await reconcile(
        lab.client, lab.services.graphs.records, task_queue=lab.task_queue, progressed=lambda _: None
    )
    assert graph.slug not in result.updated_graphs
    before = await schedule.describe()
    assert interval_of(before) == 2

    fingerprint = graph_fingerprint(graph, lab.task_queue)
    assert await set_interval(lab.client, graph.slug, every_seconds=7, fingerprint=fingerprint)
    after = await schedule.describe()
    assert interval_of(after) == 7
    assert (after.schedule.state.paused, after.schedule.state.note) == (True, "maintenance")
    action, former = after.schedule.action, before.schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert isinstance(former, ScheduleActionStartWorkflow)
    assert (action.args, action.memo, action.id, action.execution_timeout, action.typed_search_attributes) == (
        former.args, former.memo, former.id, former.execution_timeout, former.typed_search_attributes
    )  # fmt: skip
    assert action.static_summary == former.static_summary
    assert after.typed_search_attributes == before.typed_search_attributes

    changed = await lab.services.graphs.update(
        graph.slug, GraphChanges.model_validate({"schedule": {**ADAPTIVE, "every_seconds": 30}})
    )
    assert await ensure_schedule(lab.client, changed, task_queue=lab.task_queue) == "updated"
    assert interval_of(await schedule.describe()) == 30
    # Of the record as it was: too late.
    assert not await set_interval(lab.client, graph.slug, every_seconds=7, fingerprint=fingerprint)
    assert interval_of(await schedule.describe()) == 30
    await schedule.delete()
    assert not await set_interval(lab.client, graph.slug, every_seconds=7, fingerprint=fingerprint)


def meanwhile(
    lab: SyncLab, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[object]], *, readings: int
) -> None:
    """Have somebody act once, as soon as Schedules have been read so many times."""
    service = lab.client.workflow_service
    describe, left = service.describe_schedule, readings

    async def then_act(*arguments: object, **keywords: object) -> object:
        nonlocal left
        answer = await describe(*arguments, **keywords)
        left -= 1
        if left == 0:
            await act()
        return answer

    monkeypatch.setattr(service, "describe_schedule", then_act)


@pytest.mark.parametrize("readings", [1, 2])
async def test_a_record_that_changes_while_the_cadence_is_set_comes_first(
    idle_lab: SyncLab, monkeypatch: pytest.MonkeyPatch, readings: int
) -> None:
    graph = await idle_lab.add_graph(schedule=ADAPTIVE)
    await ensure_schedule(idle_lab.client, graph, task_queue=idle_lab.task_queue)
    changed = await idle_lab.services.graphs.update(
        graph.slug, GraphChanges.model_validate({"schedule": {"cron": "30 4 * * *"}})
    )

    async def change() -> None:
        await ensure_schedule(idle_lab.client, changed, task_queue=idle_lab.task_queue)

    meanwhile(idle_lab, monkeypatch, change, readings=readings)
    fingerprint = graph_fingerprint(graph, idle_lab.task_queue)
    assert not await set_interval(idle_lab.client, graph.slug, every_seconds=900, fingerprint=fingerprint)
    spec = (await schedule_of(idle_lab, graph).describe()).schedule.spec
    assert (spec.intervals, [each.hour[0].start for each in spec.calendars]) == ([], [4])


async def test_an_operators_pause_while_the_cadence_is_set_stays(
    idle_lab: SyncLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = await idle_lab.add_graph(schedule=ADAPTIVE)
    await ensure_schedule(idle_lab.client, graph, task_queue=idle_lab.task_queue)
    schedule = schedule_of(idle_lab, graph)
    meanwhile(idle_lab, monkeypatch, lambda: schedule.pause(note="mine"), readings=1)
    fingerprint = graph_fingerprint(graph, idle_lab.task_queue)
    assert await set_interval(idle_lab.client, graph.slug, every_seconds=900, fingerprint=fingerprint)
    described = await schedule.describe()
    assert interval_of(described) == 900
    assert (described.schedule.state.paused, described.schedule.state.note) == (True, "mine")


@pytest.mark.long("test_it_slows_down_step_by_step_and_a_change_puts_it_back")
async def test_a_graph_that_is_paused_and_resumed_is_run_as_rarely_as_before(idle_lab: SyncLab) -> None:
    graph = await idle_lab.add_graph(schedule=ADAPTIVE)
    await ensure_schedule(idle_lab.client, graph, task_queue=idle_lab.task_queue)
    fingerprint = graph_fingerprint(graph, idle_lab.task_queue)
    assert await set_interval(idle_lab.client, graph.slug, every_seconds=900, fingerprint=fingerprint)
    for status, paused in (("paused", True), ("active", False)):
        graph = await idle_lab.services.graphs.update(
            graph.slug, GraphChanges.model_validate({"status": status})
        )
        assert await ensure_schedule(idle_lab.client, graph, task_queue=idle_lab.task_queue) == "updated"
        described = await schedule_of(idle_lab, graph).describe()
        assert (interval_of(described), described.schedule.state.paused) == (900, paused)
        assert described.schedule.policy.catchup_window == timedelta(seconds=900)


@pytest.mark.long("test_it_slows_down_step_by_step_and_a_change_puts_it_back")
async def test_a_run_that_fails_is_followed_soon(lab: SyncLab, busy: Busy) -> None:
    graph = await adaptive(lab)
    async with listened_to(lab):
        await slowed(lab, graph, 2)
        busy.broken.add(graph.slug)
        await slowed(lab, graph, 1)

        async def told() -> bool:
            query = f"SynclineGraph='{graph.slug}' AND ExecutionStatus='Failed'"
            async for run in lab.client.list_workflows(query, limit=1):
                state = await lab.state(lab.client.get_workflow_handle(run.id, run_id=run.run_id))
                now = state.carried.cadence
                return (now and (now.every_seconds, now.reason)) == (1, "At its base, because a run failed.")
            return False

        await eventually(told)
        busy.broken.clear()
        # What it carried was of before the failure; what the Schedule does counts.
        await slowed(lab, graph, 2)
    await schedule_of(lab, graph).delete()


@pytest.mark.long("test_it_slows_down_step_by_step_and_a_change_puts_it_back")
async def test_it_keeps_its_base_while_nobody_listens(lab: SyncLab, busy: Busy) -> None:
    graph = await adaptive(lab)
    async with listened_to(lab):
        await slowed(lab, graph, 2)
    await slowed(lab, graph, 1)

    async def told() -> bool:
        return (await cadence(lab, graph)).reason.endswith("no worker listens to write-db 'write'.")

    await eventually(told)
    await schedule_of(lab, graph).delete()


@pytest.mark.long("test_it_slows_down_step_by_step_and_a_change_puts_it_back")
async def test_workers_that_cannot_listen_have_slow_graphs_go_back(
    lab: SyncLab, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_REFRESH", 0.2)
    monkeypatch.setattr(listening, "_ALONE", 0.5)
    monkeypatch.setattr(hearing, "_REMEMBERED", 0)
    graph = await adaptive(lab, every_seconds=2, cadence=[3])
    async with listened_to(lab):
        await slowed(lab, graph, 3)
    # An hour from now, if nobody does anything.
    assert await set_interval(
        lab.client, graph.slug, every_seconds=3600, fingerprint=graph_fingerprint(graph, lab.task_queue)
    )
    line = f"syncline.listener:{lab.client.namespace}/{lab.task_queue}/write"
    async with lab.services.store("write", None).alone("in the way") as silent:
        await silent.execute(f"SELECT pg_advisory_lock(hashtextextended('{line}', 0))")
        async with listen(lab.client, lab.services):
            await slowed(lab, graph, 2)
    await schedule_of(lab, graph).delete()


@pytest.mark.long("test_it_slows_down_step_by_step_and_a_change_puts_it_back")
async def test_who_could_not_be_sent_back_is_tried_again_and_stops_no_other(
    lab: SyncLab, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_REFRESH", 0.2)
    monkeypatch.setattr(listening, "_ALONE", 0.2)
    graphs = [await lab.add_graph("busy", prepare=True, schedule=ADAPTIVE) for _ in range(3)]
    woken: list[str] = []

    async def trigger(graph: Graph) -> str:
        woken.append(graph.slug)
        if woken.count(graph.slug) == 1:
            raise TemporalUnavailable("nowhere", "default", "gone for a moment")
        return "paused" if woken.count(graph.slug) == 2 and graph == graphs[0] else "started"

    async def again() -> bool:
        return [woken.count(graph.slug) for graph in graphs] == [3, 2, 2]

    line = f"syncline.listener:{lab.client.namespace}/{lab.task_queue}/write"
    async with lab.services.store("write", None).alone("in the way") as silent:
        await silent.execute(f"SELECT pg_advisory_lock(hashtextextended('{line}', 0))")
        async with listening.Listening(lab.services, RunsStartedBy(trigger), namespace=lab.client.namespace):
            await eventually(again)
            await asyncio.sleep(1)
            assert await again()


async def test_a_run_by_hand_leaves_the_schedule_alone_and_a_step_costs_one_activity(
    lab: SyncLab, busy: Busy
) -> None:
    graph = await adaptive(lab, cadence=[3600], every_seconds=600)
    run = await lab.start(graph)
    assert (await run.result()).carried.cadence is None
    assert (await lab.events(run)).count("ACTIVITY_TASK_SCHEDULED") == 2
    assert (await run.result()).result.status is CycleStatus.DRAINED
    await schedule_of(lab, graph).delete()


@pytest.mark.long("test_it_slows_down_step_by_step_and_a_change_puts_it_back")
async def test_set_cadence_of_a_run_that_was_reset(lab: SyncLab, busy: Busy) -> None:
    """It remembers an idle time long ago; the Schedule is as its newest run has set it."""
    graph = await adaptive(lab)
    schedule, fingerprint = schedule_of(lab, graph), graph_fingerprint(graph, lab.task_queue)
    async with listened_to(lab):
        await slowed(lab, graph, 2)
        await schedule.pause(note="nothing else runs")
        old = await slowed_by(lab, schedule)
        assert await set_interval(lab.client, graph.slug, every_seconds=1, fingerprint=fingerprint)
        reset = await lab.client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=lab.client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=old.id, run_id=old.run_id or ""),
                reason="once more",
                request_id=lab.unique("request"),
                workflow_task_finish_event_id=4,
            )
        )
        again = lab.client.get_workflow_handle(old.id, run_id=reset.run_id)
        await again.result()
        assert "set_cadence" in await activities_of(again)
        assert interval_of(await schedule.describe()) == 1
    await schedule.delete()


@pytest.mark.long("test_it_slows_down_step_by_step_and_a_change_puts_it_back")
async def test_set_cadence_of_runs_beside_the_newest(lab: SyncLab, busy: Busy) -> None:
    """Backfilled at once, or triggered beside a run that is open."""
    graph = await adaptive(lab)
    schedule, fingerprint = schedule_of(lab, graph), graph_fingerprint(graph, lab.task_queue)
    async with listened_to(lab):
        await slowed(lab, graph, 2)
        await schedule.pause(note="nothing else runs")

        async def at_rest() -> bool:
            query = f"SynclineGraph='{graph.slug}' AND ExecutionStatus='Running'"
            found = [run.id async for run in lab.client.list_workflows(query)]
            return not found and not (await schedule.describe()).info.running_actions

        # A run that had begun before the pause is the newest still: what it sets stands.
        await eventually(at_rest)
        assert await set_interval(lab.client, graph.slug, every_seconds=7, fingerprint=fingerprint)
        # Of two runs that begin within a second both have the same workflow id.
        known = {run.run_id async for run in lab.client.list_workflows(f"SynclineGraph='{graph.slug}'")}
        busy.broken.add(graph.slug)
        past = datetime.now(UTC) - timedelta(hours=1)
        span = ScheduleBackfill(
            start_at=past, end_at=past + timedelta(seconds=20), overlap=ScheduleOverlapPolicy.ALLOW_ALL
        )

        async def ended(runs: int) -> None:
            query = f"SynclineGraph='{graph.slug}' AND ExecutionStatus!='Running'"

            async def so() -> bool:
                return len({run.run_id async for run in lab.client.list_workflows(query)} - known) >= runs

            await eventually(so)

        await schedule.backfill(span)
        # Of two patches that meet in one workflow task of the Schedule, the server keeps the later alone.
        await ended(2)
        await schedule.trigger(overlap=ScheduleOverlapPolicy.ALLOW_ALL)
        await ended(3)
        busy.broken.clear()
        assert interval_of(await schedule.describe()) == 7
    await schedule.delete()
