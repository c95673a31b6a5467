"""Pollers of a task queue, by Temporal, and whether one of them can take a run."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import BaseModel
from temporalio.api.deployment.v1 import WorkerDeploymentOptions, WorkerDeploymentVersion
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from syncline.temporal.client import temporal_errors_mapped

__all__ = ["Poller", "live", "pollers"]

_GONE_AFTER: Final = timedelta(seconds=90)
"""Seconds without a poll after which a worker is gone: a poll lasts a minute at most and is followed by the
next. The server lists a poller for five minutes."""


class Poller(BaseModel):
    """A process that polls a task queue."""

    identity: str
    seen_at: datetime
    """When it last polled."""
    version: str | None = None
    """`deployment:build`; None for a worker without a version."""
    takes_new_runs: bool = True
    """Whether new runs go to workers of its version."""

    @property
    def age(self) -> float:
        """Seconds since its last poll."""
        return max(0.0, (datetime.now(UTC) - self.seen_at).total_seconds())


async def pollers(client: Client, task_queue: str, *, activities: bool = False) -> Sequence[Poller]:
    """Return the processes that polled the task queue in the last five minutes, by identity.

    Polls for workflow tasks, or with `activities` those for activities. A worker without a free slot does not
    poll: for milliseconds with workflow tasks, for the duration of the activities with activities.
    """
    of = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY if activities else TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
    request = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=task_queue), task_queue_type=of
    )
    with temporal_errors_mapped(client):
        described = await client.workflow_service.describe_task_queue(request)
    routing = described.versioning_info
    taking = {_version(routing.current_deployment_version)}
    if routing.ramping_version_percentage:
        taking.add(_version(routing.ramping_deployment_version))
    found = []
    for poller in described.pollers:
        version = _version(poller.deployment_options)
        found.append(
            Poller(
                identity=poller.identity,
                seen_at=poller.last_access_time.ToDatetime(tzinfo=UTC),
                version=version,
                takes_new_runs=version in taking,
            )
        )
    return sorted(found, key=lambda poller: poller.identity)


def live(found: Sequence[Poller]) -> Sequence[Poller]:
    """Return the pollers for workflow tasks that may still be running.

    One that died within the last 90 seconds still counts: `Stall` detects it earlier.
    """
    return [poller for poller in found if poller.age < _GONE_AFTER.total_seconds()]


def _version(told: WorkerDeploymentOptions | WorkerDeploymentVersion) -> str | None:
    """Return `deployment:build`; None for workers without Worker Versioning, which report a build too."""
    return f"{told.deployment_name}:{told.build_id}" if told.deployment_name else None
