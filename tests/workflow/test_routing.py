"""Cycles go to the workers that have the provider; without one the graph's policy holds, until one is back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError, RPCStatusCode

from activities.run import signal_run
from activities.sync import SyncActivities
from syncline import names
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.control.workers import register_worker
from syncline.engine import run_cycle
from syncline.messages.base import Message
from syncline.messages.provider_state import OutageKind, ProviderFallback, ProviderHeld, ProviderReturned
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.provider import SyncContext
from syncline.registry import Registry
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from tests.kit.gate import Gate
from tests.kit.temporal_command import temporal
from tests.workflow.test_carried_state import SELDOM, scheduled
from tests.workflow.test_replay import replay
from worker import create_provider_worker, serving

SOON = 0.25
"""Seconds that a cycle waits for a worker where nobody takes it; elsewhere it waits for as long as deployed."""


class Fleet:
    """Worker processes of one deployment, each with a registry, stores, workers and an identity of its own."""

    def __init__(self, lab: SyncLab, folder: Path) -> None:
        self.lab = lab
        self._folder = folder

    async def client(self, identity: str) -> Client:
        """Return the connection of a process."""
        host = self.lab.client.service_client.config.target_host
        # `temporal worker list` knows a worker by its heartbeats, once a minute unless said otherwise.
        runtime = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=timedelta(seconds=1))
        return await Client.connect(
            host, identity=identity, data_converter=pydantic_data_converter, runtime=runtime
        )

    @asynccontextmanager
    async def services(
        self, identity: str, *plugins: FakeProvider, **settings: object
    ) -> AsyncIterator[Services]:
        """What a process has that these plugins are installed in."""
        registry = Registry()
        for plugin in plugins:
            registry.register("sync", plugin, f"{plugin.id}-wheel {plugin.version}", routed=True)
        own = {"qdrant_path": self._folder / identity, "graceful_shutdown_seconds": 0, **settings}
        async with Services.open(
            self.lab.services.settings.model_copy(update=own), registry=registry
        ) as services:
            yield services

    @asynccontextmanager
    async def process(
        self, identity: str, *plugins: FakeProvider, answer_seconds: float = 120, **settings: object
    ) -> AsyncIterator[None]:
        """A process, from when the others know of it."""
        client = await self.client(identity)
        async with self.services(identity, *plugins, **settings) as services:
            activities = SyncActivities(services, beat_seconds=0.2, answer_seconds=answer_seconds)
            async with serving(client, services, activities):
                await self.knows(identity)
                yield

    @asynccontextmanager
    async def register_worker(
        self, identity: str, *plugins: FakeProvider, **settings: object
    ) -> AsyncIterator[None]:
        """A process that the others know of, and that polls nothing: it was killed a moment ago."""
        async with (
            self.services(identity, *plugins, **settings) as services,
            register_worker(services, identity=identity),
        ):
            await self.knows(identity)
            yield

    async def known(self) -> set[str]:
        """Return the identities in the table of workers."""
        return {worker.identity for worker in await self.lab.services.workers.list()}

    async def knows(self, identity: str) -> None:
        """Wait until the table has a worker."""

        async def there() -> bool:
            return identity in await self.known()

        await eventually(there)

    async def graph(self, on_missing: str = "fallback", **fields: object) -> Graph:
        """Add a graph that names the plugin `acme`."""
        composition = {"sync": {"provider": "acme", "on_missing": on_missing}}
        return await self.lab.add_graph("acme", composition=composition, **fields)


@pytest.fixture
def fleet(idle_lab: SyncLab, tmp_path: Path) -> Fleet:
    return Fleet(idle_lab, tmp_path)


async def activities_of(run: WorkflowHandle) -> list[tuple[str, str, str]]:
    """The activities of a closed run that were started: type, task queue, identity of the worker."""
    events = (await run.fetch_history()).events
    scheduled_by = {event.event_id: event.activity_task_scheduled_event_attributes for event in events}
    started = [
        event.activity_task_started_event_attributes
        for event in events
        if event.HasField("activity_task_started_event_attributes")
    ]
    return [
        (
            scheduled_by[found.scheduled_event_id].activity_type.name,
            scheduled_by[found.scheduled_event_id].task_queue.name,
            found.identity,
        )
        for found in started
    ]


async def resolved_again(run: WorkflowHandle) -> None:
    """Wait until nobody has taken the cycle, and the provider was resolved once more."""

    async def twice() -> bool:
        events = (await run.fetch_history()).events
        found = [event.activity_task_scheduled_event_attributes.activity_type.name for event in events]
        return found.count(names.RESOLVE_PROVIDER) > 1

    await eventually(twice)


@pytest.mark.long("test_a_graph_in_fallback_returns_by_itself_and_both_edges_are_told")
async def test_in_a_mixed_fleet_every_run_is_the_providers(fleet: Fleet) -> None:
    plugin = FakeProvider("acme", version="1.2")
    graphs = [await fleet.graph() for _ in range(20)]
    async with fleet.process("old@host:1"), fleet.process("new@host:2", plugin):
        runs = [await fleet.lab.start(graph) for graph in graphs]
        results = [await run.result() for run in runs]
        state = await fleet.lab.state(runs[0])
        attributes = await fleet.lab.attributes(runs[0])
        details = await fleet.lab.details(runs[0])
        polls = {"": "", "/providers/acme": ""}

        async def listed() -> bool:
            """As the handbook has it: who has a plugin polls its queue."""
            for queue in polls:
                query = f'TaskQueue="{fleet.lab.task_queue}{queue}"'
                polls[queue] = await temporal(fleet.lab.client, "worker", "list", "--query", query)
            return all("host:" in printed for printed in polls.values())

        await eventually(listed)
        assert "old@host:1" in polls[""]
        assert "new@host:2" in polls["/providers/acme"]
        assert "old@host:1" not in polls["/providers/acme"]
    assert {(result.provider_id, result.provider_version, result.fallback) for result in results} == {
        ("acme", "1.2", None)
    }
    assert len(plugin.contexts) == 20
    done = {found for run in runs for found in await activities_of(run)}
    main, own = fleet.lab.task_queue, f"{fleet.lab.task_queue}/providers/acme"
    assert done == {
        (names.RESOLVE_PROVIDER, main, "old@host:1"),
        (names.RESOLVE_PROVIDER, main, "new@host:2"),
        (names.SYNC_CYCLE, own, "new@host:2"),
    }
    served = results[0].result.served
    assert served is not None
    assert (served.version, served.api_version, served.distribution, served.worker) == (
        "1.2",
        1,
        "acme-wheel 1.2",
        "new@host:2",
    )
    assert (state.provider.worker, state.provider.api_version) == ("new@host:2", 1)
    assert attributes == {
        "SynclineGraph": graphs[0].slug,
        "SynclineProvider": "acme",
        "SynclineProviderVersion": "1.2",
        "SynclineProviderApi": "1",
        "SynclineFallback": False,
        "SynclineRows": 0,
        "SynclineFailures": 0,
    }
    assert "Provider: acme 1.2 (from acme-wheel 1.2), in worker `new@host:2`" in details


async def test_the_run_tells_the_version_that_served_it_and_not_the_newest(fleet: Fleet) -> None:
    graph = await fleet.graph()
    async with (
        fleet.process("bare@host:1"),
        fleet.register_worker("new@host:2", FakeProvider("acme", version="1.10")),
    ):
        one = FakeProvider("acme", version="1.9")
        client = await fleet.client("old@host:3")
        async with (
            fleet.services("old@host:3", one) as services,
            create_provider_worker(client, SyncActivities(services), services.settings, "acme"),
        ):
            run = await fleet.lab.start(graph)
            result = await run.result()
            state = await fleet.lab.state(run)
            found = await fleet.lab.attributes(run)
    events = (await run.fetch_history()).events
    completed = [event.activity_task_completed_event_attributes.result for event in events]
    assert any(
        b'"provider_version":"1.10"' in payload.data for item in completed for payload in item.payloads
    )
    assert (result.provider_version, state.provider.provider_version) == ("1.9", "1.9")
    assert state.provider.distribution == "acme-wheel 1.9"
    assert found["SynclineProviderVersion"] == "1.9"


async def test_busy_is_not_gone(fleet: Fleet) -> None:
    taken, release = Gate(), Gate()

    async def hold_the_slot(context: SyncContext) -> SyncResult:
        if not taken.is_open:
            taken.open()
            await release.wait()
        return sync_result()

    graphs = [await fleet.graph("fail"), await fleet.graph("fail")]
    plugin = FakeProvider("acme", cycle=hold_the_slot)
    async with fleet.process("only@host:1", plugin, answer_seconds=SOON, max_concurrent_cycles=1):
        first = await fleet.lab.start(graphs[0])
        await taken.wait()
        second = await fleet.lab.start(graphs[1])
        await resolved_again(second)
        release.open()
        for run in (first, second):
            assert (await run.result()).provider_id == "acme"
    assert len(plugin.contexts) == 2


@pytest.mark.long("test_a_graph_in_fallback_returns_by_itself_and_both_edges_are_told")
async def test_when_those_who_had_it_are_gone_the_policy_holds(fleet: Fleet) -> None:
    graphs = {policy: await fleet.graph(policy, prepare=True) for policy in ("fallback", "hold", "fail")}
    async with fleet.process("bare@host:1", answer_seconds=SOON):
        async with fleet.register_worker("dead@host:2", FakeProvider("acme")):
            runs = {policy: await fleet.lab.start(graph) for policy, graph in graphs.items()}
            for run in runs.values():
                await resolved_again(run)
        fallen, held = await runs["fallback"].result(), await runs["hold"].result()
        assert (await fleet.lab.failure(runs["fail"])).type == "ProviderMissing"
        attributes = {policy: await fleet.lab.attributes(run) for policy, run in runs.items()}
        state = await fleet.lab.state(runs["fallback"])
    assert fallen.fallback is not None
    assert fallen.carried.consecutive_fallback_runs == 1
    assert (attributes["fallback"]["SynclineProvider"], attributes["fallback"]["SynclineFallback"]) == (
        names.FALLBACK_PROVIDER,
        True,
    )
    assert [type(signal) for signal in state.signals] == [ProviderFallback]
    for run in runs.values():
        await replay((await run.fetch_history()).to_json())
    assert (held.result.status, held.provider_id) == (CycleStatus.HELD, "acme")


async def test_a_worker_of_another_version_is_not_counted_on(fleet: Fleet) -> None:
    workers, queue = fleet.lab.services.workers, fleet.lab.task_queue
    graph = await fleet.graph("hold")
    green = {"deployment_name": "syncline", "build_id": "green"}
    async with (
        fleet.process("bare@host:1"),
        fleet.register_worker("green@host:2", FakeProvider("acme"), **green),
    ):
        found = {
            version: await workers.routed("sync", "acme", task_queue=queue, deployment_version=version)
            for version in (None, "syncline:green", "syncline:blue")
        }
        told = {worker.identity: worker.deployment_version for worker in await workers.list()}
        assert (await fleet.lab.run(graph)).result.status is CycleStatus.HELD
    assert {version for version, provider in found.items() if provider is not None} == {"syncline:green"}
    assert told == {"bare@host:1": None, "green@host:2": "syncline:green"}


@pytest.mark.long("test_a_graph_in_fallback_returns_by_itself_and_both_edges_are_told")
async def test_a_worker_that_ends_in_the_middle_of_a_cycle_leaves_it_to_the_policy(fleet: Fleet) -> None:
    entered = Gate()

    async def hang(context: SyncContext) -> SyncResult:
        entered.open()
        await asyncio.Event().wait()
        raise AssertionError

    graph = await fleet.graph(prepare=True)
    async with fleet.process("bare@host:1", answer_seconds=SOON):
        async with fleet.process("ending@host:2", FakeProvider("acme", cycle=hang), answer_seconds=SOON):
            run = await fleet.lab.start(graph)
            await entered.wait()
        result = await run.result()
    assert result.fallback is not None
    assert result.result.status is CycleStatus.DRAINED


async def test_a_worker_leaves_the_table_before_it_drains(fleet: Fleet) -> None:
    entered, release = Gate(), Gate()

    async def wait(context: SyncContext) -> SyncResult:
        entered.open()
        await release.wait()
        return sync_result(rows=1)

    graph = await fleet.graph()
    async with fleet.process("bare@host:1"):
        process = AsyncExitStack()
        plugin = FakeProvider("acme", cycle=wait)
        await process.enter_async_context(
            fleet.process("ending@host:2", plugin, graceful_shutdown_seconds=30)
        )
        run = await fleet.lab.start(graph)
        await entered.wait()
        ending = asyncio.create_task(process.aclose())

        async def left() -> bool:
            return await fleet.known() == {"bare@host:1"}

        await eventually(left)
        assert not ending.done()
        later = await fleet.lab.run(await fleet.graph("hold"))
        release.open()
        assert (await run.result()).result.rows == 1
        await ending
    assert later.result.status is CycleStatus.HELD


async def test_who_polls_the_queue_without_the_provider_is_believed_once(fleet: Fleet) -> None:
    graph = await fleet.graph()
    async with fleet.process("bare@host:1"), fleet.register_worker("dead@host:2", FakeProvider("acme")):
        client = await fleet.client("liar@host:3")
        async with (
            fleet.services("liar@host:3") as services,
            create_provider_worker(client, SyncActivities(services), services.settings, "acme"),
        ):
            run = await fleet.lab.start(graph)
            assert (await fleet.lab.failure(run)).type == "ProviderGone"
    done = [name for name, _, _ in await activities_of(run)]
    assert done == [names.RESOLVE_PROVIDER, names.SYNC_CYCLE] * 2


async def test_a_graph_in_fallback_returns_by_itself_and_both_edges_are_told(fleet: Fleet) -> None:
    lab = fleet.lab
    graph = await fleet.graph(prepare=True, schedule=SELDOM)
    runs = await scheduled(lab, graph)
    async with fleet.process("bare@host:1"):
        for number in (1, 2):
            run = await runs.next()
            away = (await run.result()).carried
            assert away.consecutive_fallback_runs == number
            assert [type(signal) for signal in (await lab.state(run)).signals] == [ProviderFallback]
        async with fleet.process("new@host:2", FakeProvider("acme", version="1.2")):
            run = await runs.next()
            back = (await run.result()).carried
            [signal] = (await lab.state(run)).signals
            details = await lab.details(run)
            after = await runs.next()
            carried = (await after.result()).carried
            assert (await lab.state(after)).signals == ()
    assert isinstance(signal, ProviderReturned)
    assert signal.served is not None
    assert (signal.provider_id, signal.served.version) == ("acme", "1.2")
    assert (signal.away.how, signal.away.since) == (OutageKind.FALLBACK, away.first_fallback_at)
    assert (back.consecutive_fallback_runs, back.first_fallback_at) == (0, None)
    assert back.last_return is not None
    assert back.last_return.away == signal.away
    assert back.last_return.at >= signal.at
    assert "The provider is back, after fallback since 2" in details
    assert carried.last_return == back.last_return


@pytest.mark.long("test_a_graph_in_fallback_returns_by_itself_and_both_edges_are_told")
async def test_a_graph_that_was_held_catches_up(fleet: Fleet, new_rows: Callable[..., object]) -> None:
    lab = fleet.lab
    graph = await fleet.graph("hold", prepare=True, schedule=SELDOM)
    await new_rows(graph, "a")
    runs = await scheduled(lab, graph)
    async with fleet.process("bare@host:1"):
        for number in (1, 2):
            await new_rows(graph, f"b{number}")
            run = await runs.next()
            held = await run.result()
            assert (held.result.status, held.result.idle) == (CycleStatus.HELD, False)
            assert held.carried.consecutive_held_runs == number
            [signal] = (await lab.state(run)).signals
            assert isinstance(signal, ProviderHeld)
            found = await lab.attributes(run)
            assert (found["SynclineProvider"], found["SynclineStatus"], found["SynclineFallback"]) == (
                "acme",
                "held",
                False,
            )
            details = await lab.details(run)
            assert f"Graph **{graph.slug}**: **held**, nothing was synced" in details
            assert f"{number} run{'s' * (number > 1)} in a row: No installed plugin contributes" in details
        assert (held.carried.totals.runs, held.carried.totals.rows) == (2, 0)
        async with fleet.process("new@host:2", FakeProvider("acme", cycle=run_cycle)):
            run = await runs.next()
            back = await run.result()
            [signal] = (await lab.state(run)).signals
    assert (back.result.status, back.result.rows) == (CycleStatus.DRAINED, 3)
    assert isinstance(signal, ProviderReturned)
    assert (signal.away.how, signal.away.since) == (OutageKind.HELD, held.carried.held_since)
    assert (back.carried.consecutive_held_runs, back.carried.held_since) == (0, None)
    assert back.carried.last_return is not None
    assert back.carried.last_return.away == signal.away


@pytest.fixture
def new_rows(idle_lab: SyncLab) -> Callable[..., object]:
    """A function that writes a node with this key."""

    async def write(graph: Graph, key: str) -> None:
        connection = await asyncpg.connect(idle_lab.services.settings.write_dsn.get_secret_value())
        await connection.execute(
            f"INSERT INTO {graph.schema_name}.write_nodes (id, concept) VALUES ($1, 'a node')", key
        )
        await connection.close()

    return write


@pytest.mark.long("test_a_graph_in_fallback_returns_by_itself_and_both_edges_are_told")
async def test_a_failed_cycle_is_no_return(fleet: Fleet) -> None:
    """Nothing of a failed run is carried, so that the next one would tell of the same return again."""
    results = [sync_result(error="column gone"), sync_result()]

    async def next_result(context: SyncContext) -> SyncResult:
        return results.pop(0)

    lab = fleet.lab
    graph = await fleet.graph("hold", schedule=SELDOM)
    runs = await scheduled(lab, graph)
    async with fleet.process("bare@host:1"):
        await (await runs.next()).result()
        async with fleet.process("new@host:2", FakeProvider("acme", cycle=next_result)):
            failed, back = await runs.next(), None
            assert (await lab.failure(failed)).type == "CycleFailed"
            assert (await lab.state(failed)).signals == ()
            back = await runs.next()
            await back.result()
            assert [type(signal) for signal in (await lab.state(back)).signals] == [ProviderReturned]


async def test_a_return_that_cannot_be_signalled_costs_no_second_cycle(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(name: str, payload: Message) -> None:
        if name == names.PROVIDER_RETURNED:
            raise RPCError("the server is away", RPCStatusCode.UNAVAILABLE, b"")
        await signal_run(name, payload)

    monkeypatch.setattr("activities.run.signal_run", away)
    results = [sync_result(rows=3), sync_result()]

    async def next_result(context: SyncContext) -> SyncResult:
        return results.pop(0)

    graph = await fleet.graph("hold", schedule=SELDOM)
    runs = await scheduled(fleet.lab, graph)
    async with fleet.process("bare@host:1"):
        await (await runs.next()).result()
        async with fleet.process("new@host:2", FakeProvider("acme", cycle=next_result)):
            with capture_logs() as logs:
                back = await (await runs.next()).result()
    assert (back.result.rows, len(results)) == (3, 1)
    assert back.carried.last_return is not None  # which is what the next run knows of it
    assert [
        line["log_level"] for line in logs if line["event"] == "return of the provider not signalled"
    ] == ["warning"]
