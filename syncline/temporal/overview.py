"""Every graph in one look: a bounded number of questions, whatever the number of graphs.

Asked are the list of Schedules, the newest runs in pages of a thousand until each graph has been seen (at
most two runs for each graph that there is), the graphs that are left in groups of a hundred, the pollers of
each task queue that has open runs, and the first twenty of the runs that have been open for long.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from enum import StrEnum
from typing import Final

from temporalio.client import Client

from syncline import names
from syncline.control.due import DueKind, DueProblem
from syncline.errors import QuestionUnanswered, RunNotFound
from syncline.messages.base import Message
from syncline.messages.provider_state import ProviderState
from syncline.messages.sync import SyncState
from syncline.temporal.client import temporal_errors_mapped
from syncline.temporal.runs import (
    ListedRun,
    RunStatus,
    StartedBy,
    list_runs,
    outcome_of,
    progress_of,
    quoted,
    runs_of,
    state_of,
)
from syncline.temporal.schedules.graph import PAUSED_WITH_GRAPH
from syncline.temporal.schedules.list import ListedSchedule, find_schedule, list_schedules
from syncline.temporal.stalled_runs import stalls_as_listed
from syncline.temporal.stalls import Pending, PendingRetry, Stall, StallKind, pending_of

__all__ = [
    "GraphHealth",
    "GraphOverview",
    "GraphReport",
    "GraphSchedule",
    "health_of",
    "overview",
    "report_of",
]

_LEAST_RUNS: Final = 1000
_GROUP: Final = 100
_LONG_SECONDS: Final = 10.0
_ASKED_OF_LONG: Final = 20
_AT_ONCE: Final = 8


class GraphHealth(StrEnum):
    """What a graph is doing, the worst first."""

    STUCK = "stuck"
    """A run is open, and its workflow task fails each time."""
    NO_WORKER = "no worker"
    """A run is open, and no worker polls the task queue of what it waits for."""
    FAILED = "failed"
    """Its last run did not succeed."""
    RETRYING = "retrying"
    """A run is open, and what it tries fails."""
    BLOCKED = "blocked"
    """Its last runs found it taken, and no run has it."""
    NEVER_DUE = "never due"
    """Its Schedule is not paused, and never comes again."""
    HELD = "held"
    """Its last run synced nothing, because nobody has the provider."""
    FALLBACK = "fallback"
    """Its last run fell back to the built-in engine."""
    PAUSED = "paused"
    """Its Schedule starts no runs, whatever became of the last one."""
    RUNNING = "running"
    OK = "ok"
    NEVER = "never ran"
    """No run is kept by Temporal."""


class GraphSchedule(Message):
    """When a graph runs by itself."""

    spec: str
    paused: bool
    paused_with_graph: bool = False
    """Paused because the graph is, and not by an operator."""
    note: str | None = None
    next_at: datetime | None = None
    due: DueProblem | None = None
    """What is wrong with the times at which it comes, unless it is paused."""

    @classmethod
    def of(cls, listed: ListedSchedule) -> "GraphSchedule":
        """Return what of a listed Schedule concerns the graph."""
        return cls(
            spec=listed.spec,
            paused=listed.paused,
            paused_with_graph=listed.paused and listed.note == PAUSED_WITH_GRAPH,
            note=listed.note,
            next_at=listed.next_at,
            due=listed.due,
        )


class GraphOverview(Message):
    """One graph in the list of all."""

    graph: str
    standing: GraphHealth
    last_run: ListedRun | None = None
    """The last run that has ended."""
    running: ListedRun | None = None
    trying: PendingRetry | None = None
    """What keeps the open run from going on."""
    stall: Stall | None = None
    """Why the open run does not continue though nothing of it is tried again."""
    schedule: GraphSchedule | None = None
    """Null if it has none: then it runs by hand or by cron only."""


class _Seen:
    """The newest runs of each graph, as they come from lists that are sorted by age."""

    def __init__(self, slugs: Iterable[str]) -> None:
        self.closed: dict[str, ListedRun] = {}
        self.running: dict[str, ListedRun] = {}
        self.missing = set(slugs)

    def add(self, run: ListedRun) -> None:
        # A shadow is no graph: it is looked at by its own name.
        if run.graph is None or names.shadowed_slug(run.graph) is not None:
            return
        newest = self.running if run.open else self.closed
        newest.setdefault(run.graph, run)
        if not run.open:
            self.missing.discard(run.graph)


async def overview(client: Client) -> Sequence[GraphOverview]:
    """Return how every graph that has a Schedule or a recent run is doing, trouble first.

    Raise TemporalUnavailable if Temporal does not answer.
    """
    schedules = {listed.slug: listed for listed in await list_schedules(client)}
    seen = _Seen(schedules)
    await _read(client, f"{names.ATTRIBUTE_GRAPH} IS NOT NULL", seen, limit=_LEAST_RUNS + 2 * len(schedules))
    await _read_missing(client, seen)
    stalls = await stalls_as_listed(client, seen.running.values())
    pending = await _ask_long_runs(client, seen.running.values(), stalls)
    found = []
    for slug in schedules.keys() | seen.closed.keys() | seen.running.keys():
        listed = schedules.get(slug)
        schedule = None if listed is None else GraphSchedule.of(listed)
        last, running = seen.closed.get(slug), seen.running.get(slug)
        stands = pending.get(slug, Pending())
        stall = stands.stall or (None if running is None else stalls.get(running.run_id))
        found.append(
            GraphOverview(
                graph=slug,
                standing=health_of(last, running, stands.trying, schedule, stall),
                last_run=last,
                running=running,
                trying=stands.trying,
                stall=stall,
                schedule=schedule,
            )
        )
    worst = list(GraphHealth)
    return sorted(found, key=lambda graph: (worst.index(graph.standing), graph.graph))


def health_of(
    last: ListedRun | None,
    running: ListedRun | None,
    trying: PendingRetry | None,
    schedule: GraphSchedule | None,
    stall: Stall | None = None,
) -> GraphHealth:
    """Return what to say of a graph in a word."""
    if stall is not None and stall.kind is StallKind.TASK_FAILS:
        return GraphHealth.STUCK
    if stall is not None and stall.kind is StallKind.NO_WORKER:
        return GraphHealth.NO_WORKER
    if schedule is not None and schedule.paused and running is None:
        return GraphHealth.PAUSED
    if trying is not None:
        return GraphHealth.RETRYING
    if last is not None and last.status.trouble:
        return GraphHealth.FAILED
    if last is not None and last.blocked:
        return GraphHealth.BLOCKED
    due = None if schedule is None or running is not None else schedule.due
    if due is not None and due.kind is DueKind.NEVER:
        return GraphHealth.NEVER_DUE
    if (running or last) is None:
        return GraphHealth.NEVER
    if last is not None and last.held:
        return GraphHealth.HELD
    if last is not None and last.fallback:
        return GraphHealth.FALLBACK
    return GraphHealth.OK if running is None else GraphHealth.RUNNING


async def _read(client: Client, query: str, seen: _Seen, *, limit: int) -> None:
    """Read newest runs until every graph that is missed has been seen."""
    unknown = not seen.missing  # without Schedules there is nothing to miss: all that the limit allows
    async with aclosing(list_runs(client, query, limit=limit)) as listed:
        async for run in listed:
            seen.add(run)
            if not seen.missing and not unknown:
                return


async def _read_missing(client: Client, seen: _Seen) -> None:
    """Ask for the graphs that have run too long ago to be among the newest."""
    missing = sorted(seen.missing)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def read(group: Sequence[str]) -> None:
        among = ", ".join(map(quoted, group))
        async with slots:
            await _read(client, f"{names.ATTRIBUTE_GRAPH} IN ({among})", seen, limit=_LEAST_RUNS)

    groups = [missing[first : first + _GROUP] for first in range(0, len(missing), _GROUP)]
    await asyncio.gather(*(read(group) for group in groups))


async def _ask_long_runs(
    client: Client, running: Iterable[ListedRun], stalls: Mapping[str, Stall]
) -> dict[str, Pending]:
    """Ask the runs that have been open for long, the longest first, whether they go on.

    Runs for which there is no worker are not asked: there may be one of each graph, and all say the same.
    """
    long = sorted(
        (
            run
            for run in running
            if run.seconds > _LONG_SECONDS and not _without_worker(stalls.get(run.run_id))
        ),
        key=lambda run: run.started_at,
    )
    asked = long[:_ASKED_OF_LONG]
    answers = await asyncio.gather(*(pending_of(client, run.workflow_id, run.run_id) for run in asked))
    return {run.graph: answer for run, answer in zip(asked, answers, strict=True) if run.graph}


def _without_worker(stall: Stall | None) -> bool:
    return stall is not None and stall.kind is StallKind.NO_WORKER


_LOOKED_AT: Final = 20
"""Newest runs among which are the open one and the last that has ended."""


class GraphReport(Message):
    """What there is to know about one graph."""

    graph: str
    standing: GraphHealth
    run: ListedRun | None = None
    """The one whose state this is: the open one, else the last that has ended."""
    state: SyncState | None = None
    """As the run tells it itself; without a worker, what its result says."""
    answered: bool = True
    """Whether a worker answered for the run."""
    problem: str | None = None
    """Why none did, in a sentence."""
    trying: PendingRetry | None = None
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
        standing=health_of(ended, running, pending.trying, schedule, pending.stall),
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
