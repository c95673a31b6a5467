"""The command line: `syncline …`. What is heavy is imported by the command that needs it."""

from typing import Annotated, NoReturn

import typer

from syncline.cli.dev import dev
from syncline.cli.explain import explain
from syncline.cli.failures import app as failures
from syncline.cli.graph import app as graph
from syncline.cli.migrate import migrate
from syncline.cli.operators import STATUS
from syncline.cli.parked import parked
from syncline.cli.sample import app as sample
from syncline.cli.schedule import app as schedule
from syncline.cli.verify import STATUS_OF_VERIFY, verify
from syncline.cli.worker import worker
from syncline.process_exit import end_process

__all__ = ["app"]


class _CommandLine(typer.Typer):
    """A Typer that ends the process by `end_process` when it is called as a program."""

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        try:
            super().__call__(*args, **kwargs)
        except SystemExit as exit_:
            end_process(exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None))
        end_process(0)


app = _CommandLine(
    name="syncline",
    help="Sync knowledge graphs from a write-db to a graph-db and Qdrant, orchestrated by Temporal.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage or configuration.",
    no_args_is_help=True,
    add_completion=False,
    # Locals may hold connection URIs.
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"syncline {version('syncline')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Sync knowledge graphs from a write-db to a graph-db and Qdrant, orchestrated by Temporal."""


app.command()(dev)
app.command()(worker)
app.command()(migrate)
app.add_typer(graph, name="graph")
app.add_typer(schedule, name="schedule")
app.add_typer(sample, name="sample")
app.add_typer(failures, name="failures")
app.command(epilog=STATUS)(parked)
app.command(epilog=STATUS)(explain)
app.command(epilog=STATUS_OF_VERIFY)(verify)
