"""Rules of counts: where they stand, and what may not depend on those in the row."""

import re
from collections.abc import Iterator

from syncline.maps.key_rules import Found
from syncline.maps.table_map import Stats, TableMap

__all__ = ["counter_faults"]


def counter_faults(table: TableMap) -> Iterator[Found]:
    """Yield counts without a place, or whose place in the row is taken."""
    if table.stats is None:
        return
    yield from _place(table.name, table.stats)
    taken = {
        *table.made_of_key,
        *(column.name for column in table.columns),
        *(reference.target_column for reference in table.filled),
        *table.expressions,
    }
    for position, stat in enumerate(table.counters):
        if stat.column in taken:
            yield (
                ("stats", "columns", position, "column"),
                f"{stat.column} is written from the source row already",
                "Use a column of its own for the count, or leave the other out.",
            )
        yield from _projected(table, stat.column)


def _place(name: str, stats: Stats) -> Iterator[Found]:
    if stats.table == name:
        yield (
            ("stats", "table"),
            "counts in the row itself name no table",
            "Leave `table` and `owner` out.",
        )
    elif stats.table is not None and stats.owner is None:
        yield ("stats", "owner"), "'owner' is missing", "Add `owner:` with its column of the row's id."
    elif stats.table is None and stats.owner is not None:
        yield (
            ("stats", "owner"),
            "counts in the row itself have no owner",
            "Leave it out, or add `table:`.",
        )


def _projected(table: TableMap, column: str) -> Iterator[Found]:
    vector = table.vector
    if vector is None:
        return
    written = {("text",): vector.text} | {("payload", name): value for name, value in vector.payload.items()}
    for path, value in written.items():
        if re.search(rf'\bt\.("{re.escape(column)}"|{re.escape(column)}(?!\w))', value):
            yield (
                ("vector", *path),
                f"a count that changes writes no point, so t.{column} would be out of date there",
                "Leave it out, and read the count from the row.",
            )
