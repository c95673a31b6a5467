"""What an operator holds up by Temporal's own tools is told, and continues: a paused cycle, a limited queue."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client
from temporalio.worker import Worker

from activities.slots import CycleSlots, RateLimitWatch
from activities.sync import SyncActivities
from syncline import names
from syncline.control.services import Services
from syncline.messages.sync import SyncResult
from syncline.provider import SyncContext
from syncline.temporal.overview import GraphOverview, overview
from syncline.temporal.task_queues import describe_queue
from syncline.testing.lab import Run, SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from tests.kit.command_line import CommandLine
from tests.kit.temporal_command import temporal
from worker import create_worker


async def of_overview(lab: SyncLab, slug: str) -> GraphOverview:
    return next(one for one in await overview(lab.client) if one.graph == slug)


async def open_runs(lab: SyncLab, slug: str) -> int:
    query = f'{names.ATTRIBUTE_GRAPH}="{slug}" AND ExecutionStatus="Running"'
    return (await lab.client.count_workflows(query)).count


async def test_paused_cycle_is_told_and_continues(
    lab: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    """The attempt ends, the run waits as `halted` with who and why, and the next attempt is no failure's."""
    attempts, gate = [], asyncio.Event()

    async def cycle(context: SyncContext) -> SyncResult:
        attempts.append(context.graph.slug)
        await gate.wait()
        return sync_result()

    graph, syncline = await lab.add_graph(FakeProvider(cycle=cycle)), temporal_only(lab)
    run = await lab.start(graph)

    async def begun(count: int) -> bool:
        return len(attempts) == count

    async def paused(run: Run) -> bool:
        """Whether its attempt has ended, too: until then `unpause` would leave it alone."""
        described = (await run.describe()).raw_description
        states = [one.state for one in described.pending_activities]
        return states == [PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED]

    async def is_told() -> bool:
        return "halted" in (await syncline("status", graph.slug)).out

    await eventually(lambda: begun(1))
    which = ("--workflow-id", run.id, "--activity-id", "2")
    await temporal(lab.client, "activity", "pause", *which, "--reason", "OPS-12", "--identity", "jo")
    await eventually(lambda: paused(run))
    await eventually(is_told)
    said = (await syncline("status", graph.slug)).out
    assert "by jo: OPS-12" in " ".join(said.split())
    assert "retrying" not in said

    # A run that works beside it does not hide it.
    beside = await lab.start(graph)

    async def both_listed() -> bool:
        return await open_runs(lab, graph.slug) == 2

    await eventually(lambda: begun(2))
    await eventually(both_listed)
    assert await is_told()
    assert (await of_overview(lab, graph.slug)).running.workflow_id == run.id  # type: ignore[union-attr]
    await temporal(lab.client, "activity", "unpause", *which)
    await eventually(lambda: begun(3))
    assert not await is_told()

    # Nor does an older one that works.
    which = ("--workflow-id", beside.id, "--activity-id", "2")
    await temporal(lab.client, "activity", "pause", *which)
    await eventually(lambda: paused(beside))
    assert await is_told()
    await temporal(lab.client, "activity", "unpause", *which)
    await eventually(lambda: begun(4))
    gate.set()
    await beside.result()
    assert (await run.result()).result.status == "drained"

    # An attempt that was reset is no failed one either.
    gate.clear()
    again = await lab.start(graph)
    await eventually(lambda: begun(5))
    await temporal(lab.client, "activity", "reset", "--workflow-id", again.id, "--activity-id", "2")
    await eventually(lambda: begun(6))
    assert "retrying" not in (await syncline("status", graph.slug)).out
    gate.set()
    await again.result()


@asynccontextmanager
async def watching(client: Client, services: Services) -> AsyncIterator[Worker]:
    limits = RateLimitWatch(client, services.settings.task_queue, every=0.1)
    activities = SyncActivities(services, beat_seconds=0.2)
    async with (
        limits.running(),
        create_worker(client, activities, services.settings, limits=limits) as worker,
    ):
        yield worker


async def test_rate_limit_holds_for_eager_cycles_and_is_told(idle_lab: SyncLab) -> None:
    """Its activities would be handed to the worker that asks for them, past the queue and its limit."""
    lab = SyncLab(
        client=idle_lab.client, services=idle_lab.services, make_worker=watching, unique=idle_lab.unique
    )
    graph = await lab.add_graph(FakeProvider())
    config = ("task-queue", "config", "set", "--task-queue", lab.task_queue, "--task-queue-type", "activity")
    async with lab.worker():
        await temporal(
            lab.client,
            *config,
            "--queue-rps-limit",
            "0",
            "--queue-rps-limit-reason",
            "OPS-12",
            "--identity",
            "jo",
        )

        async def waits() -> bool:
            """Until the worker has noticed, runs pass."""
            run = await lab.start(graph)
            await asyncio.sleep(0.5)
            return (await run.describe()).close_time is None

        await eventually(waits)

        async def limiting() -> bool:
            return (await describe_queue(lab.client, lab.task_queue, activities=True)).limiting

        await eventually(limiting)

        async def is_told() -> bool:
            found = await of_overview(lab, graph.slug)
            return found.standing == "halted" and "by jo: OPS-12" in found.findings[0].reason

        await eventually(is_told)
        lift = ("--queue-rps-limit", "default")
        await temporal(lab.client, *config, *lift)

        async def nothing_open() -> bool:
            return await open_runs(lab, graph.slug) == 0

        await eventually(nothing_open)


async def test_slots_are_never_more_than_there_are() -> None:
    """Granted to polls in their order; to eager activities while none waits, and none while a limit is set."""
    eager = True
    slots = CycleSlots(2, eager=lambda: eager)
    context = object()  # not read
    first = slots.try_reserve_slot(context)  # type: ignore[arg-type]
    assert first is not None
    await slots.reserve_slot(context)  # type: ignore[arg-type]
    assert slots.try_reserve_slot(context) is None  # type: ignore[arg-type]
    waiting = [asyncio.create_task(slots.reserve_slot(context)) for _ in range(3)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    slots.release_slot(context)  # type: ignore[arg-type]
    await asyncio.wait_for(waiting[1], 5)
    assert not waiting[2].done()
    slots.release_slot(context)  # type: ignore[arg-type]
    await asyncio.wait_for(waiting[2], 5)
    slots.release_slot(context)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    eager = False
    assert slots.try_reserve_slot(context) is None  # type: ignore[arg-type]
    eager = True
    assert slots.try_reserve_slot(context) is not None  # type: ignore[arg-type]
