"""What a run knows of those before it, and what it hands on, whether it completes or fails."""

from datetime import datetime
from typing import Final

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeout

from syncline.errors import ProviderGone, SynclineError
from syncline.messages.sync import SyncResult

with workflow.unsafe.imports_passed_through():
    from syncline import names
    from syncline.messages.base import GraphRef
    from syncline.messages.provider_state import OutageEnded
    from syncline.messages.sync import (
        Cadence,
        CarriedState,
        Committed,
        CycleProgress,
        HandedOn,
        ProviderResolution,
        SyncGraphInput,
        SyncGraphResult,
        SyncResult,
        Totals,
    )
    from syncline.temporal.handed_on import committed_before, failed_result, handed_on

__all__ = [
    "FAILS_A_RUN",
    "Known",
    "completed",
    "failed",
    "failure_with",
    "known_before",
    "resolved",
    "unanswered",
    "what_failed",
]

_UNKNOWN: Final = HandedOn(carried=CarriedState())
_NOTHING: Final = Committed(rows=0, links=0, vectors=0, failures=0)


class Known:
    """What a run was given by those before it. Nothing, if it was started by hand or is the first."""

    def __init__(
        self, last: SyncGraphResult | None, handed: HandedOn | None, failed: SyncResult | None
    ) -> None:
        """Take the result of the last run that completed, and of the failure since, if there is one."""
        self.handed = handed
        """What was told last, of whatever graph."""
        self._last = last
        self._failed = failed

    def last_result_of(self, before: HandedOn) -> SyncResult | None:
        """Return the result of the last cycle that returned of the graph whose state this is."""
        if before.graph is None:
            return None
        if self._failed is not None:
            return self._failed
        last = self._last
        return last.result if last is not None and _same(last.graph, before.graph) else None

    def about(self, request: SyncGraphInput) -> HandedOn:
        """Return what is known of the graph that the input names; nothing if that is another one.

        Which graph is the default one is not known before it is resolved; it is taken for the same as before.
        """
        handed = self.handed or _UNKNOWN
        if handed.graph is None:
            return handed if handed.named == request.about else _UNKNOWN
        shadow = _is_shadow(handed.graph)
        named = request.graph == str(handed.graph.id) and request.shadow == shadow
        return handed if named or request.about in (handed.graph.slug, None) else _UNKNOWN

    def of(self, graph: GraphRef, request: SyncGraphInput) -> HandedOn:
        """Return what is known of the graph as it was resolved; nothing if another one's state was handed on.

        Then someone has pointed the Schedule at another graph: the sums of the former are not this one's.
        """
        handed = self.handed or _UNKNOWN
        if handed.graph is None:
            return self.about(request)
        return handed if _same(handed.graph, graph) else _UNKNOWN

    def scheduled_cadence(self, graph: GraphRef | None) -> Cadence | None:
        """Return the cadence of the last run that completed: it decides if the Schedule is written.

        What a failure tells of it does not: an earlier release may go on with this run, and knows no other.
        """
        if self._last is None or (graph is not None and graph.id != self._last.graph.id):
            return None
        return self._last.carried.cadence


def known_before() -> Known:
    """Return what the last run that ended by itself has handed on: its result, or its failure.

    A run that was cancelled, terminated or timed out by the server hands nothing on; the one before it does.
    """
    last, failure = _last_result(), workflow.get_last_failure()
    succeeded, unsuccessful = None if last is None else HandedOn.of(last), handed_on(failure)
    newest = _newer(succeeded, unsuccessful)
    return Known(last, newest, failed_result(failure) if newest is unsuccessful else None)


def resolved(before: CarriedState, resolution: ProviderResolution) -> CarriedState:
    """Return the state once this run knows whether a provider is there."""
    now, run = workflow.now(), workflow.info().run_id
    fallback, held = resolution.fallback is not None, resolution.held is not None
    return before.model_copy(
        update={
            "of_run": run,
            "as_of": now,
            "after_run": before.of_run,
            "after_at": before.as_of,
            "resolved_run": run,
            "resolved_at": now,
            "consecutive_fallback_runs": before.consecutive_fallback_runs + 1 if fallback else 0,
            "first_fallback_at": before.first_fallback_at or now if fallback else None,
            "consecutive_held_runs": before.consecutive_held_runs + 1 if held else 0,
            "held_since": before.held_since or now if held else None,
            "returning": None if fallback or held else before.outage,
        }
    )


def completed(carried: CarriedState, result: SyncResult) -> CarriedState:
    """Return the state at the end of a run that completes; a provider that was awaited is back."""
    ended = _ended(carried.followed_by(result, now=workflow.now()), result.committed, failed=0)
    if carried.returning is None:
        return ended
    returned = OutageEnded(at=workflow.now(), away=carried.returning)
    return ended.model_copy(update={"last_return": returned, "returning": None})


def failed(
    carried: CarriedState,
    *,
    result: SyncResult | None = None,
    error: BaseException | None = None,
    progress: CycleProgress | None = None,
) -> CarriedState:
    """Return the state at the end of a run that fails: by its cycle's result, or by an error.

    Of a cycle that did not return counts what it has told, in its error, its last heartbeat or its progress.
    """
    if result is None:
        return _ended(carried, committed_before(error, progress) or _NOTHING, failed=1)
    return _ended(carried.followed_by(result, now=workflow.now()), result.committed, failed=1)


def failure_with(error: BaseException, handed: HandedOn) -> ApplicationError:
    """Return the failure that ends a run by this error and hands the state on.

    It has the type and the message of what happened; who reported it is below, as its cause.
    """
    reason: BaseException = error.cause if isinstance(error, ActivityError) and error.cause else error
    if isinstance(reason, ApplicationError):
        return ApplicationError(
            reason.message,
            handed,
            type=reason.type,
            non_retryable=reason.non_retryable,
            category=reason.category,
        )
    kind = "ActivityTimeout" if isinstance(reason, ActivityTimeout) else type(reason).__name__
    message = reason.message if isinstance(reason, FailureError) else str(reason)
    return ApplicationError(message, handed, type=kind)


def _ended(carried: CarriedState, done: Committed, *, failed: int) -> CarriedState:
    now, run = workflow.now(), workflow.info().run_id
    totals = carried.totals
    mine = carried.of_run == run
    return carried.model_copy(
        update={
            "of_run": run,
            "as_of": now,
            # A run that has not resolved has not said yet whom it goes on from.
            "after_run": carried.after_run if mine else carried.of_run,
            "after_at": carried.after_at if mine else carried.as_of,
            "totals": Totals(
                runs=totals.runs + 1,
                failed=totals.failed + failed,
                rows=totals.rows + done.rows,
                links=totals.links + done.links,
                vectors=totals.vectors + done.vectors,
                failures=totals.failures + done.failures,
            ),
        }
    )


def _is_shadow(graph: GraphRef) -> bool:
    return names.shadowed_slug(graph.slug) is not None


def _same(one: GraphRef, other: GraphRef) -> bool:
    """Return whether both are one graph, or the shadow of one."""
    return one.id == other.id and _is_shadow(one) == _is_shadow(other)


def _last_result() -> SyncGraphResult | None:
    """Return the result of the last run that completed, None if there is none that can be read."""
    if not workflow.has_last_completion_result():
        return None
    try:
        return workflow.get_last_completion_result(SyncGraphResult)
    except ValueError:
        # It would come back at every run. Sums that start again are better than a graph that never syncs.
        workflow.logger.warning("the last completion result cannot be read; totals start again")
        return None


def _newer(succeeded: HandedOn | None, unsuccessful: HandedOn | None) -> HandedOn | None:
    """Return what was told last. The server keeps a failure until a run succeeds, so it is the newer one."""
    if succeeded is None or unsuccessful is None:
        return unsuccessful or succeeded
    return succeeded if _carried_at(succeeded) > _carried_at(unsuccessful) else unsuccessful


def _carried_at(handed: HandedOn) -> float:
    at: datetime | None = handed.carried.as_of
    return 0.0 if at is None else at.timestamp()


_LONGEST: Final = 10_000
"""Characters of what a run fails with: hundreds of tables can have failed."""

FAILS_A_RUN: Final[tuple[type[BaseException], ...]] = (
    # Input that is refused.
    SynclineError,
    # Bugs. Not `Exception`: that takes in NondeterminismError, and then a replay test waits instead of
    # failing.
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def unanswered(error: ActivityError, *, again: bool) -> bool:
    """Return whether nobody took a routed cycle, so that it is to be asked again who has the provider.

    Somebody who polls the queue without having the provider contradicts the resolution, and is believed once.
    """
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return cause.type == ProviderGone.__name__ and not again
    return isinstance(cause, ActivityTimeout) and cause.type is TimeoutType.SCHEDULE_TO_START


def what_failed(slug: str, result: SyncResult) -> str:
    """Return why a cycle failed: what its tables say, one after the other."""
    errors = [f"{table.table}: {table.error}" for table in result.tables if table.error]
    if not errors:
        return f"The cycle of graph '{slug}' failed with {result.failures} failures; no table says why."
    told = f"{len(errors)} of {len(result.tables)} tables of graph '{slug}' failed. " + "; ".join(errors)
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"
