"""The order in which runs and activities that wait for a worker are taken: Temporal's own priorities.

A task queue hands out its backlog strictly by key, the lowest first, so a key is given to what cannot flood
the queue: what people start, then one run per graph that something has changed for, then the clock's.
"""

from typing import Final

from temporalio.common import Priority

__all__ = ["BY_HAND", "SCHEDULED", "WAITING", "WOKEN"]

BY_HAND: Final = Priority(priority_key=1)
"""Somebody waits for it: a run by hand, an operation."""
WOKEN: Final = Priority(priority_key=2)
"""A run of a Schedule at another time than its own: triggered, by a notification or by a person."""
SCHEDULED: Final = Priority(priority_key=3)
"""A run at its time. The server gives the same to what has no priority, such as a cron workflow."""
WAITING: Final = Priority(priority_key=4)
"""What can wait for all of these: a shadow's run, a verification."""
