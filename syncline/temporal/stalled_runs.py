"""Stalled runs of a task queue, of all workflow types; graphs that are blocked by a lock without a run."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from temporalio.client import Client, WorkflowExecution

from syncline import names
from syncline.messages.base import LockHolder, Message
from syncline.messages.sync import BLOCKED
from syncline.temporal.client import REPORTED_PROBLEMS, temporal_errors_mapped
from syncline.temporal.runs import ListedRun, list_runs, outcome_of, quoted, runs_of
from syncline.temporal.stalls import TAKEN_WITHIN, Stall, StallKind, no_worker, pending_of, reported
from syncline.temporal.task_queues import Poller, live, pollers

__all__ = ["BlockedGraph", "StalledRun", "StalledRuns", "blocked_graphs", "stalled_runs", "stalls_as_listed"]

_LISTED: Final = 1000
_ASKED: Final = 40
_AT_ONCE: Final = 8


class StalledRun(Message):
    """An open run that does not continue."""

    workflow_id: str
    run_id: str
    stall: Stall


class StalledRuns(Message):
    """Open and stalled runs of a task queue."""

    open: int
    """Number of open runs, up to 1,000."""
    stalled: tuple[StalledRun, ...]
    """Stalled runs, failing ones first, then waiting ones."""


async def stalled_runs(client: Client, task_queue: str) -> StalledRuns:
    """Return the open runs and those that do not continue, or raise TemporalUnavailable.

    One list contains all runs whose workflow task has failed five times; the forty oldest of the others are
    described one by one.
    """
    query = f'TaskQueue={quoted(task_queue)} AND ExecutionStatus="Running"'
    with temporal_errors_mapped(client):
        # Failing runs are listed first: they may be older than the newest 1,000.
        failing = [
            run
            async for run in client.list_workflows(
                f"{query} AND TemporalReportedProblems IS NOT NULL", limit=_LISTED
            )
        ]
        runs = [run async for run in client.list_workflows(query, limit=_LISTED)]
    told = {run.run_id: _reported(run, task_queue) for run in failing}
    oldest = sorted(runs, key=lambda run: run.start_time)
    # The oldest failing runs are described too, for the failure's message.
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

    Detected are runs whose workflow task has failed five times; runs never taken by a worker, because none
    has polled since they started; and all runs of a queue that no worker has polled for 90 seconds.
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
        return None  # The run's version is only in its description.
    return no_worker(polling, task_queue=task_queue, since=run.started_at)


_LOOKED_AT: Final = 500
"""Maximum number of newest blocked runs that are read."""
_NEWEST: Final = 20


class BlockedGraph(Message):
    """A blocked graph, by its last run."""

    graph: str
    runs: int = 0
    """Consecutive blocked runs; 0 if the result cannot be read."""
    since: datetime | None = None
    holder: LockHolder | None = None


async def blocked_graphs(client: Client) -> Sequence[BlockedGraph]:
    """Return the graphs whose last ended run found them blocked; raise TemporalUnavailable.

    One request if there was no blocked run lately.
    """
    query = f'{names.ATTRIBUTE_STATUS}="{BLOCKED}"'
    seen = dict.fromkeys([run.graph async for run in list_runs(client, query, limit=_LOOKED_AT) if run.graph])
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(slug: str) -> BlockedGraph | None:
        async with slots:
            last = next((run for run in await runs_of(client, slug, limit=_NEWEST) if not run.open), None)
            if last is None or not last.blocked:
                return None
            outcome = await outcome_of(client, last)
        carried = None if outcome.completed is None else outcome.completed.carried
        return BlockedGraph(
            graph=slug,
            runs=0 if carried is None else carried.unowned_runs,
            since=None if carried is None else carried.unowned_since,
            holder=None if outcome.result is None else outcome.result.holder,
        )

    found = await asyncio.gather(*map(one, seen))
    return [graph for graph in found if graph is not None]
