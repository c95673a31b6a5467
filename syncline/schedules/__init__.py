"""Desired graphs <-> Temporal Schedules: one Schedule per graph, and one that keeps all of those in step."""

from syncline.schedules.graph_schedule import (
    PAUSED_WITH_GRAPH,
    ScheduleChange,
    ensure_schedule,
    operators_pause,
    remove_schedule,
)
from syncline.schedules.listing import ListedSchedule, find_schedule, list_schedule_ids, list_schedules
from syncline.schedules.reconciler import ensure_reconciler, reconcile_now
from syncline.schedules.reconciliation import reconcile

__all__ = [
    "PAUSED_WITH_GRAPH",
    "ListedSchedule",
    "ScheduleChange",
    "ensure_reconciler",
    "ensure_schedule",
    "find_schedule",
    "list_schedule_ids",
    "list_schedules",
    "operators_pause",
    "reconcile",
    "reconcile_now",
    "remove_schedule",
]
