"""One run as Temporal lists it: no worker is asked, and no history is read."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
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
from syncline.errors import QuestionUnanswered
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
    SCHEDULED_BY,
    SCHEDULED_FOR,
    STATUS,
    temporal_errors_mapped,
)
from syncline.temporal.handed_on import failed_result, handed_on
from syncline.temporal.stalls import Stall, pending_of

__all__ = [
    "ListedRun",
    "Outcome",
    "RunEntry",
    "RunStatus",
    "StartedBy",
    "list_runs",
    "outcome_of",
    "progress_of",
    "quoted",
    "run_at_work",
    "run_entries",
    "run_of",
    "runs_of",
    "state_of",
]

_LATE: Final = timedelta(hours=1)
"""A scheduled run that starts this far from its time was asked for by a backfill."""
_OPEN: Final = 100


class StartedBy(StrEnum):
    """What started a run."""

    SCHEDULE = "schedule"
    """The graph's Schedule: at its time, triggered or notified."""
    BACKFILL = "backfill"
    """The Schedule, more than an hour from the time that the run stands for."""
    CRON = "cron"
    """A workflow started with a cron expression (or with a delay, which looks the same)."""
    HAND = "hand"
    SHADOW = "shadow"
    """The run of the graph, which its shadow's follows."""


class RunStatus(StrEnum):
    """How a run stands, as Temporal knows it."""

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
        """Whether a run that ended so did not do its work, and nobody meant that."""
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
    """From its start to its end, or until now."""
    provider: str | None = None
    """`builtin-engine` in fallback; null while nobody has been resolved."""
    provider_version: str | None = None
    """Of the plugin that ran the cycle; null for the built-in engine, and if the cycle did not return."""
    fallback: bool = False
    rows: int | None = None
    """Rows inserted, changed or deleted; null, or 0 in a run of a Schedule, if the cycle did not return."""
    failures: int | None = None
    held: bool = False
    """Whether nothing was synced, because nobody has the provider."""
    blocked: bool = False
    """Whether nothing was synced, twice in a row, because the graph is taken and no run has it."""
    task_queue: str | None = None
    """Where its workflow tasks wait for a worker."""
    reported_problems: tuple[str, ...] = ()
    """TemporalReportedProblems: what its workflow task has failed by, five times or more."""

    @property
    def open(self) -> bool:
        """Whether the run has not ended."""
        return self.ended_at is None


async def list_runs(client: Client, query: str, *, limit: int) -> AsyncGenerator[ListedRun, None]:
    """Yield runs that match the query, open ones first, then the last ended; raise TemporalUnavailable.

    A cron's next run exists while it waits for its time; it is left out, because nothing answers for it yet.
    """
    query = f'WorkflowType="{names.SYNC_GRAPH}" AND {query}'
    with temporal_errors_mapped(client):
        async for execution in client.list_workflows(query, limit=limit, page_size=min(limit, 1000)):
            if not _waits_for_its_time(execution):
                yield _run(execution)


async def runs_of(client: Client, slug: str, *, limit: int, failed: bool = False) -> list[ListedRun]:
    """Return the newest runs of a graph, or only those that did not succeed; an open one comes first."""
    query = f"{names.ATTRIBUTE_GRAPH}={quoted(slug)}"
    if failed:
        query += ' AND ExecutionStatus IN ("Failed","TimedOut","Terminated")'
    # One more: the run for which a cron waits takes a place in the list.
    found = [run async for run in list_runs(client, query, limit=limit + 1)]
    return found[:limit]


async def run_at_work(client: Client, slug: str, *, but: str) -> ListedRun | None:
    """Return the run of a graph that has been open for longest, except run `but`; None if there is none."""
    query = f'{names.ATTRIBUTE_GRAPH}={quoted(slug)} AND ExecutionStatus="Running"'
    found = [run async for run in list_runs(client, query, limit=_OPEN) if run.run_id != but]
    return min(found, key=lambda run: run.started_at, default=None)


async def run_of(client: Client, workflow_id: str, run_id: str) -> ListedRun:
    """Return one run as it is now, or raise TemporalUnavailable."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    with temporal_errors_mapped(client):
        return _run(await handle.describe())


def quoted(value: str) -> str:
    """Return a value as a visibility query takes it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _waits_for_its_time(execution: WorkflowExecution) -> bool:
    began = execution.execution_time or execution.start_time
    return execution.close_time is None and began > max(execution.start_time, datetime.now(UTC))


def _run(execution: WorkflowExecution) -> ListedRun:
    began = execution.execution_time or execution.start_time
    attributes = execution.typed_search_attributes
    ended = execution.close_time
    return ListedRun(
        workflow_id=execution.id,
        run_id=execution.run_id,
        graph=attributes.get(GRAPH),
        started_by=_started_by(execution, began),
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
        task_queue=execution.task_queue,
        reported_problems=tuple(attributes.get(REPORTED_PROBLEMS) or ()),
    )


def _started_by(execution: WorkflowExecution, began: datetime) -> StartedBy:
    attributes = execution.typed_search_attributes
    if execution.parent_id is not None and names.shadowed_slug(attributes.get(GRAPH) or "") is not None:
        return StartedBy.SHADOW
    if attributes.get(SCHEDULED_BY) is not None:
        nominal = attributes.get(SCHEDULED_FOR)
        # The server keeps whole seconds of either, so a trigger's cannot be told from the Schedule's own.
        late = nominal is not None and abs(began - nominal) > _LATE
        return StartedBy.BACKFILL if late else StartedBy.SCHEDULE
    return StartedBy.CRON if began > execution.start_time else StartedBy.HAND


_ASKED: Final = 100
_AT_ONCE: Final = 8


class Outcome(Message):
    """The result of a run that completed, or why it did not."""

    result: SyncResult | None = None
    """Of a run whose cycle failed, too."""
    completed: SyncGraphResult | None = None
    handed: HandedOn | None = None
    """What a run that failed hands on; null of an earlier release's."""
    error: str | None = None

    @property
    def cycle(self) -> CycleStatus | None:
        """How the cycle ended, if it returned."""
        return None if self.result is None else self.result.status

    def state(self, run: ListedRun) -> SyncState:
        """Return what the run's own state says of it, as far as its result does."""
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
        # What the run's attributes say of the provider was so when it began, and counts for nothing else.
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
    """Return how a closed run ended. What cannot be read is an outcome without a result, and no error."""
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id, result_type=SyncGraphResult)
    try:
        # Not the runs that follow it: a cron workflow's never end.
        return _success(await handle.result(follow_runs=False))
    except WorkflowContinuedAsNewError:
        return await _outcome_of_cron(client, handle)
    except WorkflowFailureError as failed:
        return _failure(failed.cause)
    except RPCError as error:
        gone = error.status is RPCStatusCode.NOT_FOUND
        return Outcome(error="its history is gone" if gone else f"its result cannot be read: {error.message}")
    except (ValueError, RuntimeError) as error:
        return Outcome(error=f"its result cannot be read: {type(error).__name__}")


async def _outcome_of_cron(client: Client, handle: WorkflowHandle[object, SyncGraphResult]) -> Outcome:
    """Return how a run of a cron workflow ended: its last event names the next run, and has the result."""
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
    """A run, and how its cycle ended."""

    run: ListedRun
    cycle: CycleStatus | None = None
    error: str | None = None
    """Why the run did not complete."""
    stall: Stall | None = None
    """Why an open run does not continue."""


async def run_entries(client: Client, slug: str, *, limit: int, failed: bool = False) -> list[RunEntry]:
    """Return the newest runs of a graph with how they ended, or raise TemporalUnavailable.

    Each run costs a question, so it is asked of the first hundred that are open and that are closed.
    """
    runs = await runs_of(client, slug, limit=limit, failed=failed)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ended(run: ListedRun) -> RunEntry:
        async with slots:
            outcome = await outcome_of(client, run)
        if outcome.handed is not None and not outcome.handed.resolved:
            # Its attributes name the provider that the record names; nobody has found out who is there.
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
    """Return the progress of the run's cycle, None if none is on its way or it has not told any.

    Of a cycle that is tried again that is the progress of its last attempt, until it tells its own.
    """
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        described = await handle.describe()
        for pending in described.raw_description.pending_activities:
            if pending.activity_type.name == names.SYNC_CYCLE and pending.heartbeat_details.payloads:
                payloads = pending.heartbeat_details.payloads
                [progress] = await client.data_converter.decode(payloads, [CycleProgress])
                return CycleProgress.model_validate(progress)
    except (RPCError, ValueError, RuntimeError):
        # It cannot be asked, or a provider of its own release tells something else.
        return None
    return None


async def state_of(client: Client, workflow_id: str, run_id: str, *, seconds: float) -> SyncState:
    """Return the state of a run, open or closed, or raise QuestionUnanswered."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        # A timeout of the call itself would be kept by the client alone; this one ends the waiting.
        async with asyncio.timeout(seconds):
            state: SyncState = await handle.query(names.SYNC_STATE, result_type=SyncState)
    except TimeoutError:
        raise QuestionUnanswered(workflow_id, f"no worker answered within {seconds:g} s.") from None
    except (RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
        raise QuestionUnanswered(workflow_id, f"no worker answered ({error}).") from error
    return state
