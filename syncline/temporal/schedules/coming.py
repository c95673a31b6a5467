"""Upcoming runs: graphs with an open run that has yet to start, so that a change needs no further trigger."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from temporalio.api.enums.v1 import PendingWorkflowTaskState
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.temporal.client import GRAPH, temporal_errors_mapped
from syncline.temporal.schedules.list import list_schedules
from syncline.temporal.schedules.make import is_for

__all__ = ["answers", "graphs_to_come", "yet_to_begin"]

_PROBE: Final = timedelta(seconds=1)
_MOST: Final = 1000
"""Maximum number of open runs that are described."""
_AT_ONCE: Final = 16
_NOTHING_BUT_STARTED: Final = 3
"""Maximum history events of a run whose first workflow task no worker has taken: start, task, priority."""


async def answers(client: Client) -> bool:
    """Return whether Temporal answers now; one cheap call without retries."""
    try:
        return await client.service_client.check_health(timeout=_PROBE)
    except (RPCError, RuntimeError):
        return False


async def yet_to_begin(client: Client, workflow_id: str, run_id: str | None, *, task_queue: str) -> bool:
    """Return whether the run is open and no worker has taken it: its capture is later than now."""
    try:
        found = await client.get_workflow_handle(workflow_id, run_id=run_id or None).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    task = found.raw_description.pending_workflow_task
    return (
        found.close_time is None
        and found.task_queue == task_queue
        and found.history_length <= _NOTHING_BUT_STARTED
        and task.attempt == 1
        and task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    )


async def graphs_to_come(client: Client, *, task_queue: str, returned: bool) -> frozenset[str]:
    """Return the graphs with an open run that no worker has taken yet, from two lists.

    If Temporal has just `returned`, also those whose Schedule has yet to catch up a missed time: with overlap
    *skip*, it does so if no run is open. Raise TemporalUnavailable.
    """
    with temporal_errors_mapped(client):
        runs = await _open_runs(client)
        waiting = await _yet_to_begin(client, runs, task_queue)
    if not returned:
        return waiting
    now, taken = datetime.now(UTC), {run.typed_search_attributes.get(GRAPH) for run in runs}
    listed = await list_schedules(client)
    behind = (one for one in listed if one.behind(now) and is_for(one.fingerprint, task_queue))
    return waiting | {one.slug for one in behind if one.slug not in taken}


async def _open_runs(client: Client) -> Sequence[WorkflowExecution]:
    query = f'WorkflowType="{names.SYNC_GRAPH}" AND ExecutionStatus="Running"'
    return [run async for run in client.list_workflows(query, limit=_MOST)]


async def _yet_to_begin(client: Client, runs: Sequence[WorkflowExecution], task_queue: str) -> frozenset[str]:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(run: WorkflowExecution) -> str | None:
        async with slots:
            waits = await yet_to_begin(client, run.id, run.run_id, task_queue=task_queue)
        return run.typed_search_attributes.get(GRAPH) if waits else None

    found = await asyncio.gather(*map(one, runs))
    return frozenset(slug for slug in found if slug is not None)
