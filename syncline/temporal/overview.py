"""Status of all graphs, or of one graph, from Temporal, with a bounded number of requests.

It requests the list of Schedules, the newest runs in pages of 1,000 until each graph has been seen (at most
two runs per graph), the remaining graphs in groups of 100, the pollers of each task queue with open runs, and
the first twenty of the runs that have been open for long.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from enum import StrEnum
from typing import Final

from temporalio.client import Client

from syncline import names
from syncline.control.schedule_spec import DueKind, DueProblem
from syncline.errors import QuestionUnanswered, RunNotFound
from syncline.messages.base import Message
from syncline.messages.provider_state import ProviderState
from syncline.messages.sync import SyncState, Waiting
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
    """Health of a graph, the worst first."""

    STUCK = "stuck"
    """A run is open, and its workflow task keeps failing."""
    NO_WORKER = "no worker"
    """A run is open, and no worker polls the task queue that it waits on."""
    FAILED = "failed"
    """Its last run failed."""
    RETRYING = "retrying"
    """A run is open, and its activity fails and is retried."""
    BLOCKED = "blocked"
    """Its last runs found its lock taken, but no run of it was open."""
    NEVER_DUE = "never due"
    """Its Schedule is not paused, but has no future time."""
    WAITING = "waiting"
    """A run is open, and the vector store or embedding service answers neither its requests nor probes."""
    HELD = "held"
    """Its last run synced nothing, because no worker has the provider."""
    FALLBACK = "fallback"
    """Its last run fell back to the built-in engine."""
    VECTORS_DELAYED = "vectors delayed"
    """Its last run left vectors: the vector store or embedding service was unavailable or refused."""
    PAUSED = "paused"
    """Its Schedule is paused, whatever the status of the last run."""
    RUNNING = "running"
    OK = "ok"
    NEVER = "never ran"
    """Temporal keeps no run of it."""


class GraphSchedule(Message):
    """The Schedule of a graph."""

    spec: str
    paused: bool
    paused_with_graph: bool = False
    """Paused because the graph is paused, not by an operator."""
    note: str | None = None
    next_at: datetime | None = None
    due: DueProblem | None = None
    """Problem with its times; null if there is none, or if it is paused."""

    @classmethod
    def of(cls, listed: ListedSchedule) -> "GraphSchedule":
        """Return the fields of a listed Schedule that concern the graph."""
        return cls(
            spec=listed.spec,
            paused=listed.paused,
            paused_with_graph=listed.paused and listed.note == PAUSED_WITH_GRAPH,
            note=listed.note,
            next_at=listed.next_at,
            due=listed.due,
        )


class GraphOverview(Message):
    """One graph in the overview."""

    graph: str
    standing: GraphHealth
    last_run: ListedRun | None = None
    """The last ended run."""
    running: ListedRun | None = None
    trying: PendingRetry | None = None
    """The failing activity of the open run that is retried."""
    stall: Stall | None = None
    """Why the open run does not continue, other than a retried activity."""
    waiting: Waiting | None = None
    """The service that the open run waits for."""
    schedule: GraphSchedule | None = None
    """Null without a Schedule: it has manual or cron runs only."""


class _Seen:
    """Collects the newest runs of each graph from lists sorted by age."""

    def __init__(self, slugs: Iterable[str]) -> None:
        self.closed: dict[str, ListedRun] = {}
        self.running: dict[str, ListedRun] = {}
        self.missing = set(slugs)

    def add(self, run: ListedRun) -> None:
        # A shadow is not a graph: it has a report under its own name.
        if run.graph is None or names.shadowed_slug(run.graph) is not None:
            return
        newest = self.running if run.open else self.closed
        newest.setdefault(run.graph, run)
        if not run.open:
            self.missing.discard(run.graph)


async def overview(client: Client) -> Sequence[GraphOverview]:
    """Return the overview of every graph that has a Schedule or a recent run, the worst first.

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
                standing=health_of(last, running, stands.trying, schedule, stall, stands.waiting),
                last_run=last,
                running=running,
                trying=stands.trying,
                stall=stall,
                waiting=stands.waiting,
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
    waiting: Waiting | None = None,
) -> GraphHealth:
    """Return the health of a graph."""
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
    if waiting is not None:
        return GraphHealth.WAITING
    if last is not None and last.held:
        return GraphHealth.HELD
    if last is not None and last.fallback:
        return GraphHealth.FALLBACK
    if last is not None and last.vectors_delayed:
        return GraphHealth.VECTORS_DELAYED
    return GraphHealth.OK if running is None else GraphHealth.RUNNING


async def _read(client: Client, query: str, seen: _Seen, *, limit: int) -> None:
    """Read newest runs until every missing graph has been seen."""
    unknown = not seen.missing  # without Schedules no graph is missing: read up to the limit
    async with aclosing(list_runs(client, query, limit=limit)) as listed:
        async for run in listed:
            seen.add(run)
            if not seen.missing and not unknown:
                return


async def _read_missing(client: Client, seen: _Seen) -> None:
    """Read the runs of graphs that ran too long ago to be among the newest."""
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
    """Describe the runs that have been open for long, the longest first, to find stalls and retries.

    Runs without a worker are not described: there may be one per graph, all with the same cause.
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
"""Number of newest runs that include the open one and the last ended one."""


class GraphReport(Message):
    """Full report on one graph."""

    graph: str
    standing: GraphHealth
    run: ListedRun | None = None
    """The run of this state: the open one, otherwise the last ended one."""
    state: SyncState | None = None
    """State from the run's query; without a worker, from its result."""
    answered: bool = True
    """Whether a worker answered the query."""
    problem: str | None = None
    """Why no worker answered, in a sentence."""
    trying: PendingRetry | None = None
    stall: Stall | None = None
    """Why the open run does not continue."""
    waiting: Waiting | None = None
    """The service that the open run waits for."""
    last_ended: ListedRun | None = None
    scheduled: ProviderState | None = None
    """Provider state of the Schedule's last run; null unless `run` is manual, which has no earlier state."""
    schedule: GraphSchedule | None = None


async def report_of(client: Client, slug: str, *, seconds: float) -> GraphReport:
    """Return the report on a graph; raise RunNotFound if it has neither a run nor a Schedule.

    A worker has `seconds` to answer the query. Raise TemporalUnavailable if Temporal does not answer.
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
            # Heartbeat details are newer: the progress signalled to the run is up to a minute old.
            progress = await progress_of(client, run.workflow_id, run.run_id) if run.open else None
            if progress is not None:
                state = state.model_copy(update={"progress": progress})
        except QuestionUnanswered as error:
            problem = str(error)
            state = None if run.open else (await outcome_of(client, run)).state(run)
    return GraphReport(
        graph=slug,
        standing=health_of(ended, running, pending.trying, schedule, pending.stall, pending.waiting),
        run=run,
        state=state,
        answered=problem is None,
        problem=problem,
        trying=pending.trying,
        stall=pending.stall,
        waiting=pending.waiting,
        last_ended=ended,
        scheduled=None if run is None else await _scheduled(client, run, runs),
        schedule=schedule,
    )


async def _scheduled(client: Client, shown: ListedRun, runs: Sequence[ListedRun]) -> ProviderState | None:
    """Return the provider state of the Schedule's last run, if the run shown is manual."""
    told = (RunStatus.COMPLETED, RunStatus.FAILED)
    own = (run for run in runs if run.started_by is StartedBy.SCHEDULE and run.status in told)
    last = next(own, None) if shown.started_by is StartedBy.HAND else None
    return None if last is None else (await outcome_of(client, last)).state(last).provider
