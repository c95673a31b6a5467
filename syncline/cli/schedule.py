"""`syncline schedule …`: the Schedules of the graphs, read and steered in Temporal alone."""

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import (
    GraphArgument,
    JsonOption,
    OptionalGraphArgument,
    format_time,
    os_user,
    print_json_list,
    run,
    slug_of,
)
from syncline.cli.output import (
    EXIT_FAILED,
    errors_printed,
    one_line,
    print_error,
    print_table,
    print_warning,
)
from syncline.errors import ConfigurationError, ScheduleNotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from temporalio.client import Client

    from syncline.cli.answers import ScheduleListed, SteeredAction
    from syncline.messages.sync import Reconciliation
    from syncline.temporal.schedules.list import ListedSchedule

__all__ = ["app"]

_MANY_RUNS = 300
_MOST_COUNTED = 1_000

app = typer.Typer(
    help="Show, pause, resume and trigger the Schedules of graphs. Needs Temporal only, an id also a worker.",
    no_args_is_help=True,
)


@app.command("list")
@errors_printed
def list_schedules(as_json: JsonOption = False) -> None:
    """List the Schedules of all graphs: when they run, who is paused and why. It lags a moment behind."""
    found = run(_list())
    if as_json:
        print_json_list(map(_answer, found))
        return
    header = ("graph", "schedule", "state", "next run", "last run", "note")
    print_table(header, map(_line, found), spare=("last run", "schedule", "next run"))


@app.command()
@errors_printed
def trigger(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Start a run now, unless one is open. A paused Schedule runs too, this once."""
    graph = slug_of(graph)
    run(_steer(graph, _trigger))
    _print_steered(f"Triggered {graph}.", as_json=as_json, graph=graph, action="triggered")


@app.command()
@errors_printed
def pause(
    reason: Annotated[str, typer.Option(help="Why, for whoever finds it paused; kept with your name.")],
    graph: OptionalGraphArgument = None,
    everything: Annotated[
        bool, typer.Option("--all", help="In place of GRAPH: each that `syncline schedule list` shows.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Pause a graph's Schedule, whatever becomes of its record, until somebody resumes it.

    With --all those that are paused already stay as they are, and exit status 1 says that one was not paused.
    """
    _check_reason(reason)
    if graph is None or everything:
        _require_all(graph, everything=everything)
        _steer_all("paused", reason, as_json=as_json)
        return
    graph = slug_of(graph)
    run(_steer(graph, partial(_pause, reason=reason)))
    _print_steered(
        f"Paused {graph}: {one_line(reason)}", as_json=as_json, graph=graph, action="paused", reason=reason
    )


@app.command()
@errors_printed
def resume(
    graph: OptionalGraphArgument = None,
    everything: Annotated[
        bool, typer.Option("--all", help="In place of GRAPH: each that was paused for this --reason.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="With --all: word for word that of the pause.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Resume a Schedule that an operator paused.

    With --all those that were paused for another reason stay paused, and exit status 1 says that one was not
    resumed.
    """
    if graph is None or everything:
        _require_all(graph, everything=everything)
        if reason is None:
            raise ConfigurationError("--all needs --reason: what was paused for another one stays paused.")
        _check_reason(reason)
        _steer_all("resumed", reason, as_json=as_json)
        return
    if reason is not None:
        raise ConfigurationError("--reason goes with --all; one graph is resumed whatever it was paused for.")
    slug = slug_of(graph)
    run(_steer(slug, _resume))
    _print_steered(f"Resumed {slug}.", as_json=as_json, graph=slug, action="resumed")


@app.command()
@errors_printed
def backfill(
    graph: GraphArgument,
    start: Annotated[str, typer.Option(metavar="TIME", help="ISO 8601; UTC unless it says otherwise.")],
    end: Annotated[str, typer.Option(metavar="TIME", help="The same; not before the start.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, however many runs it is.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run as if the Schedule's times between start and end came now, one after the other.

    A run syncs what is there now, whatever time it stands for: one is usually enough. More than 300 are asked
    about.
    """
    first, last = _moment("--start", start), _moment("--end", end)
    if last < first:
        raise ConfigurationError("--end is before --start; swap them.")
    graph = slug_of(graph)
    if not yes:
        _ask_about_many(graph, first, last)
    run(_steer(graph, partial(_backfill, start=first, end=last)))
    _print_steered(
        f"Backfilling {graph} from {first.isoformat()} to {last.isoformat()}.",
        as_json=as_json,
        graph=graph,
        action="backfilling",
        start=first,
        end=last,
    )


@app.command()
@errors_printed
def reconcile(
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for it.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Make all Schedules match the graphs now, instead of within SYNCLINE_RECONCILE_SECONDS; needs a worker.

    Exit status 1 if a graph is refused; the others are reconciled all the same. A graph whose Schedule never
    comes again is told on stderr.
    """
    result = run(_reconcile(timeout))
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        for word, number, slugs in (
            ("created", result.created, result.created_graphs),
            ("updated", result.updated, result.updated_graphs),
            ("deleted", result.deleted, result.deleted_graphs),
        ):
            more = ", …" if number > len(slugs) else ""
            typer.echo(f"{word:<10} {number:>6}  {', '.join(slugs)}{more}".rstrip())
        typer.echo(f"{'unchanged':<10} {result.unchanged:>6}")
        typer.echo(f"{'refused':<10} {result.refusals:>6}")
        if result.never_due:
            typer.echo(f"{'never due':<10} {result.never_due:>6}")
    for slug, problem in result.never_due_graphs.items():
        print_warning(one_line(f"{slug}: {problem}"))
    for slug, problem in result.refused.items():
        print_error(one_line(f"{slug}: {problem}"))
    if result.refusals:
        raise typer.Exit(EXIT_FAILED)


def _require_all(graph: str | None, *, everything: bool) -> None:
    if not everything:
        raise ConfigurationError("Nothing is named: give a GRAPH, or --all.")
    if graph is not None:
        raise ConfigurationError(f"Both {graph} and --all are given; leave one out.")


def _check_reason(reason: str) -> None:
    from syncline.temporal.schedules.notes import read_note

    # The note of an empty reason would be the server's own, and say nothing.
    if not reason.strip():
        raise ConfigurationError("--reason is empty; say why, for whoever finds it paused.")
    if read_note(reason).with_graph:
        raise ConfigurationError("--reason is the one of graphs that are paused; say another.")


def _steer_all(action: "SteeredAction", reason: str, *, as_json: bool) -> None:
    """Pause or resume all, and tell of each as soon as it is done."""
    from syncline.cli.answers import SchedulesSteered
    from syncline.temporal.schedules.notes import operators_note
    from syncline.temporal.schedules.steer import pause_all, resume_all

    done: list[str] = []
    failed: dict[str, str] = {}

    def report(slug: str, problem: str | None) -> None:
        if problem is not None:
            failed[slug] = problem
            print_error(one_line(f"{slug}: {problem}"))
            return
        done.append(slug)
        if not as_json:
            typer.echo(f"{action.capitalize()} {slug}.")

    async def steer() -> None:
        from syncline.cli.target import connect_temporal

        client = await connect_temporal()
        if action == "paused":
            await pause_all(client, operators_note(reason, os_user()), report=report)
        else:
            await resume_all(client, reason, report=report)

    run(steer())
    if as_json:
        answer = SchedulesSteered(action=action, reason=reason, graphs=tuple(sorted(done)), failed=failed)
        typer.echo(answer.model_dump_json(indent=2))
    elif not done and not failed:
        why = "each is paused already" if action == "paused" else "none is paused for that reason"
        typer.echo(f"Nothing {action}: {why}.")
    if failed:
        raise typer.Exit(EXIT_FAILED)


async def _list() -> "Sequence[ListedSchedule]":
    from syncline.cli.target import connect_temporal
    from syncline.temporal.schedules.list import list_schedules

    return await list_schedules(await connect_temporal())


async def _reconcile(seconds: float) -> "Reconciliation":
    from syncline.cli.target import connect_temporal, find_task_queue
    from syncline.temporal.schedules.reconcile import reconcile_now

    return await reconcile_now(await connect_temporal(), task_queue=find_task_queue(), seconds=seconds)


async def _steer(slug: str, act: "Callable[[Client, str], Awaitable[None]]") -> None:
    """Do something with a graph's Schedule, or raise ScheduleNotFound."""
    from temporalio.service import RPCError, RPCStatusCode

    from syncline import names
    from syncline.cli.target import connect_temporal
    from syncline.temporal.client import temporal_errors_mapped

    client = await connect_temporal()
    with temporal_errors_mapped(client):
        try:
            await act(client, slug)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise ScheduleNotFound(slug, names.sync_schedule_id(slug)) from error
            raise


async def _trigger(client: "Client", slug: str) -> None:
    from syncline.temporal.schedules.steer import start_now

    await start_now(client, slug)


async def _pause(client: "Client", slug: str, *, reason: str) -> None:
    from syncline.temporal.schedules import steer
    from syncline.temporal.schedules.notes import operators_note

    await steer.pause(client, slug, operators_note(reason, os_user()))


async def _resume(client: "Client", slug: str) -> None:
    from syncline.temporal.schedules import steer

    await steer.resume(client, slug)


async def _backfill(client: "Client", slug: str, *, start: "datetime", end: "datetime") -> None:
    from syncline.temporal.schedules import steer

    await steer.backfill(client, slug, start, end)


def _ask_about_many(graph: str, first: "datetime", last: "datetime") -> None:
    """Ask before hundreds of runs are started; without an answer, nothing is done."""
    counts: list[int] = []

    async def count(client: "Client", slug: str) -> None:
        from syncline.temporal.schedules.steer import count_times

        counts.append(await count_times(client, slug, first, last))

    run(_steer(graph, count))
    [number] = counts
    if number > _MANY_RUNS:
        more = " or more" if number >= _MOST_COUNTED else ""
        typer.echo(f"That starts {number:,}{more} runs of {graph}, one after the other.", err=True)
        typer.confirm("Start them?", abort=True, err=True)


def _moment(option: str, typed: str) -> "datetime":
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(typed)
    except ValueError:
        raise ConfigurationError(
            f"{option} '{one_line(typed)}' is no time; write it like 2026-01-31T12:00:00."
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _line(schedule: "ListedSchedule") -> tuple[str, ...]:
    last = schedule.last_runs[0].started_at if schedule.last_runs else None
    return (
        schedule.slug,
        schedule.spec,
        "paused" if schedule.paused else "active",
        format_time(schedule.next_at),
        format_time(last),
        schedule.note or "",
    )


def _answer(schedule: "ListedSchedule") -> "ScheduleListed":
    from syncline.cli.answers import ScheduleListed, ScheduleRun

    return ScheduleListed(
        graph=schedule.slug,
        spec=schedule.spec,
        paused=schedule.paused,
        note=schedule.note,
        next_at=schedule.next_at,
        last_runs=tuple(ScheduleRun(**asdict(run)) for run in schedule.last_runs),
    )


def _print_steered(sentence: str, *, as_json: bool, **fields: object) -> None:
    """Print what was done to a Schedule."""
    if not as_json:
        typer.echo(sentence)
        return
    from syncline.cli.answers import ScheduleSteered

    typer.echo(ScheduleSteered.model_validate(fields).model_dump_json(indent=2))
