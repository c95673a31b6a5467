"""Link checks: what of a link table's further columns does not fit its links, and the line that mends it."""

from collections.abc import Iterator
from typing import Final

from syncline.capture.install.catalog import Catalog, ColumnState, TableState
from syncline.capture.install.misfit import Misfit
from syncline.capture.install.steps import qualified
from syncline.engine.table_map import Links, TableMap
from syncline.sql import quoted

__all__ = ["filling", "link_problems"]

_PLACES: Final = ("smallint", "integer", "bigint")
_FILLS: Final = {
    "boolean": "'false'",
    "uuid": "gen_random_uuid()",
    "date": "current_date",
    "jsonb": "\"'{}'\"",
    "json": "\"'{}'\"",
    "bytea": "\"''\"",
}
"""Type -> a value for a line of the map, as YAML."""


def link_problems(catalog: Catalog, table_map: TableMap, links: Links) -> Iterator[Misfit]:
    """Yield columns that no link would have a value for, and a position that cannot be kept."""
    table = catalog.tables.get(links.table)
    if table is None or table.kind not in ("table", "partitioned table"):
        return
    if links.position is not None:
        yield from _position(table, table_map, links, links.position)
    filled = {links.owner, links.member, links.position, *links.columns}
    for column in table.columns.values():
        if column.not_null and not column.filled and column.name not in filled:
            yield Misfit(
                f"{table.schema}.{table.name}.{column.name} is NOT NULL without a default, and the links do "
                f"not fill it; add `columns: {{{filling(column)}}}` to {links.table} in "
                "the map, give it a default or allow NULL.",
                table=table_map.name,
                path=("links", links.table),
                statement=f"{_alter(table)} ALTER COLUMN {quoted(column.name)} DROP NOT NULL",
            )


def _position(table: TableState, table_map: TableMap, links: Links, name: str) -> Iterator[Misfit]:
    path = ("links", links.table, "position")
    place = f"{table.schema}.{table.name}.{name}"
    column = table.columns.get(name)
    if column is None:
        yield Misfit(
            f"Column {place} is missing; the links of {table_map.name} have their position in it: add it.",
            table=table_map.name,
            path=path,
            statement=f"{_alter(table)} ADD COLUMN {quoted(name)} integer",
        )
    elif column.type not in _PLACES:
        yield Misfit(
            f"{place} is {column.type}, and a position is a number; change it to integer.",
            table=table_map.name,
            path=path,
            statement=f"{_alter(table)} ALTER COLUMN {quoted(name)} TYPE integer"
            f" USING {quoted(name)}::integer",
        )
    for index in table.indexes:
        columns = [each for each, _ in index.keys]
        # One that is checked at the end of the statement is not `plain`.
        if index.unique and index.plain and name in columns:
            listed = ", ".join(quoted(each) for each in columns)
            yield Misfit(
                f"{place} is unique by {index.name}, row by row, so an array cannot be put in another "
                "order; make it a constraint that is DEFERRABLE: that is checked when all are written.",
                table=table_map.name,
                path=path,
                statement=f"{_alter(table)} ADD UNIQUE ({listed}) DEFERRABLE",
            )


def filling(column: ColumnState) -> str:
    """Return a line of `columns`, as YAML, that fills a column of a link table."""
    return f"{_key(column.name)}: {_fill(column)}"


def _fill(column: ColumnState) -> str:
    if column.type.startswith("timestamp"):
        return "now()"
    if column.type in (*_PLACES, "real", "double precision", "numeric"):
        return "'0'"
    return _FILLS.get(column.type, "\"''\"")


def _key(name: str) -> str:
    return name if name.isidentifier() else f"'{name}'"


def _alter(table: TableState) -> str:
    return f"ALTER TABLE {qualified(table.schema, table.name)}"
