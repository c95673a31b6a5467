"""What one run hands to the next: fallback since when and how often, and the sums."""

import asyncio
from datetime import datetime

import pytest
from temporalio.api.common.v1 import Payload, Payloads, WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest
from temporalio.client import ScheduleUpdate, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle

from syncline import names
from syncline.graphs import Graph
from syncline.messages import RunPhase, SyncCycleRequest, SyncGraphResult, SyncResult
from syncline.provider import SyncContext
from syncline.schedules import ensure_schedule
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result

SELDOM = {"every_seconds": 2_592_000}


class ScheduledRuns:
    """Triggers a graph's Schedule and waits for the run that it starts, again and again."""

    def __init__(self, lab: SyncLab, graph: Graph) -> None:
        self._lab = lab
        self._schedule = lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug))
        self._seen: set[str] = set()

    async def next(self) -> WorkflowHandle:
        """Trigger the Schedule and return the run that it starts."""
        await self._schedule.trigger()
        found: list[WorkflowHandle] = []

        async def started() -> bool:
            for action in (await self._schedule.describe()).info.recent_actions:
                execution = action.action
                if execution.first_execution_run_id not in self._seen:
                    self._seen.add(execution.first_execution_run_id)
                    found.append(
                        self._lab.client.get_workflow_handle(
                            execution.workflow_id,
                            run_id=execution.first_execution_run_id,
                            result_type=SyncGraphResult,
                        )
                    )
            return bool(found)

        await eventually(started)
        return found[0]


async def scheduled(lab: SyncLab, graph: Graph) -> ScheduledRuns:
    """Give the graph a Schedule that never fires by itself during a test."""
    assert await ensure_schedule(lab.client, graph, task_queue=lab.task_queue) == "created"
    return ScheduledRuns(lab, graph)


async def told_to_the_cycle(lab: SyncLab, run: WorkflowHandle) -> datetime | None:
    """Since when the graph has been in fallback, as the run told its cycle."""
    history = await run.fetch_history()
    scheduled = [event.activity_task_scheduled_event_attributes for event in history.events]
    [payloads] = [item.input.payloads for item in scheduled if item.activity_type.name == names.SYNC_CYCLE]
    [request] = await lab.client.data_converter.decode(payloads, [SyncCycleRequest])
    return request.fallback_since


async def test_a_fallback_is_counted_from_run_to_run_until_a_provider_returns(lab: SyncLab) -> None:
    graph = await lab.add_graph("acme-sync", prepare=True, schedule=SELDOM)
    runs = await scheduled(lab, graph)

    run = await runs.next()
    first = (await run.result()).carried
    assert first.consecutive_fallback_runs == 1
    assert await told_to_the_cycle(lab, run) is None
    assert first.first_fallback_at is not None

    run = await runs.next()
    second = (await run.result()).carried
    assert second.consecutive_fallback_runs == 2
    assert second.first_fallback_at == first.first_fallback_at
    assert second.totals.runs == 2
    assert await told_to_the_cycle(lab, run) == first.first_fallback_at
    state = await lab.state(run)
    assert (state.provider.consecutive_fallback_runs, state.provider.fallback_since) == (
        2,
        first.first_fallback_at,
    )
    assert "2 runs in a row" in await lab.details(run)

    lab.services.registry.register("sync", FakeProvider("acme-sync"), "acme 1.0")
    third = (await (await runs.next()).result()).carried
    assert (third.consecutive_fallback_runs, third.first_fallback_at, third.totals.runs) == (0, None, 3)


async def test_sums_grow_over_runs_those_that_fail_too(lab: SyncLab) -> None:
    results = [sync_result(rows=2), sync_result(rows=5, error="column gone"), sync_result(rows=3)]

    async def next_result(context: SyncContext) -> SyncResult:
        return results.pop(0)

    graph = await lab.add_graph(FakeProvider(cycle=next_result), schedule=SELDOM)
    runs = await scheduled(lab, graph)

    assert (await (await runs.next()).result()).carried.totals.rows == 2
    failed = await runs.next()
    with pytest.raises(WorkflowFailureError):
        await failed.result()
    state = await lab.state(failed)
    assert (state.phase, state.carried.totals.rows) == (RunPhase.FAILED, 7)
    totals = (await (await runs.next()).result()).carried.totals
    assert (totals.runs, totals.failed, totals.rows, totals.failures) == (3, 1, 10, 1)


async def test_a_new_run_shows_the_last_result_until_it_has_its_own(lab: SyncLab) -> None:
    release = asyncio.Event()
    release.set()

    async def wait(context: SyncContext) -> SyncResult:
        await release.wait()
        return sync_result(rows=7)

    graph = await lab.add_graph(FakeProvider(cycle=wait), schedule=SELDOM)
    runs = await scheduled(lab, graph)
    await (await runs.next()).result()
    release.clear()
    run = await runs.next()

    async def syncing() -> bool:
        return (await lab.state(run)).phase is RunPhase.SYNCING

    await eventually(syncing)
    state = await lab.state(run)
    assert state.last_result is not None
    assert state.last_result.rows == 7
    assert "nodes" not in await lab.details(run)
    release.set()
    await run.result()


async def test_a_schedule_that_is_pointed_at_another_graph_starts_new_sums(lab: SyncLab) -> None:
    graph = await lab.add_graph(FakeProvider(), schedule=SELDOM)
    other = await lab.add_graph("fake")
    runs = await scheduled(lab, graph)
    await (await runs.next()).result()

    def repointed(current):
        current.description.schedule.action.args = [{"graph": other.slug}]
        return ScheduleUpdate(schedule=current.description.schedule)

    await lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug)).update(repointed)
    result = await (await runs.next()).result()
    assert (result.graph.slug, result.carried.totals.runs) == (other.slug, 1)


async def test_cron_runs_carry_state_too(lab: SyncLab) -> None:
    graph = await lab.add_graph("acme-sync", prepare=True)
    first = await lab.client.start_workflow(
        names.SYNC_GRAPH,
        {"graph": graph.slug},
        id=lab.unique("cron"),
        task_queue=lab.task_queue,
        cron_schedule="@every 1s",
        result_type=SyncGraphResult,
    )
    second_id = None

    async def second_completed() -> bool:
        nonlocal second_id
        closed = [
            run.run_id
            async for run in lab.client.list_workflows(
                f"WorkflowId='{first.id}' AND ExecutionStatus!='Running'"
            )
            if run.run_id != first.result_run_id
        ]
        second_id = closed[-1] if closed else None
        return second_id is not None

    await eventually(second_completed)
    await first.terminate()
    second = lab.client.get_workflow_handle(first.id, run_id=second_id)
    assert (await second.describe()).status is not WorkflowExecutionStatus.FAILED
    state = await lab.state(second)
    assert state.carried.consecutive_fallback_runs == 2
    assert (await lab.attributes(second))["SynclineRows"] == 0


async def test_a_last_result_that_cannot_be_read_costs_the_sums_and_nothing_else(lab: SyncLab) -> None:
    """Another workflow's result, under the same Schedule: it would otherwise fail every run for ever."""
    graph = await lab.add_graph(FakeProvider(), schedule=SELDOM)
    runs = await scheduled(lab, graph)
    await (await runs.next()).result()
    # The next run is started with a completion result that is no SyncGraphResult.
    [given] = await lab.client.data_converter.encode([{"graph": graph.slug}])
    await lab.client.workflow_service.start_workflow_execution(
        StartWorkflowExecutionRequest(
            namespace=lab.client.namespace,
            workflow_id=(run_id := lab.unique("odd")),
            workflow_type=WorkflowType(name=names.SYNC_GRAPH),
            task_queue=TaskQueue(name=lab.task_queue),
            input=Payloads(payloads=[given]),
            request_id=lab.unique("request"),
            last_completion_result=Payloads(
                payloads=[Payload(metadata={"encoding": b"json/plain"}, data=b'{"unheard": "of"}')]
            ),
        )
    )
    run = lab.client.get_workflow_handle(run_id, result_type=SyncGraphResult)
    assert (await run.result()).carried.totals.runs == 1
