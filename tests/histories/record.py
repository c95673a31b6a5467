"""Record histories of real runs, for the replay test: `python tests/histories/record.py`.

Run it once per release, from the released code: a history recorded from a branch proves nothing about the
runs that are open while that branch is deployed. What is recorded already is never overwritten.
"""

import asyncio
import json
import re
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path

from pydantic import SecretStr
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Worker

ROOT = Path(__file__).parents[2]
# A script sees its own folder first; the application is the checkout's.
sys.path.insert(0, str(ROOT))

from activities.operations import OperationActivities  # noqa: E402
from activities.schedules import ScheduleActivities  # noqa: E402
from activities.sync import SyncActivities  # noqa: E402
from syncline import names  # noqa: E402
from syncline.control.graphs import Graph  # noqa: E402
from syncline.control.services import Services  # noqa: E402
from syncline.control.workers import register_worker  # noqa: E402
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer  # noqa: E402
from syncline.errors import StoreUnavailable  # noqa: E402
from syncline.messages.sync import CycleProgress, SyncResult, TableProgress  # noqa: E402
from syncline.provider import SyncContext  # noqa: E402
from syncline.registry import Registry  # noqa: E402
from syncline.settings import Settings  # noqa: E402
from syncline.temporal.schedules.graph import ensure_schedule  # noqa: E402
from syncline.testing.lab import Run, SyncLab, eventually  # noqa: E402
from syncline.testing.providers import FakeProvider, sync_result  # noqa: E402
from syncline.testing.temporal import start_temporal  # noqa: E402
from worker import (  # noqa: E402
    create_operations_worker,
    create_provider_worker,
    create_schedules_worker,
    create_worker,
)

Scenario = Callable[[SyncLab], Awaitable[Run]]

DAILY = {"every_seconds": 86_400}
HOLD = {"sync": {"provider": "acme", "on_missing": "hold"}}


async def provider_answered(lab: SyncLab) -> Run:
    """A provider moved rows."""

    async def rows(context: SyncContext) -> SyncResult:
        return sync_result(rows=3)

    return await lab.start(await lab.add_graph(FakeProvider(cycle=rows)))


async def fallback(lab: SyncLab) -> Run:
    """No plugin contributes the provider: signalled, and synced by the built-in engine."""
    return await lab.start(await lab.add_graph("acme-sync", prepare=True))


async def no_graph_named(lab: SyncLab) -> Run:
    """The default graph."""
    await lab.add_graph(is_default=True, prepare=True)
    return await lab.start(None)


async def scheduled_fallback_again(lab: SyncLab) -> Run:
    """The second run of a Schedule: it carries the state of the first."""
    graph = await lab.add_graph("acme-sync", prepare=True, schedule=DAILY)
    await (await scheduled(lab, graph)).result()
    return await scheduled(lab, graph)


async def routed_provider_answered(lab: SyncLab) -> Run:
    """A plugin moved rows, on its own task queue."""
    lab.services.registry.register("sync", FakeProvider("acme"), "acme 1.0", routed=True)
    return await closed(await lab.start(await lab.add_graph("acme")), polling(lab))


async def held(lab: SyncLab) -> Run:
    """No worker has the plugin, and the graph waits for it."""
    return await lab.start(await lab.add_graph("acme", composition=HOLD))


async def provider_returned(lab: SyncLab) -> Run:
    """The run of a Schedule that found the plugin back, after one that was held."""
    graph = await lab.add_graph("acme", composition=HOLD, schedule=DAILY)
    await (await scheduled(lab, graph)).result()
    lab.services.registry.register("sync", FakeProvider("acme"), "acme 1.0", routed=True)
    return await closed(await scheduled(lab, graph), polling(lab))


async def unanswered_then_fallback(lab: SyncLab) -> Run:
    """Nobody took the plugin's cycle: the worker that had it was dead, and nobody knew yet."""
    graph = await lab.add_graph("acme", prepare=True)
    registry = Registry()
    registry.register("sync", FakeProvider("acme"), "acme 1.0", routed=True)
    settings = lab.services.settings.model_copy(
        update={"qdrant_path": lab.services.settings.qdrant_path.with_name("dead")}
    )
    async with (
        Services.open(settings, registry=registry) as dead,
        register_worker(dead, identity="dead@host:1"),
    ):

        async def known() -> bool:
            return len(await lab.services.workers.list()) == 1

        await eventually(known)
        run = await lab.start(graph)

        async def given_up() -> bool:
            return any(
                event.HasField("activity_task_timed_out_event_attributes")
                for event in (await run.fetch_history()).events
            )

        await eventually(given_up)
    return run


async def shadow_followed(lab: SyncLab) -> Run:
    """A run whose graph has a shadow: it starts the shadow's."""
    return await shadowed(lab, name="shadow-followed")


async def shadow_synced(lab: SyncLab) -> Run:
    """The shadow's run, which that one has started."""
    run = await shadowed(lab, name="shadow-synced")
    await run.result()
    return lab.client.get_workflow_handle(names.shadow_workflow_id("shadow-synced"))


async def table_failed(lab: SyncLab) -> Run:
    """A table failed, and so did the run."""

    async def broken(context: SyncContext) -> SyncResult:
        return sync_result(rows=2, error="column gone")

    return await lab.start(await lab.add_graph(FakeProvider(cycle=broken)))


async def scheduled_after_a_failure(lab: SyncLab) -> Run:
    """The run of a Schedule after one that failed: it goes on from what that one's failure says."""
    results = [sync_result(rows=2, error="column gone"), sync_result(rows=3)]

    async def next_result(context: SyncContext) -> SyncResult:
        return results.pop(0)

    graph = await lab.add_graph(FakeProvider(cycle=next_result), schedule=DAILY)
    with suppress(WorkflowFailureError):
        await (await scheduled(lab, graph)).result()
    return await scheduled(lab, graph)


async def composition_invalid(lab: SyncLab) -> Run:
    """The provider refuses an option."""
    composition = {"sync": {"provider": "fake", "options": {"dept": 1}}}
    return await lab.start(await lab.add_graph(FakeProvider(), composition=composition))


async def input_refused(lab: SyncLab) -> Run:
    """An operator mistyped a key."""
    return await lab.client.start_workflow(
        names.SYNC_GRAPH, {"grpah": "world"}, id=lab.unique("run"), task_queue=lab.task_queue
    )


async def retried_with_progress(lab: SyncLab) -> Run:
    """A store was away for one attempt; the second took long enough to show progress."""

    async def slow(context: SyncContext) -> SyncResult:
        if context.run.attempt == 1:
            raise StoreUnavailable("graph", "it restarts")
        for rows in (10, 20):
            context.heartbeat(
                CycleProgress(phase="capture", tables=(TableProgress(table="nodes", rows=rows),))
            )
            await asyncio.sleep(1)
        return sync_result(rows=20)

    return await lab.start(await lab.add_graph(FakeProvider(cycle=slow)))


async def cancelled(lab: SyncLab) -> Run:
    """An operator cancelled a run in mid-cycle."""
    entered = asyncio.Event()

    async def hang(context: SyncContext) -> SyncResult:
        entered.set()
        await asyncio.Event().wait()
        return sync_result()

    run = await lab.start(await lab.add_graph(FakeProvider(cycle=hang)))
    await entered.wait()
    await run.cancel()
    return run


async def graph_verified(lab: SyncLab) -> Run:
    """Somebody asked whether the stores of a graph say the same, and to have it mended."""
    graph = await lab.add_graph(prepare=True)
    return await asked(lab, names.VERIFY_GRAPH, graph, repair=True, who="ada", why="recorded")


async def failures_retried(lab: SyncLab) -> Run:
    """Somebody had refused rows retried."""
    graph = await lab.add_graph(prepare=True)
    return await asked(lab, names.RETRY_FAILURES, graph, everything=True, who="ada", why="recorded")


async def schedules_reconciled(lab: SyncLab) -> Run:
    """A graph got its Schedule, and another was refused one."""
    await lab.add_graph(schedule=DAILY)
    await lab.add_graph(schedule={"cron": "99 * * * *"})
    return await lab.client.start_workflow(
        names.RECONCILE_SCHEDULES, id=lab.unique("run"), task_queue=lab.task_queue
    )


async def shadowed(lab: SyncLab, *, name: str) -> Run:
    """Start a run of a graph that has a shadow."""
    lab.services.registry.register("sync", FakeProvider("acme"), "acme 1.0")
    composition = {"sync": {"provider": "fake"}, "shadow": {"provider": "acme"}}
    return await lab.start(
        await lab.add_graph(FakeProvider(), slug=name, composition=composition, prepare=True)
    )


async def scheduled(lab: SyncLab, graph: Graph) -> Run:
    """Start the next run of the graph's Schedule."""
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    schedule = lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug))
    before = len((await schedule.describe()).info.recent_actions)
    await schedule.trigger()

    async def started() -> bool:
        return len((await schedule.describe()).info.recent_actions) > before

    await eventually(started)
    latest = (await schedule.describe()).info.recent_actions[-1].action
    return lab.client.get_workflow_handle(latest.workflow_id, run_id=latest.first_execution_run_id)


def polling(lab: SyncLab) -> Worker:
    """A worker for the cycles of plugin `acme`."""
    activities = SyncActivities(lab.services, beat_seconds=0.2)
    return create_provider_worker(lab.client, activities, lab.services.settings, "acme")


async def closed(run: Run, worker: Worker) -> Run:
    """Return the run once this worker has helped it to its end."""
    async with worker:
        await run.result()
    return run


async def asked(lab: SyncLab, workflow: str, graph: Graph, **fields: object) -> Run:
    """Start what an operator asks for."""
    return await lab.client.start_workflow(
        workflow, {"graph": graph.slug, **fields}, id=lab.unique("run"), task_queue=lab.task_queue
    )


SCENARIOS: tuple[Scenario, ...] = (
    provider_answered,
    fallback,
    no_graph_named,
    scheduled_fallback_again,
    routed_provider_answered,
    held,
    provider_returned,
    unanswered_then_fallback,
    shadow_followed,
    shadow_synced,
    table_failed,
    scheduled_after_a_failure,
    composition_invalid,
    input_refused,
    retried_with_progress,
    cancelled,
    graph_verified,
    failures_retried,
    schedules_reconciled,
)


@asynccontextmanager
async def make_worker(client: Client, services: Services) -> AsyncIterator[Worker]:
    """Run the workers as deployed, with signs of life that a recording need not wait for."""
    activities = SyncActivities(services, beat_seconds=0.2, signal_seconds=0.5, answer_seconds=0.5)
    async with (
        create_worker(client, activities, services.settings) as worker,
        create_schedules_worker(client, ScheduleActivities(services), services.settings),
    ):
        yield worker


async def record(scenario: Scenario, client: Client, postgres: EmbeddedPostgres, folder: Path) -> None:
    """Play one scenario in a laboratory of its own and write its history."""
    name = scenario.__name__
    numbers = count(1)
    for database in ("write", "graph"):
        postgres.ensure_database(f"{name}_{database}")
    settings = Settings(
        write_dsn=SecretStr(postgres.dsn(f"{name}_write")),
        graph_dsn=SecretStr(postgres.dsn(f"{name}_graph")),
        qdrant_path=postgres.data_dir.parent / name,
        task_queue=name,
    )
    async with Services.open(settings) as services:
        await services.prepare_control()
        lab = SyncLab(
            client=client,
            services=services,
            make_worker=make_worker,
            unique=lambda word: f"{word}-{name.replace('_', '-')}-{next(numbers)}",
        )
        operations = create_operations_worker(client, OperationActivities(services), settings)
        async with lab.worker(), operations:
            run = await scenario(lab)
            try:
                await run.result()
            except WorkflowFailureError as error:
                sys.stdout.write(f"{name}: failed, as it should: {error.cause}\n")
            history = await run.fetch_history()
    text = json.dumps(_without_traces_of_here(history.to_json_dict()), indent=1)
    (folder / f"{name}.json").write_text(text + "\n")


_HERE = re.compile(rf"\d+@{re.escape(socket.gethostname())}")


def _without_traces_of_here(value: object) -> object:
    """Return the history without paths and host names, which no replay needs."""
    if isinstance(value, str):
        return _HERE.sub("recorder", value)
    if isinstance(value, dict):
        return {key: _without_traces_of_here(item) for key, item in value.items() if key != "stackTrace"}
    if isinstance(value, list):
        return [_without_traces_of_here(item) for item in value]
    return value


async def main() -> int:
    """Record every scenario that the release's folder lacks."""
    folder = Path(__file__).parent / version("syncline")
    folder.mkdir(exist_ok=True)
    lacking = [scenario for scenario in SCENARIOS if not (folder / f"{scenario.__name__}.json").exists()]
    with tempfile.TemporaryDirectory(prefix="syncline-record-") as temporary:
        server = PostgresServer(Path(temporary) / "data")
        try:
            postgres = server.start()
            async with start_temporal() as environment:
                for scenario in lacking:
                    await record(scenario, environment.client, postgres, folder)
        finally:
            server.stop()
    sys.stdout.write(f"{len(lacking)} recorded, {len(SCENARIOS) - len(lacking)} there already: {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
