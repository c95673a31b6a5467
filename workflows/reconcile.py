"""Workflow `ReconcileSchedules`: one run makes the Schedules match the graphs and reports the changes."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    # For the activity's signature only, as in `workflows.sync_graph`.
    from activities.schedules import ScheduleActivities

    # Models, constants and pure functions: they cannot differ between a run and its replay.
    from syncline import names
    from syncline.errors import non_retryable_types
    from syncline.messages.sync import Reconciliation

_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    non_retryable_error_types=non_retryable_types(),
)


@workflow.defn(name=names.RECONCILE_SCHEDULES)
class ReconcileSchedules:
    """Make the Schedules match the graphs, once per run."""

    @workflow.run
    async def run(self) -> Reconciliation:
        """Reconcile, and show the changes as the run's current details."""
        result = await workflow.execute_activity_method(
            ScheduleActivities.reconcile_schedules,
            summary="make the Schedules match the graphs",
            task_queue=names.schedules_task_queue(workflow.info().task_queue),
            start_to_close_timeout=timedelta(minutes=5),
            # Shorter than the run's own timeout, so that the run fails with a reason.
            schedule_to_close_timeout=timedelta(minutes=10),
            heartbeat_timeout=timedelta(seconds=20),
            retry_policy=_RETRY,
        )
        workflow.set_current_details("\n\n".join(_paragraphs(result)))
        return result


def _paragraphs(result: Reconciliation) -> Iterator[str]:
    yield (
        f"**{result.changed:,}** Schedules changed: {result.created:,} created, {result.updated:,} updated, "
        f"{result.deleted:,} deleted. {result.unchanged:,} unchanged, {result.refusals:,} refused."
    )
    yield from _listed("Created", result.created, result.created_graphs)
    yield from _listed("Updated", result.updated, result.updated_graphs)
    yield from _listed("Deleted", result.deleted, result.deleted_graphs)
    if result.refused:
        lines = [f"- **{slug}**: {problem}" for slug, problem in result.refused.items()]
        yield "\n".join(["Refused; the Schedule stays as it is:", "", *lines])
    if result.never_due:
        lines = [f"- **{slug}**: {problem}" for slug, problem in result.never_due_graphs.items()]
        yield "\n".join([f"**{result.never_due:,}** never due:", "", *lines])


def _listed(word: str, number: int, slugs: Sequence[str]) -> Iterator[str]:
    if slugs:
        more = f" and {number - len(slugs):,} more" if number > len(slugs) else ""
        yield f"{word}: {', '.join(f'`{slug}`' for slug in slugs)}{more}"
