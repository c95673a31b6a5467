"""Waits for what a transaction wrote, by an activity without a workflow where the server has those."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Final

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import ActivityFailureError, ActivityHandle, Client
from temporalio.common import (
    ActivityIDConflictPolicy,
    RetryPolicy,
    SearchAttributePair,
    TypedSearchAttributes,
)
from temporalio.exceptions import ApplicationError
from temporalio.exceptions import TimeoutError as ActivityTimeout
from temporalio.service import RPCError

from syncline import names
from syncline.errors import ConfigurationError, NoWorker, RunFailed, SynclineError, non_retryable_types
from syncline.messages.visibility import Visibility, WaitVisibleInput
from syncline.temporal.client import GRAPH, temporal_errors_mapped
from syncline.temporal.priorities import BY_HAND
from syncline.temporal.run import class_of
from syncline.temporal.stalls import TAKEN_WITHIN
from syncline.temporal.task_queues import live, pollers

__all__ = ["GRACE", "HEARTBEAT", "RETRY", "can_wait_directly", "wait_directly"]

GRACE: Final = timedelta(seconds=20)
"""Time beyond the wait in which a worker may answer, or another take the wait over."""
HEARTBEAT: Final = timedelta(seconds=40)
RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    maximum_interval=timedelta(seconds=5),
    non_retryable_error_types=non_retryable_types(),
)
"""How the activity is retried, in a run too."""


async def can_wait_directly(client: Client, task_queue: str) -> bool:
    """Return whether the server starts activities without a workflow, and a worker polls for waits."""
    with temporal_errors_mapped(client):
        asked = client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace)
        )
        described, polling = await asyncio.gather(
            asked, pollers(client, names.waits_task_queue(task_queue), activities=True)
        )
    return bool(described.namespace_info.capabilities.standalone_activities and live(polling))


async def wait_directly(client: Client, request: WaitVisibleInput, *, task_queue: str) -> Visibility:
    """Wait, and return what is visible; equal waits of one client's callers may share an activity.

    It returns as soon as a worker knows, without the two workflow tasks of a run. Cancelling the caller
    cancels it. Raise ConfigurationError if the token is refused, RunFailed if it fails otherwise, NoWorker if
    the workers that polled lately are gone, TemporalUnavailable.
    """
    began, queue = datetime.now(UTC), names.waits_task_queue(task_queue)
    within = timedelta(seconds=request.seconds) + GRACE
    kind = "vectors" if request.vectors else "rows"
    with temporal_errors_mapped(client):
        handle: ActivityHandle[Visibility] = await client.start_activity(
            names.WAIT_VISIBLE_ACTIVITY,
            request,
            id=f"wait/{request.graph}/{request.token}/{kind}/{request.seconds:g}",
            task_queue=queue,
            schedule_to_close_timeout=within,
            schedule_to_start_timeout=timedelta(seconds=max(request.seconds, TAKEN_WITHIN)),
            start_to_close_timeout=within,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=RETRY,
            id_conflict_policy=ActivityIDConflictPolicy.USE_EXISTING,
            search_attributes=TypedSearchAttributes([SearchAttributePair(GRAPH, request.graph)]),
            summary=request.summary[:200],
            priority=BY_HAND,
            result_type=Visibility,
        )
        try:
            return await handle.result()
        except asyncio.CancelledError:
            with contextlib.suppress(RPCError, TimeoutError):
                async with asyncio.timeout(5):
                    await handle.cancel()
            raise
        except ActivityFailureError as error:
            if isinstance(error.cause, ActivityTimeout):
                found = await pollers(client, queue, activities=True)
                if not any(one.seen_at >= began for one in found):
                    gone = (
                        f"No worker polls task queue '{queue}' of namespace '{client.namespace}' any longer"
                    )
                    raise NoWorker(queue, client.namespace, last_poll=gone) from None
                return Visibility.unanswered(request.graph, seconds=within.total_seconds())
            raise _error_of(error, handle.id) from error


def _error_of(error: ActivityFailureError, activity_id: str) -> SynclineError:
    cause = error.cause
    kind = class_of(cause) if isinstance(cause, ApplicationError) else None
    said = getattr(cause, "message", None) or str(cause or error)
    if kind is not None and issubclass(kind, ConfigurationError):
        return ConfigurationError(said)
    return RunFailed(activity_id, f"Activity {activity_id} failed: {said}")
