"""`syncline sync`: one run by hand, waited for, followed or only started."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from syncline import names
from syncline.cli.operators import GraphArgument, JsonOption, os_user, run, slug_of
from syncline.cli.output import (
    EXIT_ALREADY_RUNNING,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    errors_printed,
    one_line,
    print_error,
)
from syncline.cli.run_output import did_something, print_result
from syncline.errors import ConfigurationError
from syncline.run_text import format_seconds

if TYPE_CHECKING:
    from temporalio.client import Client

    from syncline.cli.answers import SyncedRun
    from syncline.cli.following import View
    from syncline.messages.base import Fairness
    from syncline.messages.sync import SyncGraphInput

__all__ = ["STATUS_OF_SYNC", "sync", "sync_and_wait"]

STATUS_OF_SYNC = (
    "Exit status: 0 synced (drained, budget_spent or vectors_delayed: it says which), 1 failed, held or not "
    "ended in --timeout, 2 wrong usage or configuration, 3 another run holds the graph (--follow follows "
    "that one), 130 Ctrl-C."
)

_FOLLOWED_EVERY = 1.0
_ASKED_SECONDS = 5.0
_TRIES = 3
"""Runs that are started while the one that holds the graph is gone whenever it is looked for."""


@errors_printed
def sync(
    graph: GraphArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show how far each table is, all the while.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait for its end and print what it did.")] = True,
    batch_rows: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Rows of one committed batch.")
    ] = None,
    time_budget: Annotated[
        float | None, typer.Option(metavar="S", max=3600, help="Seconds after which it stops draining.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="S", min=0.1, help="Seconds to wait; the run goes on after that.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sync a graph now, by a run of its own. A paused graph is synced too, this once.

    Its workflow id is sync-graph/GRAPH. If a run by hand is open already, that one is waited for instead;
    with --follow, any run that holds the graph is, for instance one of its Schedule. What is written after
    that one began may be left to the next. Ctrl-C stops the waiting, never the run.
    """
    if follow and not wait:
        raise ConfigurationError("--follow and --no-wait contradict each other; choose one.")
    from syncline.messages.sync import SyncGraphInput

    given = SyncGraphInput(
        graph=slug_of(graph),
        batch_rows=batch_rows,
        time_budget_seconds=time_budget,
        progress_seconds=_FOLLOWED_EVERY if follow else None,
    )
    answer = sync_and_wait(given, follow=follow, wait=wait, timeout=timeout, quiet=as_json)
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
    elif wait:
        _print(answer)
    _exit(answer, wait=wait, as_json=as_json)


def sync_and_wait(
    given: "SyncGraphInput", *, follow: bool, wait: bool, timeout: float | None, quiet: bool
) -> "SyncedRun":
    """Start a run, or join one, and return how it ended; Ctrl-C ends the waiting with its own status."""
    started: list[SyncedRun] = []
    try:
        return run(_sync(given, follow=follow, wait=wait, timeout=timeout, quiet=quiet, started=started))
    except KeyboardInterrupt:
        for one in started:
            typer.echo(f"\nNo longer waiting; the run goes on. {_where(one)}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


async def _sync(
    given: "SyncGraphInput",
    *,
    follow: bool,
    wait: bool,
    timeout: float | None,
    quiet: bool,
    started: "list[SyncedRun]",
) -> "SyncedRun":
    from syncline.cli.target import connect_temporal, find_task_queue
    from syncline.messages.sync import CycleStatus

    client = await connect_temporal()
    task_queue = find_task_queue()
    until = None if timeout is None else time.monotonic() + timeout
    fairness = await _fairness_of(client, given.graph or "", task_queue)

    async def waited(begun: "SyncedRun", said: str) -> "SyncedRun":
        from syncline.cli.following import Lines, wait_for_run, warn_if_no_worker

        started[:] = [begun]
        typer.echo(f"{begun.workflow_id} (run {begun.run_id}): {said}", err=quiet)
        await warn_if_no_worker(client, task_queue)
        if not wait:
            return begun
        view: View = _followed_view(quiet=quiet) if follow else Lines(err=True, tables=False)
        left = None if until is None else until - time.monotonic()
        return await wait_for_run(client, begun, task_queue=task_queue, view=view, seconds=left)

    for _ in range(_TRIES):
        begun = await _start(client, given, task_queue, fairness)
        answer = await waited(begun, "a run by hand is open already" if begun.joined else "started")
        if follow and answer.cycle is CycleStatus.ALREADY_RUNNING:
            holder = await _holder(client, begun)
            if holder is not None:
                answer = await waited(holder, "holds the graph; following it")
        # Else the one that held it has ended since.
        if not follow or answer.cycle is not CycleStatus.ALREADY_RUNNING:
            break
    return answer


async def _fairness_of(client: "Client", slug: str, task_queue: str) -> "Fairness | None":
    """Return the fairness of the graph's Schedule; None without one, the run then asks for it.

    Raise ConfigurationError if no graph has this slug: its run would stay in the list for days. A graph with
    a Schedule or an open run by hand is known. Of another one a worker is asked; without a worker its run
    waits.
    """
    from syncline.temporal.graph_numbers import ask_numbers
    from syncline.temporal.runs import is_open
    from syncline.temporal.schedules.list import find_schedule

    schedule = await find_schedule(client, slug)
    if schedule is not None or await is_open(client, names.sync_workflow_id(slug)):
        return None if schedule is None else schedule.fairness
    answered = await ask_numbers(client, task_queue, seconds=_ASKED_SECONDS, graph=slug)
    if answered.unknown and answered.problem is not None:
        raise ConfigurationError(answered.problem)
    return None


async def _holder(client: "Client", refused: "SyncedRun") -> "SyncedRun | None":
    """Return the run that holds the graph, which refused this one; None if it has ended since."""
    from syncline.cli.answers import SyncedRun
    from syncline.temporal.runs import run_at_work

    found = await run_at_work(client, refused.graph, but=refused.run_id)
    if found is None:
        return None
    return SyncedRun(
        graph=refused.graph,
        workflow_id=found.workflow_id,
        run_id=found.run_id,
        joined=True,
        status=found.status.value,
    )


def _followed_view(*, quiet: bool) -> "View":
    from rich.console import Console

    from syncline.cli.following import Lines, Live

    console = Console(stderr=quiet, highlight=False)
    return Live(console) if console.is_terminal else Lines(err=quiet, tables=True)


async def _start(
    client: "Client", given: "SyncGraphInput", task_queue: str, fairness: "Fairness | None"
) -> "SyncedRun":
    from temporalio.common import SearchAttributePair, TypedSearchAttributes
    from temporalio.exceptions import WorkflowAlreadyStartedError

    from syncline.cli.answers import SyncedRun
    from syncline.messages.sync import LONGEST_RUN
    from syncline.temporal.client import GRAPH, temporal_errors_mapped
    from syncline.temporal.priorities import BY_HAND, with_fairness

    slug = given.graph or ""
    workflow_id = names.sync_workflow_id(slug)
    with temporal_errors_mapped(client):
        try:
            handle = await client.start_workflow(
                names.SYNC_GRAPH,
                given,
                id=workflow_id,
                task_queue=task_queue,
                # As its Schedule does: it ends a run that no worker can go on with.
                execution_timeout=LONGEST_RUN,
                static_summary=f"Sync graph {slug}, by hand",
                search_attributes=TypedSearchAttributes([SearchAttributePair(GRAPH, slug)]),
                memo={"graph": slug, "started_by": os_user()},
                priority=with_fairness(BY_HAND, fairness),
            )
        except WorkflowAlreadyStartedError as error:
            run_id, joined = error.run_id, True
        else:
            run_id, joined = handle.first_execution_run_id, False
    return SyncedRun(
        graph=slug, workflow_id=workflow_id, run_id=run_id or "", joined=joined, status="running"
    )


def _print(answer: "SyncedRun") -> None:
    if answer.result is None:
        return
    result = answer.result
    if result.status == "held":
        typer.echo("held: nothing was synced")
        return
    by = "the built-in engine (fallback)" if answer.fallback else answer.provider
    typer.echo(f"{result.ended_as} in {format_seconds(result.duration_seconds)} by {by}")
    print_result(result)
    if result.drained and not did_something(result):
        typer.echo("nothing had changed")


def _exit(answer: "SyncedRun", *, wait: bool, as_json: bool) -> None:
    from syncline.messages.sync import CycleStatus

    if answer.cycle is CycleStatus.ALREADY_RUNNING:
        if not as_json:
            unowned = answer.result is not None and answer.result.unowned
            who = "No run" if unowned else "Another run"
            typer.echo(f"{who} holds the graph: `syncline status {answer.graph}` shows it.", err=True)
        raise typer.Exit(EXIT_ALREADY_RUNNING)
    if not wait:
        return
    if answer.status == "running":
        print_error(f"It has not ended in time; it goes on. {_where(answer)}")
        raise typer.Exit(EXIT_FAILED)
    if answer.cycle is CycleStatus.HELD:
        if not as_json:
            typer.echo("Nobody has its provider: `syncline providers` shows who has what.", err=True)
        raise typer.Exit(EXIT_FAILED)
    if answer.error is not None:
        print_error(one_line(answer.error))
        raise typer.Exit(EXIT_FAILED)
    if answer.cycle is CycleStatus.BUDGET_SPENT and not as_json:
        typer.echo("The time budget ended first; the next run goes on from here.", err=True)


def _where(answer: "SyncedRun") -> str:
    return (
        f"`syncline status {answer.graph}` shows it; "
        f"`temporal workflow cancel --workflow-id {answer.workflow_id}` ends it."
    )
