"""Steering Schedules so that nothing is lost: each pause, resumption and start is read back, and repeated.

Of two patches of a Schedule (pause, unpause, trigger, backfill) that meet in one workflow task of the
server's scheduler, the server keeps the later one alone, and tells neither caller. So the state is changed
by updates with a conflict token, which no patch overwrites, and a patch that starts runs is confirmed by
what the Schedule has started since.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.workflowservice.v1 import ListScheduleMatchingTimesRequest
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleBackfill,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    ScheduleState,
    ScheduleUpdate,
)
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.errors import ConfigurationError, SchedulePaused, TemporalUnavailable
from syncline.temporal.client import temporal_errors_mapped
from syncline.temporal.schedules.list import list_schedules
from syncline.temporal.schedules.make import change
from syncline.temporal.schedules.notes import read_note
from syncline.temporal.stalls import pending_of

__all__ = ["backfill", "count_times", "pause", "pause_all", "resume", "resume_all", "start_now", "start_run"]

_ATTEMPTS: Final = 5
_AT_ONCE: Final = 20

_Report = Callable[[str, str | None], None]


async def pause(client: Client, slug: str, reason: str) -> None:
    """Pause the graph's Schedule with this note; raise the SDK's error if there is none."""

    def paused(state: ScheduleState) -> ScheduleState:
        return replace(state, paused=True, note=reason)

    await change(client, names.sync_schedule_id(slug), _to(paused))


async def resume(client: Client, slug: str) -> None:
    """Resume the graph's Schedule; raise SchedulePaused if the graph itself is paused, or the SDK's error."""

    def resumed(state: ScheduleState) -> ScheduleState:
        if state.paused and read_note(state.note).with_graph:
            # It would be paused again within half a minute.
            raise SchedulePaused(slug)
        return replace(state, paused=False, note=None) if state.paused else state

    await change(client, names.sync_schedule_id(slug), _to(resumed))


async def pause_all(client: Client, reason: str, *, report: _Report) -> None:
    """Pause each listed Schedule of a graph with this note; Schedules already paused stay as they are.

    `report` is called with each graph that was paused, and with each failed one and the reason in a sentence.
    Raise TemporalUnavailable if they cannot be listed.
    """

    def paused(state: ScheduleState) -> ScheduleState:
        return state if state.paused else replace(state, paused=True, note=reason)

    await _steer_all(client, _to(paused), report)


async def resume_all(client: Client, reason: str, *, report: _Report) -> None:
    """Resume each listed Schedule of a graph paused for exactly this reason; otherwise like `pause_all`.

    By whom does not matter.
    """

    def resumed(state: ScheduleState) -> ScheduleState:
        mine = state.paused and reason in (state.note, read_note(state.note).reason)
        return replace(state, paused=False, note=None) if mine else state

    await _steer_all(client, _to(resumed), report)


_Changed = Callable[[ScheduleDescription], ScheduleUpdate | None]


def _to(steered: Callable[[ScheduleState], ScheduleState]) -> _Changed:
    """Return the update that gives a Schedule this state, None if it has it."""

    def changed(present: ScheduleDescription) -> ScheduleUpdate | None:
        current = present.schedule.state
        state = steered(current)
        return None if state == current else ScheduleUpdate(replace(present.schedule, state=state))

    return changed


async def _steer_all(client: Client, changed: _Changed, report: _Report) -> None:
    """Change the state of each Schedule, a bounded number concurrently."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(slug: str) -> None:
        async with slots:
            try:
                # The list lags, so each Schedule's current state is read.
                with temporal_errors_mapped(client):
                    done = await _changed(client, slug, changed)
            except TemporalUnavailable as error:
                report(slug, str(error))
                return
        if done:
            report(slug, None)

    async with asyncio.TaskGroup() as tasks:
        for listed in await list_schedules(client):
            tasks.create_task(one(listed.slug))


async def _changed(client: Client, slug: str, changed: _Changed) -> bool:
    try:
        return await change(client, names.sync_schedule_id(slug), changed)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise


async def start_now(client: Client, slug: str) -> None:
    """Trigger the graph's Schedule as an operator does: a run now, unless one is open.

    One that lingers ends for it within seconds. Raise as `start_run`.
    """
    handle = client.get_schedule_handle(names.sync_schedule_id(slug))
    before = await handle.describe()
    overlap = None
    for run in before.info.running_actions:
        if isinstance(run, ScheduleActionExecutionStartWorkflow):
            pending = await pending_of(client, run.workflow_id, run.first_execution_run_id)
            overlap = ScheduleOverlapPolicy.BUFFER_ONE if pending.lingers else overlap
    await start_run(client, handle, overlap, before=before)


async def start_run(
    client: Client,
    handle: ScheduleHandle,
    overlap: ScheduleOverlapPolicy | None = None,
    *,
    before: ScheduleDescription | None = None,
) -> None:
    """Trigger the Schedule, and return once it has started buffered a run, or has skipped it by its policy.

    `before` is its description, if the caller has it. Raise the SDK's error, TemporalUnavailable if the
    Schedule takes no trigger.
    """
    first = _Counts.of(before or await handle.describe())

    def taken(present: ScheduleDescription) -> bool:
        # What else has grown it, a time that came, has started a run that is as late as the one asked for.
        now = _Counts.of(present)
        skipped = overlap is None and now.skipped > first.skipped
        return now.started > first.started or now.waiting > 0 or skipped

    await _until(taken, client, handle, lambda: handle.trigger(overlap=overlap))


async def backfill(client: Client, slug: str, start: datetime, end: datetime) -> None:
    """Run the graph once for each time of its Schedule from start to end, both included, one after the other.

    A single time comes twice if a run is open: it cannot be told from a trigger that overwrote it. Raise
    ConfigurationError if there is no such time, TemporalUnavailable if the Schedule takes no backfill, or
    the SDK's error.
    """
    handle = client.get_schedule_handle(names.sync_schedule_id(slug))
    # The server leaves the start itself out, and the default policy would skip all but the first.
    first = start - timedelta(microseconds=1)
    if not await _times_between(client, handle.id, first, end):
        raise ConfigurationError(
            f"The Schedule of graph '{slug}' has no time from {start.isoformat()} to {end.isoformat()}.",
            fix=f"Choose a period with one, or start a run now: `syncline schedule trigger {slug}`.",
        )
    present = await handle.describe()
    before, known = _Counts.of(present), _runs_between(present, first, end)

    def taken(present: ScheduleDescription) -> bool:
        now = _Counts.of(present)
        # Without one of its runs a run was open: a trigger that overwrote it has added one at most.
        return bool(_runs_between(present, first, end) - known) or now.all - before.all > 1

    asked = ScheduleBackfill(start_at=first, end_at=end, overlap=ScheduleOverlapPolicy.BUFFER_ALL)
    await _until(taken, client, handle, lambda: handle.backfill(asked))


async def _until(
    taken: Callable[[ScheduleDescription], bool],
    client: Client,
    handle: ScheduleHandle,
    patch: Callable[[], Awaitable[None]],
) -> None:
    for _ in range(_ATTEMPTS):
        await patch()
        if taken(await handle.describe()):
            return
    host = client.service_client.config.target_host
    raise TemporalUnavailable(
        host, client.namespace, f"Schedule '{handle.id}' has not taken a request in {_ATTEMPTS} attempts"
    )


@dataclass(frozen=True)
class _Counts:
    """What has become of the starts that a Schedule was asked for, so far."""

    started: int
    waiting: int
    skipped: int
    dropped: int

    @classmethod
    def of(cls, found: ScheduleDescription) -> "_Counts":
        info = found.raw_description.info
        return cls(info.action_count, info.buffer_size, info.overlap_skipped, info.buffer_dropped)

    @property
    def all(self) -> int:
        return self.started + self.waiting + self.skipped + self.dropped


def _runs_between(
    found: ScheduleDescription, start: datetime, end: datetime
) -> set[tuple[datetime, datetime]]:
    """Return the scheduled and the actual times of recent runs for this period."""
    return {
        (each.scheduled_at, each.started_at)
        for each in found.info.recent_actions
        if start <= each.scheduled_at <= end
    }


async def count_times(client: Client, slug: str, start: datetime, end: datetime) -> int:
    """Return how many times the graph's Schedule has from start to end; the server counts 1,000 at most.

    Raise the SDK's error if there is no Schedule.
    """
    first = start - timedelta(microseconds=1)
    return await _times_between(client, names.sync_schedule_id(slug), first, end)


async def _times_between(client: Client, schedule_id: str, start: datetime, end: datetime) -> int:
    times = [Timestamp(), Timestamp()]
    for stamp, moment in zip(times, (start, end), strict=True):
        stamp.FromDatetime(moment)
    request = ListScheduleMatchingTimesRequest(
        namespace=client.namespace, schedule_id=schedule_id, start_time=times[0], end_time=times[1]
    )
    answer = await client.workflow_service.list_schedule_matching_times(request, retry=True)
    return len(answer.start_time)
