"""How commands fail: one sentence on stderr and an exit status, never a traceback for what we expect."""

from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec

import typer

from syncline.cli.tables import FittedTable, one_line, print_columns, print_fields, print_fitted, print_table
from syncline.errors import ConfigurationError, StoreUnusable, SynclineError

__all__ = [
    "EXIT_ALREADY_RUNNING",
    "EXIT_CONFIGURATION",
    "EXIT_DIFFERS",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_NOT_COMPARED",
    "EXIT_STATUSES",
    "FittedTable",
    "errors_printed",
    "one_line",
    "print_columns",
    "print_error",
    "print_fields",
    "print_fitted",
    "print_table",
    "print_warning",
]

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2
EXIT_ALREADY_RUNNING: Final = 3
EXIT_NOT_COMPARED: Final = 4
EXIT_DIFFERS: Final = 5
EXIT_INTERRUPTED: Final = 130

EXIT_STATUSES: Final = {
    0: "Done.",
    EXIT_FAILED: "Failed, nothing matched, or what was looked at is not well; the command's page says which.",
    EXIT_CONFIGURATION: "Wrong usage or configuration: somebody has to change something first.",
    EXIT_ALREADY_RUNNING: "`sync` only: another run holds the graph, so this one did nothing; "
    "`--follow` follows that one.",
    EXIT_NOT_COMPARED: "`verify` only: nothing is damaged, but not everything could be compared.",
    EXIT_DIFFERS: "`graph takeover --dry-run` only: the target differs from what a sync would make of it.",
    EXIT_INTERRUPTED: "Ctrl-C.",
}
"""What the exit statuses of all commands mean."""

P = ParamSpec("P")


def print_error(message: str) -> None:
    """Print `error: …` on stderr."""
    typer.secho("error: ", nl=False, err=True, fg=typer.colors.RED, bold=True)
    typer.echo(message, err=True)


def print_warning(message: str) -> None:
    """Print `warning: …` on stderr."""
    typer.secho("warning: ", nl=False, err=True, fg=typer.colors.YELLOW, bold=True)
    typer.echo(message, err=True)


def errors_printed(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command print our errors as one sentence: exit status 2 for configuration, 1 for the rest."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SynclineError as error:
            print_error(str(error))
            wrong = isinstance(error, ConfigurationError | StoreUnusable)
            raise typer.Exit(EXIT_CONFIGURATION if wrong else EXIT_FAILED) from None

    return wrapped
