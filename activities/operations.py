"""Activities of operations: inspect and change graphs for operators, with audit.

One module because a worker registers the methods of one class, each of which is a few lines over the library.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from temporalio import activity

from activities.errors import errors_translated
from activities.heartbeat import Heartbeater
from activities.metrics import record_verification
from activities.run import acting, bind_fields, run_identity
from syncline import names
from syncline.control.audit import GraphAuditPage
from syncline.control.graphs import Graph, GraphChanges, check_comes, graph_changes
from syncline.control.maps import MapDocument, MapPut
from syncline.control.services import Services
from syncline.control.usage import budgets_in_force, read_usage
from syncline.errors import GraphNotFound, InputInvalid, OperationRefused
from syncline.logs import get_log
from syncline.messages.base import GraphStatus
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
    VerificationProgress,
    VerifyGraphInput,
)
from syncline.messages.rebuild import ChangeRebuildInput, DescribeRebuildInput, RebuildStatus
from syncline.messages.takeover import Takeover
from syncline.messages.usage import UsageReport
from syncline.messages.verification import Verification
from syncline.operator.collections import drop_collections
from syncline.operator.dead_letters import (
    AuditPage,
    DeadLetterPage,
    FailureSummary,
    discard,
    list_audit,
    list_dead_letters,
    retry,
    show,
    summarize,
)
from syncline.operator.embedding_change import change_embedding, refuse_while_changing
from syncline.operator.embedding_plan import plan_embedding
from syncline.operator.embedding_state import describe_embedding, read_embeddings
from syncline.operator.explain import explain
from syncline.operator.explanation import Explanation
from syncline.operator.fleet import Fleet, describe_fleet
from syncline.operator.graph_deletion import delete_graph
from syncline.operator.graph_numbers import read_numbers
from syncline.operator.graph_state import GraphNumbersPage, GraphNumbersRequest
from syncline.operator.health.check import Health, HealthRequest
from syncline.operator.health.examine import examine
from syncline.operator.maps import map_of, not_compared
from syncline.operator.new_columns import decide_columns
from syncline.operator.parked import ParkedPage, ParkedSummary, list_parked, summarize_parked
from syncline.operator.rebuild import change_rebuild
from syncline.operator.rebuild_state import describe_rebuild, read_rebuild
from syncline.operator.schema import checked_limit, first_page, known_form
from syncline.operator.shared_collections import refuse_shared_by_graph
from syncline.operator.stored_maps import list_maps, put_map
from syncline.operator.taking_over import take_over_graph
from syncline.operator.verifying import verify_side
from syncline.provider import GraphSchema
from syncline.shadow.comparison import compare_with_shadow
from syncline.shadow.prepare import drop_shadow
from syncline.shadow.promote import promote
from syncline.temporal.runs import refuse_open_runs
from syncline.temporal.schedules.graph import (
    ensure_schedule,
    operators_pause,
    remove_schedule,
    rename_schedule,
)
from syncline.temporal.schedules.notes import PAUSED_WITH_GRAPH, graph_note
from syncline.temporal.shadow_runs import ShadowRuns

__all__ = ["FleetActivities", "OperationActivities"]

_LARGEST: Final = 1_500_000
"""Maximum bytes of a result: Temporal rejects a payload of more than two million."""


class OperationActivities:
    """Activities of operations, over one worker's services; idempotent, so that Temporal may retry them."""

    def __init__(self, services: Services, *, beat_seconds: float = 5.0) -> None:
        self._services = services
        self._beat_seconds = beat_seconds

    @activity.defn(name=names.VERIFY_GRAPH_ACTIVITY)
    async def verify_graph(self, request: VerifyGraphInput) -> Verification:
        """Compare the graph's stores; with `repair`, queue what differs for the next cycle."""
        services = self._services
        async with self._at_work(request) as beat:
            graph, shadow = await self._named(request.graph)
            graph_map = await map_of(services, graph, shadow=shadow)

            def compared(name: str, seen: int) -> None:
                beat(VerificationProgress(relation=name, compared=seen))

            if request.shadow:
                with graph_map.finding():
                    found = await compare_with_shadow(
                        services,
                        graph,
                        graph_map.schema_map,
                        tables=request.tables or None,
                        keys=request.keys,
                        vectors=request.vectors,
                        beat=compared,
                    )
                others = await map_of(services, graph, shadow=True)
                left_out = (
                    *await not_compared(services.target_schema(graph), graph_map, found),
                    *await not_compared(services.target_schema(graph, shadow=True), others, found),
                )
                found = found.model_copy(update={"not_compared": tuple(dict.fromkeys(left_out))})
                return _small_enough(found, request.keys)
            found = await verify_side(
                services,
                graph,
                graph_map,
                shadow=shadow,
                tables=request.tables or None,
                keys=request.keys,
                vectors=request.vectors,
                repair=await acting(request.who, request.why) if request.repair else None,
                beat=compared,
            )
            if not request.tables and request.vectors:
                ref = graph.shadow_ref if shadow else graph.ref
                record_verification(services.meter, found, graph=ref.slug)
            return _small_enough(found, request.keys)

    @activity.defn(name=names.TAKE_OVER_GRAPH_ACTIVITY)
    async def take_over_graph(self, request: TakeOverGraphInput) -> Takeover:
        """Compare a filled target with what a first sync would write; unless a dry run, prepare that."""
        async with self._at_work(request) as beat:
            found = await take_over_graph(
                self._services,
                request,
                actor=None if request.dry_run else await acting(request.who, request.why),
                beat=lambda name, seen: beat(VerificationProgress(relation=name, compared=seen)),
            )
            return found.model_copy(update={"found": _small_enough(found.found, request.keys)})

    @activity.defn(name=names.RETRY_FAILURES_ACTIVITY)
    async def retry_failures(self, request: RetryFailuresInput) -> FailuresActed:
        """Mark rejected rows for a retry in the next cycle."""
        return await self._act(request)

    @activity.defn(name=names.DISCARD_FAILURES_ACTIVITY)
    async def discard_failures(self, request: DiscardFailuresInput) -> FailuresActed:
        """Discard the rejected versions of rows."""
        return await self._act(request)

    @activity.defn(name=names.SUMMARIZE_FAILURES_ACTIVITY)
    async def summarize_failures(self, request: SummarizeFailuresInput) -> FailureSummary:
        """Count the rejected rows by cause."""
        async with self._at_work(request):
            target = await self._target(request.graph)
            return await summarize(target, table=request.table, state=request.state, limit=request.limit)

    @activity.defn(name=names.LIST_FAILURES_ACTIVITY)
    async def list_failures(self, request: ListFailuresInput) -> DeadLetterPage:
        """Return a page of the rejected rows, or the one with the key."""
        async with self._at_work(request):
            target = await self._target(request.graph)
            if request.key is not None:
                if request.table is None:
                    raise InputInvalid("`key` needs `table`: name the table of the key.")
                key = await self._key(request.graph, request.table, request.key)
                letter = await show(target, request.table, key)
                return DeadLetterPage(letters=() if letter is None else (letter,))
            return await list_dead_letters(
                target,
                table=request.table,
                fingerprint=request.fingerprint,
                state=request.state,
                limit=request.limit,
                after=request.after,
            )

    @activity.defn(name=names.LIST_AUDIT_ACTIVITY)
    async def list_audit(self, request: ListAuditInput) -> AuditPage:
        """Return a page of the audited actions of operators on the graph's rows."""
        async with self._at_work(request):
            target = await self._target(request.graph)
            return await list_audit(target, limit=request.limit, before=request.before)

    @activity.defn(name=names.LIST_GRAPH_AUDIT_ACTIVITY)
    async def list_graph_audit(self, request: ListGraphAuditInput) -> GraphAuditPage:
        """Return a page of audited changes of graph records: added, changed, archived, promoted, by whom."""
        async with self._at_work(request):
            limit = checked_limit(request.limit)
            return await self._services.graphs.audited(request.graph, limit=limit, before=request.before)

    @activity.defn(name=names.LIST_USAGE_ACTIVITY)
    async def list_usage(self, request: ListUsageInput) -> UsageReport:
        """Return what embeddings used, by month and graph, with a graph its newest runs, and its budgets."""
        services = self._services
        async with self._at_work(request):
            limit = checked_limit(request.limit)
            graph = None if request.graph is None else await services.graphs.get(request.graph)
            listed = [graph] if graph is not None else (await services.graphs.records()).valid
            return await read_usage(
                services.control,
                graph,
                month=request.month,
                limit=limit,
                budgets=budgets_in_force(listed, services=services.service_budgets),
            )

    @activity.defn(name=names.SUMMARIZE_PARKED_ACTIVITY)
    async def summarize_parked(self, request: SummarizeParkedInput) -> ParkedSummary:
        """Count the parked rows by missing parent, and why that parent does not arrive."""
        async with self._at_work(request):
            graph, shadow = await self._named(request.graph)
            write = self._services.write_schema(graph)
            target = self._services.target_schema(graph, shadow=shadow)
            known = (await map_of(self._services, graph, shadow=shadow)).schema_map
            return await summarize_parked(write, target, known, limit=request.limit)

    @activity.defn(name=names.LIST_PARKED_ACTIVITY)
    async def list_parked(self, request: ListParkedInput) -> ParkedPage:
        """Return a page of the parked rows of one table."""
        async with self._at_work(request):
            graph, shadow = await self._named(request.graph)
            target = self._services.target_schema(graph, shadow=shadow)
            known = await map_of(self._services, graph, shadow=shadow)
            with known.finding():
                return await list_parked(
                    target, known.schema_map, request.table, limit=request.limit, after=request.after
                )

    @activity.defn(name=names.EXPLAIN_ROW_ACTIVITY)
    async def explain_row(self, request: ExplainRowInput) -> Explanation:
        """Trace one row through the stores: its state in each, and what delays it."""
        services = self._services
        async with self._at_work(request):
            graph, shadow = await self._named(request.graph)
            known = await map_of(services, graph, shadow=shadow)
            with known.finding():
                return await explain(
                    services.write_schema(graph),
                    services.target_schema(graph, shadow=shadow),
                    services.graph_vectors(graph, shadow=shadow),
                    known.schema_map,
                    table=request.table,
                    key=request.key,
                )

    @activity.defn(name=names.LIST_GRAPHS_ACTIVITY)
    async def list_graphs(self, request: ListGraphsInput) -> GraphPage:
        """Return a page of graph records, or the named one."""
        graphs = self._services.graphs
        async with self._at_work(request):
            if request.graph is not None:
                return GraphPage(graphs=(await graphs.get(request.graph),))
            found = await graphs.list(after=request.after)
            page = first_page(found, checked_limit(request.limit))
            return GraphPage(graphs=page, next=page[-1].slug if len(found) > len(page) else None)

    @activity.defn(name=names.ADD_GRAPH_ACTIVITY)
    async def add_graph(self, request: AddGraphInput) -> Graph:
        """Create the record, the schemas in both stores and the Schedule, unless they exist.

        A new Schedule starts a run immediately, unless its time is a cron expression.
        """
        services, task_queue = self._services, self._services.settings.task_queue
        async with self._at_work(request):
            check_comes(request.draft.slug, request.draft.schedule)
            await services.prepare_control()
            await refuse_shared_by_graph(services, request.draft)
            actor = await acting(request.who, request.why)
            graph = await services.graphs.ensure(request.draft, prepare=services.prepare_graph, actor=actor)
            if request.schedule:
                await ensure_schedule(activity.client(), graph, task_queue=task_queue, start_now=True)
            return graph

    @activity.defn(name=names.CHANGE_GRAPH_ACTIVITY)
    async def change_graph(self, request: ChangeGraphInput) -> GraphChanged:
        """Change the record and update the Schedule to match; report a pause by an operator."""
        services, client = self._services, activity.client()
        async with self._at_work(request):
            present = await services.graphs.get(request.graph)
            generation = 1
            if request.embedding is not None:
                generation = await refuse_while_changing(services, present, action="set")
            fields = request.model_dump(
                exclude={"graph", "schedule", "vectors", "embedding", "drop_shadow", "who", "why"}
            )
            if request.schedule:
                fields["schedule"] = {**present.schedule.model_dump(), **request.schedule}
            if request.vectors:
                fields["vectors"] = {**present.vectors.model_dump(), **request.vectors}
            actor = await acting(request.who, request.why)
            changes = graph_changes(present.slug, fields)
            if changes.composition is not None:
                await services.check_tenants(changes.composition)
                await refuse_shared_by_graph(
                    services, present.model_copy(update={"composition": changes.composition})
                )
            graph = await services.graphs.update(present.id, changes, actor=actor)
            task_queue = services.settings.task_queue
            paused = request.status is GraphStatus.PAUSED
            await ensure_schedule(
                client,
                graph,
                task_queue=task_queue,
                start_now=True,
                graph_note=graph_note(request.why, request.who) if paused else PAUSED_WITH_GRAPH,
            )
            if request.embedding is not None:
                await services.embedding_records.accept(graph.id, request.embedding, generation)
                await services.graphs.audit(graph, "embedding", actor, fields=[request.embedding])
            if request.drop_shadow:
                # A record that declares no shadow any longer does not say its map: the live one's is near.
                shadows = await map_of(services, graph, shadow=graph.shadowed)
                await drop_shadow(services, graph, shadows.schema_map)
                await services.graphs.audit(graph, "drop-shadow", actor)
            mine = services.embedding.name
            return GraphChanged(
                graph=graph,
                operators_pause=await operators_pause(client, graph),
                other_embedding=mine if request.embedding not in (None, mine) else None,
            )

    @activity.defn(name=names.PROMOTE_SHADOW_ACTIVITY)
    async def promote_shadow(self, request: PromoteShadowInput) -> Promotion:
        """Swap a graph and its shadow; steps that an earlier attempt completed are skipped."""
        services = self._services
        async with self._at_work(request):
            graph = await services.graphs.get(request.graph)
            return await promote(
                services,
                graph,
                (await map_of(services, graph)).schema_map,
                actor=await acting(request.who, request.why),
                force=request.force,
            )

    @activity.defn(name=names.DROP_COLLECTIONS_ACTIVITY)
    async def drop_collections(self, request: DropCollectionsInput) -> CollectionsDropped:
        """Drop the graph's collections, audited; without `drop`, return what would be dropped."""
        services = self._services
        async with self._at_work(request):
            graph, shadow = await self._named(request.graph)
            known = (await map_of(services, graph, shadow=shadow)).schema_map
            actor = await acting(request.who, request.why) if request.drop else None
            return await drop_collections(
                services, graph, known, shadow=shadow, named=request.collections, actor=actor
            )

    @activity.defn(name=names.DELETE_GRAPH_ACTIVITY)
    async def delete_graph(self, request: DeleteGraphInput) -> GraphDeleted:
        """Delete a graph that no run syncs, audited; without `delete`, return what would go."""
        services, client = self._services, activity.client()
        async with self._at_work(request):
            try:
                graph = await services.graphs.get(request.graph)
            except GraphNotFound:
                # The record goes last: an attempt that deleted it has done all.
                gone = await services.graphs.audited_by(run_identity().run_id, "delete")
                if gone is None:
                    raise
                return GraphDeleted(graph=gone, deleted=True)
            known = await map_of(services, graph)
            remove = partial(remove_schedule, client, graph.slug, task_queue=services.settings.task_queue)
            if not request.delete:
                return await delete_graph(
                    services, graph, known, keep_data=request.keep_data, actor=None, remove_schedule=remove
                )
            actor = await acting(request.who, request.why)
            await refuse_open_runs(client, graph.slug)
            if request.archive and graph.status is not GraphStatus.ARCHIVED:
                archived = GraphChanges(status=GraphStatus.ARCHIVED)
                graph = await services.graphs.update(graph.id, archived, actor=actor)
            return await delete_graph(
                services, graph, known, keep_data=request.keep_data, actor=actor, remove_schedule=remove
            )

    @activity.defn(name=names.RENAME_GRAPH_ACTIVITY)
    async def rename_graph(self, request: RenameGraphInput) -> Graph:
        """Give a graph that no run syncs another slug, and a Schedule of that name in the same state."""
        services, client = self._services, activity.client()
        async with self._at_work(request):
            before = await services.graphs.audited_by(run_identity().run_id, "rename")
            if before is None:
                graph = await services.graphs.get(request.graph)
                await refuse_open_runs(client, graph.slug)
                actor = await acting(request.who, request.why)
                before, graph = graph.slug, await services.graphs.rename(graph, request.to, actor=actor)
            else:
                graph = await services.graphs.get(request.to)
            await rename_schedule(client, before, graph, task_queue=services.settings.task_queue)
            return graph

    @activity.defn(name=names.PLAN_EMBEDDING_ACTIVITY)
    async def plan_embedding(self, request: PlanEmbeddingInput) -> EmbeddingPlan:
        """Return what another embedding of the graph would take; the new service embeds one word."""
        services = self._services
        async with self._at_work(request):
            graph = await services.graphs.get(request.graph)
            known = (await map_of(services, graph)).schema_map
            return await plan_embedding(services, graph, known, embedding=request.embedding)

    @activity.defn(name=names.DESCRIBE_EMBEDDING_ACTIVITY)
    async def describe_embedding(self, request: DescribeEmbeddingInput) -> EmbeddingStatus:
        """Return how far each generation of the graph's vectors is, and which one readers look at."""
        services = self._services
        async with self._at_work(request):
            graph = await services.graphs.get(request.graph)
            known = (await map_of(services, graph)).schema_map
            return await describe_embedding(await read_embeddings(services, graph, known))

    @activity.defn(name=names.CHANGE_EMBEDDING_ACTIVITY)
    async def change_embedding(self, request: ChangeEmbeddingInput) -> EmbeddingStatus:
        """Start, switch, roll back or drop, audited; steps that were done before are skipped."""
        services = self._services
        async with self._at_work(request):
            graph = await services.graphs.get(request.graph)
            known = (await map_of(services, graph)).schema_map
            actor = await acting(request.who, request.why)
            return await change_embedding(services, graph, known, request, actor=actor)

    @activity.defn(name=names.DESCRIBE_REBUILD_ACTIVITY)
    async def describe_rebuild(self, request: DescribeRebuildInput) -> RebuildStatus:
        """Return how far the rebuild of the graph is, or what is in the way of one."""
        services = self._services
        async with self._at_work(request):
            graph = await services.graphs.get(request.graph)
            return await describe_rebuild(await read_rebuild(services, graph, await map_of(services, graph)))

    @activity.defn(name=names.CHANGE_REBUILD_ACTIVITY)
    async def change_rebuild(self, request: ChangeRebuildInput) -> RebuildStatus:
        """Start, switch, roll back or drop, audited; steps that were done before are skipped."""
        services = self._services
        async with self._at_work(request) as beat:
            graph = await services.graphs.get(request.graph)
            return await change_rebuild(
                services,
                graph,
                await map_of(services, graph),
                request,
                actor=await acting(request.who, request.why),
                runs=ShadowRuns(activity.client(), graph.slug, task_queue=services.settings.task_queue),
                beat=lambda name, seen: beat(VerificationProgress(relation=name, compared=seen)),
            )

    @activity.defn(name=names.LIST_MAPS_ACTIVITY)
    async def list_maps(self, request: ListMapsInput) -> MapPage:
        """Return a page of stored maps, or of the versions of one, each with the graphs that it syncs."""
        async with self._at_work(request):
            return await list_maps(self._services, request)

    @activity.defn(name=names.SHOW_MAP_ACTIVITY)
    async def show_map(self, request: ShowMapInput) -> MapDocument:
        """Return a version of a stored map as it was written, the newest if none is named."""
        async with self._at_work(request):
            return await self._services.maps.get(request.name, request.version)

    @activity.defn(name=names.PUT_MAP_ACTIVITY)
    async def put_map(self, request: PutMapInput) -> MapPut:
        """Store a document as the next version of a map, unless the newest version has it already."""
        async with self._at_work(request):
            await self._services.prepare_control()
            return await put_map(self._services, request, await acting(request.who, request.why))

    @activity.defn(name=names.DECIDE_COLUMNS_ACTIVITY)
    async def decide_columns(self, request: DecideColumnsInput) -> ColumnsDecided:
        """Take columns that wait for a decision into target and stored map, or have the map ignore them."""
        async with self._at_work(request):
            return await decide_columns(self._services, request, await acting(request.who, request.why))

    async def _act(self, request: RetryFailuresInput | DiscardFailuresInput) -> FailuresActed:
        act = retry if isinstance(request, RetryFailuresInput) else discard
        async with self._at_work(request):
            target = await self._target(request.graph)
            by = await acting(request.who, request.why)
            if request.key is not None and request.table is not None:
                key = await self._key(request.graph, request.table, request.key)
                request = request.model_copy(update={"key": key})
            return FailuresActed(rows=await act(target, request.selection, by=by))

    async def _key(self, reference: str, table: str, key: tuple[str, ...]) -> tuple[str, ...]:
        """Return a key as dead letters have it, however it was typed."""
        graph, shadow = await self._named(reference)
        return known_form((await map_of(self._services, graph, shadow=shadow)).schema_map, table, key)

    async def _named(self, reference: str) -> tuple[Graph, bool]:
        """Return the graph with this slug or id, and whether the reference names its shadow."""
        slug = names.shadowed_slug(reference)
        return await self._services.graphs.get(slug or reference), slug is not None

    async def _target(self, reference: str) -> GraphSchema:
        graph, shadow = await self._named(reference)
        return self._services.target_schema(graph, shadow=shadow)

    @asynccontextmanager
    async def _at_work(self, request: OperationInput) -> AsyncIterator[Heartbeater[VerificationProgress]]:
        """Heartbeat, translate errors, and log the end of the operation."""
        bind_fields(graph=request.about or "", activity=activity.info().activity_type)
        with errors_translated():
            served = self._services.settings.operations
            if served == "none" or (served == "read" and request.changes):
                raise OperationRefused(request.workflow, served=served)
            async with Heartbeater[VerificationProgress](beat_seconds=self._beat_seconds) as beat:
                yield beat
        get_log().info("operation ended", attempt=activity.info().attempt)


def _small_enough(found: Verification, keys: int) -> Verification:
    """Return the verification with as many keys as fit into a result."""
    while keys and len(found.model_dump_json().encode()) > _LARGEST:
        keys //= 2
        found = found.naming(keys)
    return found


class FleetActivities:
    """Activities on fleet and health, over one worker's services. `identity` is the worker's identity."""

    def __init__(self, services: Services | None, *, identity: str = "worker") -> None:
        self._opened = services
        self._identity = identity

    @activity.defn(name=names.DESCRIBE_FLEET_ACTIVITY)
    async def describe_fleet(self) -> Fleet:
        """Return the registered workers, what each has installed, and the graphs that use it."""
        with errors_translated(activity=names.DESCRIBE_FLEET_ACTIVITY):
            return await describe_fleet(self._services())

    @activity.defn(name=names.DESCRIBE_HEALTH_ACTIVITY)
    async def describe_health(self, request: HealthRequest) -> Health:
        """Return all health checks as seen from this worker; a failed check does not fail the activity."""
        return await examine(
            self._services(),
            identity=self._identity,
            namespace=activity.client().namespace,
            asked_at=request.asked_at,
        )

    @activity.defn(name=names.DESCRIBE_GRAPHS_ACTIVITY)
    async def describe_graphs(self, request: GraphNumbersRequest) -> GraphNumbersPage:
        """Return a page of what the state tables of graphs say; a store that is away concerns its graphs."""
        services = self._services()
        with errors_translated(activity=names.DESCRIBE_GRAPHS_ACTIVITY):
            records = await services.graphs.records()
            return await read_numbers(
                services,
                records,
                graph=request.graph,
                after=request.after,
                limit=request.limit,
                seconds=request.seconds,
            )

    def _services(self) -> Services:
        if self._opened is None:
            raise RuntimeError("FleetActivities has no services, so its activities cannot run")
        return self._opened
