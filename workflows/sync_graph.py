"""Workflow `SyncGraph`: one run resolves a graph's provider, runs one cycle, and returns its result.

One module because a run is read from beginning to end.
"""

import asyncio
import dataclasses
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.schedules import ScheduleActivities
    from activities.sync import SyncActivities
    from syncline import names
    from syncline.errors import ProviderGone
    from syncline.messages.provider_state import (
        ProviderFallback,
        ProviderHeld,
        ProviderReturned,
        ProviderState,
    )
    from syncline.messages.sync import (
        LONGEST_RUN,
        Cadence,
        CadenceRules,
        CarriedState,
        CycleProgress,
        CycleStatus,
        HandedOn,
        LaneResult,
        LanesCalled,
        LoadRangesRequest,
        ProviderResolution,
        ResolveProviderRequest,
        RunPhase,
        SetCadenceRequest,
        SyncCycleRequest,
        SyncGraphInput,
        SyncGraphResult,
        SyncResult,
        SyncState,
    )
    from syncline.temporal.client import GRAPH, SCHEDULED_BY
    from syncline.temporal.handed_on import CYCLE_FAILED, fitting, handed_on
    from syncline.temporal.priorities import WAITING
    from workflows.attributes import of_the_cycle, of_the_provider, unset_of_the_cycle, upsert
    from workflows.cadence import at_base, following
    from workflows.carried_state import (
        FAILS_A_RUN,
        completed,
        failed,
        failure_with,
        known_before,
        resolved,
        unanswered,
        what_failed,
    )
    from workflows.details import describe_provider, describe_run
    from workflows.lanes import RunLanes
    from workflows.priorities import lacks_fairness, priority_of_sync

__all__ = [
    "SyncGraph",
    "follow_with_shadow",
]

_ENDS_A_RUN: tuple[type[BaseException], ...] = (FailureError, *FAILS_A_RUN)
_LONGEST_BUDGET = 3600.0
_GRACE = timedelta(minutes=5)
"""Time that a cycle may take beyond its budget: the current batch, the vectors, the result."""
_LONGEST = timedelta(hours=2)
"""Maximum time of a run in total: waiting for a worker, all attempts."""

_LANES_SHOWN = 20
"""Ends of lanes that a run shows, the last ones: a long load has one of each lane every minute."""
# Non-retryable errors are marked as such when raised (`activities.errors`): listing their names in the
# policy would be a tenth of an idle run's history.
_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=60),
)
# Every worker that polls a provider's queue has the provider, so another attempt would not help.
_RETRY_ROUTED = dataclasses.replace(_RETRY, non_retryable_error_types=[ProviderGone.__name__])


# With overlap policy SKIP, a stuck run would silently stop its graph. The next run continues from the
# committed cursor anyway.
@workflow.defn(name=names.SYNC_GRAPH, failure_exception_types=FAILS_A_RUN)
class SyncGraph:
    """Sync one graph once. State is carried from run to run, in the result or in the failure's details."""

    def __init__(self) -> None:
        self._known = known_before()
        self._before = HandedOn(carried=CarriedState())
        self._resolution: ProviderResolution | None = None
        self._cycled: SyncResult | None = None
        self._result: SyncResult | None = None
        self._shadowed = False
        self._state = SyncState(resolved=False)
        self._lanes = RunLanes(self._lane_ended)

    @workflow.run
    async def run(self, input: SyncGraphInput | None = None) -> SyncGraphResult:  # noqa: A002 # wire name
        """Sync the graph once; without a graph, the default one through the built-in engine.

        A failed cycle fails the run, with the provider's complete result in the failure's details.
        """
        request = input or SyncGraphInput()
        try:
            return await self._run(request)
        except _ENDS_A_RUN as error:
            if is_cancelled_exception(error) or handed_on(error) is not None:
                raise
            raise self._failure(request, error) from error

    async def _run(self, request: SyncGraphInput) -> SyncGraphResult:
        try:
            resolution, result = await self._sync(request)
            self._cycled = result
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
        """Record a fallback; a signal repeated by a retried resolution has no effect."""
        self._record(signal)

    @workflow.signal(name=names.PROVIDER_HELD)
    def on_provider_held(self, signal: ProviderHeld) -> None:
        """Record that the graph is held."""
        self._record(signal)

    @workflow.signal(name=names.PROVIDER_RETURNED)
    def on_provider_returned(self, signal: ProviderReturned) -> None:
        """Record that a provider serves the graph again."""
        self._record(signal)

    @workflow.signal(name=names.CYCLE_PROGRESS)
    def on_cycle_progress(self, progress: CycleProgress) -> None:
        """Show the progress of the running cycle."""
        self._show(progress=progress)

    @workflow.signal(name=names.LANES_CALLED)
    def on_lanes_called(self, called: LanesCalled) -> None:
        """Start activities that take part in the loads of the running cycle."""
        self._lanes.call(called)

    @workflow.query(name=names.SYNC_STATE)
    def sync_state(self) -> SyncState:
        """Return the complete state of the run."""
        return self._state

    @workflow.query(name=names.PROVIDER_STATE)
    def provider_state(self) -> ProviderState:
        """Return the provider that serves the graph, or since when there is none."""
        return self._state.provider

    async def _sync(self, request: SyncGraphInput) -> tuple[ProviderResolution, SyncResult]:
        """Resolve the provider and run one cycle; resolve again if no worker takes the cycle.

        While workers have the provider they are busy, and the run waits; otherwise `on_missing` applies.
        """
        self._go_on_from(self._known.about(request), graph=request.about)
        # A scheduled run starts with its attributes. A manual run must be findable while it resolves, and
        # a cron run starts with the attributes of the previous run.
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
                if not routed or not unanswered(error, again=again) or workflow.now() >= until:
                    raise
            self._go_on_from(self._before, graph=resolution.graph.slug)  # no worker has served it
            resolution = await self._resolve(request, until, unanswered=resolution.provider_id)
            again = True
        return resolution, SyncResult(status=CycleStatus.HELD)

    def _go_on_from(self, before: HandedOn, *, graph: str | None) -> None:
        """Show the state of the earlier runs until this one has resolved."""
        self._before, self._resolution = before, None
        self._show(
            graph=graph,
            phase=RunPhase.RESOLVING,
            resolved=False,
            carried=before.carried,
            provider=before.provider,
            last_result=self._known.last_result_of(before),
        )

    async def _resolve(
        self, request: SyncGraphInput, until: datetime, *, unanswered: str | None = None
    ) -> ProviderResolution:
        resolution = await workflow.execute_activity_method(
            SyncActivities.resolve_provider,
            ResolveProviderRequest(
                graph=request.graph, shadow=request.shadow, unanswered=unanswered, fairness=lacks_fairness()
            ),
            summary=f"resolve the provider of {(request.about or 'the default graph')[:100]}",
            start_to_close_timeout=timedelta(seconds=30),
            # Two of its heartbeats: the time lost if the worker is killed.
            heartbeat_timeout=timedelta(seconds=10),
            # It shares slots with cycles, so it may have to wait as long as they do.
            schedule_to_close_timeout=_left(until),
            retry_policy=_RETRY,
            priority=priority_of_sync(shadow=request.shadow),
            # It changes nothing, so a cancelled run need not wait for it, even if the control plane hangs.
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        )
        self._take_over(request, resolution)
        return resolution

    def _take_over(self, request: SyncGraphInput, resolution: ProviderResolution) -> None:
        """Apply the resolution. It alone decides about the provider; signals are only audit events."""
        self._before = before = self._known.of(resolution.graph, request)
        self._resolution, self._shadowed = resolution, resolution.shadowed
        carried = resolved(before.carried, resolution)
        self._show(
            graph=resolution.graph.slug,
            phase=RunPhase.SYNCING,
            resolved=True,
            last_result=self._known.last_result_of(before),
            carried=carried,
            provider=carried.provider_state(resolution).model_copy(
                update={"api_version": resolution.api_version, "distribution": resolution.distribution}
            ),
        )
        upsert(*of_the_provider(resolution))

    async def _cycle(
        self, request: SyncGraphInput, resolution: ProviderResolution, until: datetime
    ) -> SyncResult:
        self._lanes.of(
            LoadRangesRequest(
                graph=resolution.graph,
                provider_id=resolution.provider_id,
                batch_rows=request.batch_rows,
                shadow=request.shadow,
                fingerprint=resolution.fingerprint,
                map=resolution.map,
            ),
            fairness=resolution.fairness,
        )
        try:
            return await self._cycle_alone(request, resolution, until)
        finally:
            await self._lanes.end()

    async def _cycle_alone(
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
                # A run without a previous run, such as a manual one, does not know when it began.
                fallback_since=carried.first_fallback_at if self._before.graph else None,
                progress_seconds=request.progress_seconds,
                shadow=request.shadow,
                away=carried.returning,
                unowned_runs=carried.unowned_runs,
                seen_up_to=carried.seen_up_to,
                fingerprint=resolution.fingerprint,
                map=resolution.map,
                # Whoever starts a run by hand waits for its end, and a shadow follows the end of its graph's.
                linger=_scheduled(resolution.graph.slug) and not (request.shadow or resolution.shadowed),
            ),
            summary=f"sync {resolution.graph.slug} with {describe_provider(self._state.provider)}"[:200],
            task_queue=resolution.task_queue,
            start_to_close_timeout=budget + _GRACE,
            schedule_to_close_timeout=_left(until),
            schedule_to_start_timeout=None if patience is None else timedelta(seconds=patience),
            heartbeat_timeout=timedelta(seconds=20),
            retry_policy=_RETRY if resolution.task_queue is None else _RETRY_ROUTED,
            priority=priority_of_sync(shadow=request.shadow, fairness=resolution.fairness),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )

    async def _follow(self) -> None:
        """Start the run of the graph's shadow, if it has one, whether this run succeeded or not."""
        if self._shadowed and self._state.graph is not None:
            await follow_with_shadow(self._state.graph)

    async def _keep_cadence(self, resolution: ProviderResolution, result: SyncResult) -> None:
        """Slow an idle adaptive graph's Schedule down: one activity, only if the interval changes."""
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
        """After a failed run, set the Schedule to its base interval, as if the graph had never been idle."""
        slug, resolution = self._state.graph, self._resolution
        cadence = self._known.scheduled_cadence(None if resolution is None else resolution.graph)
        if slug is None or cadence is None or not _scheduled(slug):
            return
        base = at_base(cadence, workflow.now())
        if await self._set_cadence(slug, base, known=cadence.every_seconds):
            self._show(carried=self._state.carried.model_copy(update={"cadence": base}))

    async def _set_cadence(self, slug: str, cadence: Cadence, *, known: int | None) -> bool:
        """Set the Schedule's interval unless it equals `known`; return whether the Schedule has it now."""
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
                # The next run must not wait for long, and it tries again. But giving up early under load
                # would keep the short interval, and with it the load.
                schedule_to_close_timeout=timedelta(minutes=2),
                retry_policy=_RETRY,
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("cadence could not be set: %s", error.cause or error)
            return False

    def _finish(self, resolution: ProviderResolution, result: SyncResult) -> SyncGraphResult:
        self._result = result
        upsert(*of_the_cycle(resolution, result))
        provider = self._state.provider.served_by(result.served)
        if result.status is CycleStatus.FAILED:
            error = what_failed(resolution.graph.slug, result)
            self._show(phase=RunPhase.FAILED, last_result=result, error=error, provider=provider)
            handed = self._handed_on(failed(self._state.carried, result=result))
            raise ApplicationError(error, fitting(result), handed, type=CYCLE_FAILED, non_retryable=True)
        carried = completed(self._state.carried, result)
        provider = provider.model_copy(update={"last_return": carried.last_return})
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

    def _failure(self, request: SyncGraphInput, error: BaseException) -> ApplicationError:
        """Return the failure that ends the run with this error, with the state it hands on."""
        done = self._cycled
        carried = failed(self._state.carried, result=done, error=error, progress=self._state.progress)
        handed = self._handed_on(carried, named=request.about)
        failure = failure_with(error, handed)
        self._show(phase=RunPhase.FAILED, error=self._state.error or failure.message)
        return failure

    def _handed_on(self, carried: CarriedState, *, named: str | None = None) -> HandedOn:
        """Show and return the state at the end of a failed run.

        A run that has not resolved its graph, and knows nothing of it, hands on the state that it was given.
        """
        if self._resolution is None:
            given = self._known.handed
            if given is not None and self._before.carried.of_run != given.carried.of_run:
                return given
            self._show(carried=carried)
            return self._before.model_copy(update={"carried": carried, "named": named})
        self._show(carried=carried)
        return HandedOn(
            graph=self._resolution.graph,
            provider_id=self._resolution.provider_id,
            provider_version=self._state.provider.provider_version,
            fallback=self._resolution.fallback,
            held=self._resolution.held,
            map=self._state.provider.map,
            carried=carried,
        )

    def _lane_ended(self, result: LaneResult) -> None:
        self._show(lanes=(*self._state.lanes, result)[-_LANES_SHOWN:])

    def _record(self, signal: ProviderFallback | ProviderHeld | ProviderReturned) -> None:
        if all(known.idempotency_key != signal.idempotency_key for known in self._state.signals):
            self._show(signals=(*self._state.signals, signal))

    def _show(self, **changes: object) -> None:
        """Update the state that queries return together with the details shown in the Web UI."""
        self._state = self._state.model_copy(update=changes)
        workflow.set_current_details(describe_run(self._state, self._result))


def _scheduled(slug: str) -> bool:
    """Return whether the graph's own Schedule started this run."""
    found = workflow.info().typed_search_attributes.get(SCHEDULED_BY)
    return found == names.sync_schedule_id(slug)


def _left(until: datetime) -> timedelta:
    """Return the time left, at least one second: the server rejects timeouts that are not positive."""
    return max(until - workflow.now(), timedelta(seconds=1))


def _known(cadence: Cadence | None, rules: CadenceRules) -> int | None:
    """Return the current interval of the Schedule in seconds; None if unknown."""
    if workflow.get_last_failure() is not None:
        return None
    if cadence is None or cadence.fingerprint != rules.fingerprint:
        return rules.intervals[0]
    return cadence.every_seconds


async def follow_with_shadow(slug: str) -> None:
    """Start a run of the graph's shadow unless one is open; its outcome does not affect this run."""
    name = names.shadow_slug(slug)
    try:
        await workflow.start_child_workflow(
            names.SYNC_GRAPH,
            SyncGraphInput(graph=slug, shadow=True),
            id=names.shadow_workflow_id(slug),
            # Like any other run: one that no worker can continue would prevent every later one.
            execution_timeout=LONGEST_RUN,
            parent_close_policy=ParentClosePolicy.ABANDON,
            cancellation_type=ChildWorkflowCancellationType.ABANDON,
            search_attributes=TypedSearchAttributes([SearchAttributePair(GRAPH, name)]),
            static_summary=f"Sync {name}"[:200],
            priority=WAITING,
        )
    except WorkflowAlreadyStartedError:
        workflow.logger.debug("previous run of the shadow is still open")
