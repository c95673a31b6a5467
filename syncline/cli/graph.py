"""`syncline graph …`: the graph records of the control plane.

One module because adding and changing a record have the same options.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.adopt import adopt
from syncline.cli.delete_graph import STATUS_OF_DELETE, delete_graph, rename_graph
from syncline.cli.drop_collections import drop_collections
from syncline.cli.fleet import warn_of_missing_providers
from syncline.cli.graph_record import print_graph, read_json, vector_rules
from syncline.cli.operators import (
    SECONDS,
    STATUS,
    BeforeOption,
    GraphArgument,
    JsonOption,
    LimitOption,
    ReasonOption,
    TimeoutOption,
    ask,
    complete_graph,
    format_time,
    one_graph,
    os_user,
    print_page,
)
from syncline.cli.output import errors_printed, one_line, print_table, print_warning
from syncline.cli.takeover import STATUS_OF_TAKEOVER, takeover
from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from syncline.control.graphs import Graph

__all__ = [
    "ADAPTIVE_HELP",
    "CADENCE_HELP",
    "NOTIFY_HELP",
    "all_graphs",
    "app",
    "archive",
    "pause",
    "print_graph",
    "read_composition",
    "read_json",
    "resume",
    "schedule_options",
    "set_graph",
    "warn_of_times",
]

NOTIFY_HELP = "Have its writers tell of changes, so that they are synced at once."
ADAPTIVE_HELP = "Let its Schedule slow down while nothing changes."
COLLECTIONS_HELP = "Settings of its collections (docs/databases.md), in place of those before; {}: Qdrant's."
TOKENS_HELP = "Tokens that it may have embedded a day (UTC); 0: no limit."
EMBEDDING_HELP = (
    "Accept this embedding, as messages name it, at the address and with the store of the workers that have "
    "it. Vectors of another are made again, and paid for."
)
TokensOption = Annotated[int | None, typer.Option(min=0, metavar="N", help=TOKENS_HELP)]
CollectionsOption = Annotated[str | None, typer.Option(metavar="JSON", help=COLLECTIONS_HELP)]
MAX_LAG_HELP = "How far its graph-db may be behind; an alarm and `status` hold it to that. 0: no promise."
FAIRNESS_HELP = (
    "The tenant that its waiting runs are counted to: of several tenants that wait, each has its turn. "
    "'': the graph itself."
)
WEIGHT_HELP = "The share of that tenant among those that wait, 0.001 to 1000. 0: 1, as without."
LINGER_HELP = "How long its runs stay open for further changes; by default SYNCLINE_LINGER_SECONDS. 0: not."
CADENCE_HELP = "The rarer intervals of an adaptive graph; 120,300,900 by default."


@errors_printed
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
    linger: Annotated[float | None, typer.Option(min=0, max=60, metavar="S", help=LINGER_HELP)] = None,
    composition: Annotated[str | None, typer.Option(metavar="JSON", help="Which providers serve it.")] = None,
    tokens_per_day: TokensOption = None,
    collections: CollectionsOption = None,
    max_lag: Annotated[int | None, typer.Option(min=0, metavar="S", help=MAX_LAG_HELP)] = None,
    fairness_key: Annotated[str | None, typer.Option(metavar="TENANT", help=FAIRNESS_HELP)] = None,
    fairness_weight: Annotated[
        float | None, typer.Option(min=0, max=1000, metavar="N", help=WEIGHT_HELP)
    ] = None,
    embedding: Annotated[str | None, typer.Option(metavar="NAME", help=EMBEDDING_HELP)] = None,
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
        every_seconds=every_seconds,
        cron=cron,
        notify=notify,
        adaptive=adaptive,
        cadence=cadence,
        linger=linger,
    )
    vectors = vector_rules(tokens_per_day, collections)
    given: dict[str, object] = {
        "name": name,
        "composition": composed,
        "schedule": schedule or None,
        "vectors": vectors or None,
        "max_lag_seconds": max_lag,
        "fairness_key": fairness_key,
        "fairness_weight": fairness_weight,
        "embedding": embedding,
        "drop_shadow": drop_shadow or None,
    }
    if all(option is None for option in given.values()):
        raise ConfigurationError(
            "Nothing is to be set: give --name, --every-seconds, --cron, --notify, --adaptive, --cadence, "
            "--linger, --composition, --tokens-per-day, --collections, --max-lag, --fairness-key, "
            "--fairness-weight, --embedding or --drop-shadow."
        )
    _change(graph, as_json, reason, **given)


@errors_printed
def pause(graph: GraphArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Pause a graph: its Schedule starts no runs. One started by hand still syncs it."""
    _change(graph, as_json, reason, status="paused")


@errors_printed
def resume(graph: GraphArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Make a paused or archived graph active. An operator's pause of its Schedule stays, and is told."""
    _change(graph, as_json, reason, status="active")


@errors_printed
def archive(graph: GraphArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Archive a graph: its Schedule is deleted and nothing syncs it. Its data and its place stay."""
    _change(graph, as_json, reason, status="archived")


def read_composition(typed: str) -> object:
    """Return what the JSON says, or raise ConfigurationError."""
    return read_json("--composition", typed)


def schedule_options(
    *,
    every_seconds: int | None,
    cron: str | None,
    notify: bool | None,
    adaptive: bool | None,
    cadence: str | None,
    linger: float | None,
) -> dict[str, object]:
    """Return the fields of a schedule that are given, or raise ConfigurationError.

    An interval replaces a cron expression.
    """
    if every_seconds is not None and cron is not None:
        raise ConfigurationError("--every-seconds and --cron contradict each other; choose one.")
    try:
        steps = None if cadence is None else [int(step) for step in cadence.split(",") if step.strip()]
    except ValueError:
        raise ConfigurationError(
            f"--cadence '{cadence}' is not seconds with commas between: 120,300,900"
        ) from None
    options = {
        "every_seconds": every_seconds, "cron": cron, "notify": notify, "adaptive": adaptive,
        "cadence": steps, "linger_seconds": linger,
    }  # fmt: skip
    given: dict[str, object] = {name: option for name, option in options.items() if option is not None}
    return {"cron": None, **given} if every_seconds is not None else given


def warn_of_times(graph: "Graph") -> None:
    """Warn on stderr of a schedule that comes all too often, or only after more than a year."""
    from syncline.control.schedule_spec import caution

    found = caution(graph.slug, graph.schedule)
    if found is not None:
        print_warning(one_line(f"{found.problem} {found.fix}"))


def _change(graph: str, as_json: bool, reason: str, **changes: object) -> None:
    """Change the record and its Schedule, and print it; say on stderr if an operator has that paused."""
    from syncline.messages.operator import ChangeGraphInput, GraphChanged

    given = {name: change for name, change in changes.items() if change is not None}
    changed = ask(
        ChangeGraphInput.model_validate({"graph": graph, "who": os_user(), "why": reason, **given}),
        GraphChanged,
    )
    print_graph(changed.graph, as_json=as_json)
    if "schedule" in given:
        warn_of_times(changed.graph)
    if "composition" in given:
        warn_of_missing_providers(changed.graph)
    if changed.operators_pause is not None:
        slug = changed.graph.slug
        note = one_line(changed.operators_pause)
        typer.echo(
            f"Its Schedule is paused by an operator: {note}: `syncline schedule resume {slug}`.", err=True
        )
    if changed.other_embedding is not None:
        typer.echo(
            f"The worker that changed it has embedding {one_line(changed.other_embedding)}, and writes no "
            "vectors of this graph now. Correct the name, or the settings of each worker that "
            "`syncline doctor` names.",
            err=True,
        )


app = typer.Typer(help="Show, add and change graphs.", no_args_is_help=True)

app.command()(adopt)
app.command(epilog=STATUS_OF_TAKEOVER)(takeover)
app.command("set")(set_graph)
app.command()(pause)
app.command()(resume)
app.command()(archive)
app.command("drop-collections", epilog=STATUS)(drop_collections)
app.command("delete", epilog=STATUS_OF_DELETE)(delete_graph)
app.command("rename")(rename_graph)


@app.command("list")
@errors_printed
def list_graphs(
    archived: Annotated[bool, typer.Option("--archived", help="Archived graphs too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List every graph; those that are archived only if asked for."""
    graphs = [graph for graph in all_graphs() if archived or graph.status != "archived"]
    if as_json:
        typer.echo(json.dumps([graph.model_dump(mode="json") for graph in graphs], indent=2))
        return
    header = ("graph", "status", "schema", "qdrant prefix", "provider", "schedule", "default")
    print_table(header, map(_line, graphs), spare=("qdrant prefix", "schema", "default", "provider"))


@app.command()
@errors_printed
def show(graph: GraphArgument, as_json: JsonOption = False) -> None:
    """Show one graph."""
    print_graph(one_graph(graph), as_json=as_json)


@app.command()
@errors_printed
def add(
    slug: Annotated[str, typer.Argument(help="Lower-case letters, digits and `-`.")],
    name: Annotated[str | None, typer.Option(help="What people call it; the slug when left out.")] = None,
    schema: Annotated[
        str | None, typer.Option(help="Postgres schema in both stores; follows from the slug.")
    ] = None,
    write_schema: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA", help="Schema of its sources, if it is another: graphs of tenants share one."
        ),
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
    every_seconds: Annotated[
        int | None, typer.Option(help="Interval of its Schedule; 60 by default.")
    ] = None,
    cron: Annotated[str | None, typer.Option(help="Cron expression, instead of the interval.")] = None,
    notify: Annotated[bool, typer.Option(help=NOTIFY_HELP)] = True,
    adaptive: Annotated[bool, typer.Option(help=ADAPTIVE_HELP)] = False,
    cadence: Annotated[str | None, typer.Option(metavar="SECONDS,…", help=CADENCE_HELP)] = None,
    linger: Annotated[float | None, typer.Option(min=0, max=60, metavar="S", help=LINGER_HELP)] = None,
    composition: Annotated[
        str, typer.Option(metavar="JSON", help="Which providers serve it.")
    ] = '{"sync": {"provider": "default"}}',
    tokens_per_day: TokensOption = None,
    collections: CollectionsOption = None,
    max_lag: Annotated[int | None, typer.Option(min=0, metavar="S", help=MAX_LAG_HELP)] = None,
    fairness_key: Annotated[str | None, typer.Option(metavar="TENANT", help=FAIRNESS_HELP)] = None,
    fairness_weight: Annotated[
        float | None, typer.Option(min=0, max=1000, metavar="N", help=WEIGHT_HELP)
    ] = None,
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
    from syncline.control.graphs import Graph, draft_graph
    from syncline.control.maps import map_options
    from syncline.messages.operator import AddGraphInput

    fields: dict[str, object] = {
        "slug": slug,
        "name": name,
        "schema_name": schema,
        "write_schema": write_schema,
        "qdrant_prefix": qdrant_prefix,
        "write_store": write_store,
        "graph_store": graph_store,
        "qdrant_store": qdrant_store,
        "schedule": schedule_options(
            every_seconds=every_seconds,
            cron=cron,
            notify=notify,
            adaptive=adaptive,
            cadence=cadence,
            linger=linger,
        ),
        "composition": read_composition(composition),
        "is_default": default,
        "vectors": vector_rules(tokens_per_day, collections),
        "max_lag_seconds": max_lag or None,
        "fairness_key": fairness_key or None,
        "fairness_weight": fairness_weight or None,
    }
    request = AddGraphInput(draft=draft_graph(fields), schedule=schedule, who=os_user(), why=reason)
    added = ask(request, Graph, seconds=timeout)
    print_graph(added, as_json=as_json)
    warn_of_times(added)
    warn_of_missing_providers(added)
    if map_options(added.composition).map is not None:
        typer.echo(f"Its source tables need capture: `syncline graph adopt {added.slug}`.", err=True)


@app.command(epilog=STATUS)
@errors_printed
def audit(
    graph: Annotated[
        str | None,
        typer.Argument(metavar="GRAPH", help="Slug or id; all when left out.", autocompletion=complete_graph),
    ] = None,
    limit: LimitOption = 100,
    before: BeforeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who added, changed, archived, promoted or dropped graphs, newest first.

    `who` is what somebody said; `starter` is who has started the run, as Temporal has it.
    """
    from syncline.control.audit import GraphAuditPage
    from syncline.messages.operator import ListGraphAuditInput

    page = ask(ListGraphAuditInput(graph=graph, limit=limit, before=before), GraphAuditPage)
    print_page(
        page,
        ("at", "graph", "action", "who", "starter", "fields", "reason"),
        [
            (
                format_time(entry.at),
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
        spare=("starter", "fields"),
    )
    if page.next is not None and not as_json:
        typer.echo(f"more: --before {page.next}")


def all_graphs() -> "Sequence[Graph]":
    """Return every graph, as a worker answers."""
    from syncline.messages.operator import GraphPage, ListGraphsInput

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
