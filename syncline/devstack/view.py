"""How the board looks: a live table in a terminal, one line per change elsewhere."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from syncline.caveats import format_lag
from syncline.devstack.board import ClosedRun, GraphRow

__all__ = ["change_line", "live_view"]


def live_view(rows: Sequence[GraphRow], places: Mapping[str, str], *, now: datetime) -> RenderableType:
    """Return the table, and below it where everything is. `places` is label -> address."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in ("graph", "provider"):
        table.add_column(header, no_wrap=True)
    for header in ("fallback since", "last run"):
        table.add_column(header)
    for header in ("rows", "failures", "lag", "next"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.slug,
            _provider(row.last),
            Text(_since(row.last), style="yellow"),
            _last_run(row, now),
            _rows(row.last),
            _failures(row.last),
            _lag(row.last),
            _next_run(row, now),
        )
    notes = [note for row in rows if row.last is not None for note in _notes(row.slug, row.last)]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, place in places.items():
        grid.add_row(label, place)
    return Group(Text(), table, Text(), *notes, *([Text()] if notes else []), grid)


def change_line(slug: str, last: ClosedRun) -> str:
    """Return one line about a run that ended, without relative times."""
    parts = [f"{slug}: {last.outcome} at {last.closed_at.astimezone():%H:%M:%S}"]
    if last.failure is not None:
        parts.append(last.failure)
        if _since(last):
            parts.append(f"fallback since {_since(last)}")
    if last.result is not None:
        parts.append(_provider(last))
        if last.result.fallback is not None:
            parts.append(f"fallback since {_since(last)}")
        parts.append(f"rows {_rows(last)} (total {last.result.carried.totals.rows:,})")
        parts += [f"failures {last.result.failures}", f"lag {_lag(last)}"]
    return ", ".join(parts)


def _provider(last: ClosedRun | None) -> str:
    if last is None:
        return "-"
    if last.result is None or last.result.fallback is not None:
        return last.provider or "-"
    return f"{last.result.provider_id} {last.result.provider_version or ''}".rstrip()


def _since(last: ClosedRun | None) -> str:
    """Return since when, and for how many runs, the built-in engine has stood in for a provider."""
    if last is None or last.handed is None or last.handed.fallback is None:
        return ""
    carried = last.handed.carried
    runs = carried.consecutive_fallback_runs
    counted = f"{runs} run{'' if runs == 1 else 's'}"
    return counted if carried.first_fallback_at is None else f"{_clock(carried.first_fallback_at)}, {counted}"


def _notes(slug: str, last: ClosedRun) -> list[Text]:
    """Return what does not fit in a cell: why there is no provider, why a run failed."""
    notes = []
    if last.handed is not None and last.handed.held is not None:
        notes.append(Text(f"{slug}: {last.handed.held.detail}", style="yellow"))
    if last.handed is not None and last.handed.fallback is not None:
        notes.append(Text(f"{slug}: {last.handed.fallback.detail}", style="yellow"))
    if last.failure is not None:
        notes.append(Text(f"{slug}: {last.failure}", style="red"))
    return notes


def _last_run(row: GraphRow, now: datetime) -> Text:
    text = Text()
    if row.last is not None:
        style = "green" if row.last.drained else "red" if row.last.result is None else "yellow"
        text.append(row.last.outcome, style=style).append(f" {_span(now - row.last.closed_at)} ago")
    if row.running_since is not None:
        text.append("; " if text else "").append(f"running for {_span(now - row.running_since)}")
    return text or Text("-")


def _rows(last: ClosedRun | None) -> str:
    if last is None or last.result is None:
        return "-"
    return f"{last.result.result.rows:,}"


def _failures(last: ClosedRun | None) -> Text:
    if last is None or last.failures is None:
        return Text("-")
    return Text(str(last.failures), style="red" if last.failures else "")


def _lag(last: ClosedRun | None) -> str:
    return "-" if last is None or last.result is None else format_lag(last.result.result)


def _next_run(row: GraphRow, now: datetime) -> str:
    if row.paused:
        return "paused"
    return "-" if row.next_at is None else _span(row.next_at - now)


def _clock(at: datetime) -> str:
    local = at.astimezone()
    same_day = local.date() == datetime.now(UTC).astimezone().date()
    return f"{local:%H:%M:%S}" if same_day else f"{local:%Y-%m-%d %H:%M}"


def _span(span: timedelta) -> str:
    seconds = max(0, round(span.total_seconds()))
    if seconds < 100:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 6000 else f"{seconds // 3600} h"
