"""What goes wrong between a run and its stores, its worker and its plugins, and what the run makes of it."""

import asyncio
from collections.abc import Callable

import pytest
from pydantic import BaseModel
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.worker import Worker

from activities.sync import SyncActivities
from syncline import names
from syncline.control.graphs import GraphChanges
from syncline.control.resolution import resolve_sync_provider
from syncline.control.services import Services
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.errors import StoreRejected, StoreUnavailable
from syncline.messages.sync import (
    CycleStatus,
    ProviderResolution,
    ResolveProviderRequest,
    RunPhase,
    SyncResult,
)
from syncline.provider import SyncContext
from syncline.registry import Registry
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from worker import create_worker


class AnswerLost(SyncActivities):
    """Resolves and signals, and then its first answer never reaches the server."""

    lost = 0

    @activity.defn(name=names.RESOLVE_PROVIDER)
    async def resolve_provider(self, request: ResolveProviderRequest) -> ProviderResolution:
        answer = await super().resolve_provider(request)
        if activity.info().attempt == 1:
            self.lost += 1
            raise ConnectionError("the answer was lost")
        return answer


async def test_a_fallback_counts_once_when_its_resolution_is_retried(
    temporal_client: Client, services: Services, unique: Callable[[str], str]
) -> None:
    activities = AnswerLost(services)

    def make_worker(client: Client, services: Services) -> Worker:
        return create_worker(client, activities, services.settings)

    lab = SyncLab(client=temporal_client, services=services, make_worker=make_worker, unique=unique)
    async with lab.worker():
        graph = await lab.add_graph("acme-sync", prepare=True)
        run = await lab.start(graph)
        result = await run.result()
        assert activities.lost == 1
        assert (await lab.events(run)).count("WORKFLOW_EXECUTION_SIGNALED") == 2
        state = await lab.state(run)
        assert len(state.signals) == 1
        assert result.carried.consecutive_fallback_runs == 1


async def test_a_control_database_that_is_away_is_waited_for_and_is_no_fallback(
    lab: SyncLab, postgres_server: EmbeddedPostgres
) -> None:
    graph = await lab.add_graph(FakeProvider())
    database = lab.services.settings.graph_dsn.get_secret_value().split("/")[3].split("?")[0]
    postgres_server.psql(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
    postgres_server.psql(
        f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}'"
    )
    with pytest.raises(StoreUnavailable):
        await lab.services.graphs.get(graph.slug)
    run = await lab.start(graph)

    async def retried() -> bool:
        pending = (await run.describe()).raw_description.pending_activities
        return bool(pending and pending[0].attempt > 1)

    await eventually(retried)
    assert (await lab.state(run)).phase is RunPhase.RESOLVING
    postgres_server.psql(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
    result = await run.result()
    assert (result.provider_id, result.fallback) == ("fake", None)
    assert "WORKFLOW_EXECUTION_SIGNALED" not in await lab.events(run)


async def test_a_cycle_whose_store_is_away_is_retried(lab: SyncLab) -> None:
    attempts: list[int] = []

    async def away_at_first(context: SyncContext) -> SyncResult:
        attempts.append(context.run.attempt)
        if context.run.attempt == 1:
            raise StoreUnavailable("graph", "it restarts")
        return sync_result()

    graph = await lab.add_graph(FakeProvider(cycle=away_at_first))
    assert (await lab.run(graph)).result.status is CycleStatus.DRAINED
    assert attempts == [1, 2]


async def test_a_cycle_goes_on_at_another_worker_when_its_own_shuts_down(idle_lab: SyncLab) -> None:
    lab, entered = idle_lab, asyncio.Event()

    async def hang_at_first(context: SyncContext) -> SyncResult:
        entered.set()
        if context.run.attempt == 1:
            await asyncio.Event().wait()
        return sync_result(rows=1)

    graph = await lab.add_graph(FakeProvider(cycle=hang_at_first))
    async with lab.worker():
        run = await lab.start(graph)
        await entered.wait()
    async with lab.worker():
        assert (await run.result()).result.rows == 1


async def test_a_worker_without_the_provider_leaves_the_cycle_to_one_that_has_it(
    idle_lab: SyncLab, unique: Callable[[str], str]
) -> None:
    """A rolling deployment: a new worker resolves, an old one gets the cycle first."""
    provider = FakeProvider()
    old = SyncLab(
        client=idle_lab.client,
        services=Services(idle_lab.services.settings, registry=Registry()),
        make_worker=idle_lab.make_worker,
        unique=unique,
    )
    entered, resolved = asyncio.Event(), asyncio.Event()

    class HeldUp(SyncActivities):
        @activity.defn(name=names.RESOLVE_PROVIDER)
        async def resolve_provider(self, request: ResolveProviderRequest) -> ProviderResolution:
            answer = await super().resolve_provider(request)
            entered.set()
            await resolved.wait()
            return answer

    graph = await idle_lab.add_graph(provider)
    new_worker = create_worker(idle_lab.client, HeldUp(idle_lab.services), idle_lab.services.settings)
    async with new_worker:
        run = await idle_lab.start(graph)
        await entered.wait()
        resolved.set()
    # The new worker has answered and is gone; the old one takes the cycle and cannot run it.
    async with old.worker():

        async def refused() -> bool:
            pending = (await run.describe()).raw_description.pending_activities
            return bool(pending and pending[0].last_failure.application_failure_info.type == "ProviderGone")

        await eventually(refused)
    async with idle_lab.worker():
        assert (await run.result()).provider_id == "fake"
    await old.services.close()


async def test_a_composition_that_changes_under_a_waiting_cycle_ends_the_run(lab: SyncLab) -> None:
    async def change_and_fail(context: SyncContext) -> SyncResult:
        changes = GraphChanges(composition={"sync": {"provider": "another"}})
        await lab.services.graphs.update(context.graph.slug, changes)
        raise StoreUnavailable("graph", "it restarts")

    graph = await lab.add_graph(FakeProvider(cycle=change_and_fail))
    error = await lab.failure(await lab.start(graph))
    assert (error.type, error.non_retryable) == ("CompositionChanged", True)
    assert "'another'" in error.message


class AnswerBefore(SyncActivities):
    """Resolves, and then `change` of the graph, or of the answer, comes before the cycle."""

    change: GraphChanges | None = None
    older = False

    @activity.defn(name=names.RESOLVE_PROVIDER)
    async def resolve_provider(self, request: ResolveProviderRequest) -> ProviderResolution:
        answer = await super().resolve_provider(request)
        if self.change is not None:
            await self._services().graphs.update(answer.graph.id, self.change)
        return answer.model_copy(update={"fingerprint": None}) if self.older else answer


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("change", "older", "resolved", "depth"),
    [
        (None, False, 1, 1),
        (GraphChanges(composition={"sync": {"provider": "fake", "options": {"depth": 2}}}), False, 2, 2),
        (None, True, 2, 1),
    ],
    ids=["unchanged", "changed", "older-worker"],
)
async def test_sync_cycle_resolves_again_only_another_record(
    idle_lab: SyncLab,
    monkeypatch: pytest.MonkeyPatch,
    change: GraphChanges | None,
    older: bool,
    resolved: int,
    depth: int,
) -> None:
    class Options(BaseModel):
        depth: int

    asked: list[str] = []

    async def resolve(*arguments: object, **named: object) -> object:
        asked.append(activity.info().activity_type)
        return await resolve_sync_provider(*arguments, **named)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr("activities.sync.resolve_sync_provider", resolve)
    activities = AnswerBefore(idle_lab.services)
    activities.change, activities.older = change, older
    provider = FakeProvider(options_model=Options)
    composition = {"sync": {"provider": "fake", "options": {"depth": 1}}}
    graph = await idle_lab.add_graph(provider, composition=composition)
    async with create_worker(idle_lab.client, activities, idle_lab.services.settings):
        await idle_lab.run(graph)
    assert asked == [names.RESOLVE_PROVIDER, names.SYNC_CYCLE][:resolved]
    assert provider.contexts[0].options == Options(depth=depth)


async def test_what_a_driver_says_below_our_error_stays_out_of_history(lab: SyncLab) -> None:
    async def leak(context: SyncContext) -> SyncResult:
        try:
            raise RuntimeError("[parameters: ('a private row',)]")
        except RuntimeError as error:
            raise StoreRejected("graph", "duplicate key", sqlstate="23505") from error

    graph = await lab.add_graph(FakeProvider(cycle=leak))
    run = await lab.start(graph)
    error = await lab.failure(run)
    assert (error.type, error.non_retryable) == ("StoreRejected", True)
    assert "23505" in error.message
    assert "a private row" not in (await run.fetch_history()).to_json()


async def test_activities_without_services_say_what_is_missing(
    temporal_client: Client, services: Services, unique: Callable[[str], str]
) -> None:
    def make_worker(client: Client, services: Services) -> Worker:
        return create_worker(client, SyncActivities(None), services.settings)

    lab = SyncLab(client=temporal_client, services=services, make_worker=make_worker, unique=unique)
    graph = await lab.add_graph("fake")
    async with lab.worker():
        run = await lab.start(graph)

        async def told() -> bool:
            pending = (await run.describe()).raw_description.pending_activities
            return bool(pending and "has no services" in pending[0].last_failure.message)

        await eventually(told)
        await run.terminate()


async def test_a_run_replays_at_every_task_without_a_cache(
    temporal_client: Client, services: Services, unique: Callable[[str], str]
) -> None:
    def make_worker(client: Client, services: Services) -> Worker:
        settings = services.settings.model_copy(update={"max_cached_workflows": 0})
        return create_worker(client, SyncActivities(services), settings)

    lab = SyncLab(client=temporal_client, services=services, make_worker=make_worker, unique=unique)
    async with lab.worker():
        graph = await lab.add_graph("acme-sync", prepare=True)
        run = await lab.start(graph)
        assert (await run.result()).fallback is not None
        history = await run.fetch_history()
        failed = [e for e in history.events if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED]
        assert failed == []
