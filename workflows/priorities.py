"""Priority of a run's activities: the run's own, or one by what started the run."""

from temporalio import workflow
from temporalio.common import Priority

with workflow.unsafe.imports_passed_through():
    # Models, constants and pure functions: they cannot differ between a run and its replay.
    from syncline import names
    from syncline.messages.base import Fairness
    from syncline.temporal.client import SCHEDULED_BY, SCHEDULED_FOR
    from syncline.temporal.priorities import (
        BY_HAND,
        READING_A_GRAPH,
        SCHEDULED,
        TRIGGERED,
        WAITING,
        is_on_time,
        with_fairness,
    )

__all__ = ["lacks_fairness", "priority_of_operation", "priority_of_sync"]


def lacks_fairness() -> bool:
    """Return whether the run was started without a fairness key: by `temporal`, by cron, by an older release.

    What has none is counted to one tenant together.
    """
    return not workflow.info().priority.fairness_key


def priority_of_sync(*, shadow: bool, fairness: Fairness | None = None) -> Priority:
    """Return the priority of the activities of this run of `SyncGraph`, with the fairness that it lacks.

    A Schedule starts all its runs with the same priority. A run triggered by a change is recognised by its
    nominal start time, which is not one of the Schedule's regular times.
    """
    return with_fairness(_priority_of_sync(shadow=shadow), fairness)


def _priority_of_sync(*, shadow: bool) -> Priority:
    info = workflow.info()
    if info.typed_search_attributes.get(SCHEDULED_BY) is None:
        whose = WAITING if shadow else SCHEDULED if info.cron_schedule else BY_HAND
        return _chosen() or whose
    due = info.typed_search_attributes.get(SCHEDULED_FOR)
    times = workflow.memo_value(names.MEMO_TIMES, None, type_hint=list[tuple[int, int]])
    if due is None or times is None or is_on_time(due, times):
        return _chosen() or SCHEDULED
    return TRIGGERED


def priority_of_operation(workflow_type: str) -> Priority:
    """Return the priority of the activity of an operation."""
    return _chosen() or (WAITING if workflow_type in READING_A_GRAPH else BY_HAND)


def _chosen() -> Priority | None:
    """Return the priority that the run was started with; None if it has none."""
    own = workflow.info().priority
    return own if own.priority_key else None
