"""Status of all graphs, or of one graph, from Temporal, with a bounded number of requests.

It requests the list of Schedules, the newest runs in pages of 1,000 until each graph has been seen (at most
two runs per graph), the remaining graphs in groups of 100, the pollers of each task queue with open runs, and
the first twenty of the runs that have been open for long and of the runs that failed. What the state tables
say is asked of a worker meanwhile.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from temporalio.client import Client

from syncline import names
from syncline.errors import QuestionUnanswered, RunNotFound
from syncline.messages.base import Message
from syncline.messages.provider_state import ProviderState
from syncline.messages.sync import SyncState, Waiting
from syncline.operator.graph_state import Finding, GraphHealth, GraphNumbers, Level, judge, rank_of
from syncline.temporal.client import temporal_errors_mapped
from syncline.temporal.findings import GraphSchedule, all_findings, run_findings
from syncline.temporal.graph_numbers import AnsweredNumbers, ask_numbers
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
from syncline.temporal.schedules.list import ListedSchedule, find_schedule, list_schedules
from syncline.temporal.stalled_runs import stalls_as_listed
from syncline.temporal.stalls import Pending, PendingRetry, Stall, StallKind, pending_of

__all__ = [
    "GraphHealth",
    "GraphOverview",
    "GraphReport",
    "GraphSchedule",
    "overview",
    "report_of",
]

_LEAST_RUNS: Final = 1000
_GROUP: Final = 100
_LONG_SECONDS: Final = 10.0
_ASKED_OF_LONG: Final = 20
_AT_ONCE: Final = 8
_LONGEST_REASON: Final = 300


class GraphOverview(Message):
    """One graph in the overview."""

    graph: str
    standing: GraphHealth
    level: Level = Level.GREEN
    findings: tuple[Finding, ...] = ()
    """Everything that somebody has to know of it, the worst first."""
    last_run: ListedRun | None = None
    """The last ended run."""
    running: ListedRun | None = None
    """The oldest open run that does not continue, else the oldest."""
    trying: PendingRetry | None = None
    """The failing activity of the open run that is retried."""
    stall: Stall | None = None
    """Why the open run does not continue, other than a retried activity."""
    waiting: Waiting | None = None
    """The service that the open run waits for."""
    lingers: bool = False
    """Whether the open run is done, and stays open for further changes for a moment."""
    schedule: GraphSchedule | None = None
    """Null without a Schedule: it has manual or cron runs only."""
    numbers: GraphNumbers | None = None
    """What its state tables say; null if no worker has answered."""

    @property
    def urgency(self) -> tuple[int, int, str]:
        """Its place among others, the most urgent first."""
        return *rank_of(self.level, self.standing), self.graph


class _Seen:
    """Collects the last ended run and the open runs of each graph from lists sorted by age."""

    def __init__(self, slugs: Iterable[str]) -> None:
        self.closed: dict[str, ListedRun] = {}
        self.running: dict[str, dict[str, ListedRun]] = {}
        """Graph -> run id -> open run, the oldest first once all are read."""
        self.missing = set(slugs)

    def add(self, run: ListedRun) -> None:
        # A shadow is not a graph: it has a report under its own name.
        if run.graph is None or names.shadowed_slug(run.graph) is not None:
            return
        if run.open:
            self.running[run.graph] = {run.run_id: run, **self.running.get(run.graph, {})}
        else:
            self.closed.setdefault(run.graph, run)
            self.missing.discard(run.graph)


async def overview(
    client: Client,
    *,
    task_queue: str | None = None,
    seconds: float = 5.0,
    archived: bool = False,
    numbers: AnsweredNumbers | None = None,
) -> Sequence[GraphOverview]:
    """Return the overview of every graph that has a Schedule, a recent run or a record, the worst first.

    A worker of `task_queue` has `seconds` to say what the state tables have, unless `numbers` are its answer;
    with neither, only runs and Schedules are judged. Archived graphs, and runs of this task queue's that no
    record is left of, are left out unless asked for. Raise TemporalUnavailable if Temporal does not answer.
    """
    if numbers is None and task_queue is not None:
        (schedules, seen, stalls, pending, why), numbers = await asyncio.gather(
            _listed(client), ask_numbers(client, task_queue, seconds=seconds)
        )
    else:
        schedules, seen, stalls, pending, why = await _listed(client)
    slugs = schedules.keys() | seen.closed.keys() | seen.running.keys()
    if numbers is not None:
        slugs |= numbers.graphs.keys()
    found = []
    for slug in slugs:
        listed = schedules.get(slug)
        schedule = None if listed is None else GraphSchedule.of(listed)
        last = seen.closed.get(slug)
        running = _shown(seen.running.get(slug, {}).values(), pending, stalls)
        stands = Pending() if running is None else pending.get(running.run_id, Pending())
        stall = stands.stall or (None if running is None else stalls.get(running.run_id))
        told = None if numbers is None else numbers.graphs.get(slug)
        of_runs = run_findings(
            slug, last, running, stands.trying, schedule, stall, stands.waiting, why=why.get(slug)
        )
        findings = all_findings(of_runs, slug, numbers, last=last, running=running is not None)
        standing, level, ordered = judge(findings, running=running is not None, ran=last is not None)
        gone = schedule is None and running is None and _is_gone(last, told, numbers, task_queue)
        if not archived and (standing is GraphHealth.ARCHIVED or gone):
            continue
        found.append(
            GraphOverview(
                graph=slug,
                standing=standing,
                level=level,
                findings=tuple(ordered),
                last_run=last,
                running=running,
                trying=stands.trying,
                stall=stall,
                waiting=stands.waiting,
                lingers=stands.lingers,
                schedule=schedule,
                numbers=told,
            )
        )
    return sorted(found, key=lambda graph: graph.urgency)


def _shown(
    running: Iterable[ListedRun], pending: Mapping[str, Pending], stalls: Mapping[str, Stall]
) -> ListedRun | None:
    """Return the open run that a graph's state is of: the oldest that does not continue, else the oldest.

    What one waits for would else go unseen for as long as others run beside it.
    """
    oldest = list(running)
    held = (run for run in oldest if run.run_id in stalls or pending.get(run.run_id, Pending()).held)
    return next(held, next(iter(oldest), None))


def _is_gone(
    last: ListedRun | None,
    told: GraphNumbers | None,
    numbers: AnsweredNumbers | None,
    task_queue: str | None,
) -> bool:
    """Return whether only ended runs are left of it: it was deleted, or a run of no graph was started."""
    asked = numbers is not None and numbers.problem is None
    return asked and told is None and last is not None and last.task_queue == task_queue


_Listed = tuple[
    dict[str, ListedSchedule], "_Seen", Mapping[str, Stall], dict[str, Pending], Mapping[str, str]
]


async def _listed(client: Client) -> _Listed:
    """Return Schedules, newest runs, and why open runs do not continue."""
    schedules = {listed.slug: listed for listed in await list_schedules(client)}
    seen = _Seen(schedules)
    await _read(client, f"{names.ATTRIBUTE_GRAPH} IS NOT NULL", seen, limit=_LEAST_RUNS + 2 * len(schedules))
    await _read_missing(client, seen)
    running = [run for runs in seen.running.values() for run in runs.values()]
    stalls = await stalls_as_listed(client, running)
    pending, why = await asyncio.gather(
        _ask_long_runs(client, running, stalls), _why_failed(client, seen.closed)
    )
    return schedules, seen, stalls, pending, why


async def _why_failed(client: Client, closed: Mapping[str, ListedRun]) -> Mapping[str, str]:
    """Return slug -> why its last run failed, of the twenty that failed last."""
    failed = [(slug, run) for slug, run in closed.items() if run.status is RunStatus.FAILED]
    newest = sorted(failed, key=lambda one: one[1].started_at, reverse=True)[:_ASKED_OF_LONG]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(run: ListedRun) -> str | None:
        async with slots:
            outcome = await outcome_of(client, run)
        tables = () if outcome.result is None else outcome.result.tables
        found = next((f"{table.table}: {table.error}" for table in tables if table.error), outcome.error)
        return None if found is None else found[:_LONGEST_REASON]

    told = await asyncio.gather(*(ask(run) for _, run in newest))
    return {slug: reason for (slug, _), reason in zip(newest, told, strict=True) if reason}


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
    """Describe the runs that have been open for long, the longest first: run id -> stall, retries.

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
    return {run.run_id: answer for run, answer in zip(asked, answers, strict=True)}


def _without_worker(stall: Stall | None) -> bool:
    return stall is not None and stall.kind is StallKind.NO_WORKER


_LOOKED_AT: Final = 20
"""Number of newest runs that include the open ones and the last ended one."""


class GraphReport(Message):
    """Full report on one graph."""

    graph: str
    standing: GraphHealth
    level: Level = Level.GREEN
    findings: tuple[Finding, ...] = ()
    """Everything that somebody has to know of it, the worst first."""
    run: ListedRun | None = None
    """The run of this state: the oldest open one that does not continue, or the oldest, or the last ended."""
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
    lingers: bool = False
    """Whether the open run is done, and stays open for further changes for a moment."""
    last_ended: ListedRun | None = None
    scheduled: ProviderState | None = None
    """Provider state of the Schedule's last run; null unless `run` is manual, which has no earlier state."""
    schedule: GraphSchedule | None = None
    numbers: GraphNumbers | None = None
    """What its state tables say; null if no worker has answered."""


async def report_of(
    client: Client, slug: str, *, seconds: float, task_queue: str | None = None
) -> GraphReport:
    """Return the report on a graph; raise RunNotFound if it has neither a run, nor a Schedule, nor a record.

    A worker has `seconds` to answer the query, and one of `task_queue` to say what the state tables have.
    Raise TemporalUnavailable if Temporal does not answer.
    """
    with temporal_errors_mapped(client):
        listed, runs = await asyncio.gather(
            find_schedule(client, slug), runs_of(client, slug, limit=_LOOKED_AT)
        )
    asking = (
        None
        if task_queue is None
        else asyncio.create_task(ask_numbers(client, task_queue, seconds=seconds, graph=slug))
    )
    if listed is None and not runs:
        recorded = None if asking is None else await asking
        told = None if recorded is None else recorded.graphs.get(slug)
        # Of a shadow that there is not, the numbers are empty.
        if told is None or (names.shadowed_slug(slug) is not None and not told.kept):
            unasked = None if recorded is None or recorded.unknown else recorded.problem
            raise RunNotFound(slug, unasked=unasked)
    schedule = None if listed is None else GraphSchedule.of(listed)
    oldest = [run for run in reversed(runs) if run.open]
    asked = await asyncio.gather(*(pending_of(client, run.workflow_id, run.run_id) for run in oldest))
    stands = {run.run_id: answer for run, answer in zip(oldest, asked, strict=True)}
    running = _shown(oldest, stands, {})
    ended = next((run for run in runs if not run.open), None)
    run = running or ended
    pending = Pending() if running is None else stands[running.run_id]
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
    numbers = None if asking is None else await asking
    why = {} if ended is None else await _why_failed(client, {slug: ended})
    of_runs = run_findings(
        slug, ended, running, pending.trying, schedule, pending.stall, pending.waiting, why=why.get(slug)
    )
    findings = all_findings(of_runs, slug, numbers, last=ended, running=running is not None)
    standing, level, ordered = judge(findings, running=running is not None, ran=ended is not None)
    return GraphReport(
        graph=slug,
        standing=standing,
        level=level,
        findings=tuple(ordered),
        numbers=None if numbers is None else numbers.graphs.get(slug),
        run=run,
        state=state,
        answered=problem is None,
        problem=problem,
        trying=pending.trying,
        stall=pending.stall,
        waiting=pending.waiting,
        lingers=pending.lingers,
        last_ended=ended,
        scheduled=None if run is None else await _scheduled(client, run, runs),
        schedule=schedule,
    )


async def _scheduled(client: Client, shown: ListedRun, runs: Sequence[ListedRun]) -> ProviderState | None:
    """Return the provider state of the Schedule's last run, if the run shown is manual."""
    told = (RunStatus.COMPLETED, RunStatus.FAILED)
    clock = (StartedBy.SCHEDULE, StartedBy.CHANGE)
    own = (run for run in runs if run.started_by in clock and run.status in told)
    last = next(own, None) if shown.started_by is StartedBy.HAND else None
    return None if last is None else (await outcome_of(client, last)).state(last).provider
