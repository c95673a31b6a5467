"""`syncline graph delete` and `rename`: list what goes and what stays, ask, and have it done."""

from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.graph_record import print_graph
from syncline.cli.operators import GraphArgument, JsonOption, ReasonOption, ask, os_user
from syncline.cli.output import EXIT_FAILED, errors_printed, one_line, print_columns, print_error

if TYPE_CHECKING:
    from syncline.messages.operator import GraphDeleted

__all__ = ["STATUS_OF_DELETE", "delete_graph", "rename_graph"]

_LONGEST_DELETION = 3600.0

STATUS_OF_DELETE = "Exit status: 0 done, 1 failed or not confirmed, 2 wrong usage or configuration."


@errors_printed
def delete_graph(
    graph: GraphArgument,
    keep_data: Annotated[
        bool, typer.Option("--keep-data", help="Leave the tables that readers query, and the collections.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what goes and what stays; do nothing.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask; archive a graph that is not archived yet.")
    ] = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Delete a graph: its Schedule, capture, state tables, tables, collections, and at last its record.

    Sources, tables of a stored map, and what others have put into its schema stay. It waits a minute for an
    open run, and refuses after that. A deletion that was interrupted is finished by the same command.
    """
    from syncline.messages.operator import DeleteGraphInput, GraphDeleted

    asked = DeleteGraphInput(graph=graph, keep_data=keep_data, who=os_user(), why=reason)
    if dry_run or not yes:
        found = ask(asked, GraphDeleted)
        if dry_run:
            _print(found, as_json=as_json)
            return
        _list(found)
        if found.blockers:
            print_error(one_line(f"It cannot be deleted: {'; '.join(found.blockers)}. See `--keep-data`."))
            raise typer.Exit(EXIT_FAILED)
        typer.confirm(f"Delete {found.graph}?", abort=True, err=True)
    request = asked.model_copy(update={"delete": True, "archive": yes})
    done = ask(request, GraphDeleted, seconds=_LONGEST_DELETION)
    _print(done, as_json=as_json)


@errors_printed
def rename_graph(
    graph: GraphArgument,
    to: Annotated[str, typer.Argument(metavar="NEW", help="Lower-case letters, digits and `-`.")],
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Give a graph another slug: its record and Schedule, and the ids of its runs from now on.

    Its id, schemas, tables and collections keep their names, so readers notice nothing. A pause stays. It
    waits a minute for an open run, and refuses after that. Totals in `status` begin anew.
    """
    from syncline.control.graphs import Graph
    from syncline.messages.operator import RenameGraphInput

    request = RenameGraphInput(graph=graph, to=to, who=os_user(), why=reason)
    print_graph(ask(request, Graph, seconds=300.0), as_json=as_json)


def _list(found: "GraphDeleted") -> None:
    for part in found.parts:
        verb = "stays" if part.stays else "goes "
        typer.echo(
            one_line(f"{verb}  {part.kind}  {part.name}  {part.place}  {part.detail}").rstrip(), err=True
        )


def _print(found: "GraphDeleted", *, as_json: bool) -> None:
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    verbs = ("deleted", "kept") if found.deleted else ("goes", "stays")
    lines = [(verbs[part.stays], part.kind, part.name, part.place, part.detail) for part in found.parts]
    print_columns(("what", "kind", "name", "place", "detail"), lines)
    for blocker in found.blockers:
        typer.echo(one_line(f"It cannot be deleted now: {blocker}."), err=True)
