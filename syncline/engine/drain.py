"""Drain: move everything below the horizon, batch after batch, each in one transaction with its cursor.

One module because every kind of batch (deletes, rows, released, asked for) ends in the same commit.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import asyncpg

from syncline.engine.apply import Applied, apply_staged, remove_gone, shared_stages
from syncline.engine.capture import Pending, Reading, bytes_a_row, read_rows
from syncline.engine.deletes import Deletes, letter_of
from syncline.engine.keys import hex_of, is_text, key_of_bytes, reading_of
from syncline.engine.ledger import Ledger, RunProgress, Tenure
from syncline.engine.places import BY_INDEX, by_index, on_schema
from syncline.engine.refusal import DeadLetter, bury, refuses_a_row
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.statements import DELETES, Cursor, SchemaStatements, TableStatements
from syncline.engine.template import sql
from syncline.errors import StoreError, StoreRejected
from syncline.messages import TableProgress
from syncline.provider import SyncContext
from syncline.stores.postgres import map_driver_error
from syncline.tracing import span

__all__ = ["Drain"]

_BATCH_BYTES = 256 * 2**20
"""What a batch may take in the graph-db, where it is staged, going by the average row: texts can be long."""
_COUNT_SECONDS = 5.0
"""How long a backlog may be counted, which is for somebody who watches alone."""
_KEYS = 5_000
"""Rows that are asked for by key in one batch: the keys pass through the worker, and they may be long."""


class _CaptureRefused(Exception):
    """A row did not even come into the stage: its source, or the stage, refused it."""

    def __init__(self, error: StoreRejected) -> None:
        self.error = error


class Drain:
    """One cycle's batches. `progress` is what has been committed, `failed` the tables that could not be.

    A table that has failed before is left alone.
    """

    def __init__(
        self,
        statements: SchemaStatements,
        context: SyncContext,
        held: HeldSchema,
        tenure: Tenure,
        progress: RunProgress,
        *,
        failed: Mapping[str, str],
        out_of_time: Callable[[], bool],
        committed: Callable[[RunProgress], None],
    ) -> None:
        self._statements = statements
        self._context = context
        self._held, self._target = held, held.connection
        self._tenure = tenure
        self._deletes = Deletes(statements, context, held.connection)
        self._out_of_time = out_of_time
        self._told = committed
        self._more = False
        self._counted: set[str] = set()
        self.progress = progress
        self.failed = dict(failed)
        self.unfinished: set[str] = set()
        self.expected: dict[str, int] = {}
        """Rows to read in all of tables that take more than one batch, where counting them was quick."""
        self.deletes_read: int | None = None
        """Before which transaction all deleted keys were read, if any were."""

    async def run(self, ledger: Ledger, pending: Pending) -> None:
        """Drain the deleted keys, then every table parents first, then what that released or asked for."""
        if ledger.requeued:
            async with self._transaction(BY_INDEX) as target:
                await target.execute(sql("requeue_due"))
        self._more = ledger.requeued or bool(ledger.released)
        if pending.deletes:
            with self._failing_alone(DELETES):
                await self._drain_deletes(ledger.cursors[DELETES], pending.horizon)
        for name in sorted(ledger.comparisons - self.failed.keys()):
            with self._failing_alone(name):
                await self._compare(name)
        waiting = set(pending.tables)
        again = False
        while waiting or self._more or again:
            again = False
            released, requeued = await self._asked_for()
            if not (waiting | released | requeued) - self.failed.keys():
                return
            if self._out_of_time():
                self.unfinished |= waiting | released | requeued
                return
            for name, table in self._statements.tables.items():
                if name in self.failed:
                    continue
                if self._more:
                    # What is asked for of tables that were passed already is for another round.
                    again = True
                    released, requeued = await self._asked_for()
                with self._failing_alone(name):
                    if name in requeued:
                        await self._drain_requeued(table)
                    if name in released:
                        await self._drain_released(table)
                    if name in waiting:
                        await self._drain_rows(table, ledger.cursors[name], pending.horizon)
            waiting = set()

    def fail(self, table: str, error: str) -> None:
        """Note that a table failed; the others go on."""
        self.failed[table] = error
        self._context.log.error("table failed", graph=self._context.graph.slug, table=table, error=error)

    @contextmanager
    def _failing_alone(self, name: str) -> Iterator[None]:
        try:
            yield
        except StoreRejected as error:
            # The table's own trouble; anything else is the store's and ends the cycle.
            self.fail(name, str(error))

    async def _asked_for(self) -> tuple[set[str], set[str]]:
        """Return the tables with released rows, and those with rows that are asked for by key."""
        self._more = False
        async with self._transaction(BY_INDEX) as target:
            row = await target.fetchrow(
                sql("asked_for", released=sql("released")), list(self._statements.tables)
            )
        return set(row["released"]), set(row["requeued"])

    async def _drain_rows(self, table: TableStatements, cursor: Cursor, horizon: int) -> None:
        """Move rows until nothing is left below the horizon or time is out."""
        write = self._context.write
        full = limit = await self._rows_a_batch(table)
        while not self._out_of_time():
            try:
                async with on_schema(write) as source, AsyncExitStack() as readings:
                    ahead: Reading | None = None
                    # What is being read already is applied too: its COPY cannot be called off in peace.
                    while ahead is not None or not self._out_of_time():
                        reading = ahead or self._read(source, table, cursor, horizon, limit)
                        readings.push_async_callback(reading.close)
                        ahead = None
                        async with self._batch(table.create_stage):
                            with self._capturing():
                                staged = await reading.copy_into(
                                    self._target, table.stage_name, table.stage_columns
                                )
                            await readings.aclose()
                            # A short batch has seen all below the horizon; behind a full one may be more.
                            after = await self._last_staged(table) if staged == limit else Cursor(xid=horizon)
                            if staged == limit == full and not self._out_of_time():
                                await self._expect(source, table, after, horizon, staged)
                                # The write-db reads on while the graph-db applies.
                                ahead = self._read(source, table, after, horizon, full)
                                readings.push_async_callback(ahead.close)
                            progress = await self._apply(table, staged, captured=staged)
                            await self._tenure.commit(
                                self._target, progress, table=table.table.name, cursor=after
                            )
                        self._committed(progress)
                        cursor = after
                        if staged < limit:
                            return
                        limit = min(full, limit * 2)
            except _CaptureRefused as refusal:
                # Somewhere in these rows is one that cannot be read; its connection is gone, others are not.
                if limit == 1:
                    cursor = await self._bury_next(table, cursor, horizon, refusal.error)
                limit = max(1, limit // 2)
        self.unfinished.add(table.table.name)

    async def _expect(
        self, source: asyncpg.Connection, table: TableStatements, cursor: Cursor, horizon: int, staged: int
    ) -> None:
        """Count, once a cycle, what a table has left behind its first full batch, if that does not take long.

        The batch waits for it: its transaction on the graph-db must not be ended as an idle one.
        """
        name = table.table.name
        if name in self._counted:
            return
        self._counted.add(name)
        with self._context.write.store.errors_mapped():
            try:
                async with by_index(source):
                    await source.execute(f"SET LOCAL statement_timeout = {round(_COUNT_SECONDS * 1000)}")
                    left = await source.fetchval(table.behind(cursor), *cursor.parameters(), str(horizon))
            except asyncpg.QueryCanceledError:
                return
        before = self.progress.tables.get(name, TableProgress(table=name)).captured
        self.expected[name] = before + staged + left

    async def _rows_a_batch(self, table: TableStatements) -> int:
        rows, write = self._context.budget.batch_rows, self._context.write
        async with write.store.driver() as connection:
            size = await bytes_a_row(connection, write.schema, table)
        return min(rows, max(1, int(_BATCH_BYTES / size))) if size else rows

    def _read(
        self, source: asyncpg.Connection, table: TableStatements, cursor: Cursor, horizon: int, limit: int
    ) -> Reading:
        name = self._context.write.store.name
        return read_rows(source, table, source_name=name, cursor=cursor, horizon=horizon, limit=limit)

    async def _bury_next(
        self, table: TableStatements, cursor: Cursor, horizon: int, error: StoreRejected
    ) -> Cursor:
        """Put the first row behind the cursor among the dead letters, and return the cursor behind it."""
        async with on_schema(self._context.write) as source:
            row = await source.fetchrow(table.next_key(cursor), *cursor.parameters(), str(horizon))
        if row is None:
            return cursor
        key = key_of_bytes(row["key"])
        async with self._batch():
            letter = letter_of(error, key, row["sync_xid"])
            progress = await self._bury(self.progress.plus([]), {table.table.name: [letter]})
            after = Cursor(xid=row["sync_xid"], key=key)
            await self._tenure.commit(self._target, progress, table=table.table.name, cursor=after)
        self._committed(progress)
        return after

    async def _drain_released(self, table: TableStatements) -> None:
        """Land the parked rows whose parent has come."""
        limit = self._context.budget.batch_rows
        while not self._out_of_time():
            async with self._batch(table.create_stage):
                status = await self._target.execute(table.waiting.stage_released, limit)
                staged = int(status.rpartition(" ")[2])
                if not staged:
                    return
                progress = await self._apply(table, staged)
                await self._tenure.note(self._target, progress)
            self._committed(progress)
            if staged < limit:
                return
        self.unfinished.add(table.table.name)

    async def _drain_requeued(self, table: TableStatements) -> None:
        """Read rows again by key and make them right, whatever they are now."""
        name = table.table.name
        limit = _KEYS
        while not self._out_of_time():
            try:
                async with on_schema(self._context.write) as source, self._batch(table.create_stage):
                    asked = await self._target.fetch(sql("requeue_read"), name, limit)
                    if not asked:
                        return
                    ids = [row["row_id"] for row in asked]
                    keys = [reading_of(row["key"], row["row_id"]) for row in asked]
                    staged = await self._copy_by_key(source, table, keys)
                    # Of keys that are no text none was there: no stage would have taken its row.
                    texts = {row_id: key for row_id, key in zip(ids, keys, strict=True) if is_text(key)}
                    gone = [json.dumps(key) for key in texts.values()]
                    await self._target.execute(table.missing, list(texts), gone)
                    if len(texts) < len(ids):
                        await self._target.execute(sql("forget"), name, list(set(ids) - texts.keys()))
                    progress = await self._apply(table, staged)
                    await self._target.execute(sql("requeue_done"), name, ids)
                    await self._tenure.note(self._target, progress)
                self._committed(progress)
                limit = min(_KEYS, limit * 2)
            except _CaptureRefused as refusal:
                if limit == 1:
                    await self._bury_asked(table, refusal.error)
                limit = max(1, limit // 2)
        self.unfinished.add(name)

    async def _copy_by_key(
        self, source: asyncpg.Connection, table: TableStatements, keys: Sequence[Sequence[str]]
    ) -> int:
        readable = all(map(is_text, keys))
        columns = [list(column) for column in zip(*(keys if readable else map(hex_of, keys)), strict=True)]
        query = table.capture_by_key(readable=readable)
        with self._capturing():
            async with Reading(source, query, columns, self._context.write.store.name) as reading:
                return await reading.copy_into(self._target, table.stage_name, table.stage_columns)

    async def _bury_asked(self, table: TableStatements, error: StoreRejected) -> None:
        name = table.table.name
        async with self._batch():
            [row] = await self._target.fetch(sql("requeue_read"), name, 1)
            letter = letter_of(error, reading_of(row["key"], row["row_id"]), 0)
            progress = await self._bury(self.progress.plus([]), {name: [letter]})
            await self._target.execute(sql("requeue_done"), name, [row["row_id"]])
            await self._tenure.note(self._target, progress)
        self._committed(progress)

    async def _drain_deletes(self, cursor: Cursor, horizon: int) -> None:
        """Remove the rows whose keys were deleted, those of all tables in the order of their deletion."""
        full = limit = self._context.budget.batch_rows
        while not self._out_of_time():
            try:
                async with on_schema(self._context.write) as source:
                    while not self._out_of_time():
                        async with self._batch(self._deletes.create_stage):
                            with self._capturing():
                                staged = await self._deletes.stage(source, cursor, horizon, limit)
                            after = await self._deletes.last() if staged == limit else Cursor(xid=horizon)
                            progress = await self._remove()
                            await self._tenure.commit(self._target, progress, table=DELETES, cursor=after)
                        self._committed(progress)
                        cursor = after
                        self.deletes_read = cursor.xid
                        if staged < limit:
                            return
                        limit = min(full, limit * 2)
            except _CaptureRefused as refusal:
                # One of these keys cannot be read, or is none. The others' rows must not stay for it.
                if limit == 1:
                    cursor = await self._pass_deleted(cursor, horizon, refusal.error)
                limit = max(1, limit // 2)
        self.unfinished.add(DELETES)

    async def _compare(self, name: str) -> None:
        """Ask by key for the rows of a table that the write-db no longer has."""
        comparison, self._more = self._statements.comparisons[name], True
        async with on_schema(self._context.write) as source:
            while not self._out_of_time():
                async with self._batch():
                    ended = await comparison.step(self._target, source)
                    await self._tenure.note(self._target, self.progress)
                self._committed(self.progress)
                if ended:
                    return
        self.unfinished.add(name)

    async def _pass_deleted(self, cursor: Cursor, horizon: int, error: StoreRejected) -> Cursor:
        """Settle the first deleted key behind the cursor, which is refused; return the cursor behind it."""
        deleted = await self._deletes.first(cursor, horizon)
        if deleted is None:
            return cursor
        async with self._batch():
            letters, passed_over = await self._deletes.settle(deleted, error)
            progress = await self._bury(self.progress.plus([]), letters)
            for name in passed_over:
                progress = progress.with_failures(name, 1)
            await self._tenure.commit(self._target, progress, table=DELETES, cursor=deleted.cursor)
        self._committed(progress)
        self.deletes_read = deleted.cursor.xid
        return deleted.cursor

    async def _remove(self) -> RunProgress:
        store = self._context.target.store.name
        effects, refused = await remove_gone(self._target, self._statements, store)
        await self._statements.recount.run(self._target)
        self._more |= bool(effects)
        return await self._bury(self.progress.plus(effects), refused)

    @asynccontextmanager
    async def _batch(self, create_stage: str | None = None) -> AsyncIterator[None]:
        """One transaction on the graph-db with empty stages; its driver errors name the graph-db."""
        stages = shared_stages(self._statements)
        async with self._transaction(*stages, *([create_stage] if create_stage is not None else [])):
            yield

    @asynccontextmanager
    async def _transaction(self, *first: str) -> AsyncIterator[asyncpg.Connection]:
        with self._context.target.store.errors_mapped():
            async with self._held.transaction(*first) as target:
                yield target

    @contextmanager
    def _capturing(self) -> Iterator[None]:
        """Tell a row that cannot be staged from one that cannot be applied."""
        try:
            yield
        except (StoreError, asyncpg.PostgresError) as error:
            store = self._context.target.store.name
            mapped = error if isinstance(error, StoreError) else map_driver_error(store, error)
            if isinstance(mapped, StoreRejected) and refuses_a_row(mapped):
                raise _CaptureRefused(mapped) from error
            raise

    async def _last_staged(self, table: TableStatements) -> Cursor:
        row = await self._target.fetchrow(table.last_staged)
        return Cursor(xid=row["sync_xid"], key=tuple(row["key"]))

    async def _apply(self, table: TableStatements, staged: int, *, captured: int = 0) -> RunProgress:
        """Apply the stage in the caller's transaction; return the progress with it."""
        store = self._context.target.store.name
        with span("apply", table=table.table.name, rows=staged):
            applied: Applied = await apply_staged(
                self._target, self._statements, table, staged=staged, store=store
            )
        self._more |= applied.more
        effects = [TableProgress(table=table.table.name, captured=captured), *applied.effects]
        return await self._bury(self.progress.plus(effects), applied.refused)

    async def _bury(self, progress: RunProgress, refused: Mapping[str, Sequence[DeadLetter]]) -> RunProgress:
        """Put refused rows among the dead letters; return the progress with them."""
        for name, letters in refused.items():
            await bury(
                self._target, name, letters, run_id=self._context.run.run_id, rules=self._context.retry
            )
            progress = progress.with_failures(name, len(letters))
        return progress

    def _committed(self, progress: RunProgress) -> None:
        # Only now: a rolled-back batch must not be counted.
        self.progress = progress
        self._told(progress)
