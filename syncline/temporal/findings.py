"""Findings about a graph by its runs and its Schedule, next to those by its state tables."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from syncline.control.schedule_spec import DueKind, DueProblem
from syncline.messages.base import Message
from syncline.messages.sync import Waiting
from syncline.operator.graph_state import Finding, GraphHealth, numbers_findings
from syncline.quoting import counted
from syncline.temporal.graph_numbers import AnsweredNumbers
from syncline.temporal.runs import ListedRun
from syncline.temporal.schedules.list import ListedSchedule
from syncline.temporal.schedules.notes import read_note
from syncline.temporal.stalls import PendingRetry, Stall, StallKind

__all__ = ["GraphSchedule", "all_findings", "run_findings"]


class GraphSchedule(Message):
    """The Schedule of a graph."""

    spec: str
    paused: bool
    paused_with_graph: bool = False
    """Paused because the graph is paused, not by an operator."""
    note: str | None = None
    """As Temporal has it."""
    reason: str | None = None
    """Why it is paused, if somebody has said so."""
    paused_by: str | None = None
    """Who said to have paused it."""
    next_at: datetime | None = None
    due: DueProblem | None = None
    """Problem with its times; null if there is none, or if it is paused."""

    @property
    def pause(self) -> str:
        """Return why and by whom it is paused, in words."""
        said = read_note(self.note)
        if not self.paused_with_graph:
            return f"paused by an operator: {said.text}"
        return "paused with the graph" + (f": {said.text}" if said.reason or said.who else "")

    @classmethod
    def of(cls, listed: ListedSchedule) -> "GraphSchedule":
        """Return the fields of a listed Schedule that concern the graph."""
        said = read_note(listed.note if listed.paused else None)
        return cls(
            spec=listed.spec,
            paused=listed.paused,
            paused_with_graph=said.with_graph,
            note=listed.note,
            reason=said.reason,
            paused_by=said.who,
            next_at=listed.next_at,
            due=listed.due,
        )


def _number_findings(slug: str, numbers: AnsweredNumbers | None, *, running: bool) -> Iterator[Finding]:
    """Yield what the state tables say of a graph; that they were not asked, if a worker should have."""
    if numbers is None:
        return
    told = numbers.graphs.get(slug)
    if told is None and numbers.no_worker:
        yield Finding.of(GraphHealth.NO_WORKER, numbers.problem or "no worker polls", "syncline doctor")
    elif told is None:
        why = numbers.problem or "this control plane has no record of it"
        yield Finding.of(GraphHealth.UNKNOWN, f"its state was not asked: {why}", "syncline doctor")
    else:
        yield from numbers_findings(told)
        if told.behind_since is not None and not running:
            since = f"{told.behind_since:%Y-%m-%d %H:%M:%S}Z"
            reason = f"its last cycle left rows for the next one; not complete since {since}"
            yield Finding.of(GraphHealth.BEHIND, reason, f"syncline sync {slug}")


def all_findings(
    of_runs: Iterable[Finding],
    slug: str,
    numbers: AnsweredNumbers | None,
    *,
    last: ListedRun | None,
    running: bool,
) -> Sequence[Finding]:
    """Return the findings of runs and numbers. Numbers are newer, and know why: runs do not repeat them.

    A run whose worker must not write the graph's vectors leaves them to others, and nothing of that in the
    state tables, also not that an earlier cause is over: what still waits then is told by the run.
    """
    told = None if numbers is None else numbers.graphs.get(slug)
    by_numbers: set[GraphHealth] = set()
    if told is not None and told.kept and told.problem is None:
        by_numbers.add(GraphHealth.REFUSED)
        tried = [delay for delay in told.delays if last is None or delay.next_retry_at > last.started_at]
        if tried or not told.pending_points:
            by_numbers.add(GraphHealth.VECTORS_DELAYED)
    mine = [finding for finding in of_runs if finding.state not in by_numbers]
    return [*mine, *_number_findings(slug, numbers, running=running)]


def run_findings(
    slug: str,
    last: ListedRun | None,
    running: ListedRun | None,
    trying: PendingRetry | None,
    schedule: GraphSchedule | None,
    stall: Stall | None = None,
    waiting: Waiting | None = None,
    *,
    why: str | None = None,
) -> Iterator[Finding]:
    """Yield what the runs and the Schedule of a graph say that somebody has to know.

    `why` is what its last run failed at.
    """
    status = f"syncline status {slug}"
    if stall is not None and stall.kind is StallKind.TASK_FAILS:
        yield Finding.of(GraphHealth.STUCK, f"{stall.problem} {stall.fix}", status)
    if stall is not None and stall.kind is StallKind.NO_WORKER:
        yield Finding.of(GraphHealth.NO_WORKER, f"{stall.problem} {stall.fix}", "syncline doctor")
    if stall is not None and stall.kind is StallKind.HALTED:
        yield Finding.of(GraphHealth.HALTED, f"{stall.problem} {stall.fix}", status)
    if schedule is not None and schedule.paused:
        command = (
            f"syncline graph resume {slug}"
            if schedule.paused_with_graph
            else f"syncline schedule resume {slug}"
        )
        yield Finding.of(GraphHealth.PAUSED, schedule.pause, command)
    if trying is not None:
        reason = f"attempt {trying.attempt} of {trying.activity}; the last failed: {trying.problem}"
        yield Finding.of(GraphHealth.RETRYING, reason, status)
    yield from _last_run_findings(last, status, why)
    due = None if schedule is None or running is not None else schedule.due
    if due is not None and due.kind is DueKind.NEVER:
        yield Finding.of(GraphHealth.NEVER_DUE, f"{due.problem} {due.fix}", f"syncline graph show {slug}")
    if waiting is not None:
        since = f"{waiting.since:%Y-%m-%d %H:%M:%S}Z"
        reason = f"{waiting.on} has answered neither a request nor a probe since {since}"
        yield Finding.of(GraphHealth.WAITING, reason, "syncline doctor")


def _last_run_findings(last: ListedRun | None, status: str, why: str | None) -> Iterator[Finding]:
    if last is None:
        return
    if last.status.trouble:
        yield Finding.of(GraphHealth.FAILED, f"its last run {last.status}{f': {why}' if why else ''}", status)
    if last.blocked:
        yield Finding.of(GraphHealth.BLOCKED, "its lock is taken and no run has it", status)
    if last.held:
        reason = f"no worker has provider {last.provider or 'of its composition'}, so nothing is synced"
        yield Finding.of(GraphHealth.HELD, reason, "syncline providers")
    if last.fallback:
        reason = "no worker has its provider: the built-in engine syncs it"
        yield Finding.of(GraphHealth.FALLBACK, reason, "syncline providers")
    if last.vectors_delayed:
        yield Finding.of(GraphHealth.VECTORS_DELAYED, "its last run left vectors", status)
    if last.failures and not last.status.trouble:
        yield Finding.of(GraphHealth.REFUSED, f"its last run had {counted(last.failures, 'failure')}", status)
