"""Desired graphs <-> Temporal Schedules: one Schedule per graph, made to match the graph's record."""

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Final, Literal

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleListActionStartWorkflow,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.graphs import Graph, GraphStatus
from syncline.messages import SyncGraphInput

__all__ = ["PAUSED_WITH_GRAPH", "ScheduleChange", "ensure_schedule", "list_schedule_ids"]

ScheduleChange = Literal["created", "updated", "unchanged", "deleted", "absent"]
"""What was done about a Schedule; `absent` means that an archived graph had none."""

PAUSED_WITH_GRAPH: Final = "Paused by Syncline: the graph is paused."
"""The note of a Schedule that is paused because its graph is. Any other pause is an operator's and stays."""

_GRAPH: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_GRAPH)
_FINGERPRINT: Final = "schedule_fingerprint"
_FORM: Final = 1
"""Raise it when `_desired` makes something else of the same record."""
_LEAST_CATCHUP: Final = timedelta(seconds=10)  # what the server raises anything smaller to
_LONGEST_RUN: Final = timedelta(hours=3)
_CRON_CATCHUP: Final = timedelta(hours=1)


async def ensure_schedule(client: Client, graph: Graph, *, task_queue: str) -> ScheduleChange:
    """Make the graph's Schedule match its record, and return what that took.

    An operator's pause, and the rest of the Schedule's state, survive; so does a change by hand, until the
    graph's record changes. A paused graph has a paused Schedule, an archived one has none.
    """
    handle = client.get_schedule_handle(names.sync_schedule_id(graph.slug))
    if graph.status is GraphStatus.ARCHIVED:
        return await _delete(handle)
    description = await _describe(handle)
    if description is None:
        desired = _desired(graph, task_queue)
        try:
            await client.create_schedule(handle.id, desired, search_attributes=_attributes(graph))
        except ScheduleAlreadyRunningError:
            pass  # another worker was faster; its record may be older than ours
        else:
            return "created"
        description = await handle.describe()
    if await _matches(description, graph, task_queue):
        return "unchanged"

    def renewed(current: ScheduleUpdateInput) -> ScheduleUpdate:
        desired = _desired(graph, task_queue)
        desired.state = _state(graph, current.description.schedule.state)
        return ScheduleUpdate(schedule=desired)

    await handle.update(renewed)
    return "updated"


async def list_schedule_ids(client: Client) -> set[str]:
    """Return the ids of all Schedules that start `SyncGraph`. The list lags a little behind reality."""
    found = set()
    async for listed in await client.list_schedules():
        action = None if listed.schedule is None else listed.schedule.action
        if isinstance(action, ScheduleListActionStartWorkflow) and action.workflow == names.SYNC_GRAPH:
            found.add(listed.id)
    return found


def _desired(graph: Graph, task_queue: str) -> Schedule:
    """Return the Schedule as it would be created; its memo has a fingerprint of all but its state."""
    every = timedelta(seconds=graph.schedule.every_seconds)
    if graph.schedule.cron is not None:
        spec, catchup = ScheduleSpec(cron_expressions=[graph.schedule.cron]), _CRON_CATCHUP
    else:
        spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every, offset=_offset(graph))])
        catchup = max(every, _LEAST_CATCHUP)
    return Schedule(
        action=ScheduleActionStartWorkflow(
            names.SYNC_GRAPH,
            SyncGraphInput(graph=graph.slug),
            id=names.sync_workflow_id(graph.slug),
            task_queue=task_queue,
            # Longer than all that the workflow itself bounds: it ends a run that no worker can go on with.
            execution_timeout=_LONGEST_RUN,
            static_summary=f"Sync graph {graph.slug}",
            typed_search_attributes=_attributes(graph),
            memo={"graph": graph.slug, _FINGERPRINT: _fingerprint(graph, task_queue)},
        ),
        spec=spec,
        policy=SchedulePolicy(
            overlap=ScheduleOverlapPolicy.SKIP,
            # The server's default is a year: after a long outage it would replay every missed minute.
            catchup_window=catchup,
            pause_on_failure=False,
        ),
        state=_state(graph, ScheduleState()),
    )


def _state(graph: Graph, current: ScheduleState) -> ScheduleState:
    if graph.status is GraphStatus.PAUSED and not current.paused:
        return replace(current, paused=True, note=PAUSED_WITH_GRAPH)
    if graph.status is GraphStatus.ACTIVE and current.paused and current.note == PAUSED_WITH_GRAPH:
        return replace(current, paused=False, note=None)
    return current


async def _matches(description: ScheduleDescription, graph: Graph, task_queue: str) -> bool:
    """Return whether the Schedule was made from this record.

    By its fingerprint: the server rewrites what it is given, so the Schedules themselves do not compare.
    """
    current = description.schedule
    if _state(graph, current.state) != current.state:
        return False
    memo = getattr(current.action, "memo", None) or {}
    payload = memo.get(_FINGERPRINT)
    if payload is None:
        return False
    [found] = await description.data_converter.decode([payload], [str])
    return bool(found == _fingerprint(graph, task_queue))


def _fingerprint(graph: Graph, task_queue: str) -> str:
    made_from = [_FORM, graph.slug, graph.schedule.model_dump(mode="json"), task_queue]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def _offset(graph: Graph) -> timedelta:
    """Return where in the interval the graph runs: the same for ever, and spread over all graphs."""
    hashed = int.from_bytes(hashlib.sha256(graph.slug.encode()).digest()[:8], "big")
    return timedelta(seconds=hashed % graph.schedule.every_seconds)


def _attributes(graph: Graph) -> TypedSearchAttributes:
    return TypedSearchAttributes([SearchAttributePair(_GRAPH, graph.slug)])


async def _describe(handle: ScheduleHandle) -> ScheduleDescription | None:
    try:
        return await handle.describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise


async def _delete(handle: ScheduleHandle) -> ScheduleChange:
    try:
        await handle.delete()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return "absent"
        raise
    return "deleted"
