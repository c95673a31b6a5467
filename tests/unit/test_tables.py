"""Tables of commands on a terminal: as wide as it is, with no cell cut off."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console, Group
from rich.text import Text

from syncline.cli.output import FittedTable, print_table
from tests.kit.screens import WIDTHS, graphs, page, screen

ROOT = Path(__file__).parents[2]

HEADER = ("graph", "state", "last run", "took", "by", "provider", "rows", "failures", "next run", "why")
LINE = (
    "world-fallback",
    "vectors delayed",
    "2026-11-29 21:05:32",
    "34 s",
    "schedule",
    "builtin-engine",
    "70,705",
    "0",
    "2026-11-29 21:06:11",
    "`syncline status world-fallback` says why vectors wait, and until when",
)


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)


def plain(capsys: pytest.CaptureFixture[str]) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("columns", [80, 130, 200])
def test_no_cell_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    on_terminal(monkeypatch, columns)
    print_table(HEADER, iter([LINE]))
    said = plain(capsys)
    for cell in LINE[:-1]:
        assert cell in said
    assert all(word in said for word in LINE[-1].split())


def test_a_long_last_column_is_broken_where_the_others_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal(monkeypatch, 60)
    print_table(("check", "status", "found"), iter([("embedding", "ok", "words " * 20)]))
    said = plain(capsys)
    assert all(len(line) <= 60 for line in said.splitlines())
    assert len(said.splitlines()) > 2


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_the_live_board_keeps_graph_state_and_reason(columns: int) -> None:
    table = FittedTable(HEADER, [LINE], spare=("took", "by", "rows", "failures", "provider", "next run"))
    written = io.StringIO()
    Console(file=written, width=columns, force_terminal=True, color_system=None).print(
        Group(Text(), table, Text("below"))
    )
    lines = written.getvalue().splitlines()
    assert all(len(line) <= columns for line in lines)
    said = "".join(written.getvalue().split())
    for cell in ("world-fallback", "vectors delayed", LINE[-1]):
        assert "".join(cell.split()) in said
    shown = table.shown_at(columns)
    assert shown is not None
    assert (shown == HEADER) == (columns == 200)


def test_a_table_that_cannot_fit_is_listed_field_by_field() -> None:
    table = FittedTable(HEADER, [LINE, LINE])
    assert table.shown_at(80) is None
    written = io.StringIO()
    Console(file=written, width=80, force_terminal=False).print(table)
    lines = written.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert sum(line.split() == ["state", "vectors", "delayed"] for line in lines) == 2


@pytest.mark.parametrize("columns", WIDTHS)
def test_every_screen_of_the_page_has_each_graph_with_its_state_and_reason(columns: int) -> None:
    shown = screen(columns)
    assert all(len(line) <= columns for line in shown.splitlines())
    words = " ".join(shown.split())
    for graph in graphs():
        assert graph.graph in words
        assert graph.standing in words
        assert all(finding.next is None or finding.next.split()[-1] in words for finding in graph.findings)


def test_page_of_screens_is_what_the_command_shows() -> None:
    assert (ROOT / "docs/operations/screens.md").read_text("utf-8") == page(), "run `make docs`"
