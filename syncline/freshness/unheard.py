"""Unheard: which schemas of a write-db have changed, told by their rows, where nobody has heard of it."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import asyncpg

from syncline.adoption.naming import qualified
from syncline.freshness.line import in_batches
from syncline.sqltext import literal, statements_of
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import reading

__all__ = ["changed_since"]

_sql = statements_of("syncline.freshness")


async def changed_since(store: PostgresStore, schemas: Sequence[str], xid: int) -> frozenset[str]:
    """Return which of the schemas have rows or deleted keys of this transaction or a later one.

    An index has them in that order, whatever the schema's map, so it is one probe for each table.
    """
    found: set[str] = set()
    # A connection remembers every table that it has looked at: this one would keep thousands in memory.
    async with store.alone("look-up") as connection:
        async with reading(connection):
            rows = await connection.fetch(_sql("stamped"), schemas)
        tables = {
            schema: [qualified(schema, row["name"]) for row in of_schema]
            for schema, of_schema in groupby(rows, key=lambda row: str(row["schema"]))
        }
        waiting = list(in_batches(list(tables)))
        while waiting:
            batch = waiting.pop()
            try:
                found |= await _changed(connection, {schema: tables[schema] for schema in batch}, xid)
            except asyncpg.PostgresError:
                # One that cannot be read stops none of the others. Its own run says why.
                if len(batch) == 1:
                    found.update(batch)
                else:
                    waiting += [[schema] for schema in batch]
    return frozenset(found)


async def _changed(
    connection: asyncpg.Connection, tables: Mapping[str, Sequence[str]], xid: int
) -> frozenset[str]:
    selects = [
        f"SELECT '{literal(schema)}' AS schema WHERE "
        + " OR ".join(_sql("probe", table=table) for table in of_schema)
        for schema, of_schema in tables.items()
    ]
    asked = [table for of_schema in tables.values() for table in of_schema]
    async with reading(connection, asked, lock_timeout="2s"):
        rows = await connection.fetch(" UNION ALL ".join(selects), str(xid))
    return frozenset(row["schema"] for row in rows)
