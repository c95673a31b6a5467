"""The command line: `syncline …`. What is heavy is imported by the command that needs it."""

from typing import Annotated, NoReturn

import typer

from syncline.cli.dev import dev, worker
from syncline.cli.doctor import STATUS_OF_DOCTOR, doctor
from syncline.cli.embedding import app as embedding
from syncline.cli.examples import EXAMPLES
from syncline.cli.explain import explain
from syncline.cli.failures import app as failures
from syncline.cli.grants import grants
from syncline.cli.graph import app as graph
from syncline.cli.logs import logs
from syncline.cli.map import app as map_
from syncline.cli.mcp import mcp
from syncline.cli.migrate import migrate
from syncline.cli.operators import STATUS, STATUS_IN_GENERAL
from syncline.cli.parked import parked
from syncline.cli.provider import app as provider
from syncline.cli.provider import providers
from syncline.cli.psql import STATUS_OF_PSQL, psql
from syncline.cli.rebuild import app as rebuild
from syncline.cli.sample import app as sample
from syncline.cli.schedule import app as schedule
from syncline.cli.status import runs, status
from syncline.cli.sync import STATUS_OF_SYNC, sync
from syncline.cli.usage import usage
from syncline.cli.verify import STATUS_OF_VERIFY, verify
from syncline.cli.wait import STATUS_OF_WAIT, wait
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
    epilog=f"{STATUS_IN_GENERAL} docs/json.md has all of them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
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


app.command(epilog=STATUS_OF_SYNC)(sync)
app.command(epilog=STATUS_OF_WAIT)(wait)
app.command()(status)
app.command(epilog=STATUS)(runs)
app.command(epilog=STATUS)(logs)
app.command()(providers)
app.command(epilog=STATUS_OF_DOCTOR)(doctor)
app.command()(dev)
app.command()(worker)
app.command()(migrate)
app.command()(mcp)
app.command()(grants)
app.command(epilog=STATUS_OF_PSQL)(psql)
app.add_typer(graph, name="graph")
app.add_typer(map_, name="map")
app.add_typer(provider, name="provider")
app.add_typer(schedule, name="schedule")
app.add_typer(sample, name="sample")
app.add_typer(failures, name="failures")
app.add_typer(embedding, name="embedding")
app.add_typer(rebuild, name="rebuild")
app.command(epilog=STATUS)(parked)
app.command(epilog=STATUS)(explain)
app.command()(usage)
app.command(epilog=STATUS_OF_VERIFY)(verify)


def _with_epilogs(group: typer.Typer, path: str = "") -> None:
    """Give every command its exit statuses, unless it has its own, and its example."""
    for command in group.registered_commands:
        name = command.name or ("" if command.callback is None else command.callback.__name__)
        example = EXAMPLES.get(f"{path}{name}")
        command.epilog = command.epilog or STATUS_IN_GENERAL
        if example is not None and example not in command.epilog:
            command.epilog += f" Example: `{example}`"
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _with_epilogs(inner.typer_instance, f"{path}{inner.name} ")


_with_epilogs(app)
