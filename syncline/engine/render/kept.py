"""Kept rows: rows of a target that have no source row, and are listed for it: marked ones, and stubs."""

from collections.abc import Sequence
from typing import Final

from syncline.engine.render.fragments import column, commas
from syncline.engine.render.identity import is_listed
from syncline.engine.table_map import Reference, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.sql import literal, quoted

__all__ = [
    "counted_rows",
    "is_kept",
    "keeps",
    "live",
    "referred",
    "stubbing",
    "target_key",
    "with_source",
    "without_kept",
]

_LIST: Final = "sync_kept"


def keeps(schema_map: SchemaMap, table: TableMap) -> bool:
    """Return whether a table's target may have rows without a source row."""
    return bool(table.marked) or bool(stubbing(schema_map, table))


def stubbing(schema_map: SchemaMap, table: TableMap) -> list[tuple[TableMap, Reference]]:
    """Return the references that make stubs of a table, with their tables."""
    return [
        (child, reference)
        for child in schema_map
        for reference in child.references
        if reference.parent == table.name and reference.stub is not None
    ]


def referred(schema_map: SchemaMap, table: TableMap, target_id: str) -> str:
    """Return the condition that a row refers to this target id, by a reference that makes stubs."""
    rows = [
        f"EXISTS (SELECT FROM {quoted(child.name)} r WHERE r.{quoted(reference.target_column)} = {target_id})"
        for child, reference in stubbing(schema_map, table)
    ]
    return f"({' OR '.join(rows)})"


def target_key(table: TableMap, row: str) -> str:
    """Return the primary key of a target row as the list has it."""
    return f"ARRAY[{commas([f'{row}.{column(name)}::text' for name in table.target_key])}]"


def is_kept(table: TableMap, row: str, *, schema: str | None = None) -> str:
    """Return the condition that a target row is in the list, that of a schema if one is named."""
    place = _LIST if schema is None else f"{quoted(schema)}.{_LIST}"
    return sql("is_kept", list=place, table=literal(table.name), target_key=target_key(table, row)).strip()


def with_source(table: TableMap, place: str, *, schema: str | None = None) -> str:
    """Return the rows of a target that are not in the list, as what stands before an alias in FROM."""
    return sql("with_source", target=place, is_kept=is_kept(table, "t", schema=schema)).strip()


def without_kept(place: str, ends: Sequence[tuple[TableMap, str]], *, schema: str) -> str:
    """Return the rows of a table that hang on no listed row, as what stands before an alias in FROM.

    `ends`: the tables that may have such rows, with the columns that hold their ids.
    """
    conditions = [
        sql(
            "is_kept",
            list=f"{quoted(schema)}.{_LIST}",
            table=literal(table.name),
            target_key=f"ARRAY[t.{quoted(name)}::text]",
        ).strip()
        for table, name in ends
    ]
    return sql("ours", target=place, is_ours=" AND ".join(f"NOT {each}" for each in conditions)).strip()


def live(schema_map: SchemaMap, table: TableMap) -> str | None:
    """Return the rows of a target that have a source row, as what stands before alias `t` in FROM.

    None where all rows have one: statements read the target itself then.
    """
    if not keeps(schema_map, table):
        return None
    conditions = [*([is_listed(table, "t")] if table.listed else []), f"NOT {is_kept(table, 't')}"]
    return sql("ours", target=quoted(table.name), is_ours=" AND ".join(conditions)).strip()


def counted_rows(schema_map: SchemaMap, counted: str) -> str:
    """Return the rows of a target or link table that are counted, as what stands before alias `c` in FROM."""
    table = next((each for each in schema_map if each.name == counted and keeps(schema_map, each)), None)
    if table is None:
        return quoted(counted)
    return with_source(table, quoted(counted))
