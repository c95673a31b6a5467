"""Waiting for a run, and showing meanwhile how far it is: live on a terminal, else line by line."""

import asyncio
import time
from typing import Final, Protocol, Self

import typer
from rich.console import Console
from rich.live import Live as RichLive
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from temporalio.client import Client

from syncline.cli.answers import SyncedRun
from syncline.cli.operators import format_time
from syncline.cli.output import one_line
from syncline.cli.run_output import format_waiting
from syncline.errors import NoWorker, QuestionUnanswered
from syncline.messages.sync import CycleProgress, RunPhase, SyncState, TableProgress
from syncline.quoting import counted
from syncline.temporal.client import temporal_errors_mapped
from syncline.temporal.runs import outcome_of, progress_of, run_of, state_of
from syncline.temporal.stalls import Pending, pending_of
from syncline.temporal.task_queues import live, pollers

__all__ = ["Lines", "Live", "View", "wait_for_run", "warn_if_no_worker"]

_STEP: Final = 1.0
_PATIENCE: Final = 2.0
"""Seconds after which a run that nobody has begun is looked after."""


class View(Protocol):
    """Shows a run that is waited for."""

    @property
    def wants_state(self) -> bool:
        """Whether the run is to be asked for its state; a worker has to answer."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def show(self, state: SyncState | None, pending: Pending) -> None:
        """Show what the run says of itself, and what it fails at or waits for."""


async def wait_for_run(
    client: Client, begun: SyncedRun, *, task_queue: str, view: View, seconds: float | None
) -> SyncedRun:
    """Return the run with its outcome, or as it is if it has not ended within these seconds.

    Raise NoWorker if nobody polls the task queue, so that it would not even begin; it is kept, and runs when
    somebody does.
    """
    handle = client.get_workflow_handle(begun.workflow_id, run_id=begun.run_id)
    until = None if seconds is None else time.monotonic() + seconds
    began = time.monotonic()
    looked = False
    with temporal_errors_mapped(client), view:
        ended = asyncio.create_task(handle.result(follow_runs=False))
        try:
            while True:
                left = _STEP if until is None else min(_STEP, until - time.monotonic())
                if left <= 0:
                    return begun
                done, _ = await asyncio.wait({ended}, timeout=left)
                if done:
                    break
                if not looked and time.monotonic() - began > _PATIENCE:
                    looked = True
                    refused = await _no_worker(client, task_queue)
                    if refused is not None:
                        typer.echo("The run is kept: it begins when a worker polls its queue.", err=True)
                        raise refused
                state = await _state(client, begun) if view.wants_state else None
                view.show(state, await pending_of(client, begun.workflow_id, begun.run_id))
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
        if view.wants_state:
            view.show(await _state(client, begun), Pending())
    run = await run_of(client, begun.workflow_id, begun.run_id)
    outcome = await outcome_of(client, run)
    return begun.model_copy(
        update={
            "status": run.status.value,
            "cycle": outcome.cycle,
            "provider": run.provider,
            "fallback": run.fallback,
            "result": outcome.result,
            "error": outcome.error,
        }
    )


async def warn_if_no_worker(client: Client, task_queue: str) -> None:
    """Write to stderr that no worker polls the task queue, if so."""
    refused = await _no_worker(client, task_queue)
    if refused is not None:
        typer.echo(str(refused), err=True)


async def _no_worker(client: Client, task_queue: str) -> NoWorker | None:
    """Return what to say if no worker can take a new run. One that died within 90 seconds still counts."""
    found = await pollers(client, task_queue)
    if any(one.takes_new_runs for one in live(found)):
        return None
    return NoWorker(task_queue, client.namespace, others=[one.version for one in live(found)])


class Lines:
    """A line whenever there is news."""

    def __init__(self, *, err: bool, tables: bool) -> None:
        self._err = err
        self.wants_state = tables
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, state: SyncState | None, pending: Pending) -> None:
        """Print what differs from the last line."""
        line = _trouble(pending) or (None if state is None else _in_a_line(state))
        stall = pending.stall
        # How long it lasts changes all the while, and is no news.
        news = line if stall is None else f"{stall.kind} {stall.since}"
        if line and news != self._last:
            typer.echo(line, err=self._err)
            self._last = news or ""


class Live:
    """One bar for each table, or a counting row while its total is not known."""

    wants_state = True

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[effects]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._ids: dict[str, TaskID] = {}
        self._head = Text("waiting for a worker")
        self._live = RichLive(self._table(), console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, state: SyncState | None, pending: Pending) -> None:
        """Draw the run anew."""
        trouble = _trouble(pending)
        if trouble:
            self._head = Text(trouble, style="yellow")
        elif state is not None:
            self._head = Text(_phase(state))
        for table in () if state is None else _tables(state):
            self._bar(table, ended=state is not None and state.phase is RunPhase.DONE)
        self._live.update(self._table(), refresh=True)

    def _bar(self, table: TableProgress, *, ended: bool) -> None:
        known = self._ids.get(table.table)
        if known is None:
            known = self._ids[table.table] = self._bars.add_task(table.table, total=None, effects="")
        total = table.captured if ended else table.expected
        self._bars.update(
            known,
            # More may come than was expected: what is written meanwhile is read by this cycle, too.
            total=None if total is None else max(total, table.captured),
            completed=table.captured,
            effects=_effects(table),
        )

    def _table(self) -> Table:
        grid = Table.grid()
        grid.add_row(self._head)
        grid.add_row(self._bars)
        return grid


async def _state(client: Client, begun: SyncedRun) -> SyncState | None:
    """Return the run's state, None while no worker answers: a follower asks again.

    While its cycle tells how far it is, that is all a follower is shown, and no worker is asked.
    """
    progress = await progress_of(client, begun.workflow_id, begun.run_id)
    if progress is not None:
        return SyncState(graph=begun.graph, phase=RunPhase.SYNCING, progress=progress)
    try:
        return await state_of(client, begun.workflow_id, begun.run_id, seconds=2)
    except QuestionUnanswered:
        return None


def _tables(state: SyncState) -> tuple[TableProgress, ...]:
    if state.phase is RunPhase.DONE and state.last_result is not None:
        return tuple(table for table in state.last_result.tables if table.captured)
    return () if state.progress is None else state.progress.tables


def _phase(state: SyncState) -> str:
    progress: CycleProgress | None = state.progress
    if state.phase is not RunPhase.SYNCING or progress is None:
        return state.phase.value
    if progress.phase == "linger":
        return "done, open for further changes"
    vectors = f", {counted(progress.vectors, 'vector')}" if progress.vectors else ""
    return f"{state.phase.value}: {progress.phase}{vectors}"


def _in_a_line(state: SyncState) -> str:
    parts = [_phase(state)]
    for table in _tables(state):
        of = "" if table.expected is None else f" of {table.expected:,}"
        parts.append(f"{table.table} {table.captured:,}{of}")
    return "; ".join(parts)


def _effects(table: TableProgress) -> str:
    counts = {
        "changed": table.rows,
        "links": table.links,
        "deleted": table.deletes,
        "refused": table.failures,
    }
    done = [f"{number:,} {word}" for word, number in counts.items() if number]
    return ", ".join([*done, *(["loading"] if table.loading else [])])


def _trouble(pending: Pending) -> str | None:
    if pending.stall is not None:
        return one_line(f"{pending.stall.problem} {pending.stall.fix}")
    trying = pending.trying
    if trying is None:
        return None if pending.waiting is None else format_waiting(pending.waiting)
    when = "now" if trying.next_at is None else f"at {format_time(trying.next_at)}"
    return one_line(f"{trying.activity}: {trying.problem} Attempt {trying.attempt} {when}.")
