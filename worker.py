"""The worker: settings -> registry -> stores -> Temporal. Composition only; `python worker.py` runs it.

One module because it is the one place where all is put together.
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
"""They wait for Temporal, which takes seconds for each when it has much to do."""
_STICKY = timedelta(seconds=2)
_HEARTBEATS = timedelta(seconds=1)
"""The SDK would send one every 16 s at most, with progress as old as that, and a cancellation comes back with
the next one. A cycle asks for one every five seconds, and for every second only while somebody follows it."""
_LAST_CALL = 4.0
"""Seconds for which a worker that is told to stop still takes cycles of its plugins. Runs that were resolved
to it a moment ago schedule them within that time, also when they have to be replayed elsewhere first."""


def create_worker(
    client: Client,
    activities: SyncActivities,
    settings: Settings,
    *,
    fleet: FleetActivities | None = None,
) -> Worker:
    """Return a worker for the settings' task queue; nothing is polled until it runs.

    Without `fleet` a question about the fleet that reaches it fails.
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
        # A workflow task is a few milliseconds of Python: more at once only bring each nearer to the
        # deadlock limit of two seconds.
        max_concurrent_workflow_tasks=4,
        max_heartbeat_throttle_interval=_HEARTBEATS,
        max_cached_workflows=settings.max_cached_workflows,
        # Runs that a worker which stops had in memory wait so long for it; then any other replays them.
        sticky_queue_schedule_to_start_timeout=_STICKY,
        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_seconds),
        **_version(settings),
    )


def workflow_runner(*, sandbox: bool) -> WorkflowRunner:
    """Return what runs the code of workflows; the sandbox is for tests and replay: decision 0012."""
    if not sandbox:
        return UnsandboxedWorkflowRunner()
    return SandboxedWorkflowRunner(
        # An import that somebody forgets to pass through would be repeated in every run.
        restrictions=SandboxRestrictions.default.with_import_notification_policy(
            workflow.SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
            | workflow.SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
        )
    )


def create_operations_worker(client: Client, activities: OperationActivities, settings: Settings) -> Worker:
    """Return a worker for the activities of what operators ask for, beside the other one.

    Their queue and their slots are their own: a long verification takes no slot from a cycle, and whoever
    looks for a row does not wait for cycles.
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
        ],
        at_once=_OPERATIONS_AT_ONCE,
        polls=2,
    )


def create_schedules_worker(client: Client, activities: ScheduleActivities, settings: Settings) -> Worker:
    """Return a worker for the activities that change Schedules.

    Their queue and their slots are their own: when cycles have taken all of theirs, a new graph still gets
    its Schedule, and an idle one a slower one, which is what makes room again.
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
    """Return a worker for activities that have a queue and slots beside those of cycles."""
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
    """Return a worker for the cycles of one routed provider; it belongs to the event loop that calls this.

    Who polls this queue has the provider, so a cycle meets it, whichever worker has resolved the graph. The
    slots are the provider's own: one whose cycles hang fills nobody else's.
    """
    return Worker(
        client,
        task_queue=names.provider_task_queue(settings.task_queue, provider_id),
        activities=[activities.sync_cycle],
        tuner=slots_of_this_loop(settings.max_concurrent_cycles),
        # Each poll that is under way holds a slot already: more of them would take more tasks into a loop
        # that is blocked since.
        max_concurrent_activity_task_polls=1,
        max_heartbeat_throttle_interval=_HEARTBEATS,
        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_seconds),
        **_version(settings),
    )


def serve_provider_thread(room: ProviderThread, client: Client, services: Services) -> Worker:
    """Return the worker of a provider's room."""
    activities = SyncActivities(services, under_way=room.under_way)
    return create_provider_worker(client, activities, services.settings, room.provider.id)


@asynccontextmanager
async def serving(client: Client, services: Services, activities: SyncActivities) -> AsyncIterator[None]:
    """Run all workers of this process: the main one, those of operators, Schedules and routed providers.

    The control plane knows of it while all of them poll, and no longer: whoever drains is sent nothing more.
    They drain side by side, so that this takes as long as the slowest.
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
        # From now on nobody resolves a graph to this process; what was a moment ago is still on its way.
        leaving.set()
        if opened:
            await asyncio.sleep(min(_LAST_CALL, settings.graceful_shutdown_seconds))
        for room in opened:
            room.drain()


async def run_worker(settings: Settings) -> None:
    """Serve the task queue until SIGTERM or SIGINT, then let running cycles finish.

    A second signal ends the process at once; the next attempt goes on from the last committed batch.
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
            # What was imported stays for good; without this each full collection would look through it again.
            gc.collect()
            gc.freeze()
            await stop.wait()
            log.info("worker draining", seconds=settings.graceful_shutdown_seconds)
        log.info("worker stopped")


def listen(client: Client, services: Services) -> Listening:
    """Return what listens to the write-dbs, and has the Schedules of graphs that change start runs."""
    schedule_trigger = ScheduleTrigger(client, task_queue=services.settings.task_queue)
    return Listening(services, schedule_trigger, namespace=client.namespace)


def main() -> int:
    """Run the worker; return exit status 2 when something declared is wrong, 1 when Temporal is away."""
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format)
        if settings.workflow_sandbox:
            compile_once(workflows)
        run(run_worker(settings))
    except SynclineError as error:
        if load_log_format() == "json":
            configure_logging("INFO", "json")
            get_log().critical("the worker cannot start", kind=type(error).__name__, error=str(error))
        else:
            sys.stderr.write(f"The worker cannot start. {error}\n")
        return 2 if isinstance(error, ConfigurationError | StoreUnusable) else 1
    return 0


class _Version(TypedDict, total=False):
    """Which version a Worker says that it is."""

    build_id: str
    deployment_config: WorkerDeploymentConfig


def _version(settings: Settings) -> _Version:
    """Return which version of which deployment every Worker of this process is, if that is declared.

    A run stays with the version that it began on: runs are short, and the next one begins on the current.
    Without a declared one it is the release. The SDK would have a hash in its place, for which it reads, and
    where no bytecode is kept compiles, every module of the process.
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
    # Its own logs come in the format of all others: the SDK's core would write them to stderr as it likes.
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
    """Trace for as long as this lasts, if there is somewhere to; yield the plugins of the client."""
    if url is None:
        yield ()
        return
    try:
        from activities.tracing import tracing
    except ImportError as error:
        raise SettingsInvalid(
            f"SYNCLINE_TRACES_URL is set, and traces need packages that are missing ({error.name}). "
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
