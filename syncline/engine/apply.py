"""Apply: one staged batch becomes rows, links, parked entries and outbox entries, set-wise."""

from dataclasses import dataclass

import asyncpg

from syncline.engine.statements import TableStatements
from syncline.messages import TableProgress

_ANALYZE_FROM = 2_000
"""Below this many staged rows the planner's defaults do; above, a wrong join costs more than ANALYZE."""


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What one batch did."""

    effects: tuple[TableProgress, ...]
    """Per table: what the batch completes in another table is that table's change."""
    released: bool
    """Whether it released parked rows of other tables."""


async def apply_staged(target: asyncpg.Connection, table: TableStatements, *, staged: int) -> Applied:
    """Apply the rows in the table's stage. Runs inside the caller's transaction.

    What is known to be parked is looked up once, so that a graph where nothing waits pays for one probe.
    """
    # A pooled connection keeps plans, and a plan made for a batch of five is a disaster for one of 50,000.
    await target.execute("DISCARD PLANS")
    if staged >= _ANALYZE_FROM:
        await target.execute(table.analyze_stage)
    parked = await target.fetchrow(
        "SELECT EXISTS (SELECT FROM sync_parked_row) AS rows,"
        " EXISTS (SELECT FROM sync_parked_reference) AS references"
    )
    identified = table.table.identified
    for statement in table.park_rows:
        await target.execute(statement)
    if parked["rows"]:
        await target.execute(table.unpark_rows)
    if parked["references"] and identified:
        await target.execute(table.unpark_references)
    for statement in table.park_references:
        await target.execute(statement)

    own = table.table.name
    rows: int = await target.fetchval(table.merge)
    links = 0
    for statement in table.merge_links:
        links += await target.fetchval(statement)
    effects = [TableProgress(table=own, rows=rows, links=links)]

    released = False
    if parked["rows"] and identified:
        released = await target.execute(table.release_rows) != "UPDATE 0"
    if parked["references"] and identified:
        for child, statement in table.release_links:
            effects.append(TableProgress(table=child, links=await target.fetchval(statement)))
        for child, statement in table.release_references:
            effects.append(TableProgress(table=child, rows=await target.fetchval(statement)))
    return Applied(effects=tuple(effects), released=released)
