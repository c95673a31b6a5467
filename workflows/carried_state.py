"""State carried from run to run: what earlier runs handed on, and what this run hands on at its end."""

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
    """State handed on by earlier runs; empty in the first run and in a manual one."""

    def __init__(
        self, last: SyncGraphResult | None, handed: HandedOn | None, failed: SyncResult | None
    ) -> None:
        """Take the result of the last completed run, and the state in the failure since then, if any."""
        self.handed = handed
        """The newest state, of any graph."""
        self._last = last
        self._failed = failed

    def last_result_of(self, before: HandedOn) -> SyncResult | None:
        """Return the result of the last cycle that returned, if it belongs to the graph of `before`."""
        if before.graph is None:
            return None
        if self._failed is not None:
            return self._failed
        last = self._last
        return last.result if last is not None and _same(last.graph, before.graph) else None

    def about(self, request: SyncGraphInput) -> HandedOn:
        """Return the state of the graph that the input names; an empty one if it is of another graph.

        The default graph is unknown before it is resolved; it is assumed to be the same as before.
        """
        handed = self.handed or _UNKNOWN
        if handed.graph is None:
            return handed if handed.named == request.about else _UNKNOWN
        shadow = _is_shadow(handed.graph)
        named = request.graph == str(handed.graph.id) and request.shadow == shadow
        return handed if named or request.about in (handed.graph.slug, None) else _UNKNOWN

    def of(self, graph: GraphRef, request: SyncGraphInput) -> HandedOn:
        """Return the state of the resolved graph; an empty one if another graph's state was handed on.

        In that case the Schedule now names another graph, and the former's totals do not belong to it.
        """
        handed = self.handed or _UNKNOWN
        if handed.graph is None:
            return self.about(request)
        return handed if _same(handed.graph, graph) else _UNKNOWN

    def scheduled_cadence(self, graph: GraphRef | None) -> Cadence | None:
        """Return the cadence of the last completed run: it decides whether the Schedule is changed.

        The cadence in a failure does not count: an earlier release may continue this run and ignores it.
        """
        if self._last is None or (graph is not None and graph.id != self._last.graph.id):
            return None
        return self._last.carried.cadence


def known_before() -> Known:
    """Return the state handed on by the last run that completed or failed.

    A run that was cancelled, terminated or timed out hands nothing on; then the run before it counts.
    """
    last, failure = _last_result(), workflow.get_last_failure()
    succeeded, unsuccessful = None if last is None else HandedOn.of(last), handed_on(failure)
    newest = _newer(succeeded, unsuccessful)
    return Known(last, newest, failed_result(failure) if newest is unsuccessful else None)


def resolved(before: CarriedState, resolution: ProviderResolution) -> CarriedState:
    """Return the state once this run has resolved its provider, or that there is none."""
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
    """Return the state at the end of a completed run; a pending return of a provider is recorded."""
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
    """Return the state at the end of a failed run: by its cycle's result, or by an error.

    A cycle that did not return counts with what it reported: in its error, last heartbeat or progress signal.
    """
    if result is None:
        return _ended(carried, committed_before(error, progress) or _NOTHING, failed=1)
    return _ended(carried.followed_by(result, now=workflow.now()), result.committed, failed=1)


def failure_with(error: BaseException, handed: HandedOn) -> ApplicationError:
    """Return the failure that ends a run with this error and hands the state on.

    Its type and message are those of the root error; the error that reported it is its cause.
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
            # A run that has not resolved has not recorded its previous run yet.
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
    """Return whether both are the same graph, or the shadow of the same graph."""
    return one.id == other.id and _is_shadow(one) == _is_shadow(other)


def _last_result() -> SyncGraphResult | None:
    """Return the result of the last completed run; None if there is none, or none that decodes."""
    if not workflow.has_last_completion_result():
        return None
    try:
        return workflow.get_last_completion_result(SyncGraphResult)
    except ValueError:
        # The error would recur in every run. Restarting the totals is better than a graph that never syncs.
        workflow.logger.warning("last completion result cannot be decoded; totals restart at 0")
        return None


def _newer(succeeded: HandedOn | None, unsuccessful: HandedOn | None) -> HandedOn | None:
    """Return the newer state. The server keeps a failure until a run succeeds, so the failure is newer."""
    if succeeded is None or unsuccessful is None:
        return unsuccessful or succeeded
    return succeeded if _carried_at(succeeded) > _carried_at(unsuccessful) else unsuccessful


def _carried_at(handed: HandedOn) -> float:
    at: datetime | None = handed.carried.as_of
    return 0.0 if at is None else at.timestamp()


_LONGEST: Final = 10_000
"""Maximum characters of a run's failure message: hundreds of tables can have failed."""

FAILS_A_RUN: Final[tuple[type[BaseException], ...]] = (
    # Invalid input.
    SynclineError,
    # Bugs. Not `Exception`: that includes NondeterminismError, and then a replay test would wait instead
    # of failing.
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def unanswered(error: ActivityError, *, again: bool) -> bool:
    """Return whether no worker took a routed cycle, so that the provider must be resolved again.

    A worker that polls the queue without having the provider contradicts the resolution; this counts once.
    """
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return cause.type == ProviderGone.__name__ and not again
    return isinstance(cause, ActivityTimeout) and cause.type is TimeoutType.SCHEDULE_TO_START


def what_failed(slug: str, result: SyncResult) -> str:
    """Return why a cycle failed: the errors of its tables."""
    errors = [f"{table.table}: {table.error}" for table in result.tables if table.error]
    if not errors:
        return f"The cycle of graph '{slug}' failed with {result.failures} failures; no table says why."
    told = f"{len(errors)} of {len(result.tables)} tables of graph '{slug}' failed. " + "; ".join(errors)
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"
