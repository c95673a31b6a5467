"""Reconciliation of all Schedules with the graph records, and the Schedule that runs it."""

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
from syncline.control.schedule_spec import DueKind
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
"""Maximum graphs listed per field: the result is kept in a history."""

_AT_ONCE: Final = 20

_Step = Callable[[], Awaitable[ScheduleChange]]


async def reconcile(
    client: Client,
    read_records: Callable[[], Awaitable["GraphRecords"]],
    *,
    task_queue: str,
    progressed: Callable[[ReconciliationProgress], None],
) -> Reconciliation:
    """Make the Schedules on this task queue match the graph records, and return the changes.

    A refused graph (its record is invalid, Temporal rejects its cron expression, its Schedule id belongs to
    something else) is reported with a sentence; the others are reconciled anyway. A Schedule that is not
    paused but has no future time is reported too, and not changed. Raise TemporalUnavailable or StoreError if
    it must be repeated; it is idempotent.
    """
    # The records are read after the list: a graph added in between is only in the records, so nothing is
    # deleted because a record was read too early. The list lags, so the Schedule itself is read before it
    # is created or deleted.
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
    """Return whether the graph's Schedule may have to be changed, by the list only."""
    if graph.status is GraphStatus.ARCHIVED:
        return listed is not None
    if listed is None:
        return True
    state = ScheduleState(paused=listed.paused, note=listed.note)
    return listed.fingerprint != graph_fingerprint(graph, task_queue) or state_for(graph, state) != state


class _Steps:
    """The steps of a reconciliation, one per Schedule."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue
        self._steps: dict[str, _Step] = {}
        self.never_due: dict[str, str] = {}
        """Slug to the reason why its Schedule is never due, and the fix; of those checked."""

    def ensure(self, graph: "Graph") -> None:
        """Add the step that makes the graph's Schedule match its record. A new one starts a run at once."""

        async def step() -> ScheduleChange:
            change = await ensure_schedule(
                self._client, graph, task_queue=self._task_queue, start_now=True, take_over=False
            )
            # The listed times are outdated. An interval is always due.
            if change in ("created", "updated") and graph.schedule.cron is not None:
                self.look_at(graph, await find_schedule(self._client, graph.slug))
            return change

        self._steps[graph.slug] = step

    def look_at(self, graph: "Graph", schedule: ListedSchedule | None) -> None:
        """Record whether the graph's Schedule is never due."""
        due = None if schedule is None else schedule.due
        if due is not None and due.kind is DueKind.NEVER:
            self.never_due[graph.slug] = f"{due.problem} {due.fix}"

    def remove(self, slug: str) -> None:
        """Add the step that deletes a Schedule without a graph, unless it is foreign."""

        async def step() -> ScheduleChange:
            try:
                return await remove_schedule(self._client, slug, task_queue=self._task_queue)
            except ScheduleForeign:
                return "absent"

        self._steps[slug] = step

    async def take(
        self, progressed: Callable[[ReconciliationProgress], None], *, unchanged: int
    ) -> tuple[dict[str, ScheduleChange], dict[str, str]]:
        """Run all steps, a bounded number concurrently; return the change or the refusal of each graph.

        The first error that does not concern a single graph is raised.
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
"""Increase it when `ensure_reconciler` changes the Schedule of an unchanged interval."""

_LONGEST_RUN: Final = timedelta(minutes=15)
"""Longer than all timeouts of the workflow: it ends a run that no worker can continue."""

_SUMMARY: Final = "Make the Schedules match the graphs"


async def ensure_reconciler(
    client: Client, *, task_queue: str, every_seconds: int
) -> Literal["created", "updated", "unchanged"]:
    """Create or update the Schedule of `ReconcileSchedules` with this interval, and return the change.

    Safe for concurrent workers. An operator's pause is kept. Raise TemporalUnavailable if Temporal does not
    answer, or denies it.
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
    """Run `ReconcileSchedules` manually, independent of its Schedule, and return its result.

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
