"""How a closed run ended, read from the last event of its history: no worker is needed."""

import asyncio
from typing import Final

from temporalio.client import (
    Client,
    WorkflowContinuedAsNewError,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowHistoryEventFilterType,
)
from temporalio.exceptions import ActivityError
from temporalio.service import RPCError, RPCStatusCode

from syncline.handed_on import failed_result, handed_on
from syncline.messages import (
    CarriedState,
    CycleStatus,
    HandedOn,
    Message,
    ProviderState,
    RunPhase,
    SyncGraphResult,
    SyncResult,
    SyncState,
)
from syncline.pending import pending_of
from syncline.runs.listing import ListedRun, RunStatus, runs_of
from syncline.stalls import Stall

__all__ = ["Outcome", "RunEntry", "outcome_of", "run_entries"]

_ASKED: Final = 100
_AT_ONCE: Final = 8


class Outcome(Message):
    """The result of a run that completed, or why it did not."""

    result: SyncResult | None = None
    """Of a run whose cycle failed, too."""
    completed: SyncGraphResult | None = None
    handed: HandedOn | None = None
    """What a run that failed hands on; null of an earlier release's."""
    error: str | None = None

    @property
    def cycle(self) -> CycleStatus | None:
        """How the cycle ended, if it returned."""
        return None if self.result is None else self.result.status

    def state(self, run: ListedRun) -> SyncState:
        """Return what the run's own state says of it, as far as its result does."""
        if self.completed is not None:
            done = self.completed
            return SyncState(
                graph=done.graph.slug,
                phase=RunPhase.DONE,
                provider=done.carried.provider_state(done).served_by(done.result.served),
                last_result=done.result,
                carried=done.carried,
            )
        phase = RunPhase.CANCELLED if run.status is RunStatus.CANCELED else RunPhase.FAILED
        # What the run's attributes say of the provider was so when it began, and counts for nothing else.
        provider = ProviderState(provider_id=None if run.fallback else run.provider)
        return SyncState(
            graph=run.graph,
            phase=phase,
            resolved=self.handed is not None and self.handed.resolved,
            provider=provider if self.handed is None else self.handed.provider,
            last_result=self.result,
            carried=CarriedState() if self.handed is None else self.handed.carried,
            error=self.error,
        )


async def outcome_of(client: Client, run: ListedRun) -> Outcome:
    """Return how a closed run ended. What cannot be read is an outcome without a result, and no error."""
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id, result_type=SyncGraphResult)
    try:
        # Not the runs that follow it: a cron workflow's never end.
        return _success(await handle.result(follow_runs=False))
    except WorkflowContinuedAsNewError:
        return await _outcome_of_cron(client, handle)
    except WorkflowFailureError as failed:
        return _failure(failed.cause)
    except RPCError as error:
        gone = error.status is RPCStatusCode.NOT_FOUND
        return Outcome(error="its history is gone" if gone else f"its result cannot be read: {error.message}")
    except (ValueError, RuntimeError) as error:
        return Outcome(error=f"its result cannot be read: {type(error).__name__}")


async def _outcome_of_cron(client: Client, handle: WorkflowHandle[object, SyncGraphResult]) -> Outcome:
    """Return how a run of a cron workflow ended: its last event names the next run, and has the result."""
    closing = WorkflowHistoryEventFilterType.CLOSE_EVENT
    async for event in handle.fetch_history_events(event_filter_type=closing):
        next_run = event.workflow_execution_continued_as_new_event_attributes
        if next_run.HasField("failure"):
            return _failure(await client.data_converter.decode_failure(next_run.failure))
        payloads = next_run.last_completion_result.payloads
        if payloads:
            [completed] = await client.data_converter.decode(payloads, [SyncGraphResult])
            return _success(completed)
    return Outcome()


def _success(completed: SyncGraphResult) -> Outcome:
    return Outcome(result=completed.result, completed=completed)


def _failure(cause: BaseException) -> Outcome:
    handed, result = handed_on(cause), failed_result(cause)
    if isinstance(cause, ActivityError) and cause.cause is not None:
        cause = cause.cause
    return Outcome(result=result, handed=handed, error=getattr(cause, "message", None) or str(cause))


class RunEntry(Message):
    """A run, and how its cycle ended."""

    run: ListedRun
    cycle: CycleStatus | None = None
    error: str | None = None
    """Why the run did not complete."""
    stall: Stall | None = None
    """Why an open run does not continue."""


async def run_entries(client: Client, slug: str, *, limit: int, failed: bool = False) -> list[RunEntry]:
    """Return the newest runs of a graph with how they ended, or raise TemporalUnavailable.

    Each run costs a question, so it is asked of the first hundred that are open and that are closed.
    """
    runs = await runs_of(client, slug, limit=limit, failed=failed)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ended(run: ListedRun) -> RunEntry:
        async with slots:
            outcome = await outcome_of(client, run)
        if outcome.handed is not None and not outcome.handed.resolved:
            # Its attributes name the provider that the record names; nobody has found out who is there.
            run = run.model_copy(update={"provider": None, "provider_version": None, "fallback": False})
        return RunEntry(run=run, cycle=outcome.cycle, error=outcome.error)

    async def stands(run: ListedRun) -> RunEntry:
        async with slots:
            pending = await pending_of(client, run.workflow_id, run.run_id)
        return RunEntry(run=run, stall=pending.stall)

    asked = [*[run for run in runs if run.open][:_ASKED], *[run for run in runs if not run.open][:_ASKED]]
    answers = await asyncio.gather(*(stands(run) if run.open else ended(run) for run in asked))
    told = {entry.run.run_id: entry for entry in answers}
    return [told.get(run.run_id, RunEntry(run=run)) for run in runs]
