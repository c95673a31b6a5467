"""Priorities of runs and activities that wait for a worker, by Temporal's priority keys.

A task queue dispatches its backlog strictly by key, the lowest first, so low keys are for work that cannot
flood the queue: operators' runs, then one triggered run per changed graph, then scheduled runs. Among tasks
of the same key, tenants take turns by their fairness keys, if the server has fairness enabled.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from temporalio.common import Priority

from syncline import names
from syncline.messages.base import Fairness

__all__ = [
    "BY_HAND",
    "READING_A_GRAPH",
    "SCHEDULED",
    "TRIGGERED",
    "WAITING",
    "cron_times",
    "is_on_time",
    "with_fairness",
]

BY_HAND: Final = Priority(priority_key=1)
"""An operator waits for it: a manual run, an operation."""
TRIGGERED: Final = Priority(priority_key=2)
"""A run of a Schedule outside its regular times: triggered by a notification or an operator."""
SCHEDULED: Final = Priority(priority_key=3)
"""A scheduled run. The server's default too, for example for a cron workflow."""
WAITING: Final = Priority(priority_key=4)
"""Work that can wait for all others: a shadow's run, a verification."""
READING_A_GRAPH: Final = frozenset({names.VERIFY_GRAPH, names.TAKE_OVER_GRAPH})
"""Operations that read every row of a graph, and so can wait."""


def with_fairness(priority: Priority, fairness: Fairness | None) -> Priority:
    """Return the priority, counted to a tenant. Temporal lets tenants of one priority key take turns.

    Activities and child workflows inherit what they do not say themselves.
    """
    if fairness is None:
        return priority
    return replace(priority, fairness_key=fairness.key, fairness_weight=fairness.weight)


def is_on_time(due: datetime, times: Sequence[tuple[int, int]]) -> bool:
    """Return whether `due` is a regular time of a Schedule with one of these intervals.

    Without intervals its times are unknown, and any time counts as regular.
    """
    second = int(due.timestamp())
    return not times or any(second % every == offset for every, offset in times)


def cron_times(expression: str) -> list[tuple[int, int]]:
    """Return the interval that contains all times of a cron expression: whole minutes, or [] if unknown.

    Unknown for seven fields, which include seconds, and for `@every`, which starts at any second.
    """
    fields = [field for field in expression.split() if not field.startswith(("TZ=", "CRON_TZ="))]
    whole_minutes = len(fields) in (5, 6) or (len(fields) == 1 and fields[0] != "@every")
    return [(60, 0)] if whole_minutes else []
