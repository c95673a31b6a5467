"""`syncline graph adopt`: prepare the tables that a product has already for capture, or give them back."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import GraphArgument, JsonOption
from syncline.cli.output import errors_printed

if TYPE_CHECKING:
    from syncline.capture.install.steps import Step
    from syncline.engine.table_map import SchemaMap

__all__ = ["adopt"]


@errors_printed
def adopt(
    graph: GraphArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the SQL with its reasons, and change nothing.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take away what adoption added; rows and tables stay.")
    ] = False,
    map_name: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="FILE|MODULE:NAME",
            help="The table map: a document, or one in Python; when left out, the stored one of the graph, "
            "else the built-in one.",
        ),
    ] = None,
    lock_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds that writers may have to wait for one of our locks.")
    ] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Prepare a graph's write-db tables for capture, online. Doing it again changes nothing."""
    import asyncio

    schema_map = None if map_name is None else _schema_map(map_name)
    quiet = as_json or dry_run
    slug, steps = asyncio.run(
        _adopt(graph, schema_map, undo=undo, dry_run=dry_run, lock_timeout=lock_timeout, quiet=quiet)
    )
    if as_json:
        listed = [{"sentence": step.sentence, "sql": step.script} for step in steps]
        typer.echo(json.dumps({"graph": slug, "undo": undo, "dry_run": dry_run, "steps": listed}, indent=2))
    elif not steps:
        typer.echo("Nothing to do: " + ("no table is captured." if undo else "every table is captured."))
    elif dry_run:
        for step in steps:
            # Odd names may have line breaks, which would end the comment.
            typer.echo(f"-- {' '.join(step.sentence.split())}\n{step.script}\n")


def _schema_map(name: str) -> "SchemaMap":
    """Return the map of a file or of `module:NAME`, or raise ConfigurationError."""
    from syncline.cli.map_named import map_named

    return map_named(name)[0]


async def _adopt(
    reference: str,
    schema_map: "SchemaMap | None",
    *,
    undo: bool,
    dry_run: bool,
    lock_timeout: float,
    quiet: bool,
) -> "tuple[str, list[Step]]":
    """Return the slug of the graph, and the steps that were taken or would be."""
    from syncline.capture.install.install import adopt, plan_adoption, plan_undo
    from syncline.capture.install.install import undo as undo_adoption
    from syncline.capture.install.locks import Patience
    from syncline.cli.target import find_settings
    from syncline.control.services import Services
    from syncline.control.sharing import refuse_undo
    from syncline.operator.maps import map_of

    async with Services.open(find_settings(), application_name="syncline adopt") as services:
        graph = await services.graphs.get(reference)
        write = services.write_schema(graph)
        if schema_map is None:
            schema_map = (await map_of(services, graph)).schema_map
        if undo:
            refuse_undo(graph, await services.graphs.sharing(graph))
        if dry_run:
            make = plan_undo if undo else plan_adoption
            async with write.store.driver() as connection:
                return graph.slug, list((await make(connection, write.schema, schema_map)).steps)
        steps = await (undo_adoption if undo else adopt)(
            write.store,
            write.schema,
            schema_map,
            patience=Patience(lock_timeout=lock_timeout),
            on_step=lambda step: None if quiet else typer.echo(step.sentence),
            on_wait=lambda wait: typer.echo(wait, err=True),
        )
        return graph.slug, steps
