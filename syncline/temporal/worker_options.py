"""What a worker process sets in Temporal's SDK: identity, runtime, deployment version, workflow runner."""

import logging
import os
import socket
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from importlib.metadata import version
from types import CodeType, ModuleType
from typing import ClassVar, TypedDict

from temporalio import workflow
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.worker import UnsandboxedWorkflowRunner, WorkerDeploymentConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from syncline import metrics
from syncline.errors import SettingsInvalid
from syncline.settings import Settings

__all__ = [
    "VersionArguments",
    "compile_once",
    "deployment_version",
    "open_runtime",
    "worker_identity",
    "workflow_runner",
]


def worker_identity() -> str:
    """Return the identity of this process, as Temporal and the control plane show it."""
    return f"syncline@{socket.gethostname()}:{os.getpid()}"


def open_runtime(metrics_address: str | None) -> Runtime:
    """Return the SDK's runtime; it serves all metrics at `metrics_address`, if that is set."""
    # The SDK core's logs are forwarded to our format; by default it writes them to stdout in its own.
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


class VersionArguments(TypedDict, total=False):
    """The version arguments of a Worker."""

    build_id: str
    deployment_config: WorkerDeploymentConfig


def deployment_version(settings: Settings) -> VersionArguments:
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


def compile_once(package: ModuleType) -> None:
    """Cache the code objects of the package's modules in memory, from their next import on.

    Images often set PYTHONDONTWRITEBYTECODE, or have a read-only file system. The sandbox imports the
    workflow's module again in each run, and would compile it each time. Why not `sys.pycache_prefix`:
    docs/decisions/0012-workflow-sandbox.md.
    """
    for folder in package.__path__:
        sys.path_importer_cache[folder] = FileFinder(folder, (_Loader, SOURCE_SUFFIXES))


class _Loader(SourceFileLoader):
    _codes: ClassVar[dict[str, CodeType | None]] = {}

    def get_code(self, fullname: str) -> CodeType | None:
        if fullname not in self._codes:
            self._codes[fullname] = super().get_code(fullname)
        return self._codes[fullname]
