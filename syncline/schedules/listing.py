"""The Schedules that sync graphs, as the server lists them. The list lags a little behind reality."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionResult,
    ScheduleDescription,
    ScheduleListActionStartWorkflow,
    ScheduleListDescription,
    ScheduleListSchedule,
    ScheduleRange,
    ScheduleSpec,
)

from syncline import names
from syncline.client import temporal_errors_mapped
from syncline.schedules.making import describe, shown_fingerprint

__all__ = [
    "CRON_CATCHUP",
    "ListedRun",
    "ListedSchedule",
    "find_schedule",
    "list_schedule_ids",
    "list_schedules",
]

CRON_CATCHUP: Final = timedelta(hours=1)
"""How late a Schedule still makes up for a time of a cron expression; one of an interval, within that."""

_FULL = {"minute": (0, 59), "hour": (0, 23), "day_of_month": (1, 31), "month": (1, 12), "day_of_week": (0, 6)}
"""The fields of a cron expression in its order, and the range of each that means `*`."""


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """One run that a Schedule has started."""

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
    by_interval: bool = False
    """Whether it has an interval: of the times that it missed, the last one is always made up for."""

    def behind(self, now: datetime) -> bool:
        """Return whether it has yet to look at a time that has passed, and to start a run for it."""
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
    """Return the Schedule of one graph as it is now, None if there is none, or raise TemporalUnavailable."""
    prefix = names.sync_schedule_id("")
    with temporal_errors_mapped(client):
        found = await describe(client.get_schedule_handle(f"{prefix}{slug}"))
    if found is None:
        return None
    return _listed(slug, found, found.schedule)


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
        by_interval=bool(schedule.spec.intervals),
    )


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
    """Return the spec as a person wrote it, or nearly: the server keeps calendars of a cron expression."""
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
