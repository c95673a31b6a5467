"""`syncline graph …`: the graph records of the control plane."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.adopt import adopt
from syncline.cli.columns import print_columns
from syncline.cli.completion import complete_graph
from syncline.cli.graph_changes import (
    ADAPTIVE_HELP,
    CADENCE_HELP,
    NOTIFY_HELP,
    archive,
    pause,
    print_graph,
    read_composition,
    resume,
    schedule_options,
    set_graph,
    warn_of_times,
)
from syncline.cli.operators import (
    SECONDS,
    STATUS,
    GraphArgument,
    JsonOption,
    LimitOption,
    ReasonOption,
    TimeoutOption,
    ask,
    os_user,
    print_page,
    told_at,
)
from syncline.cli.sentences import errors_as_sentences

if TYPE_CHECKING:
    from syncline.graphs import Graph

__all__ = ["all_graphs", "app", "one_graph"]

app = typer.Typer(help="Show, add and change graphs.", no_args_is_help=True)

app.command()(adopt)
app.command("set")(set_graph)
app.command()(pause)
app.command()(resume)
app.command()(archive)


@app.command("list")
@errors_as_sentences
def list_graphs(as_json: JsonOption = False) -> None:
    """List every graph."""
    graphs = all_graphs()
    if as_json:
        typer.echo(json.dumps([graph.model_dump(mode="json") for graph in graphs], indent=2))
        return
    header = ("graph", "status", "schema", "qdrant prefix", "provider", "schedule", "default")
    print_columns(header, (_line(graph) for graph in graphs))


@app.command()
@errors_as_sentences
def show(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Show one graph."""
    print_graph(one_graph(graph), as_json=as_json)


@app.command()
@errors_as_sentences
def add(
    slug: Annotated[str, typer.Argument(help="Lower-case letters, digits and `-`.")],
    name: Annotated[str | None, typer.Option(help="What people call it; the slug when left out.")] = None,
    schema: Annotated[
        str | None, typer.Option(help="Postgres schema in both stores; follows from the slug.")
    ] = None,
    qdrant_prefix: Annotated[
        str | None, typer.Option(help="Start of its collections' names; follows from the schema.")
    ] = None,
    write_store: Annotated[
        str | None, typer.Option(metavar="KEY", help="Write-db, as SYNCLINE_STORES names it.")
    ] = None,
    graph_store: Annotated[
        str | None, typer.Option(metavar="KEY", help="Graph-db, as SYNCLINE_STORES names it.")
    ] = None,
    qdrant_store: Annotated[
        str | None, typer.Option(metavar="KEY", help="Qdrant, as SYNCLINE_QDRANTS names it.")
    ] = None,
    every_seconds: Annotated[int, typer.Option(help="Interval of its Schedule.")] = 60,
    cron: Annotated[str | None, typer.Option(help="Cron expression, instead of the interval.")] = None,
    notify: Annotated[bool, typer.Option(help=NOTIFY_HELP)] = True,
    adaptive: Annotated[bool, typer.Option(help=ADAPTIVE_HELP)] = False,
    cadence: Annotated[str | None, typer.Option(metavar="SECONDS,…", help=CADENCE_HELP)] = None,
    composition: Annotated[
        str, typer.Option(metavar="JSON", help="Which providers serve it.")
    ] = '{"sync": {"provider": "default"}}',
    default: Annotated[bool, typer.Option("--default", help="Make it the default graph.")] = False,
    schedule: Annotated[
        bool, typer.Option(help="Make its Temporal Schedule at once, not by reconciliation.")
    ] = True,
    timeout: TimeoutOption = SECONDS,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Add a graph: its record, its schemas in both stores, and its Schedule.

    One that is there already and says the same is left as it is.
    """
    from syncline.graphs import Graph, draft_graph
    from syncline.operations.requests import AddGraphInput

    fields: dict[str, object] = {
        "slug": slug,
        "name": name,
        "schema_name": schema,
        "qdrant_prefix": qdrant_prefix,
        "write_store": write_store,
        "graph_store": graph_store,
        "qdrant_store": qdrant_store,
        "schedule": schedule_options(
            every_seconds=every_seconds, cron=cron, notify=notify, adaptive=adaptive, cadence=cadence
        ),
        "composition": read_composition(composition),
        "is_default": default,
    }
    request = AddGraphInput(draft=draft_graph(fields), schedule=schedule, who=os_user(), why=reason)
    added = ask(request, Graph, seconds=timeout)
    print_graph(added, as_json=as_json)
    warn_of_times(added)


@app.command(epilog=STATUS)
@errors_as_sentences
def audit(
    graph: Annotated[
        str | None,
        typer.Argument(metavar="GRAPH", help="Slug or id; all when left out.", autocompletion=complete_graph),
    ] = None,
    limit: LimitOption = 100,
    before: Annotated[
        int | None, typer.Option(help="Where the page before ended: its last line says so.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List who added, changed, archived, promoted or dropped graphs, newest first.

    `who` is what somebody said; `starter` is who has started the run, as Temporal has it.
    """
    from syncline.graph_audit import GraphAuditPage
    from syncline.operations.requests import ListGraphAuditInput

    page = ask(ListGraphAuditInput(graph=graph, limit=limit, before=before), GraphAuditPage)
    print_page(
        page,
        ("at", "graph", "action", "who", "starter", "fields", "reason"),
        [
            (
                told_at(entry.at),
                entry.graph,
                entry.action,
                entry.who or "-",
                entry.starter or "-",
                ", ".join(entry.fields) or "-",
                entry.why or "-",
            )
            for entry in page.entries
        ],
        nothing="nothing was done to graphs by command",
        as_json=as_json,
    )
    if page.next is not None and not as_json:
        typer.echo(f"more: --before {page.next}")


def one_graph(graph: str) -> "Graph":
    """Return the graph with this slug or id, as a worker answers."""
    from syncline.operations.requests import GraphPage, ListGraphsInput

    [found] = ask(ListGraphsInput(graph=graph), GraphPage).graphs
    return found


def all_graphs() -> "Sequence[Graph]":
    """Return every graph, as a worker answers."""
    from syncline.operations.requests import GraphPage, ListGraphsInput

    graphs: list[Graph] = []
    page = ask(ListGraphsInput(), GraphPage)
    graphs.extend(page.graphs)
    while page.next is not None:
        page = ask(ListGraphsInput(after=page.next), GraphPage)
        graphs.extend(page.graphs)
    return graphs


def _line(graph: "Graph") -> tuple[str, ...]:
    sync = graph.composition.get("sync")
    provider = str(sync.get("provider")) if isinstance(sync, dict) else "-"
    default = "default" if graph.is_default else ""
    return (
        graph.slug,
        graph.status,
        graph.schema_name,
        graph.qdrant_prefix,
        provider,
        graph.schedule.in_words,
        default,
    )
