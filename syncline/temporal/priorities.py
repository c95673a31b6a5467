"""The order in which runs and activities that wait for a worker are taken: Temporal's own priorities.

A task queue hands out its backlog strictly by key, the lowest first, so a key is given to what cannot flood
the queue: what people start, then one run per graph that something has changed for, then the clock's.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from temporalio.common import Priority

__all__ = ["BY_HAND", "SCHEDULED", "TRIGGERED", "WAITING", "cron_times", "is_on_time"]

BY_HAND: Final = Priority(priority_key=1)
"""Somebody waits for it: a run by hand, an operation."""
TRIGGERED: Final = Priority(priority_key=2)
"""A run of a Schedule at another time than its own: triggered, by a notification or by a person."""
SCHEDULED: Final = Priority(priority_key=3)
"""A run at its time. The server gives the same to what has no priority, such as a cron workflow."""
WAITING: Final = Priority(priority_key=4)
"""What can wait for all of these: a shadow's run, a verification."""


def is_on_time(due: datetime, times: Sequence[tuple[int, int]]) -> bool:
    """Return whether a Schedule with one of these intervals may have a run of its own then.

    Without intervals its times are not known, and any is taken for one of them.
    """
    second = int(due.timestamp())
    return not times or any(second % every == offset for every, offset in times)


def cron_times(expression: str) -> list[tuple[int, int]]:
    """Return the interval within which the times of a cron expression are: whole minutes, or none are known.

    An expression of seven fields has seconds; `@every` counts from any of them.
    """
    fields = [field for field in expression.split() if not field.startswith(("TZ=", "CRON_TZ="))]
    whole_minutes = len(fields) in (5, 6) or (len(fields) == 1 and fields[0] != "@every")
    return [(60, 0)] if whole_minutes else []
