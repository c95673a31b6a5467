"""Page of screens: what `syncline status` shows of the same graphs on terminals of different widths."""

import io
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from rich.console import Console

from syncline.cli.status import status_table
from syncline.operator.graph_state import (
    Finding,
    GraphHealth,
    GraphNumbers,
    VectorDelay,
    judge,
    numbers_findings,
)
from syncline.temporal.findings import GraphSchedule
from syncline.temporal.overview import GraphOverview
from syncline.temporal.runs import ListedRun

__all__ = ["WIDTHS", "graphs", "page", "screen"]

WIDTHS: Final = (80, 100, 120, 200)
_HEAD: Final = """# Screens

What `syncline status` shows of the same eight graphs on terminals of 80, 100, 120 and 200 columns. Narrow ones leave columns out, and
name them; where not even that fits, each graph is listed field by field. The graph, its state and the reason with the next command always
stay. Red comes before yellow before green. Written to a file or a pipe, it is the whole table, plain.
"""
_NOW: Final = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)


def graphs() -> Sequence[GraphOverview]:
    """Return one graph of each kind that an operator meets, as `status` sorts them."""
    delay = {"since": _NOW, "next_retry_at": _NOW + timedelta(minutes=4), "collection": "nodes"}
    limited = VectorDelay(
        **delay, error="EmbeddingUnavailable: https://embed.example answered HTTP 429: slow down."
    )
    wrong_key = VectorDelay(
        **delay, error="EmbeddingRejected: https://embed.example answered HTTP 401: wrong key."
    )
    plugin = Finding.of(
        GraphHealth.FALLBACK, "no worker has its provider: the built-in engine syncs it", "syncline providers"
    )
    paused = Finding.of(
        GraphHealth.PAUSED, "paused by an operator: schema change (anna)", "syncline schedule resume staging"
    )
    found = [
        _graph("billing", {"refused_rows": 300, "pending_points": 0}, failures=300),
        _graph("research", {"delays": (wrong_key,), "pending_points": 1003}),
        _graph("world-fallback", {}, plugin, provider="builtin-engine"),
        _graph("catalogue", {"delays": (limited,), "pending_points": 87}),
        _graph(
            "orders",
            {
                "held_back_by": "an open transaction of the write-db (pid 4711, application import of database shop, open for 12 min)"
            },
        ),
        _graph("people", {"parked": 12}),
        _graph("staging", {}, paused),
        _graph("world", {}, rows=70_705),
    ]
    return sorted(found, key=lambda one: one.urgency)


def _graph(
    slug: str,
    numbers: dict[str, object],
    *findings: Finding,
    provider: str = "default",
    rows: int = 0,
    failures: int = 0,
) -> GraphOverview:
    told = GraphNumbers.model_validate({"graph": slug, **numbers})
    standing, level, all_found = judge([*findings, *numbers_findings(told)], running=False, ran=True)
    run = ListedRun(
        workflow_id=f"sync-graph/{slug}", run_id="1", graph=slug, started_by="schedule", status="completed",
        started_at=_NOW, ended_at=_NOW + timedelta(seconds=0.4), seconds=0.4, provider=provider, rows=rows, failures=failures,
    )  # fmt: skip
    schedule = GraphSchedule(
        spec="every 60 s", paused=standing == "paused", next_at=_NOW + timedelta(minutes=1)
    )
    return GraphOverview(
        graph=slug,
        standing=standing,
        level=level,
        findings=tuple(all_found),
        last_run=run,
        schedule=schedule,
        numbers=told,
    )


def screen(width: int) -> str:
    """Return the lines of a terminal of this width, without colours."""
    written = io.StringIO()
    Console(file=written, width=width, force_terminal=True, color_system=None).print(status_table(graphs()))
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def page() -> str:
    """Return the page."""
    parts = [f"## {width} columns\n\n```\n{screen(width)}\n```\n" for width in WIDTHS]
    return "\n".join([_HEAD, *parts])


if __name__ == "__main__":
    sys.stdout.write(page())
