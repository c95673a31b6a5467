"""Live lane: what is written during the load of a table overtakes it.

A load reads what a source has when its table is read for the first time, or all again. Were that one stream,
a fresh change would wait for its end. So the table's own cursor is put to where the load ends, and finds what
is written from then on; the load is read by a cursor of its own, in turns of some seconds with that. A row
that is written meanwhile leaves the load: its transaction is a later one. What the load has read is applied
before anything else is read, so that no older version comes after a newer one, nor a row after its delete.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import asyncpg

from syncline.engine.capture import Pending
from syncline.engine.checkpoints import forget_checkpoints
from syncline.engine.fill import TurnDrain
from syncline.engine.first_load import are_many
from syncline.engine.lane_lock import lane_transaction
from syncline.engine.render.statements import Cursor, Load, SchemaStatements, TableStatements
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import LOAD, Fence, Ledger
from syncline.engine.template import sql
from syncline.provider import SyncContext

__all__ = ["FEWEST", "LoadDrain", "begin_loads"]

_SECONDS, _BATCH_SECONDS = 1.5, 3.0
"""In a turn, no batch begins after so many seconds, and one is to take so many: fewer batches cost less."""
_FIRST, FEWEST = 50_000, 10_000
"""Rows of the first batch of all, and of one while the stores are slow."""


class LoadDrain(TurnDrain):
    """The batches of one turn of a graph's loads."""

    _reads_ahead = False
    _batch_seconds = _BATCH_SECONDS

    async def run_loads(self, loads: Mapping[str, Load]) -> None:
        """Read on for some seconds, parents first; `unfinished` are the tables of which rows are left.

        At least one batch is applied. Raise StoreError if none could be for a reason that may pass.
        """
        cursors = {name: load.cursor for name, load in loads.items()}
        await self.run_turn(cursors, {name: load.below for name, load in loads.items()}, seconds=_SECONDS)
        if self._troubles and not self._landed:
            raise self._troubles[0]

    async def _drain_rows(self, table: TableStatements, cursor: Cursor, horizon: int) -> None:
        name, began, before = table.table.name, time.monotonic(), self._captured(table)
        await super()._drain_rows(table, cursor, horizon)
        if (rows := self._captured(table) - before) >= FEWEST:
            self._progress.pace[name] = rows / max(time.monotonic() - began, 0.001)

    def _captured(self, table: TableStatements) -> int:
        progress = self._progress.run.tables.get(table.table.name)
        return 0 if progress is None else progress.captured

    async def _rows_a_batch(self, table: TableStatements) -> int:
        known, name = self._progress.pace, table.table.name
        if name in known:
            self._rows = max(FEWEST, round(known[name] * self._batch_seconds))
        else:
            # Rows of another table may take longer.
            slowest = min(known.values(), default=0.0)
            self._rows = max(FEWEST, round(slowest * self._batch_seconds / 2)) if known else _FIRST
        return await super()._rows_a_batch(table)

    def _stream(self, table: str) -> str:
        return f"{LOAD}{table}"

    async def _end(self, name: str) -> None:
        async with self._batch(stages=False) as batch:
            await self._target.execute(sql("load_ends"), self._stream(name))
            batch.ends(self._progress.run, landed=False)


async def begin_loads(
    held: HeldSchema,
    fence: Fence,
    statements: SchemaStatements,
    context: SyncContext,
    ledger: Ledger,
    pending: Pending,
    *,
    many: bool = False,
    ranged: Sequence[str] = (),
) -> tuple[Ledger, Pending]:
    """Begin the loads of tables that are read from the start, if they are large enough for turns to matter.

    Return the ledger with them, and what is pending beside them. `many`: whether they are known to be. Those
    of `ranged` are read in ranges.
    """
    names = [
        name for name in statements.tables if name in pending.tables and ledger.cursors[name] == Cursor()
    ]
    if not names or not (many or await are_many(context, statements, names)):
        return ledger, pending
    alone = lane_transaction(context, held, alone=True) if ledger.ranged else held.transaction()
    try:
        async with alone as target:
            # Whoever takes the graph now waits: its loads must not be bounded by this horizon.
            await fence.commit(target, ledger.progress)
            streams = [f"{LOAD}{name}" for name in names]
            await target.execute(sql("load_begins"), names, streams, pending.horizon)
            if ranged:
                await target.execute(sql("ranges_begin"), [name for name in names if name in ranged])
                await target.execute(sql("lanes_begin"))
            if ledger.notes:
                # Nobody goes back to what was before a load, and all that it reads would be noted.
                await forget_checkpoints(target)
    except asyncpg.UndefinedColumnError:
        # The bookkeeping tables are older than this worker: one stream.
        return ledger, pending
    begun = {name: Load(cursor=Cursor(), below=pending.horizon) for name in names}
    loads = {**ledger.loads, **begun}
    return (
        replace(
            ledger,
            cursors={**ledger.cursors, **{name: Cursor(xid=pending.horizon) for name in names}},
            loads={name: loads[name] for name in statements.tables if name in loads},
            ranged=ledger.ranged or bool(ranged),
        ),
        replace(pending, tables=pending.tables.difference(names)),
    )
