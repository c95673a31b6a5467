"""Rules of marks: what a table map that keeps rows without a source row cannot have."""

from collections.abc import Iterator, Sequence

from syncline.maps.key_rules import Found
from syncline.maps.table_map import TableMap

__all__ = ["mark_faults"]


def mark_faults(table: TableMap, tables: Sequence[TableMap]) -> Iterator[Found]:
    """Yield marks that could not be set, or that nothing would take back."""
    if not table.marked:
        return
    if table.into is not None:
        yield (
            ("marked",),
            f"the rows are those of {table.into}",
            f"Mark them there, or say by `otherwise` what {table.into} has without a source row.",
        )
        return
    if any(links.rejected_by == table.name for other in tables for links in other.links):
        yield (
            ("marked",),
            "each of its rows suppresses a link, so one that was deleted cannot stay",
            "Leave it out.",
        )
    known = {column.name for column in table.columns}
    named = {
        reference.by for other in tables for reference in other.references if reference.parent == table.name
    }
    for name in table.marked:
        if name not in known:
            yield (
                ("marked", name),
                f"{name} is no column of this table map, so nothing would take the mark back",
                "Add it to `columns`, with what a row has that is there (`value: 'NULL'`, for example).",
            )
        elif name in named:
            yield (
                ("marked", name),
                f"other rows refer to {table.name} by {name}",
                "Mark another column.",
            )
