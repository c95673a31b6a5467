"""`syncline map …`: the map documents that the control plane stores, version by version."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.map_check import register
from syncline.cli.map_named import read_file, stored_document, version_label
from syncline.cli.operators import (
    STATUS,
    BeforeOption,
    GraphArgument,
    JsonOption,
    LimitOption,
    ReasonOption,
    ask,
    format_time,
    os_user,
    print_page,
)
from syncline.cli.output import errors_printed
from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from syncline.control.maps import StoredMap
    from syncline.engine.map_changes import TableChange

__all__ = ["app"]

MapArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the map.")]
_HEADER = ("map", "version", "at", "who", "graphs", "reason")

app = typer.Typer(help="Propose, check and store maps, and see what changed in them.", no_args_is_help=True)
register(app)


@app.command("list")
@errors_printed
def list_maps(
    limit: LimitOption = 1_000,
    after: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where the page before ended: its last line says so.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the stored maps with their newest version, and the graphs that it syncs."""
    from syncline.messages.operator import ListMapsInput, MapPage

    page = ask(ListMapsInput(limit=limit, after=after), MapPage)
    print_page(page, _HEADER, list(map(_line, page.maps)), nothing="no map is stored", as_json=as_json)
    if page.next is not None and not as_json:
        typer.echo(f"more: --after {page.next}")


@app.command(epilog=STATUS)
@errors_printed
def history(
    name: MapArgument,
    limit: LimitOption = 100,
    before: BeforeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a map, newest first: who stored each, when and why, and which graphs it syncs."""
    from syncline.messages.operator import ListMapsInput, MapPage

    page = ask(ListMapsInput(name=name, limit=limit, before=before), MapPage)
    print_page(page, _HEADER, list(map(_line, page.maps)), nothing="no version is left", as_json=as_json)
    if page.before is not None and not as_json:
        typer.echo(f"more: --before {page.before}")


@app.command()
@errors_printed
def show(
    name: MapArgument,
    version: Annotated[int | None, typer.Option(min=1, help="Which one; the newest when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print a map's document as it was written."""
    found = stored_document(name, version)
    typer.echo(found.model_dump_json(indent=2) if as_json else found.document.rstrip("\n"))


@app.command()
@errors_printed
def put(
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; `-` is standard input.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the map; the document's own when left out.")
    ] = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Store a map document as the next version of its map. The same document again changes nothing.

    Graphs whose composition names the map and no version are synced by it from their next cycle on.
    """
    from syncline.control.maps import MapPut
    from syncline.maps.document import read_map
    from syncline.messages.operator import PutMapInput

    document = read_file(file)
    read_map(document, source=file)  # what is wrong with it is said without a worker
    request = PutMapInput(document=document, name=name, source=file, who=os_user(), why=reason)
    done = ask(request, MapPut)
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
        return
    stored = done.stored
    if not done.created:
        typer.echo(f"map {stored.name}: version {stored.version} is this very document")
        return
    typer.echo(f"map {stored.name}: version {stored.version} stored")
    if stored.version > 1:
        before = stored_document(stored.name, stored.version - 1)
        _print_changes(_changes(before.document, document))
    if stored.graphs:
        typer.echo(f"applied by the next cycle of {', '.join(stored.graphs)}")


NewColumnsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TABLE.COLUMN]...", help="Which ones; all that can be taken when left out."),
]


@app.command(epilog=STATUS)
@errors_printed
def take(
    graph: GraphArgument,
    columns: NewColumnsArgument = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take columns that were added to sources: into the graph-db's tables, and the next version of the map.

    The next cycle fills them in the background. `syncline status GRAPH` names those that wait.
    """
    _decide(graph, columns or [], ignore=False, reason=reason, as_json=as_json)


@app.command(epilog=STATUS)
@errors_printed
def ignore(
    graph: GraphArgument,
    columns: Annotated[list[str], typer.Argument(metavar="TABLE.COLUMN...", help="Which ones.")],
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Leave columns that were added to sources alone for good, by the next version of the map."""
    _decide(graph, columns, ignore=True, reason=reason, as_json=as_json)


def _decide(graph: str, columns: list[str], *, ignore: bool, reason: str, as_json: bool) -> None:
    from syncline.messages.operator import ColumnsDecided, DecideColumnsInput

    request = DecideColumnsInput(
        graph=graph, columns=tuple(columns), ignore=ignore, who=os_user(), why=reason
    )
    done = ask(request, ColumnsDecided)
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
    elif not done.columns:
        typer.echo(f"map {done.map}: no new column waits for a decision")
    else:
        said = "left alone" if ignore else "taken"
        typer.echo(f"map {done.map}: version {done.version} stored, {', '.join(done.columns)} {said}")
        typer.echo(f"applied by the next cycle of {', '.join(done.graphs)}")


@app.command()
@errors_printed
def diff(
    name: MapArgument,
    before: Annotated[
        str | None,
        typer.Argument(
            metavar="[A|FILE]",
            help="A version, compared with B; a file, compared with the newest version. When left out, the "
            "newest version is compared with the one before.",
        ),
    ] = None,
    after: Annotated[
        int | None, typer.Argument(metavar="[B]", help="A version; the newest when left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two versions of a map, and what a cycle does again because of it."""
    from syncline.cli.answers import MapDiff

    old, new, labels = _two(name, before, after)
    changes = _changes(old, new)
    found = MapDiff.of(name, *labels, changes, text=_unified(old, new, *labels))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    if found.text:
        typer.echo(found.text)
    _print_changes(changes)


def _two(name: str, before: str | None, after: int | None) -> tuple[str, str, tuple[str, str]]:
    """Return the two documents to compare, and what each is called."""
    if before is not None and not before.isdecimal():
        if after is not None:
            raise ConfigurationError("A file is compared with the newest version: leave B out.")
        text = read_file(before)
        stored = stored_document(name, None)
        return stored.document, text, (version_label(stored), before)
    new = stored_document(name, after)
    first = int(before) if before is not None else new.version - 1
    if first < 1:
        raise ConfigurationError(f"Map {name} has one version: name a file to compare it with.")
    old = stored_document(name, first)
    return old.document, new.document, (version_label(old), version_label(new))


def _changes(before: str, after: str) -> "Sequence[TableChange]":
    from syncline.engine.map_changes import definitions_of, map_changes
    from syncline.maps.document import read_map

    old = read_map(before, source="The version before")
    new = read_map(after, source="The version after")
    return map_changes(definitions_of(old), definitions_of(new))


def _unified(before: str, after: str, old: str, new: str) -> str:
    from difflib import unified_diff

    return "\n".join(unified_diff(before.splitlines(), after.splitlines(), old, new, lineterm=""))


def _print_changes(changes: "Sequence[TableChange]") -> None:
    for change in changes:
        typer.echo(change.sentence)
    if not changes:
        typer.echo("no table differs: nothing is read again")


def _line(stored: "StoredMap") -> tuple[str, ...]:
    return (
        stored.name,
        str(stored.version),
        format_time(stored.at),
        stored.who or "-",
        ", ".join(stored.graphs) or "-",
        stored.why or "-",
    )
