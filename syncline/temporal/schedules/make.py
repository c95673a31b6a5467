"""Creation and update of Schedules by fingerprint, without overriding an operator's pause; their intervals.

The server rewrites a Schedule (a cron expression becomes calendars), so Schedules cannot be compared. The
fingerprint of the record is a search attribute, because the list of Schedules contains those: reconciling
hundreds needs no description of each.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final, Literal
from uuid import uuid4

from temporalio.api.workflowservice.v1 import UpdateScheduleRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
)
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.converter import encode_search_attributes
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.errors import TemporalUnavailable
from syncline.temporal.client import FINGERPRINT, temporal_errors_mapped

__all__ = [
    "attributes",
    "change",
    "describe",
    "fingerprint_of",
    "interval",
    "is_for",
    "make",
    "policy",
    "set_interval",
    "shown_fingerprint",
    "times",
]

_ATTEMPTS: Final = 5
_CONFLICTS: Final = frozenset({RPCStatusCode.ABORTED, RPCStatusCode.FAILED_PRECONDITION})


async def change(
    client: Client, schedule_id: str, changed: Callable[[ScheduleDescription], ScheduleUpdate | None]
) -> bool:
    """Update the Schedule until `changed` returns None; return whether it was updated.

    Raise the SDK's error, also if the Schedule does not exist; TemporalUnavailable if others keep changing
    it.
    """
    # The SDK's `update` does not send the conflict token, so it would overwrite concurrent changes.
    handle = client.get_schedule_handle(schedule_id)
    for attempt in range(_ATTEMPTS):
        present = await _read(handle)
        update = changed(present)
        if update is None:
            return attempt > 0
        request = UpdateScheduleRequest(
            namespace=client.namespace,
            schedule_id=schedule_id,
            schedule=await update.schedule._to_proto(client),  # noqa: SLF001 # no public API
            conflict_token=present.raw_description.conflict_token,
            identity=client.identity,
            request_id=str(uuid4()),
        )
        if update.search_attributes is not None:
            encode_search_attributes(update.search_attributes, request.search_attributes)
        try:
            # The server silently drops an update with an outdated token: reading it again reveals that.
            await client.workflow_service.update_schedule(request, retry=True)
        except RPCError as error:
            if error.status not in _CONFLICTS:
                raise
    host = client.service_client.config.target_host
    raise TemporalUnavailable(host, client.namespace, f"others keep changing Schedule '{schedule_id}'")


async def _read(handle: ScheduleHandle) -> ScheduleDescription:
    """Return the Schedule with search attributes as new as its other fields.

    The server reads the attributes first, and only then waits for a pending update.
    """
    found = await handle.describe()
    while True:
        again = await handle.describe()
        if again.raw_description.conflict_token == found.raw_description.conflict_token:
            return again
        found = again


_LEAST_CATCHUP: Final = timedelta(seconds=10)
"""Minimum catch-up window that the server enforces."""


def fingerprint_of(task_queue: str, *made_from: object) -> str:
    """Return the fingerprint of a Schedule for this task queue and these JSON values."""
    return f"{_digest(task_queue)[:8]}-{_digest(json.dumps(made_from, sort_keys=True))[:16]}"


def is_for(fingerprint: str | None, task_queue: str) -> bool:
    """Return whether a Schedule with this fingerprint may be for the task queue; True without one."""
    return fingerprint is None or fingerprint.startswith(f"{_digest(task_queue)[:8]}-")


def shown_fingerprint(found: TypedSearchAttributes) -> str | None:
    """Return the fingerprint among the attributes of a listed or described Schedule."""
    return found.get(FINGERPRINT)


def attributes(fingerprint: str, *others: SearchAttributePair[str]) -> TypedSearchAttributes:
    """Return the attributes of a Schedule with this fingerprint."""
    return TypedSearchAttributes([*others, SearchAttributePair(FINGERPRINT, fingerprint)])


def interval(key: str, every_seconds: int) -> ScheduleIntervalSpec:
    """Return an interval with a constant offset derived from the key, which spreads the keys evenly."""
    every, offset = times(key, every_seconds)
    return ScheduleIntervalSpec(every=timedelta(seconds=every), offset=timedelta(seconds=offset))


def times(key: str, every_seconds: int) -> tuple[int, int]:
    """Return that interval as (every, offset) in seconds: its times are offset modulo every."""
    return every_seconds, int(_digest(key)[:16], 16) % every_seconds


def policy(catchup: timedelta) -> SchedulePolicy:
    """Return the policy of all our Schedules: one run at a time, catch-up within `catchup`."""
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
    """Create or update the Schedule as desired, and return the change.

    `found_by` are its search attributes, including the fingerprint. `state` maps the state of an existing
    Schedule; by default it is kept, and with it an operator's pause. An existing Schedule with the same
    fingerprint keeps everything but its state: its interval may have been changed since. `refuse` may raise
    for a Schedule that must not be changed, each time that it is read. With `start_now` a created Schedule
    that is not paused starts a run at once.
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
            pass  # another process was faster, and may have used an older record
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


async def set_interval(
    client: Client, slug: str, *, every_seconds: int, fingerprint: str, run_id: str | None = None
) -> bool:
    """Set the interval of the graph's Schedule, and return whether the Schedule has it now.

    Its fingerprint and state stay, so that a reconciliation finds no difference. A Schedule with another
    fingerprint was made from another record and is not changed; nor is one whose newest run is not `run_id`,
    if given. Raise TemporalUnavailable if Temporal cannot be reached.
    """
    wanted = interval(slug, every_seconds)
    set_so = False

    def slowed(present: ScheduleDescription) -> ScheduleUpdate | None:
        nonlocal set_so
        schedule = present.schedule
        set_so = shown_fingerprint(present.typed_search_attributes) == fingerprint and (
            run_id is None or _waits_for(present, run_id)
        )
        if not set_so or [each.every for each in schedule.spec.intervals] == [wanted.every]:
            return None
        schedule.spec = ScheduleSpec(intervals=[wanted])
        schedule.policy = policy(wanted.every)
        return ScheduleUpdate(schedule=schedule)

    with temporal_errors_mapped(client):
        try:
            await change(client, names.sync_schedule_id(slug), slowed)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
    return set_so


def _waits_for(present: ScheduleDescription, run_id: str) -> bool:
    """Return whether the run is the Schedule's newest, whose result the next run receives.

    The Schedule does not know the run id of a reset run, and does not wait for runs started concurrently
    (backfilled or triggered with overlap AllowAll).
    """
    return any(
        isinstance(action, ScheduleActionExecutionStartWorkflow) and action.first_execution_run_id == run_id
        for action in present.info.running_actions
    )
