"""What started a run: the clock, a change, an operator; by the run's attributes and its Schedule's times."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from temporalio.client import WorkflowExecution

from syncline import names
from syncline.temporal.client import GRAPH, SCHEDULED_BY, SCHEDULED_FOR
from syncline.temporal.priorities import is_on_time

__all__ = ["StartedBy", "started_by"]

_LATE: Final = timedelta(hours=1)
"""A scheduled run that starts this far from its nominal time comes from a backfill."""


class StartedBy(StrEnum):
    """What started a run."""

    SCHEDULE = "schedule"
    """The clock: a regular time of the graph's Schedule."""
    CHANGE = "change"
    """The graph's Schedule at another time: triggered by the notification of a change, by a retry that was
    due, by a change of its record, or by `syncline schedule trigger`."""
    BACKFILL = "backfill"
    """The Schedule, more than an hour from the run's nominal time."""
    CRON = "cron"
    """A workflow started with a cron expression (or with a delay, which looks the same)."""
    HAND = "hand"
    SHADOW = "shadow"
    """The graph's run, which starts the run of its shadow."""


async def _times(execution: WorkflowExecution) -> Sequence[tuple[int, int]]:
    """Return the regular times of the Schedule that started the run; nothing if they are not known."""
    if execution.typed_search_attributes.get(SCHEDULED_BY) is None:
        return ()
    try:
        times: list[tuple[int, int]] = await execution.memo_value(
            names.MEMO_TIMES, [], type_hint=list[tuple[int, int]]
        )
    except (KeyError, ValueError, RuntimeError):
        # Encrypted, and this process has no codec: the SDK then raises KeyError.
        return ()
    return times


async def started_by(execution: WorkflowExecution, began: datetime) -> StartedBy:
    """Return what started the run, which began at this time."""
    attributes = execution.typed_search_attributes
    if execution.parent_id is not None and names.shadowed_slug(attributes.get(GRAPH) or "") is not None:
        return StartedBy.SHADOW
    if attributes.get(SCHEDULED_BY) is not None:
        nominal = attributes.get(SCHEDULED_FOR)
        # Whole seconds: a run that was triggered in a regular second is taken for that of the clock.
        if nominal is not None and abs(began - nominal) > _LATE:
            return StartedBy.BACKFILL
        if nominal is None or is_on_time(nominal, await _times(execution)):
            return StartedBy.SCHEDULE
        return StartedBy.CHANGE
    return StartedBy.CRON if began > execution.start_time else StartedBy.HAND
