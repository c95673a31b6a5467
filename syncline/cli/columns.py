"""Text of strangers on the terminal: one line each, in columns under a header."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["make_table", "one_line", "print_columns", "print_table"]


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


def print_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, styles: Mapping[str, str] | None = None
) -> None:
    """Print rows as `make_table` has them on a terminal, and in columns where a program reads them."""
    if not sys.stdout.isatty():
        print_columns(header, rows)
        return
    from rich.console import Console

    Console(highlight=False).print(make_table(header, rows, styles=styles))


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
