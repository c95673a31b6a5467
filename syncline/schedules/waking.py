"""Waking: one run of a graph's Schedule at once, unless somebody has paused it."""

from typing import Final, Literal

from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleOverlapPolicy
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.client import temporal_errors_mapped
from syncline.schedules import making

__all__ = ["Woken", "wake"]

Woken = Literal["started", "paused", "absent"]

_ONE_MORE: Final = ScheduleOverlapPolicy.BUFFER_ONE
"""A run that is open may have looked already, so one more follows it; never more than one."""


async def wake(client: Client, slug: str, *, task_queue: str) -> Woken:
    """Have the graph's Schedule on this task queue start a run now, or after the one that is open.

    A trigger would start a run of a paused Schedule too, so that is asked first. Raise TemporalUnavailable if
    it cannot be reached.
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
        try:
            await handle.trigger(overlap=_ONE_MORE)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return "absent"
            raise
    return "started"
