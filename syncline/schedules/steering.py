"""Steering: what an operator does to the Schedules of all graphs at once."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from temporalio.client import Client, ScheduleDescription, ScheduleState, ScheduleUpdate
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.client import temporal_errors_mapped
from syncline.errors import TemporalUnavailable
from syncline.schedules.changing import change
from syncline.schedules.listing import list_schedules

__all__ = ["pause_all", "resume_all"]

_AT_ONCE: Final = 20

_Tell = Callable[[str, str | None], None]


async def pause_all(client: Client, reason: str, *, tell: _Tell) -> None:
    """Pause, with this note, each listed Schedule of a graph that is not paused; other pauses stay.

    `tell` is called with each graph that was paused, and with those that could not be and a sentence why.
    Raise TemporalUnavailable if they cannot be listed.
    """

    def paused(state: ScheduleState) -> ScheduleState:
        return state if state.paused else replace(state, paused=True, note=reason)

    await _steer_all(client, paused, tell)


async def resume_all(client: Client, reason: str, *, tell: _Tell) -> None:
    """Resume each listed Schedule of a graph that is paused with exactly this note; else as `pause_all`."""

    def resumed(state: ScheduleState) -> ScheduleState:
        mine = state.paused and state.note == reason
        return replace(state, paused=False, note=None) if mine else state

    await _steer_all(client, resumed, tell)


async def _steer_all(client: Client, steered: Callable[[ScheduleState], ScheduleState], tell: _Tell) -> None:
    """Bring each Schedule into that state, a bounded number at once."""

    def changed(present: ScheduleDescription) -> ScheduleUpdate | None:
        current = present.schedule.state
        state = steered(current)
        return None if state == current else ScheduleUpdate(replace(present.schedule, state=state))

    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(slug: str) -> None:
        async with slots:
            try:
                # The list lags, so that each is asked for its state.
                with temporal_errors_mapped(client):
                    done = await _changed(client, slug, changed)
            except TemporalUnavailable as error:
                tell(slug, str(error))
                return
        if done:
            tell(slug, None)

    async with asyncio.TaskGroup() as tasks:
        for listed in await list_schedules(client):
            tasks.create_task(one(listed.slug))


async def _changed(
    client: Client, slug: str, changed: Callable[[ScheduleDescription], ScheduleUpdate | None]
) -> bool:
    try:
        return await change(client, names.sync_schedule_id(slug), changed)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
