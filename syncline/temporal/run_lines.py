"""What Temporal says of a graph's runs, as lines by time: for those who cannot reach the workers' logs."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from syncline.messages.base import Message
from syncline.run_text import format_seconds
from syncline.temporal.runs import RunEntry

__all__ = ["LogLine", "lines_of"]


class LogLine(Message):
    """One line about a graph."""

    at: datetime
    source: str
    """`worker` (a line of its log) or `run` (an event of a run, by Temporal)."""
    text: str


def lines_of(entries: Sequence[RunEntry], *, since: datetime) -> Sequence[LogLine]:
    """Return the lines of runs, the oldest first, from `since` on."""
    found = [line for entry in entries for line in _lines(entry)]
    return sorted((line for line in found if line.at >= since), key=lambda line: line.at)


def _lines(entry: RunEntry) -> Iterator[LogLine]:
    run = entry.run
    started = f"run started by {run.started_by}: {run.workflow_id} {run.run_id}"
    yield LogLine(at=run.started_at, source="run", text=started)
    if run.ended_at is None:
        if entry.stall is not None:
            text = f"open run does not continue: {entry.stall.problem} {entry.stall.fix}"
            yield LogLine(at=datetime.now(UTC), source="run", text=text)
        return
    counts = "" if run.rows is None else f", {run.rows:,} rows, {run.failures or 0:,} failures"
    provider = "" if run.provider is None else f", by {run.provider}"
    cycle = "" if entry.cycle is None else f", cycle {entry.cycle}"
    text = f"run {run.status} after {format_seconds(run.seconds)}{cycle}{provider}{counts}"
    yield LogLine(at=run.ended_at, source="run", text=f"{text}: {entry.error}" if entry.error else text)
