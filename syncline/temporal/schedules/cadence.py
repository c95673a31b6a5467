"""Cadence: another interval for a Schedule, and nothing else about it."""

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
    """Give the graph's Schedule this interval, and return whether it has it now.

    Its fingerprint stays, so that a reconciliation sees no difference; so does its state. One with another
    fingerprint was made from another record and is left alone, and so is one that does not wait for the run
    `run_id`, when that is given. Raise TemporalUnavailable if it cannot be reached.
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
    """Return whether the run is the Schedule's newest: the one whose result the next run is given.

    A run that was reset has a run id that the Schedule has never seen, and one that was started beside
    others (backfilled or triggered with overlap AllowAll) is not among those that it waits for.
    """
    return any(
        isinstance(action, ScheduleActionExecutionStartWorkflow) and action.first_execution_run_id == run_id
        for action in present.info.running_actions
    )
