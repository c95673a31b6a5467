"""A run that no worker has taken up yet looks later than whoever asks: no other one is started beside it."""

import asyncio
from datetime import UTC, datetime, timedelta

from syncline import names
from syncline.control.graphs import Graph
from syncline.messages.sync import SyncResult
from syncline.provider import SyncContext
from syncline.temporal.priorities import TRIGGERED
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.temporal.schedules.list import ListedSchedule, find_schedule
from syncline.temporal.schedules.trigger import ScheduleTrigger
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result

SELDOM = {"every_seconds": 2_592_000}


async def runs_of(lab: SyncLab, graph: Graph, status: str) -> int:
    query = f"TemporalScheduledById='{names.sync_schedule_id(graph.slug)}' AND ExecutionStatus='{status}'"
    return (await lab.client.count_workflows(query)).count


async def find_schedule_or_fail(lab: SyncLab, graph: Graph) -> ListedSchedule:
    found = await find_schedule(lab.client, graph.slug)
    assert found is not None
    return found


async def priority_of(lab: SyncLab, workflow_id: str) -> tuple[int, str]:
    described = await lab.client.get_workflow_handle(workflow_id).describe()
    priority = described.raw_description.workflow_execution_info.priority
    return priority.priority_key, priority.fairness_key


async def test_a_run_that_waits_for_a_worker_is_enough_and_one_that_has_begun_is_not(
    idle_lab: SyncLab,
) -> None:
    gate, began = asyncio.Event(), asyncio.Event()

    async def cycle(_: SyncContext) -> SyncResult:
        began.set()
        await gate.wait()
        return sync_result()

    lab = idle_lab
    lab.services.registry.register("sync", FakeProvider("held", cycle=cycle), "lab 1.0")
    graph = await lab.add_graph("held", schedule=SELDOM)
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    schedule_trigger = ScheduleTrigger(lab.client, task_queue=lab.task_queue)
    assert await schedule_trigger.trigger(graph) == "started"

    async def listed() -> bool:
        return await schedule_trigger.coming(returned=False) == {graph.slug}

    await eventually(listed)
    assert [await schedule_trigger.trigger(graph) for _ in range(3)] == ["coming"] * 3
    # It overtakes those that only the clock has started; so do its activities.
    run = (await find_schedule_or_fail(lab, graph)).last_runs[0]
    assert await priority_of(lab, run.workflow_id) == (TRIGGERED.priority_key, graph.slug)
    async with lab.make_worker(lab.client, lab.services):
        async with asyncio.timeout(30):
            await began.wait()
        assert await schedule_trigger.coming(returned=False) == frozenset()
        assert await schedule_trigger.trigger(graph) == "started"
        gate.set()

        async def both() -> bool:
            return await runs_of(lab, graph, "Completed") == 2

        await eventually(both)
        await asyncio.sleep(1)
        assert await runs_of(lab, graph, "Completed") == 2
    await lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug)).delete()


async def test_the_run_of_another_task_queue_is_nobodys_here(idle_lab: SyncLab) -> None:
    lab = idle_lab
    graph = await lab.add_graph(schedule=SELDOM)
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    here, elsewhere = (ScheduleTrigger(lab.client, task_queue=name) for name in (lab.task_queue, "elsewhere"))
    assert await here.trigger(graph) == "started"

    async def listed() -> bool:
        return await here.coming(returned=True) == {graph.slug}

    await eventually(listed)
    assert graph.slug not in await elsewhere.coming(returned=True)
    await lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug)).delete()


def test_a_schedule_that_missed_a_time_makes_up_for_it() -> None:
    now = datetime.now(UTC)

    def behind(seconds: float | None, *, by_interval: bool) -> bool:
        return ListedSchedule(
            slug="g",
            spec="",
            paused=False,
            note=None,
            fingerprint=None,
            next_at=None if seconds is None else now - timedelta(seconds=seconds),
            last_runs=(),
            by_interval=by_interval,
        ).behind(now)

    assert [behind(after, by_interval=True) for after in (None, -1, 1, 86400)] == [False, False, True, True]
    # Of a cron expression, an hour late is too late, and it may be days until the next.
    assert [behind(after, by_interval=False) for after in (None, -1, 1, 3700)] == [False, False, True, False]
