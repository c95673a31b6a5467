"""List of Schedules from visibility, which lags behind; and those that are due never or too often."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionResult,
    ScheduleActionStartWorkflow,
    ScheduleDescription,
    ScheduleListActionStartWorkflow,
    ScheduleListDescription,
    ScheduleListSchedule,
    ScheduleRange,
    ScheduleSpec,
    ScheduleState,
)

from syncline import names
from syncline.control.schedule_spec import DueKind, DueProblem, judge
from syncline.messages.base import Fairness
from syncline.temporal.client import temporal_errors_mapped
from syncline.temporal.schedules.make import describe, is_for, shown_fingerprint

__all__ = [
    "CRON_CATCHUP",
    "DueSchedules",
    "ListedRun",
    "ListedSchedule",
    "due_problem",
    "due_schedules",
    "find_schedule",
    "fix_of_graph",
    "list_schedule_ids",
    "list_schedules",
]

CRON_CATCHUP: Final = timedelta(hours=1)
"""Catch-up window of a Schedule with a cron expression; with an interval, at most the interval."""

_FULL = {"minute": (0, 59), "hour": (0, 23), "day_of_month": (1, 31), "month": (1, 12), "day_of_week": (0, 6)}
"""The fields of a cron expression in its order, and the range of each that means `*`."""


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """One run started by a Schedule."""

    workflow_id: str
    run_id: str
    started_at: datetime


@dataclass(frozen=True, kw_only=True)
class ListedSchedule:
    """The Schedule of one graph."""

    slug: str
    spec: str
    """When it runs, in words."""
    paused: bool
    note: str | None
    fingerprint: str | None
    next_at: datetime | None
    last_runs: tuple[ListedRun, ...]
    """Newest first."""
    due: DueProblem | None = None
    """Problem with its times; None if there is none, or if it is paused."""
    by_interval: bool = False
    """Whether it has an interval: then the last missed time is always caught up."""
    fairness: Fairness | None = None
    """The tenant that its runs are counted to; a list of several does not say it."""

    def behind(self, now: datetime) -> bool:
        """Return whether it has yet to process a past time, and to start a run for it."""
        if self.next_at is None or self.next_at > now:
            return False
        return self.by_interval or now - self.next_at < CRON_CATCHUP


async def list_schedules(client: Client) -> Sequence[ListedSchedule]:
    """Return the Schedules of graphs that start `SyncGraph`, by slug, or raise TemporalUnavailable."""
    prefix = names.sync_schedule_id("")
    with temporal_errors_mapped(client):
        found = [
            _listed(entry.id.removeprefix(prefix), entry, schedule)
            async for entry, schedule in _entries(client)
            if entry.id.startswith(prefix)
        ]
    return sorted(found, key=lambda listed: listed.slug)


async def find_schedule(client: Client, slug: str) -> ListedSchedule | None:
    """Return the current Schedule of one graph, None if there is none, or raise TemporalUnavailable."""
    prefix = names.sync_schedule_id("")
    with temporal_errors_mapped(client):
        found = await describe(client.get_schedule_handle(f"{prefix}{slug}"))
    if found is None:
        return None
    return replace(_listed(slug, found, found.schedule), fairness=_fairness(found.schedule))


def _fairness(schedule: Schedule) -> Fairness | None:
    action = schedule.action
    if not isinstance(action, ScheduleActionStartWorkflow) or not action.priority.fairness_key:
        return None
    return Fairness(key=action.priority.fairness_key, weight=action.priority.fairness_weight or None)


async def list_schedule_ids(client: Client) -> set[str]:
    """Return the ids of all Schedules that start `SyncGraph`."""
    return {entry.id async for entry, _ in _entries(client)}


async def _entries(
    client: Client,
) -> AsyncIterator[tuple[ScheduleListDescription, ScheduleListSchedule]]:
    async for entry in await client.list_schedules():
        action = None if entry.schedule is None else entry.schedule.action
        if entry.schedule is None or not isinstance(action, ScheduleListActionStartWorkflow):
            continue
        if action.workflow == names.SYNC_GRAPH:
            yield entry, entry.schedule


def _listed(
    slug: str,
    found: ScheduleListDescription | ScheduleDescription,
    schedule: ScheduleListSchedule | Schedule,
) -> ListedSchedule:
    info = found.info
    return ListedSchedule(
        slug=slug,
        spec=_in_words(schedule.spec),
        paused=schedule.state.paused,
        note=schedule.state.note,
        fingerprint=shown_fingerprint(found.typed_search_attributes),
        # A paused Schedule is listed with times at which it will not run.
        next_at=None if info is None or schedule.state.paused else next(iter(info.next_action_times), None),
        last_runs=() if info is None else tuple(_runs(info.recent_actions)),
        due=due_problem(found, schedule, fix=partial(fix_of_graph, slug)),
        by_interval=bool(schedule.spec.intervals),
    )


def due_problem(
    found: ScheduleListDescription | ScheduleDescription,
    schedule: ScheduleListSchedule | Schedule,
    *,
    fix: Callable[[DueKind], str],
) -> DueProblem | None:
    """Return the problem of the next times computed by the server; None if there is none, or if paused."""
    if found.info is None or schedule.state.paused:
        return None
    judged = judge(found.info.next_action_times)
    if judged is None:
        return None
    kind, problem = judged
    cause = _why_never(schedule) if kind is DueKind.NEVER else None
    return DueProblem(kind=kind, problem=f"{problem} {cause}" if cause else problem, fix=fix(kind))


def _why_never(schedule: ScheduleListSchedule | Schedule) -> str | None:
    """Return why a Schedule is never due, if not because of its times; a list entry contains less of it."""
    state = schedule.state
    if isinstance(state, ScheduleState) and state.limited_actions and state.remaining_actions == 0:
        return "Its limited number of runs is used up."
    end = schedule.spec.end_at
    if end is not None and end <= datetime.now(UTC):
        return f"Its end time was {end:%Y-%m-%d %H:%M:%S} UTC."
    return None


def fix_of_graph(slug: str, kind: DueKind) -> str:
    """Return the fix for the times of a graph's Schedule."""
    schedule_id = names.sync_schedule_id(slug)
    anew = (
        f"If its record is correct (`syncline graph show {slug}`), the Schedule itself has been changed: "
        f"`temporal schedule delete --schedule-id {schedule_id}`, then `syncline schedule reconcile` creates "
        "it again."
    )
    times = "--every-seconds 60" if kind is DueKind.RAPID else "--cron '30 4 * * *'"
    return f"`syncline graph set {slug} {times}`, or the intended times. {anew}"


def _runs(actions: Sequence[ScheduleActionResult]) -> Sequence[ListedRun]:
    return [
        ListedRun(
            workflow_id=result.action.workflow_id,
            run_id=result.action.first_execution_run_id,
            started_at=result.started_at,
        )
        for result in reversed(actions)
        if isinstance(result.action, ScheduleActionExecutionStartWorkflow)
    ]


def _in_words(spec: ScheduleSpec) -> str:
    """Return the spec approximately as written: the server stores a cron expression as calendars."""
    times = [f"every {interval.every.total_seconds():g} s" for interval in spec.intervals]
    times += [
        " ".join(_cron_field(getattr(calendar, field), full) for field, full in _FULL.items())
        for calendar in spec.calendars
    ]
    return "; ".join([*times, *spec.cron_expressions]) or "never"


def _cron_field(ranges: Sequence[ScheduleRange], full: tuple[int, int]) -> str:
    return ",".join(_cron_range(part, full) for part in ranges) or "*"


def _cron_range(part: ScheduleRange, full: tuple[int, int]) -> str:
    step = f"/{part.step}" if part.step > 1 else ""
    if (part.start, part.end) == full:
        return f"*{step}"
    return f"{part.start}{step}" if part.start == part.end else f"{part.start}-{part.end}{step}"


_LOOKED_AT_ONCE: Final = 8
_LOOKED_AT: Final = 200
"""Maximum number of Schedules that are described one by one, never due ones first."""


@dataclass(frozen=True, kw_only=True)
class DueSchedules:
    """Problems with the times of the Schedules of one task queue."""

    listed: int
    """Number of Schedules that start a Syncline workflow and may be on the task queue."""
    problems: Sequence[tuple[str, DueProblem]]
    """Schedule id and problem; never due ones first."""


async def due_schedules(client: Client, *, task_queue: str) -> DueSchedules:
    """Check every Schedule that starts a Syncline workflow on the task queue; raise TemporalUnavailable.

    The list is enough for Schedules without a problem. The others are described to get their task queue:
    other installations may share the namespace, and the list does not contain it for manual Schedules.
    """
    worst = list(DueKind)
    listed, odd = 0, list[tuple[int, str]]()
    with temporal_errors_mapped(client):
        async for entry in await client.list_schedules():
            action = None if entry.schedule is None else entry.schedule.action
            if entry.schedule is None or not isinstance(action, ScheduleListActionStartWorkflow):
                continue
            ours = is_for(shown_fingerprint(entry.typed_search_attributes), task_queue)
            if not ours or action.workflow not in names.WORKFLOWS:
                continue
            listed += 1
            found = due_problem(entry, entry.schedule, fix=partial(_fix, entry.id, task_queue))
            if found is not None:
                odd.append((worst.index(found.kind), entry.id))
        slots = asyncio.Semaphore(_LOOKED_AT_ONCE)

        async def one(schedule_id: str) -> DueProblem | None:
            async with slots:
                described = await describe(client.get_schedule_handle(schedule_id))
            if described is None:
                return None
            action = described.schedule.action
            if not isinstance(action, ScheduleActionStartWorkflow) or action.task_queue != task_queue:
                return None
            return due_problem(described, described.schedule, fix=partial(_fix, schedule_id, task_queue))

        looked = [schedule_id for _, schedule_id in sorted(odd)[:_LOOKED_AT]]
        answers = await asyncio.gather(*map(one, looked))
    problems = [(each, answer) for each, answer in zip(looked, answers, strict=True) if answer is not None]
    return DueSchedules(listed=listed, problems=sorted(problems, key=lambda each: worst.index(each[1].kind)))


def _fix(schedule_id: str, task_queue: str, kind: DueKind) -> str:
    graphs = names.sync_schedule_id("")
    if schedule_id.startswith(graphs):
        return fix_of_graph(schedule_id.removeprefix(graphs), kind)
    if schedule_id == names.reconcile_schedules_id(task_queue):
        return (
            f"`temporal schedule delete --schedule-id {schedule_id}`, and restart a worker: it creates the "
            "Schedule again, with SYNCLINE_RECONCILE_SECONDS."
        )
    return (
        f"`temporal schedule update --schedule-id {schedule_id} …` with the intended times (it replaces "
        f"the whole Schedule); or `temporal schedule delete --schedule-id {schedule_id}`; or pause it."
    )
