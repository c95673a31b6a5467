"""One lane of a load: takes ranges, applies each in batches of one transaction, and gives them back.

See `syncline.engine.ranges` for what keeps lanes right side by side.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final, Self

import asyncpg

from syncline.engine.batch_size import BatchSize
from syncline.engine.batches import Batch
from syncline.engine.capture import Reading
from syncline.engine.dead_letters import DeadLetter
from syncline.engine.deletes import letter_of
from syncline.engine.keys import key_of_bytes
from syncline.engine.lane_lock import lane_session
from syncline.engine.live_lane import FEWEST, LoadDrain
from syncline.engine.merge import Applied, PutOff, release_awaited, shared_stages
from syncline.engine.owed import COUNTS
from syncline.engine.ranges import CYCLE, OpenRanges, Range, committed_of, forget_ranges
from syncline.engine.render.statements import Cursor, TableStatements
from syncline.engine.results import Progress
from syncline.engine.schema_transaction import BY_INDEX
from syncline.engine.state import RunProgress
from syncline.engine.template import sql
from syncline.errors import CycleFenced, StoreError, StoreRejected, StoreUnavailable
from syncline.provider import SyncContext
from syncline.sql import string_literal
from syncline.stores.tenants import reading

__all__ = ["RangeDrain"]

_PAUSE: Final = 0.05
"""Seconds between two looks of a lane that has to wait."""
_BATCH_SECONDS: Final = 2.0
"""What a batch is to take: fresh changes wait for one of each lane."""
_WAIT: Final = 0.5
"""Longest wait of a cycle for a range, before it looks for changes again."""
_SILENCE = 30.0
"""Seconds without a row from the write-db after which a lane gives up its batch: its session then looks like
that of a frozen one, which is terminated."""


class _RangeLost(Exception):
    """Another lane has taken the range; nothing was done."""


class _NotPlain(StoreRejected):
    """The batch must not be applied beside others."""


class _SourceSilent(StoreUnavailable):
    """The write-db sends nothing: while a lane beside the cycle waits for it, nothing else is applied."""


class _LaneReading(Reading):
    """What a lane beside the cycle reads; raises _SourceSilent instead of waiting for long."""

    async def _received(self) -> AsyncIterator[bytes]:
        chunks = super()._received()
        while True:
            try:
                async with asyncio.timeout(_SILENCE):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise _SourceSilent(self._source_name, f"no row came for {_SILENCE:g} s") from None
            yield chunk


class _BatchProgress(Progress):
    """The progress of one batch of a lane alone: what came before is kept with its range."""

    def __init__(
        self, context: SyncContext, whole: Progress, committed: Callable[[RunProgress], None]
    ) -> None:
        super().__init__(context, whole)
        self.run = RunProgress(run_id="")
        self._whole, self._hear = whole, committed

    def committed(self, run: RunProgress) -> None:
        """Pass on what one more batch has committed; the next one begins at nothing again."""
        self._hear(run)
        self._whole.heartbeat()

    def heartbeat(self) -> None:
        """Report the whole."""
        self._whole.heartbeat()


class RangeDrain(LoadDrain):
    """One lane: of a cycle, which takes turns with fresh changes, or beside it.

    Loads that are not read in ranges are read as ever.
    """

    _lanes_wait = False
    _ranges: Mapping[str, "OpenRanges"] = MappingProxyType({})
    _lane = ""
    _range: Range | None = None
    _name, _below, _alone, _began = "", 0, False, 0.0

    def in_ranges(self, ranges: Mapping[str, "OpenRanges"], *, lane: str) -> Self:
        """Return it for these loads; `lane` is by what name their ranges say who has taken them."""
        self._ranges, self._lane = ranges, lane
        if ranges:
            self._batch_seconds = _BATCH_SECONDS
        self._before = self.done = RunProgress(run_id="")
        return self

    async def _drain_rows(self, table: TableStatements, cursor: Cursor, horizon: int) -> None:
        name = table.table.name
        if name not in self._ranges:
            await super()._drain_rows(table, cursor, horizon)
            return
        waited = time.monotonic() + _WAIT
        while not self._out_of_time():
            found = await self.next_range(table, horizon)
            if found is not None:
                await self.take(table, found, horizon)
                await self._add_up(name)
                continue
            if not await self._undone(name):
                return
            if time.monotonic() >= waited:
                await self._await_others()
                break
            await asyncio.sleep(_PAUSE)
        await self._add_up(name)
        self.unfinished.add(name)
        # Rows of tables that come later refer to its rows.
        self._over = True

    async def _await_others(self) -> None:
        """Wait for the lanes that have the last ranges, as fresh changes would: one may be frozen."""
        with suppress(_RangeLost):
            # A turn is over before a frozen lane is known to be one.
            async with self._lane_transaction(pausing=False, on_wait=partial(self._wait_on, self._spent)):
                pass

    async def _undone(self, name: str) -> int:
        async with self._transaction() as target:
            undone: int = await target.fetchval(sql("ranges_undone"), name)
            return undone

    async def _add_up(self, name: str) -> None:
        """Add to the run what lanes have committed since, and move the load's cursor to what is left."""
        async with self._transaction() as target:
            run = self._progress.run
            for row in await target.fetch(sql("ranges_progress"), name):
                run = run.joined(committed_of(row["progress"]))
            left = await target.fetchrow(sql("ranges_reached"), name)
            reached = None if left is None else Cursor.of_stored(left["xid"], left["key"])
            moved = None if reached is None else (self._stream(name), reached)
            await self._fence.commit(target, run, moved=moved)
        self._progress.committed(run)

    async def _end(self, name: str) -> None:
        if name not in self._ranges:
            await super()._end(name)
            return
        table, store = self._statements.tables[name], self._context.target.store.name
        async with self._staging(table) as batch:
            effects = await release_awaited(
                self._target, self._statements, table, store=store, put_off=self._put_off
            )
            run = await forget_ranges(self._target, self._progress.run, [name])
            await self._target.execute(sql("load_ends"), self._stream(name))
            batch.ends(run.plus(effects), landed=False)

    async def next_range(self, table: TableStatements, below: int) -> Range | None:
        """Cut the next range off the load, or return one that was left; None if none is free."""
        name, stream = table.table.name, self._stream(table.table.name)
        rows = await super()._rows_a_batch(table)
        async with self._context.write.store.driver() as source, self._transaction() as target:
            rest = await target.fetchrow(sql("range_rest"), name, stream, below)
            if rest is None:
                left = await target.fetchrow(sql("range_left"), name, stream, below)
                return None if left is None else Range.of(left)
            cursor, end = Cursor.of_stored(rest["xid"], rest["key"]), Cursor(xid=below)
            last = await self._key_at(source, table, cursor, end, below, rows - 1)
            upto, number = last or end, rest["number"]
            await self._require_fence(target)
            bound = upto.xid, upto.stored(), last is not None
            await target.execute(sql("range_cut"), name, number, *bound, self._lane)
            return Range(number=number, cursor=cursor, upto=upto)

    async def take(self, table: TableStatements, taken: Range, below: int) -> None:
        """Apply a range to its end, unless another lane takes it or the time is over."""
        whole = self._progress
        self._range, self._name, self._below, self._alone = taken, table.table.name, below, False
        self._progress = _BatchProgress(self._context, whole, self._add_to_done)
        try:
            # Its pace is that of its batches, which wait for others.
            await super(LoadDrain, self)._drain_rows(table, taken.cursor, below)
        except _RangeLost:
            pass
        finally:
            self._range, self._progress = None, whole
            # Of this table there may be more.
            self.unfinished.discard(table.table.name)

    def _add_to_done(self, run: RunProgress) -> None:
        self._progress.lands |= {name for name, table in run.tables.items() if table.rows}
        self.done = self.done.joined(run)

    def _convicted(self, name: str) -> bool:
        return self._range is not None and name in self._progress.lands

    async def _rows_a_batch(self, table: TableStatements) -> int:
        rows = await super()._rows_a_batch(table)
        # One more than a range has: a batch that is not full has reached its end.
        return rows if self._range is None else rows + 1

    def _read(
        self, source: asyncpg.Connection, table: TableStatements, cursor: Cursor, horizon: int, limit: int
    ) -> Reading:
        if self._range is None:
            return super()._read(source, table, cursor, horizon, limit)
        write = self._context.write
        query = table.capture_range(write.schema, cursor, self._range.upto, below=horizon, limit=limit)
        kind = Reading if self._lane == CYCLE else _LaneReading
        return kind(source, query, (), write.store.name, tables=[table.source(write.schema)])

    async def _letter_behind(
        self, table: TableStatements, cursor: Cursor, horizon: int, error: StoreError
    ) -> tuple[Cursor, DeadLetter] | None:
        if self._range is None:
            return await super()._letter_behind(table, cursor, horizon, error)
        async with self._context.write.store.driver() as source:
            after = await self._key_at(source, table, cursor, self._range.upto, horizon, 0)
        if after is None or after.key is None:
            return None
        return after, letter_of(error, after.key, after.xid)

    async def _key_at(
        self,
        source: asyncpg.Connection,
        table: TableStatements,
        cursor: Cursor,
        upto: Cursor,
        below: int,
        place: int,
    ) -> Cursor | None:
        """Return the cursor at the row of this place after another one; None if there are fewer rows."""
        write = self._context.write
        query = table.key_at(write.schema, cursor, upto, below=below, place=place)
        with write.store.errors_mapped():
            async with reading(source, [table.source(write.schema)], first=BY_INDEX):
                row = await source.fetchrow(query)
        return None if row is None else Cursor(xid=row["sync_xid"], key=key_of_bytes(row["key"]))

    async def _try_fewer(self, size: BatchSize, error: StoreError, staged: int | None = None) -> bool:
        if isinstance(error, _SourceSilent):
            raise error
        if self._range is not None and not self._alone and not self._target.is_closed():
            # Whatever it was: alone it ends as it would have without lanes.
            self._alone = True
            return True
        return await super()._try_fewer(size, error, staged)

    def _judge(self, applied: Applied) -> None:
        if self._range is not None and not (self._alone or applied.plain):
            raise _NotPlain(self._context.target.store.name, "this batch is applied alone")

    @asynccontextmanager
    async def _batch(self, *first: str, stages: bool = True) -> AsyncIterator[Batch]:
        if self._range is None:
            async with super()._batch(*first, stages=stages) as batch:
                yield batch
            return
        batch = Batch()
        async with AsyncExitStack() as transaction:
            await self._enter(transaction, self._range, *first)
            yield batch
            if batch.progress is not None and batch.moved is not None:
                await self._move(self._range, batch.progress, batch.moved[1])
        if batch.progress is not None and batch.moved is not None:
            self._range = replace(self._range, cursor=batch.moved[1])
            self._landed |= batch.landed
            self._progress.committed(batch.progress)

    async def _enter(self, transaction: AsyncExitStack, taken: Range, *first: str) -> None:
        """Begin a transaction that has the range, once fresh changes leave time for it."""
        first = sql("lane_counts"), *shared_stages(self._statements), *first
        wait_on = partial(self._wait_on, self._out_of_time)
        while True:
            begun = self._lane_transaction(
                *first, alone=self._alone, pausing=False, named=self._named(), on_wait=wait_on
            )
            target = await transaction.enter_async_context(begun)
            if not await target.fetchval(sql("lanes_wait")):
                break
            await transaction.pop_all().aclose()
            wait_on()
            await asyncio.sleep(_PAUSE)
        name, cursor = self._name, taken.cursor
        place = name, taken.number, cursor.xid, cursor.stored()
        row = await target.fetchrow(sql("range_take", counts=COUNTS), *place, self._stream(name), self._below)
        if row is None:
            raise _RangeLost
        # A standby that lacks a fresh change shows the version before it, which is older than what is here.
        self._context.write.store.floor.rise(row["reached"])
        self._before = committed_of(row["progress"])
        self._put_off = PutOff(indexes=row["indexes"], counts=frozenset(row["counts"]))
        self._began = time.monotonic()

    def _wait_on(self, over: Callable[[], bool]) -> None:
        """Raise _RangeLost once it is `over`, instead of waiting for longer."""
        if over():
            raise _RangeLost
        self._progress.heartbeat()

    def _named(self) -> Sequence[str]:
        """Return what names the session of a lane. The cycle's has a name: it holds the graph's lock."""
        if self._lane == CYCLE:
            return ()
        name = string_literal(lane_session(self._held.schema))
        return (sql("lane_session", session=name).strip(),)

    async def _move(self, taken: Range, progress: RunProgress, after: Cursor) -> None:
        """Commit a batch with its range, for the holder of the graph alone."""
        name, whole = self._name, self._before.joined(progress)
        rows = progress.tables[name].captured if name in progress.tables else 0
        # From here on lanes wait for each other, for a moment.
        await self._target.execute(sql("lane_counted"))
        position = after.xid, after.stored(), after.end >= self._below
        await self._target.execute(
            sql("range_moves"), name, taken.number, *position, whole.to_json(), rows, self._lane
        )
        await self._require_fence(self._target)
        if rows >= FEWEST:
            self._progress.pace[name] = rows / max(time.monotonic() - self._began, 0.001)

    async def _require_fence(self, target: asyncpg.Connection) -> None:
        """Raise CycleFenced unless the attempt that the lane belongs to has the graph, until the commit."""
        run, graph = self._context.run, self._context.graph.slug
        fence = await target.fetchval(sql("lane_fence"), self._held.schema)
        if not await target.fetchval(sql("lane_holder"), fence, run.run_id, run.attempt):
            raise CycleFenced(graph, fence or 0)
