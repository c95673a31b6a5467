"""Marks: rows that leave the write-db stay in the target with columns set, until they return."""

from syncline.engine.render.fragments import commas, row_id
from syncline.engine.render.kept import keeps, referred, target_key
from syncline.engine.render.points import queue
from syncline.engine.render.stats import counting_columns, touched
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.sql import literal, quoted

__all__ = ["aside", "landed", "marked_aside", "marking", "stubs_aside"]


def landed(schema_map: SchemaMap, table: TableMap, stage: str, here: str) -> str | None:
    """Return what follows the merge of a batch, whose rows have a source row.

    `here` is the condition that target row `t` is staged row `s`.
    """
    if not keeps(schema_map, table):
        return None
    counted = counting_columns(schema_map, table.target)
    returned = dict.fromkeys([*table.target_key, *counted])
    return sql(
        "kept_landed",
        stage=stage,
        table=literal(table.name),
        row_id=row_id(table),
        target=quoted(table.target),
        here=here,
        returned=commas([f"t.{quoted(name)}" for name in returned]),
        queue=queue(table),
        touched=touched(schema_map, table.target, [("changed c", counted)]),
    )


def aside(table: TableMap) -> str:
    """Return under which name rows that stay stand among those to remove."""
    return f"{table.name}/kept"


def marking(schema_map: SchemaMap, table: TableMap, gone_rows: str, same_row: str) -> str:
    """Return the statement that marks the rows of a table among those to remove, `gone_rows`."""
    counted = counting_columns(schema_map, table.target)
    types = {each.name: each.type for each in table.columns}
    returned = dict.fromkeys([*table.target_key, *counted])
    return sql(
        "mark_rows",
        target=quoted(table.target),
        table=literal(table.name),
        columns=commas([quoted(name) for name in table.marked]),
        values=commas([f"({value})::{types[name]}" for name, value in table.marked.items()]),
        gone_rows=gone_rows,
        same_row=same_row,
        returned=commas([f"t.{quoted(name)}" for name in returned]),
        target_key=target_key(table, "c"),
        queue=queue(table),
        touched=touched(schema_map, table.target, [("changed c", counted)]),
    )


def marked_aside(table: TableMap) -> str:
    """Return the statement that sets the marked rows among those to remove aside."""
    return sql("marked_aside", table=literal(table.name), aside=literal(aside(table)))


def stubs_aside(schema_map: SchemaMap, table: TableMap) -> str:
    """Return the statement that sets the stubs among those to remove aside that rows still refer to."""
    target_id = f"k.target_key[1]::{table.id_type.native}"
    return sql(
        "stubs_aside",
        table=literal(table.name),
        aside=literal(aside(table)),
        referred=referred(schema_map, table, target_id),
    )
