"""Denormalised counts: notes the rows whose counts a statement may have changed (`recount` makes them)."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from syncline.engine.render.fragments import column as column_name
from syncline.engine.render.fragments import commas
from syncline.engine.render.kept import stubbing
from syncline.engine.table_map import SchemaMap, Stat, TableMap
from syncline.engine.template import sql
from syncline.maps.key_types import Kind
from syncline.sql import literal, quoted

__all__ = [
    "all_uuids",
    "counting_columns",
    "first_counts",
    "merged",
    "new_lines",
    "noted_in",
    "stats_label",
    "stubs_label",
    "stubs_noted",
    "touched",
]

_STUBS = "/stubs"


def counting_columns(schema_map: SchemaMap, counted: str) -> list[str]:
    """Return the columns by which rows of a target or link table are counted, each once."""
    return list(dict.fromkeys(column for _, column in _counters(schema_map, counted)))


def touched(
    schema_map: SchemaMap,
    counted: str,
    rows: Iterable[tuple[str, Sequence[str]]],
    *,
    name: str = "touched",
    counts: bool = True,
) -> str:
    """Return the part of a statement that notes rows whose counts change; empty if `counted` is not counted.

    `rows` are FROM items with row alias `c`, each with its columns of `counted`. Without `counts`, only stubs
    are noted, which a row refers to.
    """
    as_ = _noted_as(schema_map)
    selects = [
        f"SELECT '{literal(label)}', c.{quoted(column)}{as_} FROM {item}"
        f" WHERE c.{quoted(column)} IS NOT NULL{_concerned(schema_map, label)}"
        for item, columns in rows
        for label, column in _counters(schema_map, counted)
        if column in columns and (counts or label.endswith(_STUBS))
    ]
    return _noted(schema_map, name, selects)


def merged(
    schema_map: SchemaMap, counted: str, *, same: str, before: str, written: Collection[str], inserts: bool
) -> str:
    """Return the part of a merge that notes rows whose counts change, like `touched`.

    `same` is the condition that row `o` of the target was row `c` before, `before` the FROM item for such
    rows as `c`. An updated row is counted by the same rows as before unless a column that the merge has
    `written` names another: only where more than its being there is counted, they are noted anyway.
    """
    as_ = _noted_as(schema_map)
    counters = list(_counters(schema_map, counted))
    plain = [pair for pair in counters if _counts_rows(schema_map, pair[0])]
    selects = [
        f"SELECT '{literal(label)}', c.{quoted(column)}{as_} FROM {item}"
        f" WHERE c.{quoted(column)} IS NOT NULL{_concerned(schema_map, label)}"
        for item, noted in (
            ("inserted c", counters if inserts else []),
            *((item, [pair for pair in counters if pair not in plain]) for item in ("updated c", before)),
        )
        for label, column in noted
    ]
    moving = [(label, column) for label, column in plain if column in written]
    if moving:
        columns = list(dict.fromkeys(column for _, column in moving))
        ends = [f"('{literal(label)}', {row}.{quoted(name)}{as_})" for label, name in moving for row in "oc"]
        sides = {row: commas([f"{row}.{quoted(name)}" for name in columns]) for row in "oc"}
        moved = sql(
            "moved",
            target=quoted(counted),
            same=same,
            ends=commas(ends),
            before=sides["o"],
            after=sides["c"],
        )
        selects.append(moved.strip())
    return _noted(schema_map, "touched", selects)


def stubs_noted(schema_map: SchemaMap, table: TableMap) -> str:
    """Return the part of a statement that notes rows `changed` as stubs, which somebody has to refer to."""
    row = f"c.{column_name(table.id_column)}{_noted_as(schema_map)}"
    return _noted(schema_map, "made", [f"SELECT '{literal(stubs_label(table.name))}', {row} FROM changed c"])


def new_lines(schema_map: SchemaMap, table: TableMap, *, updates: bool = False) -> str:
    """Return the part of a merge that notes rows which need a new stats row.

    `updates`: it may have updated rows, which usually have theirs.
    """
    if table.stats is None or table.counters:
        return ""
    row = f"c.{column_name(table.id_column)}"
    noted = f"SELECT '{literal(table.name)}', {row}{_noted_as(schema_map)} FROM changed c"
    if updates:
        place, owner = table.stats_place
        noted += sql("without_line", stats=quoted(place), owner=quoted(owner), row=row).rstrip()
    return _noted(schema_map, "lines", [noted])


def first_counts(table: TableMap) -> dict[str, str]:
    """Return the counts that stand in the row -> expression for their value in a new row: that of no rows."""
    return {
        stat.column: sql("count_of_none", value=stat.value, counted=quoted(stat.counted)).strip()
        for stat in table.counters
    }


def _noted_as(schema_map: SchemaMap) -> str:
    """Return the cast of an id to how it is noted: as it is if all counted rows have uuids, else as text."""
    return "" if all_uuids(schema_map) else "::text"


def all_uuids(schema_map: SchemaMap) -> bool:
    """Return whether the ids of all rows that are noted are uuids."""
    return all(
        table.id_type.kind is Kind.UUID
        for table in schema_map
        if table.stats is not None or stubbing(schema_map, table)
    )


def _noted(schema_map: SchemaMap, name: str, selects: list[str]) -> str:
    if not selects:
        return ""
    place = f"pg_temp.{noted_in(schema_map)}"
    return f", {name} AS (INSERT INTO {place} (counted, id) {' UNION ALL '.join(selects)})"


def noted_in(schema_map: SchemaMap) -> str:
    """Return the temporary table for noted rows; a pooled connection keeps that of another map."""
    return "sync_touched" if all_uuids(schema_map) else "sync_touched_text"


def _counters(schema_map: SchemaMap, counted: str) -> Iterator[tuple[str, str]]:
    for table in schema_map:
        for stat in table.stats.columns if table.stats else ():
            if stat.counted == counted:
                for column in stat.by:
                    yield stats_label(table, stat), column
    for child in schema_map:
        for reference in child.references if child.target == counted else ():
            if reference.stub is not None:
                yield stubs_label(reference.parent), reference.target_column


def _counts_rows(schema_map: SchemaMap, label: str) -> bool:
    """Return whether all that is counted under a label is how many rows there are."""
    return all(
        stat.of_rows
        for table in schema_map
        for stat in (table.stats.columns if table.stats else ())
        if stats_label(table, stat) == label
    )


def _concerned(schema_map: SchemaMap, label: str) -> str:
    """Return the further condition that rows under a label are noted: for stubs, that there is one."""
    parents = [table.name for table in schema_map if stubs_label(table.name) == label]
    return sql("any_kept", table=literal(parents[0])).rstrip() if parents else ""


def stubs_label(parent: str) -> str:
    """Return the label under which rows are noted that lose, or get, a row that refers to them."""
    return f"{parent}{_STUBS}"


def stats_label(table: TableMap, stat: Stat) -> str:
    """Return the label under which rows of a table are noted whose count of other rows may change."""
    return f"{table.name}/{stat.counted}"
