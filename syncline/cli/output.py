"""How commands fail: one sentence on stderr and an exit status, never a traceback for what we expect."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec

import typer

from syncline.errors import ConfigurationError, StoreUnusable, SynclineError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "EXIT_ALREADY_RUNNING",
    "EXIT_CONFIGURATION",
    "EXIT_DIFFERS",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_NOT_COMPARED",
    "EXIT_STATUSES",
    "errors_printed",
    "make_table",
    "one_line",
    "print_columns",
    "print_error",
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


def one_line(text: str) -> str:
    """Return a text without line breaks and without what a terminal would obey."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split())
    )


def print_columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns, each as wide as its widest cell."""
    lines = [tuple(one_line(cell) for cell in line) for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


_LAST_COLUMN: Final = 20
"""Characters of a broken column that can still be read."""


def print_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, styles: Mapping[str, str] | None = None
) -> None:
    """Print rows as `make_table` has them on a terminal, and in columns where a program reads them.

    So too on a terminal that is too narrow for them: it wraps lines, where a table would cut names off.
    """
    lines = [tuple(one_line(cell) for cell in line) for line in rows]
    if not sys.stdout.isatty():
        print_columns(header, lines)
        return
    from rich.console import Console

    console = Console(highlight=False)
    if _least_width(header, lines) > console.width:
        print_columns(header, lines)
        return
    console.print(make_table(header, lines, styles=styles))


def _least_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the width below which columns would be cut off: only the last one can be broken."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return sum(widths[:-1]) + 2 * len(widths[:-1]) + min(widths[-1], _LAST_COLUMN)


def make_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, styles: Mapping[str, str] | None = None
) -> "Table":
    """Return rows as a table for a terminal; `styles` says how a cell looks that is one of its words."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in header:
        # A table that is too narrow for its last column breaks that one, and not the names in the others.
        table.add_column(name, overflow="fold", no_wrap=name != header[-1])
    for row in rows:
        table.add_row(*(Text(one_line(cell), style=(styles or {}).get(cell, "")) for cell in row))
    return table
