"""Lane: takes part in the loads of a graph, beside the cycle that has it, until no range of them is left."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from syncline.engine.bisect import TableStands
from syncline.engine.checkpoints import RecentKeys
from syncline.engine.range_drain import RangeDrain
from syncline.engine.ranges import OpenRanges, first_load_of, read_ranges
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.results import Progress
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence, RunProgress
from syncline.errors import CycleFenced, LoadBlocked, StoreError
from syncline.messages.sync import LaneEnd, LaneResult
from syncline.provider import SyncContext

__all__ = ["run_lane"]

_PAUSE: Final = 0.2
"""Seconds until it looks for a range again: others have the last ones of a table."""


async def run_lane(
    statements: SchemaStatements, context: SyncContext, *, lane: str, over: Callable[[], bool]
) -> LaneResult:
    """Apply ranges of the graph's loads, one by one, until it is `over`, or none is left.

    `context.run` is the attempt that has the graph: when another one takes it, the lane ends without a word.
    A failure ends it too, and is told in the result: the cycle meets it itself, and reports it.
    """
    one = _Lane(statements, context, lane=lane, over=over)
    while (end := await one.step()) is None:
        pass
    return one.result(end)


class _Lane:
    def __init__(
        self, statements: SchemaStatements, context: SyncContext, *, lane: str, over: Callable[[], bool]
    ) -> None:
        self._context = replace(context, write=context.write.with_floor())
        self._statements, self._lane, self._over = statements, lane, over
        self._progress = Progress(context)
        self._progress.run = RunProgress(run_id=context.run.run_id)
        self._recent = RecentKeys(statements, noting=False)
        self._sizes: dict[str, int] = {}
        self._ranges = 0
        self._problem: str | None = None

    def result(self, end: LaneEnd) -> LaneResult:
        """Return what it has done."""
        run = self._progress.run
        return LaneResult(
            end=end,
            ranges=self._ranges,
            batches=run.batches,
            captured=sum(table.captured for table in run.tables.values()),
            problem=self._problem,
        )

    async def step(self) -> LaneEnd | None:
        """Take one range, over connections that others have in between; return why it ends, None if not."""
        if self._over():
            return LaneEnd.TIME
        try:
            async with self._context.target.store.driver() as target:
                held = HeldSchema(target, self._context.target.schema)
                async with held.transaction():
                    open_, _ = await read_ranges(target)
                    first = await first_load_of(target, self._statements.tables)
                if not open_:
                    return LaneEnd.DONE
                self._progress.ranges = [ranges.said for ranges in open_.values()]
                # Rows of later tables refer to its rows: until it is loaded they would all be parked.
                if first in open_ and await self._take(held, first, open_):
                    return None
        except CycleFenced:
            return LaneEnd.FENCED
        except (LoadBlocked, StoreError, TableStands) as error:
            self._problem = str(error.error if isinstance(error, TableStands) else error)
            return LaneEnd.FAILED
        self._progress.heartbeat()
        await asyncio.sleep(_PAUSE)
        return None

    async def _take(self, held: HeldSchema, name: str, ranges: Mapping[str, OpenRanges]) -> bool:
        drain, below = self._drain(held).in_ranges(ranges, lane=self._lane), ranges[name].below
        self._context.write.store.floor.rise(below)
        table = self._statements.tables[name]
        found = await drain.next_range(table, below)
        if found is None:
            return False
        await drain.take(table, found, below)
        self._ranges += 1
        self._progress.committed(self._progress.run.joined(drain.done))
        return True

    def _drain(self, held: HeldSchema) -> RangeDrain:
        return RangeDrain(
            self._statements,
            self._context,
            held,
            Fence(graph=self._context.graph.slug, schema=held.schema, fence=0),
            self._progress,
            failed={},
            out_of_time=self._over,
            sizes=self._sizes,
            recent=self._recent,
            beside_lanes=True,
        )
