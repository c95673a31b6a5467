"""Caveats of a cycle's result, in sentences: rescans, key comparisons, and unknowns of the write-db."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncline.messages.sync import SyncResult

__all__ = ["caveats", "format_lag"]


def caveats(result: "SyncResult") -> tuple[str, ...]:
    """Return one sentence for each rescan, key comparison, change of the map and unknown of the result."""
    return (*_again(result), *result.map_changes, *result.unknown)


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


def format_lag(result: "SyncResult") -> str:
    """Return the lag as text for operators."""
    return f"{result.lag_seconds:.1f} s" if result.lag_known else "unknown"
