"""Fill: reads rows again for columns that were added to the map, while the table's own cursor goes on.

In the order of capture, below the transaction at which the table's own cursor stood when the map changed. A
row that changes meanwhile moves beyond that, where the table's own cursor finds it.
"""

import time
from collections.abc import Mapping

from syncline.engine.drain import BatchDrain
from syncline.engine.render.statements import Cursor, TableStatements
from syncline.engine.state import FILL
from syncline.engine.template import sql

__all__ = ["FillDrain", "TurnDrain"]


class TurnDrain(BatchDrain):
    """The batches of one turn of streams that are read in the background, each with a cursor of its own."""

    _over = False
    """Whether the turn ends early."""
    _rows = 10_000
    """Most rows of a batch: one that has begun is ended."""

    async def run_turn(
        self, cursors: Mapping[str, Cursor], bounds: Mapping[str, int], *, seconds: float
    ) -> bool:
        """Read on from each table's cursor to its bound for some seconds; return whether rows are left.

        At least one batch is applied. A table that fails keeps its cursor, and rows are left of it.
        """
        budget_spent, deadline = self._out_of_time, time.monotonic() + seconds
        self._out_of_time = lambda: (
            budget_spent() or self._over or (self._landed and time.monotonic() >= deadline)
        )
        for name, cursor in cursors.items():
            if name in self.failed:
                continue
            if self._out_of_time():
                self.unfinished.add(name)
                continue
            with self._failing_alone(name):
                await self._drain_rows(self._statements.tables[name], cursor, bounds[name])
                if name not in self.unfinished:
                    await self._end(name)
        return not self.unfinished.isdisjoint(cursors) or not self.failed.keys().isdisjoint(cursors)

    async def _rows_a_batch(self, table: TableStatements) -> int:
        return min(self._rows, await super()._rows_a_batch(table))

    async def _end(self, name: str) -> None:
        """Commit that a table's stream is at its end."""
        raise NotImplementedError


class FillDrain(TurnDrain):
    """The batches of one pass that read rows again."""

    async def _expect(self, *_: object) -> None:
        """Each pass would count again what is left."""

    def _stream(self, table: str) -> str:
        return f"{FILL}{table}"

    async def _end(self, name: str) -> None:
        async with self._batch(stages=False) as batch:
            await self._target.execute(sql("mapped_filled"), [name], [self._stream(name)])
            batch.ends(self._progress.run, landed=False)
