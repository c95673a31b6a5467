"""`syncline graph set|pause|resume|archive`: a changed record, and the Schedule made to match it."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.columns import one_line
from syncline.cli.operators import GraphArgument, JsonOption, ReasonOption, ask, os_user
from syncline.cli.sentences import errors_as_sentences, say_warning
from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from syncline.graphs import Graph

__all__ = [
    "ADAPTIVE_HELP",
    "CADENCE_HELP",
    "NOTIFY_HELP",
    "archive",
    "pause",
    "print_graph",
    "read_composition",
    "resume",
    "schedule_options",
    "set_graph",
    "warn_of_times",
]

NOTIFY_HELP = "Have its writers tell of changes, so that they are synced at once."
ADAPTIVE_HELP = "Let its Schedule slow down while nothing changes."
CADENCE_HELP = "The rarer intervals of an adaptive graph; 120,300,900 by default."


@errors_as_sentences
def set_graph(
    graph: GraphArgument,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    every_seconds: Annotated[
        int | None,
        typer.Option(help="Interval of its Schedule; replaces a cron expression."),
    ] = None,
    cron: Annotated[str | None, typer.Option(help="Cron expression, instead of the interval.")] = None,
    notify: Annotated[bool | None, typer.Option(help=NOTIFY_HELP)] = None,
    adaptive: Annotated[bool | None, typer.Option(help=ADAPTIVE_HELP)] = None,
    cadence: Annotated[str | None, typer.Option(metavar="SECONDS,…", help=CADENCE_HELP)] = None,
    composition: Annotated[str | None, typer.Option(metavar="JSON", help="Which providers serve it.")] = None,
    drop_shadow: Annotated[
        bool,
        typer.Option("--drop-shadow", help="Drop what its shadow has written, to begin anew or for good."),
    ] = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Change a graph's record, and its Schedule with it. Where a graph lives cannot change."""
    composed = None if composition is None else read_composition(composition)
    schedule = schedule_options(
        every_seconds=every_seconds, cron=cron, notify=notify, adaptive=adaptive, cadence=cadence
    )
    if name is None and composition is None and not schedule and not drop_shadow:
        raise ConfigurationError(
            "Nothing is to be set: give --name, --every-seconds, --cron, --notify, --adaptive, --cadence, "
            "--composition or --drop-shadow."
        )
    _change(
        graph,
        as_json,
        reason,
        name=name,
        composition=composed,
        schedule=schedule or None,
        drop_shadow=drop_shadow or None,
    )


@errors_as_sentences
def pause(graph: GraphArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Pause a graph: its Schedule starts no runs. One started by hand still syncs it."""
    _change(graph, as_json, reason, status="paused")


@errors_as_sentences
def resume(graph: GraphArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Make a paused or archived graph active. An operator's pause of its Schedule stays, and is told."""
    _change(graph, as_json, reason, status="active")


@errors_as_sentences
def archive(graph: GraphArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Archive a graph: its Schedule is deleted and nothing syncs it. Its data and its place stay."""
    _change(graph, as_json, reason, status="archived")


def read_composition(typed: str) -> object:
    """Return what the JSON says, or raise ConfigurationError."""
    try:
        composed: object = json.loads(typed)
    except ValueError as error:
        raise ConfigurationError(f"--composition is not JSON: {error}") from None
    return composed


def schedule_options(
    *,
    every_seconds: int | None,
    cron: str | None,
    notify: bool | None,
    adaptive: bool | None,
    cadence: str | None,
) -> dict[str, object]:
    """Return the fields of a schedule that are given, or raise ConfigurationError.

    An interval replaces a cron expression.
    """
    try:
        steps = None if cadence is None else [int(step) for step in cadence.split(",") if step.strip()]
    except ValueError:
        raise ConfigurationError(
            f"--cadence '{cadence}' is not seconds with commas between: 120,300,900"
        ) from None
    options = {
        "every_seconds": every_seconds, "cron": cron, "notify": notify, "adaptive": adaptive, "cadence": steps
    }  # fmt: skip
    given: dict[str, object] = {name: option for name, option in options.items() if option is not None}
    return {"cron": None, **given} if every_seconds is not None else given


def print_graph(graph: "Graph", *, as_json: bool) -> None:
    """Print a graph's record, one field a line or as JSON."""
    if as_json:
        typer.echo(graph.model_dump_json(indent=2))
        return
    for field, value in graph.model_dump(mode="json").items():
        shown = json.dumps(value) if isinstance(value, dict | bool) else value
        typer.echo(f"{field:<14} {'-' if shown is None else shown}")


def warn_of_times(graph: "Graph") -> None:
    """Warn on stderr of a schedule that comes all too often, or only after more than a year."""
    from syncline.due import caution

    found = caution(graph.slug, graph.schedule)
    if found is not None:
        say_warning(one_line(f"{found.problem} {found.fix}"))


def _change(graph: str, as_json: bool, reason: str, **changes: object) -> None:
    """Change the record and its Schedule, and print it; say on stderr if an operator has that paused."""
    from syncline.operations.requests import ChangeGraphInput, GraphChanged

    given = {name: change for name, change in changes.items() if change is not None}
    changed = ask(
        ChangeGraphInput.model_validate({"graph": graph, "who": os_user(), "why": reason, **given}),
        GraphChanged,
    )
    print_graph(changed.graph, as_json=as_json)
    if "schedule" in given:
        warn_of_times(changed.graph)
    if changed.operators_pause is not None:
        slug = changed.graph.slug
        note = one_line(changed.operators_pause)
        typer.echo(
            f"Its Schedule is paused by an operator ({note}): `syncline schedule resume {slug}`.", err=True
        )
