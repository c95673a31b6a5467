"""`syncline status`: the state of every graph, and one graph in full."""

import contextlib
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
from syncline.cli.output import FittedTable, errors_printed, print_fields, print_fitted, print_table
from syncline.cli.run_output import format_waiting, has_news, print_result, provider_lines
from syncline.errors import ConfigurationError
from syncline.quoting import counted, shown
from syncline.run_text import format_lag, format_seconds

if TYPE_CHECKING:
    from syncline.operator.graph_state import Finding
    from syncline.temporal.overview import GraphOverview, GraphReport
    from syncline.temporal.runs import ListedRun, RunEntry
    from syncline.temporal.stalls import PendingRetry

__all__ = ["format_finding", "runs", "status", "status_table"]

_LONG: Final = 10.0
_WATCHED_EVERY: Final = 2.0

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
_SPARE: Final = ("took", "by", "rows", "failures", "provider", "next run", "last run")
"""What a narrow terminal leaves out first. The graph, its state and the reason always stay."""

_RED: Final = "bold red"
_OF_LEVEL: Final = {"red": _RED, "yellow": "yellow", "green": "green"}
_QUIET: Final = {"paused": "cyan", "archived": "dim", "ok": "", "never ran": ""}


def _styles() -> dict[str, str]:
    """Return how states of graphs and runs look, by their level."""
    from syncline.operator.graph_state import GraphHealth, level_of

    of_graphs = {state.value: _OF_LEVEL[level_of(state)] for state in GraphHealth}
    return {**of_graphs, **_QUIET, "timed_out": _RED, "terminated": "red"}


@errors_printed
def status(
    graph: OptionalGraphArgument = None,
    timeout: Annotated[float, typer.Option(metavar="S", min=0.1, help="Seconds to wait for a worker.")] = 5.0,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew every two seconds, until Ctrl-C.")
    ] = False,
    archived: Annotated[bool, typer.Option("--archived", help="Archived graphs too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the state of every graph, red before yellow before green, with its reason and the next command.

    Runs are read from Temporal; a worker reads from the graph's state tables what waits and what was refused.
    What cannot be asked is `unknown`, or `no worker`, never `ok`. With GRAPH, one graph is shown in full, by
    its last run's own state; an id needs a worker, which looks up its slug.
    """
    if watch and (as_json or graph is not None):
        raise ConfigurationError("--watch shows all graphs, on a terminal; leave out GRAPH and --json.")
    if graph is not None:
        _status_of(slug_of(graph), timeout, as_json=as_json)
        return
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            run(_watch(timeout, archived=archived))
        return
    found = run(_overview(timeout, archived=archived))
    if as_json:
        print_json_list(found)
        return
    print_fitted(status_table(found))


def status_table(graphs: "Sequence[GraphOverview]") -> FittedTable:
    """Return what `syncline status` shows on a terminal."""
    own = [{graph.standing.value: _style_of(graph)} for graph in graphs]
    return FittedTable(_HEADER, map(_line, graphs), styles=_styles(), of_rows=own, spare=_SPARE)


def _style_of(graph: "GraphOverview") -> str:
    """Return how its state looks: by the level of what was found, since the same state may be worse."""
    return _QUIET.get(graph.standing, _OF_LEVEL[graph.level])


def _status_of(graph: str, timeout: float, *, as_json: bool) -> None:
    report = run(_report(graph, timeout))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    print_fields(list(_fields(report)), least=10)
    state = report.state
    if state is not None and state.last_result is not None:
        ours = report.run is not None and not report.run.open
        told = "this run's cycle" if ours else "the cycle before"
        typer.echo(f"\n{told}:" if has_news(state.last_result) else f"\n{told}: nothing had changed")
        print_result(state.last_result)


async def _overview(seconds: float, *, archived: bool) -> "Sequence[GraphOverview]":
    from syncline.cli.target import connect_temporal, find_task_queue
    from syncline.temporal.overview import overview

    client = await connect_temporal(prepare=False)
    return await overview(client, task_queue=find_task_queue(), seconds=seconds, archived=archived)


async def _watch(seconds: float, *, archived: bool) -> None:
    """Show the states until cancelled. Where there is no terminal, print them once they have changed."""
    import asyncio

    from rich.console import Console
    from rich.live import Live

    from syncline.cli.target import connect_temporal, find_task_queue
    from syncline.temporal.overview_reader import OverviewReader

    client = await connect_temporal(prepare=False)
    reader = OverviewReader(client, task_queue=find_task_queue(), seconds=seconds, archived=archived)
    console = Console(highlight=False)
    before: list[tuple[str, str]] = []
    with (
        Live(console=console, auto_refresh=False) if console.is_terminal else contextlib.nullcontext() as live
    ):
        while True:
            found = await reader.read()
            now = [(one.graph, one.standing.value) for one in found]
            if live is not None:
                live.update(status_table(found), refresh=True)
            elif now != before:
                print_table(_HEADER, map(_line, found))
            before = now
            await asyncio.sleep(_WATCHED_EVERY)


async def _report(slug: str, seconds: float) -> "GraphReport":
    from syncline.cli.target import connect_temporal, find_task_queue
    from syncline.temporal.overview import report_of

    client = await connect_temporal(prepare=False)
    return await report_of(client, slug, seconds=seconds, task_queue=find_task_queue())


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
    """Return every finding with its next command, the worst first, and what is worth a word besides."""
    parts = [format_finding(finding) for finding in graph.findings]
    schedule = graph.schedule
    if schedule is None and graph.standing != "archived":
        parts.append("it has no Schedule")
    elif schedule is not None and schedule.due is not None and not schedule.paused:
        due = f"{schedule.due.problem} {schedule.due.fix}"
        parts += [due] if not any(due in part for part in parts) else []
    if graph.running is not None and graph.running.seconds >= _LONG:
        why = ", for further changes" if graph.lingers else ""
        parts.append(f"a run has been open for {format_seconds(graph.running.seconds)}{why}")
    return "; ".join(parts)


def format_finding(finding: "Finding") -> str:
    """Return the reason, and the command that follows."""
    return finding.reason if finding.next is None else f"{finding.reason.removesuffix('.')}: `{finding.next}`"


def _fields(report: "GraphReport") -> Iterator[tuple[str, str]]:
    yield "graph", report.graph
    yield "state", report.standing
    for number, finding in enumerate(report.findings):
        yield "" if number else "why", format_finding(finding)
    if report.run is not None:
        yield "run", _run(report.run)
        yield "", f"{report.run.workflow_id}, run {report.run.run_id}"
        if report.lingers:
            yield "", "it is done, and stays open for further changes for a moment"
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
        so_far = f"{counted(done, 'row')} read, {counted(state.progress.vectors, 'vector')}"
        yield "progress", f"{state.progress.phase}: {so_far}"
        loading = [table for table in state.progress.tables if table.loading]
        if loading:
            of = ("" if table.expected is None else f" of {table.expected:,}" for table in loading)
            rows = (f"{table.table} {table.captured:,}" for table in loading)
            yield "loading", ", ".join(map("".join, zip(rows, of, strict=True))) + "; changes overtake it"
    result = state.last_result
    if result is not None:
        yield (
            "cycle",
            (
                f"{result.ended_as} in {format_seconds(result.duration_seconds)}, "
                f"lag {format_lag(result)}, {counted(result.failures, 'failure')}, {result.parked:,} parked, "
                f"{counted(result.dead_letters, 'dead letter')}"
            ),
        )
    carried = state.carried
    if result is not None and result.blocked:
        yield (
            "blocked",
            f"since {format_time(carried.unowned_since)}, {counted(carried.unowned_runs, 'run')} in a row",
        )
    totals = carried.totals
    if totals.runs:
        yield (
            "totals",
            (
                f"{counted(totals.runs, 'run')}, {totals.failed:,} of them failed, "
                f"{counted(totals.rows, 'row')}, {counted(totals.links, 'link')}, "
                f"{counted(totals.vectors, 'vector')}, {counted(totals.failures, 'failure')}"
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
        yield "paused", schedule.pause
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


def _pending_retry(trying: "PendingRetry") -> str:
    return f"attempt {trying.attempt} of {trying.activity}; the last failed: {trying.problem}"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


_SPARE_OF_RUNS: Final = ("took", "provider", "id", "failures", "rows")


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
        print_table(header, map(_runs_line, found), styles=_styles(), spare=_SPARE_OF_RUNS)
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
