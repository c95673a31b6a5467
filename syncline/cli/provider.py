"""`syncline provider …`: having another provider take over."""

import typer

from syncline.cli.promote import promote

__all__ = ["app"]

app = typer.Typer(help="Have another provider take over.", no_args_is_help=True)

app.command()(promote)


@app.callback()
def _group() -> None:
    """Have another provider take over."""
