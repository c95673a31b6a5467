"""Known columns: which columns of both tables a graph has seen, and which were added since.

A column keeps its number when it is renamed, and a number is never given again. So the columns that were
there when a table was synced tell an added one from one that the map leaves out, and a renamed one from a
dropped one.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from syncline.engine.render.fragments import source_names
from syncline.engine.table_map import TableMap
from syncline.engine.template import sql
from syncline.messages.sync import NewColumn
from syncline.sql import quoted

if TYPE_CHECKING:
    from syncline.capture.install.catalog import TableState

__all__ = [
    "Columns",
    "KnownSide",
    "KnownTable",
    "TableColumns",
    "columns_of",
    "read_known",
    "uncopied",
    "why_not",
]

_OURS: Final = "sync_xid"
_RESERVED: Final = "sync_"


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """A table of either side as its catalog has it: column -> number, full type, whether it is generated."""

    oid: int
    columns: Mapping[str, tuple[int, str, bool]]


@dataclass(frozen=True, kw_only=True)
class KnownSide:
    """A table of either side as it was known: column -> number and full type."""

    oid: int
    columns: Mapping[str, tuple[int, str]]

    @classmethod
    def of(cls, table: TableColumns) -> "KnownSide":
        """Return the table with all its columns."""
        return cls(oid=table.oid, columns={name: of[:2] for name, of in table.columns.items()})

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any] | None) -> "KnownSide | None":
        """Return it from its stored form."""
        if stored is None:
            return None
        columns = {name: (number, type_) for name, (number, type_) in stored["columns"].items()}
        return cls(oid=stored["oid"], columns=columns)

    def has(self, name: str, number: int, oid: int) -> bool:
        """Return whether a column of table `oid` was known: by its number, in another table by its name."""
        if oid != self.oid:
            return name in self.columns
        return any(number == known for known, _ in self.columns.values())

    def now(self, name: str, table: TableColumns) -> str | None:
        """Return what a column that was known is called now; None if it was dropped, or was not known."""
        if name not in self.columns or table.oid != self.oid:
            return None
        number = self.columns[name][0]
        return next((other for other, (found, *_) in table.columns.items() if found == number), None)


@dataclass(frozen=True, kw_only=True)
class KnownTable:
    """What is stored about the columns of one table map."""

    source: KnownSide | None = None
    target: KnownSide | None = None
    new: tuple[NewColumn, ...] = ()
    """The columns that waited for a decision."""

    def stored(self) -> str:
        """Return the JSON that `of_stored` reads."""
        sides = {"source": self.source, "target": self.target}
        columns = {
            name: None if side is None else {"oid": side.oid, "columns": side.columns}
            for name, side in sides.items()
        }
        return json.dumps({**columns, "new": [column.model_dump() for column in self.new]}, sort_keys=True)

    @classmethod
    def of_stored(cls, text: str) -> "KnownTable":
        """Return it from its stored form."""
        stored = json.loads(text)
        return cls(
            source=KnownSide.of_stored(stored["source"]),
            target=KnownSide.of_stored(stored["target"]),
            new=tuple(NewColumn.model_validate(column) for column in stored["new"]),
        )


@dataclass
class Columns:
    """The columns of a graph's tables as of the last schema check. It lives as long as the check's result."""

    shapes: Mapping[str, str] = field(default_factory=dict)
    """Table -> hash of its source's columns, as `Pending.shapes` has it while nothing was altered."""
    new: tuple[NewColumn, ...] = ()
    """Columns that were added to sources and wait for a decision."""
    fresh: tuple[NewColumn, ...] = ()
    """Those of them that no cycle has told of; none once `record` has stored them."""
    _owed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def compared(
        cls,
        known: Mapping[str, KnownTable],
        now: Mapping[str, KnownTable],
        shapes: Mapping[str, str],
    ) -> "Columns":
        """Return what differs between what is stored and what is there."""
        new = [column for table in now.values() for column in table.new]
        told = [column for table in known.values() for column in table.new]
        return cls(
            shapes=shapes,
            new=tuple(new),
            fresh=tuple(column for column in new if column not in told),
            _owed={
                name: table.stored() for name, table in now.items() if table != known.get(name, KnownTable())
            },
        )

    @property
    def changed(self) -> bool:
        """Whether there is something to store."""
        return bool(self._owed)

    def differ(self, shapes: Mapping[str, str]) -> bool:
        """Return whether a source has other columns than at the last check."""
        return any(self.shapes.get(name, found) != found for name, found in shapes.items())

    async def record(self, target: asyncpg.Connection) -> None:
        """Store what is known now, in the caller's transaction; `recorded` follows its commit."""
        if self._owed:
            await target.execute(sql("columns_seen"), list(self._owed), list(self._owed.values()))

    def recorded(self) -> None:
        """Take note that it is stored."""
        self._owed, self.fresh = {}, ()


async def read_known(target: asyncpg.Connection, schema: str) -> dict[str, KnownTable]:
    """Return table -> what is stored about its columns; the connection may be in no transaction."""
    rows = await target.fetch(sql("columns_known", schema=quoted(schema)))
    return {row["table_name"]: KnownTable.of_stored(row["columns"]) for row in rows}


def columns_of(table: "TableState") -> dict[str, tuple[int, str, bool]]:
    """Return column -> number, full type, whether it is generated."""
    return {
        name: (column.number, column.full_type, column.generated) for name, column in table.columns.items()
    }


def uncopied(
    tables: Iterable[TableMap], name: str, source: TableColumns, known: KnownSide | None
) -> Iterator[tuple[str, str, bool]]:
    """Yield (column, full type, generated) of a source: added since `known`, and in no map of it."""
    if known is None:
        return
    own = [table for table in tables if table.source == name]
    used = {each for table in own for each in (*source_names(table), *table.ignored)}
    for column, (number, type_, generated) in source.columns.items():
        if column in used or column == _OURS or known.has(column, number, source.oid):
            continue
        if any(re.search(rf"(?<!\w){re.escape(column)}(?!\w)", table.present) for table in own):
            continue
        yield column, type_, generated


def _written(table: TableMap) -> set[str]:
    """Return the target columns that a map writes."""
    names = {*table.target_key, *table.made_of_key, *(column.name for column in table.columns)}
    names |= {*table.expressions, *(reference.target_column for reference in table.filled)}
    names |= {stat.column for stat in table.counters}
    return names | ({"sync_version", "sync_run"} if table.stamps else set())


def why_not(
    table: TableMap,
    column: str,
    type_: str,
    *,
    generated: bool,
    types: Collection[str],
    target: TableColumns | None,
    known: KnownSide | None,
) -> str | None:
    """Return why a new column cannot be taken as it is, in a sentence; None if it can.

    `types`: those of the new columns that the graph-db has.
    """
    if table.into is not None:
        return f"{table.name} writes into rows of {table.into}: map it by hand."
    if column.startswith(_RESERVED):
        return "Names that begin with sync_ are the engine's own: rename it, or leave it alone."
    if generated:
        return "Postgres computes it from other columns: take it by hand, if it is to be copied as it is."
    if type_ not in types:
        return f"The graph-db has no type {type_}: create it there, or map the column as text by hand."
    if column in _written(table):
        return f"The map writes {column} of {table.name} already: map it under another name by hand."
    there = None if target is None else target.columns.get(column)
    if there is None or target is None:
        return None
    if there[2]:
        return f"{table.name}.{column} is there and generated."
    if there[1] != type_:
        return f"{table.name}.{column} is there as {there[1]}: change it, or map the column by hand."
    if known is None or known.has(column, there[0], target.oid):
        return f"{table.name}.{column} stood there before, and may be its readers' own: map it by hand."
    return None
