"""`syncline provider …`: making a provider of your own, and having it take over."""

from pathlib import Path
from typing import Annotated

import typer

from syncline.cli.promote import promote

__all__ = ["app"]

app = typer.Typer(help="Make a provider of your own, and have it take over.", no_args_is_help=True)

app.command()(promote)


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its id, which compositions name, such as acme-sync.")
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A new or empty folder for the project; NAME in this one if left out."
        ),
    ] = None,
) -> None:
    """Write a plugin's project: a provider on top of the built-in engine, with types, tests and a README."""
    from syncline.scaffold import PluginName, write_project

    try:
        plugin = PluginName(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None
    folder = into or Path(name)
    try:
        written = write_project(plugin, folder)
    except FileExistsError as error:
        raise typer.BadParameter(f"{error}; name another one", param_hint="--into") from None
    for path in written:
        typer.echo(path)
    typer.echo(f"\nNext: cd {folder}, and README.md there has the commands to install and to test it.")
