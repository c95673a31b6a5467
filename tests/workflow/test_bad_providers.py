"""The zoo: each bad provider is contained and told of in the words of docs/containment.md; others take no harm."""

import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest
import pytest_asyncio
import structlog
from pydantic import JsonValue, SecretStr
from temporalio.client import Client
from temporalio.worker import Worker

from activities.isolation.thread import ProviderThread
from activities.isolation.watchdog import provider_threads
from activities.sync import SyncActivities
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.control.workers import register_worker
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.errors import SettingsInvalid
from syncline.provider import NullMeter
from syncline.registry import Registry
from syncline.settings import Settings
from syncline.testing.lab import Run, SyncLab, eventually
from tests.workflow.zoo.installed import install, kinds
from worker import create_provider_worker, create_worker

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "containment.md").read_text(encoding="utf-8")
BLOCKED = 0.8
SCHEDULED = 1  # state of a pending activity

Logs = list[MutableMapping[str, object]]


class Counts(NullMeter):
    """A meter that remembers what was counted of providers' troubles."""

    def __init__(self) -> None:
        self.troubles: Counter[tuple[str, str]] = Counter()

    def count(self, name: str, value: int, **attributes: str) -> None:
        if name == "provider_troubles":
            self.troubles[attributes["provider"], attributes["trouble"]] += value


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """A worker process in all but the process: its main worker, and a room for each provider of the zoo."""

    lab: SyncLab
    meter: Counts
    plugin: ModuleType
    engine: Graph
    """Served by the built-in engine, in the main loop."""
    good: Graph
    """Served by a good provider, in a room."""
    graphs: dict[str, Graph] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    """How often each of those two was synced."""

    async def others_sync(self) -> None:
        """Return when both have been synced from beginning to end, whatever else goes on."""
        before = self.others.copy()

        async def synced() -> bool:
            return all(
                self.others[graph.slug] >= before[graph.slug] + 2 for graph in (self.engine, self.good)
            )

        await eventually(synced)

    async def graph(self, provider_id: str) -> Graph:
        if provider_id not in self.graphs:
            self.graphs[provider_id] = await self.lab.add_graph(provider_id)
        return self.graphs[provider_id]

    async def start(self, provider_id: str, **fields: object) -> Run:
        return await self.lab.start(await self.graph(provider_id), **fields)

    async def told(self, provider_id: str, **fields: object) -> tuple[str, str]:
        """Return type and message of the error with which a run of the provider's graph fails."""
        failure = await self.lab.failure(await self.start(provider_id, **fields))
        return failure.type or "", self.plain(failure.message)

    def plain(self, message: str) -> str:
        """Return the message as the page has it: the graph is `world`, its line 41."""
        for graph in self.graphs.values():
            message = message.replace(f"'{graph.slug}'", "'world'")
        return re.sub(r"(\.py):\d+", r"\1:41", message)


def in_the_page(message: str) -> bool:
    """A row of the page has this message, where `…` stands for anything; the message names the distribution.

    What is only logged has the distribution in a field of its own.
    """
    named = message.startswith("provider") or re.search(r"'zoo(-copy)? 1\.0'", message)
    shown = re.findall(r"^\| [^|\n]+ \| ([^|\n]+) \|", PAGE, re.MULTILINE)
    patterns = (".*".join(re.escape(words.strip()) for words in cell.split("…")) for cell in shown)
    return bool(named) and any(re.search(pattern, message, re.DOTALL) for pattern in patterns)


@pytest.fixture(scope="module")
def zoo_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The distributions `zoo 1.0` and `zoo-copy 1.0`, installed for this module."""
    folder = tmp_path_factory.mktemp("zoo")
    install(folder, "zoo", **{kind.lower(): f"zoo_plugin:{kind}" for kind in kinds()})
    install(folder, "zoo-copy", twin="zoo_plugin:Good", torn="zoo_copy_plugin:Torn")
    sys.path.insert(0, str(folder))
    yield __import__("zoo_plugin")
    sys.path.remove(str(folder))
    del sys.modules["zoo_plugin"]


def serve(room: ProviderThread, client: Client, services: Services) -> Worker:
    """Serve as the worker does, with less patience."""
    activities = SyncActivities(
        services, beat_seconds=0.2, grace_seconds=0.3, patience_seconds=0.3, under_way=room.under_way
    )
    return create_provider_worker(client, activities, services.settings, room.provider.id)


def main_worker(client: Client, services: Services) -> Worker:
    return create_worker(client, SyncActivities(services, beat_seconds=0.2), services.settings)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def zoo(
    zoo_plugin: ModuleType,
    temporal_client: Client,
    postgres_server: EmbeddedPostgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Zoo]:
    for side in ("write", "graph"):
        postgres_server.ensure_database(f"zoo_{side}")
    settings = Settings(
        write_dsn=SecretStr(postgres_server.dsn("zoo_write")),
        graph_dsn=SecretStr(postgres_server.dsn("zoo_graph")),
        qdrant_path=tmp_path_factory.mktemp("zoo") / "qdrant",
        task_queue="zoo",
        graceful_shutdown_seconds=0.5,
        blocked_seconds=BLOCKED,
        pool_size=4,
        max_concurrent_cycles=4,
    )
    registry = Registry(initialize_seconds=0.3, close_seconds=1)
    registry.load()
    meter, numbers = Counts(), count(1)
    async with Services.open(settings, registry=registry, meter=meter) as services:
        await services.prepare_control()
        lab = SyncLab(
            client=temporal_client,
            services=services,
            make_worker=main_worker,
            unique=lambda word: f"zoo-{word}-{next(numbers)}",
        )
        engine = await lab.add_graph(prepare=True)
        good = await lab.add_graph("zoo-good")
        async with lab.worker(), provider_threads(temporal_client, services, serve=serve):
            yield Zoo(lab=lab, meter=meter, plugin=zoo_plugin, engine=engine, good=good)
            zoo_plugin.released.set()
            zoo_plugin.kept.clear()


@pytest.fixture
def logs() -> Iterator[Logs]:
    """What all threads log."""
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logged:
        yield logged


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def others_take_no_harm(zoo: Zoo) -> AsyncIterator[None]:
    """Beside each test, a graph of the engine and one of a good provider sync, each run in time."""
    zoo.plugin.released.clear()
    done, longest = asyncio.Event(), 0.0

    async def keep_syncing(graph: Graph) -> None:
        nonlocal longest
        while not done.is_set():
            began = time.monotonic()
            result = await zoo.lab.run(graph)
            assert result.result.drained
            longest = max(longest, time.monotonic() - began)
            zoo.others[graph.slug] += 1
            await asyncio.sleep(0.3)

    syncing = [asyncio.create_task(keep_syncing(graph)) for graph in (zoo.engine, zoo.good)]
    yield
    zoo.plugin.released.set()
    done.set()
    await asyncio.gather(*syncing)
    assert longest < 10


def last_failure(described: object) -> str:
    """Return why the pending activity's last attempt failed."""
    pending = described.raw_description.pending_activities  # type: ignore[attr-defined]
    return pending[0].last_failure.message if pending else ""


async def failed_with(run: Run) -> str:
    """Wait until an attempt of the run's activity has failed, and return why."""

    async def failed() -> bool:
        return bool(last_failure(await run.describe()))

    await eventually(failed)
    return last_failure(await run.describe())


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    ("provider_id", "kind", "trouble"),
    [
        ("zoo-wrong", "ProviderInvalid", "malformed"),
        ("zoo-malformed", "ProviderInvalid", "malformed"),
        ("zoo-negative", "ProviderInvalid", "malformed"),
        ("zoo-endless", "ProviderMisbehaved", "overran"),
        ("zoo-leaky", "ProviderMisbehaved", "left_open"),
        ("zoo-faulty", "ProviderFaulty", "faulty"),
    ],
)
async def test_a_bad_cycle_fails_its_run_for_a_reason_that_names_the_distribution(
    zoo: Zoo, logs: Logs, provider_id: str, kind: str, trouble: str
) -> None:
    told = await zoo.told(provider_id, time_budget_seconds=0.2)
    assert told[0] == kind
    assert in_the_page(told[1]), told[1]
    assert zoo.meter.troubles[provider_id, trouble] == 1
    errors = [line for line in logs if line["event"] == "activity failed"]
    assert [zoo.plain(str(line["error"])) for line in errors] == [told[1]]


async def test_options_that_cannot_be_validated_fail_the_run_and_name_graph_key_and_distribution(
    zoo: Zoo,
) -> None:
    entry: dict[str, JsonValue] = {"provider": "zoo-careless", "options": {"token": "hunter2"}}
    zoo.graphs["zoo-careless"] = await zoo.lab.add_graph("zoo-careless", composition={"sync": entry})
    kind, told = await zoo.told("zoo-careless")
    assert kind == "CompositionInvalid"
    assert in_the_page(told), told


@pytest.mark.long("test_a_bad_cycle_fails_its_run_for_a_reason_that_names_the_distribution")
async def test_connections_that_a_cycle_left_open_are_closed(zoo: Zoo) -> None:
    for _ in range(5):  # the pools of its room have 4 each
        await zoo.told("zoo-leaky")

    async def none_in_transaction() -> bool:
        async with zoo.lab.services.store("graph", None).driver() as driver:
            found: int = await driver.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'zoo_%'"
                " AND state = 'idle in transaction'"
            )
            return found == 0

    await eventually(none_in_transaction)


async def test_a_failing_initialize_is_tried_again_later_and_is_never_a_fallback(
    zoo: Zoo, logs: Logs
) -> None:
    run = await zoo.start("zoo-unready")
    told = await failed_with(run)
    assert in_the_page(zoo.plain(told)), told
    second = await zoo.start("zoo-unready")
    again = await failed_with(second)
    assert again.startswith(
        "Provider 'zoo-unready' of distribution 'zoo 1.0' is not ready: initialize raised"
    )
    assert zoo.meter.troubles["zoo-unready", "not_ready"] >= 2
    attempts = [line["attempt"] for line in logs if line["event"] == "provider did not initialize"]
    assert attempts == list(range(1, len(attempts) + 1))
    state = await zoo.lab.state(run)
    assert (state.provider.provider_id, state.provider.fallback) == ("zoo-unready", None)
    for open_run in (run, second):
        await open_run.terminate()


async def test_an_initialize_that_hangs_is_given_up(zoo: Zoo) -> None:
    run = await zoo.start("zoo-hanging")
    told = await failed_with(run)
    assert in_the_page(zoo.plain(told)), told
    await run.terminate()


@pytest.mark.long("test_a_bad_cycle_fails_its_run_for_a_reason_that_names_the_distribution")
async def test_an_exception_storm_never_ends_the_worker(zoo: Zoo, logs: Logs) -> None:
    for name in ("SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"):
        kind, told = await zoo.told("zoo-storm")
        assert kind == "ProviderMisbehaved"
        assert f"raised {name} in a cycle" in told
        assert in_the_page(told.replace(name, "SystemExit")), told
    # An exception is retried; then comes a task that the cycle has started, which raises SystemExit.
    result = await zoo.lab.run(await zoo.graph("zoo-storm"))
    assert result.result.drained
    [told_of] = [line for line in logs if line["event"] == "a provider's task tried to end the process"]
    assert (told_of["provider"], told_of["distribution"], told_of["error"]) == (
        "zoo-storm",
        "zoo 1.0",
        "SystemExit(3)",
    )
    assert (await zoo.lab.run(await zoo.graph("zoo-storm"))).result.drained


@pytest.mark.long("test_a_bad_cycle_fails_its_run_for_a_reason_that_names_the_distribution")
async def test_a_cycle_that_ignores_its_cancellation_is_left_behind(zoo: Zoo) -> None:
    run = await zoo.start("zoo-stubborn")
    assert await asyncio.to_thread(zoo.plugin.begun.wait, 30)
    await run.cancel()
    failure = await zoo.lab.failure(run)
    assert failure.type == "ProviderMisbehaved"
    assert in_the_page(zoo.plain(failure.message)), failure.message
    assert zoo.meter.troubles["zoo-stubborn", "abandoned"] == 1


async def test_a_room_whose_tasks_its_provider_has_cancelled_begins_anew(
    zoo: Zoo, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.isolation.thread._PAUSE", 0.2)
    run = await zoo.start("zoo-sweeping")
    async with asyncio.timeout(60):
        assert (await run.result()).result.drained
    [told] = [line for line in logs if line["event"] == "provider thread ended; restarting"]
    assert (told["provider"], told["distribution"]) == ("zoo-sweeping", "zoo 1.0")
    assert in_the_page(f"{told['event']}: {told['error']}")
    assert zoo.meter.troubles["zoo-sweeping", "escaped"] >= 1
    assert "provider blocks its event loop" not in [line["event"] for line in logs]


@pytest.mark.long(after=1)
@pytest.mark.parametrize("provider_id", ["zoo-sleeper", "zoo-spinner", "zoo-ponderous"])
async def test_a_provider_that_blocks_its_event_loop_is_named_with_its_line_and_its_cycles_fail(
    zoo: Zoo, logs: Logs, provider_id: str
) -> None:
    run = await zoo.start(provider_id)
    told = await failed_with(run)
    assert in_the_page(zoo.plain(told)), told
    [error] = [line for line in logs if line["event"] == "provider blocks its event loop"]
    assert (error["provider"], error["distribution"]) == (provider_id, "zoo 1.0")
    assert error["graphs"] == [(await zoo.graph(provider_id)).slug]
    assert "zoo_plugin.py" in str(error["stack"])
    assert zoo.meter.troubles[provider_id, "blocked"] == 1

    # Meanwhile nothing more is given to it: that would only wait for heartbeats that do not come.
    later = await zoo.lab.start(await zoo.lab.add_graph(provider_id, slug=f"{provider_id}-later"))
    await zoo.others_sync()
    await asyncio.sleep(1)
    for waiting in (run, later):
        [pending] = (await waiting.describe()).raw_description.pending_activities
        assert pending.state == SCHEDULED, pending

    zoo.plugin.released.set()
    for waiting in (run, later):
        assert (await waiting.result()).result.drained

    async def told_again() -> bool:
        return "provider thread runs again" in [line["event"] for line in logs]

    await eventually(told_again)


@asynccontextmanager
async def sleeping(zoo: Zoo, client: Client, task_queue: str) -> AsyncIterator[SyncLab]:
    """Yield a laboratory of its own, whose one provider blocks its event loop."""
    settings = zoo.lab.services.settings.model_copy(update={"task_queue": task_queue, "blocked_seconds": 0.3})
    registry = Registry()
    registry.register("sync", zoo.plugin.Sleeper(), "zoo 1.0", routed=True)
    async with Services.open(settings, registry=registry) as services:
        yield SyncLab(client=client, services=services, make_worker=main_worker, unique=zoo.lab.unique)


@pytest.mark.long("test_a_bad_cycle_fails_its_run_for_a_reason_that_names_the_distribution")
async def test_a_blocked_room_does_not_hold_up_the_end_of_the_worker(
    zoo: Zoo, logs: Logs, temporal_client: Client
) -> None:
    async with sleeping(zoo, temporal_client, "zoo-left") as lab:
        others = lab.services
        async with lab.worker():
            async with provider_threads(temporal_client, others, serve=serve):
                run = await lab.start(await lab.add_graph("zoo-sleeper"))
                await failed_with(run)
                began = time.monotonic()
            assert time.monotonic() - began < 20
            await run.terminate()
    [left] = [line for line in logs if line["event"] == "provider thread left behind"]
    assert (left["provider"], left["distribution"]) == ("zoo-sleeper", "zoo 1.0")


@pytest.mark.long("test_a_bad_cycle_fails_its_run_for_a_reason_that_names_the_distribution")
async def test_a_provider_that_is_blocked_for_good_counts_as_missing_until_its_room_runs_again(
    zoo: Zoo, logs: Logs, temporal_client: Client
) -> None:
    async with sleeping(zoo, temporal_client, "zoo-stuck") as lab:
        others = lab.services

        async def known() -> bool:
            [worker] = [found for found in await others.workers.list() if found.task_queue == "zoo-stuck"]
            return [found.id for found in worker.providers] == ["zoo-sleeper"]

        async def unknown() -> bool:
            return not await known()

        async with (
            lab.worker(),
            provider_threads(temporal_client, others, serve=serve),
            register_worker(others, identity="stuck", every_seconds=0.1),
        ):
            graph = await lab.add_graph("zoo-sleeper", prepare=True)
            run = await lab.start(await lab.add_graph("zoo-sleeper"))
            await failed_with(run)
            await eventually(unknown)
            stands_in = await lab.run(graph)
            assert stands_in.fallback is not None
            why = "Provider 'zoo-sleeper' of zoo 1.0 blocks its event loop, and no other worker has it."
            assert stands_in.fallback.detail == why
            strict = {"sync": {"provider": "zoo-sleeper", "on_missing": "fail"}}
            missing = await lab.failure(await lab.start(await lab.add_graph(composition=strict)))
            assert missing.type == "ProviderMissing"
            assert f"with on_missing 'fail'. {why} Install the plugin, or restart" in missing.message
            zoo.plugin.released.set()
            await eventually(known)
            assert (await lab.run(graph)).provider_id == "zoo-sleeper"
            await run.result()


async def test_a_provider_that_cannot_be_closed_is_told_of_and_the_others_are_closed(
    zoo: Zoo, logs: Logs, temporal_client: Client
) -> None:
    settings = zoo.lab.services.settings.model_copy(update={"task_queue": "zoo-closing"})
    registry = Registry()
    for kind in (zoo.plugin.Clinging, zoo.plugin.Good):
        registry.register("sync", kind(), "zoo 1.0", routed=True)
    async with Services.open(settings, registry=registry) as services:
        lab = SyncLab(
            client=temporal_client, services=services, make_worker=main_worker, unique=zoo.lab.unique
        )
        async with lab.worker(), provider_threads(temporal_client, services, serve=serve):
            await lab.run(await lab.add_graph("zoo-clinging"))
    [told] = [line for line in logs if line["event"] == "provider did not close"]
    assert (told["provider"], told["distribution"]) == ("zoo-clinging", "zoo 1.0")
    assert in_the_page(zoo.plain(f"provider did not close: {told['problem']}"))


def test_what_registration_refuses_is_told_in_the_words_of_the_page(zoo: Zoo) -> None:
    problems = [str(problem) for problem in zoo.lab.services.registry.problems]
    assert len(problems) == 3
    assert all(in_the_page(problem) for problem in problems), problems


async def test_a_room_that_cannot_open_keeps_the_worker_from_starting(
    zoo: Zoo, temporal_client: Client
) -> None:
    def refused(room: ProviderThread, client: Client, services: Services) -> Worker:
        raise SettingsInvalid("no such queue")

    with pytest.raises(SettingsInvalid, match="no such queue"):
        async with provider_threads(temporal_client, zoo.lab.services, serve=refused):
            pass
