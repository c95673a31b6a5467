"""Stalls: why an open run does not continue, in a sentence, with the fix.

One module because one description of a run is read for all of them, and the first that applies is told.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from shlex import quote
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

from syncline import names
from syncline.errors import SynclineError
from syncline.messages.base import Message
from syncline.messages.sync import CycleProgress, Waiting
from syncline.temporal.task_queues import Poller, RateLimit, describe_queue, live, pollers

__all__ = [
    "TAKEN_WITHIN",
    "Pending",
    "PendingRetry",
    "Stall",
    "StallKind",
    "changed_code",
    "mend",
    "no_worker",
    "not_taken",
    "pending_of",
    "progress_in",
    "reported",
    "stall_of",
    "waited",
]

TAKEN_WITHIN: Final = 3.0
"""Seconds within which a running worker takes a task, even if it has just started."""


class StallKind(StrEnum):
    """Kind of stall."""

    TASK_FAILS = "task_fails"
    """Its workflow task fails: changed workflow code, an unknown type, an unreadable payload, a bug."""
    NO_WORKER = "no_worker"
    """No worker polls the task queue that it waits on, or only workers of other versions do."""
    HALTED = "halted"
    """An operator has paused its activity, or limited the rate of the task queue that it waits on."""
    NOT_TAKEN = "not_taken"
    """Workers poll, or did recently, but none has taken it: all are busy, or the last one is gone."""


class Stall(Message):
    """Why a run does not continue."""

    kind: StallKind
    task_queue: str
    since: datetime | None = None
    """Since when its workflow task fails, or its task waits; null if known from visibility only."""
    attempt: int = 1
    problem: str
    """The problem in a sentence, with the age of the evidence."""
    fix: str
    """What to run or change."""


def reported(
    problems: Sequence[str], *, task_queue: str, workflow_id: str, run_id: str, workflow_type: str
) -> Stall | None:
    """Return the stall in TemporalReportedProblems, which the server sets after five failures."""
    cause = next((told.removeprefix("cause=") for told in problems if told.startswith("cause=")), None)
    if not problems:
        return None
    name = (cause or ", ".join(problems)).removeprefix("WorkflowTaskFailedCause")
    return Stall(
        kind=StallKind.TASK_FAILS,
        task_queue=task_queue,
        attempt=5,
        problem=f"Its workflow task has failed five times or more: {name}.",
        fix=changed_code(workflow_id, run_id)
        if name == "NonDeterministicError"
        else mend(workflow_id, run_id, workflow_type),
    )


def no_worker(
    found: Sequence[Poller], *, task_queue: str, since: datetime, version: str | None = None
) -> Stall | None:
    """Return why no worker takes a workflow task that waits since `since`; None if one may still take it.

    `found` are the pollers of the queue; `version` is the version that the run is pinned to.
    """
    where = f"task queue '{task_queue}'"
    fitting = [one for one in found if one.version == version or (version is None and one.takes_new_runs)]
    waits = max(0.0, (datetime.now(UTC) - since).total_seconds())
    fix = "Start a worker (`syncline worker`): the run then continues by itself."
    if not found:
        problem = f"No worker polls {where}"
    elif not fitting:
        kinds = ", ".join(sorted({one.version or "unversioned" for one in found}))
        wanted = f"a run of version {version}" if version else "new runs"
        problem = f"Only workers that do not take {wanted} poll {where} ({kinds})"
        fix = (
            f"Start a worker of version {version}, or end the run."
            if version
            else "Start a worker of the current version, or make one of these current: "
            "`temporal worker deployment set-current-version` (`syncline doctor` has the whole command)."
        )
    elif not live(fitting) or (
        waits > TAKEN_WITHIN and max(one.seen_at for one in fitting) < since
    ):  # an open poll would have taken it
        last = max(fitting, key=lambda one: one.seen_at)
        problem = (
            f"No worker polls {where} any longer: the last poll, {last.age:.0f} s ago, was of {last.identity}"
        )
    else:
        return None
    return Stall(
        kind=StallKind.NO_WORKER,
        task_queue=task_queue,
        since=since,
        problem=f"{problem}. It has waited for {waits:.0f} s.",
        fix=fix,
    )


def _terminate(workflow_id: str, run_id: str) -> str:
    """Return the command that terminates a run."""
    return f"`temporal workflow terminate --workflow-id {quote(workflow_id)} --run-id {run_id} --reason …`"


def changed_code(workflow_id: str, run_id: str) -> str:
    """Return the fixes for a run whose workflow code has changed."""
    # Measured: a reset to the last workflow task replays events that the changed code does not produce.
    return (
        "The workflow code has changed since the run began. Deploy the code that it began on, and it "
        "continues; or restart it on the current code: `temporal workflow reset "
        f"--workflow-id {quote(workflow_id)} --run-id {run_id} --type FirstWorkflowTask --reason …` (a reset "
        "to LastWorkflowTask would fail the same way); or end it, if another run will do its work: "
        f"{_terminate(workflow_id, run_id)}."
    )


def mend(workflow_id: str, run_id: str, workflow_type: str) -> str:
    """Return the fixes for a run whose workflow task fails for another reason."""
    return (
        f"Deploy workers that know workflow type {workflow_type} and can decode its payloads (release, codec "
        "and keys of the client that started it), or whose code is fixed, and it continues; or end it: "
        f"{_terminate(workflow_id, run_id)}."
    )


def not_taken(
    found: Sequence[Poller], task_queue: str, since: datetime, *, activity: str = "its workflow task"
) -> Stall:
    """Return the stall of a task that one of these pollers should have taken by now."""
    last = max(found, key=lambda one: one.seen_at)
    return Stall(
        kind=StallKind.NOT_TAKEN,
        task_queue=task_queue,
        since=since,
        problem=(
            f"No worker has taken {activity} from task queue '{task_queue}' for {waited(since):.0f} s: all "
            f"are busy, or gone. The last poll was {last.age:.0f} s ago, of {last.identity}."
        ),
        fix="Wait for a free worker, or start one more (`syncline worker`).",
    )


def waited(since: datetime) -> float:
    """Return the seconds since `since`."""
    return (datetime.now(UTC) - since).total_seconds()


_EVENTS: Final = 10
"""Number of last history events that include the failure of the pending workflow task."""
_LONGEST: Final = 400
_FAILED: Final = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
_COMPLETED: Final = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
_NON_DETERMINISM: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
_HARMLESS: Final = (
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,
)
"""Causes that are no failures: a reset, and a command that conflicts with a new signal."""


async def stall_of(client: Client, run: DescribeWorkflowExecutionResponse) -> Stall | None:
    """Return why a described run does not continue; None if it does, as far as Temporal knows."""
    try:
        return await _workflow_task(client, run) or await _activities(client, run)
    except (RPCError, SynclineError):
        return None  # the caller's next call to Temporal reports the error


async def _workflow_task(client: Client, run: DescribeWorkflowExecutionResponse) -> Stall | None:
    task = run.pending_workflow_task
    if not run.HasField("pending_workflow_task"):
        return None
    if task.attempt > 1:
        failed = await _last_failure(client, run)
        if failed is not None:
            return await _stalled_task_failing(client, run, failed)
    since = _at(task.scheduled_time)
    if task.state != PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED:
        return None
    task_queue = run.execution_config.task_queue.name
    found = await pollers(client, task_queue)
    stall = no_worker(found, task_queue=task_queue, since=since, version=_pinned(run))
    if stall is not None or waited(since) < TAKEN_WITHIN:
        return stall
    return not_taken(found, task_queue, since)


async def _stalled_task_failing(
    client: Client, run: DescribeWorkflowExecutionResponse, failed: HistoryEvent
) -> Stall:
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
    """Return the failure event since the last completed workflow task."""
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
    """Return the outermost message of a failure: messages of causes may quote payloads."""
    try:
        error = await client.data_converter.decode_failure(failure)
    except Exception:  # a codec is foreign code
        return "its message cannot be decoded here."
    told = " ".join(str(getattr(error, "message", None) or error).split())
    told = told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"
    return told if told.endswith((".", "…")) else f"{told}."


_PAUSED: Final = (
    PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED,
    PendingActivityState.PENDING_ACTIVITY_STATE_PAUSE_REQUESTED,
)


def _paused(run: DescribeWorkflowExecutionResponse, pending: PendingActivityInfo) -> Stall:
    """Return the stall of an activity that an operator has paused, or one of whose attempts still ends."""
    by, execution = pending.pause_info.manual, run.workflow_execution_info.execution
    kind, since = pending.activity_type.name, _at(pending.pause_info.pause_time)
    reason = by.reason or "no reason given"
    which = f"--workflow-id {quote(execution.workflow_id)} --activity-id {quote(pending.activity_id)}"
    return Stall(
        kind=StallKind.HALTED,
        task_queue=pending.activity_options.task_queue.name or run.execution_config.task_queue.name,
        since=since,
        attempt=pending.attempt,
        problem=f"{kind} is paused since {since:%Y-%m-%d %H:%M:%S}Z, by {by.identity or 'a rule'}: {reason}.",
        fix=f"`temporal activity unpause {which}`: it continues after the last committed batch.",
    )


def _limited(task_queue: str, limit: RateLimit, since: datetime, *, activity: str) -> Stall:
    return Stall(
        kind=StallKind.HALTED,
        task_queue=task_queue,
        since=since,
        problem=(
            f"{activity} has waited for {waited(since):.0f} s, since task queue '{task_queue}' is limited: "
            f"{limit}."
        ),
        fix=(
            f"`temporal task-queue config set --task-queue {quote(task_queue)} --task-queue-type activity "
            "--queue-rps-limit default --fairness-key-rps-limit-default default` lifts the limit."
        ),
    )


async def _activities(client: Client, run: DescribeWorkflowExecutionResponse) -> Stall | None:
    """Return why a due activity is not started."""
    for pending in run.pending_activities:
        # Between the end of its attempt and the pause it is neither.
        if pending.paused or pending.state in _PAUSED:
            return _paused(run, pending)
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
    queue = await describe_queue(client, task_queue, activities=True)
    found = queue.pollers
    # Workers without a free slot do not poll for activities, but still poll for workflow tasks.
    if found and live(await pollers(client, home)):
        if queue.limit is not None and queue.limiting:
            return _limited(task_queue, queue.limit, since, activity=pending.activity_type.name)
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
        fix="Start a worker that serves it (`syncline worker`): the run then continues.",
    )


def _pinned(run: DescribeWorkflowExecutionResponse) -> str | None:
    info = run.workflow_execution_info.versioning_info
    if info.behavior != VersioningBehavior.VERSIONING_BEHAVIOR_PINNED:
        return None
    version = info.deployment_version
    return f"{version.deployment_name}:{version.build_id}" if version.deployment_name else None


def _at(time: Timestamp) -> datetime:
    return time.ToDatetime(tzinfo=UTC)


class PendingRetry(Message):
    """An activity that has failed and is retried."""

    activity: str
    attempt: int
    """Number of the attempt that runs now, or is next."""
    problem: str
    """Why the last attempt failed."""
    next_at: datetime | None = None
    """When the next attempt starts; null while it runs."""


class Pending(Message):
    """What an open run retries or waits for; empty if it continues."""

    trying: PendingRetry | None = None
    stall: Stall | None = None
    waiting: Waiting | None = None
    """The service that its cycle reported not to answer."""
    lingers: bool = False
    """Whether its cycle has drained, and stays open for further changes."""

    @property
    def held(self) -> bool:
        """Whether the run does not continue, or only once something is tried again."""
        return self.trying is not None or self.stall is not None


async def pending_of(client: Client, workflow_id: str, run_id: str | None = None) -> Pending:
    """Return what the run retries or waits for; empty if it continues, has ended or cannot be described."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        run = (await handle.describe()).raw_description
    except RPCError:
        return Pending()
    failing = _failing(list(run.pending_activities))
    progress = await progress_in(client, run)
    return Pending(
        trying=next(map(_pending_retry, failing), None),
        stall=await stall_of(client, run),
        waiting=None if progress is None else progress.waiting,
        lingers=progress is not None and progress.phase == "linger",
    )


async def progress_in(client: Client, run: DescribeWorkflowExecutionResponse) -> CycleProgress | None:
    """Return the progress of a described run's cycle; None if no cycle runs, or none has been reported."""
    for pending in run.pending_activities:
        payloads = pending.heartbeat_details.payloads
        if pending.activity_type.name == names.SYNC_CYCLE and payloads:
            try:
                [progress] = await client.data_converter.decode(payloads, [CycleProgress])
                return CycleProgress.model_validate(progress)
            except Exception:  # a codec is foreign code, and a provider's heartbeats may have another type
                return None
    return None


_BY_AN_OPERATOR: Final = frozenset({"ActivityPause", "ActivityReset"})
"""What the SDK has an attempt fail with that an operator has ended: nothing is wrong with it."""


def _failing(pending: list[PendingActivityInfo]) -> list[PendingActivityInfo]:
    return [activity for activity in pending if activity.HasField("last_failure") and not _ended(activity)]


def _ended(activity: PendingActivityInfo) -> bool:
    return activity.last_failure.application_failure_info.type in _BY_AN_OPERATOR


def _pending_retry(activity: PendingActivityInfo) -> PendingRetry:
    next_at = None
    if activity.HasField("scheduled_time"):
        due = activity.scheduled_time.ToDatetime(tzinfo=UTC)
        next_at = due if due > datetime.now(UTC) else None
    return PendingRetry(
        activity=activity.activity_type.name,
        attempt=activity.attempt,
        problem=_innermost(activity.last_failure).message or "it gave no reason",
        next_at=next_at,
    )


def _innermost(failure: Failure) -> Failure:
    """Return the innermost failure: the SDK's failures may wrap it."""
    while failure.HasField("cause") and not failure.message:
        failure = failure.cause
    return failure
