"""Tables of commands: on a terminal as wide as it is, in plain columns where a program reads them.

No cell is ever cut off. Where a table is too wide, columns that a command can spare leave first, and it says
which; then the last column is broken. If even that does not fit, each row is listed field by field.
"""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

__all__ = ["FittedTable", "one_line", "print_columns", "print_fields", "print_fitted", "print_table"]

_LAST_COLUMN: Final = 20
"""Characters of a broken column that can still be read."""
_READS_WELL: Final = 40
"""Characters of it for which columns that can be spared leave."""


def one_line(text: str) -> str:
    """Return a text without line breaks and without what a terminal would obey."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split())
    )


class FittedTable:
    """A table as a terminal's width allows; `styles` says how a cell looks that is one of its words.

    `of_rows` says the same of a row's own cells, and goes before `styles`.
    `spare` names the columns that may be left out, the first one first.
    """

    def __init__(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        styles: Mapping[str, str] | None = None,
        of_rows: Sequence[Mapping[str, str]] = (),
        spare: Sequence[str] = (),
    ) -> None:
        self.header = tuple(header)
        self.rows = [tuple(one_line(cell) for cell in row) for row in rows]
        self._styles, self._of_rows, self.spare = styles or {}, of_rows, tuple(spare)

    def shown_at(self, width: int) -> tuple[str, ...] | None:
        """Return the columns of a table of this width; None if its rows are listed field by field."""
        places = self._places_at(width)
        return None if places is None else tuple(self.header[place] for place in places)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[RenderableType]":
        """Yield what fits into the width."""
        from rich.text import Text

        places = self._places_at(options.max_width)
        if places is None:
            yield from self._fields()
            return
        yield self._table(places)
        left = [name for place, name in enumerate(self.header) if place not in places]
        if left and self.rows:
            yield Text(f"left out in {options.max_width} columns: {', '.join(left)}", style="dim")

    def _places_at(self, width: int) -> Sequence[int] | None:
        shown, spare = list(range(len(self.header))), list(self.spare)
        while spare and self._least_width(shown, _READS_WELL) > width:
            shown.remove(self.header.index(spare.pop(0)))
        return None if self._least_width(shown, _LAST_COLUMN) > width else shown

    def _least_width(self, places: Sequence[int], last: int) -> int:
        """Return the width below which columns would be cut off; the last one can be broken to `last`."""
        widths = [max([len(self.header[place]), *(len(row[place]) for row in self.rows)]) for place in places]
        return sum(widths[:-1]) + 2 * len(widths[:-1]) + min(widths[-1], last)

    def _table(self, places: Sequence[int]) -> "RenderableType":
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        for place in places:
            table.add_column(self.header[place], overflow="fold", no_wrap=place != places[-1])
        for number, row in enumerate(self.rows):
            table.add_row(*(self._cell(number, row[place]) for place in places))
        return table

    def _fields(self) -> "Iterator[RenderableType]":
        from rich.table import Table
        from rich.text import Text

        for number, row in enumerate(self.rows):
            grid = Table.grid(padding=(0, 2))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            for name, cell in zip(self.header, row, strict=True):
                if cell:
                    grid.add_row(name, self._cell(number, cell))
            if number:
                yield Text()
            yield grid

    def _cell(self, number: int, cell: str) -> "RenderableType":
        from rich.text import Text

        own = self._of_rows[number] if self._of_rows else {}
        return Text(cell, style=own.get(cell, self._styles.get(cell, "")))


def print_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    styles: Mapping[str, str] | None = None,
    spare: Sequence[str] = (),
) -> None:
    """Print rows as a `FittedTable` on a terminal, and in plain columns where a program reads them."""
    print_fitted(FittedTable(header, rows, styles=styles, spare=spare))


def print_fitted(table: FittedTable) -> None:
    """Print a table on a terminal, and in plain columns where a program reads them."""
    if not sys.stdout.isatty():
        _print_plain(table)
        return
    from rich.console import Console

    Console(highlight=False).print(table)


def print_columns(header: Sequence[str], rows: Iterable[Sequence[str]], *, spare: Sequence[str] = ()) -> None:
    """Print rows as `print_table` does, without colours."""
    print_table(header, rows, spare=spare)


def print_fields(fields: Sequence[tuple[str, str]], *, least: int = 0) -> None:
    """Print one field a line, values below each other and `least` characters in, or more.

    On a terminal a long value continues below itself, broken between words; a word is never broken, so that
    an id can be copied.
    """
    indent = max([least, *(len(name) for name, _ in fields)]) + 1
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for name, value in fields:
        told = one_line(value)
        lines = [told] if width is None else _wrapped(told, max(width - indent, _LAST_COLUMN))
        for number, line in enumerate(lines):
            typer.echo(f"{'' if number else name:<{indent}}{line}".rstrip())


def _wrapped(text: str, width: int) -> Sequence[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _print_plain(table: FittedTable) -> None:
    lines = [tuple(one_line(cell) for cell in table.header), *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
