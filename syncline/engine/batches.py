"""Batches: one transaction of a cycle each, how it is applied, and what becomes of one that fails."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import asyncpg

from syncline.engine.batch_size import BatchSize
from syncline.engine.dead_letters import (
    DeadLetter,
    TableRefused,
    insert_dead_letters,
    may_be_rows,
    refuses_a_row,
)
from syncline.engine.deletes import Deletes
from syncline.engine.keys import row_uuid
from syncline.engine.limits import is_limit, with_setting
from syncline.engine.merge import Applied, apply_staged, remove_gone, shared_stages
from syncline.engine.render.statements import Cursor, SchemaStatements, TableStatements
from syncline.engine.results import Progress
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence, RunProgress
from syncline.engine.template import sql
from syncline.errors import StoreError, StoreRejected
from syncline.messages.sync import TableProgress
from syncline.provider import SyncContext
from syncline.stores.postgres import PostgresStore, map_driver_error
from syncline.tracing import span

__all__ = ["Batch", "Batches", "CaptureRefused"]

_TRIES = 3
"""How often a single row is tried before what a store says is believed, where that may pass by itself."""


class CaptureRefused(Exception):
    """A deleted key did not even come into the stage: its source, or the stage, refused it."""

    def __init__(self, error: StoreRejected) -> None:
        self.error = error


@dataclass
class Batch:
    """One batch on its way. It stores no progress unless `ends` has said what it comes to."""

    progress: RunProgress | None = None
    moved: tuple[str, Cursor] | None = None
    landed: bool = True

    def ends(
        self, progress: RunProgress, *, moved: tuple[str, Cursor] | None = None, landed: bool = True
    ) -> None:
        """Have the batch end with this progress, and with the cursor of `moved` where that says.

        `landed`: whether it shows that the stores take rows at all.
        """
        self.progress, self.moved, self.landed = progress, moved, landed


class Batches:
    """What every stream of a cycle's batches shares."""

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
    ) -> None:
        """Keep what a cycle is made of. `sizes` has the rows a batch of tables that a limit has struck."""
        self._statements = statements
        self._context = context
        self._held, self._target = held, held.connection
        self._fence = fence
        self._deletes = Deletes(statements, context, held.connection)
        self._out_of_time = out_of_time
        self._more = False
        self._counted: set[str] = set()
        self._sizes = sizes
        self._landed = False
        self._limits_logged = False
        self._troubles: list[StoreError] = []
        self._progress = progress
        self.failed = dict(failed)
        self.unfinished: set[str] = set()
        self.deletes_read: int | None = None
        """Before which transaction all deleted keys were read, if any were."""

    def _store_of(self, error: StoreError) -> PostgresStore:
        write, target = self._context.write.store, self._context.target.store
        return write if error.store == write.name else target

    async def _try_fewer(self, size: BatchSize, error: StoreError, staged: int | None = None) -> bool:
        """Return whether a batch that failed is to be tried with fewer rows, or once more if it was one row.

        If not, it is a single row that failed alone. `staged` is how many rows it had, if it came so far.
        Raise the error if rows have nothing to do with it.
        """
        if not may_be_rows(error) or self._target.is_closed():
            if is_limit(error):
                # The next attempt is another connection's, with what this one could not do in time.
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
        # What tells of a value will be told again, and a limit took its time; anything else may pass.
        if not refuses_a_row(error) and not is_limit(error) and size.once_more(_TRIES):
            return True
        size.blame_the_row()
        return False

    @asynccontextmanager
    async def _batch(self, create_stage: str | None = None) -> AsyncIterator[Batch]:
        """One transaction on the graph-db with empty stages, and the end that every batch has.

        Its cursor and the progress commit with what it did; then it is told. Driver errors name the graph-db.
        """
        stages, batch = shared_stages(self._statements), Batch()
        async with self._transaction(*stages, *([create_stage] if create_stage is not None else [])):
            yield batch
            if batch.progress is not None:
                await self._fence.commit(self._target, batch.progress, moved=batch.moved)
        if batch.progress is not None:
            # Only now: a rolled-back batch must not be counted.
            self._landed |= batch.landed
            self._progress.committed(batch.progress)

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
                raise CaptureRefused(mapped) from error
            raise

    async def _last_staged(self, table: TableStatements) -> Cursor:
        row = await self._target.fetchrow(table.last_staged)
        return Cursor(xid=row["sync_xid"], key=tuple(row["key"]))

    async def _apply(
        self, table: TableStatements, staged: int, *, captured: int = 0, asked: bool = False
    ) -> RunProgress:
        """Apply the stage in the caller's transaction; return the progress with it.

        `asked`: the rows were asked for by key, with all that they are entangled with.
        """
        store = self._context.target.store.name
        with span("apply", table=table.table.name, rows=staged):
            applied: Applied = await apply_staged(
                self._target, self._statements, table, staged=staged, store=store
            )
        self._more |= applied.more
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

    async def _insert_letters(
        self, progress: RunProgress, refused: Mapping[str, Sequence[DeadLetter]]
    ) -> RunProgress:
        """Put refused rows among the dead letters; return the progress with them."""
        for name, letters in refused.items():
            await insert_dead_letters(
                self._target, name, letters, run_id=self._context.run.run_id, rules=self._context.retry
            )
            progress = progress.with_failures(name, len(letters))
        return progress

    async def _remove(self) -> RunProgress:
        store = self._context.target.store.name
        effects, refused = await remove_gone(self._target, self._statements, store)
        await self._statements.recount.run(self._target)
        self._more |= bool(effects)
        return await self._insert_letters(self._progress.run.plus(effects), refused)
