"""What `syncline dev` shows of a graph: in a table, and as a line."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from rich.console import Console

from syncline.devstack.board import ClosedRun, GraphRow
from syncline.devstack.view import change_line, live_view
from syncline.messages import (
    CarriedState,
    CycleStatus,
    Fallback,
    FallbackReason,
    GraphRef,
    SyncGraphResult,
    SyncResult,
    TableProgress,
    Totals,
)

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
FALLBACK = Fallback(
    reason=FallbackReason.NOT_INSTALLED, detail="Nobody contributes 'acme-sync'.", provider_id="acme-sync"
)


def closed(fallback: Fallback | None = None) -> ClosedRun:
    """A run that drained 12 seconds ago, with 1,234 rows."""
    return ClosedRun(
        run_id="r",
        started_at=NOW - timedelta(seconds=20),
        closed_at=NOW - timedelta(seconds=12),
        status="completed",
        provider="builtin-engine" if fallback else "default",
        failures=2,
        result=SyncGraphResult(
            graph=GraphRef(id=UUID(int=1), slug="world"),
            provider_id=None if fallback else "default",
            provider_version=None if fallback else "1.2",
            fallback=fallback,
            failures=2,
            result=SyncResult(
                status=CycleStatus.DRAINED,
                tables=(TableProgress(table="nodes", rows=1234),),
                lag_seconds=0.25,
            ),
            carried=CarriedState(
                totals=Totals(rows=5678),
                consecutive_fallback_runs=3 if fallback else 0,
                first_fallback_at=NOW - timedelta(days=400) if fallback else None,
            ),
        ),
    )


def failed() -> ClosedRun:
    """A run that failed before a provider was resolved."""
    return ClosedRun(
        run_id="r", started_at=NOW, closed_at=NOW, status="failed", failure="Graph 'mars' is unknown."
    )


def shown(*rows: GraphRow, width: int = 140) -> str:
    """Return the table as text."""
    console = Console(width=width, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(live_view(rows, {"Web UI": "http://127.0.0.1:8233"}, now=NOW))
    return captured.get()


def test_a_graph_shows_provider_rows_failures_lag_and_next_run() -> None:
    text = shown(GraphRow(slug="world", last=closed(), next_at=NOW + timedelta(seconds=33)))
    line = next(line for line in text.splitlines() if line.startswith("world"))
    assert line.split("  ")[0] == "world"
    for cell in ("default 1.2", "drained 12 s ago", "1,234", " 2 ", "0.2 s", "33 s"):
        assert cell in line
    assert "http://127.0.0.1:8233" in text


def test_a_fallback_shows_since_when_for_how_many_runs_and_why() -> None:
    text = shown(GraphRow(slug="world", last=closed(FALLBACK)))
    assert "builtin-engine" in text
    assert "2025-03-30" in text
    assert "3 runs" in text
    assert "world: Nobody contributes 'acme-sync'." in text


def test_a_failure_and_a_pause_are_told() -> None:
    text = shown(GraphRow(slug="mars", paused=True, last=failed(), running_since=NOW - timedelta(minutes=5)))
    assert "failed 0 s ago; running for 5 min" in text
    assert "paused" in text
    assert "mars: Graph 'mars' is unknown." in text


def test_a_graph_that_has_not_run_is_shown_too() -> None:
    assert "venus" in shown(GraphRow(slug="venus"))


def test_names_and_numbers_stay_whole_in_a_narrow_terminal() -> None:
    text = shown(GraphRow(slug="world-fallback", last=closed(FALLBACK)), width=80)
    line = next(line for line in text.splitlines() if line.startswith("world-fallback "))
    assert "builtin-engine" in line
    assert "1,234" in line


def test_a_change_is_one_line_that_says_it_all() -> None:
    line = change_line("world", closed(FALLBACK))
    assert line.startswith("world: drained at ")
    assert "builtin-engine, fallback since 2025-03-30" in line
    assert line.endswith("3 runs, rows 1,234 (total 5,678), failures 2, lag 0.2 s")
    assert change_line("mars", failed()).endswith(", Graph 'mars' is unknown.")
