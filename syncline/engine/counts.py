"""Counts that are made page by page: of maps that count otherwise than before, and of large first loads.

A page is short, so that changes need not wait for the last one. Batches count what they touch meanwhile, so
that a page need not be made again.
"""

import asyncpg

from syncline.engine.key_forms import cast, form
from syncline.engine.render.fragments import column
from syncline.engine.render.identity import ours
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.template import sql

__all__ = ["are_long", "recount_page"]

_AT_ONCE = 256 * 2**20
"""Bytes of the rows that are read to count those of a table, from which on that is no work of a moment."""


async def are_long(target: asyncpg.Connection, statements: SchemaStatements, name: str) -> bool:
    """Return whether to count for every row of a table at once would keep changes waiting for seconds."""
    size = await target.fetchval(sql("counted_size"), statements.recount.reads(name))
    return bool(size >= _AT_ONCE)


async def recount_page(
    target: asyncpg.Connection, statements: SchemaStatements, name: str, *, after: str | None, rows: int
) -> str | None:
    """Make the counts of the next `rows` of a table, in the caller's transaction, which has `recount.create`.

    `after` is the last id of the page before, None for the first one. Return that of this page, None after
    the last one.
    """
    table = statements.tables[name].table
    page = sql(
        "recount_page",
        target=ours(table),
        id=column(table.id_column),
        after=cast(table.id_type, "$1::text"),
        last=form(table.id_type, "id"),
        noted=statements.recount.noted,
        noted_as=statements.recount.noted_as,
    )
    [row] = await target.fetch(page, after, rows, statements.recount.labels(name))
    await statements.recount.run(target)
    return None if row["rows"] < rows else str(row["last"])
