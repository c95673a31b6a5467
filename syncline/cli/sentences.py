"""How commands fail: one sentence on stderr and an exit status, never a traceback for what we expect."""

from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec

import typer

from syncline.errors import ConfigurationError, StoreUnusable, SynclineError

__all__ = [
    "EXIT_ALREADY_RUNNING",
    "EXIT_CONFIGURATION",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_STATUSES",
    "errors_as_sentences",
    "say_error",
    "say_warning",
]

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2
EXIT_ALREADY_RUNNING: Final = 3
EXIT_INTERRUPTED: Final = 130

EXIT_STATUSES: Final = {
    0: "Done.",
    EXIT_FAILED: "Failed, nothing matched, or what was looked at is not well; the command's page says which.",
    EXIT_CONFIGURATION: "Wrong usage or configuration: somebody has to change something first.",
    EXIT_ALREADY_RUNNING: "`sync` only: another run holds the graph, so this one did nothing; "
    "`--follow` follows that one.",
    EXIT_INTERRUPTED: "Ctrl-C.",
}
"""What the exit statuses of all commands mean."""

P = ParamSpec("P")


def say_error(message: str) -> None:
    """Print `error: …` on stderr."""
    typer.secho("error: ", nl=False, err=True, fg=typer.colors.RED, bold=True)
    typer.echo(message, err=True)


def say_warning(message: str) -> None:
    """Print `warning: …` on stderr."""
    typer.secho("warning: ", nl=False, err=True, fg=typer.colors.YELLOW, bold=True)
    typer.echo(message, err=True)


def errors_as_sentences(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command print our errors as one sentence: exit status 2 for configuration, 1 for the rest."""

    @wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SynclineError as error:
            say_error(str(error))
            wrong = isinstance(error, ConfigurationError | StoreUnusable)
            raise typer.Exit(EXIT_CONFIGURATION if wrong else EXIT_FAILED) from None

    return told
