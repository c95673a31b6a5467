"""`syncline status`: what every graph is doing, and one graph in full."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from syncline.cli.operators import (
    GraphArgument,
    JsonOption,
    OptionalGraphArgument,
    exit_nothing_matched,
    format_time,
    print_json_list,
    run,
    slug_of,
)
from syncline.cli.output import errors_printed, make_table, one_line, print_table
from syncline.cli.run_output import format_waiting, print_result, provider_lines
from syncline.quoting import shown
from syncline.run_text import format_lag, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from syncline.temporal.overview import GraphOverview, GraphReport, GraphSchedule
    from syncline.temporal.runs import ListedRun, RunEntry
    from syncline.temporal.stalls import PendingRetry

__all__ = ["HEALTH_STYLES", "runs", "status", "status_table"]

_HEADER: Final = (
    "graph",
    "state",
    "last run",
    "took",
    "by",
    "provider",
    "rows",
    "failures",
    "next run",
    "why",
)

HEALTH_STYLES: Final = {
    "stuck": "bold red",
    "no worker": "bold red",
    "failed": "bold red",
    "retrying": "red",
    "blocked": "bold red",
    "never due": "bold red",
    "waiting": "yellow",
    "held": "yellow",
    "fallback": "yellow",
    "vectors delayed": "yellow",
    "paused": "cyan",
    "running": "green",
    "timed_out": "bold red",
    "terminated": "red",
}


@errors_printed
def status(
    graph: OptionalGraphArgument = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Seconds to wait for a worker, for one graph.")
    ] = 3.0,
    as_json: JsonOption = False,
) -> None:
    """Show what every graph is doing, trouble first; or one graph in full, by its last run's own state.

    Needs Temporal only. If no worker answers, one graph is shown by what Temporal keeps of its last run;
    an id needs a worker, which looks up its slug.
    """
    if graph is not None:
        _status_of(slug_of(graph), timeout, as_json=as_json)
        return
    found = run(_overview())
    if as_json:
        print_json_list(found)
        return
    print_table(_HEADER, map(_line, found), styles=HEALTH_STYLES)


def status_table(graphs: "Sequence[GraphOverview]") -> "Table":
    """Return what `syncline status` shows on a terminal."""
    return make_table(_HEADER, map(_line, graphs), styles=HEALTH_STYLES)


def _status_of(graph: str, timeout: float, *, as_json: bool) -> None:
    report = run(_report(graph, timeout))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    for field, value in _fields(report):
        typer.echo(f"{field:<10} {one_line(value)}".rstrip())
    state = report.state
    if state is not None and state.last_result is not None:
        ours = report.run is not None and not report.run.open
        typer.echo("\nthis run's cycle:" if ours else "\nthe cycle before:")
        print_result(state.last_result)


async def _overview() -> "Sequence[GraphOverview]":
    from syncline.cli.target import connect_temporal
    from syncline.temporal.overview import overview

    return await overview(await connect_temporal(prepare=False))


async def _report(slug: str, seconds: float) -> "GraphReport":
    from syncline.cli.target import connect_temporal
    from syncline.temporal.overview import report_of

    return await report_of(await connect_temporal(prepare=False), slug, seconds=seconds)


def _line(graph: "GraphOverview") -> tuple[str, ...]:
    shown = graph.last_run or graph.running
    return (
        graph.graph,
        graph.standing,
        "-" if shown is None else format_time(shown.started_at),
        "-" if shown is None else format_seconds(shown.seconds),
        "-" if shown is None else shown.started_by,
        "-" if shown is None else shown.provider or "-",
        _count(None if shown is None else shown.rows),
        _count(None if shown is None else shown.failures),
        "-" if graph.schedule is None else format_time(graph.schedule.next_at),
        _why(graph),
    )


def _why(graph: "GraphOverview") -> str:
    """Return what explains the standing."""
    parts = []
    if graph.schedule is None:
        parts.append("it has no Schedule")
    elif graph.schedule.paused:
        parts.append(_pause(graph.schedule))
    elif graph.schedule.due is not None:
        parts.append(f"{graph.schedule.due.problem} {graph.schedule.due.fix}")
    if graph.stall is not None:
        parts.append(f"{graph.stall.problem} {graph.stall.fix}")
    elif graph.trying is not None:
        parts.append(_pending_retry(graph.trying))
    elif graph.waiting is not None:
        parts.append(format_waiting(graph.waiting))
    elif graph.running is not None:
        parts.append(f"a run has been open for {format_seconds(graph.running.seconds)}")
    if graph.last_run is not None and graph.last_run.status.trouble:
        parts.append(f"its last run {graph.last_run.status}: `syncline status {graph.graph}`")
    if graph.last_run is not None and graph.last_run.blocked:
        parts.append(f"it is taken and no run has it: `syncline status {graph.graph}` names who has")
    if graph.last_run is not None and graph.last_run.vectors_delayed:
        parts.append(f"`syncline status {graph.graph}` says why vectors wait, and until when")
    return "; ".join(parts)


def _fields(report: "GraphReport") -> Iterator[tuple[str, str]]:
    yield "graph", report.graph
    yield "state", report.standing
    if report.run is not None:
        yield "run", _run(report.run)
        yield "", f"{report.run.workflow_id}, run {report.run.run_id}"
    if report.stall is not None:
        yield "stuck" if report.standing == "stuck" else "waits", report.stall.problem
        yield "way out", report.stall.fix
    if report.trying is not None:
        yield "trying", _pending_retry(report.trying)
    if report.waiting is not None:
        yield "waits", format_waiting(report.waiting)
    if report.problem is not None:
        yield "worker", report.problem
    yield from _state_fields(report)
    yield from _schedule_fields(report)


def _state_fields(report: "GraphReport") -> Iterator[tuple[str, str]]:
    state, listed = report.state, report.run
    provider = [] if state is None else list(provider_lines(state.provider, resolved=state.resolved))
    if not provider and listed is not None and listed.provider:
        provider = [listed.provider + (" (fallback)" if listed.fallback else "")]
    for number, line in enumerate(provider):
        yield "" if number else "provider", line
    if report.scheduled is not None:
        for line in provider_lines(report.scheduled):
            yield "", f"in its Schedule's last run: {line}"
    if state is None:
        return
    yield "phase", state.phase
    if state.error:
        yield "error", state.error
    if report.run is not None and report.run.open and state.progress is not None:
        done = sum(table.captured for table in state.progress.tables)
        yield "progress", f"{state.progress.phase}: {done:,} rows read, {state.progress.vectors:,} vectors"
    result = state.last_result
    if result is not None:
        yield (
            "cycle",
            (
                f"{result.ended_as} in {format_seconds(result.duration_seconds)}, "
                f"lag {format_lag(result)}, {result.failures} failures, {result.parked} parked, "
                f"{result.dead_letters} dead letters"
            ),
        )
    carried = state.carried
    if result is not None and result.blocked:
        yield "blocked", f"since {format_time(carried.unowned_since)}, {carried.unowned_runs} runs in a row"
    totals = carried.totals
    if totals.runs:
        yield (
            "totals",
            (
                f"{totals.runs:,} runs, {totals.failed:,} of them failed, {totals.rows:,} rows, "
                f"{totals.links:,} links, {totals.vectors:,} vectors, {totals.failures:,} failures"
            ),
        )


def _schedule_fields(report: "GraphReport") -> Iterator[tuple[str, str]]:
    """Yield when the graph runs by itself, and why as rarely as it does."""
    schedule = report.schedule
    if schedule is None:
        yield "schedule", "none: it runs by hand or by cron only"
        return
    yield "schedule", schedule.spec
    cadence = None if report.state is None else report.state.carried.cadence
    if cadence is not None:
        since = format_time(cadence.since)
        yield "cadence", f"every {cadence.every_seconds:,} s since {since}: {cadence.reason}"
    if schedule.paused:
        yield "paused", _pause(schedule)
    else:
        yield "next run", format_time(schedule.next_at)
    if schedule.due is not None:
        yield "", schedule.due.problem
        yield "way out", schedule.due.fix


def _run(found: "ListedRun") -> str:
    ended = "" if found.ended_at is None else f", ended {format_time(found.ended_at)}"
    return (
        f"{found.status}, started by {found.started_by} {format_time(found.started_at)}{ended}, "
        f"{format_seconds(found.seconds)}"
    )


def _pause(schedule: "GraphSchedule") -> str:
    if schedule.paused_with_graph:
        return "paused with the graph"
    return f"paused by an operator: {schedule.note or 'no reason given'}"


def _pending_retry(trying: "PendingRetry") -> str:
    return f"attempt {trying.attempt} of {trying.activity}; the last failed: {trying.problem}"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


@errors_printed
def runs(
    graph: GraphArgument,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, at most.")] = 20,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that did not succeed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List a graph's last runs, newest first: what started each, how it ended, what it wrote.

    Needs Temporal only, and a worker to look up an id. How the cycle ended is read for the first hundred.
    """
    slug = slug_of(graph)
    found = run(_runs(slug, limit, failed))
    if as_json:
        print_json_list(found)
    elif found:
        header = ("started", "by", "run", "cycle", "provider", "rows", "failures", "took", "id", "error")
        print_table(header, map(_runs_line, found), styles=HEALTH_STYLES)
    if not found:
        kind = "run that did not succeed" if failed else "run"
        exit_nothing_matched(f"Temporal keeps no {kind} of graph {shown(slug)}.")


async def _runs(slug: str, limit: int, failed: bool) -> "Sequence[RunEntry]":
    from syncline.cli.target import connect_temporal
    from syncline.temporal.runs import run_entries

    return await run_entries(await connect_temporal(prepare=False), slug, limit=limit, failed=failed)


def _runs_line(found: "RunEntry") -> tuple[str, ...]:
    listed = found.run
    return (
        format_time(listed.started_at),
        listed.started_by,
        listed.status,
        found.cycle or "-",
        f"{listed.provider or '-'} {listed.provider_version or ''}".rstrip(),
        "-" if listed.rows is None else f"{listed.rows:,}",
        "-" if listed.failures is None else f"{listed.failures:,}",
        format_seconds(listed.seconds),
        f"{listed.workflow_id} {listed.run_id}",
        found.error or ("" if found.stall is None else f"{found.stall.problem} {found.stall.fix}"),
    )
