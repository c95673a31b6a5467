"""The activity of one lane of a cycle's loads, and what calls lanes from within a cycle."""

import time
from dataclasses import replace
from typing import Final

from pydantic import BaseModel
from temporalio import activity
from temporalio.service import RPCError

from activities.errors import errors_translated
from activities.heartbeat import Heartbeater
from activities.run import bind_fields, run_identity, signal_run
from syncline import names
from syncline.control.graphs import Graph
from syncline.control.maps import MapOptions
from syncline.control.resolution import resolved_before
from syncline.control.services import Services
from syncline.logs import get_log
from syncline.messages.base import GraphStatus
from syncline.messages.sync import CycleProgress, LaneEnd, LaneResult, LanesCalled, LoadRangesRequest
from syncline.provider import (
    CycleBudget,
    Lanes,
    LoadingProvider,
    NoOptions,
    RetryRules,
    SyncContext,
)

__all__ = ["CycleLanes", "LoadActivities"]

_SECONDS: Final = 60.0
"""Time after which a lane ends, and its run starts it again: behind those of other graphs."""


class CycleLanes(Lanes):
    """Calls the lanes of one attempt of a cycle: its run starts them."""

    def __init__(self, number: int, *, attempt: int) -> None:
        self._number, self._attempt, self._called = number, attempt, False

    @property
    def number(self) -> int:
        """Return how many lanes a load may have."""
        return self._number

    async def call(self) -> None:
        """Signal the run, once; what cannot be sent now is sent at the next turn."""
        if self._called:
            return
        try:
            await signal_run(names.LANES_CALLED, LanesCalled(attempt=self._attempt, lanes=self._number - 1))
        except RPCError as error:
            get_log().info("lanes not called", error=str(error))
        else:
            self._called = True


class LoadActivities:
    """The activity of lanes, over one worker's services. Its slots are apart from those of cycles."""

    def __init__(self, services: Services | None, *, seconds: float = _SECONDS) -> None:
        self._opened = services
        self._seconds = seconds

    @activity.defn(name=names.LOAD_RANGES)
    async def load_ranges(self, request: LoadRangesRequest) -> LaneResult:
        """Apply ranges of the loads of a running cycle, until none is left or its time is over.

        It ends quietly if another attempt or run has the graph, and if the record has changed since the run
        resolved it: what it would write may not be what the cycle writes.
        """
        services = self._services()
        bind_fields(graph=request.graph.slug, lane=str(request.lane))
        with errors_translated(activity=names.LOAD_RANGES):
            async with Heartbeater[CycleProgress](beat_seconds=1.0) as beat:
                result = await self._load(services, request, beat)
        get_log().info("lane ended", end=result.end.value, ranges=result.ranges, problem=result.problem)
        return result

    async def _load(
        self, services: Services, request: LoadRangesRequest, beat: Heartbeater[CycleProgress]
    ) -> LaneResult:
        graph = await services.graphs.get(request.graph.id)
        changed = request.provider_id is not None and request.fingerprint != graph.fingerprint
        if changed or graph.status is GraphStatus.ARCHIVED:
            return LaneResult(end=LaneEnd.FENCED)
        context = _context(services, request, graph, beat)
        if request.provider_id is None:
            from syncline.engine import load_ranges

            work = load_ranges
        else:
            provider = await services.registry.initialized("sync", request.provider_id, services)
            if not isinstance(provider, LoadingProvider):
                return LaneResult(end=LaneEnd.FENCED)
            work = provider.load_ranges
        until = time.monotonic() + self._seconds

        def over() -> bool:
            return time.monotonic() >= until or activity.is_worker_shutdown()

        return await work(
            context, lane=f"lane {request.lane} of {activity.info().workflow_run_id}", over=over
        )

    def _services(self) -> Services:
        if self._opened is None:
            raise RuntimeError("LoadActivities has no services, so no activity can run.")
        return self._opened


def _context(
    services: Services, request: LoadRangesRequest, graph: Graph, beat: Heartbeater[CycleProgress]
) -> SyncContext:
    """Return what the lane may use: as the cycle's, but for vectors, which it does not write."""
    options: BaseModel = NoOptions()
    if request.provider_id is not None:
        options = resolved_before(services, graph, shadow=request.shadow).validated()
        if isinstance(options, MapOptions):
            options = options.pinned(request.map)
    settings = services.settings
    return SyncContext(
        graph=graph.shadow_ref if request.shadow else graph.ref,
        # The attempt is the cycle's, whose fence it is.
        run=replace(
            run_identity(), attempt=request.attempt, provider=request.provider_id or names.FALLBACK_PROVIDER
        ),
        write=services.write_schema(graph),
        target=services.target_schema(graph, shadow=request.shadow),
        vectors=services.graph_vectors(graph, shadow=request.shadow),
        embedding=services.embedding,
        budget=CycleBudget(batch_rows=request.batch_rows or settings.batch_rows, seconds=_SECONDS),
        options=options,
        heartbeat=beat,
        log=get_log(),
        meter=services.meter,
        retry=RetryRules.of(settings),
        shadow=request.shadow,
    )
