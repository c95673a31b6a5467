"""`syncline graph drop-collections`: lists what goes, asks, and has it dropped."""

from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import GraphArgument, JsonOption, ReasonOption, ask, exit_nothing_matched, os_user
from syncline.cli.output import errors_printed, print_columns

if TYPE_CHECKING:
    from syncline.messages.operator import CollectionsDropped

__all__ = ["drop_collections"]


@errors_printed
def drop_collections(
    graph: GraphArgument,
    collections: Annotated[
        list[str] | None,
        typer.Option("--collection", metavar="NAME", help="As its map names it; all when left out."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Drop a graph's collections in the vector store, with their aliases.

    For another dimension, or settings that are fixed when a collection is made. The next cycle of a graph
    that is synced makes them again, and has all texts embedded anew.
    """
    from syncline.messages.operator import CollectionsDropped, DropCollectionsInput

    asked = DropCollectionsInput(graph=graph, collections=tuple(collections or ()), who=os_user(), why=reason)
    if not yes:
        found = ask(asked, CollectionsDropped)
        if not found.collections:
            exit_nothing_matched(f"Graph {graph} has no collections.")
        _print(found, err=True)
        typer.confirm("Drop them?", abort=True, err=True)
    done = ask(asked.model_copy(update={"drop": True}), CollectionsDropped)
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
        return
    _print(done)
    typer.echo("dropped; the next cycle makes them again" if done.made_again else "dropped")


def _print(found: "CollectionsDropped", *, err: bool = False) -> None:
    header = ("store", "collection", "points")
    lines = [(found.store, collection.name, f"{collection.points:,}") for collection in found.collections]
    if not err:
        print_columns(header, lines)
        return
    for store, name, points in lines:
        typer.echo(f"{store}  {name}  {points} points", err=True)
    if found.made_again:
        typer.echo("The next cycle makes them again, and all texts are embedded anew.", err=True)
