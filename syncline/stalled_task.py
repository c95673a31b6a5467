"""Why an open run does not continue though no activity of it fails: its tasks fail, or no worker takes them.

Temporal keeps such a run as running, for as long as its timeout allows. What tells is the pending workflow
task, the last event WorkflowTaskFailed (the server writes the first of a row of failures) and the pollers of
the queue. A worker that has died is listed among those for five minutes; but an open poll takes a task
within milliseconds, so a task that waits, and nobody has polled since it was scheduled, is the earlier sign.
"""

from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import (
    EventType,
    PendingActivityState,
    PendingWorkflowTaskState,
    VersioningBehavior,
    WorkflowTaskFailedCause,
)
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

from syncline.errors import SynclineError
from syncline.stalls import TAKEN_WITHIN, Stall, StallKind, changed_code, mend, no_worker, not_taken, waited
from syncline.task_queues import live, pollers

__all__ = ["stall_of"]

_EVENTS: Final = 10
"""Last events of a history among which the failure of the pending workflow task is."""
_LONGEST: Final = 400
_FAILED: Final = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
_COMPLETED: Final = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
_NON_DETERMINISM: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
_HARMLESS: Final = (
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,
)
"""What the server writes in the course of things: a reset, and a signal that came in between."""


async def stall_of(client: Client, run: DescribeWorkflowExecutionResponse) -> Stall | None:
    """Return why a described run does not continue, None if it does as far as Temporal knows."""
    try:
        return await _workflow_task(client, run) or await _activities(client, run)
    except (RPCError, SynclineError):
        return None  # whoever needs Temporal is told by what comes next


async def _workflow_task(client: Client, run: DescribeWorkflowExecutionResponse) -> Stall | None:
    task = run.pending_workflow_task
    if not run.HasField("pending_workflow_task"):
        return None
    if task.attempt > 1:
        failed = await _last_failure(client, run)
        if failed is not None:
            return await _failing(client, run, failed)
    since = _at(task.scheduled_time)
    if task.state != PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED:
        return None
    task_queue = run.execution_config.task_queue.name
    found = await pollers(client, task_queue)
    stall = no_worker(found, task_queue=task_queue, since=since, version=_pinned(run))
    if stall is not None or waited(since) < TAKEN_WITHIN:
        return stall
    return not_taken(found, task_queue, since)


async def _failing(client: Client, run: DescribeWorkflowExecutionResponse, failed: HistoryEvent) -> Stall:
    told = failed.workflow_task_failed_event_attributes
    info = run.workflow_execution_info
    workflow_id, run_id = info.execution.workflow_id, info.execution.run_id
    changed = told.cause == _NON_DETERMINISM
    cause = WorkflowTaskFailedCause.Name(told.cause).removeprefix("WORKFLOW_TASK_FAILED_CAUSE_")
    message = await _message(client, told.failure)
    return Stall(
        kind=StallKind.TASK_FAILS,
        task_queue=run.execution_config.task_queue.name,
        since=_at(failed.event_time),
        attempt=run.pending_workflow_task.attempt,
        problem=f"Its workflow task fails ({cause.replace('_', ' ').lower()}), on {told.identity}: {message}",
        fix=changed_code(workflow_id, run_id) if changed else mend(workflow_id, run_id, info.type.name),
    )


async def _last_failure(client: Client, run: DescribeWorkflowExecutionResponse) -> HistoryEvent | None:
    """Return the event of the failure since the last workflow task that completed."""
    execution = run.workflow_execution_info.execution
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace,
        execution=WorkflowExecution(workflow_id=execution.workflow_id, run_id=execution.run_id),
        maximum_page_size=_EVENTS,
    )
    answer = await client.workflow_service.get_workflow_execution_history_reverse(request)
    for event in answer.history.events:
        if event.event_type == _COMPLETED:
            return None
        if event.event_type == _FAILED:
            harmless = event.workflow_task_failed_event_attributes.cause in _HARMLESS
            return None if harmless else event
    return None


async def _message(client: Client, failure: Failure) -> str:
    """Return the outermost words of a failure: those of a cause may have what a payload had in it."""
    try:
        error = await client.data_converter.decode_failure(failure)
    except Exception:  # a codec is anybody's code
        return "its message cannot be decoded here."
    told = " ".join(str(getattr(error, "message", None) or error).split())
    told = told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"
    return told if told.endswith((".", "…")) else f"{told}."


async def _activities(client: Client, run: DescribeWorkflowExecutionResponse) -> Stall | None:
    """Return why an activity that is due is not begun."""
    for pending in run.pending_activities:
        since = _at(pending.scheduled_time)
        if (
            pending.state != PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
            or waited(since) < TAKEN_WITHIN
        ):
            continue
        return await _activity(client, run, pending, since)
    return None


async def _activity(
    client: Client, run: DescribeWorkflowExecutionResponse, pending: PendingActivityInfo, since: datetime
) -> Stall | None:
    home = run.execution_config.task_queue.name
    task_queue = pending.activity_options.task_queue.name or home
    found = await pollers(client, task_queue, activities=True)
    # Workers with no slot left do not poll for activities, but go on to poll for workflow tasks.
    if found and live(await pollers(client, home)):
        return not_taken(found, task_queue, since, activity=pending.activity_type.name)
    last = f" The last poll was {min(one.age for one in found):.0f} s ago." if found else ""
    return Stall(
        kind=StallKind.NO_WORKER,
        task_queue=task_queue,
        since=since,
        attempt=pending.attempt,
        problem=(
            f"No worker polls task queue '{task_queue}', where {pending.activity_type.name} has waited for "
            f"{waited(since):.0f} s.{last}"
        ),
        fix="Start a worker that serves it (`python worker.py`): the run then continues by itself.",
    )


def _pinned(run: DescribeWorkflowExecutionResponse) -> str | None:
    info = run.workflow_execution_info.versioning_info
    if info.behavior != VersioningBehavior.VERSIONING_BEHAVIOR_PINNED:
        return None
    version = info.deployment_version
    return f"{version.deployment_name}:{version.build_id}" if version.deployment_name else None


def _at(time: Timestamp) -> datetime:
    return time.ToDatetime(tzinfo=UTC)
