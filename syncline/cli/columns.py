"""Text of strangers on the terminal: one line each, in columns under a header."""

from collections.abc import Iterable, Sequence

import typer

__all__ = ["one_line", "print_columns"]


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
