"""Workflows `DescribeFleet` and `DescribeHealth`: small questions that one worker answers."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    # For the activities' signatures only, as in `workflows.sync_graph`.
    from activities.fleet import FleetActivities

    # Models and constants: nothing of them can differ between a run and its replay.
    from syncline import names
    from syncline.fleet import Fleet
    from syncline.health import Health, HealthRequest

_SECONDS = timedelta(seconds=30)
_ONCE = RetryPolicy(maximum_attempts=1)
"""Somebody waits: what went wrong is an answer too, and they ask again."""


# Local activities: a worker whose cycles take all of its places still answers.
@workflow.defn(name=names.DESCRIBE_FLEET)
class DescribeFleet:
    """One run says once who has what installed."""

    @workflow.run
    async def run(self) -> Fleet:
        """Return the fleet as the control plane knows it."""
        return await workflow.execute_local_activity_method(
            FleetActivities.describe_fleet,
            start_to_close_timeout=_SECONDS,
            retry_policy=_ONCE,
        )


@workflow.defn(name=names.DESCRIBE_HEALTH)
class DescribeHealth:
    """One run says once whether all that a worker needs is well."""

    @workflow.run
    async def run(self) -> Health:
        """Return the checks of the worker that took this run."""
        return await workflow.execute_local_activity_method(
            FleetActivities.describe_health,
            HealthRequest(asked_at=workflow.now()),
            start_to_close_timeout=_SECONDS,
            retry_policy=_ONCE,
        )
