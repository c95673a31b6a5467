"""Workflow `SyncGraph`: one run resolves a graph's provider, runs one cycle, and says what happened."""

import asyncio
import dataclasses
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType, is_cancelled_exception
from temporalio.exceptions import TimeoutError as ActivityTimeout

with workflow.unsafe.imports_passed_through():
    # For the activities' signatures only. Re-imported in the sandbox, the stores behind them would cost
    # close to a second of CPU per run.
    from activities.schedules import ScheduleActivities
    from activities.sync import SyncActivities

    # Models, constants and pure functions: nothing of them can differ between a run and its replay.
    from syncline import names
    from syncline.errors import ProviderGone, non_retryable_types
    from syncline.messages import (
        Cadence,
        CadenceRules,
        CarriedState,
        CycleProgress,
        CycleStatus,
        ProviderFallback,
        ProviderResolution,
        ProviderState,
        ResolveProviderRequest,
        RunPhase,
        SetCadenceRequest,
        SyncCycleRequest,
        SyncGraphInput,
        SyncGraphResult,
        SyncResult,
        SyncState,
        Totals,
    )
    from syncline.presence import Away, ProviderHeld, ProviderReturned, Returned
    from syncline.search_attributes import GRAPH, SCHEDULED_BY
    from workflows.attributes import of_the_cycle, of_the_provider, unset_of_the_cycle, upsert
    from workflows.cadence import following
    from workflows.details import describe_provider, describe_run
    from workflows.failing import FAILS_A_RUN
    from workflows.shadow import follow_with_shadow


_LONGEST_BUDGET = 3600.0
_GRACE = timedelta(minutes=5)
"""What a cycle may take beyond its budget: the batch it was in, the vectors, the report."""
_LONGEST = timedelta(hours=2)
"""What a run may take in all: waiting for a worker, every attempt."""

_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=60),
    non_retryable_error_types=non_retryable_types(),
)
# Who polls the queue of a provider has it, so another attempt would learn nothing.
_RETRY_ROUTED = dataclasses.replace(
    _RETRY, non_retryable_error_types=[*non_retryable_types(), ProviderGone.__name__]
)


# Under overlap SKIP a stuck run would stop its graph without a word, and the next run goes on from the
# committed cursor anyway.
@workflow.defn(name=names.SYNC_GRAPH, failure_exception_types=FAILS_A_RUN)
class SyncGraph:
    """One run syncs one graph once. State goes from run to run through the last completion result."""

    def __init__(self) -> None:
        self._previous = _previous_result()
        self._result: SyncResult | None = None
        self._away: Away | None = None
        self._shadowed = False
        self._state = SyncState(
            last_result=self._previous.result if self._previous else None,
            carried=self._previous.carried if self._previous else CarriedState(),
        )

    @workflow.run
    async def run(self, input: SyncGraphInput | None = None) -> SyncGraphResult:  # noqa: A002 # wire name
        """Sync the graph once; without a graph, the default one through the built-in engine.

        A cycle that failed fails the run, with the provider's whole result in the failure's details.
        """
        request = input or SyncGraphInput()
        try:
            resolution, result = await self._sync(request)
            if result.status is CycleStatus.FAILED:
                await self._back_to_base()
            else:
                await self._keep_cadence(resolution, result)
            await self._follow()
        except asyncio.CancelledError:
            self._show(phase=RunPhase.CANCELLED)
            raise
        except ActivityError as error:
            if is_cancelled_exception(error):
                self._show(phase=RunPhase.CANCELLED)
            else:
                self._show(phase=RunPhase.FAILED, error=str(error.cause or error))
                await self._back_to_base()
                await self._follow()
            raise
        return self._finish(resolution, result)

    @workflow.signal(name=names.PROVIDER_FALLBACK)
    def on_provider_fallback(self, signal: ProviderFallback) -> None:
        """Record that resolution fell back; a retried resolution says so again, which changes nothing."""
        self._record(signal)

    @workflow.signal(name=names.PROVIDER_HELD)
    def on_provider_held(self, signal: ProviderHeld) -> None:
        """Record that the graph waits for its provider."""
        self._record(signal)

    @workflow.signal(name=names.PROVIDER_RETURNED)
    def on_provider_returned(self, signal: ProviderReturned) -> None:
        """Record that a provider serves the graph again."""
        self._record(signal)

    @workflow.signal(name=names.CYCLE_PROGRESS)
    def on_cycle_progress(self, progress: CycleProgress) -> None:
        """Show how far the running cycle is."""
        self._show(progress=progress)

    @workflow.query(name=names.SYNC_STATE)
    def sync_state(self) -> SyncState:
        """Return everything there is to know about the run."""
        return self._state

    @workflow.query(name=names.PROVIDER_STATE)
    def provider_state(self) -> ProviderState:
        """Return which provider serves the graph, and since when none does."""
        return self._state.provider

    async def _sync(self, request: SyncGraphInput) -> tuple[ProviderResolution, SyncResult]:
        """Resolve the provider and run one cycle of it; resolve again if no worker takes that.

        As long as the provider is there it is busy, and waited for; else its graph's policy holds.
        """
        self._show(graph=request.about)
        # A scheduled run has all it needs. One started by hand is to be found while it still resolves, and
        # a cron run begins with the attributes of the run before it.
        if workflow.info().typed_search_attributes.get(SCHEDULED_BY) is None:
            found_by = [GRAPH.value_set(request.about)] if request.about is not None else []
            upsert(*found_by, *unset_of_the_cycle())
        until, again = workflow.now() + _LONGEST, False
        resolution = await self._resolve(request, until)
        while resolution.held is None:
            try:
                return resolution, await self._cycle(request, resolution, until)
            except ActivityError as error:
                routed = resolution.task_queue is not None
                if not routed or not _unanswered(error, again=again) or workflow.now() >= until:
                    raise
            resolution = await self._resolve(request, until, unanswered=resolution.provider_id)
            again = True
        return resolution, SyncResult(status=CycleStatus.HELD)

    async def _resolve(
        self, request: SyncGraphInput, until: datetime, *, unanswered: str | None = None
    ) -> ProviderResolution:
        resolution = await workflow.execute_activity_method(
            SyncActivities.resolve_provider,
            ResolveProviderRequest(graph=request.graph, shadow=request.shadow, unanswered=unanswered),
            summary=f"resolve the provider of {(request.about or 'the default graph')[:100]}",
            start_to_close_timeout=timedelta(seconds=30),
            # It shares its slots with cycles, so it may have to wait for as long as they do.
            schedule_to_close_timeout=_left(until),
            retry_policy=_RETRY,
            # It changes nothing, so nobody need wait for it: not while the control plane hangs either.
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        )
        self._take_over(resolution)
        return resolution

    def _take_over(self, resolution: ProviderResolution) -> None:
        """Take the resolution, which alone decides about the provider: a signal is its audit event."""
        carried = CarriedState()
        if self._previous is not None and self._previous.graph.id == resolution.graph.id:
            # Else someone pointed the Schedule at another graph: its sums are not this one's.
            carried = self._previous.carried
        self._away, self._shadowed = carried.away, resolution.shadowed
        fallback, held = resolution.fallback is not None, resolution.held is not None
        carried = carried.model_copy(
            update={
                "consecutive_fallback_runs": carried.consecutive_fallback_runs + 1 if fallback else 0,
                "first_fallback_at": carried.first_fallback_at or workflow.now() if fallback else None,
                "consecutive_held_runs": carried.consecutive_held_runs + 1 if held else 0,
                "held_since": carried.held_since or workflow.now() if held else None,
            }
        )
        self._show(
            graph=resolution.graph.slug,
            phase=RunPhase.SYNCING,
            carried=carried,
            provider=carried.provider_state(resolution).model_copy(
                update={"api_version": resolution.api_version, "distribution": resolution.distribution}
            ),
        )
        upsert(*of_the_provider(resolution))

    async def _cycle(
        self, request: SyncGraphInput, resolution: ProviderResolution, until: datetime
    ) -> SyncResult:
        budget = timedelta(seconds=request.time_budget_seconds or _LONGEST_BUDGET)
        carried, patience = self._state.carried, resolution.answer_seconds
        return await workflow.execute_activity_method(
            SyncActivities.sync_cycle,
            SyncCycleRequest(
                graph=resolution.graph,
                provider_id=resolution.provider_id,
                batch_rows=request.batch_rows,
                time_budget_seconds=request.time_budget_seconds,
                # The first run of a stretch, as any run by hand, does not know of those before it.
                fallback_since=carried.first_fallback_at if carried.consecutive_fallback_runs > 1 else None,
                progress_seconds=request.progress_seconds,
                shadow=request.shadow,
                away=None if resolution.provider_id is None else self._away,
            ),
            summary=f"sync {resolution.graph.slug} with {describe_provider(self._state.provider)}"[:200],
            task_queue=resolution.task_queue,
            start_to_close_timeout=budget + _GRACE,
            schedule_to_close_timeout=_left(until),
            schedule_to_start_timeout=None if patience is None else timedelta(seconds=patience),
            heartbeat_timeout=timedelta(seconds=20),
            retry_policy=_RETRY if resolution.task_queue is None else _RETRY_ROUTED,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )

    async def _follow(self) -> None:
        """Have the graph's shadow follow, if it has one, whatever became of this run."""
        if self._shadowed and self._state.graph is not None:
            await follow_with_shadow(self._state.graph)

    async def _keep_cadence(self, resolution: ProviderResolution, result: SyncResult) -> None:
        """Slow an adaptive graph's Schedule down while it is idle: one more activity when that changes."""
        carried = self._state.carried
        rules = resolution.cadence
        if rules is None or not _scheduled(resolution.graph.slug):
            if carried.cadence is not None:
                self._show(carried=carried.model_copy(update={"cadence": None}))
            return
        cadence = following(carried.cadence, rules, idle=result.idle, now=workflow.now())
        if await self._set_cadence(resolution.graph.slug, cadence, known=_known(carried.cadence, rules)):
            self._show(carried=carried.model_copy(update={"cadence": cadence}))

    async def _back_to_base(self) -> None:
        """Have a run that failed followed by the next as soon as if the graph had never been idle."""
        slug, cadence = self._state.graph, self._state.carried.cadence
        if slug is None or cadence is None or not _scheduled(slug):
            return
        base = cadence.model_copy(update={"every_seconds": cadence.base_seconds})
        await self._set_cadence(slug, base, known=cadence.every_seconds)

    async def _set_cadence(self, slug: str, cadence: Cadence, *, known: int | None) -> bool:
        """Return whether the Schedule runs as often as that, which it does already if that is `known`."""
        if cadence.every_seconds == known:
            return True
        try:
            return await workflow.execute_activity_method(
                ScheduleActivities.set_cadence,
                SetCadenceRequest(
                    graph=slug, every_seconds=cadence.every_seconds, fingerprint=cadence.fingerprint
                ),
                summary=f"run {slug} every {cadence.every_seconds} s from now on"[:200],
                task_queue=names.schedules_task_queue(workflow.info().task_queue),
                start_to_close_timeout=timedelta(seconds=30),
                # The next run is not to wait for long; it tries again. But to give up soon under load, and be
                # run as often as before, would keep the load up.
                schedule_to_close_timeout=timedelta(minutes=2),
                retry_policy=_RETRY,
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("the cadence could not be set: %s", error.cause or error)
            return False

    def _finish(self, resolution: ProviderResolution, result: SyncResult) -> SyncGraphResult:
        self._result = result
        upsert(*of_the_cycle(resolution, result))
        provider = self._state.provider.served_by(result.served)
        if result.status is CycleStatus.FAILED:
            error = _what_failed(resolution.graph.slug, result)
            self._show(phase=RunPhase.FAILED, last_result=result, error=error, provider=provider)
            raise ApplicationError(error, result, type="CycleFailed", non_retryable=True)
        carried = self._state.carried
        totals = carried.totals
        carried = carried.model_copy(
            update={
                "totals": Totals(
                    runs=totals.runs + 1,
                    rows=totals.rows + result.rows,
                    links=totals.links + result.links,
                    vectors=totals.vectors + result.vectors.upserted,
                    failures=totals.failures + result.failures,
                )
            }
        )
        if self._away is not None and carried.away is None:
            returned = Returned(at=workflow.now(), away=self._away)
            carried = carried.model_copy(update={"last_return": returned})
            provider = provider.model_copy(update={"last_return": returned})
        self._show(phase=RunPhase.DONE, last_result=result, carried=carried, provider=provider)
        return SyncGraphResult(
            graph=resolution.graph,
            provider_id=resolution.provider_id,
            provider_version=provider.provider_version,
            fallback=resolution.fallback,
            held=resolution.held,
            failures=result.failures,
            result=result,
            carried=carried,
        )

    def _record(self, signal: ProviderFallback | ProviderHeld | ProviderReturned) -> None:
        if all(known.idempotency_key != signal.idempotency_key for known in self._state.signals):
            self._show(signals=(*self._state.signals, signal))

    def _show(self, **changes: object) -> None:
        """Change the state that queries answer, and the details that the Web UI shows, together."""
        self._state = self._state.model_copy(update=changes)
        workflow.set_current_details(describe_run(self._state, self._result))


def _previous_result() -> SyncGraphResult | None:
    """Return the result of the last run that completed, None if there is none that can be read."""
    if not workflow.has_last_completion_result():
        return None
    try:
        return workflow.get_last_completion_result(SyncGraphResult)
    except ValueError:
        # It would come back at every run. Sums that start again are better than a graph that never syncs.
        workflow.logger.warning("the last completion result cannot be read; totals start again")
        return None


def _unanswered(error: ActivityError, *, again: bool) -> bool:
    """Return whether nobody took a routed cycle, so that it is to be asked again who has the provider.

    Somebody who polls the queue without having the provider contradicts the resolution, and is believed once.
    """
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return cause.type == ProviderGone.__name__ and not again
    return isinstance(cause, ActivityTimeout) and cause.type is TimeoutType.SCHEDULE_TO_START


def _scheduled(slug: str) -> bool:
    """Return whether the graph's own Schedule has started this run."""
    found = workflow.info().typed_search_attributes.get(SCHEDULED_BY)
    return found == names.sync_schedule_id(slug)


def _left(until: datetime) -> timedelta:
    """Return how long there is, and never nothing: the server takes no timeout that is over already."""
    return max(until - workflow.now(), timedelta(seconds=1))


def _known(cadence: Cadence | None, rules: CadenceRules) -> int | None:
    """Return how often the Schedule runs as it is; None if that is not known."""
    if workflow.get_last_failure() is not None:
        return None
    if cadence is None or cadence.fingerprint != rules.fingerprint:
        return rules.intervals[0]
    return cadence.every_seconds


def _what_failed(slug: str, result: SyncResult) -> str:
    errors = [f"{table.table}: {table.error}" for table in result.tables if table.error]
    if not errors:
        return f"The cycle of graph '{slug}' failed with {result.failures} failures; no table says why."
    return f"{len(errors)} of {len(result.tables)} tables of graph '{slug}' failed. " + "; ".join(errors)
