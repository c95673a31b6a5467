"""Schedules of a task queue with problematic times (never due, too often, too rare), of graphs and others."""

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
"""Maximum number of Schedules that are described one by one, never due ones first."""


@dataclass(frozen=True, kw_only=True)
class DueSchedules:
    """Problems with the times of the Schedules of one task queue."""

    listed: int
    """Number of Schedules that start a Syncline workflow and may be on the task queue."""
    problems: Sequence[tuple[str, DueProblem]]
    """Schedule id and problem; never due ones first."""


async def due_schedules(client: Client, *, task_queue: str) -> DueSchedules:
    """Check every Schedule that starts a Syncline workflow on the task queue; raise TemporalUnavailable.

    The list is enough for Schedules without a problem. The others are described to get their task queue:
    other installations may share the namespace, and the list does not contain it for manual Schedules.
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
            f"`temporal schedule delete --schedule-id {schedule_id}`, and restart a worker: it creates the "
            "Schedule again, with SYNCLINE_RECONCILE_SECONDS."
        )
    return (
        f"`temporal schedule update --schedule-id {schedule_id} …` with the intended times (it replaces "
        f"the whole Schedule); or `temporal schedule delete --schedule-id {schedule_id}`; or pause it."
    )
