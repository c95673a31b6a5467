"""Batches: one transaction each; applying, committing with the cursor, and retrying with fewer rows."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

import asyncpg

from syncline.engine.batch_size import BatchSize
from syncline.engine.checkpoints import RecentKeys
from syncline.engine.dead_letters import (
    DeadLetter,
    TableRefused,
    insert_dead_letters,
    may_be_rows,
    refuses_a_row,
)
from syncline.engine.deletes import Deletes
from syncline.engine.keys import row_uuid
from syncline.engine.lane_lock import lane_transaction
from syncline.engine.limits import is_limit, with_setting
from syncline.engine.merge import NOTHING, Applied, PutOff, apply_staged, remove_gone, shared_stages
from syncline.engine.render.statements import Cursor, SchemaStatements, TableStatements
from syncline.engine.results import Progress
from syncline.engine.schema_transaction import FRESH_PLANS, HeldSchema
from syncline.engine.state import Fence, RunProgress
from syncline.engine.template import sql
from syncline.errors import StoreError, StoreRejected
from syncline.messages.sync import TableProgress
from syncline.provider import SyncContext
from syncline.stores.postgres import PostgresStore, map_driver_error
from syncline.tracing import span

__all__ = ["Batch", "Batches", "CaptureRefused"]

_BEAT_SECONDS = 1.0
_TRIES = 3
"""Tries of a single row before an error that may be transient counts as the row's."""


class CaptureRefused(Exception):
    """A deleted key could not be staged: the source or the stage rejected it."""

    def __init__(self, error: StoreRejected) -> None:
        self.error = error


@dataclass
class Batch:
    """One batch in progress. It stores no progress until `ends` is called."""

    progress: RunProgress | None = None
    moved: tuple[str, Cursor] | None = None
    landed: bool = True

    def ends(
        self, progress: RunProgress, *, moved: tuple[str, Cursor] | None = None, landed: bool = True
    ) -> None:
        """Set the progress that commits with this batch, and the new cursor in `moved`, if any.

        `landed`: whether this batch proves that the stores accept rows.
        """
        self.progress, self.moved, self.landed = progress, moved, landed


class Batches:
    """State and helpers shared by every stream of a cycle's batches."""

    _lanes_wait = True
    """Whether other lanes are to wait for the batches that follow."""

    def __init__(
        self,
        statements: SchemaStatements,
        context: SyncContext,
        held: HeldSchema,
        fence: Fence,
        progress: Progress,
        *,
        failed: Mapping[str, str],
        out_of_time: Callable[[], bool],
        sizes: dict[str, int],
        recent: RecentKeys,
        put_off: PutOff = NOTHING,
        beside_lanes: bool = False,
    ) -> None:
        """Store the cycle's parts. `sizes`: rows per batch of the tables where a batch hit a limit.

        `recent` notes what is read. `put_off`: what a first load has put off. `beside_lanes`: other lanes may
        be at work, so that each batch, from before it reads, has the graph to itself.
        """
        self._statements = statements
        self._context = context
        self._held, self._target = held, held.connection
        self._fence = fence
        self._deletes = Deletes(statements, context, held.connection)
        self._out_of_time = self._spent = out_of_time
        """`_spent`: whether the cycle's time is, whatever ends a turn of it."""
        self._more = False
        self._sizes = sizes
        self._recent = recent
        self._put_off = put_off
        self._beside_lanes = beside_lanes
        self._landed = False
        self._limits_logged = False
        self._troubles: list[StoreError] = []
        self._progress = progress
        self.failed = dict(failed)
        self.unfinished: set[str] = set()
        self.recounted: set[str] = set()
        """Tables all of whose counts were made again."""
        self.deletes_read: int | None = None
        """All keys deleted before this transaction were read; None if none were read."""

    async def _keep_pace(self, rows: int, began: float) -> None:
        """Wait until a batch of so many rows, begun at that time, is within the cycle's pace."""
        pace = self._context.budget.rows_per_second
        if pace is None:
            return
        until = began + rows / pace
        while (left := until - time.monotonic()) > 0 and not self._spent():
            await asyncio.sleep(min(left, _BEAT_SECONDS))
            self._progress.heartbeat()

    def _store_of(self, error: StoreError) -> PostgresStore:
        write, target = self._context.write.store, self._context.target.store
        return write if error.store == write.name else target

    async def _try_fewer(self, size: BatchSize, error: StoreError, staged: int | None = None) -> bool:
        """Return True if a failed batch is to be retried: with fewer rows, or again if it was one row.

        False: a single row failed alone. `staged` is how many rows were staged, if known. Raises the error if
        it cannot be caused by rows.
        """
        if not may_be_rows(error) or self._target.is_closed():
            if is_limit(error):
                # The next attempt uses another connection and reports what this one had no time for.
                size.failed(struck=True)
                raise await with_setting(self._store_of(error), error) from error
            raise error
        if isinstance(error, TableRefused):
            raise error
        if size.rows > 1:
            if error.everywhere:
                size.alone()
            else:
                size.failed(struck=is_limit(error), staged=staged)
                if is_limit(error) and not self._limits_logged:
                    self._limits_logged = True
                    named = await with_setting(self._store_of(error), error)
                    self._context.log.warning(
                        "batch halved", graph=self._context.graph.slug, rows=size.rows, error=str(named)
                    )
            return True
        # A value error or a limit would repeat; any other error may be transient.
        if not refuses_a_row(error) and not is_limit(error) and size.once_more(_TRIES):
            return True
        size.blame_the_row()
        return False

    def _staging(self, table: TableStatements) -> AbstractAsyncContextManager[Batch]:
        """Return a batch with an empty stage for the table's rows."""
        # A constraint that is checked only at the commit cannot name the row.
        return self._batch(table.create_stage, FRESH_PLANS, "SET CONSTRAINTS ALL IMMEDIATE")

    @asynccontextmanager
    async def _batch(self, *first: str, stages: bool = True) -> AsyncIterator[Batch]:
        """Run one transaction on the graph-db with empty stages, and the statements `first` at its start.

        Without `stages` it touches no temporary table: Postgres would empty all of the session at its end.

        The cursor and the progress commit with the batch; the progress is reported after the commit. Driver
        errors name the graph-db.
        """
        shared, batch = shared_stages(self._statements) if stages else (), Batch()
        begin = self._lane_transaction if self._beside_lanes else self._transaction
        async with begin(*shared, *first):
            yield batch
            if batch.progress is not None:
                wait = self._beside_lanes and self._lanes_wait
                await self._fence.commit(self._target, batch.progress, moved=batch.moved, lanes_wait=wait)
        if batch.progress is not None:
            # Only after the commit: a rolled-back batch must not be counted.
            self._landed |= batch.landed
            self._progress.committed(batch.progress)

    @asynccontextmanager
    async def _transaction(self, *first: str) -> AsyncIterator[asyncpg.Connection]:
        with self._context.target.store.errors_mapped():
            async with self._held.transaction(*first) as target:
                yield target

    @asynccontextmanager
    async def _lane_transaction(
        self,
        *first: str,
        alone: bool = True,
        pausing: bool = True,
        named: Sequence[str] = (),
        on_wait: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[asyncpg.Connection]:
        """Like `_transaction`, with the lane lock (`lane_transaction`)."""
        with self._context.target.store.errors_mapped():
            async with lane_transaction(
                self._context,
                self._held,
                *first,
                alone=alone,
                pausing=pausing,
                named=named,
                on_wait=on_wait,
            ) as target:
                yield target

    @contextmanager
    def _capturing(self) -> Iterator[None]:
        """Turn the rejection of a row while staging into CaptureRefused: it did not fail while applying."""
        try:
            yield
        except (StoreError, asyncpg.PostgresError) as error:
            store = self._context.target.store.name
            mapped = error if isinstance(error, StoreError) else map_driver_error(store, error)
            if isinstance(mapped, StoreRejected) and refuses_a_row(mapped):
                raise CaptureRefused(mapped) from error
            raise

    async def _last_staged(self, table: TableStatements) -> Cursor:
        row = await self._target.fetchrow(table.last_staged)
        return Cursor(xid=row["sync_xid"], key=tuple(row["key"]))

    async def _apply(
        self,
        table: TableStatements,
        staged: int,
        *,
        captured: int = 0,
        asked: bool = False,
        noted: str = "",
    ) -> RunProgress:
        """Apply the stage in the caller's transaction; return the progress including it.

        `noted`: SQL that notes what was read. `asked`: the rows were requested by key, together with all
        rows of their uniqueness cycle.
        """
        store = self._context.target.store.name
        with span("apply", table=table.table.name, rows=staged):
            applied: Applied = await apply_staged(
                self._target,
                self._statements,
                table,
                staged=staged,
                store=store,
                put_off=self._put_off,
                noted=noted,
            )
        self._more |= applied.more
        self._judge(applied)
        effects = [TableProgress(table=table.table.name, captured=captured), *applied.effects]
        progress = await self._insert_letters(self._progress.run.plus(effects), applied.refused)
        entangled = (
            []
            if asked
            else [
                letter.row_id or row_uuid(letter.key)
                for letter in applied.refused.get(table.table.name, ())
                if letter.held_by
            ]
        )
        if entangled:
            again = await self._target.execute(sql("retry_ring"), table.table.name, entangled)
            self._more |= again != "INSERT 0 0"
        return progress

    def _judge(self, applied: Applied) -> None:
        """Raise an error if this must not be committed beside other lanes' batches."""

    async def _insert_letters(
        self, progress: RunProgress, refused: Mapping[str, Sequence[DeadLetter]]
    ) -> RunProgress:
        """Insert dead letters for rejected rows; return the progress including them."""
        for name, letters in refused.items():
            await insert_dead_letters(
                self._target, name, letters, run_id=self._context.run.run_id, rules=self._context.retry
            )
            progress = progress.with_failures(name, len(letters))
        return progress

    async def _remove(self) -> RunProgress:
        store = self._context.target.store.name
        effects, refused = await remove_gone(
            self._target, self._statements, store, put_off=self._put_off, likely=True
        )
        counted = await self._statements.recount.run(self._target, put_off=self._put_off.counts)
        self._more |= counted or bool(effects)
        return await self._insert_letters(self._progress.run.plus(effects), refused)
