"""The Schedules of one task queue that need somebody's attention for when they come: graphs' and others."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleListActionStartWorkflow

from syncline import names
from syncline.control.due import DueKind, DueProblem
from syncline.temporal.client import temporal_errors_mapped
from syncline.temporal.schedules.list import due_problem, fix_of_graph
from syncline.temporal.schedules.make import describe, is_for, shown_fingerprint

__all__ = ["DueSchedules", "due_schedules"]

_AT_ONCE: Final = 8
_LOOKED_AT: Final = 200
"""Of those that the list tells of, those that never come first: each is asked for itself."""


@dataclass(frozen=True, kw_only=True)
class DueSchedules:
    """What is wrong with when the Schedules on one task queue come."""

    listed: int
    """Schedules that start a workflow of ours and may be on the task queue."""
    problems: Sequence[tuple[str, DueProblem]]
    """Schedule id and what is wrong; those that never come first."""


async def due_schedules(client: Client, *, task_queue: str) -> DueSchedules:
    """Look at every Schedule that starts a workflow of ours on the task queue; raise TemporalUnavailable.

    The list is enough for those that come as they should. The others are asked for their task queue: other
    installations may share the namespace, and the list does not tell whose a Schedule made by hand is.
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
        slots = asyncio.Semaphore(_AT_ONCE)

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
            f"`temporal schedule delete --schedule-id {schedule_id}`, and restart a worker: it makes the "
            "Schedule again, for every SYNCLINE_RECONCILE_SECONDS."
        )
    return (
        f"`temporal schedule update --schedule-id {schedule_id} …` with times that come as is meant (it "
        f"takes the whole Schedule); or `temporal schedule delete --schedule-id {schedule_id}`; or pause it."
    )
