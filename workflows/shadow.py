"""A graph's shadow follows its live run: a child that goes on by itself, one at a time."""

from temporalio import workflow
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    # Models and constants: nothing of them can differ between a run and its replay.
    from syncline import names
    from syncline.messages import LONGEST_RUN, SyncGraphInput
    from syncline.priorities import WAITING
    from syncline.search_attributes import GRAPH

__all__ = ["follow_with_shadow"]


async def follow_with_shadow(slug: str) -> None:
    """Start a run of the graph's shadow, unless one is open; what becomes of it is not this run's concern."""
    name = names.shadow_slug(slug)
    try:
        await workflow.start_child_workflow(
            names.SYNC_GRAPH,
            SyncGraphInput(graph=slug, shadow=True),
            id=names.shadow_workflow_id(slug),
            # As any other run: one that nobody can continue would keep every later one from starting.
            execution_timeout=LONGEST_RUN,
            parent_close_policy=ParentClosePolicy.ABANDON,
            cancellation_type=ChildWorkflowCancellationType.ABANDON,
            search_attributes=TypedSearchAttributes([SearchAttributePair(GRAPH, name)]),
            static_summary=f"Sync {name}"[:200],
            priority=WAITING,
        )
    except WorkflowAlreadyStartedError:
        workflow.logger.debug("the shadow's last run is still open")
