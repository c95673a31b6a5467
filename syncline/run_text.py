"""Text about a run that the command line and the Web UI share: its provider, what holds it up, caveats.

Names that other systems choose go through `clean`, where their markup would take effect.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from syncline.quoting import counted

if TYPE_CHECKING:
    from datetime import datetime

    from syncline.messages.base import LockHolder
    from syncline.messages.provider_state import ProviderState
    from syncline.messages.sync import NewColumn, OpenWriter, SyncResult

__all__ = [
    "caveats",
    "describe_holder",
    "describe_writer",
    "format_lag",
    "format_seconds",
    "format_since",
    "new_column",
    "provider_origin",
    "runs_in_a_row",
]

Clean = Callable[[str], str]


def format_seconds(seconds: float) -> str:
    """Return a duration as one reads it: `0.4 s`, `12 s`, `3 min`, `5 h`, `2 d`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def format_lag(result: "SyncResult") -> str:
    """Return the lag as text for operators, with what is promised, if anything."""
    lag = f"{result.lag_seconds:.1f} s" if result.lag_known else "unknown"
    if result.max_lag_seconds is None:
        return lag
    return f"{lag} ({'more than the' if result.late else 'of'} {result.max_lag_seconds} s promised)"


def format_since(since: "datetime | None") -> str:
    """Return ` since …` to the second; nothing if it is not known."""
    return "" if since is None else f" since {since:%Y-%m-%d %H:%M:%S} UTC"


def runs_in_a_row(since: "datetime | None", runs: int) -> str:
    """Return since when, and for how many runs, something has lasted."""
    return f"{format_since(since)}, {counted(runs, 'run')} in a row"


def provider_origin(provider: "ProviderState", *, code: Clean = str) -> str:
    """Return the distribution of the provider, and the worker that serves it."""
    origin = f" (from {provider.distribution})" if provider.distribution else ""
    return origin + (f", in worker {code(provider.worker)}" if provider.worker else "")


def describe_writer(writer: "OpenWriter", *, clean: Clean = str) -> str:
    """Return a sentence about the oldest open writing transaction."""
    age = "an unknown time" if writer.age_seconds is None else format_seconds(writer.age_seconds)
    name, database = clean(writer.application_name or "unnamed"), clean(writer.database or "unknown")
    return (
        f"The oldest open writing transaction is {age} old (application {name}, database {database}): "
        "changes written since it began wait for it."
    )


def describe_holder(holder: "LockHolder", *, clean: Clean = str, code: Clean = str) -> str:
    """Return which run or session holds the graph, without a full stop."""
    session = f"pid {holder.pid} of the graph-db, role {clean(holder.role or 'unknown')}"
    if holder.run_id is None:
        name = clean(holder.application_name or "unnamed")
        return f"The graph is held by {session} (application {name})"
    since = format_since(holder.held_since)
    return f"The graph is held by attempt {holder.attempt} of run {code(holder.run_id)}{since} ({session})"


def caveats(result: "SyncResult") -> tuple[str, ...]:
    """Return a sentence for each rescan, key comparison, change of the map, new column and unknown."""
    return (*_again(result), *result.map_changes, *map(new_column, result.new_columns), *result.unknown)


def new_column(column: "NewColumn") -> str:
    """Return a sentence about a column that waits for a decision, and what decides."""
    why = f" {column.problem}" if column.problem else ""
    what = f"{column.source}.{column.column} ({column.type})"
    return f"{what} was added in the write-db and is not synced.{why} {column.fix}".rstrip()


def _again(result: "SyncResult") -> list[str]:
    compared = {table.table: table.compared for table in result.tables if table.compared}
    if result.rescanned:
        gone = (
            "Rows that the write-db no longer has leave the graph-db."
            if compared
            else "Rows deleted while capture was not installed are still in the graph-db; "
            "`syncline verify --repair` removes them."
        )
        of = result.rescan_reason or "another write-db or a later time"
        return [f"Every row was read again: the cursors do not match this write-db ({of}). {gone}"]
    reread = {table.table: table.reread for table in result.tables if table.reread}
    found = [f"{name}: every row was read again, since {why}." for name, why in reread.items()]
    for why in dict.fromkeys(compared.values()):
        names = ", ".join(name for name, other in compared.items() if other == why)
        found.append(f"{names}: rows that the write-db no longer has leave the graph-db, since {why}.")
    return found
