"""Checks of kept rows: whether they can be listed, and whether a stub has all that its target wants."""

from collections.abc import Iterator
from typing import Final

from syncline.capture.install.catalog import Catalog
from syncline.capture.install.link_checks import filling
from syncline.capture.install.misfit import Misfit
from syncline.capture.install.steps import qualified
from syncline.engine.render.kept import keeps
from syncline.engine.table_map import Reference, SchemaMap, TableMap
from syncline.maps.into import written_beside
from syncline.sql import quoted

__all__ = ["kept_problems"]

_LIST: Final = "sync_kept"


def kept_problems(catalog: Catalog, schema_map: SchemaMap, table_map: TableMap) -> Iterator[Misfit]:
    """Yield what keeps rows of a table from being kept without a source row, or its stubs from being made."""
    stubs = [reference for reference in table_map.references if reference.stub is not None]
    if keeps(schema_map, table_map) and catalog.lacks(_LIST):
        yield Misfit(
            f"Table {catalog.schema}.{_LIST} is missing, which rows of {table_map.name} without a source row "
            "need: run `syncline migrate`.",
            table=table_map.name,
            path=("marked",) if table_map.marked else (),
        )
    for reference in stubs:
        yield from _unfilled(catalog, schema_map, table_map, reference)


def _unfilled(
    catalog: Catalog, schema_map: SchemaMap, table_map: TableMap, reference: Reference
) -> Iterator[Misfit]:
    parent = schema_map[reference.parent]
    table = catalog.tables.get(parent.name)
    if table is None:
        return
    filled = {
        *(parent.id_column, parent.key_column, reference.by, *(reference.stub or {})),
        *(parent.own_parts if reference.by is None else ()),
        *(stat.column for stat in parent.counters),
        *written_beside(schema_map.tables, parent),
        *(("sync_version", "sync_run") if parent.stamps else ()),
    }
    known = {column.name for column in parent.columns}
    for column in table.columns.values():
        if column.not_null and not column.filled and column.name not in filled:
            say = f"add `{filling(column)}` to its `stub`" if column.name in known else "give it a default"
            yield Misfit(
                f"{table.schema}.{table.name}.{column.name} is NOT NULL without a default, and a stub that "
                f"{table_map.name} makes does not fill it; {say} or allow NULL.",
                table=table_map.name,
                path=("references", reference.column, "stub"),
                statement=f"ALTER TABLE {qualified(table.schema, table.name)}"
                f" ALTER COLUMN {quoted(column.name)} DROP NOT NULL",
            )
