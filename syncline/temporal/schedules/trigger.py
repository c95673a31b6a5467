"""Triggering: one immediate run of a graph's Schedule, unless the Schedule is paused."""

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.common.v1 import Priority, WorkflowExecution
from temporalio.api.workflow.v1 import WorkflowExecutionOptions
from temporalio.api.workflowservice.v1 import UpdateWorkflowExecutionOptionsRequest
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleOverlapPolicy,
)
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.temporal.client import temporal_errors_mapped
from syncline.temporal.priorities import TRIGGERED
from syncline.temporal.schedules import make as making
from syncline.temporal.schedules.coming import answers, graphs_to_come, yet_to_begin

if TYPE_CHECKING:
    from syncline.control.graphs import Graph

__all__ = ["ScheduleTrigger", "TriggerOutcome", "trigger_run"]

TriggerOutcome = Literal["started", "coming", "paused", "absent"]
"""Outcome; `coming`: a run is open that no worker has taken yet, so no further run is needed."""

_ONE_MORE: Final = ScheduleOverlapPolicy.BUFFER_ONE
"""An open run may have captured already, so exactly one more is buffered."""


async def trigger_run(client: Client, slug: str, *, task_queue: str) -> TriggerOutcome:
    """Trigger the graph's Schedule on this task queue: a run now, or after the open one.

    A trigger would start a run of a paused Schedule too, so its state is read first. Raise
    TemporalUnavailable if Temporal cannot be reached.
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
            await handle.trigger(overlap=_ONE_MORE)
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
        workflow_execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=run.first_execution_run_id),
        workflow_execution_options=WorkflowExecutionOptions(
            priority=Priority(priority_key=TRIGGERED.priority_key or 0),
        ),
        update_mask=FieldMask(paths=["priority"]),
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
