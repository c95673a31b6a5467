"""A run from its start to its result: provider, cycle, state, attributes, details."""

import asyncio
import time
from datetime import timedelta
from importlib.metadata import Distribution, version

import asyncpg
import pytest
from pydantic import BaseModel
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import CancelledError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from syncline import names
from syncline.control.graphs import Graph, GraphRepository
from syncline.errors import StoreUnavailable
from syncline.messages.provider_state import FallbackReason, ProviderState
from syncline.messages.sync import CycleProgress, CycleStatus, RunPhase, SyncResult, TableProgress
from syncline.provider import SyncContext
from syncline.temporal.client import GRAPH
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from workflows.sync_graph import SyncGraph


def row_of(table: str, details: str) -> dict[str, str]:
    """The cells of a table's row in the markdown by their column, whatever keeps them apart."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in details.splitlines() if "|" in line]
    [cells] = [cells for cells in rows if cells[0] == table]
    return dict(zip(rows[0][1:], cells[1:], strict=True))


async def test_a_provider_answers_and_its_result_is_the_runs(lab: SyncLab) -> None:
    async def three_rows(context: SyncContext) -> SyncResult:
        return sync_result(rows=3)

    provider = FakeProvider(cycle=three_rows)
    graph = await lab.add_graph(provider)
    run = await lab.start(graph)
    result = await run.result()

    assert (result.provider_id, result.provider_version, result.fallback) == ("fake", "1.0", None)
    assert (result.result.rows, result.failures, result.carried.totals.runs) == (3, 0, 1)
    assert await lab.attributes(run) == {
        "SynclineGraph": graph.slug,
        "SynclineProvider": "fake",
        "SynclineFallback": False,
        "SynclineRows": 3,
        "SynclineFailures": 0,
    }
    text = await lab.details(run)
    assert f"Graph **{graph.slug}**: **drained** in " in text
    assert "Provider: fake 1.0 (from lab 1.0)" in text
    assert row_of("nodes", text) == {"rows": "3", "captured": "3"}
    assert provider.initialized == 1


async def test_a_context_says_all_that_a_cycle_needs(lab: SyncLab) -> None:
    class Options(BaseModel):
        depth: int = 1

    provider = FakeProvider(options_model=Options)
    graph = await lab.add_graph(provider, composition={"sync": {"provider": "fake", "options": {"depth": 7}}})
    run = await lab.start(graph, batch_rows=11, time_budget_seconds=12.5)
    await run.result()

    [context] = provider.contexts
    assert context.graph == graph.ref
    assert (context.run.workflow_id, context.run.run_id) == (run.id, run.result_run_id)
    assert (context.write.schema, context.target.schema) == (graph.schema_name, graph.schema_name)
    assert context.vectors.prefix == graph.qdrant_prefix
    assert (context.budget.batch_rows, context.budget.seconds) == (11, 12.5)
    assert context.options_as(Options).depth == 7


async def test_runs_are_found_by_the_release_that_served_them(lab: SyncLab) -> None:
    run = await lab.start(await lab.add_graph(FakeProvider()))
    await run.result()
    builds = (await run.describe()).typed_search_attributes.get(
        SearchAttributeKey.for_keyword_list("BuildIds")
    )
    assert builds == ["unversioned", f"unversioned:syncline {version('syncline')}"]


async def test_a_graph_can_be_named_by_its_id(lab: SyncLab) -> None:
    graph = await lab.add_graph(FakeProvider())
    run = await lab.client.start_workflow(
        names.SYNC_GRAPH, {"graph": str(graph.id)}, id=lab.unique("run"), task_queue=lab.task_queue
    )
    await run.result()
    assert (await lab.attributes(run))["SynclineGraph"] == graph.slug


async def test_a_graph_without_its_provider_falls_back_and_says_so(lab: SyncLab) -> None:
    graph = await lab.add_graph("acme-sync", prepare=True)
    run = await lab.start(graph)
    result = await run.result()

    assert result.fallback is not None
    assert (result.fallback.reason, result.fallback.provider_id) == (
        FallbackReason.NOT_INSTALLED,
        "acme-sync",
    )
    assert result.result.status is CycleStatus.DRAINED
    assert (await lab.events(run)).count("WORKFLOW_EXECUTION_SIGNALED") == 1
    found = await lab.attributes(run)
    assert (found["SynclineProvider"], found["SynclineFallback"]) == (names.FALLBACK_PROVIDER, True)
    state = await lab.state(run)
    [signal] = state.signals
    assert signal.fallback == result.fallback == state.provider.fallback
    assert state.provider.fallback_since is not None
    assert "> **Fallback** to the built-in engine since 2" in await lab.details(run)


async def test_no_graph_means_the_default_graph_and_the_built_in_engine(lab: SyncLab) -> None:
    graph = await lab.add_graph(FakeProvider(), is_default=True, prepare=True)
    result = await lab.run(None)
    assert result.graph == graph.ref
    assert result.fallback is not None
    assert result.fallback.reason is FallbackReason.NO_GRAPH_CONTEXT


async def test_a_fallback_cycle_does_not_read_the_version_from_disk(
    lab: SyncLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = Distribution.from_name

    def noted(name: str) -> Distribution:
        reads.append(name)
        return read(name)

    monkeypatch.setattr(Distribution, "from_name", noted)
    result = await lab.run(await lab.add_graph(prepare=True))
    assert result.result.served is not None
    assert result.result.served.distribution == f"syncline {version('syncline')}"
    assert reads == ["syncline"]  # by the line above


async def test_a_paused_graph_can_be_synced_by_hand_and_an_archived_one_cannot(lab: SyncLab) -> None:
    provider = FakeProvider()
    paused = await lab.add_graph(provider, status="paused")
    assert (await lab.run(paused)).provider_id == "fake"
    archived = await lab.add_graph("fake", status="archived")
    error = await lab.failure(await lab.start(archived))
    assert error.type == "GraphInvalid"
    assert archived.slug in error.message


@pytest.mark.parametrize(
    ("composition", "kind", "named"),
    [
        ({"sync": {"provider": "fake", "options": {"dept": 1}}}, "CompositionInvalid", "sync.options.dept"),
        ({"sync": {"provider": "acme-sync", "on_missing": "fail"}}, "ProviderMissing", "acme-sync"),
    ],
)
async def test_a_composition_that_cannot_be_followed_fails_the_run_at_once(
    lab: SyncLab, composition: dict[str, object], kind: str, named: str
) -> None:
    graph = await lab.add_graph(FakeProvider(), composition=composition)
    run = await lab.start(graph)
    error = await lab.failure(run)
    assert (error.type, error.non_retryable) == (kind, True)
    assert named in error.message
    state = await lab.state(run)
    assert state.phase is RunPhase.FAILED
    assert state.error is not None
    assert named in state.error
    assert named in await lab.details(run)


async def test_an_unknown_graph_fails_the_run_and_never_falls_back(lab: SyncLab) -> None:
    run = await lab.client.start_workflow(
        names.SYNC_GRAPH, {"graph": "nowhere"}, id=lab.unique("run"), task_queue=lab.task_queue
    )
    error = await lab.failure(run)
    assert (error.type, error.non_retryable) == ("GraphNotFound", True)
    assert (await lab.attributes(run))["SynclineGraph"] == "nowhere"
    assert "WORKFLOW_EXECUTION_SIGNALED" not in await lab.events(run)


async def test_a_failed_cycle_fails_the_run_with_every_table_named(lab: SyncLab) -> None:
    async def broken(context: SyncContext) -> SyncResult:
        return sync_result(rows=2, error="column gone")

    graph = await lab.add_graph(FakeProvider(cycle=broken))
    run = await lab.start(graph)
    error = await lab.failure(run)

    assert (error.type, error.non_retryable) == ("CycleFailed", True)
    assert "nodes: column gone" in error.message
    assert SyncResult.model_validate(error.details[0]).failures == 1
    found = await lab.attributes(run)
    assert (found["SynclineRows"], found["SynclineFailures"]) == (2, 1)
    assert (await lab.state(run)).phase is RunPhase.FAILED
    assert "**nodes**: column gone" in await lab.details(run)


async def test_a_cycle_that_finds_the_graph_taken_completes_the_run(lab: SyncLab) -> None:
    async def taken(context: SyncContext) -> SyncResult:
        return SyncResult(status=CycleStatus.ALREADY_RUNNING)

    graph = await lab.add_graph(FakeProvider(cycle=taken))
    assert (await lab.run(graph)).result.status is CycleStatus.ALREADY_RUNNING


async def test_a_provider_that_returns_something_else_is_told_by_name(lab: SyncLab) -> None:
    async def rows(context: SyncContext) -> SyncResult:
        return {"rows": 3}  # type: ignore[return-value] # that is the point

    graph = await lab.add_graph(FakeProvider("sloppy", cycle=rows))
    error = await lab.failure(await lab.start(graph))
    assert (error.type, error.non_retryable) == ("ProviderInvalid", True)
    assert "'sloppy' of distribution 'lab 1.0'" in error.message
    assert "returned dict" in error.message


async def test_closed_runs_answer_queries(lab: SyncLab) -> None:
    graph = await lab.add_graph(FakeProvider())
    run = await lab.start(graph)
    await run.result()
    state = await lab.state(run)
    assert (state.graph, state.phase, state.provider.provider_id) == (graph.slug, RunPhase.DONE, "fake")
    assert state.last_result is not None
    assert state.last_result.model_copy(update={"served": None}) == sync_result()
    provider = await run.query(names.PROVIDER_STATE, result_type=ProviderState)
    assert provider == state.provider


async def test_progress_is_visible_while_a_cycle_runs(lab: SyncLab) -> None:
    seen = asyncio.Event()
    progress = CycleProgress(phase="capture", tables=(TableProgress(table="nodes", rows=42),))

    async def slow(context: SyncContext) -> SyncResult:
        context.heartbeat(progress)
        await seen.wait()
        return sync_result(rows=42)

    graph = await lab.add_graph(FakeProvider(cycle=slow))
    run = await lab.start(graph)

    async def shown() -> bool:
        return (await lab.state(run)).progress == progress

    await eventually(shown)
    assert (await lab.state(run)).phase is RunPhase.SYNCING
    assert row_of("nodes", await lab.details(run)) == {"rows": "42"}
    seen.set()
    await run.result()


async def test_cancelling_a_run_cancels_a_provider_that_hangs(lab: SyncLab) -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(context: SyncContext) -> SyncResult:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    graph = await lab.add_graph(FakeProvider(cycle=hang))
    run = await lab.start(graph)
    await entered.wait()
    await run.cancel()
    with pytest.raises(WorkflowFailureError) as failed:
        await run.result()
    assert isinstance(failed.value.cause, CancelledError)
    assert cancelled.is_set()
    assert (await run.describe()).status is WorkflowExecutionStatus.CANCELED
    assert (await lab.state(run)).phase is RunPhase.CANCELLED


@pytest.mark.long(after=1)
@pytest.mark.parametrize("nobody", ["the_control_plane_hangs", "no_worker_has_room", "it_is_tried_again"])
async def test_cancel_while_resolving_is_canceled_at_once(
    idle_lab: SyncLab, monkeypatch: pytest.MonkeyPatch, nobody: str
) -> None:
    """Whatever keeps resolution from answering: it is not waited for."""
    graph = await idle_lab.add_graph(FakeProvider())
    asked, never = asyncio.Event(), asyncio.Event()

    async def get(repository: object, reference: object) -> Graph:
        asked.set()
        if nobody == "it_is_tried_again":
            raise StoreUnavailable("control", "it is away")
        await never.wait()
        raise StoreUnavailable("control", "it is away")

    monkeypatch.setattr(GraphRepository, "get", get)
    worker = (
        Worker(
            idle_lab.client,
            task_queue=idle_lab.task_queue,
            workflows=[SyncGraph],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        if nobody == "no_worker_has_room"
        else idle_lab.worker()
    )
    async with worker:
        run = await idle_lab.start(graph)
        if nobody == "no_worker_has_room":

            async def waits() -> bool:
                return (await idle_lab.events(run)).count("ACTIVITY_TASK_SCHEDULED") == 1

            await eventually(waits)
        else:
            await asked.wait()
        began = time.monotonic()
        try:
            await run.cancel()
            with pytest.raises(WorkflowFailureError) as failed:
                await run.result()
            took = time.monotonic() - began
        finally:
            never.set()
        assert took < 10
        assert isinstance(failed.value.cause, CancelledError)
        assert (await run.describe()).status is WorkflowExecutionStatus.CANCELED
        assert (await idle_lab.state(run)).phase is RunPhase.CANCELLED


async def test_every_activity_has_bounds_and_a_summary(lab: SyncLab) -> None:
    graph = await lab.add_graph(FakeProvider())
    run = await lab.start(graph, time_budget_seconds=60)
    await run.result()
    history = await run.fetch_history()
    scheduled = {
        event.activity_task_scheduled_event_attributes.activity_type.name: event
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    }
    assert scheduled.keys() == {names.RESOLVE_PROVIDER, names.SYNC_CYCLE}
    resolve = scheduled[names.RESOLVE_PROVIDER].activity_task_scheduled_event_attributes
    cycle = scheduled[names.SYNC_CYCLE].activity_task_scheduled_event_attributes
    assert resolve.start_to_close_timeout.ToTimedelta() == timedelta(seconds=30)
    assert resolve.schedule_to_close_timeout.ToTimedelta() == timedelta(hours=2)
    assert cycle.start_to_close_timeout.ToTimedelta() == timedelta(minutes=6)
    # Together: the cycle has what resolution has left.
    left = cycle.schedule_to_close_timeout.ToTimedelta()
    assert timedelta(hours=2, seconds=-30) < left < timedelta(hours=2)
    assert cycle.heartbeat_timeout.ToTimedelta() == timedelta(seconds=20)
    for attributes_of in (resolve, cycle):
        assert attributes_of.retry_policy.maximum_interval.ToTimedelta() == timedelta(seconds=60)
        # Each error says itself whether a retry helps: a list of names would be in every history, twice.
        assert list(attributes_of.retry_policy.non_retryable_error_types) == []
    summaries = {name: event.user_metadata.summary.data.decode() for name, event in scheduled.items()}
    assert summaries == {
        names.RESOLVE_PROVIDER: f'"resolve the provider of {graph.slug}"',
        names.SYNC_CYCLE: f'"sync {graph.slug} with fake 1.0"',
    }


async def test_a_scheduled_run_costs_two_upserts_and_no_more_events(lab: SyncLab) -> None:
    graph = await lab.add_graph(FakeProvider())
    run = await lab.client.start_workflow(
        names.SYNC_GRAPH,
        {"graph": graph.slug},
        id=lab.unique("run"),
        task_queue=lab.task_queue,
        search_attributes=TypedSearchAttributes([SearchAttributePair(GRAPH, graph.slug)]),
    )
    await run.result()
    told = await lab.events(run)
    assert told.count("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES") == 2
    assert told.count("WORKFLOW_TASK_COMPLETED") == 3


@pytest.mark.long("test_no_graph_means_the_default_graph_and_the_built_in_engine")
async def test_deleted_keys_are_kept_for_another_graph_of_the_same_write_place(
    idle_lab: SyncLab,
) -> None:
    graph = await idle_lab.add_graph("default", prepare=True)
    other = await idle_lab.add_graph(
        "default", schema_name=graph.schema_name, graph_store="far", qdrant_prefix=idle_lab.unique("p")
    )
    connection = await asyncpg.connect(idle_lab.services.settings.write_dsn.get_secret_value())

    async def kept_after_a_run() -> int:
        await connection.execute(
            f"INSERT INTO {graph.schema_name}.write_nodes (id, concept) VALUES ('n', 'N');"
            f"DELETE FROM {graph.schema_name}.write_nodes;"
            f"UPDATE {graph.schema_name}.sync_tombstone SET deleted_at = now() - interval '8 days'"
        )
        # A worker asks once an hour who else reads the write place: each run is a new one's.
        async with idle_lab.worker():
            await idle_lab.run(graph)
        return int(await connection.fetchval(f"SELECT count(*) FROM {graph.schema_name}.sync_tombstone"))

    try:
        assert await kept_after_a_run() == 1
        async with idle_lab.services.control.driver() as control:
            await control.execute("DELETE FROM syncline.graphs WHERE id = $1", other.id)
        assert await kept_after_a_run() == 0
    finally:
        await connection.close()
