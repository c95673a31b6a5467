"""`syncline graph set|pause|resume|archive`: a changed record, and the Schedule made to match it."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.columns import one_line
from syncline.cli.operators import GraphArgument, JsonOption, run
from syncline.cli.sentences import errors_as_sentences
from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from temporalio.client import Client

    from syncline.graphs import Graph, ScheduleOptions

__all__ = [
    "ADAPTIVE_HELP",
    "CADENCE_HELP",
    "NOTIFY_HELP",
    "archive",
    "pause",
    "print_graph",
    "read_cadence",
    "read_composition",
    "resume",
    "set_graph",
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
    as_json: JsonOption = False,
) -> None:
    """Change a graph's record, and its Schedule with it. Where a graph lives cannot change."""
    composed = None if composition is None else read_composition(composition)
    schedule: ScheduleOptions = {
        "every_seconds": every_seconds,
        "cron": cron,
        "notify": notify,
        "adaptive": adaptive,
        "cadence": read_cadence(cadence),
    }
    if all(option is None for option in (name, composition, *schedule.values())):
        raise ConfigurationError(
            "Nothing is to be set: give --name, --every-seconds, --cron, --notify, --adaptive, --cadence "
            "or --composition."
        )

    changes: dict[str, object] = {"name": name, "composition": composed}
    print_graph(run(_change(graph, changes, schedule=schedule)), as_json=as_json)


@errors_as_sentences
def pause(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Pause a graph: its Schedule starts no runs. One started by hand still syncs it."""
    print_graph(run(_change(graph, {"status": "paused"})), as_json=as_json)


@errors_as_sentences
def resume(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Make a paused or archived graph active. An operator's pause of its Schedule stays, and is told."""
    print_graph(run(_change(graph, {"status": "active"})), as_json=as_json)


@errors_as_sentences
def archive(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Archive a graph: its Schedule is deleted and nothing syncs it. Its data and its place stay."""
    print_graph(run(_change(graph, {"status": "archived"})), as_json=as_json)


def read_composition(typed: str) -> object:
    """Return what the JSON says, or raise ConfigurationError."""
    try:
        composed: object = json.loads(typed)
    except ValueError as error:
        raise ConfigurationError(f"--composition is not JSON: {error}") from None
    return composed


def read_cadence(typed: str | None) -> list[int] | None:
    """Return the seconds that are typed with commas between them, or raise ConfigurationError."""
    try:
        return None if typed is None else [int(step) for step in typed.split(",") if step.strip()]
    except ValueError:
        raise ConfigurationError(
            f"--cadence '{typed}' is not seconds with commas between: 120,300,900"
        ) from None


def print_graph(graph: "Graph", *, as_json: bool) -> None:
    """Print a graph's record, one field a line or as JSON."""
    if as_json:
        typer.echo(graph.model_dump_json(indent=2))
        return
    for field, value in graph.model_dump(mode="json").items():
        shown = json.dumps(value) if isinstance(value, dict | bool) else value
        typer.echo(f"{field:<14} {'-' if shown is None else shown}")


async def _change(
    reference: str,
    changes: dict[str, object],
    *,
    schedule: "ScheduleOptions | None" = None,
) -> "Graph":
    """Change the record and make the Schedule match it; return the graph."""
    from syncline.cli.target import connect_temporal, find_settings
    from syncline.graphs import graph_changes
    from syncline.schedules import ensure_schedule
    from syncline.services import Services

    settings = find_settings()
    # First, so that nothing is half done when Temporal cannot be reached.
    client = await connect_temporal()
    async with Services.open(settings, application_name="syncline-cli") as services:
        present = await services.graphs.get(reference)
        if schedule is not None and any(option is not None for option in schedule.values()):
            changes = {**changes, "schedule": present.schedule.changed(schedule)}
        graph = await services.graphs.update(present.id, graph_changes(present.slug, changes))
    await ensure_schedule(client, graph, task_queue=settings.task_queue)
    await _tell_operators_pause(client, graph)
    return graph


async def _tell_operators_pause(client: "Client", graph: "Graph") -> None:
    """Say on stderr that an active graph's Schedule is paused, by whom only the note tells."""
    from syncline import names
    from syncline.client import temporal_errors_mapped
    from syncline.graphs import GraphStatus

    if graph.status is not GraphStatus.ACTIVE:
        return
    handle = client.get_schedule_handle(names.sync_schedule_id(graph.slug))
    with temporal_errors_mapped(client):
        state = (await handle.describe()).schedule.state
    if state.paused:
        note = one_line(state.note or "no reason given")
        typer.echo(
            f"Its Schedule is paused by an operator ({note}): `syncline schedule resume {graph.slug}`.",
            err=True,
        )
