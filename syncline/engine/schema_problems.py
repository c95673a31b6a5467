"""Fit: which of a graph's tables are not what their table map says, found before a row is moved."""

from dataclasses import dataclass, field

import asyncpg

from syncline.engine.render.statements import POSITIONS
from syncline.engine.table_map import SchemaMap
from syncline.engine.template import sql
from syncline.errors import SchemaMismatch
from syncline.provider import GraphSchema
from syncline.sql import quoted

__all__ = ["Fit", "Footing", "read_footing", "schema_problems"]


@dataclass(frozen=True, kw_only=True)
class Footing:
    """What a role may do with the table of positions in the write-db."""

    role: str = ""
    there: bool = False
    readable: bool = False
    writable: bool = False

    def problem(self, schema: str) -> str | None:
        """Return why a write-db put back in time would not be noticed, in a sentence; None if it would."""
        if self.writable:
            return None
        cause = (
            f"role '{self.role}' may not write {schema}.{POSITIONS}: "
            f"GRANT SELECT, INSERT, UPDATE ON {quoted(schema)}.{POSITIONS} TO {quoted(self.role)};"
            if self.there
            else f"its schema '{schema}' has no table {POSITIONS}: `syncline graph adopt` prepares it"
        )
        return f"That the write-db was put back in time cannot be noticed, since {cause.rstrip(';')}."


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What was looked up before a row is moved."""

    failed: dict[str, str] = field(default_factory=dict)
    """Table -> everything that is wrong with it on either side, in sentences."""
    footing: Footing = field(default_factory=Footing)


async def schema_problems(
    write: GraphSchema, target: asyncpg.Connection, schema: str, schema_map: SchemaMap
) -> Fit:
    """Return what is wrong with each table on either side, by a few queries.

    A table that cannot be synced fails alone, so the sentences are for its result. Raise SchemaMismatch if
    row level security hides what the engine itself keeps: all tables rely on that.
    """
    # Not at the top: adoption stands on the table maps of this package.
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
        problems = [*problems, *check_target(read, [table])]
        if problems:
            found[table.name] = " ".join(problems)
    return Fit(failed=found, footing=footing)


async def read_footing(source: asyncpg.Connection, schema: str) -> Footing:
    """Ask what this role may do with the table of positions."""
    row = await source.fetchrow(sql("footing"), f"{quoted(schema)}.{POSITIONS}")
    return Footing(role=row["role"], there=row["there"], readable=row["readable"], writable=row["writable"])
