"""One question for the bookkeeping tables of many graphs: of hundreds hardly one has anything to tell."""

from collections.abc import Callable, Iterable, Sequence

import asyncpg

from syncline.operator.schema import sql

__all__ = ["asked_of_each"]


async def asked_of_each(
    connection: asyncpg.Connection, schemas: Iterable[str], table: str, query: Callable[[str], str]
) -> Sequence[asyncpg.Record]:
    """Return the rows of `query`, made for each schema that has this table, in one statement.

    Bookkeeping of an earlier release may lack it, and the role may have no right to read it: then it is left
    out.
    """
    kept = await connection.fetch(sql("bookkeeping_kept"), list(schemas), table)
    each = [query(row["schema"]) for row in kept]
    return await connection.fetch(" UNION ALL ".join(each)) if each else []
