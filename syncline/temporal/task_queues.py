"""Task queues, by Temporal: their pollers, whether one can take a run, and an operator's rate limits."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import BaseModel
from temporalio.api.deployment.v1 import WorkerDeploymentOptions, WorkerDeploymentVersion
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimitConfig, TaskQueue, TaskQueueConfig
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from syncline.temporal.client import temporal_errors_mapped

__all__ = ["Poller", "RateLimit", "TaskQueueDescription", "describe_queue", "live", "pollers"]

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


class RateLimit(BaseModel):
    """Rate limit of a task queue's activities, set by an operator (`temporal task-queue config set`)."""

    a_second: float | None = None
    """Tasks of the whole queue; 0: none at all."""
    a_second_per_tenant: float | None = None
    """Tasks of each fairness key."""
    by: str = ""
    reason: str = ""
    since: datetime | None = None

    def __str__(self) -> str:
        """The limit in words."""
        rates = [(self.a_second, ""), (self.a_second_per_tenant, " of each tenant")]
        told = " and ".join(f"{rate:g} a second{whose}" for rate, whose in rates if rate is not None)
        since = "" if self.since is None else f" since {self.since:%Y-%m-%d %H:%M:%S}Z"
        return f"{told}{since}{f', by {self.by}' if self.by else ''}: {self.reason or 'no reason given'}"


class TaskQueueDescription(BaseModel):
    """A task queue, for workflow tasks or activities."""

    pollers: tuple[Poller, ...]
    limit: RateLimit | None = None
    limiting: bool = False
    """Whether the limit keeps tasks waiting now."""


async def pollers(client: Client, task_queue: str, *, activities: bool = False) -> Sequence[Poller]:
    """Return the processes that polled the task queue in the last five minutes, by identity.

    Polls for workflow tasks, or with `activities` those for activities. A worker without a free slot does not
    poll: for milliseconds with workflow tasks, for the duration of the activities with activities.
    """
    return (await describe_queue(client, task_queue, activities=activities)).pollers


async def describe_queue(
    client: Client, task_queue: str, *, activities: bool = False
) -> TaskQueueDescription:
    """Return the task queue's pollers, as `pollers` does, and its rate limit; raise TemporalUnavailable."""
    of = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY if activities else TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        task_queue_type=of,
        # The server limits the rate of activities alone.
        report_config=activities,
        report_stats=activities,
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
    return TaskQueueDescription(
        pollers=tuple(sorted(found, key=lambda poller: poller.identity)),
        limit=_limit(described.config),
        limiting=described.stats.rate_limiting_active,
    )


def _limit(config: TaskQueueConfig) -> RateLimit | None:
    whole, each = config.queue_rate_limit, config.fairness_keys_rate_limit_default
    set_ones = [limit for limit in (whole, each) if limit.HasField("rate_limit")]
    if not set_ones:
        return None
    newest = max(set_ones, key=lambda limit: limit.metadata.update_time.ToNanoseconds()).metadata
    return RateLimit(
        a_second=_rate(whole),
        a_second_per_tenant=_rate(each),
        by=newest.update_identity,
        reason=newest.reason,
        since=newest.update_time.ToDatetime(tzinfo=UTC),
    )


def _rate(limit: RateLimitConfig) -> float | None:
    return round(limit.rate_limit.requests_per_second, 3) if limit.HasField("rate_limit") else None


def live(found: Sequence[Poller]) -> Sequence[Poller]:
    """Return the pollers for workflow tasks that may still be running.

    One that died within the last 90 seconds still counts: `Stall` detects it earlier.
    """
    return [poller for poller in found if poller.age < _GONE_AFTER.total_seconds()]


def _version(told: WorkerDeploymentOptions | WorkerDeploymentVersion) -> str | None:
    """Return `deployment:build`; None for workers without Worker Versioning, which report a build too."""
    return f"{told.deployment_name}:{told.build_id}" if told.deployment_name else None
