"""`syncline graph set|pause|resume|archive`: a changed record, and the Schedule made to match it."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.columns import one_line
from syncline.cli.operators import GraphArgument, JsonOption, ask
from syncline.cli.sentences import errors_as_sentences
from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from syncline.graphs import Graph

__all__ = ["archive", "pause", "print_graph", "read_composition", "resume", "set_graph"]


@errors_as_sentences
def set_graph(
    graph: GraphArgument,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    every_seconds: Annotated[
        int | None,
        typer.Option(help="Interval of its Schedule; replaces a cron expression."),
    ] = None,
    cron: Annotated[str | None, typer.Option(help="Cron expression, instead of the interval.")] = None,
    composition: Annotated[str | None, typer.Option(metavar="JSON", help="Which providers serve it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Change a graph's record, and its Schedule with it. Where a graph lives cannot change."""
    composed = None if composition is None else read_composition(composition)
    if all(option is None for option in (name, every_seconds, cron, composition)):
        raise ConfigurationError(
            "Nothing is to be set: give --name, --every-seconds, --cron or --composition."
        )

    schedule: dict[str, object] = {}
    if every_seconds is not None or cron is not None:
        schedule["cron"] = cron
    if every_seconds is not None:
        schedule["every_seconds"] = every_seconds
    _change(graph, as_json, name=name, composition=composed, schedule=schedule or None)


@errors_as_sentences
def pause(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Pause a graph: its Schedule starts no runs. One started by hand still syncs it."""
    _change(graph, as_json, status="paused")


@errors_as_sentences
def resume(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Make a paused or archived graph active. An operator's pause of its Schedule stays, and is told."""
    _change(graph, as_json, status="active")


@errors_as_sentences
def archive(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Archive a graph: its Schedule is deleted and nothing syncs it. Its data and its place stay."""
    _change(graph, as_json, status="archived")


def read_composition(typed: str) -> object:
    """Return what the JSON says, or raise ConfigurationError."""
    try:
        composed: object = json.loads(typed)
    except ValueError as error:
        raise ConfigurationError(f"--composition is not JSON: {error}") from None
    return composed


def print_graph(graph: "Graph", *, as_json: bool) -> None:
    """Print a graph's record, one field a line or as JSON."""
    if as_json:
        typer.echo(graph.model_dump_json(indent=2))
        return
    for field, value in graph.model_dump(mode="json").items():
        shown = json.dumps(value) if isinstance(value, dict | bool) else value
        typer.echo(f"{field:<14} {'-' if shown is None else shown}")


def _change(graph: str, as_json: bool, **changes: object) -> None:
    """Change the record and its Schedule, and print it; say on stderr if an operator has that paused."""
    from syncline.operations.requests import ChangeGraphInput, GraphChanged

    given = {name: change for name, change in changes.items() if change is not None}
    changed = ask(ChangeGraphInput.model_validate({"graph": graph, **given}), GraphChanged)
    print_graph(changed.graph, as_json=as_json)
    if changed.operators_pause is not None:
        slug = changed.graph.slug
        note = one_line(changed.operators_pause)
        typer.echo(
            f"Its Schedule is paused by an operator ({note}): `syncline schedule resume {slug}`.", err=True
        )
