"""The two activities of a `SyncGraph` run: resolve the graph's provider, and run one cycle.

One module because the second relies on what the first has resolved.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from activities.errors import errors_translated
from activities.heartbeat import Heartbeater
from activities.isolation.limits import GRACE, RunCycle, contained
from activities.isolation.thread import RunningCycles
from activities.linger import LingerPlaces
from activities.loads import CycleLanes
from activities.metrics import record_cycle, record_cycle_error, record_fallback, record_held
from activities.preparation import Preparation
from activities.run import (
    bind_fields,
    run_identity,
    run_is_over,
    signal_fallback,
    signal_held,
    signal_returned,
    signal_run,
    trigger_next,
    with_holder,
)
from syncline import names
from syncline.capture.listen.status import ListenerStatus
from syncline.concurrency import PATIENCE
from syncline.control.graphs import Graph
from syncline.control.maps import MapOptions
from syncline.control.resolution import Resolved, resolve_sync_provider, resolved_before
from syncline.control.services import Services
from syncline.engine import run_cycle as run_builtin_cycle
from syncline.errors import (
    CompositionChanged,
    GraphInvalid,
    ProviderGone,
    ProviderMissing,
)
from syncline.logs import get_log
from syncline.messages.base import GraphStatus, Message
from syncline.messages.provider_state import Fallback, Held, Served, UsedMap
from syncline.messages.sync import (
    CadenceRules,
    Committed,
    CycleProgress,
    CycleStatus,
    ProviderResolution,
    ResolveProviderRequest,
    SyncCycleRequest,
    SyncResult,
)
from syncline.provider import (
    API_VERSION,
    CycleBudget,
    Linger,
    Meter,
    NoOptions,
    RetryRules,
    RunIdentity,
    SyncContext,
    SyncProvider,
)
from syncline.shadow.prepare import prepare_shadow
from syncline.temporal.schedules.graph import graph_fingerprint

__all__ = ["SyncActivities"]

_OWN: Final = version("syncline")
"""Version of the built-in engine, read from disk once."""
_ASKED_AGAIN: Final = 3600.0
_BUSY: Final = 5.0
"""Factor of the wait for a provider whose workers are known to be running: a task that times out loses its
place in the queue, so under load the longest-waiting cycles would never start."""


class SyncActivities:
    """Activities of `SyncGraph`, over one worker's services. Running cycles are registered in `under_way`."""

    def __init__(
        self,
        services: Services | None,
        *,
        beat_seconds: float = 5.0,
        signal_seconds: float = 60.0,
        grace_seconds: float = GRACE,
        patience_seconds: float = PATIENCE,
        under_way: RunningCycles | None = None,
        answer_seconds: float = 120.0,
    ) -> None:
        """Take the services, and the timings of heartbeats, signals and routed cycles.

        A routed cycle waits `answer_seconds` for a worker before the provider is resolved again; by then a
        killed worker no longer counts as running. Progress is signalled to the run every `signal_seconds`:
        each signal stays in its history and is replayed.
        """
        self._opened = services
        self._grace_seconds, self._patience_seconds = grace_seconds, patience_seconds
        self._under_way = under_way or RunningCycles()
        self._answer_seconds = answer_seconds
        self._listener_status: ListenerStatus | None = None
        self._alone: dict[UUID, tuple[float, bool]] = {}
        self._beat_seconds = beat_seconds
        self._signal_seconds = signal_seconds
        self._preparation = Preparation()
        self._places = LingerPlaces(0 if services is None else services.settings.max_concurrent_cycles)

    @activity.defn(name=names.RESOLVE_PROVIDER)
    async def resolve_provider(self, request: ResolveProviderRequest) -> ProviderResolution:
        """Return the provider that serves the graph, or whether it is in fallback or held without one.

        Fallback and hold are signalled to the run, as audit events. If the provider cannot be resolved (the
        control plane is down, the graph is unknown or archived, its composition is invalid), that is an
        error and never a fallback. A paused graph can be synced by a manual run.
        """
        # The control plane may hang; heartbeats reveal a worker that dies meanwhile.
        with self._places.working():
            async with Heartbeater[CycleProgress](beat_seconds=self._beat_seconds):
                return await self._resolve(request)

    async def _resolve(self, request: ResolveProviderRequest) -> ProviderResolution:
        services = self._services()
        bind_fields(graph=request.graph or "")
        shadow = names.shadow_slug(request.graph or "") if request.shadow else ""
        with _errors_counted(services.meter, activity=names.RESOLVE_PROVIDER, graph=shadow):
            resolved = await resolve_sync_provider(services, request.graph, shadow=request.shadow)
            graph = resolved.graph or await services.graphs.default()
            _refuse_archived(graph)
            ref = graph.shadow_ref if request.shadow else graph.ref
            shadowed = graph.shadowed and not request.shadow
            bind_fields(graph=ref.slug)
            cadence = None if request.shadow else await self._cadence_rules(services, graph)
            resolution = partial(
                ProviderResolution,
                graph=ref,
                cadence=cadence,
                shadowed=shadowed,
                fairness=graph.fairness if request.fairness else None,
            )
            found = resolved.provider or resolved.elsewhere
            if found is not None:
                answer = resolution(
                    provider_id=found.id,
                    provider_version=found.version,
                    api_version=found.api_version,
                    distribution=resolved.distribution,
                    fingerprint=graph.fingerprint,
                    map=resolved.map,
                )
                return self._routed(services, request, answer) if resolved.routed else answer
            if resolved.reason is None:
                raise RuntimeError("resolution returned neither a provider nor a reason")
            entry = resolved.entry
            if entry is not None and entry.on_missing == "fail":
                raise ProviderMissing(ref.slug, entry.provider, why=resolved.detail)
        if entry is not None and entry.on_missing == "hold":
            held = Held(provider_id=entry.provider, detail=resolved.detail)
            record_held(services.meter, graph=ref.slug, provider=entry.provider)
            await signal_held(ref, held)
            return resolution(provider_id=entry.provider, held=held)
        fallback = Fallback(
            reason=resolved.reason,
            detail=resolved.detail,
            provider_id=None if entry is None else entry.provider,
        )
        await signal_fallback(ref, fallback)
        return resolution(fallback=fallback)

    @activity.defn(name=names.SYNC_CYCLE)
    async def sync_cycle(self, request: SyncCycleRequest) -> SyncResult:
        """Run one cycle with the resolved provider, or with the built-in engine if there is none."""
        services = self._services()
        graph, provider = request.graph.slug, request.provider_id or names.FALLBACK_PROVIDER
        run = replace(run_identity(), provider=provider)
        bind_fields(graph=graph, provider=provider)
        beat = Heartbeater[CycleProgress](
            _signal_progress,
            beat_seconds=self._beat_seconds,
            progress_seconds=request.progress_seconds,
            announce_seconds=max(self._signal_seconds, request.progress_seconds or 0.0),
        )
        try:
            with (
                _errors_counted(
                    services.meter,
                    partial(_committed, beat),
                    graph=graph,
                    activity=names.SYNC_CYCLE,
                    attempt=run.attempt,
                ),
                self._under_way.entered(graph),
                self._places.working(),
            ):
                async with beat:
                    result = await self._run_cycle(services, request, run, beat)
                    if result.status is CycleStatus.ALREADY_RUNNING:
                        result = await with_holder(request, result, run_id=run.run_id)
        except asyncio.CancelledError:
            get_log().info("cycle cancelled", attempt=run.attempt)
            raise
        except Exception as error:
            gone = isinstance(error, ApplicationError) and error.type == ProviderGone.__name__
            if not gone:
                # Otherwise a fallback whose cycles keep failing would not be visible.
                since = _fallback_since(request)
                record_fallback(services.meter, graph=graph, provider=provider, fallback_since=since)
            raise
        record_cycle(
            services.meter, result, graph=graph, provider=provider, fallback_since=_fallback_since(request)
        )
        get_log().info(
            "cycle ended",
            status=result.ended_as,
            rows=result.rows,
            failures=result.failures,
            seconds=round(result.duration_seconds, 3),
        )
        if result.look_owed and not request.shadow:
            await trigger_next(graph, task_queue=services.settings.task_queue)
        await signal_returned(request, result)
        return result

    async def _run_cycle(
        self,
        services: Services,
        request: SyncCycleRequest,
        run: RunIdentity,
        beat: Heartbeater[CycleProgress],
    ) -> SyncResult:
        run_cycle: RunCycle
        options: BaseModel
        graph = await services.graphs.get(request.graph.id)
        if request.provider_id is None:
            run_cycle = run_builtin_cycle
            options, served, plugin = NoOptions(), _served(_OWN, API_VERSION, f"syncline {_OWN}"), None
        else:
            used = request.map
            if request.fingerprint == graph.fingerprint:
                resolved = resolved_before(services, graph, shadow=request.shadow)
            else:
                resolved = await resolve_sync_provider(services, graph.id, shadow=request.shadow)
                used = resolved.map
            graph, origin = _still_resolved(resolved, request.provider_id)
            options = resolved.validated()
            if isinstance(options, MapOptions):
                options = options.pinned(used)
            provider = await services.registry.initialized("sync", request.provider_id, services)
            run_cycle = self._preparation.first(provider, options)
            plugin = type(provider).__module__.partition(".")[0] if resolved.routed else None
            served = _served(provider.version, provider.api_version, origin, used)
        _refuse_archived(graph)
        if request.shadow and request.provider_id is not None:
            await prepare_shadow(services, graph, request.provider_id)
        ref = graph.shadow_ref if request.shadow else graph.ref
        async with AsyncExitStack() as booked:
            metered = [
                await booked.enter_async_context(
                    services.usage.cycle(
                        graph,
                        slug=ref.slug,
                        run_id=run.run_id,
                        service=one.service,
                        batch=one.settings.embedding_batch,
                    )
                )
                for one in services.offered
            ]
            (embedding, account), *further = metered
            result = await contained(
                run_cycle,
                SyncContext(
                    graph=ref,
                    run=replace(run, provider_version=served.version),
                    write=services.write_schema(graph),
                    target=services.target_schema(graph, shadow=request.shadow),
                    vectors=services.graph_vectors(graph, shadow=request.shadow),
                    embedding=embedding,
                    budget=CycleBudget(
                        batch_rows=request.batch_rows or services.settings.batch_rows,
                        seconds=request.time_budget_seconds or services.settings.cycle_seconds,
                        rows_per_second=await _pace(services, graph) if request.shadow else None,
                    ),
                    options=options,
                    heartbeat=beat,
                    log=get_log(),
                    meter=services.meter,
                    retry=RetryRules.of(services.settings),
                    removal_share=services.settings.removal_share,
                    shadow=request.shadow,
                    alone=await self._reads_alone(services, graph),
                    may_embed=partial(services.embedding_refusal, graph),
                    second_embedding=further[0][0] if further else None,
                    embedding_of=partial(services.embedding_of, graph),
                    run_is_over=run_is_over,
                    linger=self._linger(services, request, graph),
                    lanes=_lanes(services, request, run),
                ),
                distribution=served.distribution,
                plugin=plugin,
                grace=self._grace_seconds,
                patience=self._patience_seconds,
            )
        booked_use = account.result()
        for _, of_second in further:
            more = of_second.result()
            booked_use = more if booked_use is None else booked_use.plus(more)
        return result.model_copy(
            update={
                "served": served,
                "embedding": booked_use,
                "max_lag_seconds": graph.max_lag_seconds,
            }
        )

    async def _reads_alone(self, services: Services, graph: Graph) -> bool:
        """Return whether no other graph reads the same write schema; at most an hour old.

        That is recent enough: tombstones are pruned after a week, and a new graph reads every row from the
        beginning.
        """
        asked_at, alone = self._alone.get(graph.id, (-_ASKED_AGAIN, False))
        if time.monotonic() - asked_at >= _ASKED_AGAIN:
            alone = await services.graphs.alone(graph)
            self._alone[graph.id] = time.monotonic(), alone
        return alone

    def _linger(self, services: Services, request: SyncCycleRequest, graph: Graph) -> Linger | None:
        """Return what lets the cycle linger: the engine's own; a plugin may have more to do at its end."""
        ours = request.provider_id in (None, names.DEFAULT_PROVIDER)
        return self._places.of(services, graph) if request.linger and ours else None

    def _routed(
        self, services: Services, request: ResolveProviderRequest, answer: ProviderResolution
    ) -> ProviderResolution:
        """Return the resolution with the task queue of the provider's workers and how long to wait there."""
        provider_id, seconds = answer.provider_id or "", self._answer_seconds
        if request.unanswered == provider_id:
            # Workers with the provider are running: they are busy.
            get_log().info("provider is busy", provider=provider_id)
            seconds *= _BUSY
        queue = names.provider_task_queue(services.settings.task_queue, provider_id)
        return answer.model_copy(update={"task_queue": queue, "answer_seconds": seconds})

    async def _cadence_rules(self, services: Services, graph: Graph) -> CadenceRules | None:
        """Return the intervals of an adaptive graph; only the base while changes are not announced."""
        if not graph.schedule.adaptive:
            return None
        if self._listener_status is None:
            self._listener_status = ListenerStatus(services, namespace=activity.client().namespace)
        unheard = await self._listener_status.reason_unavailable(graph)
        intervals = graph.schedule.intervals
        return CadenceRules(
            intervals=intervals if unheard is None else intervals[:1],
            fingerprint=graph_fingerprint(graph, services.settings.task_queue),
            unheard=unheard,
        )

    def _services(self) -> Services:
        if self._opened is None:
            raise RuntimeError(
                "SyncActivities has no services, so no activity can run. Open them first: "
                "`async with Services.open(settings) as services: SyncActivities(services)`."
            )
        return self._opened


@contextmanager
def _errors_counted(
    meter: Meter,
    details: Callable[[], Sequence[Message]] = tuple,
    *,
    activity: str,
    graph: str = "",
    **fields: object,
) -> Iterator[None]:
    """Translate errors for Temporal, and count them; without `graph`, for the graph that the error names."""
    try:
        with errors_translated(details, activity=activity, **fields):
            yield
    except Exception as error:
        named = getattr(error.__cause__, "graph", "")
        record_cycle_error(
            meter, error, graph=graph or (named if isinstance(named, str) else ""), activity=activity
        )
        raise


def _lanes(services: Services, request: SyncCycleRequest, run: RunIdentity) -> CycleLanes | None:
    """Return what calls lanes for the cycle's loads: a plugin's provider has none."""
    ours = request.provider_id in (None, names.DEFAULT_PROVIDER)
    number = services.settings.load_lanes
    return CycleLanes(number, attempt=run.attempt) if ours and number > 1 else None


async def _pace(services: Services, graph: Graph) -> int | None:
    """Return how many rows a second a rebuild may read, until it is switched; None without a limit."""
    if not graph.rebuilt:
        return None
    rebuild = await services.rebuilds.get(graph.id)
    return None if rebuild is None or rebuild.switched(graph) else rebuild.rows_per_second


def _fallback_since(request: SyncCycleRequest) -> float | None:
    """Return `fallback_since` as `record_cycle` expects it."""
    if request.provider_id is not None:
        return 0.0
    return None if request.fallback_since is None else request.fallback_since.timestamp()


def _committed(beat: Heartbeater[CycleProgress]) -> Sequence[Committed]:
    """Return what the cycle had committed, by the last progress of this attempt or the previous one."""
    # A plugin may heartbeat with anything.
    reported = [beat.latest] if isinstance(beat.latest, CycleProgress) else _progress_before()
    return [progress.committed for progress in reported[:1]]


def _progress_before() -> Sequence[CycleProgress]:
    try:
        return [CycleProgress.model_validate(details) for details in activity.info().heartbeat_details]
    except ValidationError:
        return []


def _refuse_archived(graph: Graph) -> None:
    if graph.status is GraphStatus.ARCHIVED:
        raise GraphInvalid(graph.slug, "status", "an archived graph is not synced; make it active or paused.")


def _still_resolved(resolved: Resolved[SyncProvider], provider_id: str) -> tuple[Graph, str]:
    """Return the graph and the provider's distribution, or raise if the resolution has changed.

    A cycle is retried for hours, on any worker, and the composition can be edited meanwhile.
    """
    graph, entry = resolved.graph, resolved.entry
    if graph is None:
        raise RuntimeError("a graph was named, and resolution returned none")
    if entry is None or entry.provider != provider_id:
        declared = None if entry is None else entry.provider
        raise CompositionChanged(graph.slug, resolved=provider_id, declared=declared)
    if resolved.provider is None or resolved.distribution is None:
        raise ProviderGone(graph.slug, provider_id)
    return graph, resolved.distribution


def _served(
    provider_version: str, api_version: int, distribution: str, used: UsedMap | None = None
) -> Served:
    return Served(
        version=provider_version,
        api_version=api_version,
        distribution=distribution,
        worker=activity.client().identity,
        map=used,
    )


async def _signal_progress(progress: CycleProgress) -> None:
    """Signal the progress to the run; a failed signal must not fail the cycle."""
    try:
        await signal_run(names.CYCLE_PROGRESS, progress)
    except RPCError as error:
        get_log().debug("progress not signalled", error=str(error))
