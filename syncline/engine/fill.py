"""Fill: reads rows again for columns that were added to the map, while the table's own cursor goes on.

In the order of capture, below the transaction at which the table's own cursor stood when the map changed. A
row that changes meanwhile moves beyond that, where the table's own cursor finds it.
"""

from collections.abc import Mapping

from syncline.engine.drain import BatchDrain
from syncline.engine.render.statements import Cursor
from syncline.engine.state import FILL
from syncline.engine.template import sql

__all__ = ["FillDrain"]


class FillDrain(BatchDrain):
    """The batches of one pass that read rows again."""

    async def run_fills(self, cursors: Mapping[str, Cursor], bounds: Mapping[str, int]) -> bool:
        """Read on from each table's cursor to its bound; return whether rows are left.

        A table that fails keeps its cursor, and rows are left of it.
        """
        for name, cursor in cursors.items():
            if name in self.failed:
                continue
            with self._failing_alone(name):
                await self._drain_rows(self._statements.tables[name], cursor, bounds[name])
                if name not in self.unfinished:
                    await self._end(name)
        return not self.unfinished.isdisjoint(cursors) or not self.failed.keys().isdisjoint(cursors)

    def _stream(self, table: str) -> str:
        return f"{FILL}{table}"

    async def _end(self, name: str) -> None:
        async with self._batch() as batch:
            await self._target.execute(sql("mapped_filled"), [name], [self._stream(name)])
            batch.ends(self._progress.run, landed=False)
