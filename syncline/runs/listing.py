"""One run as Temporal lists it: no worker is asked, and no history is read."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from temporalio.client import Client, WorkflowExecution

from syncline import names
from syncline.client import temporal_errors_mapped
from syncline.messages import CycleStatus, Message
from syncline.search_attributes import (
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
)

__all__ = ["ListedRun", "RunStatus", "StartedBy", "list_runs", "quoted", "run_at_work", "run_of", "runs_of"]


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
