"""Text about a run that the command line and the Web UI share: its provider, what holds it up, caveats.

Names that other systems choose go through `clean`, where their markup would take effect.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from syncline.quoting import counted

if TYPE_CHECKING:
    from datetime import datetime

    from syncline.messages.base import LockHolder
    from syncline.messages.provider_state import ProviderState
    from syncline.messages.sync import NewColumn, OpenWriter, Owed, SyncResult, Withheld

__all__ = [
    "caveats",
    "describe_holder",
    "describe_writer",
    "format_lag",
    "format_seconds",
    "format_since",
    "keys_or_indexes",
    "new_column",
    "owed_sentences",
    "provider_origin",
    "runs_in_a_row",
    "withheld",
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
    """Return a sentence for each rescan, key comparison, change of the map, new column and unknown.

    And for what a first load has put off, or could not.
    """
    return (
        *_again(result),
        *result.map_changes,
        *map(new_column, result.new_columns),
        *result.unknown,
        *map(withheld, result.withheld),
        *owed_sentences(result.owed),
        *result.load_notes,
    )


def withheld(removal: "Withheld") -> str:
    """Return a sentence about rows that a cycle does not remove unasked, and what removes them."""
    return (
        f"{removal.table}: {removal.rows:,} of {removal.of:,} rows are gone from the write-db "
        f"({removal.reason}). "
        "They stay: that is more than SYNCLINE_REMOVAL_SHARE lets a run remove. "
        "If it is right, `syncline verify --repair` removes them."
    )


def owed_sentences(owed: "Sequence[Owed]") -> tuple[str, ...]:
    """Return a sentence for each object that could not be put back, and one for all others."""
    refused = [
        f"{each.kind.capitalize()} {each.name} of {each.table} "
        f"{'does not hold for all rows' if each.not_valid else 'is not back'} after a first load: "
        f"{(each.problem or '').rstrip('.')}. A cycle tries again; by hand: {each.statement}"
        for each in owed
        if each.problem is not None
    ]
    waiting = [each for each in owed if each.problem is None]
    if not waiting:
        return tuple(refused)
    kinds = [(name, [each.name for each in waiting if each.kind == kind]) for kind, name in _OWED.items()]
    named = "; ".join(f"{name} {', '.join(names)}" for name, names in kinds if names)
    return (*refused, f"A first load has put off, until its rows are there: {named}.")


def keys_or_indexes(number: int) -> str:
    """Return how many foreign keys and indexes there are."""
    return "1 key or index" if number == 1 else f"{number:,} keys or indexes"


_OWED: Final = {"counts": "counts of", "index": "indexes", "foreign key": "foreign keys"}


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
    back = []
    if result.rewound_to is not None:
        back.append(
            f"The write-db may lack its last transactions ({result.rescan_reason}): what was read since "
            f"{result.rewound_to:%Y-%m-%d %H:%M:%S}Z was read again, "
            f"{counted(result.rewound_rows, 'row')} by key."
        )
    reread = {table.table: table.reread for table in result.tables if table.reread}
    found = [*back, *(f"{name}: every row was read again, since {why}." for name, why in reread.items())]
    for why in dict.fromkeys(compared.values()):
        names = ", ".join(name for name, other in compared.items() if other == why)
        found.append(f"{names}: rows that the write-db no longer has leave the graph-db, since {why}.")
    return found
