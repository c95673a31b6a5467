"""The worker: settings -> registry -> stores -> Temporal. Composition only; `python worker.py` runs it."""

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import nullcontext
from datetime import timedelta

from temporalio import workflow
from temporalio.client import Client
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.meter import CYCLE_SECONDS, CYCLE_SECONDS_BUCKETS, TemporalMeter
from activities.schedules import ScheduleActivities
from activities.sync import SyncActivities
from activities.translation import not_told_yet
from providers import BUILTIN
from syncline.client import connect, require_search_attributes
from syncline.errors import ConfigurationError, SettingsInvalid, SynclineError
from syncline.freshness import Listening
from syncline.graphs import Graph
from syncline.logs import configure_logging, get_log
from syncline.process_exit import end_process
from syncline.registry import Registry
from syncline.schedules import ensure_reconciler, wake
from syncline.services import Services
from syncline.settings import Settings, load_settings
from workflows.reconcile_schedules import ReconcileSchedules
from workflows.sync_graph import SyncGraph

__all__ = ["create_worker", "listen", "main", "run_worker"]


def create_worker(
    client: Client,
    activities: SyncActivities,
    settings: Settings,
    *,
    schedules: ScheduleActivities | None = None,
) -> Worker:
    """Return a worker for the settings' task queue; nothing is polled until it runs.

    Without `schedules` a reconciliation that reaches it fails.
    """
    schedules = schedules or ScheduleActivities(None)
    return Worker(
        client,
        task_queue=settings.task_queue,
        workflows=[SyncGraph, ReconcileSchedules],
        activities=[
            activities.resolve_provider,
            activities.sync_cycle,
            schedules.reconcile_schedules,
            schedules.set_cadence,
        ],
        workflow_runner=SandboxedWorkflowRunner(
            # An import that somebody forgets to pass through would be repeated in every run.
            restrictions=SandboxRestrictions.default.with_import_notification_policy(
                workflow.SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
                | workflow.SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
            )
        ),
        max_concurrent_activities=settings.max_concurrent_cycles,
        # A workflow task is a few milliseconds of Python: more at once only bring each nearer to the
        # deadlock limit of two seconds.
        max_concurrent_workflow_tasks=4,
        # The SDK would send a heartbeat every 16 s, and a cancellation comes back with the next one.
        max_heartbeat_throttle_interval=timedelta(seconds=5),
        max_cached_workflows=settings.max_cached_workflows,
        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_seconds),
    )


async def run_worker(settings: Settings) -> None:
    """Serve the task queue until SIGTERM or SIGINT, then let running cycles finish.

    A second signal ends the process at once; the next attempt goes on from the last committed batch.
    """
    logging.getLogger("temporalio.activity").addFilter(not_told_yet)
    runtime = _runtime(settings.metrics_address)
    client = await connect(runtime=runtime, identity=f"syncline@{socket.gethostname()}:{os.getpid()}")
    await require_search_attributes(client)
    registry = Registry()
    registry.load(BUILTIN)
    meter = TemporalMeter(runtime.metric_meter)
    async with Services.open(settings, registry=registry, meter=meter) as services:
        stop = _stop_on_signal()
        log = get_log()
        reconciler = await ensure_reconciler(
            client, task_queue=settings.task_queue, every_seconds=settings.reconcile_seconds
        )
        activities, schedules = SyncActivities(services), ScheduleActivities(services)
        listening = listen(client, services) if settings.notify else nullcontext()
        async with create_worker(client, activities, settings, schedules=schedules), listening:
            log.info(
                "worker ready",
                task_queue=settings.task_queue,
                namespace=client.namespace,
                providers=sorted(registry.known("sync")),
                reconciler=reconciler,
            )
            await stop.wait()
            log.info("worker draining", seconds=settings.graceful_shutdown_seconds)
        log.info("worker stopped")


def listen(client: Client, services: Services) -> Listening:
    """Return what listens to the write-dbs, and has the Schedules of graphs that change start runs."""

    async def start(graph: Graph) -> str:
        return await wake(client, graph.slug, task_queue=services.settings.task_queue)

    return Listening(services, start, namespace=client.namespace)


def main() -> int:
    """Run the worker; return exit status 2 when something declared is wrong, 1 when Temporal is away."""
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format)
        asyncio.run(run_worker(settings))
    except SynclineError as error:
        sys.stderr.write(f"The worker cannot start. {error}\n")
        return 2 if isinstance(error, ConfigurationError) else 1
    return 0


def _runtime(metrics_address: str | None) -> Runtime:
    if metrics_address is None:
        return Runtime.default()
    metrics = PrometheusConfig(
        bind_address=metrics_address,
        histogram_bucket_overrides={CYCLE_SECONDS: CYCLE_SECONDS_BUCKETS},
    )
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=metrics))
    except (RuntimeError, ValueError) as error:
        raise SettingsInvalid(f"SYNCLINE_METRICS_ADDRESS '{metrics_address}': {error}") from error


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
