"""Open runs of a task queue that do not continue, of every type: graphs, operations, reconciliations."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from temporalio.client import Client, WorkflowExecution

from syncline import names
from syncline.messages.base import Message
from syncline.temporal.client import REPORTED_PROBLEMS, temporal_errors_mapped
from syncline.temporal.runs import ListedRun, quoted
from syncline.temporal.stalls import TAKEN_WITHIN, Stall, StallKind, no_worker, pending_of, reported
from syncline.temporal.task_queues import Poller, live, pollers

__all__ = ["StalledRun", "StalledRuns", "stalled_runs", "stalls_as_listed"]

_LISTED: Final = 1000
_ASKED: Final = 40
_AT_ONCE: Final = 8


class StalledRun(Message):
    """A run that does not continue."""

    workflow_id: str
    run_id: str
    stall: Stall


class StalledRuns(Message):
    """What the open runs of a task queue are doing."""

    open: int
    """How many there are, up to a thousand."""
    stalled: tuple[StalledRun, ...]
    """What fails first, then what waits."""


async def stalled_runs(client: Client, task_queue: str) -> StalledRuns:
    """Return the open runs that do not continue, or raise TemporalUnavailable.

    One list tells which have failed five workflow tasks, however many; the forty oldest of the others are
    asked one by one.
    """
    query = f'TaskQueue={quoted(task_queue)} AND ExecutionStatus="Running"'
    with temporal_errors_mapped(client):
        # What has failed is asked for first: it may be older than the newest thousand.
        failing = [
            run
            async for run in client.list_workflows(
                f"{query} AND TemporalReportedProblems IS NOT NULL", limit=_LISTED
            )
        ]
        runs = [run async for run in client.list_workflows(query, limit=_LISTED)]
    told = {run.run_id: _reported(run, task_queue) for run in failing}
    oldest = sorted(runs, key=lambda run: run.start_time)
    # The oldest of those that have failed are asked too: they tell the message.
    asked = [*failing[:_AT_ONCE], *(run for run in oldest[:_ASKED] if run.run_id not in told)]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(run: WorkflowExecution) -> tuple[WorkflowExecution, Stall | None]:
        async with slots:
            return run, (await pending_of(client, run.id, run.run_id)).stall

    found = {
        run.run_id: StalledRun(workflow_id=run.id, run_id=run.run_id, stall=stall)
        for run in failing
        if (stall := told[run.run_id]) is not None
    }
    for run, stall in await asyncio.gather(*map(ask, asked)):
        if stall is not None:
            found[run.run_id] = StalledRun(workflow_id=run.id, run_id=run.run_id, stall=stall)
    worst = list(StallKind)
    stalled = sorted(found.values(), key=lambda one: worst.index(one.stall.kind))
    return StalledRuns(open=len(runs), stalled=tuple(stalled))


def _reported(run: WorkflowExecution, task_queue: str) -> Stall | None:
    return reported(
        tuple(run.typed_search_attributes.get(REPORTED_PROBLEMS) or ()),
        task_queue=task_queue,
        workflow_id=run.id,
        run_id=run.run_id,
        workflow_type=run.workflow_type,
    )


async def stalls_as_listed(client: Client, running: Iterable[ListedRun]) -> Mapping[str, Stall]:
    """Return why open runs do not continue, by run id, or raise TemporalUnavailable.

    Seen are runs whose workflow task has failed five times; those that no worker has ever taken up, because
    none has polled since they began; and all of a queue that nobody has polled for 90 seconds.
    """
    waiting = [run for run in running if run.seconds > TAKEN_WITHIN]
    queues = sorted({run.task_queue for run in waiting if run.task_queue})
    found = dict(zip(queues, await asyncio.gather(*(pollers(client, name) for name in queues)), strict=True))
    stalls = {run.run_id: _stall(run, found.get(run.task_queue or "", ())) for run in waiting}
    return {run_id: stall for run_id, stall in stalls.items() if stall is not None}


def _stall(run: ListedRun, found: Iterable[Poller]) -> Stall | None:
    task_queue = run.task_queue
    if task_queue is None:
        return None
    told = reported(
        run.reported_problems,
        task_queue=task_queue,
        workflow_id=run.workflow_id,
        run_id=run.run_id,
        workflow_type=names.SYNC_GRAPH,
    )
    if told is not None:
        return told
    polling = list(found)
    if live(polling) and not any(one.takes_new_runs for one in live(polling)):
        return None  # Of which version the run is, only the run itself says.
    return no_worker(polling, task_queue=task_queue, since=run.started_at)
