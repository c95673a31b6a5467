"""The worker process: settings -> registry -> stores -> Temporal. Composition only; run `python worker.py`.

One module because it is the one place where everything is composed.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import timedelta
from importlib.metadata import version
from typing import TypedDict

from temporalio import workflow
from temporalio.client import Client, Plugin
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

import workflows
from activities.errors import not_logged_yet
from activities.isolation.thread import ProviderThread, run, slots_of_this_loop
from activities.isolation.watchdog import provider_threads
from activities.metrics import TemporalMeter, record_providers
from activities.operations import FleetActivities, OperationActivities
from activities.polling import first_of, polling
from activities.schedules import ScheduleActivities
from activities.sync import SyncActivities
from providers import BUILTIN
from syncline import metrics, names
from syncline.capture.listen.listener import Listening
from syncline.compiling import compile_once
from syncline.control.readiness import log_in
from syncline.control.services import Services
from syncline.control.workers import register_worker
from syncline.errors import ConfigurationError, SettingsInvalid, StoreUnusable, SynclineError
from syncline.logs import configure_logging, get_log
from syncline.process_exit import end_process
from syncline.registry import Registry
from syncline.settings import Settings, load_log_format, load_settings
from syncline.temporal.client import connect, require_search_attributes
from syncline.temporal.schedules.reconcile import ensure_reconciler
from syncline.temporal.schedules.trigger import ScheduleTrigger
from workflows.operations import OPERATIONS, DescribeFleet, DescribeHealth
from workflows.reconcile import ReconcileSchedules
from workflows.sync_graph import SyncGraph

__all__ = [
    "create_operations_worker",
    "create_provider_worker",
    "create_schedules_worker",
    "create_worker",
    "listen",
    "main",
    "run_worker",
    "serve_provider_thread",
    "serving",
    "workflow_runner",
]

_OPERATIONS_AT_ONCE = 4
_SCHEDULES_AT_ONCE = 16
"""Activities that mostly wait for Temporal, which needs seconds for each under load."""
_STICKY = timedelta(seconds=2)
_HEARTBEATS = timedelta(seconds=1)
"""Heartbeat throttling. By default the SDK sends one every 16 s at most, which delays progress and
cancellation by as much. A cycle heartbeats every 5 s, and every second only while an operator follows it."""
_LAST_CALL = 4.0
"""Seconds for which a stopping worker still polls for cycles of its plugins: runs just resolved to it
schedule their cycles within that time, even if they have to be replayed on another worker first."""


def create_worker(
    client: Client,
    activities: SyncActivities,
    settings: Settings,
    *,
    fleet: FleetActivities | None = None,
) -> Worker:
    """Return the worker of the main task queue; it does not poll until it runs.

    Without `fleet`, its fleet and health activities fail.
    """
    fleet = fleet or FleetActivities(None)
    return Worker(
        client,
        task_queue=settings.task_queue,
        workflows=[SyncGraph, ReconcileSchedules, DescribeFleet, DescribeHealth, *OPERATIONS],
        activities=[
            activities.resolve_provider,
            activities.sync_cycle,
            fleet.describe_fleet,
            fleet.describe_health,
        ],
        workflow_runner=workflow_runner(sandbox=settings.workflow_sandbox),
        max_concurrent_activities=settings.max_concurrent_cycles,
        # A workflow task is a few milliseconds of Python: more concurrency only brings each closer to
        # the deadlock limit of two seconds.
        max_concurrent_workflow_tasks=4,
        max_heartbeat_throttle_interval=_HEARTBEATS,
        max_cached_workflows=settings.max_cached_workflows,
        # Cached runs of a stopping worker wait this long for it; then any other worker replays them.
        sticky_queue_schedule_to_start_timeout=_STICKY,
        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_seconds),
        **_version(settings),
    )


def workflow_runner(*, sandbox: bool) -> WorkflowRunner:
    """Return the workflow runner; the sandbox is for tests and replay: decision 0012."""
    if not sandbox:
        return UnsandboxedWorkflowRunner()
    return SandboxedWorkflowRunner(
        # A missing passthrough would repeat the import in every run.
        restrictions=SandboxRestrictions.default.with_import_notification_policy(
            workflow.SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
            | workflow.SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
        )
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


def _aside(
    client: Client,
    settings: Settings,
    task_queue: str,
    activities: Sequence[Callable[..., object]],
    *,
    at_once: int,
    polls: int,
) -> Worker:
    """Return a worker for activities with a task queue and slots separate from those of cycles."""
    return Worker(
        client,
        task_queue=task_queue,
        activities=activities,
        max_concurrent_activities=at_once,
        max_concurrent_activity_task_polls=polls,
        max_heartbeat_throttle_interval=timedelta(seconds=5),
        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_seconds),
        **_version(settings),
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
        **_version(settings),
    )


def serve_provider_thread(room: ProviderThread, client: Client, services: Services) -> Worker:
    """Return the worker of a provider's thread."""
    activities = SyncActivities(services, under_way=room.under_way)
    return create_provider_worker(client, activities, services.settings, room.provider.id)


@asynccontextmanager
async def serving(client: Client, services: Services, activities: SyncActivities) -> AsyncIterator[None]:
    """Run all workers of this process: main, operations, Schedules, and one per routed provider.

    The process is registered in the control plane while all of them poll: a draining worker gets no new
    cycles. They drain concurrently, so that this takes as long as the slowest.
    """
    settings, identity = services.settings, client.identity

    def workers() -> Sequence[Worker]:
        return [
            create_worker(
                client,
                activities,
                settings,
                fleet=FleetActivities(services, identity=identity),
            ),
            create_operations_worker(client, OperationActivities(services), settings),
            create_schedules_worker(client, ScheduleActivities(services), settings),
        ]

    leaving = asyncio.Event()
    async with (
        provider_threads(client, services, serve=serve_provider_thread, dump=True) as opened,
        polling(workers, opened, services, leaving),
    ):
        async with register_worker(services, identity=identity):
            yield
        # From now on no graph is resolved to this process; cycles resolved just before may still arrive.
        leaving.set()
        if opened:
            await asyncio.sleep(min(_LAST_CALL, settings.graceful_shutdown_seconds))
        for room in opened:
            room.drain()


async def run_worker(settings: Settings) -> None:
    """Serve the task queues until SIGTERM or SIGINT, then let running cycles finish.

    A second signal ends the process at once; the next attempt continues from the last committed batch.
    """
    logging.getLogger("temporalio.activity").addFilter(not_logged_yet)
    runtime = _runtime(settings.metrics_address)
    with _tracing(settings.traces_url) as plugins:
        await _serve(settings, runtime, plugins)


async def _serve(settings: Settings, runtime: Runtime, plugins: Sequence[Plugin]) -> None:
    identity = f"syncline@{socket.gethostname()}:{os.getpid()}"
    client = await connect(runtime=runtime, identity=identity, plugins=plugins)
    await require_search_attributes(client)
    registry = Registry()
    registry.load(BUILTIN, allowed=settings.allowed_plugins)
    meter = TemporalMeter(runtime.metric_meter)
    record_providers(meter, registry)
    log, stop = get_log(), _stop_on_signal()
    async with Services.open(settings, registry=registry, meter=meter) as services:
        await first_of(stop.wait(), log_in(services))
        if stop.is_set():
            log.info("worker stopped before it was ready")
            return
        reconciler = await ensure_reconciler(
            client, task_queue=settings.task_queue, every_seconds=settings.reconcile_seconds
        )
        async with (
            serving(client, services, SyncActivities(services)),
            listen(client, services) if settings.notify else nullcontext(),
        ):
            log.info(
                "worker ready",
                task_queue=settings.task_queue,
                namespace=client.namespace,
                providers=sorted(registry.known("sync")),
                reconciler=reconciler,
            )
            # Imported objects are never freed; frozen, they are not traversed by each full collection.
            gc.collect()
            gc.freeze()
            await stop.wait()
            log.info("worker draining", seconds=settings.graceful_shutdown_seconds)
        log.info("worker stopped")


def listen(client: Client, services: Services) -> Listening:
    """Return the listeners of the write-dbs, which trigger the Schedules of graphs on a change."""
    schedule_trigger = ScheduleTrigger(client, task_queue=services.settings.task_queue)
    return Listening(services, schedule_trigger, namespace=client.namespace)


def main() -> int:
    """Run the worker; return exit status 2 for a configuration error, 1 if Temporal is unavailable."""
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format)
        if settings.workflow_sandbox:
            compile_once(workflows)
        run(run_worker(settings))
    except SynclineError as error:
        if load_log_format() == "json":
            configure_logging("INFO", "json")
            get_log().critical("worker cannot start", kind=type(error).__name__, error=str(error))
        else:
            sys.stderr.write(f"The worker cannot start. {error}\n")
        return 2 if isinstance(error, ConfigurationError | StoreUnusable) else 1
    return 0


class _Version(TypedDict, total=False):
    """The version arguments of a Worker."""

    build_id: str
    deployment_config: WorkerDeploymentConfig


def _version(settings: Settings) -> _Version:
    """Return the deployment version of every Worker of this process, if one is set.

    A run is pinned to the version that it started on: runs are short, and the next one starts on the current
    version. Without a setting the build id is the release: the SDK's default is a hash, for which it reads
    every module of the process (and compiles it, where no bytecode is cached).
    """
    if settings.deployment_name is None or settings.build_id is None:
        return {"build_id": f"syncline {version('syncline')}"}
    declared = WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.deployment_name, settings.build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )
    return {"deployment_config": declared}


def _runtime(metrics_address: str | None) -> Runtime:
    # The SDK core's logs are forwarded to our format; by default it writes them to stderr in its own.
    logs = LoggingConfig(
        filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
        forwarding=LogForwardingConfig(logger=logging.getLogger("temporalio.core")),
    )
    if metrics_address is None:
        return Runtime(telemetry=TelemetryConfig(logging=logs))
    buckets = {
        metric.exposed: metric.buckets
        for metric in metrics.DECLARED.values()
        if isinstance(metric, metrics.Histogram)
    }
    served = PrometheusConfig(bind_address=metrics_address, histogram_bucket_overrides=buckets)
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=served, logging=logs))
    except (RuntimeError, ValueError) as error:
        raise SettingsInvalid(f"SYNCLINE_METRICS_ADDRESS '{metrics_address}': {error}") from error


@contextmanager
def _tracing(url: str | None) -> Iterator[Sequence[Plugin]]:
    """Trace while entered, if `url` is set; yield the plugins of the client."""
    if url is None:
        yield ()
        return
    try:
        from activities.tracing import tracing
    except ImportError as error:
        raise SettingsInvalid(
            f"SYNCLINE_TRACES_URL is set, but packages that tracing needs are missing ({error.name}). "
            "Run: pip install 'syncline[tracing]'"
        ) from error
    with tracing(url) as plugin:
        yield (plugin,)


def _stop_on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def drain() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in signals:
        loop.add_signal_handler(number, drain)
    return stop


if __name__ == "__main__":
    end_process(main())
