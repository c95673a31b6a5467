"""What keeps an open run from going on, as Temporal knows it: one question, or a few."""

from datetime import UTC, datetime

from temporalio.api.failure.v1 import Failure
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client
from temporalio.service import RPCError

from syncline.messages import Message
from syncline.stalled_task import stall_of
from syncline.stalls import Stall

__all__ = ["Pending", "Trying", "pending_of"]


class Trying(Message):
    """An activity that has failed and is tried again."""

    activity: str
    attempt: int
    """The one that runs now, or that is next."""
    problem: str
    """Why the last one failed."""
    next_at: datetime | None = None
    """When the next one begins; null while it runs."""


class Pending(Message):
    """What an open run fails at or waits for; empty if it goes on."""

    trying: Trying | None = None
    stall: Stall | None = None


async def pending_of(client: Client, workflow_id: str, run_id: str | None = None) -> Pending:
    """Return what the run fails at or waits for; nothing if it goes on, has ended or cannot be asked."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        run = (await handle.describe()).raw_description
    except RPCError:
        return Pending()
    failing = _failing(list(run.pending_activities))
    return Pending(
        trying=next(map(_trying, failing), None),
        stall=await stall_of(client, run),
    )


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
