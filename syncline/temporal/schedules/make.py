"""How a Schedule of ours is made and kept: by a fingerprint of what it was made from, never over a pause.

The server rewrites what it is given (a cron expression becomes calendars), so Schedules themselves do not
compare. The fingerprint is a search attribute, because the list of Schedules shows those: whoever looks after
hundreds need not describe each.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final, Literal

from temporalio.client import (
    Client,
    Schedule,
    ScheduleAlreadyRunningError,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleState,
    ScheduleUpdate,
)
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from syncline.temporal.client import FINGERPRINT
from syncline.temporal.schedules.change import change

__all__ = [
    "attributes",
    "describe",
    "fingerprint_of",
    "interval",
    "is_for",
    "make",
    "policy",
    "shown_fingerprint",
    "times",
]

_LEAST_CATCHUP: Final = timedelta(seconds=10)
"""What the server raises any smaller catch-up window to."""


def fingerprint_of(task_queue: str, *made_from: object) -> str:
    """Return the fingerprint of a Schedule for this task queue, made from these values, which are JSON."""
    return f"{_digest(task_queue)[:8]}-{_digest(json.dumps(made_from, sort_keys=True))[:16]}"


def is_for(fingerprint: str | None, task_queue: str) -> bool:
    """Return whether a Schedule with this fingerprint may be one for the task queue; without one it may."""
    return fingerprint is None or fingerprint.startswith(f"{_digest(task_queue)[:8]}-")


def shown_fingerprint(found: TypedSearchAttributes) -> str | None:
    """Return the fingerprint among the attributes of a listed or described Schedule."""
    return found.get(FINGERPRINT)


def attributes(fingerprint: str, *others: SearchAttributePair[str]) -> TypedSearchAttributes:
    """Return the attributes of a Schedule with this fingerprint."""
    return TypedSearchAttributes([*others, SearchAttributePair(FINGERPRINT, fingerprint)])


def interval(key: str, every_seconds: int) -> ScheduleIntervalSpec:
    """Return an interval with an offset that is the same for ever, and spread over all keys."""
    every, offset = times(key, every_seconds)
    return ScheduleIntervalSpec(every=timedelta(seconds=every), offset=timedelta(seconds=offset))


def times(key: str, every_seconds: int) -> tuple[int, int]:
    """Return the times of that interval, in seconds: those that leave this remainder divided by it."""
    return every_seconds, int(_digest(key)[:16], 16) % every_seconds


def policy(catchup: timedelta) -> SchedulePolicy:
    """Return the policy of all our Schedules: one run at a time, and no more made up for than this."""
    return SchedulePolicy(
        overlap=ScheduleOverlapPolicy.SKIP,
        # The server's default is a year: after a long outage it would replay every missed minute.
        catchup_window=max(catchup, _LEAST_CATCHUP),
        pause_on_failure=False,
    )


async def describe(handle: ScheduleHandle) -> ScheduleDescription | None:
    """Return the Schedule's description, None if there is no such Schedule."""
    try:
        return await handle.describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise


async def make(
    client: Client,
    schedule_id: str,
    desired: Schedule,
    *,
    found_by: TypedSearchAttributes,
    state: Callable[[ScheduleState], ScheduleState] = lambda current: current,
    refuse: Callable[[ScheduleDescription], None] | None = None,
    start_now: bool = False,
) -> Literal["created", "updated", "unchanged"]:
    """Make the Schedule exist as desired, and return what that took.

    `found_by` has its attributes, the fingerprint among them. `state` says what becomes of the state of one
    that exists; by itself nothing, so that an operator's pause stays. One that has the fingerprint keeps all
    but its state: its interval may have been changed since. `refuse` may raise for one that is not to be
    touched, each time that it is read. With `start_now` one that is created, and not paused, runs at once.
    """
    handle = client.get_schedule_handle(schedule_id)
    description = await describe(handle)
    if description is None:
        try:
            await client.create_schedule(
                schedule_id,
                desired,
                search_attributes=found_by,
                trigger_immediately=start_now and not desired.state.paused,
            )
        except ScheduleAlreadyRunningError:
            pass  # somebody else was faster, and may have made it from something older
        else:
            return "created"
        description = await handle.describe()

    def renewed(present: ScheduleDescription) -> ScheduleUpdate | None:
        if refuse is not None:
            refuse(present)
        current = present.schedule.state
        same = shown_fingerprint(present.typed_search_attributes) == shown_fingerprint(found_by)
        if same and state(current) == current:
            return None
        made = replace(present.schedule if same else desired, state=state(current))
        return ScheduleUpdate(schedule=made, search_attributes=found_by)

    if renewed(description) is None:
        return "unchanged"
    return "updated" if await change(client, schedule_id, renewed) else "unchanged"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
