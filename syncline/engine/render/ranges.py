"""Ranges: which loads several lanes may read, and what rows of them may not have seen of each other."""

from collections.abc import Iterator

from syncline.engine.render.fragments import commas
from syncline.engine.render.identity import Identity
from syncline.engine.render.kept import keeps
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.sql import literal, quoted

__all__ = ["RangeStatements"]


class RangeStatements:
    """The statements of one table's ranges."""

    def __init__(self, schema_map: SchemaMap, table: TableMap, stage: str, here: str) -> None:
        """`here` is the condition that target row `t` is staged row `s`."""
        self.one_lane = next(_reasons(schema_map, table), None)
        """Why the table is loaded by one lane; None if several may: a clause."""
        referring = [reference.parent for reference in table.references]
        referring += [links.parent for links in table.links]
        self.awaited: str | None = None
        """The statement that stages rows which rows of the same table wait for; None if none does."""
        if table.identified and table.name in referring:
            self.awaited = sql(
                "ranges_awaited",
                stage=stage,
                table=literal(table.name),
                columns=commas([quoted(name) for name in table.key]),
                parts=commas(Identity(schema_map, table).split("a.waits_for_key")),
            )
        self.missing = sql("ranges_missing", stage=stage, target=quoted(table.target), here=here)
        """The statement that leaves only those in the stage that are there."""


def _reasons(schema_map: SchemaMap, table: TableMap) -> Iterator[str]:
    """Yield why two batches of the table may not be applied at the same time, though all rows are new."""
    if table.into is not None:
        yield f"its rows are columns of rows that {table.into} makes"
    if table.id is not None and table.id.natural:
        yield "its rows are found by their natural key"
    if keeps(schema_map, table) or any(reference.stub is not None for reference in table.references):
        yield "stubs or rows that stay after a delete are looked up in its batches"
    if any(reference.by is not None and reference.parent == table.name for reference in table.references):
        yield "its rows refer to each other by a value"
