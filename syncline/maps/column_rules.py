"""Rules of columns: what no column can be made of."""

from collections.abc import Iterator

from syncline.maps.columns import Column
from syncline.maps.key_rules import Found
from syncline.maps.key_types import key_type
from syncline.maps.table_map import TableMap

__all__ = ["column_faults", "source_paths"]


def column_faults(table: TableMap) -> Iterator[Found]:
    """Yield columns that contradict themselves, or what else is said about their sources."""
    for place, column in enumerate(table.columns):
        if column.value is None and len(column.source) > 1:
            yield (
                ("columns", place, "source"),
                f"{column.name} is made of {len(column.source)} columns, and nothing says how",
                "Add `value:` with SQL such as s.first || s.last, or name one of them.",
            )
        if not column.copied and column.name in table.expressions:
            yield (
                ("expressions", column.name),
                f"'{column.name}' is made twice: `columns` says what of",
                "Leave one of them out.",
            )
        optional = {reference.column for reference in table.optional}
        if column.value is None and optional & column.source.keys():
            yield (
                ("columns", place, "source"),
                f"{column.sources[0]} is an optional reference, which is NULL while its parent is missing",
                "Make the reference required, or leave this out.",
            )
        yield from _types(table, column, ("columns", place, "source"))
    for place, column in enumerate(table.source_only):
        if not column.copied:
            yield (
                ("source_only", place, "value" if column.value is not None else "source"),
                f"{column.name} is a column of the source, of which nothing is made here",
                "Put it into `columns`, or leave this out.",
            )


def source_paths(table: TableMap) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Yield the source columns that columns are made of, each with where it is named."""
    for field, columns in (("source_only", table.source_only), ("columns", table.columns)):
        for place, column in enumerate(columns):
            for name in column.sources:
                yield name, (field, place, "name" if column.copied else "source")


def _types(table: TableMap, column: Column, path: tuple[str | int, ...]) -> Iterator[Found]:
    if column.copied:
        return
    arrays = {links.source: table.types.get(links.source, "text[]") for links in table.links}
    for name, type_ in column.typed(given=True).items():
        if not type_.strip():
            yield path, f"the type of {name} is empty", "Write its type, or leave it out."
        elif name in table.key_texts:
            known = table.key_texts[name]
            if key_type(type_) != known:
                yield (
                    path,
                    f"{name} is {known.name}, as a column of the key or a reference, and {type_} here",
                    f"Leave the type out, or give {name} another one in `types`.",
                )
        elif (elsewhere := arrays.get(name, table.staged[name])).lower() != type_.lower():
            yield (
                path,
                f"{name} is {elsewhere} elsewhere in {table.name}, and {type_} here",
                "Give it one type: that of the column in the write-db.",
            )
