"""What keeps an open run from going on: the attempts of its activity, as Temporal knows them."""

from datetime import UTC, datetime

from temporalio.api.failure.v1 import Failure
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client
from temporalio.service import RPCError

from syncline.messages import Message

__all__ = ["Trying", "trying_of"]


class Trying(Message):
    """An activity that has failed and is tried again."""

    activity: str
    attempt: int
    """The one that runs now, or that is next."""
    problem: str
    """Why the last one failed."""
    next_at: datetime | None = None
    """When the next one begins; null while it runs."""


async def trying_of(client: Client, workflow_id: str, run_id: str) -> Trying | None:
    """Return what the run fails at, None if it goes on, has ended or cannot be asked."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        described = await handle.describe()
    except RPCError:
        return None
    return next(map(_trying, _failing(list(described.raw_description.pending_activities))), None)


def _failing(pending: list[PendingActivityInfo]) -> list[PendingActivityInfo]:
    return [activity for activity in pending if activity.HasField("last_failure")]


def _trying(activity: PendingActivityInfo) -> Trying:
    next_at = None
    if activity.HasField("scheduled_time"):
        due = activity.scheduled_time.ToDatetime(tzinfo=UTC)
        next_at = due if due > datetime.now(UTC) else None
    return Trying(
        activity=activity.activity_type.name,
        attempt=activity.attempt,
        problem=_innermost(activity.last_failure).message or "it gave no reason",
        next_at=next_at,
    )


def _innermost(failure: Failure) -> Failure:
    """Return our own error: the SDK's failures may wrap it."""
    while failure.HasField("cause") and not failure.message:
        failure = failure.cause
    return failure
