"""What one run hands to the next: fallback since when and how often, and the sums."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution, WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest, StartWorkflowExecutionRequest
from temporalio.client import ScheduleUpdate, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from syncline import names
from syncline.control.graphs import Graph, GraphChanges
from syncline.messages.provider_state import Fallback, FallbackReason, ProviderState
from syncline.messages.sync import (
    CarriedState,
    CycleStatus,
    HandedOn,
    RunPhase,
    SyncCycleRequest,
    SyncGraphResult,
    SyncResult,
    TableProgress,
    Totals,
)
from syncline.provider import SyncContext
from syncline.temporal.handed_on import handed_on
from syncline.temporal.schedules.graph import ensure_schedule
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

        async def at_rest() -> bool:
            return not (await self._schedule.describe()).info.running_actions

        # A trigger that comes before the Schedule has seen its last run end is skipped.
        await eventually(at_rest)
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


@pytest.mark.long(
    "test_a_fallback_is_counted_from_run_to_run_until_a_provider_returns",
    "acceptance/test_readme.py::test_a_cron_workflow_runs_every_minute_and_carries_its_state",
)
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


async def started_after(
    lab: SyncLab, graph: Graph, *, last: SyncGraphResult | None = None, failure: BaseException | None = None
) -> WorkflowHandle:
    """Start a run as a Schedule does: with the last result, and with the failure since."""
    converter = lab.client.data_converter
    request = StartWorkflowExecutionRequest(
        namespace=lab.client.namespace,
        workflow_id=(run_id := lab.unique("after")),
        workflow_type=WorkflowType(name=names.SYNC_GRAPH),
        task_queue=TaskQueue(name=lab.task_queue),
        input=Payloads(payloads=await converter.encode([{"graph": graph.slug}])),
        request_id=lab.unique("request"),
    )
    if last is not None:
        request.last_completion_result.payloads.extend(await converter.encode([last]))
    if failure is not None:
        await converter.encode_failure(failure, request.continued_failure)
    await lab.client.workflow_service.start_workflow_execution(request)
    return lab.client.get_workflow_handle(run_id, result_type=SyncGraphResult)


THEN = datetime(2026, 1, 31, 12, tzinfo=UTC)
GIVEN = Fallback(reason=FallbackReason.NOT_INSTALLED, detail="Nobody has it.", provider_id="acme")


def six_runs(graph: Graph, **changes: object) -> SyncGraphResult:
    """The result of the sixth run in fallback, as an earlier release has told it."""
    carried = CarriedState(
        totals=Totals(runs=6, rows=60), consecutive_fallback_runs=6, first_fallback_at=THEN
    )
    return SyncGraphResult(
        graph=graph.ref,
        fallback=GIVEN,
        result=SyncResult(status=CycleStatus.DRAINED),
        carried=carried.model_copy(update=changes),
    )


EARLIER_FAILURES = {
    "a table failed": ApplicationError(
        "column gone", sync_result(error="column gone"), type="CycleFailed", non_retryable=True
    ),
    "the activity's own": ApplicationError("the schema is gone", type="StoreRejected", non_retryable=True),
    "of another workflow": ApplicationError("odd", {"carried": "nothing of ours"}, 7, type="Odd"),
}


@pytest.mark.long(after=1)
@pytest.mark.parametrize("kind", EARLIER_FAILURES)
async def test_a_failure_of_an_earlier_release_leaves_what_the_last_success_has_told(
    lab: SyncLab, kind: str
) -> None:
    graph = await lab.add_graph("acme-sync", prepare=True)
    run = await started_after(lab, graph, last=six_runs(graph), failure=EARLIER_FAILURES[kind])
    carried = (await run.result()).carried
    assert (carried.consecutive_fallback_runs, carried.first_fallback_at) == (7, THEN)
    assert (carried.totals.runs, carried.totals.rows) == (7, 60)
    assert "it knows of no earlier one" not in await lab.details(run)


@pytest.mark.long("test_a_fallback_is_counted_from_run_to_run_until_a_provider_returns")
async def test_the_newer_of_the_last_result_and_the_last_failure_counts(lab: SyncLab) -> None:
    graph = await lab.add_graph("acme-sync", prepare=True)
    for minutes, runs in ((1, 9), (-1, 7)):
        failed = HandedOn(
            graph=graph.ref,
            fallback=GIVEN,
            carried=CarriedState(
                of_run="failed",
                as_of=THEN + timedelta(minutes=minutes),
                totals=Totals(runs=8, failed=2),
                consecutive_fallback_runs=8,
                first_fallback_at=THEN,
            ),
        )
        run = await started_after(
            lab,
            graph,
            last=six_runs(graph, of_run="succeeded", as_of=THEN),
            failure=ApplicationError("it raised", failed, type="StoreRejected", non_retryable=True),
        )
        carried = (await run.result()).carried
        assert (carried.totals.runs, carried.consecutive_fallback_runs) == (runs, runs)
        assert carried.after_run == ("failed" if minutes > 0 else "succeeded")


@pytest.mark.long("test_a_fallback_is_counted_from_run_to_run_until_a_provider_returns")
async def test_what_failed_of_another_graph_is_not_this_ones(lab: SyncLab) -> None:
    graph, other = [await lab.add_graph("acme-sync", prepare=True) for _ in range(2)]
    last = six_runs(other, of_run="of the other", as_of=THEN)
    handed = ApplicationError("it raised", HandedOn.of(last), type="StoreRejected", non_retryable=True)
    run = await started_after(lab, graph, failure=handed)
    carried = (await run.result()).carried
    assert (carried.totals.runs, carried.consecutive_fallback_runs, carried.after_run) == (1, 1, None)
    # One that cannot resolve hands on what it was given, of whatever graph.
    await lab.services.graphs.update(graph.slug, GraphChanges(status="archived"))
    failed = await started_after(lab, graph, last=last)
    error = await lab.failure(failed)
    assert (error.type, handed_on(error)) == ("GraphInvalid", HandedOn.of(last))
    assert (await lab.state(failed)).provider == ProviderState()


async def test_runs_that_have_never_resolved_are_counted_too(lab: SyncLab) -> None:
    graph = await lab.add_graph(FakeProvider(), status="archived")
    failure = None
    for number in (1, 2, 3):
        run = await started_after(lab, graph, failure=failure)
        failure = await lab.failure(run)
        totals = (await lab.state(run)).carried.totals
        assert (totals.runs, totals.failed) == (number, number)
    await lab.services.graphs.update(graph.slug, GraphChanges(status="active"))
    assert (await (await started_after(lab, graph, failure=failure)).result()).carried.totals.runs == 4


async def test_a_stretch_that_was_held_goes_on_over_failures(lab: SyncLab) -> None:
    composition = {"sync": {"provider": "acme", "on_missing": "hold"}}
    graph = await lab.add_graph("acme", composition=composition, schedule=SELDOM)
    runs = await scheduled(lab, graph)
    since = (await (await runs.next()).result()).carried.held_since
    await lab.services.graphs.update(graph.slug, GraphChanges(status="archived"))
    refused = await runs.next()
    assert (await lab.failure(refused)).type == "GraphInvalid"
    state = await lab.state(refused)
    assert (state.provider.held_since, state.provider.consecutive_held_runs) == (since, 1)
    assert state.provider.held is not None
    assert "this run has not resolved it" in await lab.details(refused)
    await lab.services.graphs.update(graph.slug, GraphChanges(status="active"))
    carried = (await (await runs.next()).result()).carried
    assert (carried.held_since, carried.consecutive_held_runs, carried.totals.failed) == (since, 2, 1)


@pytest.mark.long("test_a_fallback_is_counted_from_run_to_run_until_a_provider_returns")
async def test_a_failure_as_large_as_it_may_be_is_kept_whole(lab: SyncLab) -> None:
    """Of an attempt the server keeps a few KB; of a run, for its Schedule, what one payload may have."""
    tables = tuple(TableProgress(table=f"t{number}", error="gone " * 700) for number in range(500))
    large = sync_result(error="gone").model_copy(update={"tables": tables, "failures": 500})
    results = [large, sync_result(rows=1)]

    async def next_result(context: SyncContext) -> SyncResult:
        return results.pop(0)

    graph = await lab.add_graph(FakeProvider(cycle=next_result), schedule=SELDOM)
    runs = await scheduled(lab, graph)
    failed = await runs.next()
    error = await lab.failure(failed)
    assert error.type == "CycleFailed"
    assert len(error.message) < 20_000
    assert error.message.startswith(f"500 of 500 tables of graph '{graph.slug}' failed. t0: gone")
    totals = (await (await runs.next()).result()).carried.totals
    assert (totals.runs, totals.failed) == (2, 1)


@pytest.mark.long("test_a_fallback_is_counted_from_run_to_run_until_a_provider_returns")
async def test_a_cron_chain_carries_over_its_failures(lab: SyncLab) -> None:
    results = [sync_result(rows=1), sync_result(rows=2, error="column gone")]

    async def next_result(context: SyncContext) -> SyncResult:
        return results.pop(0) if results else sync_result()

    graph = await lab.add_graph(FakeProvider(cycle=next_result))
    first = await lab.client.start_workflow(
        names.SYNC_GRAPH,
        {"graph": graph.slug},
        id=lab.unique("cron"),
        task_queue=lab.task_queue,
        cron_schedule="@every 1s",
    )
    told: dict[int, tuple[int, int]] = {}

    async def three_ended() -> bool:
        query = f"WorkflowId='{first.id}' AND ExecutionStatus!='Running'"
        async for run in lab.client.list_workflows(query):
            totals = (
                await lab.state(lab.client.get_workflow_handle(run.id, run_id=run.run_id))
            ).carried.totals
            told[totals.runs] = (totals.failed, totals.rows)
        return 3 in told

    await eventually(three_ended)
    await lab.client.get_workflow_handle(first.id).terminate()
    assert {number: told[number] for number in (1, 2, 3)} == {1: (0, 1), 2: (1, 3), 3: (1, 3)}


@pytest.mark.long("test_a_fallback_is_counted_from_run_to_run_until_a_provider_returns")
async def test_the_newest_run_that_is_reset_stands_for_itself_and_an_older_one_changes_nothing(
    lab: SyncLab,
) -> None:
    results = [sync_result(rows=1), sync_result(rows=2, error="column gone"), sync_result(rows=4)]

    async def next_result(context: SyncContext) -> SyncResult:
        return results.pop(0) if results else sync_result(rows=10)

    async def reset(run_id: str) -> WorkflowHandle:
        again = await lab.client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=lab.client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=failed.id, run_id=run_id),
                reason="a test",
                workflow_task_finish_event_id=4,
                request_id=lab.unique("reset"),
            )
        )
        return lab.client.get_workflow_handle(failed.id, run_id=again.run_id, result_type=SyncGraphResult)

    graph = await lab.add_graph(FakeProvider(cycle=next_result), schedule=SELDOM)
    runs = await scheduled(lab, graph)
    await (await runs.next()).result()
    failed = await runs.next()
    assert (await lab.failure(failed)).type == "CycleFailed"
    run_id = (await failed.describe()).run_id
    own = (await (await reset(run_id)).result()).carried
    assert (own.totals.runs, own.totals.failed, own.totals.rows) == (2, 0, 5)
    # It is the Schedule's run now, in place of the one that failed.
    after = (await (await runs.next()).result()).carried
    assert (after.totals.runs, after.totals.rows, after.after_run) == (3, 15, own.of_run)
    older = (await (await reset(own.of_run or "")).result()).carried
    assert (older.totals.runs, older.totals.rows) == (2, 11)
    newest = (await (await runs.next()).result()).carried
    assert (newest.totals.runs, newest.totals.rows, newest.after_run) == (4, 25, after.of_run)
