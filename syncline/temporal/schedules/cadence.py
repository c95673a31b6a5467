"""Cadence: change only the interval of a graph's Schedule."""

from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleDescription,
    ScheduleSpec,
    ScheduleUpdate,
)
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.temporal.client import temporal_errors_mapped
from syncline.temporal.schedules import make as making
from syncline.temporal.schedules.change import change

__all__ = ["set_interval"]


async def set_interval(
    client: Client, slug: str, *, every_seconds: int, fingerprint: str, run_id: str | None = None
) -> bool:
    """Set the interval of the graph's Schedule, and return whether the Schedule has it now.

    Its fingerprint and state stay, so that a reconciliation finds no difference. A Schedule with another
    fingerprint was made from another record and is not changed; nor is one whose newest run is not `run_id`,
    if given. Raise TemporalUnavailable if Temporal cannot be reached.
    """
    interval = making.interval(slug, every_seconds)
    set_so = False

    def slowed(present: ScheduleDescription) -> ScheduleUpdate | None:
        nonlocal set_so
        schedule = present.schedule
        set_so = making.shown_fingerprint(present.typed_search_attributes) == fingerprint and (
            run_id is None or _waits_for(present, run_id)
        )
        if not set_so or [each.every for each in schedule.spec.intervals] == [interval.every]:
            return None
        schedule.spec = ScheduleSpec(intervals=[interval])
        schedule.policy = making.policy(interval.every)
        return ScheduleUpdate(schedule=schedule)

    with temporal_errors_mapped(client):
        try:
            await change(client, names.sync_schedule_id(slug), slowed)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
    return set_so


def _waits_for(present: ScheduleDescription, run_id: str) -> bool:
    """Return whether the run is the Schedule's newest, whose result the next run receives.

    The Schedule does not know the run id of a reset run, and does not wait for runs started concurrently
    (backfilled or triggered with overlap AllowAll).
    """
    return any(
        isinstance(action, ScheduleActionExecutionStartWorkflow) and action.first_execution_run_id == run_id
        for action in present.info.running_actions
    )
