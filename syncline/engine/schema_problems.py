"""Schema check: finds the tables that do not match their table map, before any row is synced."""

from dataclasses import dataclass, field
from typing import Final

import asyncpg

from syncline.engine.render.statements import POSITIONS
from syncline.engine.table_map import SchemaMap
from syncline.engine.template import sql
from syncline.errors import SchemaMismatch
from syncline.maps.ids import IdRule
from syncline.provider import GraphSchema
from syncline.sql import quoted

__all__ = ["Fit", "Footing", "read_footing", "schema_problems"]


_NO_SHADOW: Final = (
    "The ids of {table} are assigned by its target, so those of a shadow would be others, and readers would "
    "lose the rows they refer to: run the graph without a shadow, or let ids come from the source."
)


@dataclass(frozen=True, kw_only=True)
class Footing:
    """The role's privileges on the table of positions in the write-db."""

    role: str = ""
    there: bool = False
    readable: bool = False
    writable: bool = False

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
    async with write.store.driver() as source:
        written = await read_catalog(source, write.schema, types=types)
        footing = await read_footing(source, write.schema)
    read = await read_catalog(target, schema, types=types)
    hidden = [*filtered_bookkeeping(written), *filtered_bookkeeping(read)]
    if hidden:
        raise SchemaMismatch(*hidden)
    found: dict[str, str] = {}
    for table in schema_map:
        problems = check_source(written, [table]) or uncaptured(written, [table])
        problems = [*problems, *map(_mended, check_target(read, schema_map, [table]))]
        if shadow and table.id_rule is IdRule.ASSIGNED:
            problems.append(_NO_SHADOW.format(table=table.name))
        if problems:
            found[table.name] = " ".join(problems)
    return Fit(failed=found, footing=footing)


def _mended(misfit: str) -> str:
    """Return a sentence about the graph-db's tables with the statement that mends it, if it has one."""
    from syncline.capture.install.misfit import Misfit

    if not isinstance(misfit, Misfit) or misfit.statement is None:
        return misfit
    return f"{misfit} {misfit.statement.rstrip(';')};"


async def read_footing(source: asyncpg.Connection, schema: str) -> Footing:
    """Query this role's privileges on the table of positions."""
    row = await source.fetchrow(sql("footing"), f"{quoted(schema)}.{POSITIONS}")
    return Footing(role=row["role"], there=row["there"], readable=row["readable"], writable=row["writable"])
