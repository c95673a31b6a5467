"""Workflow `WaitVisible`: one run waits until what a transaction wrote is visible in a graph."""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, TimeoutError, is_cancelled_exception  # noqa: A004 # Temporal's own

with workflow.unsafe.imports_passed_through():
    from activities.visibility import VisibilityActivities
    from syncline import names
    from syncline.messages.visibility import Visibility, WaitVisibleInput
    from syncline.temporal.client import GRAPH
    from syncline.temporal.wait import GRACE, HEARTBEAT, RETRY
    from workflows.carried_state import FAILS_A_RUN
    from workflows.priorities import priority_of_operation

__all__ = ["WaitVisible"]


@workflow.defn(name=names.WAIT_VISIBLE, failure_exception_types=FAILS_A_RUN)
class WaitVisible:
    """Wait for a transaction. The run fails only if its token is refused; equal waits may share a run."""

    @workflow.run
    async def run(self, input: WaitVisibleInput) -> Visibility:  # noqa: A002 # wire name
        """Return what is visible when the wait ends, and why not more."""
        if workflow.info().typed_search_attributes.get(GRAPH) is None:
            workflow.upsert_search_attributes([GRAPH.value_set(input.graph)])
        within = timedelta(seconds=input.seconds) + GRACE
        try:
            return await workflow.execute_activity_method(
                VisibilityActivities.wait_visible,
                input,
                task_queue=names.waits_task_queue(workflow.info().task_queue),
                summary=input.summary[:200],
                start_to_close_timeout=within,
                schedule_to_close_timeout=within,
                heartbeat_timeout=HEARTBEAT,
                retry_policy=RETRY,
                priority=priority_of_operation(input.workflow),
                cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            )
        except ActivityError as error:
            if is_cancelled_exception(error) or not isinstance(error.cause, TimeoutError):
                raise
        return Visibility.unanswered(input.graph, seconds=within.total_seconds())
