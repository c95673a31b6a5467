"""The Schedules follow the table of graphs, whoever writes it, and nobody calls anything."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from temporalio.api.workflowservice.v1 import DescribeScheduleRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleDescription,
    ScheduleIntervalSpec,
    ScheduleSpec,
)
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.control.graphs import Graph, GraphChanges, GraphRecords
from syncline.errors import TemporalUnavailable
from syncline.messages.sync import Reconciliation, ReconciliationProgress, SyncResult
from syncline.provider import SyncContext
from syncline.temporal.schedules.graph import PAUSED_WITH_GRAPH, ensure_schedule
from syncline.temporal.schedules.list import list_schedules
from syncline.temporal.schedules.reconcile import ensure_reconciler, reconcile, reconcile_now
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result


async def insert(lab: SyncLab, **columns: object) -> str:
    """Insert a graph as a product does, by SQL alone, and return its slug."""
    slug = lab.unique("plain")
    schema = slug.replace("-", "_")
    values = {
        "slug": slug, "name": slug, "schema_name": schema, "qdrant_prefix": f"{schema}_",
        "schedule": json.dumps({"every_seconds": 3600}), **columns,
    }  # fmt: skip
    marks = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    async with lab.services.control.driver() as connection:
        await connection.execute(
            f"INSERT INTO syncline.graphs ({', '.join(values)}) VALUES ({marks})", *values.values()
        )
    return slug


async def change(lab: SyncLab, slug: str, assignment: str) -> None:
    async with lab.services.control.driver() as connection:
        await connection.execute(f"UPDATE syncline.graphs SET {assignment} WHERE slug = $1", slug)


async def delete(lab: SyncLab, slug: str) -> None:
    async with lab.services.control.driver() as connection:
        await connection.execute("DELETE FROM syncline.graphs WHERE slug = $1", slug)


async def reconciled(
    lab: SyncLab, progressed: Callable[[ReconciliationProgress], None] = lambda progress: None
) -> Reconciliation:
    return await reconcile(
        lab.client, lab.services.graphs.records, task_queue=lab.task_queue, progressed=progressed
    )


async def described(lab: SyncLab, slug: str) -> ScheduleDescription | None:
    try:
        return await lab.client.get_schedule_handle(names.sync_schedule_id(slug)).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise


async def listed(lab: SyncLab, *slugs: str) -> None:
    """Return once the list has these Schedules as they are."""

    async def up_to_date() -> bool:
        shown = {schedule.slug: schedule for schedule in await list_schedules(lab.client)}
        for slug in slugs:
            now = await described(lab, slug)
            if now is None or slug not in shown:
                if now is not None or slug in shown:
                    return False
                continue
            state = now.schedule.state
            fingerprint = next(
                pair.value for pair in now.typed_search_attributes
                if pair.key.name == names.ATTRIBUTE_FINGERPRINT
            )  # fmt: skip
            there = shown[slug]
            if (there.paused, there.note, there.fingerprint) != (state.paused, state.note, fingerprint):
                return False
        return True

    await eventually(up_to_date)


class Calls:
    """A client's calls to the server, counted by name."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        service = client.workflow_service
        for name in ("describe_schedule", "create_schedule", "update_schedule", "delete_schedule"):
            monkeypatch.setattr(service, name, self._counted(name, getattr(service, name)))

    def _counted(self, name, call):
        async def counted(*arguments, **options):
            self.made.append(name)
            return await call(*arguments, **options)

        return counted


async def test_a_graph_inserted_by_plain_sql_gets_its_schedule_and_runs_at_once(lab: SyncLab) -> None:
    slug = await insert(lab, status="active", composition='{"sync": {"provider": "default"}}')
    result = await reconcile_now(lab.client, task_queue=lab.task_queue, seconds=30)
    assert (result.created, result.created_graphs, result.refused) == (1, (slug,), {})

    schedule = await described(lab, slug)
    assert schedule is not None
    action = schedule.schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert (action.workflow, action.task_queue) == (names.SYNC_GRAPH, lab.task_queue)

    async def ran() -> bool:
        return [run async for run in lab.client.list_workflows(f"SynclineGraph='{slug}'")] != []

    await eventually(ran)


async def test_a_graph_with_a_time_of_its_own_waits_for_it(idle_lab: SyncLab) -> None:
    slug = await insert(idle_lab, schedule='{"cron": "30 4 * * *"}')
    assert (await reconciled(idle_lab)).created == 1
    schedule = await described(idle_lab, slug)
    assert schedule is not None
    assert schedule.info.num_actions == 0


async def test_the_workflow_shows_what_it_did(lab: SyncLab) -> None:
    slug = await insert(lab)
    bad = await insert(lab, schedule='{"every_seconds": 1.5}')
    handle = await lab.client.start_workflow(
        names.RECONCILE_SCHEDULES, id=lab.unique("reconcile"), task_queue=lab.task_queue,
        result_type=Reconciliation,
    )  # fmt: skip
    result = await handle.result()
    details = await lab.details(handle)
    assert "1 created, 0 updated" in details
    assert f"Created: `{slug}`" in details
    assert f"- **{bad}**: {result.refused[bad]}" in details


async def test_a_changed_cron_reaches_the_schedule(idle_lab: SyncLab) -> None:
    slug = await insert(idle_lab)
    await reconciled(idle_lab)
    await change(idle_lab, slug, """schedule = '{"cron": "30 4 * * *"}'""")
    assert (await reconciled(idle_lab)).updated_graphs == (slug,)
    schedule = await described(idle_lab, slug)
    assert schedule is not None
    [calendar] = schedule.schedule.spec.calendars
    assert (calendar.hour[0].start, calendar.minute[0].start) == (4, 30)
    await listed(idle_lab, slug)
    [shown] = [entry for entry in await list_schedules(idle_lab.client) if entry.slug == slug]
    assert shown.spec == "30 4 * * *"


async def test_a_run_over_graphs_that_did_not_change_asks_for_no_schedule_and_writes_none(
    idle_lab: SyncLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    slugs = [await insert(idle_lab) for _ in range(3)]
    slugs.append(await insert(idle_lab, status="paused"))
    await insert(idle_lab, status="archived")
    await reconciled(idle_lab)
    await listed(idle_lab, *slugs)
    calls = Calls(idle_lab.client, monkeypatch)
    result = await reconciled(idle_lab)
    assert (result.unchanged, result.changed, result.refusals) == (4, 0, 0)
    assert calls.made == []


async def test_only_the_graph_that_changed_is_asked_for(
    idle_lab: SyncLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    slugs = [await insert(idle_lab) for _ in range(3)]
    await reconciled(idle_lab)
    await listed(idle_lab, *slugs)
    await change(idle_lab, slugs[1], """schedule = '{"every_seconds": 120}'""")
    calls = Calls(idle_lab.client, monkeypatch)
    result = await reconciled(idle_lab)
    assert (result.updated_graphs, result.unchanged) == ((slugs[1],), 2)
    assert sorted(set(calls.made)) == ["describe_schedule", "update_schedule"]
    assert calls.made.count("update_schedule") == 1


async def test_an_operators_pause_survives(idle_lab: SyncLab) -> None:
    slug = await insert(idle_lab)
    await reconciled(idle_lab)
    await idle_lab.client.get_schedule_handle(names.sync_schedule_id(slug)).pause(note="hands off")
    await listed(idle_lab, slug)
    assert (await reconciled(idle_lab)).unchanged == 1
    await change(idle_lab, slug, """schedule = '{"every_seconds": 120}'""")
    assert (await reconciled(idle_lab)).updated == 1
    schedule = await described(idle_lab, slug)
    assert schedule is not None
    assert (schedule.schedule.state.paused, schedule.schedule.state.note) == (True, "hands off")


async def test_a_schedule_is_paused_and_resumed_with_its_graph(idle_lab: SyncLab) -> None:
    slug = await insert(idle_lab)
    await reconciled(idle_lab)
    await listed(idle_lab, slug)
    for status, paused in (("paused", True), ("active", False)):
        await change(idle_lab, slug, f"status = '{status}'")
        assert (await reconciled(idle_lab)).updated_graphs == (slug,)
        schedule = await described(idle_lab, slug)
        assert schedule is not None
        assert schedule.schedule.state.paused is paused
        assert (schedule.schedule.state.note == PAUSED_WITH_GRAPH) is paused
        await listed(idle_lab, slug)


@pytest.mark.parametrize("gone", ["archived", "removed"])
async def test_a_graph_that_is_gone_loses_its_schedule(idle_lab: SyncLab, gone: str) -> None:
    slug, other = await insert(idle_lab), await insert(idle_lab)
    await reconciled(idle_lab)
    await listed(idle_lab, slug, other)
    if gone == "archived":
        await change(idle_lab, slug, "status = 'archived'")
    else:
        await delete(idle_lab, slug)
    result = await reconciled(idle_lab)
    assert (result.deleted_graphs, result.unchanged) == ((slug,), 1)
    assert await described(idle_lab, slug) is None
    assert await described(idle_lab, other) is not None
    # The list may go on showing it for a moment.
    assert (await reconciled(idle_lab)).deleted == 0


async def foreign(lab: SyncLab, schedule_id: str, workflow: str, task_queue: str) -> None:
    await lab.client.create_schedule(
        schedule_id,
        Schedule(
            action=ScheduleActionStartWorkflow(workflow, id=schedule_id, task_queue=task_queue),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(days=1))]),
        ),
    )


async def test_a_schedule_that_is_not_ours_is_never_touched(idle_lab: SyncLab) -> None:
    queue, unique = idle_lab.task_queue, idle_lab.unique
    theirs = {
        unique("nightly"): (names.SYNC_GRAPH, queue),
        names.sync_schedule_id(unique("other")): ("SomethingElse", queue),
        names.sync_schedule_id(unique("elsewhere")): (names.SYNC_GRAPH, unique("queue")),
    }
    for schedule_id, (workflow, task_queue) in theirs.items():
        await foreign(idle_lab, schedule_id, workflow, task_queue)

    async def shown() -> bool:
        return theirs.keys() <= {entry.id async for entry in await idle_lab.client.list_schedules()}

    await eventually(shown)
    result = await reconciled(idle_lab)
    assert (result.deleted, result.refusals) == (0, 0)
    for schedule_id in theirs:
        schedule = await idle_lab.client.get_schedule_handle(schedule_id).describe()
        assert schedule.info.last_updated_at is None


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("status", "workflow"), [("active", "SomethingElse"), ("active", None), ("archived", None)]
)
async def test_a_schedule_of_somebody_else_under_a_graphs_name_is_named_and_left_alone(
    idle_lab: SyncLab, status: str, workflow: str | None
) -> None:
    slug, other = await insert(idle_lab, status=status), await insert(idle_lab)
    schedule_id = names.sync_schedule_id(slug)
    queue = idle_lab.task_queue if workflow else idle_lab.unique("queue")
    await foreign(idle_lab, schedule_id, workflow or names.SYNC_GRAPH, queue)
    if workflow is None:

        async def shown() -> bool:
            return slug in {entry.slug for entry in await list_schedules(idle_lab.client)}

        await eventually(shown)
    result = await reconciled(idle_lab)
    assert (result.created_graphs, set(result.refused)) == ((other,), {slug})
    assert f"task queue '{queue}'" in result.refused[slug]
    assert f"temporal schedule delete --schedule-id {schedule_id}" in result.refused[slug]
    schedule = await idle_lab.client.get_schedule_handle(schedule_id).describe()
    assert schedule.info.last_updated_at is None


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ('{"every_seconds": 1.5}', "schedule.every_seconds"),
        ('{"cron": "whenever"}', "schedule.cron"),
        ('{"cron": "99 99 * * *"}', "Temporal rejects it"),
    ],
)
async def test_a_record_that_is_wrong_harms_only_itself(idle_lab: SyncLab, schedule: str, said: str) -> None:
    spoilt = await insert(idle_lab)
    await reconciled(idle_lab)
    await listed(idle_lab, spoilt)
    await change(idle_lab, spoilt, f"schedule = '{schedule}'")
    fresh, other = await insert(idle_lab, schedule=schedule), await insert(idle_lab)
    result = await reconciled(idle_lab)
    assert result.created_graphs == (other,)
    assert set(result.refused) == {spoilt, fresh}
    assert result.refusals == 2
    for slug in (spoilt, fresh):
        assert slug in result.refused[slug]
        assert said in result.refused[slug]
        assert "orrect" in result.refused[slug]
    assert await described(idle_lab, fresh) is None
    kept = await described(idle_lab, spoilt)
    assert kept is not None
    assert kept.schedule.spec.intervals[0].every == timedelta(hours=1)


async def test_a_graph_added_after_the_list_was_read_keeps_its_schedule(idle_lab: SyncLab) -> None:
    """The race that would delete a graph's Schedule a moment after somebody added the graph."""
    graph: list[Graph] = []

    async def read_while_somebody_adds() -> GraphRecords:
        graph.append(await idle_lab.add_graph())
        await ensure_schedule(idle_lab.client, graph[0], task_queue=idle_lab.task_queue)
        return await idle_lab.services.graphs.records()

    result = await reconcile(
        idle_lab.client, read_while_somebody_adds, task_queue=idle_lab.task_queue,
        progressed=lambda progress: None,
    )  # fmt: skip
    assert (result.deleted, result.unchanged) == (0, 1)
    assert await described(idle_lab, graph[0].slug) is not None


@pytest.mark.long("test_a_graph_is_syncing_soon_after_somebody_wrote_its_record")
async def test_a_list_that_is_behind_deletes_nothing_and_makes_nothing_twice(idle_lab: SyncLab) -> None:
    for _ in range(10):
        graph = await idle_lab.add_graph()
        await ensure_schedule(idle_lab.client, graph, task_queue=idle_lab.task_queue)
        result = await reconciled(idle_lab)  # at once: the list may not have it yet
        assert (result.created, result.deleted, result.refusals) == (0, 0, 0)
        assert await described(idle_lab, graph.slug) is not None


@pytest.mark.long("test_a_graph_is_syncing_soon_after_somebody_wrote_its_record")
async def test_two_reconciliations_at_once_agree(idle_lab: SyncLab) -> None:
    slugs = {await insert(idle_lab) for _ in range(10)}
    first, second = await asyncio.gather(reconciled(idle_lab), reconciled(idle_lab))
    assert first.created + second.created == 10
    assert {*first.created_graphs, *second.created_graphs} == slugs
    assert (first.refusals, second.refusals) == (0, 0)


@pytest.mark.long("test_a_graph_is_syncing_soon_after_somebody_wrote_its_record")
async def test_progress_is_told_and_long_lists_are_cut(idle_lab: SyncLab) -> None:
    for _ in range(105):
        await insert(idle_lab, status="paused")
    progress: list[ReconciliationProgress] = []
    result = await reconciled(idle_lab, progress.append)
    assert (result.created, len(result.created_graphs)) == (105, 100)
    # What other tests have left without a fingerprint is looked at too.
    assert progress[0].done == 0
    assert progress[-1].done == progress[-1].graphs >= 105
    assert [told.done for told in progress] == list(range(len(progress)))


async def test_a_server_that_turns_us_away_ends_the_attempt(
    idle_lab: SyncLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert(idle_lab)
    describe = idle_lab.client.workflow_service.describe_schedule

    async def nowhere(request: DescribeScheduleRequest, **options: object) -> object:
        request.namespace = "nowhere"
        return await describe(request, **options)

    monkeypatch.setattr(idle_lab.client.workflow_service, "describe_schedule", nowhere)
    with pytest.raises(TemporalUnavailable, match="nowhere"):
        # NOT_FOUND of a namespace is no missing Schedule: creating it is refused then, as it must be.
        monkeypatch.setattr(idle_lab.client.workflow_service, "create_schedule", nowhere)
        await reconciled(idle_lab)


def reconciler(lab: SyncLab):
    return lab.client.get_schedule_handle(names.reconcile_schedules_id(lab.task_queue))


async def ensured(lab: SyncLab, seconds: int = 30) -> str:
    return await ensure_reconciler(lab.client, task_queue=lab.task_queue, every_seconds=seconds)


def test_the_reconciler_of_the_default_task_queue_has_a_name_that_scripts_may_rely_on() -> None:
    assert names.reconcile_schedules_id(names.TASK_QUEUE) == "syncline/reconcile-schedules"


async def test_the_reconcilers_schedule_is_created_left_alone_and_changed(idle_lab: SyncLab) -> None:
    assert await ensured(idle_lab) == "created"
    before = await reconciler(idle_lab).describe()
    action, policy = before.schedule.action, before.schedule.policy
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert (action.workflow, action.task_queue) == (names.RECONCILE_SCHEDULES, idle_lab.task_queue)
    assert policy.catchup_window == timedelta(seconds=30)
    assert await ensured(idle_lab) == "unchanged"
    assert (await reconciler(idle_lab).describe()).info.last_updated_at == before.info.last_updated_at

    await reconciler(idle_lab).pause(note="not now")
    assert await ensured(idle_lab, 60) == "updated"
    after = await reconciler(idle_lab).describe()
    assert after.schedule.spec.intervals[0].every == timedelta(seconds=60)
    assert (after.schedule.state.paused, after.schedule.state.note) == (True, "not now")


async def test_workers_that_start_at_once_make_one_schedule(idle_lab: SyncLab) -> None:
    made = await asyncio.gather(*(ensured(idle_lab) for _ in range(8)))
    assert made.count("created") == 1
    assert set(made) == {"created", "unchanged"}


async def test_a_graph_is_syncing_soon_after_somebody_wrote_its_record(idle_lab: SyncLab) -> None:
    services = idle_lab.services
    async with idle_lab.worker():
        await ensured(idle_lab, 1)
        graph = await idle_lab.add_graph(prepare=True)

        async def synced() -> bool:
            query = f"SynclineGraph='{graph.slug}' AND ExecutionStatus='Completed'"
            return [run async for run in idle_lab.client.list_workflows(query)] != []

        await eventually(synced)
        await services.graphs.update(graph.slug, GraphChanges.model_validate({"status": "archived"}))

        async def gone() -> bool:
            return await described(idle_lab, graph.slug) is None

        await eventually(gone)
        await reconciler(idle_lab).delete()


@pytest.mark.long("test_a_graph_is_syncing_soon_after_somebody_wrote_its_record")
async def test_schedules_follow_while_cycles_have_all_slots(idle_lab: SyncLab) -> None:
    release = asyncio.Event()

    async def wait(_: SyncContext) -> SyncResult:
        await release.wait()
        return sync_result()

    slow = FakeProvider("slow", cycle=wait)
    slots = idle_lab.services.settings.max_concurrent_cycles
    graphs = [await idle_lab.add_graph(slow)]
    graphs += [await idle_lab.add_graph("slow") for _ in range(slots - 1)]
    async with idle_lab.worker():
        runs = [await idle_lab.start(graph) for graph in graphs]

        async def full() -> bool:
            return len(slow.contexts) == slots

        await eventually(full)
        # A run that comes now waits for a slot, already to be resolved.
        waiting = await idle_lab.start(await idle_lab.add_graph("slow"))
        slug = await insert(idle_lab)
        result = await reconcile_now(idle_lab.client, task_queue=idle_lab.task_queue, seconds=20)
        assert slug in result.created_graphs
        release.set()
        for run in [*runs, waiting]:
            await run.result()


async def test_a_refusal_is_logged_once_and_again_when_it_changes(
    idle_lab: SyncLab, capsys: pytest.CaptureFixture[str]
) -> None:
    slug = await insert(idle_lab, schedule='{"every_seconds": 1.5}')
    async with idle_lab.worker():
        for _ in range(2):
            await reconcile_now(idle_lab.client, task_queue=idle_lab.task_queue, seconds=30)
        await change(idle_lab, slug, """schedule = '{"cron": "whenever"}'""")
        await reconcile_now(idle_lab.client, task_queue=idle_lab.task_queue, seconds=30)
    said = capsys.readouterr()
    warnings = [line for line in (said.out + said.err).splitlines() if "schedule not reconciled" in line]
    assert len([line for line in warnings if "every_seconds" in line and "debug" not in line.lower()]) == 1
    assert len([line for line in warnings if "schedule.cron" in line and "debug" not in line.lower()]) == 1
