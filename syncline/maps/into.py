"""Into: table maps that write columns of the rows of another one."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from syncline.maps.key_rules import Found
from syncline.maps.table_map import Reference, TableMap

_VARYING: Final = re.compile(
    r"\b(now|random|gen_random_uuid|nextval|(clock|statement|transaction)_timestamp|timeofday)\s*\("
    r"|\b(current_(timestamp|date|time)|localtime(stamp)?)\b",
    re.IGNORECASE,
)
"""What makes another value each time that it is evaluated."""

__all__ = ["completed", "into_faults", "without_row", "written_beside"]


def completed(tables: Sequence[TableMap]) -> tuple[TableMap, ...]:
    """Return the tables with what `into` means: the key names the row, whose stamps are another's."""
    known = {table.name: table for table in tables}
    return tuple(
        table if table.into is None else _completed(table, known.get(table.into)) for table in tables
    )


def _completed(table: TableMap, owner: TableMap | None) -> TableMap:
    table = replace(table, stamped=False)
    if owner is None or _no_owner(owner) or len(table.key) != 1 or table.references:
        return table
    return replace(table, references=(_naming(table, owner),))


def _naming(table: TableMap, owner: TableMap) -> Reference:
    return Reference(column=table.key[0], parent=owner.name, target=owner.id_column)


def without_row(table: TableMap) -> dict[str, str]:
    """Return the columns that a table map with `into` writes -> SQL of their value without a source row."""
    return {each.name: f"({table.otherwise.get(each.name, 'NULL')})::{each.type}" for each in table.columns}


def written_beside(tables: Sequence[TableMap], owner: TableMap) -> dict[str, str]:
    """Return the same for all columns that others write in a table's rows."""
    others = (table for table in tables if table.into == owner.name)
    return {name: value for table in others for name, value in without_row(table).items()}


def into_faults(table: TableMap, tables: Sequence[TableMap]) -> Iterator[Found]:
    """Yield what a table map with `into` cannot have, and columns that two tables would write."""
    if table.into is None:
        if table.otherwise:
            yield ("otherwise",), "rows leave with their source row here", "Leave it out, or add `into:`."
        return
    owner = next((each for each in tables if each.name == table.into), None)
    if owner is None:
        yield ("into",), f"there is no table map {table.into}", "Name a table of this map."
    elif problem := _no_owner(owner):
        yield ("into",), f"{owner.name} {problem}", "Name a table with an id, and a key of one column."
    if len(table.key) != 1:
        yield ("key",), "the key names the row to write into by one column", "Name the column with its key."
    for part in ("id", "links", "vector", "stats", "expressions"):
        if getattr(table, part):
            yield (
                (part,),
                f"columns alone are written into {table.into}",
                f"Say it in {table.into}, or in `columns`.",
            )
    implied = () if owner is None or not table.key else (_naming(table, owner),)
    if table.references not in ((), implied):
        yield (
            ("references",),
            f"columns alone are written into {table.into}, and the key names the row",
            "Leave them out.",
        )
    if not table.columns:
        yield ("into",), f"nothing is written into {table.into}", "Add `columns:`."
    for name, value in table.otherwise.items():
        if _VARYING.search(value):
            yield (
                ("otherwise", name),
                "it would be another value each time",
                "Write a constant, or leave it out: NULL.",
            )
        if all(column.name != name for column in table.columns):
            yield ("otherwise", name), f"{name} is no column of this table map", "Add it to `columns`."
    if owner is not None:
        before = tables[: [each.name for each in tables].index(table.name)]
        taken = _taken(owner, [each for each in before if each.into == owner.name])
        for place, column in enumerate(table.columns):
            if column.name in taken:
                yield (
                    ("columns", place, "name"),
                    f"{column.name} of {owner.name} is written by {taken[column.name]} already",
                    "Leave one of them out: each column has one source.",
                )


def _no_owner(owner: TableMap) -> str | None:
    if owner.into is not None:
        return f"writes into {owner.into} itself"
    if not owner.identified or len(owner.key) != 1:
        return "has no id, or a key of several columns"
    return None


def _taken(owner: TableMap, others: Sequence[TableMap]) -> dict[str, str]:
    """Return the target columns that have a source -> table map."""
    own = [*owner.made_of_key, *owner.expressions, *(column.name for column in owner.columns)]
    own += [reference.target_column for reference in owner.filled]
    own += [stat.column for stat in owner.counters]
    taken = dict.fromkeys(own, owner.name)
    for other in others:
        taken |= dict.fromkeys((column.name for column in other.columns), other.name)
    return taken
