"""`syncline map check`, `propose` and `schema`: maps as documents, and the tables of both databases."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from syncline.cli.map_named import map_named, stored_document
from syncline.cli.operators import STATUS, JsonOption, complete_graph, run
from syncline.cli.output import EXIT_FAILED, errors_printed, one_line

if TYPE_CHECKING:
    from syncline.control.services import Services
    from syncline.maps.schema_map import SchemaMap
    from syncline.operator.map_check import MapCheck
    from syncline.operator.proposing import Proposal
    from syncline.provider import GraphSchema

__all__ = ["register"]

GraphOption = Annotated[
    str | None,
    typer.Option(
        "--graph",
        metavar="GRAPH",
        help="Slug or id of the graph whose schemas are looked at; the default graph if left out.",
        autocompletion=complete_graph,
    ),
]
SchemaOption = Annotated[
    str | None,
    typer.Option(metavar="SCHEMA", help="A schema of the default stores, in place of a graph's."),
]


@errors_printed
def check(
    document: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME|MODULE:NAME", help="The map's document, a stored map, or one in Python."
        ),
    ],
    graph: GraphOption = None,
    write_schema: SchemaOption = None,
    graph_schema: SchemaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a map with the tables of both databases: every misfit at once, with what mends it.

    It changes nothing. Errors keep a table from being synced, and the status is 1; advice does not.
    """
    schema_map, text = _named(document)
    found = run(_check(schema_map, text, graph, write_schema, graph_schema))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _print(found, document)
    if not found.fits:
        raise typer.Exit(EXIT_FAILED)


@errors_printed
def propose(
    graph: GraphOption = None,
    write_schema: SchemaOption = None,
    graph_schema: SchemaOption = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the map; the schema's if left out.")
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="The column that says whose a row is: each graph has the rows of one."
        ),
    ] = None,
    create_target: Annotated[
        Literal["print", "make"] | None,
        typer.Option(
            "--create-target",
            help="Print the DDL of the graph-db's missing tables in place of the map, or make them.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Propose a map from the tables of both databases, with comments where it could not decide.

    It reads catalogs, no rows. `make` creates the tables and the engine's bookkeeping in the graph-db.
    """
    made = run(_propose(graph, write_schema, graph_schema, name, tenant, make=create_target == "make"))
    if as_json:
        typer.echo(made.model_dump_json(indent=2))
    elif create_target == "print":
        typer.echo("\n\n".join(made.statements))
    else:
        typer.echo(made.document, nl=False)


async def _propose(
    graph: str | None,
    write_schema: str | None,
    graph_schema: str | None,
    name: str | None,
    tenant: str | None,
    *,
    make: bool,
) -> "Proposal":
    from syncline.cli.target import find_settings
    from syncline.control.services import Services
    from syncline.operator.proposing import create_targets, propose

    async with Services.open(find_settings(), application_name="syncline map") as services:
        write, target = await places(services, graph, write_schema, graph_schema)
        proposal = await propose(write, target, name=name or write.schema, tenant=tenant)
        if make:
            await create_targets(target, proposal)
        return proposal


@errors_printed
def schema(as_json: JsonOption = False) -> None:
    """Print the JSON Schema of map documents, for editors: it is JSON with `--json` and without."""
    from syncline.maps.json_schema import map_schema_text

    _ = as_json
    typer.echo(map_schema_text(), nl=False)


def _named(name: str) -> "tuple[SchemaMap, str | None]":
    """Return a map, and its document if it has one; a name without a dot or colon is a stored map's."""
    path = Path(name)
    if path.is_file() or path.suffix or ":" in name:
        return map_named(name)
    from syncline.maps.document import read_map

    text = stored_document(name).document
    return read_map(text, source=f"map {name}"), text


async def _check(
    schema_map: "SchemaMap",
    text: str | None,
    graph: str | None,
    write_schema: str | None,
    graph_schema: str | None,
) -> "MapCheck":
    from syncline.cli.target import find_settings
    from syncline.control.services import Services
    from syncline.operator.map_check import check_map

    async with Services.open(find_settings(), application_name="syncline map") as services:
        write, target = await places(services, graph, write_schema, graph_schema)
        return await check_map(schema_map, write, target, text=text)


async def places(
    services: "Services", graph: str | None, write_schema: str | None, graph_schema: str | None
) -> "tuple[GraphSchema, GraphSchema]":
    """Return the schemas that are looked at: of a graph, or by name, where no graph has to be there."""
    from syncline.provider import GraphSchema

    if graph is None and write_schema is not None:
        write = GraphSchema(store=services.store("write", None), schema=write_schema)
        schema = graph_schema or write_schema
        return write, GraphSchema(store=services.store("graph", None), schema=schema)
    record = await (services.graphs.default() if graph is None else services.graphs.get(graph))
    write, target = services.write_schema(record), services.target_schema(record)
    return (
        write if write_schema is None else GraphSchema(store=write.store, schema=write_schema),
        target if graph_schema is None else GraphSchema(store=target.store, schema=graph_schema),
    )


def _print(found: "MapCheck", document: str) -> None:
    for misfit in found.misfits:
        where = f"{document}:{misfit.line}: " if misfit.line is not None else ""
        store = "write-db" if misfit.store == "write" else "graph-db"
        kind = "" if misfit.weight == "error" else "advice: "
        typer.echo(f"{where}{kind}{store}: {one_line(misfit.problem)}")
        if misfit.statement is not None:
            for line in misfit.statement.rstrip(";").splitlines():
                typer.echo(f"    {line}")
    errors = sum(misfit.weight == "error" for misfit in found.misfits)
    told = f"{errors} misfits" if errors != 1 else "1 misfit"
    tables = f"{found.tables} tables" if found.tables != 1 else "1 table"
    typer.echo(f"map {found.map}: {tables}, {told if errors else 'all fit'}")
    typer.echo(f"write-db {found.write}, graph-db {found.graph}")


def register(group: typer.Typer) -> None:
    """Add the commands to `syncline map`."""
    group.command(epilog=STATUS)(check)
    group.command()(propose)
    group.command()(schema)
