"""The state of a graph: one definition for `status`, the live board, `doctor`, alerts and saved views.

A graph has findings: what its runs say (`syncline.temporal.overview`) and what the numbers of its state
tables say (`numbers_findings`). The worst one is its state, and a graph with a finding is never `ok`. What
could not be asked is a finding too.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from syncline import errors
from syncline.errors import EmbeddingBudgetSpent, EmbeddingDiffers, SynclineError
from syncline.messages.base import GraphStatus, Message
from syncline.quoting import counted
from syncline.run_text import format_seconds, keys_or_indexes

__all__ = [
    "ALERTS",
    "SAVED_VIEWS",
    "Finding",
    "GraphHealth",
    "GraphNumbers",
    "GraphNumbersPage",
    "GraphNumbersRequest",
    "Level",
    "VectorDelay",
    "judge",
    "level_of",
    "numbers_findings",
    "rank_of",
]


class Level(StrEnum):
    """How urgent a state is, the most urgent first."""

    RED = "red"
    """Somebody has to act: it does not heal by itself, or nothing is synced."""
    YELLOW = "yellow"
    """Something waits, and continues by itself once its cause is gone."""
    GREEN = "green"


class GraphHealth(StrEnum):
    """State of a graph, the worst first."""

    STUCK = "stuck"
    """A run is open, and its workflow task keeps failing."""
    NO_WORKER = "no worker"
    """No worker polls the task queue."""
    FAILED = "failed"
    """Its last run failed."""
    INVALID = "invalid record"
    """Its record in the control plane is invalid, so that no run can resolve it."""
    RETRYING = "retrying"
    """A run is open, and its activity fails and is retried."""
    BLOCKED = "blocked"
    """Its last runs found its lock taken, but no run of it was open."""
    NEVER_DUE = "never due"
    """Its Schedule is not paused, but has no future time."""
    HELD = "held"
    """Its last run synced nothing, because no worker has the provider."""
    REFUSED = "refused"
    """Rows that the graph-db refused, or texts or points that a service refused, are not applied."""
    REMOVAL_WITHHELD = "removal withheld"
    """More of a table's rows are gone from the write-db than a cycle removes unasked, as after a restore."""
    HALTED = "halted"
    """A run is open, and an operator has paused its activity, or limited the rate of its task queue."""
    LATE = "late"
    """It is further behind its write-db than its record promises."""
    WAITING = "waiting"
    """A run is open, and the vector store or embedding service answers neither its requests nor probes."""
    NO_ALIAS = "no alias"
    """Readers find none of its points: the vector store lacks the alias that they query."""
    FALLBACK = "fallback"
    """Its last run fell back to the built-in engine."""
    BUDGET_SPENT = "budget spent"
    """Texts wait, because a budget of tokens is used up for today."""
    RATE_LIMITED = "rate limited"
    """Vectors wait for the end of a pause that the embedding service or the vector store asked for."""
    VECTORS_DELAYED = "vectors delayed"
    """Vectors wait: the vector store or embedding service was unavailable, or refused everything (red)."""
    HELD_BACK = "held back"
    """Committed rows wait for an older transaction of the write-db to end."""
    PARKED = "parked"
    """Rows or references wait for a parent that has not arrived."""
    KEYS_OWED = "keys owed"
    """A first load has put off foreign keys and indexes, or could not put one back (red)."""
    KEPT_TOO_LONG = "kept too long"
    """The generation before its rebuild is there for longer than the switch asked for."""
    BEHIND = "behind"
    """Its last cycle ended before it had read everything; the next run continues."""
    UNKNOWN = "unknown"
    """Its state could not be asked: no worker answered, or its graph-db did not."""
    PAUSED = "paused"
    """Its Schedule is paused, whatever else was found: that is in the reason."""
    ARCHIVED = "archived"
    """Its record is archived: nothing syncs it."""
    RUNNING = "running"
    OK = "ok"
    """Nothing was found, and its state tables were asked."""
    NEVER = "never ran"
    """Temporal keeps no run of it."""


_WORST: Final = tuple(GraphHealth)
_FIRST_YELLOW: Final = _WORST.index(GraphHealth.HALTED)
_FIRST_GREEN: Final = _WORST.index(GraphHealth.PAUSED)
_PUT_AWAY: Final = (GraphHealth.PAUSED, GraphHealth.ARCHIVED)


def level_of(state: GraphHealth) -> Level:
    """Return the level that a state has unless a finding says another."""
    place = _WORST.index(state)
    return Level.RED if place < _FIRST_YELLOW else Level.YELLOW if place < _FIRST_GREEN else Level.GREEN


ALERTS: Final[Mapping[GraphHealth, tuple[str, ...]]] = {
    GraphHealth.STUCK: ("SynclineWorkflowTasksFail",),
    GraphHealth.NO_WORKER: ("SynclineNoWorker",),
    GraphHealth.FAILED: ("SynclineCyclesFail",),
    GraphHealth.INVALID: ("SynclineSchedulesRefused",),
    GraphHealth.RETRYING: ("SynclineAttemptsRetried",),
    GraphHealth.BLOCKED: ("SynclineBlocked",),
    GraphHealth.NEVER_DUE: ("SynclineSchedulesNeverDue",),
    GraphHealth.HELD: ("SynclineHeld",),
    GraphHealth.REFUSED: ("SynclineDeadLetters", "SynclineVectorsRefused"),
    GraphHealth.REMOVAL_WITHHELD: ("SynclineRemovalWithheld",),
    GraphHealth.LATE: ("SynclineMaxLag",),
    GraphHealth.UNKNOWN: ("SynclineGraphStale",),
    GraphHealth.FALLBACK: ("SynclineFallback",),
    GraphHealth.BUDGET_SPENT: ("SynclineEmbeddingBudgetSpent",),
    GraphHealth.RATE_LIMITED: ("SynclineVectorsDelayed",),
    GraphHealth.VECTORS_DELAYED: ("SynclineVectorsDelayed",),
    GraphHealth.HELD_BACK: ("SynclineOpenWriter",),
    GraphHealth.PARKED: ("SynclineParked",),
    GraphHealth.KEYS_OWED: ("SynclineKeysOwed",),
    GraphHealth.BEHIND: ("SynclineNotDrained",),
}
"""State -> the alerts of `ops/alerts.yml` that tell of it."""

SAVED_VIEWS: Final[Mapping[GraphHealth, str]] = {
    GraphHealth.STUCK: "TemporalReportedProblems IS NOT NULL",
    GraphHealth.FAILED: 'ExecutionStatus IN ("Failed","TimedOut","Terminated")',
    GraphHealth.BLOCKED: 'SynclineStatus="blocked"',
    GraphHealth.HELD: 'SynclineStatus="held"',
    GraphHealth.REFUSED: "SynclineFailures>0",
    GraphHealth.FALLBACK: "SynclineFallback=true",
    GraphHealth.VECTORS_DELAYED: 'SynclineStatus="vectors_delayed"',
    GraphHealth.BEHIND: 'SynclineStatus="budget_spent"',
}
"""State -> the query of the saved view that lists the runs which found it. The others are kept in no run."""


def rank_of(level: Level, state: GraphHealth) -> tuple[int, int]:
    """Return the place of a state among others, the worst first."""
    return list(Level).index(level), _WORST.index(state)


class Finding(Message):
    """Something about a graph that somebody has to know."""

    state: GraphHealth
    level: Level
    reason: str
    """A sentence without the graph's name."""
    next: str | None = None
    """The command that shows more, or mends it."""

    @classmethod
    def of(cls, state: GraphHealth, reason: str, next: str | None = None) -> "Finding":  # noqa: A002
        """Return a finding with the level of its state."""
        return cls(state=state, level=level_of(state), reason=reason, next=next)

    @property
    def rank(self) -> tuple[int, int]:
        """Place among findings, the worst first."""
        return rank_of(self.level, self.state)


class VectorDelay(Message):
    """A collection that cannot be written."""

    collection: str
    since: datetime
    next_retry_at: datetime
    error: str
    """The error's class and sentence, as cycles keep it."""


class GraphNumbers(Message):
    """What the state tables of one graph and the write-db say of it. Triggers keep the counts."""

    graph: str
    status: GraphStatus = GraphStatus.ACTIVE
    problem: str | None = None
    """Why it could not be asked; null if it was."""
    invalid: str | None = None
    """Why its record is invalid; null if it is not."""
    kept: bool = True
    """Whether it has state tables: one that was never prepared, or whose provider keeps its own, has none."""
    refused_rows: int = 0
    refused_example: str | None = None
    """Table and SQLSTATE of one of them, without values."""
    retry_at: datetime | None = None
    """When the first refused row is tried again by itself."""
    refused_points: int = 0
    refused_points_example: str | None = None
    parked: int = 0
    pending_points: int = 0
    delays: tuple[VectorDelay, ...] = ()
    owed: int = 0
    """Foreign keys and indexes that a first load has put off."""
    owed_problem: str | None = None
    """Why one of them could not be put back."""
    withheld: int = 0
    """Rows that the write-db turned out not to have: too many to remove them unasked."""
    withheld_tables: str | None = None
    behind_since: datetime | None = None
    held_back_by: str | None = None
    """The open transaction that committed rows wait for, in words."""
    kept_until: datetime | None = None
    """When the generation before its rebuild was to go, if that is over; null otherwise."""
    missing_aliases: tuple[str, ...] = ()
    """What readers are to query, for collections with points, and the vector store does not have."""
    lag_seconds: float = 0.0
    """How far it is, or may be, behind: since when a cycle has left rows, or that transaction is open."""
    max_lag_seconds: int | None = None
    """The lag that its record allows; null: nothing is promised."""


class GraphNumbersRequest(Message):
    """Input of `DescribeGraphs`; with `graph`, the page contains only that graph."""

    graph: str | None = None
    after: str | None = None
    limit: int = 250
    seconds: float = Field(default=3.0, gt=0, le=20)
    """In which all stores have to answer: what does not is told as such."""


class GraphNumbersPage(Message):
    """Result of `DescribeGraphs`: graphs ordered by slug."""

    graphs: tuple[GraphNumbers, ...] = ()
    next: str | None = None
    """Value of `after` for the following page; null on the last page."""


def judge(
    findings: Iterable[Finding], *, running: bool, ran: bool
) -> tuple[GraphHealth, Level, Sequence[Finding]]:
    """Return the state of a graph, its level, and its findings with the worst first.

    A graph that somebody has paused or archived has that state, and its level; its findings stay.
    """
    found = sorted(findings, key=lambda finding: finding.rank)
    put_away = next((finding for finding in found if finding.state in _PUT_AWAY), None)
    worst = next((finding for finding in found if finding.state not in _PUT_AWAY), None)
    if put_away is not None and not running:
        return put_away.state, put_away.level, found
    if worst is not None:
        return worst.state, worst.level, found
    state = GraphHealth.RUNNING if running else GraphHealth.OK if ran else GraphHealth.NEVER
    return state, Level.GREEN, found


def numbers_findings(numbers: GraphNumbers) -> Sequence[Finding]:
    """Return what the numbers of a graph say that somebody has to know."""
    slug = numbers.graph
    found: list[Finding] = []
    if numbers.status is GraphStatus.ARCHIVED:
        return [Finding.of(GraphHealth.ARCHIVED, "nothing syncs it", f"syncline graph resume {slug}")]
    if numbers.invalid is not None:
        found.append(Finding.of(GraphHealth.INVALID, f"its record is invalid: {numbers.invalid}"))
    if numbers.problem is not None:
        found.append(
            Finding.of(GraphHealth.UNKNOWN, f"its state was not asked: {numbers.problem}", "syncline doctor")
        )
    if numbers.refused_rows:
        found.append(
            Finding.of(GraphHealth.REFUSED, _refused_rows(numbers), f"syncline failures summary {slug}")
        )
    if numbers.refused_points:
        why = f": {numbers.refused_points_example}" if numbers.refused_points_example else ""
        refused = f"{_either(numbers.refused_points, 'text', 'point')} refused{why}"
        found.append(Finding.of(GraphHealth.REFUSED, refused, f"syncline status {slug}"))
    if numbers.withheld:
        gone = f"{counted(numbers.withheld, 'row')} of {numbers.withheld_tables} gone from the write-db"
        told = f"{gone}: too many to remove unasked"
        found.append(Finding.of(GraphHealth.REMOVAL_WITHHELD, told, f"syncline verify {slug}"))
    promised = numbers.max_lag_seconds
    if promised is not None and numbers.lag_seconds > promised:
        lag = f"it is, or may be, {format_seconds(numbers.lag_seconds)} behind: {promised} s are promised"
        found.append(Finding.of(GraphHealth.LATE, lag, f"syncline status {slug}"))
    if numbers.missing_aliases:
        lost = f"readers of {' and '.join(numbers.missing_aliases)} find nothing: there is no such alias"
        found.append(
            Finding.of(GraphHealth.NO_ALIAS, f"{lost}; the next cycle makes it", f"syncline sync {slug}")
        )
    found += _delayed(numbers)
    if numbers.held_back_by is not None:
        waits = f"committed rows wait for {numbers.held_back_by}"
        found.append(Finding.of(GraphHealth.HELD_BACK, waits, "syncline doctor"))
    if numbers.parked:
        parked = f"{_either(numbers.parked, 'row', 'reference')} parked"
        found.append(
            Finding.of(GraphHealth.PARKED, f"{parked} for a missing parent", f"syncline parked {slug}")
        )
    if numbers.owed:
        owed = keys_or_indexes(numbers.owed)
        told = f"{owed} put off by a first load"
        level = Level.YELLOW
        if numbers.owed_problem is not None:
            told, level = f"{owed} not back after a first load: {numbers.owed_problem}", Level.RED
        found.append(
            Finding(state=GraphHealth.KEYS_OWED, level=level, reason=told, next=f"syncline status {slug}")
        )
    if numbers.kept_until is not None:
        kept = f"what its rebuild has replaced was to be kept until {_at(numbers.kept_until)}"
        found.append(Finding.of(GraphHealth.KEPT_TOO_LONG, kept, f"syncline rebuild drop {slug}"))
    return found


def _refused_rows(numbers: GraphNumbers) -> str:
    example = f" ({numbers.refused_example})" if numbers.refused_example else ""
    again = "" if numbers.retry_at is None else f"; tried again at {_at(numbers.retry_at)}"
    return f"{counted(numbers.refused_rows, 'row')} refused by the graph-db{example}{again}"


def _delayed(numbers: GraphNumbers) -> Iterable[Finding]:
    """Yield one finding for each cause of delay."""
    by_error: dict[str, list[VectorDelay]] = {}
    for delay in numbers.delays:
        by_error.setdefault(delay.error, []).append(delay)
    waiting = counted(numbers.pending_points, "vector") if numbers.pending_points else "vectors"
    verb = "waits" if numbers.pending_points == 1 else "wait"
    for error, delays in by_error.items():
        name, _, said = error.partition(": ")
        again = min(delay.next_retry_at for delay in delays)
        reason = f"{waiting} {verb}: {said or error} Next try at {_at(again)}."
        state, level, command = _of_delay(numbers.graph, name, said)
        yield Finding(state=state, level=level, reason=reason, next=command)


def _of_delay(slug: str, name: str, said: str) -> tuple[GraphHealth, Level, str]:
    """Return state, level and next command of a delay by its error."""
    if name == EmbeddingBudgetSpent.__name__:
        return GraphHealth.BUDGET_SPENT, Level.YELLOW, f"syncline usage {slug}"
    if "HTTP 429" in said or "asked for a pause" in said or "requests a pause" in said:
        return GraphHealth.RATE_LIMITED, Level.YELLOW, f"syncline status {slug}"
    kind = getattr(errors, name, None)
    heals = isinstance(kind, type) and issubclass(kind, SynclineError) and kind.retryable
    # A wrong key, dimension or setting stays wrong until somebody corrects it.
    heals = heals and kind is not EmbeddingDiffers
    return GraphHealth.VECTORS_DELAYED, Level.YELLOW if heals else Level.RED, "syncline doctor"


def _either(count: int, one: str, other: str) -> str:
    """Return a count of things of two kinds that are not told apart."""
    plural = "" if count == 1 else "s"
    return f"{count:,} {one}{plural} or {other}{plural}"


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
