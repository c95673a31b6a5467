"""`syncline dev`: the whole development stack by one command."""

from pathlib import Path
from typing import Annotated

import typer

from syncline.cli.output import errors_printed
from syncline.cli.status import status_table

__all__ = ["dev", "worker"]


@errors_printed
def dev(
    config: Annotated[Path, typer.Option(help="What to start.", dir_okay=False)] = Path("temporal-dev.yaml"),
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

    Ctrl-C stops all of it. The next start resumes where this one was.
    """
    import asyncio

    from rich.console import Console

    from syncline.devstack.declaration import read_declaration
    from syncline.devstack.stack import DevStack

    declaration = read_declaration(config).overridden(port=port, ui_port=ui_port, state_dir=state_dir)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140  # a file or a pipe has none of its own
    stack = DevStack(declaration, console=console, table=status_table, once=once, timeout=timeout)
    raise typer.Exit(asyncio.run(stack.run()))


@errors_printed
def worker() -> None:
    """Run the worker: `python worker.py` of the checkout in this folder, until it is told to stop.

    It reads SYNCLINE_* and TEMPORAL_*. SIGTERM or Ctrl-C lets running cycles finish.
    """
    import os
    import sys
    from pathlib import Path

    from syncline.devstack.processes import find_worker

    script = find_worker(Path.cwd())
    # In the place of this process, so that signals and the exit status are the worker's own.
    os.execv(sys.executable, [sys.executable, str(script)])  # noqa: S606 # there is no shell to want
