"""Schema check: finds the tables that do not match their table map, before any row is synced."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg

from syncline.engine.became import Looked, recognised
from syncline.engine.known_columns import (
    Columns,
    KnownSide,
    KnownTable,
    TableColumns,
    columns_of,
    read_known,
    uncopied,
    why_not,
)
from syncline.engine.render.statements import POSITIONS
from syncline.engine.table_map import SchemaMap
from syncline.engine.template import sql
from syncline.errors import SchemaMismatch
from syncline.maps.ids import IdRule
from syncline.messages.sync import NewColumn
from syncline.provider import GraphSchema
from syncline.sql import quoted

if TYPE_CHECKING:
    from syncline.capture.install.catalog import Catalog, TableState

__all__ = ["Fit", "Footing", "read_footing", "schema_problems"]


_NO_SHADOW: Final = (
    "The ids of {table} are assigned by its target, so those of a shadow would be others, and readers would "
    "lose the rows they refer to: run the graph without a shadow, or let ids come from the source."
)
_NO_KEPT: Final = (
    "Rows of {table} keep the ids under which they stand in the target (`natural`), so those of a shadow "
    "would be others, and readers would lose the rows they refer to: run the graph without a shadow, or "
    "leave `natural` out."
)


@dataclass(frozen=True, kw_only=True)
class Footing:
    """The role's privileges on the table of positions in the write-db, and on what tells of its history."""

    role: str = ""
    there: bool = False
    readable: bool = False
    writable: bool = False
    timeline: bool = False
    """Whether it may ask on which timeline the server writes."""
    statistics: bool = False
    """Whether it may ask when the server's statistics were reset, as they are after a crash."""

    def problem(self, schema: str) -> str | None:
        """Return why a restored write-db would go unnoticed, in a sentence; None if it is detected."""
        if self.writable:
            return None
        cause = (
            f"role '{self.role}' may not write {schema}.{POSITIONS}: "
            f"GRANT SELECT, INSERT, UPDATE ON {quoted(schema)}.{POSITIONS} TO {quoted(self.role)};"
            if self.there
            else f"its schema '{schema}' has no table {POSITIONS}: run `syncline graph adopt` to create it"
        )
        return f"A restore of the write-db to an earlier time cannot be detected, since {cause.rstrip(';')}."


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Result of the schema check."""

    failed: dict[str, str] = field(default_factory=dict)
    """Table -> everything wrong with it on either side, in sentences."""
    footing: Footing = field(default_factory=Footing)
    columns: Columns = field(default_factory=Columns)
    """The columns of both sides, compared with those that were known."""


async def schema_problems(
    write: GraphSchema,
    target: asyncpg.Connection,
    schema: str,
    schema_map: SchemaMap,
    *,
    shadow: bool = False,
) -> Fit:
    """Return what is wrong with each table on either side, with a few queries.

    A table that cannot be synced fails alone, so the sentences are for its result. Raises SchemaMismatch if
    row level security hides the engine's own tables, which all tables depend on.
    """
    # Imported here: adoption depends on the table maps of this package.
    from syncline.capture.install.catalog import read_catalog
    from syncline.capture.install.checks import check_source, check_target, types_of, uncaptured
    from syncline.capture.install.ownership import filtered_bookkeeping

    types = types_of(schema_map)
    known = await read_known(target, schema)
    async with write.store.driver() as source:
        written = await read_catalog(source, write.schema, types=types)
        footing = await read_footing(source, write.schema)
    added = _added(schema_map, written, known)
    types |= {type_ for columns in added.values() for _, type_, _ in columns}
    read = await read_catalog(target, schema, types=types)
    hidden = [*filtered_bookkeeping(written), *filtered_bookkeeping(read)]
    if hidden:
        raise SchemaMismatch(*hidden)
    found: dict[str, str] = {}
    for table in schema_map:
        was = known.get(table.name, KnownTable())
        problems = check_source(written, [table]) or uncaptured(written, [table])
        here, there = written.tables.get(table.source), read.tables.get(table.target)
        source = Looked(table=table, catalog=written, target=False, known=was.source, other=there)
        filled = Looked(table=table, catalog=read, target=True, known=was.target, other=here)
        problems = [recognised(each, source) for each in problems]
        problems += [_mended(recognised(each, filled)) for each in check_target(read, schema_map, [table])]
        if shadow and table.keeps_ids:
            said = _NO_SHADOW if table.id_rule is IdRule.ASSIGNED else _NO_KEPT
            problems.append(said.format(table=table.name))
        if problems:
            found[table.name] = " ".join(dict.fromkeys(problems))
    now = _known_now(schema_map, known, added, written, read, failed=found)
    shapes = {
        table.name: written.tables[table.source].shape
        for table in schema_map
        if table.source in written.tables
    }
    return Fit(failed=found, footing=footing, columns=Columns.compared(known, now, shapes))


_Added = dict[str, list[tuple[str, str, bool]]]


def _added(schema_map: SchemaMap, written: "Catalog", known: Mapping[str, KnownTable]) -> _Added:
    """Return table -> columns that were added to its source; of several tables the first one has them."""
    added: _Added = {}
    seen: set[str] = set()
    for table in schema_map:
        source = written.tables.get(table.source)
        if source is not None and table.source not in seen:
            seen.add(table.source)
            was = known.get(table.name, KnownTable()).source
            added[table.name] = list(uncopied(schema_map, table.source, _columns(source), was))
    return added


def _known_now(
    schema_map: SchemaMap,
    known: Mapping[str, KnownTable],
    added: _Added,
    written: "Catalog",
    read: "Catalog",
    *,
    failed: Iterable[str],
) -> dict[str, KnownTable]:
    """Return table -> what is known of it from now on; of a failed one what was known, with what is new."""
    now: dict[str, KnownTable] = {}
    for table in schema_map:
        was = known.get(table.name, KnownTable())
        source, target = written.tables.get(table.source), read.tables.get(table.target)
        new = [
            NewColumn(
                table=table.name,
                source=f"{written.schema}.{table.source}",
                column=column,
                type=type_,
                problem=why_not(
                    table,
                    column,
                    type_,
                    generated=generated,
                    types={asked for asked, spelled in read.types.items() if spelled is not None},
                    target=None if target is None else _columns(target),
                    known=was.target,
                ),
                fix=_BY_ITS_AUTHOR,
            )
            for column, type_, generated in added.get(table.name, ())
        ]
        if source is None or target is None or table.name in failed:
            now[table.name] = KnownTable(source=was.source, target=was.target, new=tuple(new))
            continue
        waiting = {column.column for column in new}
        there = KnownSide.of(_columns(source))
        kept = {name: of for name, of in there.columns.items() if name not in waiting}
        now[table.name] = KnownTable(
            source=KnownSide(oid=there.oid, columns=kept),
            target=KnownSide.of(_columns(target)),
            new=tuple(new),
        )
    return now


_BY_ITS_AUTHOR = "The map's author takes it into `columns`, or leaves it alone by `ignored`."


def _columns(table: "TableState") -> TableColumns:
    return TableColumns(oid=table.oid, columns=columns_of(table))


def _mended(misfit: str) -> str:
    """Return a sentence about the graph-db's tables with the statement that mends it, if it has one."""
    from syncline.capture.install.misfit import Misfit

    if not isinstance(misfit, Misfit) or misfit.statement is None:
        return misfit
    return f"{misfit} {misfit.statement.rstrip(';')};"


async def read_footing(source: asyncpg.Connection, schema: str) -> Footing:
    """Query this role's privileges on the table of positions."""
    row = await source.fetchrow(sql("footing"), f"{quoted(schema)}.{POSITIONS}")
    return Footing(**dict(row))
