"""Runs that wait for a worker: a backlog, and a worker that takes one cycle at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, ScheduleBackfill, ScheduleOverlapPolicy
from temporalio.worker import Worker

from activities.sync import SyncActivities
from syncline import names
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.messages.sync import SyncResult
from syncline.provider import SyncContext
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from worker import create_worker

__all__ = ["ended", "one_cycle_at_once", "open_runs", "scheduled", "started_by_the_clock", "told_in_order"]


@asynccontextmanager
async def one_cycle_at_once(client: Client, services: Services) -> AsyncIterator[Worker]:
    settings = services.settings.model_copy(update={"max_concurrent_cycles": 1})
    async with create_worker(client, SyncActivities(services), settings) as worker:
        yield worker


def told_in_order(lab: SyncLab) -> tuple[SyncLab, FakeProvider, list[str]]:
    """Return a lab whose worker takes one cycle at a time, a provider, and the slugs of its cycles as they begin."""
    order: list[str] = []

    async def cycle(context: SyncContext) -> SyncResult:
        order.append(context.graph.slug)
        await asyncio.sleep(0.05)
        return sync_result()

    one_at_once = SyncLab(
        client=lab.client, services=lab.services, make_worker=one_cycle_at_once, unique=lab.unique
    )
    return one_at_once, FakeProvider(cycle=cycle), order


async def scheduled(lab: SyncLab, graph: Graph) -> None:
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)


async def started_by_the_clock(lab: SyncLab, graph: Graph, runs: int) -> None:
    """Have the graph's Schedule start as many runs, each for a time of its own."""
    await scheduled(lab, graph)
    until = datetime.now(UTC)
    backfill = ScheduleBackfill(
        until - timedelta(minutes=runs), until, overlap=ScheduleOverlapPolicy.ALLOW_ALL
    )
    await lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug)).backfill(backfill)
    await open_runs(lab, graph, runs)


async def open_runs(lab: SyncLab, graph: Graph, runs: int) -> None:
    query = f'TemporalScheduledById="{names.sync_schedule_id(graph.slug)}" AND ExecutionStatus="Running"'

    async def all_there() -> bool:
        return (await lab.client.count_workflows(query)).count >= runs

    await eventually(all_there)


async def ended(lab: SyncLab) -> None:
    async def nothing_open() -> bool:
        query = f'TaskQueue="{lab.task_queue}" AND ExecutionStatus="Running"'
        return (await lab.client.count_workflows(query)).count == 0

    await eventually(nothing_open)
