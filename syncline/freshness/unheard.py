"""Unheard: which schemas of a write-db have changed, told by their rows, where nobody has heard of it."""

from collections.abc import Sequence
from itertools import groupby

from syncline.adoption.naming import qualified
from syncline.freshness.line import in_batches
from syncline.sqltext import literal, statements_of
from syncline.stores.postgres import PostgresStore

__all__ = ["changed_since"]

_sql = statements_of("syncline.freshness")


async def changed_since(store: PostgresStore, schemas: Sequence[str], xid: int) -> frozenset[str]:
    """Return which of the schemas have rows or deleted keys of this transaction or a later one.

    An index has them in that order, whatever the schema's map, so it is one probe for each table.
    """
    found: set[str] = set()
    # A connection remembers every table that it has looked at: this one would keep thousands in memory.
    async with store.alone("look-up") as connection:
        tables = await connection.fetch(_sql("stamped"), schemas)
        selects = [
            f"SELECT '{literal(schema)}' AS schema WHERE "
            + " OR ".join(_sql("probe", table=qualified(schema, row["name"])) for row in rows)
            for schema, rows in groupby(tables, key=lambda row: str(row["schema"]))
        ]
        for batch in in_batches(selects):
            found.update(row["schema"] for row in await connection.fetch(" UNION ALL ".join(batch), str(xid)))
    return frozenset(found)
