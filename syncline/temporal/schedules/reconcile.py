"""All Schedules at once: made equal to the set of graphs, so that a record is all that anybody writes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal
from uuid import uuid4

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    ScheduleState,
)

from syncline import names
from syncline.control.due import DueKind
from syncline.errors import ConfigurationError, ScheduleForeign
from syncline.messages.base import GraphStatus
from syncline.messages.sync import Reconciliation, ReconciliationProgress
from syncline.temporal.client import temporal_errors_mapped
from syncline.temporal.priorities import SCHEDULED
from syncline.temporal.run import execute_and_wait
from syncline.temporal.schedules import make as making
from syncline.temporal.schedules.graph import (
    ScheduleChange,
    ensure_schedule,
    graph_fingerprint,
    remove_schedule,
    state_for,
)
from syncline.temporal.schedules.list import ListedSchedule, find_schedule, list_schedules
from syncline.temporal.schedules.make import is_for

if TYPE_CHECKING:
    from syncline.control.graphs import Graph, GraphRecords

__all__ = ["MOST_NAMED", "ensure_reconciler", "reconcile", "reconcile_now"]

MOST_NAMED: Final = 100
"""Graphs that a result names of each kind: it is kept in a history, however many there are."""

_AT_ONCE: Final = 20

_Step = Callable[[], Awaitable[ScheduleChange]]


async def reconcile(
    client: Client,
    read_records: Callable[[], Awaitable["GraphRecords"]],
    *,
    task_queue: str,
    progressed: Callable[[ReconciliationProgress], None],
) -> Reconciliation:
    """Make the Schedules on this task queue those that the graphs' records ask for, and say what that took.

    A graph that is refused (its record is invalid, Temporal does not take its cron expression, a Schedule of
    its name belongs to somebody else) is named with a sentence; the others are reconciled all the same. So is
    one whose Schedule never comes again though it is not paused: it is left as it is. Raise
    TemporalUnavailable or StoreError if it has to be done again: what is done already is then unchanged.
    """
    # The records are read after the list, and in here: a graph that is added between the two is in the
    # records alone, so nothing is deleted because a record was read too early. What the list does not show
    # yet, or still shows, is asked of the server before it is made or deleted.
    listed = {schedule.slug: schedule for schedule in await list_schedules(client)}
    records = await read_records()
    steps = _Steps(client, task_queue)
    unchanged = 0
    for graph in records.valid:
        schedule = listed.get(graph.slug)
        if _differs(graph, schedule, task_queue):
            steps.ensure(graph)
        elif schedule is not None:
            unchanged += 1
            steps.look_at(graph, schedule)
    recorded = {*(graph.slug for graph in records.valid), *records.invalid}
    for slug in sorted(listed.keys() - recorded):
        if is_for(listed[slug].fingerprint, task_queue):
            steps.remove(slug)
    changes, refused = await steps.take(progressed, unchanged=unchanged)
    for slug, error in records.invalid.items():
        refused[slug] = f"{error}. Correct its record; until then its Schedule stays as it is."
    return _reconciliation(changes, refused, steps.never_due, unchanged=unchanged)


def _differs(graph: "Graph", listed: ListedSchedule | None, task_queue: str) -> bool:
    """Return whether the graph's Schedule may have to be changed, judged by the list alone."""
    if graph.status is GraphStatus.ARCHIVED:
        return listed is not None
    if listed is None:
        return True
    state = ScheduleState(paused=listed.paused, note=listed.note)
    return listed.fingerprint != graph_fingerprint(graph, task_queue) or state_for(graph, state) != state


class _Steps:
    """What is to be done, one step for each Schedule."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue
        self._steps: dict[str, _Step] = {}
        self.never_due: dict[str, str] = {}
        """Slug -> why its Schedule never comes again, and the fix; of those that have been looked at."""

    def ensure(self, graph: "Graph") -> None:
        """Make the graph's Schedule what its record says. One that is new runs at once."""

        async def step() -> ScheduleChange:
            change = await ensure_schedule(
                self._client, graph, task_queue=self._task_queue, start_now=True, take_over=False
            )
            # What was listed is outdated. An interval always comes.
            if change in ("created", "updated") and graph.schedule.cron is not None:
                self.look_at(graph, await find_schedule(self._client, graph.slug))
            return change

        self._steps[graph.slug] = step

    def look_at(self, graph: "Graph", schedule: ListedSchedule | None) -> None:
        """Note whether the graph's Schedule never comes again."""
        due = None if schedule is None else schedule.due
        if due is not None and due.kind is DueKind.NEVER:
            self.never_due[graph.slug] = f"{due.problem} {due.fix}"

    def remove(self, slug: str) -> None:
        """Delete the Schedule that no graph has any longer, unless it is somebody else's after all."""

        async def step() -> ScheduleChange:
            try:
                return await remove_schedule(self._client, slug, task_queue=self._task_queue)
            except ScheduleForeign:
                return "absent"

        self._steps[slug] = step

    async def take(
        self, progressed: Callable[[ReconciliationProgress], None], *, unchanged: int
    ) -> tuple[dict[str, ScheduleChange], dict[str, str]]:
        """Take all steps, a bounded number at once; return what each did, and who was refused and why.

        The first error that is not one graph's own ends it.
        """
        changes: dict[str, ScheduleChange] = {}
        refused: dict[str, str] = {}
        slots = asyncio.Semaphore(_AT_ONCE)

        def report() -> None:
            done = unchanged + len(changes) + len(refused)
            progressed(ReconciliationProgress(done=done, graphs=unchanged + len(self._steps)))

        async def one(slug: str, step: _Step) -> None:
            async with slots:
                try:
                    changes[slug] = await step()
                except ConfigurationError as error:
                    refused[slug] = str(error)
            report()

        report()
        tasks = [asyncio.create_task(one(slug, step)) for slug, step in self._steps.items()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return changes, refused


def _reconciliation(
    changes: Mapping[str, ScheduleChange],
    refused: Mapping[str, str],
    never_due: Mapping[str, str],
    *,
    unchanged: int,
) -> Reconciliation:
    def slugs(change: ScheduleChange) -> Sequence[str]:
        return sorted(slug for slug, made in changes.items() if made == change)

    created, updated, deleted = slugs("created"), slugs("updated"), slugs("deleted")
    return Reconciliation(
        created=len(created),
        updated=len(updated),
        deleted=len(deleted),
        unchanged=unchanged + len(slugs("unchanged")),
        refusals=len(refused),
        created_graphs=tuple(created[:MOST_NAMED]),
        updated_graphs=tuple(updated[:MOST_NAMED]),
        deleted_graphs=tuple(deleted[:MOST_NAMED]),
        refused={slug: refused[slug] for slug in sorted(refused)[:MOST_NAMED]},
        never_due=len(never_due),
        never_due_graphs={slug: never_due[slug] for slug in sorted(never_due)[:MOST_NAMED]},
    )


_FORM: Final = 2
"""Raise it when `ensure_reconciler` makes something else of the same interval."""

_LONGEST_RUN: Final = timedelta(minutes=15)
"""Longer than all that the workflow itself bounds: it ends a run that no worker can go on with."""

_SUMMARY: Final = "Make the Schedules match the graphs"


async def ensure_reconciler(
    client: Client, *, task_queue: str, every_seconds: int
) -> Literal["created", "updated", "unchanged"]:
    """Make the Schedule of `ReconcileSchedules` exist with this interval, and return what that took.

    Workers may do so at the same time. An operator's pause survives. Raise TemporalUnavailable if Temporal
    does not answer, or does not allow it.
    """
    schedule_id = names.reconcile_schedules_id(task_queue)
    interval = making.interval(schedule_id, every_seconds)
    desired = Schedule(
        action=ScheduleActionStartWorkflow(
            names.RECONCILE_SCHEDULES,
            id=schedule_id,
            task_queue=task_queue,
            execution_timeout=_LONGEST_RUN,
            static_summary=_SUMMARY,
            priority=SCHEDULED,
        ),
        spec=ScheduleSpec(intervals=[interval]),
        policy=making.policy(interval.every),
    )
    fingerprint = making.fingerprint_of(task_queue, _FORM, every_seconds)
    with temporal_errors_mapped(client):
        return await making.make(client, schedule_id, desired, found_by=making.attributes(fingerprint))


async def reconcile_now(client: Client, *, task_queue: str, seconds: float) -> Reconciliation:
    """Run `ReconcileSchedules` by hand, beside whatever its Schedule does, and return its result.

    Raise as `execute_and_wait` does if it fails, or has not ended within these seconds.
    """
    return await execute_and_wait(
        client,
        names.RECONCILE_SCHEDULES,
        Reconciliation,
        workflow_id=f"{names.reconcile_schedules_id(task_queue)}-by-hand-{uuid4()}",
        task_queue=task_queue,
        seconds=seconds,
        summary=_SUMMARY,
    )
