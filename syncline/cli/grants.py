"""`syncline grants`: the SQL that gives roles what they need and no more, database by database."""

from typing import TYPE_CHECKING, Annotated

import typer

from syncline.cli.operators import JsonOption, complete_graph, one_graph, print_json_list
from syncline.cli.output import errors_printed
from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from syncline.rights.databases import Places

__all__ = ["grants"]

_LONGEST_ROLE = 63


@errors_printed
def grants(
    worker: Annotated[str, typer.Option(metavar="ROLE", help="The workers' role, which only syncs.")],
    writer: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Who writes the graphs, in the write-db.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Who migrates and adopts: what it makes is its own.")
    ] = None,
    reader: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Who reads the graphs, in the graph-db.")
    ] = None,
    creates: Annotated[
        bool,
        typer.Option(
            "--worker-creates",
            help="Let the worker act as the owner, to add graphs and to make and promote shadows: "
            "SYNCLINE_OWNER_ROLE.",
        ),
    ] = False,
    schema: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A graph's schema, in place of graphs: nobody is asked then."),
    ] = None,
    graphs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="GRAPH", help="Slugs or ids; all graphs when left out.", autocompletion=complete_graph
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the SQL that gives roles their rights, for each database apart. It changes nothing itself.

    Have an administrator run each part in its database: before `syncline migrate`, and again after it and
    whenever a graph was added. The roles have to exist. A worker looks the graphs up, as for all that
    operators ask for; before there is one, name schemas.
    """
    from syncline.rights.databases import Roles
    from syncline.rights.databases import grants as rights

    if creates and owner is None:
        raise ConfigurationError("--worker-creates needs --owner: whom the worker is to act as.")
    if schema and graphs:
        raise ConfigurationError("Name graphs, or schemas with --schema, not both.")
    roles = Roles(worker=worker, writer=writer, owner=owner, reader=reader, creates=creates)
    for role in (worker, writer, owner, reader):
        _check_role(role)
    databases = list(rights(roles, _places(schema or (), graphs or ())))
    if as_json:
        from syncline.cli.answers import DatabaseGrants

        print_json_list(DatabaseGrants(name=d.name, setting=d.setting, sql=d.sql) for d in databases)
        return
    rule = "-" * 100
    for database in databases:
        typer.echo(f"{rule}\n-- {database.name} ({database.setting})\n{rule}\n{database.sql}\n")


def _check_role(role: str | None) -> None:
    if role is not None and not (0 < len(role.encode()) <= _LONGEST_ROLE and role.isprintable()):
        raise ConfigurationError(f"A role's name has 1 to {_LONGEST_ROLE} bytes, all of them printable.")


def _places(schemas: "list[str] | tuple[()]", graphs: "list[str] | tuple[()]") -> "Places":
    from syncline.rights.databases import Places, places_of
    from syncline.rights.needed import Place

    if schemas:
        # Which tables are read, only a record can say.
        here = [Place(schema=schema) for schema in dict.fromkeys(schemas)]
        return Places(write={None: here}, graph={None: here})
    from syncline.cli.graph import all_graphs
    from syncline.cli.map_named import stored_map
    from syncline.control.maps import map_options

    records = [one_graph(graph) for graph in graphs] if graphs else all_graphs()
    named = {record.slug: map_options(record.composition).shared for record in records}
    # Many graphs may share a map.
    maps = {options: stored_map(options) for options in set(named.values()) if options.map is not None}
    return places_of(records, {slug: maps[options] for slug, options in named.items() if options in maps})
