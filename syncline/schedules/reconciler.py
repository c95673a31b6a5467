"""The Schedule of the reconciliation itself: made by every worker that starts, one for each task queue."""

from datetime import timedelta
from typing import Final, Literal
from uuid import uuid4

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
)

from syncline import names
from syncline.by_hand import run_by_hand
from syncline.client import temporal_errors_mapped
from syncline.messages import Reconciliation
from syncline.priorities import SCHEDULED
from syncline.schedules import making

__all__ = ["ensure_reconciler", "reconcile_now"]

_FORM: Final = 2
"""Raise it when `ensure_reconciler` makes something else of the same interval."""

_LONGEST_RUN: Final = timedelta(minutes=15)
"""Longer than all that the workflow itself bounds: it ends a run that no worker can go on with."""

_SUMMARY: Final = "Make the Schedules match the graphs"


async def ensure_reconciler(
    client: Client, *, task_queue: str, every_seconds: int
) -> Literal["created", "updated", "unchanged"]:
    """Make the Schedule of `ReconcileSchedules` exist with this interval, and return what that took.

    Workers may do so at the same time. An operator's pause survives. Raise TemporalUnavailable if Temporal
    does not answer, or does not allow it.
    """
    schedule_id = names.reconcile_schedules_id(task_queue)
    interval = making.interval(schedule_id, every_seconds)
    desired = Schedule(
        action=ScheduleActionStartWorkflow(
            names.RECONCILE_SCHEDULES,
            id=schedule_id,
            task_queue=task_queue,
            execution_timeout=_LONGEST_RUN,
            static_summary=_SUMMARY,
            priority=SCHEDULED,
        ),
        spec=ScheduleSpec(intervals=[interval]),
        policy=making.policy(interval.every),
    )
    fingerprint = making.fingerprint_of(task_queue, _FORM, every_seconds)
    with temporal_errors_mapped(client):
        return await making.make(client, schedule_id, desired, found_by=making.attributes(fingerprint))


async def reconcile_now(client: Client, *, task_queue: str, seconds: float) -> Reconciliation:
    """Run `ReconcileSchedules` by hand, beside whatever its Schedule does, and return its result.

    Raise as `run_by_hand` does if it fails, or has not ended within these seconds.
    """
    return await run_by_hand(
        client,
        names.RECONCILE_SCHEDULES,
        Reconciliation,
        workflow_id=f"{names.reconcile_schedules_id(task_queue)}-by-hand-{uuid4()}",
        task_queue=task_queue,
        seconds=seconds,
        summary=_SUMMARY,
    )
