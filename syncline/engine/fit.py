"""Fit: which of a graph's tables are not what their table map says, found before a row is moved."""

import asyncpg

from syncline.engine.tablemap import SchemaMap
from syncline.provider import GraphSchema

__all__ = ["misfits"]


async def misfits(
    write: GraphSchema, target: asyncpg.Connection, schema: str, schema_map: SchemaMap
) -> dict[str, str]:
    """Return table -> everything that is wrong with it on either side, in sentences, by a few queries.

    A table that cannot be synced fails alone, so the sentences are for its result.
    """
    # Not at the top: adoption stands on the table maps of this package.
    from syncline.adoption import check_source, check_target, read_catalog, types_of, uncaptured

    types = types_of(schema_map)
    async with write.store.driver() as source:
        written = await read_catalog(source, write.schema, types=types)
    read = await read_catalog(target, schema, types=types)
    found: dict[str, str] = {}
    for table in schema_map:
        problems = check_source(written, [table]) or uncaptured(written, [table])
        problems = [*problems, *check_target(read, [table])]
        if problems:
            found[table.name] = " ".join(problems)
    return found
