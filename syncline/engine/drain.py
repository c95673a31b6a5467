"""Drain: applies everything below the horizon, in batches of one transaction each with its cursor.

One module because every kind of batch (deletes, rows, released, requested by key) ends in the same commit.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

import asyncpg

from syncline.engine.batch_size import BatchSize
from syncline.engine.batches import Batches, CaptureRefused
from syncline.engine.bisect import NoNeighbour, Suspects, TableStands
from syncline.engine.capture import Pending, Reading, bytes_a_row, read_rows
from syncline.engine.dead_letters import FEW, DeadLetter, may_be_rows, refuses_a_row
from syncline.engine.deletes import STAGE, letter_of
from syncline.engine.keys import hex_of, is_text, key_of_bytes, reading_of
from syncline.engine.limits import with_setting
from syncline.engine.mapped import recount_step
from syncline.engine.merge import is_large
from syncline.engine.render.statements import DELETES, Cursor, TableStatements
from syncline.engine.schema_transaction import BY_INDEX, FRESH_PLANS
from syncline.engine.state import Ledger
from syncline.engine.template import sql
from syncline.errors import StoreError, StoreRejected
from syncline.messages.sync import TableProgress
from syncline.stores.tenants import reading

__all__ = ["BatchDrain"]

_BATCH_BYTES = 256 * 2**20
"""Limit of a batch in the graph-db stage, by the average row size: texts can be long."""
_COUNT_SECONDS = 5.0
"""Time limit for counting a backlog, which only serves the progress display."""
_COMPARE_SECONDS = 2.0
"""Longest time of comparing keys in one pass, while loads go on: so long changes wait."""
_KEYS = 5_000
"""Rows requested by key in one batch: the keys pass through the worker, and may be long."""


class BatchDrain(Batches):
    """The batches of one cycle. `failed`: table -> why it could not be synced.

    Tables that have failed before are skipped.
    """

    _reads_ahead = True

    async def run(self, ledger: Ledger, pending: Pending, recounts: Sequence[str] = ()) -> None:
        """Drain the tombstones, then every table parents first, then released and requested rows.

        At last make the counts of the tables in `recounts` again.
        """
        if ledger.requeued:
            async with self._transaction(BY_INDEX) as target:
                await target.execute(sql("requeue_due"))
        self._more = ledger.requeued or bool(ledger.released)
        if pending.deletes:
            with self._failing_alone(DELETES):
                await self._drain_deletes(ledger.cursors[DELETES], pending.horizon)
        until = time.monotonic() + _COMPARE_SECONDS if ledger.loads else math.inf
        for name in sorted(ledger.comparisons - self.failed.keys()):
            with self._failing_alone(name):
                await self._compare(name, until)
        waiting = set(pending.tables)
        again = False
        while waiting or self._more or again:
            asking, again = self._more or again, False
            released, requeued = await self._asked_for() if asking else (set(), set())
            if not (waiting | released | requeued) - self.failed.keys():
                break
            if self._out_of_time():
                self.unfinished |= waiting | released | requeued
                break
            for name, table in self._statements.tables.items():
                if name in self.failed:
                    continue
                if self._more:
                    # Requests for tables that were passed already are handled in another round.
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
        for name in recounts:
            if name not in self.failed:
                with self._failing_alone(name):
                    await self._recount(name)
        if self._troubles and not self._landed:
            # No batch succeeded at all: the tables are not at fault, and a retry may help.
            raise self._troubles[0]

    def fail(self, table: str, error: str) -> None:
        """Record that a table failed; other tables continue."""
        self.failed[table] = error
        self._progress.failed(table, error)

    @contextmanager
    def _failing_alone(self, name: str) -> Iterator[None]:
        try:
            try:
                yield
            except TableStands as stands:
                raise stands.error from stands
        except StoreError as error:
            # While the graph-db answers, the table is at fault; else the store is, which ends the cycle.
            if error.retryable:
                if not may_be_rows(error) or self._target.is_closed():
                    raise
                self._troubles.append(error)
            self.fail(name, str(error))

    async def _asked_for(self) -> tuple[set[str], set[str]]:
        """Return (tables with released rows, tables with rows requested by key)."""
        self._more = False
        async with self._transaction(BY_INDEX) as target:
            row = await target.fetchrow(
                sql("asked_for", released=sql("released")), list(self._statements.tables)
            )
        return set(row["released"]), set(row["requeued"])

    @property
    def _may_read_ahead(self) -> bool:
        paced = self._context.budget.rows_per_second is not None
        return self._reads_ahead and not (paced or self._beside_lanes)

    def _stream(self, table: str) -> str:
        """Return the name under which the cursor of a table's rows is stored."""
        return table

    async def _drain_rows(self, table: TableStatements, cursor: Cursor, horizon: int) -> None:
        """Apply rows until none are left below the horizon or the time budget is spent."""
        name, write = table.table.name, self._context.write
        size = BatchSize(await self._rows_a_batch(table), known=self._sizes, name=name)
        suspects = Suspects(convicted=self._convicted(name))
        while not self._out_of_time():
            limit = size.rows
            staged = None
            try:
                async with write.store.driver() as source, AsyncExitStack() as readings:
                    ahead: Reading | None = None
                    # A batch being read ahead is applied too: its COPY cannot be cancelled cleanly.
                    while ahead is not None or not self._out_of_time():
                        staged = None
                        began = time.monotonic()
                        rows = ahead
                        if rows is None and not self._beside_lanes:
                            rows = self._read(source, table, cursor, horizon, limit)
                            readings.push_async_callback(rows.close)
                        ahead = None
                        async with self._staging(table) as batch:
                            if rows is None:
                                # What another lane has read is committed by now.
                                rows = self._read(source, table, cursor, horizon, limit)
                                readings.push_async_callback(rows.close)
                            staged = await rows.copy_into(self._target, table.stage_name, table.stage_columns)
                            await readings.aclose()
                            noted = await self._recent.rows(self._target, table, staged)
                            # A short batch reached the horizon; after a full one there may be more rows.
                            after = await self._last_staged(table) if staged == limit else Cursor(xid=horizon)
                            if staged == limit == size.full and not self._out_of_time():
                                await self._expect(source, table, after, horizon, staged)
                                # The write-db reads the next batch while the graph-db applies this one.
                                # Not at a pace: it would wait in an open transaction there.
                                if self._may_read_ahead:
                                    ahead = self._read(source, table, after, horizon, limit)
                                    readings.push_async_callback(ahead.close)
                            progress = await self._apply(table, staged, captured=staged, noted=noted)
                            if suspects.letters:
                                if not await self._lands_beside(table, staged, suspects):
                                    raise NoNeighbour
                                progress = await self._insert_letters(progress, {name: suspects.letters})
                            written = progress.written(name) - self._progress.run.written(name)
                            batch.ends(progress, moved=(self._stream(name), after))
                            if is_large(staged):
                                await self._target.execute(table.drop_stage)
                        suspects.landed(written)
                        cursor = after
                        if staged < limit:
                            return
                        await self._keep_pace(staged, began)
                        size.passed()
                        # The batch read ahead has the size it was requested with.
                        if ahead is None:
                            limit = size.rows
            except NoNeighbour:
                # The staged rows do not show who is at fault for those before; later rows may.
                if staged is None or staged < limit or suspects.waited_long():
                    raise suspects.verdict() from None
                size.passed()
            except StoreError as error:
                # One of these rows cannot be read or written, or they are too many. The source's connection
                # is closed; others are not.
                if not await self._try_fewer(size, error, staged):
                    cursor = await self._pass_over(table, cursor, horizon, error, suspects)
        if suspects.letters and not suspects.convicted:
            raise suspects.verdict()
        self.unfinished.add(name)

    def _convicted(self, name: str) -> bool:  # noqa: ARG002 # a lane's
        """Return whether rows of a table are known to land."""
        return False

    async def _lands_beside(self, table: TableStatements, staged: int, suspects: Suspects) -> bool:
        """Return whether a row was applied that proves the suspects, not the table, at fault."""
        if suspects.convicted:
            return True
        if self._store_of(suspects.verdict().error) is self._context.write.store:
            return staged > 0
        return await self._target.fetchrow(table.staged_tids) is not None

    async def _pass_over(
        self, table: TableStatements, cursor: Cursor, horizon: int, error: StoreError, suspects: Suspects
    ) -> Cursor:
        """Skip a single row that failed alone; return the cursor after it.

        It becomes a dead letter at once if a store rejected its values. After any other error it becomes one
        when a neighbouring row is applied; raises the error if none is.
        """
        if refuses_a_row(error) and not suspects.letters:
            return await self._insert_next_letter(table, cursor, horizon, error)
        behind = await self._letter_behind(table, cursor, horizon, error)
        if behind is None:
            raise await with_setting(self._store_of(error), error)
        after, letter = behind
        suspects.letters.append(letter)
        if not refuses_a_row(error):
            suspects.add(await with_setting(self._store_of(error), error))
        return after

    async def _letter_behind(
        self, table: TableStatements, cursor: Cursor, horizon: int, error: StoreError
    ) -> tuple[Cursor, DeadLetter] | None:
        """Return the cursor after the next row, and that row as a dead letter.

        None if no row is left below the horizon.
        """
        write, query = self._context.write, table.next_key(self._context.write.schema, cursor)
        async with write.store.driver() as source, reading(source, [table.source(write.schema)]):
            row = await source.fetchrow(query, *cursor.parameters(), str(horizon))
        if row is None:
            return None
        key = key_of_bytes(row["key"])
        return Cursor(xid=row["sync_xid"], key=key), letter_of(error, key, row["sync_xid"])

    async def _expect(
        self, source: asyncpg.Connection, table: TableStatements, cursor: Cursor, horizon: int, staged: int
    ) -> None:
        """Count, once a run, the rows left after a stream's first full batch, if that is quick.

        The batch waits for it: its graph-db transaction must not hit the idle timeout.
        """
        name = table.table.name
        if self._stream(name) in self._progress.counted:
            return
        self._progress.counted.add(self._stream(name))
        schema = self._context.write.schema
        with self._context.write.store.errors_mapped():
            try:
                async with reading(source, [table.source(schema)], first=BY_INDEX):
                    await source.execute(f"SET LOCAL statement_timeout = {round(_COUNT_SECONDS * 1000)}")
                    query = table.behind(schema, cursor)
                    left = await source.fetchval(query, *cursor.parameters(), str(horizon))
            except asyncpg.QueryCanceledError:
                return
        before = self._progress.run.tables.get(name, TableProgress(table=name)).captured
        before = max(before, self._progress.expected.get(name, 0))
        self._progress.expected[name] = before + staged + left

    async def _rows_a_batch(self, table: TableStatements) -> int:
        budget, write = self._context.budget, self._context.write
        rows = min(budget.batch_rows, budget.rows_per_second or budget.batch_rows)
        async with write.store.driver() as connection:
            size = await bytes_a_row(connection, write.schema, table, enough=_BATCH_BYTES)
        return min(rows, max(1, int(_BATCH_BYTES / size))) if size else rows

    def _read(
        self, source: asyncpg.Connection, table: TableStatements, cursor: Cursor, horizon: int, limit: int
    ) -> Reading:
        write = self._context.write
        return read_rows(source, table, place=write, cursor=cursor, horizon=horizon, limit=limit)

    async def _insert_next_letter(
        self, table: TableStatements, cursor: Cursor, horizon: int, error: StoreError
    ) -> Cursor:
        """Insert a dead letter for the first row after the cursor; return the cursor after it."""
        behind = await self._letter_behind(table, cursor, horizon, error)
        if behind is None:
            return cursor
        after, letter = behind
        async with self._batch() as batch:
            progress = await self._insert_letters(self._progress.run.plus([]), {table.table.name: [letter]})
            batch.ends(progress, moved=(self._stream(table.table.name), after), landed=False)
        return after

    async def _drain_released(self, table: TableStatements) -> None:
        """Apply parked rows whose parent has arrived."""
        size = BatchSize(self._context.budget.batch_rows)
        while not self._out_of_time():
            try:
                async with self._staging(table) as batch:
                    status = await self._target.execute(table.waiting.stage_released, size.rows)
                    staged = int(status.rpartition(" ")[2])
                    if not staged:
                        return
                    batch.ends(await self._apply(table, staged))
                if staged < size.rows:
                    return
                size.passed()
            except StoreError as error:
                if not await self._try_fewer(size, error):
                    raise await with_setting(self._store_of(error), error) from error
        self.unfinished.add(table.table.name)

    async def _drain_requeued(self, table: TableStatements) -> None:
        """Read requested rows again by key and apply their current state."""
        name = table.table.name
        size = BatchSize(_KEYS)
        unclear = 0
        async with self._transaction(BY_INDEX) as target:
            await target.execute(sql("requeue_rings"), name)
        while not self._out_of_time():
            try:
                async with (
                    self._context.write.store.driver() as source,
                    self._staging(table) as batch,
                ):
                    asked = await self._target.fetch(sql("requeue_read"), name, size.rows)
                    if not asked:
                        return
                    ids = [row["row_id"] for row in asked]
                    keys = [reading_of(row["key"], row["row_id"]) for row in asked]
                    staged = await self._copy_by_key(source, table, keys)
                    await self._recent.asked(self._target, name, ids)
                    # Keys that are not valid text were never applied: no stage accepts such a row.
                    texts = {row_id: key for row_id, key in zip(ids, keys, strict=True) if is_text(key)}
                    gone = [json.dumps(key) for key in texts.values()]
                    await self._target.execute(table.missing, list(texts), gone)
                    if len(texts) < len(ids):
                        await self._recent.unclear(self._target)
                        await self._target.execute(sql("forget"), name, list(set(ids) - texts.keys()))
                    batch.ends(await self._apply(table, staged, asked=True))
                    await self._target.execute(sql("requeue_done"), name, ids)
                unclear = 0
                size.passed()
            except StoreError as error:
                if not await self._try_fewer(size, error):
                    unclear += not await self._insert_requeued_letter(table, error)
                    if unclear > FEW:
                        raise await with_setting(self._store_of(error), error) from error
        self.unfinished.add(name)

    async def _copy_by_key(
        self, source: asyncpg.Connection, table: TableStatements, keys: Sequence[Sequence[str]]
    ) -> int:
        readable = all(map(is_text, keys))
        columns = [list(column) for column in zip(*(keys if readable else map(hex_of, keys)), strict=True)]
        write, sources = self._context.write, [table.source(self._context.write.schema)]
        query = table.capture_by_key(write.schema, readable=readable)
        async with Reading(source, query, columns, write.store.name, tables=sources) as rows:
            return await rows.copy_into(self._target, table.stage_name, table.stage_columns)

    async def _insert_requeued_letter(self, table: TableStatements, error: StoreError) -> bool:
        """Make the next requested row a dead letter; return whether that is certain.

        It is if a store rejected its values, or rejected it with the same error before.
        """
        name = table.table.name
        async with self._batch() as batch:
            [row] = await self._target.fetch(sql("requeue_read"), name, 1)
            before = await self._target.fetchrow(sql("refused_before"), name, row["row_id"])
            key = reading_of(row["key"], row["row_id"])
            # Its version cannot be read; assume the one of the last dead letter, if any.
            letter = letter_of(error, key, before["version"] if before else 0)
            batch.ends(
                await self._insert_letters(self._progress.run.plus([]), {name: [letter]}), landed=False
            )
            if is_text(key):
                await self._recent.asked(self._target, name, [row["row_id"]])
            else:
                await self._recent.unclear(self._target)
            await self._target.execute(sql("requeue_done"), name, [row["row_id"]])
        return refuses_a_row(error) or (before is not None and before["sqlstate"] == error.sqlstate)

    async def _drain_deletes(self, cursor: Cursor, horizon: int) -> None:
        """Delete the rows of deleted keys, of all tables in the order of deletion."""
        full = limit = self._context.budget.batch_rows
        while not self._out_of_time():
            try:
                async with self._context.write.store.driver() as source:
                    while not self._out_of_time():
                        async with self._batch(self._deletes.create_stage, FRESH_PLANS) as batch:
                            with self._capturing():
                                staged = await self._deletes.stage(source, cursor, horizon, limit)
                            await self._recent.deletes(self._target, STAGE, staged)
                            after = await self._deletes.last() if staged == limit else Cursor(xid=horizon)
                            batch.ends(await self._remove(), moved=(DELETES, after))
                        cursor = after
                        self.deletes_read = cursor.xid
                        if staged < limit:
                            return
                        limit = min(full, limit * 2)
            except CaptureRefused as refusal:
                # One of these keys cannot be read or is invalid. The other rows must still be deleted.
                if limit == 1:
                    cursor = await self._pass_deleted(cursor, horizon, refusal.error)
                limit = max(1, limit // 2)
        self.unfinished.add(DELETES)

    async def _compare(self, name: str, until: float) -> None:
        """Request by key the rows of a table that the write-db no longer has."""
        comparison, self._more = self._statements.comparisons[name], True
        if self._out_of_time() or time.monotonic() >= until:
            self.unfinished.add(name)
            return
        async with self._context.write.store.driver() as source:
            while not self._out_of_time() and time.monotonic() < until:
                async with self._batch() as batch:
                    ended = await comparison.step(
                        self._target, source, self._context.write, share=self._context.removal_share
                    )
                    batch.ends(self._progress.run, landed=False)
                if ended:
                    return
        self.unfinished.add(name)

    async def _recount(self, name: str) -> None:
        """Make all counts of a table again: what is counted has changed."""
        while not self._out_of_time():
            async with self._batch() as batch:
                ended = await recount_step(self._target, self._statements, name)
                batch.ends(self._progress.run, landed=False)
            if ended:
                self.recounted.add(name)
                return
        self.unfinished.add(name)

    async def _pass_deleted(self, cursor: Cursor, horizon: int, error: StoreRejected) -> Cursor:
        """Handle the first tombstone after the cursor, which was rejected; return the cursor after it."""
        deleted = await self._deletes.first(cursor, horizon)
        if deleted is None:
            return cursor
        async with self._batch() as batch:
            letters, passed_over = await self._deletes.settle(deleted, error)
            await self._recent.unclear(self._target)
            progress = await self._insert_letters(self._progress.run.plus([]), letters)
            for name in passed_over:
                progress = progress.with_failures(name, 1)
            batch.ends(progress, moved=(DELETES, deleted.cursor))
        self.deletes_read = deleted.cursor.xid
        return deleted.cursor
