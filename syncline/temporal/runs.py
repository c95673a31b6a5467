"""Runs of a graph: listed from visibility, with outcomes from results, and state from queries."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from temporalio.client import (
    Client,
    WorkflowContinuedAsNewError,
    WorkflowExecution,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowHistoryEventFilterType,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.exceptions import ActivityError
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.errors import InputInvalid, QuestionUnanswered
from syncline.messages.base import Message
from syncline.messages.provider_state import ProviderState
from syncline.messages.sync import (
    BLOCKED,
    CarriedState,
    CycleProgress,
    CycleStatus,
    HandedOn,
    RunPhase,
    SyncGraphResult,
    SyncResult,
    SyncState,
)
from syncline.temporal.client import (
    FAILURES,
    FALLBACK,
    GRAPH,
    PROVIDER,
    PROVIDER_VERSION,
    REPORTED_PROBLEMS,
    ROWS,
    STATUS,
    temporal_errors_mapped,
)
from syncline.temporal.handed_on import failed_result, handed_on
from syncline.temporal.stalls import Stall, pending_of, progress_in
from syncline.temporal.started_by import StartedBy, started_by

__all__ = [
    "ListedRun",
    "Outcome",
    "RunEntry",
    "RunStatus",
    "StartedBy",
    "is_open",
    "list_runs",
    "outcome_of",
    "progress_of",
    "quoted",
    "refuse_open_runs",
    "run_at_work",
    "run_entries",
    "run_of",
    "runs_of",
    "state_of",
]

_OPEN: Final = 100


class RunStatus(StrEnum):
    """Status of a run in Temporal."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    TERMINATED = "terminated"
    CONTINUED_AS_NEW = "continued_as_new"
    TIMED_OUT = "timed_out"
    PAUSED = "paused"

    @property
    def trouble(self) -> bool:
        """Whether a run with this status ended unintentionally without doing its work."""
        return self in (RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.TERMINATED)


class ListedRun(Message):
    """One run of one graph."""

    workflow_id: str
    run_id: str
    graph: str | None
    started_by: StartedBy
    status: RunStatus
    started_at: datetime
    ended_at: datetime | None
    seconds: float
    """Seconds from its start to its end, or until now."""
    provider: str | None = None
    """`builtin-engine` in fallback; null until the provider is resolved."""
    provider_version: str | None = None
    """Version of the plugin that ran the cycle; null for the built-in engine or without a result."""
    fallback: bool = False
    rows: int | None = None
    """Rows inserted, changed or deleted; null, or 0 in a run of a Schedule, if the cycle did not return."""
    failures: int | None = None
    held: bool = False
    """Whether nothing was synced because no worker has the provider."""
    blocked: bool = False
    """Whether nothing was synced, twice in a row, because the lock is taken but no run of it is open."""
    vectors_delayed: bool = False
    """Whether vectors were left, because the vector store or embedding service was unavailable or refused."""
    task_queue: str | None = None
    """Task queue of its workflow tasks."""
    reported_problems: tuple[str, ...] = ()
    """TemporalReportedProblems: why its workflow task has failed five times or more."""

    @property
    def open(self) -> bool:
        """Whether the run has not ended."""
        return self.ended_at is None


async def list_runs(client: Client, query: str, *, limit: int) -> AsyncGenerator[ListedRun, None]:
    """Yield the runs that match the query, open ones first, then the last ended; raise TemporalUnavailable.

    The next run of a cron exists while it waits for its time; it is skipped, because no worker has it yet.
    """
    query = f'WorkflowType="{names.SYNC_GRAPH}" AND {query}'
    with temporal_errors_mapped(client):
        async for execution in client.list_workflows(query, limit=limit, page_size=min(limit, 1000)):
            if not _waits_for_its_time(execution):
                yield await _run(execution)


async def runs_of(client: Client, slug: str, *, limit: int, failed: bool = False) -> list[ListedRun]:
    """Return the newest runs of a graph, or only the unsuccessful ones; an open one comes first."""
    query = f"{names.ATTRIBUTE_GRAPH}={quoted(slug)}"
    if failed:
        query += ' AND ExecutionStatus IN ("Failed","TimedOut","Terminated")'
    # One more: the waiting run of a cron takes a place in the list.
    found = [run async for run in list_runs(client, query, limit=limit + 1)]
    return found[:limit]


async def run_at_work(client: Client, slug: str, *, but: str) -> ListedRun | None:
    """Return the oldest open run of a graph, except run `but`; None if there is none."""
    query = f'{names.ATTRIBUTE_GRAPH}={quoted(slug)} AND ExecutionStatus="Running"'
    found = [run async for run in list_runs(client, query, limit=_OPEN) if run.run_id != but]
    return min(found, key=lambda run: run.started_at, default=None)


async def refuse_open_runs(client: Client, slug: str, *, seconds: float = 60.0) -> None:
    """Return once no run of a graph or its shadow is open; raise InputInvalid if one stays open for long."""
    until = asyncio.get_running_loop().time() + seconds
    while True:
        named = (slug, names.shadow_slug(slug))
        found = [run for name in named if (run := await run_at_work(client, name, but="")) is not None]
        if not found:
            return
        if asyncio.get_running_loop().time() >= until:
            raise InputInvalid(
                f"A run of graph '{slug}' has been open since {found[0].started_at:%Y-%m-%d %H:%M:%S} UTC; "
                "nothing was changed.",
                fix=f"Wait for its end (`syncline status {slug}`), or end it: "
                f"`temporal workflow cancel --workflow-id '{found[0].workflow_id}'`.",
            )
        await asyncio.sleep(1.0)


async def run_of(client: Client, workflow_id: str, run_id: str) -> ListedRun:
    """Return one run as it is now, or raise TemporalUnavailable."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    with temporal_errors_mapped(client):
        return await _run(await handle.describe())


async def is_open(client: Client, workflow_id: str) -> bool:
    """Return whether the newest run with this workflow id is open, or raise TemporalUnavailable."""
    handle = client.get_workflow_handle(workflow_id)
    with temporal_errors_mapped(client):
        try:
            return (await handle.describe()).close_time is None
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise


def quoted(value: str) -> str:
    """Return a value quoted for a visibility query."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _waits_for_its_time(execution: WorkflowExecution) -> bool:
    began = execution.execution_time or execution.start_time
    return execution.close_time is None and began > max(execution.start_time, datetime.now(UTC))


async def _run(execution: WorkflowExecution) -> ListedRun:
    began = execution.execution_time or execution.start_time
    attributes = execution.typed_search_attributes
    ended = execution.close_time
    return ListedRun(
        workflow_id=execution.id,
        run_id=execution.run_id,
        graph=attributes.get(GRAPH),
        started_by=await started_by(execution, began),
        status=RunStatus.RUNNING if execution.status is None else RunStatus[execution.status.name],
        started_at=began,
        ended_at=ended,
        seconds=max(0.0, ((ended or datetime.now(UTC)) - began).total_seconds()),
        provider=attributes.get(PROVIDER),
        provider_version=attributes.get(PROVIDER_VERSION),
        fallback=bool(attributes.get(FALLBACK)),
        rows=attributes.get(ROWS),
        failures=attributes.get(FAILURES),
        held=attributes.get(STATUS) == CycleStatus.HELD,
        blocked=attributes.get(STATUS) == BLOCKED,
        vectors_delayed=attributes.get(STATUS) == CycleStatus.VECTORS_DELAYED,
        task_queue=execution.task_queue,
        reported_problems=tuple(attributes.get(REPORTED_PROBLEMS) or ()),
    )


_ASKED: Final = 100
_AT_ONCE: Final = 8


class Outcome(Message):
    """The result of a completed run, or the error of a failed one."""

    result: SyncResult | None = None
    """Set for a run with a failed cycle too."""
    completed: SyncGraphResult | None = None
    handed: HandedOn | None = None
    """State that a failed run hands on; null from an earlier release."""
    error: str | None = None

    @property
    def cycle(self) -> CycleStatus | None:
        """Status of the cycle, if it returned."""
        return None if self.result is None else self.result.status

    def state(self, run: ListedRun) -> SyncState:
        """Return the run's state as far as its result contains it."""
        if self.completed is not None:
            done = self.completed
            return SyncState(
                graph=done.graph.slug,
                phase=RunPhase.DONE,
                provider=done.carried.provider_state(done).served_by(done.result.served),
                last_result=done.result,
                carried=done.carried,
            )
        phase = RunPhase.CANCELLED if run.status is RunStatus.CANCELED else RunPhase.FAILED
        # The run's search attributes only describe the provider as it was at the start.
        provider = ProviderState(provider_id=None if run.fallback else run.provider)
        return SyncState(
            graph=run.graph,
            phase=phase,
            resolved=self.handed is not None and self.handed.resolved,
            provider=provider if self.handed is None else self.handed.provider,
            last_result=self.result,
            carried=CarriedState() if self.handed is None else self.handed.carried,
            error=self.error,
        )


async def outcome_of(client: Client, run: ListedRun) -> Outcome:
    """Return the outcome of a closed run; without a result if it cannot be read."""
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id, result_type=SyncGraphResult)
    try:
        return await _outcome_of(client, handle)
    except RPCError as error:
        gone = error.status is RPCStatusCode.NOT_FOUND
        problem = "its history is deleted" if gone else f"its result cannot be read: {error.message}"
        return Outcome(error=problem)
    except (KeyError, ValueError, RuntimeError) as error:
        # KeyError: encoded, and this process has no codec.
        return Outcome(error=f"its result cannot be read: {type(error).__name__}")


async def _outcome_of(client: Client, handle: WorkflowHandle[object, SyncGraphResult]) -> Outcome:
    try:
        # Do not follow its successors: those of a cron workflow never end.
        return _success(await handle.result(follow_runs=False))
    except WorkflowContinuedAsNewError:
        return await _outcome_of_cron(client, handle)
    except WorkflowFailureError as failed:
        return _failure(failed.cause)


async def _outcome_of_cron(client: Client, handle: WorkflowHandle[object, SyncGraphResult]) -> Outcome:
    """Return the outcome of a cron workflow's run, from its last event, which names the next run."""
    closing = WorkflowHistoryEventFilterType.CLOSE_EVENT
    async for event in handle.fetch_history_events(event_filter_type=closing):
        next_run = event.workflow_execution_continued_as_new_event_attributes
        if next_run.HasField("failure"):
            return _failure(await client.data_converter.decode_failure(next_run.failure))
        payloads = next_run.last_completion_result.payloads
        if payloads:
            [completed] = await client.data_converter.decode(payloads, [SyncGraphResult])
            return _success(completed)
    return Outcome()


def _success(completed: SyncGraphResult) -> Outcome:
    return Outcome(result=completed.result, completed=completed)


def _failure(cause: BaseException) -> Outcome:
    handed, result = handed_on(cause), failed_result(cause)
    if isinstance(cause, ActivityError) and cause.cause is not None:
        cause = cause.cause
    return Outcome(result=result, handed=handed, error=getattr(cause, "message", None) or str(cause))


class RunEntry(Message):
    """A run with the outcome of its cycle."""

    run: ListedRun
    cycle: CycleStatus | None = None
    error: str | None = None
    """Why the run did not complete."""
    stall: Stall | None = None
    """Why an open run does not continue."""


async def run_entries(client: Client, slug: str, *, limit: int, failed: bool = False) -> list[RunEntry]:
    """Return the newest runs of a graph with their outcomes, or raise TemporalUnavailable.

    Each outcome costs a request, so only the first 100 open and the first 100 closed runs get one.
    """
    runs = await runs_of(client, slug, limit=limit, failed=failed)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ended(run: ListedRun) -> RunEntry:
        async with slots:
            outcome = await outcome_of(client, run)
        if outcome.handed is not None and not outcome.handed.resolved:
            # Its attributes name the provider of the record; it has not been resolved.
            run = run.model_copy(update={"provider": None, "provider_version": None, "fallback": False})
        return RunEntry(run=run, cycle=outcome.cycle, error=outcome.error)

    async def stands(run: ListedRun) -> RunEntry:
        async with slots:
            pending = await pending_of(client, run.workflow_id, run.run_id)
        return RunEntry(run=run, stall=pending.stall)

    asked = [*[run for run in runs if run.open][:_ASKED], *[run for run in runs if not run.open][:_ASKED]]
    answers = await asyncio.gather(*(stands(run) if run.open else ended(run) for run in asked))
    told = {entry.run.run_id: entry for entry in answers}
    return [told.get(run.run_id, RunEntry(run=run)) for run in runs]


async def progress_of(client: Client, workflow_id: str, run_id: str) -> CycleProgress | None:
    """Return the progress of the run's cycle; None if no cycle runs, or none has been reported.

    A retried cycle has the progress of its last attempt until it reports its own.
    """
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        described = await handle.describe()
    except (RPCError, ValueError, RuntimeError):
        return None
    return await progress_in(client, described.raw_description)


async def state_of(client: Client, workflow_id: str, run_id: str, *, seconds: float) -> SyncState:
    """Return the state of a run, open or closed, by query `sync_state`, or raise QuestionUnanswered."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        # The RPC's own timeout is not reliable here; this one bounds the wait.
        async with asyncio.timeout(seconds):
            state: SyncState = await handle.query(names.SYNC_STATE, result_type=SyncState)
    except TimeoutError:
        raise QuestionUnanswered(workflow_id, f"no worker answered within {seconds:g} s.") from None
    except (RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
        raise QuestionUnanswered(workflow_id, f"no worker answered ({error}).") from error
    return state
