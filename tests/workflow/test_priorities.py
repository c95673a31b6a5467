"""Who waits for a worker is served by who has started it: people, then changes, then the clock, then shadows."""

from datetime import UTC, datetime

from temporalio.client import ScheduleActionStartWorkflow
from temporalio.common import Priority

from activities.operations import OperationActivities
from syncline import names
from syncline.messages.operator import ListGraphsInput, VerifyGraphInput
from syncline.temporal.priorities import cron_times, is_on_time
from syncline.temporal.schedules.trigger import trigger_run
from syncline.testing.lab import SyncLab
from syncline.testing.providers import FakeProvider
from tests.kit.backlog import ended, open_runs, scheduled, started_by_the_clock, told_in_order
from tests.kit.command_line import CommandLine
from worker import create_operations_worker

WAITING = 40


async def test_the_backlog_is_taken_by_priority(idle_lab: SyncLab, syncline: CommandLine) -> None:
    """A run by hand overtakes all that wait, a woken one those of the clock, a shadow none."""
    lab, provider, order = told_in_order(idle_lab)
    clocked = await lab.add_graph(provider)
    woken, by_hand, unsaid = [await lab.add_graph(provider.id) for _ in range(3)]
    await started_by_the_clock(lab, clocked, WAITING)
    await scheduled(lab, woken)
    assert await trigger_run(lab.client, woken.slug, task_queue=lab.task_queue) == "started"
    await open_runs(lab, woken, 1)
    assert (await syncline("sync", by_hand.slug, "--no-wait")).status == 0
    # By a recipe of an earlier release: its first task waits for its turn, its activities do not.
    await lab.start(unsaid)
    async with lab.worker():
        await ended(lab)
    assert len(order) >= WAITING + 3
    # Some cycles are on their way before the first task of the others has been seen; by age they would come last.
    places = [order.index(graph.slug) for graph in (by_hand, woken, unsaid)]
    assert places[0] <= WAITING // 4, places
    assert max(places) <= WAITING * 3 // 4, places


async def test_a_schedules_runs_have_a_priority(idle_lab: SyncLab) -> None:
    """A Schedule of an earlier release gets it by the next reconciliation: its fingerprint differs."""
    graph = await idle_lab.add_graph(schedule={"every_seconds": 60, "adaptive": True})
    await scheduled(idle_lab, graph)
    described = await idle_lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug)).describe()
    action = described.schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert action.priority == Priority(priority_key=3, fairness_key=graph.slug)


async def test_operations_come_before_a_verification(idle_lab: SyncLab) -> None:
    """Whether or not who has started them by Temporal's own tools has said so."""
    graph = await idle_lab.add_graph(FakeProvider())
    lab, priorities = idle_lab, {}
    operations = OperationActivities(lab.services)
    async with lab.worker(), create_operations_worker(lab.client, operations, lab.services.settings):
        for request in (VerifyGraphInput(graph=graph.slug, who="me", why="to see"), ListGraphsInput()):
            run = await lab.client.start_workflow(
                request.workflow, request, id=lab.unique("operation"), task_queue=lab.task_queue
            )
            async for event in run.fetch_history_events(wait_new_event=True):
                if event.HasField("activity_task_scheduled_event_attributes"):
                    scheduled_event = event.activity_task_scheduled_event_attributes
                    priorities[request.workflow] = scheduled_event.priority.priority_key
                    break
            await run.terminate()
    assert priorities == {names.VERIFY_GRAPH: 4, names.LIST_GRAPHS: 1}


def test_times_of_a_schedule() -> None:
    noon = datetime(2026, 1, 1, 12, 0, 17, tzinfo=UTC)
    assert is_on_time(noon, [(60, 17)])
    assert not is_on_time(noon, [(60, 18), (120, 18)])
    assert is_on_time(noon, [])
    assert is_on_time(noon.replace(second=0), cron_times("TZ=Europe/Berlin 0 12 * * *"))
    assert not is_on_time(noon, cron_times("0 12 * * *"))
    assert cron_times("17 0 12 * * * *") == cron_times("@every 17s") == []
