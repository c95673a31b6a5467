"""What became of a table or column that a map names, renamed, dropped or changed, with the way out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncline.engine.known_columns import KnownSide, TableColumns, columns_of
from syncline.engine.table_map import TableMap
from syncline.sql import quoted

if TYPE_CHECKING:
    from syncline.capture.install.catalog import Catalog, TableState
    from syncline.capture.install.misfit import Misfit

__all__ = ["Looked", "recognised"]


@dataclass(frozen=True, kw_only=True)
class Looked:
    """One side of a table map: the catalog that was read, and what was known of its table."""

    table: TableMap
    catalog: "Catalog"
    target: bool
    """Whether it is the graph-db's side."""
    known: KnownSide | None
    other: "TableState | None" = None
    """The table of the other side, if it is there."""

    @property
    def relation(self) -> str:
        """The table's name in this database."""
        return self.table.target if self.target else self.table.source

    @property
    def place(self) -> str:
        """The table with its schema, for people."""
        return f"{self.catalog.schema}.{self.relation}"

    @property
    def elsewhere(self) -> str:
        """The other database."""
        return "the write-db" if self.target else "the graph-db"

    def qualified(self, name: str) -> str:
        """Return a table of this schema, quoted."""
        return f"{quoted(self.catalog.schema)}.{quoted(name)}"


def recognised(misfit: str, looked: Looked) -> str:
    """Return a misfit in the words of what happened to the table, if that is known; otherwise as it is."""
    from syncline.capture.install.misfit import Misfit

    if looked.known is None or not isinstance(misfit, Misfit):
        return misfit
    there = looked.catalog.tables.get(looked.relation)
    if there is None:
        gone = misfit.missing == looked.relation if looked.target else misfit.path == ("source",)
        return _of_table(misfit, looked, looked.known) if gone else misfit
    if misfit.column not in looked.known.columns or misfit.relation != looked.relation:
        return misfit
    return _of_column(misfit, looked, looked.known, there)


def _of_table(misfit: "Misfit", looked: Looked, known: KnownSide) -> str:
    name, tables = looked.table.name, looked.catalog.tables.values()
    now = next((table.name for table in tables if table.oid == known.oid), None)
    if now is None:
        gone = f"Table {looked.place} was dropped, or moved to another schema. Leave {name} out of the map"
        if looked.target:
            return misfit.said(f"{gone}, or make the table again.")
        # An empty one in its place would be read as it is: all rows would leave the graph-db.
        return misfit.said(
            f"{gone}: its rows stay in the graph-db. Or restore it with its rows: those that it lacks would "
            "leave."
        )
    return misfit.said(
        f"Table {looked.place} was renamed to {now}. Rename it back, or name {now} in the map of {name}.",
        statement=f"ALTER TABLE {looked.qualified(now)} RENAME TO {quoted(looked.relation)}",
    )


def _of_column(misfit: "Misfit", looked: Looked, known: KnownSide, there: "TableState") -> str:
    name, table = misfit.column or "", looked.table.name
    alter = f"ALTER TABLE {looked.qualified(looked.relation)}"
    place = f"{looked.place}.{name}"
    _, was = known.columns[name]
    found = there.columns.get(name)
    if found is not None:
        if found.full_type == was:
            return misfit
        across = None if looked.other is None else looked.other.columns.get(name)
        if across is not None and across.full_type == found.full_type:
            return misfit.said(
                f"{place} was changed from {was} to {found.full_type}, in both databases. "
                f"Give it that type in the map of {table}."
            )
        return misfit.said(
            f"{place} was changed from {was} to {found.full_type}. Change it back, or give it that type in "
            f"{looked.elsewhere} and in the map of {table} too.",
            statement=f"{alter} ALTER COLUMN {quoted(name)} TYPE {was} USING {quoted(name)}::{was}",
        )
    now = known.now(name, TableColumns(oid=there.oid, columns=columns_of(there)))
    if now is not None:
        return misfit.said(
            f"{place} was renamed to {now}. Rename it back, or name {now} in the map of {table}, and in "
            f"{looked.elsewhere} too if it has the column by this name.",
            statement=f"{alter} RENAME COLUMN {quoted(now)} TO {quoted(name)}",
        )
    leave = f"Leave it out of the map of {table}"
    if looked.target:
        told = f"{leave}, or add it and fill it by `syncline verify --repair`."
    else:
        told = (
            f"{leave}: what the graph-db has of it stays. Or add it again with its values, in one "
            "transaction: an empty column would empty that of the graph-db."
        )
    return misfit.said(f"{place} was dropped. {told}", statement=misfit.statement)
