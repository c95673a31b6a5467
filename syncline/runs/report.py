"""One graph in full: its last run's state, its Schedule, and what stands in its way."""

import asyncio
from collections.abc import Sequence
from typing import Final

from temporalio.client import Client

from syncline.client import temporal_errors_mapped
from syncline.errors import QuestionUnanswered, RunNotFound
from syncline.messages import Message, ProviderState, SyncState
from syncline.pending import Pending, Trying, pending_of
from syncline.runs.listing import ListedRun, RunStatus, StartedBy, runs_of
from syncline.runs.outcome import outcome_of
from syncline.runs.overview import GraphSchedule, Standing, standing_of
from syncline.runs.progress import progress_of
from syncline.runs.state import state_of
from syncline.schedules import find_schedule
from syncline.stalls import Stall

__all__ = ["GraphReport", "report_of"]

_LOOKED_AT: Final = 20
"""Newest runs among which are the open one and the last that has ended."""


class GraphReport(Message):
    """What there is to know about one graph."""

    graph: str
    standing: Standing
    run: ListedRun | None = None
    """The one whose state this is: the open one, else the last that has ended."""
    state: SyncState | None = None
    """As the run tells it itself; without a worker, what its result says."""
    answered: bool = True
    """Whether a worker answered for the run."""
    problem: str | None = None
    """Why none did, in a sentence."""
    trying: Trying | None = None
    stall: Stall | None = None
    """Why the open run does not continue."""
    last_ended: ListedRun | None = None
    scheduled: ProviderState | None = None
    """Who served the graph in its Schedule's last run; null unless `run` was by hand, which knows of none."""
    schedule: GraphSchedule | None = None


async def report_of(client: Client, slug: str, *, seconds: float) -> GraphReport:
    """Return the report on a graph, or raise RunNotFound if it has neither a run nor a Schedule.

    A worker that does not answer within these seconds is not waited for. Raise TemporalUnavailable if
    Temporal does not answer.
    """
    with temporal_errors_mapped(client):
        listed, runs = await asyncio.gather(
            find_schedule(client, slug), runs_of(client, slug, limit=_LOOKED_AT)
        )
    if listed is None and not runs:
        raise RunNotFound(slug)
    schedule = None if listed is None else GraphSchedule.of(listed)
    running = next((run for run in runs if run.open), None)
    ended = next((run for run in runs if not run.open), None)
    run = running or ended
    pending = Pending()
    if running is not None:
        pending = await pending_of(client, running.workflow_id, running.run_id)
    state, problem = None, None
    if run is not None:
        try:
            state = await state_of(client, run.workflow_id, run.run_id, seconds=seconds)
            # What the run knows of its cycle is up to a minute old.
            progress = await progress_of(client, run.workflow_id, run.run_id) if run.open else None
            if progress is not None:
                state = state.model_copy(update={"progress": progress})
        except QuestionUnanswered as error:
            problem = str(error)
            state = None if run.open else (await outcome_of(client, run)).state(run)
    return GraphReport(
        graph=slug,
        standing=standing_of(ended, running, pending.trying, schedule, pending.stall),
        run=run,
        state=state,
        answered=problem is None,
        problem=problem,
        trying=pending.trying,
        stall=pending.stall,
        last_ended=ended,
        scheduled=None if run is None else await _scheduled(client, run, runs),
        schedule=schedule,
    )


async def _scheduled(client: Client, shown: ListedRun, runs: Sequence[ListedRun]) -> ProviderState | None:
    """Return what the last run of the Schedule tells of the provider, if the one that is shown is by hand."""
    told = (RunStatus.COMPLETED, RunStatus.FAILED)
    own = (run for run in runs if run.started_by is StartedBy.SCHEDULE and run.status in told)
    last = next(own, None) if shown.started_by is StartedBy.HAND else None
    return None if last is None else (await outcome_of(client, last)).state(last).provider
