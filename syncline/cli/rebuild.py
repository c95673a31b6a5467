"""`syncline rebuild …`: a graph made again beside itself, and readers led to it and back."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.durations import duration
from syncline.cli.operators import (
    GraphArgument,
    JsonOption,
    ReasonOption,
    TimeoutOption,
    ask,
    format_time,
    os_user,
)
from syncline.cli.output import errors_printed
from syncline.cli.steps import print_lines, print_state, print_step

if TYPE_CHECKING:
    from syncline.messages.rebuild import RebuildAction, RebuildStatus

__all__ = ["app"]

_SECONDS = 600.0
"""A cycle that is under way is waited for."""
_VERIFIED = 7200.0
"""Every row is compared first."""
_ROWS_HELP = "How many rows its cycles read in a second, about. 0: no limit; as it was when left out."
_ANYWAY_HELP = "Even if it is not equal, lacks something, or something of others stays behind."
_KEEP_HELP = (
    "For how long the generation before is to be kept: 12h, 7d. From then on `status` and `doctor` ask for "
    "`drop`. Without it 7d; of a graph that is switched, as it was."
)
_AnywayOption = Annotated[bool, typer.Option("--anyway", help=_ANYWAY_HELP)]

app = typer.Typer(
    help="Rebuild a graph beside itself: start, status, switch, rollback, drop.",
    no_args_is_help=True,
)


@app.command()
@errors_printed
def start(
    graph: GraphArgument,
    rows_per_second: Annotated[
        int | None, typer.Option("--rows-per-second", min=0, metavar="N", help=_ROWS_HELP)
    ] = None,
    timeout: TimeoutOption = _SECONDS,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Start a second generation of a graph, by its own provider: cycles fill it, and keep both in step.

    Refused, naming it and the fix, if something of others in the graph's schema could not come along.
    If it was interrupted, run it again.
    """
    _change(graph, "start", timeout, reason, rows_per_second=rows_per_second, as_json=as_json)


@app.command()
@errors_printed
def status(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Show how far the rebuild is, what is in its way, and what comes next.

    For a script: `syncline rebuild status world --json | jq -r .command`.
    """
    from syncline.messages.rebuild import DescribeRebuildInput, RebuildStatus

    found = ask(DescribeRebuildInput(graph=graph), RebuildStatus)
    print_state(found, _lines(found), as_json=as_json)


@app.command()
@errors_printed
def switch(
    graph: GraphArgument,
    keep_for: Annotated[str | None, typer.Option("--keep-for", metavar="TIME", help=_KEEP_HELP)] = None,
    anyway: _AnywayOption = False,
    timeout: TimeoutOption = _VERIFIED,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Verify the second generation, and lead readers to it: schemas and aliases change at once.

    What others have in the schema comes along. The generation before is kept in step for `rollback`:
    `syncline rebuild switch world --keep-for 3d`.
    """
    keep = None if keep_for is None else duration(keep_for, option="--keep-for")
    _change(graph, "switch", timeout, reason, keep_seconds=keep, anyway=anyway, as_json=as_json)


@app.command()
@errors_printed
def rollback(
    graph: GraphArgument,
    anyway: _AnywayOption = False,
    timeout: TimeoutOption = _SECONDS,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Lead readers back to the generation before, kept in step: `syncline rebuild rollback world`."""
    _change(graph, "rollback", timeout, reason, anyway=anyway, as_json=as_json)


@app.command()
@errors_printed
def drop(
    graph: GraphArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Even if others have something in its schema, which goes with it."),
    ] = False,
    timeout: TimeoutOption = _SECONDS,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Drop the generation that readers do not see, with its collections. There is no rollback then.

    Before `switch` that is the second one: the rebuild is given up. After it, it is the one before:
    `syncline rebuild drop world --yes`.
    """
    from syncline.messages.rebuild import DescribeRebuildInput, RebuildStatus

    if not yes:
        found = ask(DescribeRebuildInput(graph=graph), RebuildStatus)
        print_lines(_lines(found), err=True)
        if found.schema_name is not None:
            question = f"Drop schema '{found.schema_name}' and its collections?"
            typer.confirm(question, abort=True, err=True)
    _change(graph, "drop", timeout, reason, anyway=anyway, as_json=as_json)


def _change(
    graph: str,
    action: "RebuildAction",
    timeout: float,
    reason: str,
    *,
    rows_per_second: int | None = None,
    keep_seconds: int | None = None,
    anyway: bool = False,
    as_json: bool,
) -> None:
    from syncline.messages.rebuild import ChangeRebuildInput, RebuildStatus

    request = ChangeRebuildInput(
        graph=graph,
        action=action,
        rows_per_second=rows_per_second,
        keep_seconds=keep_seconds,
        anyway=anyway,
        who=os_user(),
        why=reason,
    )
    done = ask(request, RebuildStatus, seconds=timeout)
    print_step(done, _lines(done), as_json=as_json)


def _lines(found: "RebuildStatus") -> Iterator[str]:
    if found.started_at is not None:
        pace = (
            "without a limit" if found.rows_per_second is None else f"{found.rows_per_second:,} rows a second"
        )
        yield f"rebuild of {found.graph}: {found.state}, since {format_time(found.started_at)}, {pace}"
        yield f"schema {found.schema_name}: about {found.rows:,} rows; readers see about {found.live_rows:,}"
    if found.kept_until is not None:
        yield f"schema {found.schema_name} is to be kept until {format_time(found.kept_until)}"
    for alias in found.aliases:
        yield f"alias {alias.alias} -> {alias.collection or 'nothing yet'}"
    for behind in found.behind:
        yield f"behind: {behind}"
    for obstacle in found.obstacles:
        yield f"in the way: {obstacle}"
