"""The Schedule of one graph: created, updated or deleted to match the graph's record."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleDescription,
    ScheduleSpec,
    ScheduleState,
)
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.errors import GraphInvalid, ScheduleForeign
from syncline.messages.base import GraphStatus
from syncline.messages.sync import LONGEST_RUN, SyncGraphInput
from syncline.temporal.client import FAILURES, FALLBACK, GRAPH, PROVIDER, ROWS, temporal_errors_mapped
from syncline.temporal.priorities import SCHEDULED, cron_times, with_fairness
from syncline.temporal.schedules import make as making
from syncline.temporal.schedules.list import CRON_CATCHUP
from syncline.temporal.schedules.notes import PAUSED_WITH_GRAPH, read_note

if TYPE_CHECKING:
    # Commands that only read Schedules import this package without a database driver.
    from syncline.control.graphs import Graph

__all__ = [
    "PAUSED_WITH_GRAPH",
    "ScheduleChange",
    "ensure_schedule",
    "graph_fingerprint",
    "operators_pause",
    "remove_schedule",
    "rename_schedule",
    "state_for",
]

ScheduleChange = Literal["created", "updated", "unchanged", "deleted", "absent"]
"""Change of a Schedule; `absent` means that there was none to delete."""

_FORM: Final = 4
"""Increase it when `_desired` changes the Schedule of an unchanged record."""


async def ensure_schedule(
    client: Client,
    graph: "Graph",
    *,
    task_queue: str,
    start_now: bool = False,
    take_over: bool = True,
    operators_note: str | None = None,
    graph_note: str = PAUSED_WITH_GRAPH,
) -> ScheduleChange:
    """Make the graph's Schedule match its record, and return the change.

    An operator's pause, and the rest of the Schedule's state, are kept. Until the graph's record changes, so
    are manual changes, and the longer interval of an adaptive graph. A paused graph has a paused Schedule, an
    archived one has none. With `start_now` a new Schedule starts a run at once, unless it has a cron
    expression. With `operators_note` it is paused with that note; `graph_note` is that of a paused graph.

    Raise GraphInvalid if Temporal rejects the record's schedule, TemporalUnavailable if it cannot be reached;
    without `take_over`, ScheduleForeign if the Schedule with the graph's id starts another workflow, or uses
    another task queue.
    """
    if graph.status is GraphStatus.ARCHIVED:
        return await remove_schedule(client, graph.slug, task_queue=None if take_over else task_queue)

    def state(current: ScheduleState) -> ScheduleState:
        if operators_note is not None and not current.paused:
            current = replace(current, paused=True, note=operators_note)
        return state_for(graph, current, note=graph_note)

    desired = _desired(graph, task_queue)
    desired.state = state(ScheduleState())
    with temporal_errors_mapped(client):
        try:
            return await making.make(
                client,
                names.sync_schedule_id(graph.slug),
                desired,
                found_by=_attributes(graph, task_queue),
                state=state,
                refuse=None if take_over else partial(_refuse_foreign, task_queue=task_queue),
                start_now=start_now and graph.schedule.cron is None,
            )
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
            raise GraphInvalid(
                graph.slug,
                "schedule",
                f"Temporal rejects it ({error.message}). Correct it with `syncline graph set {graph.slug} "
                "--cron …` or `--every-seconds …`; until then the Schedule stays as it is.",
            ) from error


async def remove_schedule(client: Client, slug: str, *, task_queue: str | None) -> ScheduleChange:
    """Delete the graph's Schedule and return `deleted`, or `absent` if there is none.

    Raise ScheduleForeign if it does not start `SyncGraph`, or not on `task_queue`, if given;
    TemporalUnavailable if Temporal cannot be reached.
    """
    handle = client.get_schedule_handle(names.sync_schedule_id(slug))
    with temporal_errors_mapped(client):
        description = await making.describe(handle)
        if description is None:
            return "absent"
        _refuse_foreign(description, task_queue)
        try:
            await handle.delete()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return "absent"
            raise
    return "deleted"


async def rename_schedule(client: Client, before: str, graph: "Graph", *, task_queue: str) -> None:
    """Give a renamed graph the Schedule of its slug, paused as the one of slug `before`, which is deleted.

    A step that was done before changes nothing. Raise as `ensure_schedule` and `remove_schedule` do.
    """
    with temporal_errors_mapped(client):
        old = await making.describe(client.get_schedule_handle(names.sync_schedule_id(before)))
    state = None if old is None else old.schedule.state
    note = None
    if state is not None and state.paused and not read_note(state.note).with_graph:
        note = state.note or "paused before it was renamed"
    with_graph = state.note if state is not None and note is None and state.paused else None
    await ensure_schedule(
        client,
        graph,
        task_queue=task_queue,
        start_now=note is None,
        operators_note=note,
        graph_note=with_graph or PAUSED_WITH_GRAPH,
    )
    if old is not None and graph.slug != before:
        await remove_schedule(client, before, task_queue=task_queue)


async def operators_pause(client: Client, graph: "Graph") -> str | None:
    """Return the note of an operator's pause of an active graph's Schedule; None if it is not paused.

    Raise TemporalUnavailable if Temporal cannot be reached.
    """
    if graph.status is not GraphStatus.ACTIVE:
        return None
    with temporal_errors_mapped(client):
        description = await making.describe(client.get_schedule_handle(names.sync_schedule_id(graph.slug)))
    if description is None or not description.schedule.state.paused:
        return None
    return description.schedule.state.note or "no reason given"


def graph_fingerprint(graph: "Graph", task_queue: str) -> str:
    """Return the fingerprint of the Schedule by the record, without its state.

    The current interval of an adaptive Schedule is not included either.
    """
    schedule = graph.schedule
    made_from: list[object] = [graph.slug, {"every_seconds": schedule.every_seconds, "cron": schedule.cron}]
    if schedule.adaptive:
        made_from.append(schedule.intervals)
    if (graph.fairness_key, graph.fairness_weight) != (None, None):
        made_from.append(graph.fairness.model_dump())
    return making.fingerprint_of(task_queue, _FORM, _declared(graph), *made_from)


def state_for(graph: "Graph", current: ScheduleState, *, note: str = PAUSED_WITH_GRAPH) -> ScheduleState:
    """Return the desired state of the graph's Schedule, given its current state.

    `note` is that of a paused graph's; without a reason in it the present one stays.
    """
    with_graph = current.paused and read_note(current.note).with_graph
    if graph.status is GraphStatus.PAUSED and (
        not current.paused or (with_graph and note not in (PAUSED_WITH_GRAPH, current.note))
    ):
        return replace(current, paused=True, note=note)
    if graph.status is GraphStatus.ACTIVE and with_graph:
        return replace(current, paused=False, note=None)
    return current


def _desired(graph: "Graph", task_queue: str) -> Schedule:
    """Return the Schedule to create for the record."""
    if graph.schedule.cron is not None:
        spec, catchup = ScheduleSpec(cron_expressions=[graph.schedule.cron]), CRON_CATCHUP
        times = cron_times(graph.schedule.cron)
    else:
        interval = making.interval(graph.slug, graph.schedule.every_seconds)
        spec, catchup = ScheduleSpec(intervals=[interval]), interval.every
        # All intervals of an adaptive graph: a change of the interval changes nothing else of the Schedule.
        times = [making.times(graph.slug, every) for every in graph.schedule.intervals]
    return Schedule(
        action=ScheduleActionStartWorkflow(
            names.SYNC_GRAPH,
            SyncGraphInput(graph=graph.slug),
            id=names.sync_workflow_id(graph.slug),
            task_queue=task_queue,
            # Longer than all timeouts of the workflow: it ends a run that no worker can continue.
            execution_timeout=LONGEST_RUN,
            static_summary=f"Sync graph {graph.slug}",
            typed_search_attributes=_shown_by_runs(graph),
            memo={"graph": graph.slug, names.MEMO_TIMES: times},
            priority=with_fairness(SCHEDULED, graph.fairness),
        ),
        spec=spec,
        policy=making.policy(catchup),
    )


def _declared(graph: "Graph") -> str | None:
    from syncline.control.composition import declared_provider

    return declared_provider(graph.slug, graph.composition, "sync")


def _shown_by_runs(graph: "Graph") -> TypedSearchAttributes:
    """Return the attributes that a run starts with: those of a successful run without changes.

    A run only upserts differences. Each upsert costs the server as much as an activity, and most runs of a
    fleet are idle.
    """
    declared = _declared(graph)
    return TypedSearchAttributes(
        [
            SearchAttributePair(GRAPH, graph.slug),
            SearchAttributePair(PROVIDER, declared or names.FALLBACK_PROVIDER),
            SearchAttributePair(FALLBACK, declared is None),
            SearchAttributePair(ROWS, 0),
            SearchAttributePair(FAILURES, 0),
        ]
    )


def _attributes(graph: "Graph", task_queue: str) -> TypedSearchAttributes:
    fingerprint = graph_fingerprint(graph, task_queue)
    return making.attributes(fingerprint, SearchAttributePair(GRAPH, graph.slug))


def _refuse_foreign(description: ScheduleDescription, task_queue: str | None) -> None:
    action = description.schedule.action
    if not isinstance(action, ScheduleActionStartWorkflow):
        raise ScheduleForeign(description.id, workflow="something else", task_queue="?")
    if action.workflow != names.SYNC_GRAPH or task_queue not in (None, action.task_queue):
        raise ScheduleForeign(description.id, workflow=str(action.workflow), task_queue=action.task_queue)
