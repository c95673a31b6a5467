"""Operations as workflows: one run performs one operation, in one activity.

One module because a worker registers them all, and each is a few lines over what they share.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.types import MethodAsyncSingleParam

with workflow.unsafe.imports_passed_through():
    from activities.operations import FleetActivities, OperationActivities
    from syncline import names
    from syncline.control.audit import GraphAuditPage
    from syncline.control.graphs import Graph
    from syncline.control.maps import MapDocument, MapPut
    from syncline.errors import non_retryable_types
    from syncline.messages.embedding import (
        ChangeEmbeddingInput,
        DescribeEmbeddingInput,
        EmbeddingPlan,
        EmbeddingStatus,
        PlanEmbeddingInput,
    )
    from syncline.messages.operator import (
        AddGraphInput,
        ChangeGraphInput,
        CollectionsDropped,
        ColumnsDecided,
        DecideColumnsInput,
        DeleteGraphInput,
        DiscardFailuresInput,
        DropCollectionsInput,
        ExplainRowInput,
        FailuresActed,
        GraphChanged,
        GraphDeleted,
        GraphPage,
        ListAuditInput,
        ListFailuresInput,
        ListGraphAuditInput,
        ListGraphsInput,
        ListMapsInput,
        ListParkedInput,
        ListUsageInput,
        MapPage,
        OperationInput,
        PromoteShadowInput,
        Promotion,
        PutMapInput,
        RenameGraphInput,
        RetryFailuresInput,
        ShowMapInput,
        SummarizeFailuresInput,
        SummarizeParkedInput,
        TakeOverGraphInput,
        VerifyGraphInput,
    )
    from syncline.messages.rebuild import ChangeRebuildInput, DescribeRebuildInput, RebuildStatus
    from syncline.messages.takeover import Takeover
    from syncline.messages.usage import UsageReport
    from syncline.messages.verification import Verification
    from syncline.operator.dead_letters import AuditPage, DeadLetterPage, FailureSummary
    from syncline.operator.explanation import Explanation
    from syncline.operator.fleet import Fleet
    from syncline.operator.graph_state import GraphNumbersPage, GraphNumbersRequest
    from syncline.operator.health.check import Health, HealthRequest
    from syncline.operator.parked import ParkedPage, ParkedSummary
    from syncline.temporal.client import GRAPH
    from workflows.carried_state import FAILS_A_RUN
    from workflows.details import describe_takeover, describe_verification
    from workflows.priorities import priority_of_operation

__all__ = ["OPERATIONS", "DescribeFleet", "DescribeGraphs", "DescribeHealth"]

_SHORT: Final = timedelta(minutes=5)
_LONG: Final = timedelta(hours=6)
"""A verification reads every row of a graph."""

_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    non_retryable_error_types=non_retryable_types(),
)

RequestT = TypeVar("RequestT", bound=OperationInput)
ResultT = TypeVar("ResultT")


@workflow.defn(name=names.VERIFY_GRAPH, failure_exception_types=FAILS_A_RUN)
class VerifyGraph:
    """Compare a graph's stores. A run that finds damage completes: the findings are its result."""

    @workflow.run
    async def run(self, input: VerifyGraphInput) -> Verification:  # noqa: A002 # wire name
        """Compare, with `repair` queue repairs, and show the findings as a table."""
        return await _carry_out(
            OperationActivities.verify_graph, input, describe=describe_verification, within=_LONG
        )


@workflow.defn(name=names.TAKE_OVER_GRAPH, failure_exception_types=FAILS_A_RUN)
class TakeOverGraph:
    """Compare a filled target with what a first sync would write. A run that is refused completes."""

    @workflow.run
    async def run(self, input: TakeOverGraphInput) -> Takeover:  # noqa: A002 # wire name
        """Compare, and unless it is a dry run prepare the first sync."""
        return await _carry_out(
            OperationActivities.take_over_graph, input, describe=describe_takeover, within=_LONG
        )


@workflow.defn(name=names.RETRY_FAILURES, failure_exception_types=FAILS_A_RUN)
class RetryFailures:
    """Mark rejected rows for a retry in the next cycle."""

    @workflow.run
    async def run(self, input: RetryFailuresInput) -> FailuresActed:  # noqa: A002 # wire name
        """Mark them, with an audit entry."""
        return await _carry_out(
            OperationActivities.retry_failures,
            input,
            describe=input.outcome,
        )


@workflow.defn(name=names.DISCARD_FAILURES, failure_exception_types=FAILS_A_RUN)
class DiscardFailures:
    """Discard the rejected versions of rows."""

    @workflow.run
    async def run(self, input: DiscardFailuresInput) -> FailuresActed:  # noqa: A002 # wire name
        """Discard them, with an audit entry."""
        return await _carry_out(OperationActivities.discard_failures, input, describe=input.outcome)


@workflow.defn(name=names.SUMMARIZE_FAILURES, failure_exception_types=FAILS_A_RUN)
class SummarizeFailures:
    """Count a graph's rejected rows by cause."""

    @workflow.run
    async def run(self, input: SummarizeFailuresInput) -> FailureSummary:  # noqa: A002 # wire name
        """Count them."""
        return await _carry_out(
            OperationActivities.summarize_failures,
            input,
            describe=lambda found: found.outcome,
        )


@workflow.defn(name=names.LIST_FAILURES, failure_exception_types=FAILS_A_RUN)
class ListFailures:
    """List a graph's rejected rows."""

    @workflow.run
    async def run(self, input: ListFailuresInput) -> DeadLetterPage:  # noqa: A002 # wire name
        """Return one page of them."""
        return await _carry_out(
            OperationActivities.list_failures, input, describe=lambda page: f"{len(page.letters):,} listed"
        )


@workflow.defn(name=names.LIST_AUDIT, failure_exception_types=FAILS_A_RUN)
class ListAudit:
    """List the audited actions of operators on a graph's rows."""

    @workflow.run
    async def run(self, input: ListAuditInput) -> AuditPage:  # noqa: A002 # wire name
        """Return one page of it."""
        return await _carry_out(
            OperationActivities.list_audit, input, describe=lambda page: f"{len(page.entries):,} listed"
        )


@workflow.defn(name=names.LIST_GRAPH_AUDIT, failure_exception_types=FAILS_A_RUN)
class ListGraphAudit:
    """List audited changes of graph records: added, changed, archived or promoted, and by whom."""

    @workflow.run
    async def run(self, input: ListGraphAuditInput) -> GraphAuditPage:  # noqa: A002 # wire name
        """Return one page of it."""
        return await _carry_out(
            OperationActivities.list_graph_audit,
            input,
            describe=lambda page: f"{len(page.entries):,} listed",
        )


@workflow.defn(name=names.LIST_USAGE, failure_exception_types=FAILS_A_RUN)
class ListUsage:
    """List what embeddings used, by month, graph and run, and what is left of budgets of tokens."""

    @workflow.run
    async def run(self, input: ListUsageInput) -> UsageReport:  # noqa: A002 # wire name
        """Return the report."""
        return await _carry_out(
            OperationActivities.list_usage, input, describe=lambda found: f"{len(found.months):,} listed"
        )


@workflow.defn(name=names.SUMMARIZE_PARKED, failure_exception_types=FAILS_A_RUN)
class SummarizeParked:
    """Count a graph's parked rows by missing parent, and why that parent does not arrive."""

    @workflow.run
    async def run(self, input: SummarizeParkedInput) -> ParkedSummary:  # noqa: A002 # wire name
        """Return the summary."""
        return await _carry_out(
            OperationActivities.summarize_parked,
            input,
            describe=lambda found: found.outcome,
        )


@workflow.defn(name=names.LIST_PARKED, failure_exception_types=FAILS_A_RUN)
class ListParked:
    """List the parked rows of one table."""

    @workflow.run
    async def run(self, input: ListParkedInput) -> ParkedPage:  # noqa: A002 # wire name
        """Return one page of it."""
        return await _carry_out(
            OperationActivities.list_parked, input, describe=lambda page: f"{len(page.entries):,} listed"
        )


@workflow.defn(name=names.EXPLAIN_ROW, failure_exception_types=FAILS_A_RUN)
class ExplainRow:
    """Trace one row through the stores: its state in each, and what delays it."""

    @workflow.run
    async def run(self, input: ExplainRowInput) -> Explanation:  # noqa: A002 # wire name
        """Return the explanation."""
        return await _carry_out(
            OperationActivities.explain_row, input, describe=lambda found: f"{found.state}: {found.verdict}"
        )


@workflow.defn(name=names.LIST_GRAPHS, failure_exception_types=FAILS_A_RUN)
class ListGraphs:
    """List the graphs' records."""

    @workflow.run
    async def run(self, input: ListGraphsInput) -> GraphPage:  # noqa: A002 # wire name
        """Return one page of them."""
        return await _carry_out(
            OperationActivities.list_graphs, input, describe=lambda page: f"{len(page.graphs):,} listed"
        )


@workflow.defn(name=names.ADD_GRAPH, failure_exception_types=FAILS_A_RUN)
class AddGraph:
    """Add a graph: its record, its schemas in both stores, its Schedule."""

    @workflow.run
    async def run(self, input: AddGraphInput) -> Graph:  # noqa: A002 # wire name
        """Add it. An equal record that exists already is kept."""
        return await _carry_out(OperationActivities.add_graph, input, describe=_describe_graph)


@workflow.defn(name=names.CHANGE_GRAPH, failure_exception_types=FAILS_A_RUN)
class ChangeGraph:
    """Change a graph's record, and update its Schedule to match."""

    @workflow.run
    async def run(self, input: ChangeGraphInput) -> GraphChanged:  # noqa: A002 # wire name
        """Change the record and the Schedule."""
        return await _carry_out(
            OperationActivities.change_graph, input, describe=lambda changed: _describe_graph(changed.graph)
        )


@workflow.defn(name=names.PROMOTE_SHADOW, failure_exception_types=FAILS_A_RUN)
class PromoteShadow:
    """Swap a graph and its shadow."""

    @workflow.run
    async def run(self, input: PromoteShadowInput) -> Promotion:  # noqa: A002 # wire name
        """Swap them, with an audit entry."""
        return await _carry_out(OperationActivities.promote_shadow, input, describe=_describe_promotion)


@workflow.defn(name=names.LIST_MAPS, failure_exception_types=FAILS_A_RUN)
class ListMaps:
    """List the stored maps, or the versions of one, with the graphs that they sync."""

    @workflow.run
    async def run(self, input: ListMapsInput) -> MapPage:  # noqa: A002 # wire name
        """Return one page of them."""
        return await _carry_out(
            OperationActivities.list_maps, input, describe=lambda page: f"{len(page.maps):,} listed"
        )


@workflow.defn(name=names.SHOW_MAP, failure_exception_types=FAILS_A_RUN)
class ShowMap:
    """Show a stored map as it was written."""

    @workflow.run
    async def run(self, input: ShowMapInput) -> MapDocument:  # noqa: A002 # wire name
        """Return the document."""
        return await _carry_out(
            OperationActivities.show_map,
            input,
            describe=lambda found: f"{found.name} version {found.version}",
        )


@workflow.defn(name=names.PUT_MAP, failure_exception_types=FAILS_A_RUN)
class PutMap:
    """Store a map document as the next version of its map."""

    @workflow.run
    async def run(self, input: PutMapInput) -> MapPut:  # noqa: A002 # wire name
        """Store it. A document that is the newest version already is kept."""
        return await _carry_out(
            OperationActivities.put_map,
            input,
            describe=lambda put: (
                f"**{put.stored.name}** version {put.stored.version}"
                f"{'' if put.created else ', which was stored already'}"
            ),
        )


@workflow.defn(name=names.DECIDE_COLUMNS, failure_exception_types=FAILS_A_RUN)
class DecideColumns:
    """Take columns that were added to sources of a graph into its stored map, or leave them alone."""

    @workflow.run
    async def run(self, input: DecideColumnsInput) -> ColumnsDecided:  # noqa: A002 # wire name
        """Store the next version of the map. What it takes is added to the graph-db's tables first."""
        return await _carry_out(
            OperationActivities.decide_columns,
            input,
            describe=lambda done: (
                f"**{done.map}**: {', '.join(done.columns)}, version {done.version}"
                if done.columns
                else f"**{done.map}**: nothing to decide"
            ),
        )


@workflow.defn(name=names.DROP_COLLECTIONS, failure_exception_types=FAILS_A_RUN)
class DropCollections:
    """Drop collections of a graph in the vector store, or say what would be dropped."""

    @workflow.run
    async def run(self, input: DropCollectionsInput) -> CollectionsDropped:  # noqa: A002 # wire name
        """Return what is dropped."""
        return await _carry_out(
            OperationActivities.drop_collections,
            input,
            describe=lambda done: (
                f"{'dropped' if done.dropped else 'would drop'} "
                f"{', '.join(collection.name for collection in done.collections)}"
            ),
        )


@workflow.defn(name=names.DELETE_GRAPH, failure_exception_types=FAILS_A_RUN)
class DeleteGraph:
    """Delete a graph, or say what would go and what would stay."""

    @workflow.run
    async def run(self, input: DeleteGraphInput) -> GraphDeleted:  # noqa: A002 # wire name
        """Delete it step by step, the record last; a run that was interrupted is finished by another."""
        return await _carry_out(
            OperationActivities.delete_graph, input, describe=_describe_deletion, within=_LONG
        )


@workflow.defn(name=names.RENAME_GRAPH, failure_exception_types=FAILS_A_RUN)
class RenameGraph:
    """Give a graph another slug. Its schemas, collections and id stay."""

    @workflow.run
    async def run(self, input: RenameGraphInput) -> Graph:  # noqa: A002 # wire name
        """Rename the record and its Schedule."""
        return await _carry_out(OperationActivities.rename_graph, input, describe=_describe_graph)


@workflow.defn(name=names.PLAN_EMBEDDING, failure_exception_types=FAILS_A_RUN)
class PlanEmbedding:
    """Say what another embedding of a graph would take. Nothing is written."""

    @workflow.run
    async def run(self, input: PlanEmbeddingInput) -> EmbeddingPlan:  # noqa: A002 # wire name
        """Return the plan."""
        return await _carry_out(
            OperationActivities.plan_embedding,
            input,
            describe=lambda plan: f"{plan.texts:,} texts, about {plan.tokens:,} tokens",
        )


@workflow.defn(name=names.DESCRIBE_EMBEDDING, failure_exception_types=FAILS_A_RUN)
class DescribeEmbedding:
    """Show a graph's embeddings: how far each is, and which one readers look at."""

    @workflow.run
    async def run(self, input: DescribeEmbeddingInput) -> EmbeddingStatus:  # noqa: A002 # wire name
        """Return their state."""
        return await _carry_out(
            OperationActivities.describe_embedding, input, describe=lambda found: found.outcome
        )


@workflow.defn(name=names.CHANGE_EMBEDDING, failure_exception_types=FAILS_A_RUN)
class ChangeEmbedding:
    """Start a second embedding of a graph, lead readers to it or back, or drop one of the two."""

    @workflow.run
    async def run(self, input: ChangeEmbeddingInput) -> EmbeddingStatus:  # noqa: A002 # wire name
        """Do what of the step is left to do, and return the state after it."""
        return await _carry_out(
            OperationActivities.change_embedding, input, describe=lambda found: found.outcome
        )


@workflow.defn(name=names.DESCRIBE_REBUILD, failure_exception_types=FAILS_A_RUN)
class DescribeRebuild:
    """Show how far the rebuild of a graph is, or what is in the way of one."""

    @workflow.run
    async def run(self, input: DescribeRebuildInput) -> RebuildStatus:  # noqa: A002 # wire name
        """Return its state."""
        return await _carry_out(
            OperationActivities.describe_rebuild, input, describe=lambda found: found.outcome
        )


@workflow.defn(name=names.CHANGE_REBUILD, failure_exception_types=FAILS_A_RUN)
class ChangeRebuild:
    """Start a second generation of a graph, lead readers to it once verified, or back, or drop one."""

    @workflow.run
    async def run(self, input: ChangeRebuildInput) -> RebuildStatus:  # noqa: A002 # wire name
        """Do what of the step is left to do, and return the state after it."""
        return await _carry_out(
            OperationActivities.change_rebuild, input, describe=lambda found: found.outcome, within=_LONG
        )


OPERATIONS: Final = (
    VerifyGraph,
    RetryFailures,
    DiscardFailures,
    SummarizeFailures,
    ListFailures,
    ListAudit,
    ListGraphAudit,
    ListUsage,
    SummarizeParked,
    ListParked,
    ExplainRow,
    ListGraphs,
    AddGraph,
    ChangeGraph,
    PromoteShadow,
    ListMaps,
    ShowMap,
    PutMap,
    TakeOverGraph,
    DecideColumns,
    DropCollections,
    DeleteGraph,
    RenameGraph,
    PlanEmbedding,
    DescribeEmbedding,
    ChangeEmbedding,
    DescribeRebuild,
    ChangeRebuild,
)
"""All workflows of operations, for registration by the worker."""


async def _carry_out(
    activity: MethodAsyncSingleParam[OperationActivities, RequestT, ResultT],
    request: RequestT,
    *,
    describe: Callable[[ResultT], str],
    within: timedelta = _SHORT,
) -> ResultT:
    """Run the activity; set the run's search attribute, and its summary and outcome as current details."""
    if request.about is not None and workflow.info().typed_search_attributes.get(GRAPH) is None:
        workflow.upsert_search_attributes([GRAPH.value_set(request.about)])
    workflow.set_current_details(request.summary)
    result = await workflow.execute_activity_method(
        activity,
        request,
        task_queue=names.operations_task_queue(workflow.info().task_queue),
        summary=request.summary[:200],
        start_to_close_timeout=within,
        schedule_to_close_timeout=2 * within,
        heartbeat_timeout=timedelta(seconds=20),
        retry_policy=_RETRY,
        priority=priority_of_operation(request.workflow),
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )
    workflow.set_current_details(f"{request.summary}\n\n{describe(result)}")
    return result


def _describe_promotion(done: Promotion) -> str:
    despite = "".join(f"\n- although {reason}" for reason in done.despite)
    return f"{done.outcome}{despite}"


def _describe_deletion(done: GraphDeleted) -> str:
    lines = [f"- {part.kind} {part.name}{' stays' if part.stays else ''}" for part in done.parts]
    return "\n".join([f"**{done.graph}** {'is deleted' if done.deleted else 'is not deleted'}", "", *lines])


def _describe_graph(graph: Graph) -> str:
    return f"**{graph.slug}** is {graph.status}, in schema `{graph.schema_name}`"


_SECONDS = timedelta(seconds=30)
_ONCE = RetryPolicy(maximum_attempts=1)
"""No retries: an operator waits, so a failure is returned at once, and the operator starts another run."""


# Local activities: a worker whose cycles take all of its slots still responds.
@workflow.defn(name=names.DESCRIBE_FLEET)
class DescribeFleet:
    """Return the registered workers, what each has installed, and the graphs that use it."""

    @workflow.run
    async def run(self) -> Fleet:
        """Return the fleet as registered in the control plane."""
        return await workflow.execute_local_activity_method(
            FleetActivities.describe_fleet,
            start_to_close_timeout=_SECONDS,
            retry_policy=_ONCE,
        )


@workflow.defn(name=names.DESCRIBE_HEALTH)
class DescribeHealth:
    """Run the health checks of everything that a worker needs, on one worker."""

    @workflow.run
    async def run(self) -> Health:
        """Return the checks of the worker that took this run."""
        return await workflow.execute_local_activity_method(
            FleetActivities.describe_health,
            HealthRequest(asked_at=workflow.now()),
            start_to_close_timeout=_SECONDS,
            retry_policy=_ONCE,
        )


@workflow.defn(name=names.DESCRIBE_GRAPHS)
class DescribeGraphs:
    """Return what waits and what was refused of each graph, by its state tables."""

    @workflow.run
    async def run(self, input: GraphNumbersRequest) -> GraphNumbersPage:  # noqa: A002 # wire name
        """Return one page of graphs."""
        return await workflow.execute_local_activity_method(
            FleetActivities.describe_graphs,
            input,
            start_to_close_timeout=_SECONDS,
            retry_policy=_ONCE,
        )
