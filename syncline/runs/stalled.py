"""Open runs of a task queue that do not continue, of every type: graphs, operations, reconciliations."""

import asyncio
from typing import Final

from temporalio.client import Client, WorkflowExecution

from syncline.client import temporal_errors_mapped
from syncline.messages import Message
from syncline.pending import pending_of
from syncline.runs.listing import quoted
from syncline.search_attributes import REPORTED_PROBLEMS
from syncline.stalls import Stall, StallKind, reported

__all__ = ["StalledRun", "StalledRuns", "stalled_runs"]

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
