"""Marks: rows that leave the write-db stay in the target with columns set, and are rows like others once they return."""

from collections.abc import Iterator

from syncline.engine.render.fragments import commas, queue, row_id
from syncline.engine.render.kept import keeps, target_key
from syncline.engine.render.stats import counting_columns, touched
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.sql import literal, quoted

__all__ = ["aside", "landed", "marking"]


def landed(schema_map: SchemaMap, table: TableMap, stage: str, here: str) -> str | None:
    """Return what follows the merge of a batch: its rows have a source row; `here`: staged `s` is target row `t`."""
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
    """Return under which name rows that were marked stand among those to remove."""
    return f"{table.name}/marked"


def marking(schema_map: SchemaMap, table: TableMap, same_row: str) -> Iterator[str]:
    """Yield the statements that mark the rows of a table among those to remove, and set them aside."""
    counted = counting_columns(schema_map, table.target)
    types = {each.name: each.type for each in table.columns}
    returned = dict.fromkeys([*table.target_key, *counted])
    yield sql(
        "mark_rows",
        target=quoted(table.target),
        table=literal(table.name),
        columns=commas([quoted(name) for name in table.marked]),
        values=commas([f"({value})::{types[name]}" for name, value in table.marked.items()]),
        same_row=same_row,
        returned=commas([f"t.{quoted(name)}" for name in returned]),
        target_key=target_key(table, "c"),
        queue=queue(table),
        touched=touched(schema_map, table.target, [("changed c", counted)]),
    )
    yield sql("marked_aside", table=literal(table.name), aside=literal(aside(table)))
