"""Triggering: one immediate run of a graph's Schedule, unless it is paused; and runs that come anyway."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.common.v1 import Priority
from temporalio.api.common.v1 import WorkflowExecution as ExecutionId
from temporalio.api.enums.v1 import PendingWorkflowTaskState
from temporalio.api.workflow.v1 import WorkflowExecutionOptions
from temporalio.api.workflowservice.v1 import UpdateWorkflowExecutionOptionsRequest
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleOverlapPolicy,
    WorkflowExecution,
)
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.temporal.client import GRAPH, temporal_errors_mapped
from syncline.temporal.priorities import TRIGGERED
from syncline.temporal.schedules import make as making
from syncline.temporal.schedules.list import list_schedules
from syncline.temporal.schedules.make import is_for
from syncline.temporal.schedules.steer import start_run

if TYPE_CHECKING:
    from syncline.control.graphs import Graph

__all__ = ["ScheduleTrigger", "TriggerOutcome", "answers", "graphs_to_come", "trigger_run", "yet_to_begin"]

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


TriggerOutcome = Literal["started", "coming", "paused", "absent"]
"""Outcome; `coming`: a run is open that no worker has taken yet, so no further run is needed."""

_ONE_MORE: Final = ScheduleOverlapPolicy.BUFFER_ONE
"""An open run may have captured already, so exactly one more is buffered."""


async def trigger_run(client: Client, slug: str, *, task_queue: str) -> TriggerOutcome:
    """Trigger the graph's Schedule on this task queue: a run now, or after the open one.

    A trigger would start a run of a paused Schedule too, so its state is read first. Raise
    TemporalUnavailable if Temporal cannot be reached, or has not taken the trigger.
    """
    handle = client.get_schedule_handle(names.sync_schedule_id(slug))
    with temporal_errors_mapped(client):
        description = await making.describe(handle)
        if description is None:
            return "absent"
        action = description.schedule.action
        if not isinstance(action, ScheduleActionStartWorkflow) or action.task_queue != task_queue:
            return "absent"
        if description.schedule.state.paused:
            return "paused"
        for run in description.info.running_actions:
            if isinstance(run, ScheduleActionExecutionStartWorkflow) and await yet_to_begin(
                client, run.workflow_id, run.first_execution_run_id, task_queue=task_queue
            ):
                await _raise(client, run)
                return "coming"
        try:
            await start_run(client, handle, _ONE_MORE, before=description)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return "absent"
            raise
    return "started"


async def _raise(client: Client, run: ScheduleActionExecutionStartWorkflow) -> None:
    """Raise the priority of a waiting run to that of a triggered one, above scheduled runs."""
    request = UpdateWorkflowExecutionOptionsRequest(
        namespace=client.namespace,
        # By its run id: of two runs that begin within a second both have the same workflow id.
        workflow_execution=ExecutionId(workflow_id=run.workflow_id, run_id=run.first_execution_run_id),
        workflow_execution_options=WorkflowExecutionOptions(
            priority=Priority(priority_key=TRIGGERED.priority_key or 0),
        ),
        # Not the whole priority: its fairness key stays.
        update_mask=FieldMask(paths=["priority.priority_key"]),
        identity=client.identity,
    )
    # It may have started or ended since. An older server does not support the request.
    with suppress(RPCError):
        await client.workflow_service.update_workflow_execution_options(request)


class ScheduleTrigger:
    """What a listener needs of Temporal: triggers and upcoming runs of the Schedules on one task queue."""

    def __init__(self, client: Client, *, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue

    async def trigger(self, graph: "Graph") -> str:
        """Trigger the graph's Schedule; see `trigger_run`."""
        return await trigger_run(self._client, graph.slug, task_queue=self._task_queue)

    async def answers(self) -> bool:
        """Return whether Temporal answers now."""
        return await answers(self._client)

    async def coming(self, *, returned: bool) -> frozenset[str]:
        """Return the graphs with an upcoming run; see `graphs_to_come`."""
        return await graphs_to_come(self._client, task_queue=self._task_queue, returned=returned)
