"""Desired graphs <-> Temporal Schedules: one Schedule per graph, and one that keeps all of those in step."""

from syncline.schedules.attention import DueSchedules, due_schedules
from syncline.schedules.cadence import set_interval
from syncline.schedules.graph_schedule import (
    PAUSED_WITH_GRAPH,
    ScheduleChange,
    ensure_schedule,
    graph_fingerprint,
    operators_pause,
    remove_schedule,
)
from syncline.schedules.listing import ListedSchedule, find_schedule, list_schedule_ids, list_schedules
from syncline.schedules.reconciler import ensure_reconciler, reconcile_now
from syncline.schedules.reconciliation import reconcile
from syncline.schedules.steering import pause_all, resume_all
from syncline.schedules.waking import Waking, Woken, wake

__all__ = [
    "PAUSED_WITH_GRAPH",
    "DueSchedules",
    "ListedSchedule",
    "ScheduleChange",
    "Waking",
    "Woken",
    "due_schedules",
    "ensure_reconciler",
    "ensure_schedule",
    "find_schedule",
    "graph_fingerprint",
    "list_schedule_ids",
    "list_schedules",
    "operators_pause",
    "pause_all",
    "reconcile",
    "reconcile_now",
    "remove_schedule",
    "resume_all",
    "set_interval",
    "wake",
]
