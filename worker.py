"""The worker: settings -> services -> Temporal workers. Composition only; `syncline worker` runs it."""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta

from temporalio.client import Client, Plugin
from temporalio.runtime import Runtime
from temporalio.worker import Worker

import workflows
from activities.errors import not_logged_yet
from activities.isolation.thread import ProviderThread, run, slots_of_this_loop
from activities.loads import LoadActivities
from activities.metrics import TemporalMeter, record_providers
from activities.operations import FleetActivities, OperationActivities
from activities.probes.thread import probing
from activities.probes.watched import Watched
from activities.process import (
    exit_status,
    logged_in,
    registered_while_polling,
    serve_until,
    stop_on_signal,
    tracing_plugins,
)
from activities.schedules import ScheduleActivities
from activities.slots import CycleSlots, RateLimitWatch, tuner_of
from activities.sync import SyncActivities
from activities.visibility import VisibilityActivities
from providers import BUILTIN
from syncline import names
from syncline.capture.listen.listener import Listening
from syncline.control.services import Services
from syncline.logs import configure_logging, get_log
from syncline.misnamed_settings import warn_of_misnamed
from syncline.process_exit import end_process
from syncline.registry import Registry
from syncline.settings import Settings, load_settings
from syncline.temporal.client import connect, require_search_attributes
from syncline.temporal.schedules.reconcile import ensure_reconciler
from syncline.temporal.schedules.trigger import ScheduleTrigger
from syncline.temporal.worker_options import (
    compile_once,
    deployment_version,
    open_runtime,
    worker_identity,
    workflow_runner,
)
from workflows.operations import OPERATIONS, DescribeFleet, DescribeGraphs, DescribeHealth
from workflows.reconcile import ReconcileSchedules
from workflows.sync_graph import SyncGraph
from workflows.visibility import WaitVisible

__all__ = [
    "create_loads_worker",
    "create_operations_worker",
    "create_provider_worker",
    "create_schedules_worker",
    "create_waits_worker",
    "create_worker",
    "listen",
    "main",
    "run_worker",
    "serve_provider_thread",
    "serving",
]

_OPERATIONS_AT_ONCE = 4
_SCHEDULES_AT_ONCE = 16
"""Activities that mostly wait for Temporal, which needs seconds for each under load."""
_WORKFLOW_TASKS_AT_ONCE = 4
"""Each is a few milliseconds of Python: more at once only bring each closer to the deadlock limit of 2 s."""
_WAITS_AT_ONCE = 2_000
"""Waits for what is visible: each is a coroutine that does nothing."""
_STICKY = timedelta(seconds=2)
_HEARTBEATS = timedelta(seconds=1)
"""Heartbeat throttling. By default the SDK sends one every 16 s at most, which delays progress and
cancellation by as much. A cycle heartbeats every 5 s, and every second only while an operator follows it."""


def main() -> int:
    """Run the worker; return exit status 2 for a configuration error, 1 if Temporal is unavailable."""
    return exit_status(_main)


def _main() -> None:
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    warn_of_misnamed(os.environ)
    if settings.workflow_sandbox:
        compile_once(workflows)
    run(run_worker(settings))


async def run_worker(settings: Settings) -> None:
    """Serve the task queues until SIGTERM or SIGINT, then let running cycles finish.

    A second signal ends the process at once; the next attempt continues from the last committed batch.
    """
    logging.getLogger("temporalio.activity").addFilter(not_logged_yet)
    runtime = open_runtime(settings.metrics_address)
    with tracing_plugins(settings.traces_url) as plugins:
        await _serve(settings, runtime, plugins)


async def _serve(settings: Settings, runtime: Runtime, plugins: Sequence[Plugin]) -> None:
    client = await connect(runtime=runtime, identity=worker_identity(), plugins=plugins)
    await require_search_attributes(client)
    registry = Registry()
    registry.load(BUILTIN, allowed=settings.allowed_plugins)
    meter = TemporalMeter(runtime.metric_meter)
    record_providers(meter, registry)
    stop = stop_on_signal()
    # Outermost, so that the worker can be probed until it has drained.
    async with (
        probing(settings, client, meter) as watched,
        Services.open(settings, registry=registry, meter=meter) as services,
    ):
        watched.services = services
        if await logged_in(services, stop):
            await _serve_until(stop, client, services, watched)


async def _serve_until(stop: asyncio.Event, client: Client, services: Services, watched: Watched) -> None:
    settings = services.settings
    reconciler = await ensure_reconciler(
        client, task_queue=settings.task_queue, every_seconds=settings.reconcile_seconds
    )
    # What is loaded by now stays: full collections, which hold up everything else, need not look through it.
    gc.collect()
    gc.freeze()
    async with (
        serving(client, services, SyncActivities(services), watched=watched),
        listen(client, services) if settings.notify else nullcontext() as watched.listening,
    ):
        watched.serving = True
        await serve_until(stop, services, namespace=client.namespace, reconciler=reconciler)
        watched.draining = True
    get_log().info("worker stopped")


def listen(client: Client, services: Services) -> Listening:
    """Return the listeners of the write-dbs, which trigger the Schedules of graphs on a change."""
    schedule_trigger = ScheduleTrigger(client, task_queue=services.settings.task_queue)
    return Listening(services, schedule_trigger, namespace=client.namespace)


@asynccontextmanager
async def serving(
    client: Client, services: Services, activities: SyncActivities, *, watched: Watched | None = None
) -> AsyncIterator[None]:
    """Run all workers of this process while entered: main, operations, Schedules, waits, routed providers.

    Probes see through `watched` what runs.
    """
    settings = services.settings
    limits = RateLimitWatch(client, settings.task_queue)

    def workers() -> Sequence[Worker]:
        fleet = FleetActivities(services, identity=client.identity)
        return [
            create_worker(client, activities, settings, fleet=fleet, limits=limits),
            create_operations_worker(client, OperationActivities(services), settings),
            create_schedules_worker(client, ScheduleActivities(services), settings),
            create_waits_worker(client, VisibilityActivities(services), settings),
            create_loads_worker(client, LoadActivities(services), settings),
        ]

    async with (
        limits.running(),
        registered_while_polling(
            client, services, workers=workers, serve=serve_provider_thread, watched=watched
        ),
    ):
        yield


def create_worker(
    client: Client,
    activities: SyncActivities,
    settings: Settings,
    *,
    fleet: FleetActivities | None = None,
    limits: RateLimitWatch | None = None,
) -> Worker:
    """Return the worker of the main task queue; it does not poll until it runs.

    Without `fleet`, its fleet and health activities fail. Without `limits`, its cycles may pass by a rate
    limit of the task queue.
    """
    fleet = fleet or FleetActivities(None)
    limits = limits or RateLimitWatch(client, settings.task_queue)
    return Worker(
        client,
        task_queue=settings.task_queue,
        workflows=[
            SyncGraph,
            ReconcileSchedules,
            DescribeFleet,
            DescribeHealth,
            DescribeGraphs,
            WaitVisible,
            *OPERATIONS,
        ],
        activities=[
            activities.resolve_provider,
            activities.sync_cycle,
            fleet.describe_fleet,
            fleet.describe_health,
            fleet.describe_graphs,
        ],
        workflow_runner=workflow_runner(sandbox=settings.workflow_sandbox),
        tuner=tuner_of(
            CycleSlots(settings.max_concurrent_cycles, eager=limits.allows_eager),
            workflow_tasks=_WORKFLOW_TASKS_AT_ONCE,
        ),
        max_heartbeat_throttle_interval=_HEARTBEATS,
        max_cached_workflows=settings.max_cached_workflows,
        # Cached runs of a stopping worker wait this long for it; then any other worker replays them.
        sticky_queue_schedule_to_start_timeout=_STICKY,
        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_seconds),
        **deployment_version(settings),
    )


def create_operations_worker(client: Client, activities: OperationActivities, settings: Settings) -> Worker:
    """Return the worker for the activities of operations.

    It has a separate task queue and slots: a long verification takes no slot from a cycle, and an operator
    does not wait for cycles.
    """
    return _aside(
        client,
        settings,
        names.operations_task_queue(settings.task_queue),
        [
            activities.verify_graph,
            activities.retry_failures,
            activities.discard_failures,
            activities.summarize_failures,
            activities.list_failures,
            activities.list_audit,
            activities.list_graph_audit,
            activities.list_usage,
            activities.summarize_parked,
            activities.list_parked,
            activities.explain_row,
            activities.list_graphs,
            activities.add_graph,
            activities.change_graph,
            activities.promote_shadow,
            activities.list_maps,
            activities.show_map,
            activities.put_map,
            activities.take_over_graph,
            activities.decide_columns,
            activities.drop_collections,
            activities.delete_graph,
            activities.rename_graph,
            activities.plan_embedding,
            activities.describe_embedding,
            activities.change_embedding,
            activities.describe_rebuild,
            activities.change_rebuild,
        ],
        at_once=_OPERATIONS_AT_ONCE,
        polls=2,
    )


def create_schedules_worker(client: Client, activities: ScheduleActivities, settings: Settings) -> Worker:
    """Return the worker for the activities that change Schedules.

    It has a separate task queue and slots: when cycles occupy all of theirs, a new graph still gets its
    Schedule, and an idle graph a longer interval, which frees slots.
    """
    return _aside(
        client,
        settings,
        names.schedules_task_queue(settings.task_queue),
        [activities.reconcile_schedules, activities.set_cadence],
        at_once=_SCHEDULES_AT_ONCE,
        polls=1,
    )


def create_waits_worker(client: Client, activities: VisibilityActivities, settings: Settings) -> Worker:
    """Return the worker for the activities that wait for what is visible, which take no slot from others."""
    return _aside(
        client,
        settings,
        names.waits_task_queue(settings.task_queue),
        [activities.wait_visible],
        at_once=_WAITS_AT_ONCE,
        polls=2,
    )


def create_loads_worker(client: Client, activities: LoadActivities, settings: Settings) -> Worker:
    """Return the worker for lanes of loads. They begin after all cycles, and take no slot from one."""
    return _aside(
        client,
        settings,
        names.loads_task_queue(settings.task_queue),
        [activities.load_ranges],
        # Also of a graph whose cycle another worker runs.
        at_once=settings.load_lanes,
        polls=1,
        heartbeats=_HEARTBEATS,
    )


def _aside(
    client: Client,
    settings: Settings,
    task_queue: str,
    activities: Sequence[Callable[..., object]],
    *,
    at_once: int,
    polls: int,
    heartbeats: timedelta = timedelta(seconds=5),
) -> Worker:
    """Return a worker for activities with a task queue and slots separate from those of cycles."""
    return Worker(
        client,
        task_queue=task_queue,
        activities=activities,
        max_concurrent_activities=at_once,
        max_concurrent_activity_task_polls=polls,
        max_heartbeat_throttle_interval=heartbeats,
        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_seconds),
        **deployment_version(settings),
    )


def create_provider_worker(
    client: Client, activities: SyncActivities, settings: Settings, provider_id: str
) -> Worker:
    """Return the worker for the cycles of one routed provider, bound to the calling event loop.

    Only workers with the provider poll its task queue, whichever worker resolved the graph. The slots are
    the provider's own: one whose cycles hang does not block others.
    """
    return Worker(
        client,
        task_queue=names.provider_task_queue(settings.task_queue, provider_id),
        activities=[activities.sync_cycle],
        tuner=slots_of_this_loop(settings.max_concurrent_cycles),
        # Each open poll reserves a slot: more polls would take more tasks into a loop that may be blocked
        # by then.
        max_concurrent_activity_task_polls=1,
        max_heartbeat_throttle_interval=_HEARTBEATS,
        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_seconds),
        **deployment_version(settings),
    )


def serve_provider_thread(room: ProviderThread, client: Client, services: Services) -> Worker:
    """Return the worker of a provider's thread."""
    activities = SyncActivities(services, under_way=room.under_way)
    return create_provider_worker(client, activities, services.settings, room.provider.id)


if __name__ == "__main__":
    end_process(main())
