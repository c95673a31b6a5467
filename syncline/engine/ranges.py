"""Ranges: the load of a large table is read by several lanes side by side, each over connections of its own.

A lane takes a range of the load's order, reads it, applies it and moves the range on, all in one transaction
of the graph-db, which also locks the range: whoever dies has changed nothing, and another lane takes it. The
cycle is a lane itself, so it depends on no other. What keeps it right:

- **Fence.** Before its commit a lane locks the fence, and looks whose it is. Who takes the graph waits for
  that commit, or the lane's batch fails.
- **Order.** A lane shares a lock with other lanes from before it reads until its commit. Every other batch of
  the cycle has it alone (`lane_lock`): no older version comes after a newer one, nor a row after its delete.
- **Plain batches only.** Side by side, rows are inserted that the graph has not. A batch that does anything
  else, or fails, is rolled back and applied once more, alone, as every batch was before there were lanes.
- **Parking.** Rows of two lanes' batches have not seen each other. Once all ranges are done, what waits for a
  row of its own table that is there is released, before the load counts as ended.

What lanes have committed is kept with their ranges, and added to the run's progress by its cycle, once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import asyncpg

from syncline.engine.first_load import without_rows
from syncline.engine.lane_lock import lane_transaction
from syncline.engine.merge import PutOff
from syncline.engine.render.statements import Cursor, SchemaStatements
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import LOAD, RunProgress
from syncline.engine.template import sql
from syncline.messages.sync import LoadRanges
from syncline.provider import SyncContext
from syncline.stores.tenants import reading

__all__ = [
    "CYCLE",
    "OpenRanges",
    "Range",
    "committed_of",
    "first_load_of",
    "forget_ranges",
    "read_ranges",
    "stop_lanes",
    "worth_ranges",
]

WORTH_ROWS = 200_000
"""Fewer rows to load than this are loaded by one lane: they are a few batches."""
CYCLE: Final = "cycle"
"""The lane of the cycle that has the graph."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """A part of a load: what is left of it."""

    number: int
    cursor: Cursor
    upto: Cursor

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Return it from a row of `range_left`."""
        return cls(
            number=row["number"],
            cursor=Cursor.of_stored(row["xid"], row["key"]),
            upto=Cursor.of_stored(row["upto_xid"], row["upto_key"]),
        )


@dataclass(frozen=True, kw_only=True)
class OpenRanges:
    """A load that is read in ranges."""

    below: int
    """Its rows are of transactions below this one."""
    said: LoadRanges


async def stop_lanes(context: SyncContext, held: HeldSchema) -> None:
    """Return once the lanes' batches are committed; none begins for a moment. Raise LoadBlocked."""
    async with held.transaction() as target:
        await target.execute(sql("lanes_stop", seconds="2"))
    async with lane_transaction(context, held, alone=True):
        pass


async def read_ranges(target: asyncpg.Connection) -> tuple[dict[str, OpenRanges], bool]:
    """Return the loads that are read in ranges, in a transaction on the schema; and whether others were."""
    rows = await target.fetch(sql("ranges_of"), LOAD)
    found = {
        row["name"]: OpenRanges(
            below=row["below"],
            said=LoadRanges(table=row["name"], cut=row["cut"], done=row["done"], lanes=row["lanes"]),
        )
        for row in rows
        if row["below"] is not None
    }
    return found, len(found) < len(rows)


async def first_load_of(target: asyncpg.Connection, tables: Iterable[str]) -> str | None:
    """Return the first of these tables whose load goes on, in ranges or not; None if none does."""
    loads = {row["name"] for row in await target.fetch(sql("loads_open"), LOAD)}
    return next((name for name in tables if name in loads), None)


async def worth_ranges(
    context: SyncContext,
    held: HeldSchema,
    statements: SchemaStatements,
    names: Sequence[str],
    put_off: PutOff,
) -> tuple[list[str], list[str]]:
    """Return which first loads of these tables are to be read in ranges; and why other large ones are not.

    Only where rows are new and are counted at the end: lanes would wait for each other's counts.
    """
    if not put_off.counts >= statements.recount.counted:
        return [], []
    chosen, notes, write = list[str](), list[str](), context.write
    for name in names:
        table = statements.tables[name]
        async with write.store.driver() as source, reading(source, [table.source(write.schema)]):
            query = sql("load_pays", source=table.rows(write.schema), limit=str(WORTH_ROWS))
            if await source.fetchval(query) < WORTH_ROWS:
                continue
        async with held.transaction() as target:
            _, filled = await without_rows(target, [table.table.target])
        reason = "it has rows" if filled else table.ranges.one_lane
        if reason is None:
            chosen.append(name)
        else:
            notes.append(f"{name} is loaded by one lane: {reason}.")
    return chosen, notes


async def forget_ranges(
    target: asyncpg.Connection, progress: RunProgress, tables: Sequence[str] = ()
) -> RunProgress:
    """Forget the ranges of these tables, and of loads that are no more; return the progress with theirs.

    Inside a transaction that has the graph to itself.
    """
    for row in await target.fetch(sql("ranges_forget"), list(tables), LOAD):
        progress = progress.joined(committed_of(row["progress"]))
    await target.execute(sql("lanes_end"))
    return progress


def committed_of(text: str) -> RunProgress:
    """Return what a range says of its batches."""
    return RunProgress.from_json(text, "")
