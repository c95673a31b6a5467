"""One cycle of one graph: take the graph, drain every table, announce, index, report."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg

from syncline import names
from syncline.engine.apply import apply_staged
from syncline.engine.capture import Pending, ask_pending, copy_to_stage
from syncline.engine.index import drain_outbox
from syncline.engine.ledger import Ledger, RunProgress, Tenure, read_ledger
from syncline.engine.statements import Cursor, SchemaStatements, TableStatements, sql
from syncline.engine.tablemap import SchemaMap
from syncline.errors import CycleBusy, StoreRejected
from syncline.messages import (
    CycleProgress,
    CycleStatus,
    SyncEvent,
    SyncResult,
    TableProgress,
    VectorProgress,
)
from syncline.provider import GraphSchema, SyncContext

_PAYLOAD_LIMIT = 8000
"""Bytes from which on Postgres refuses the payload of a NOTIFY."""
_AHEAD = (
    "{source} has rows with a sync_xid that this write-db has yet to reach, as after a restore from a dump "
    "of another cluster; they wait until they are stamped again: "
    "UPDATE {source} SET sync_xid = DEFAULT WHERE sync_xid >= pg_snapshot_xmax(pg_current_snapshot())"
)
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('syncline:' || current_schema(), 0))"
_UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('syncline:' || current_schema(), 0))"


class SyncEngine:
    """The built-in engine over one schema map. It keeps no state of a graph between cycles."""

    def __init__(self, schema_map: SchemaMap) -> None:
        self.schema_map = schema_map
        self.statements = SchemaStatements(schema_map)

    async def run_cycle(self, context: SyncContext) -> SyncResult:
        """Run one cycle and return what it did.

        Raise StoreUnavailable when a store cannot be reached, CycleBusy when an earlier attempt of the same
        run still holds the graph, CycleFenced when another cycle took it over. A table that fails is reported
        in the result; the other tables go on.
        """
        started = time.monotonic()
        async with _on_schema(context.target) as target:
            if not await target.fetchval(_LOCK):
                return await self._held_by_another(context, target, started)
            result = await _Cycle(self.statements, context, target, started).run()
            # Not in a finally: a connection that saw an exception is closed, and its lock goes with it.
            await target.execute(_UNLOCK)
            return result

    async def _held_by_another(
        self, context: SyncContext, target: asyncpg.Connection, started: float
    ) -> SyncResult:
        holder = await target.fetchval("SELECT holder_run_id FROM sync_state")
        if holder == context.run.run_id:
            raise CycleBusy(context.graph.slug, context.run.run_id)
        return SyncResult(status=CycleStatus.ALREADY_RUNNING, duration_seconds=time.monotonic() - started)


@asynccontextmanager
async def _on_schema(place: GraphSchema) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection whose search_path is the graph's schema, and give it back without it."""
    async with place.store.driver() as connection:
        await connection.execute("SELECT set_config('search_path', quote_ident($1), false)", place.schema)
        yield connection
        await connection.execute("RESET search_path")


class _Cycle:
    """The state of one running cycle."""

    def __init__(
        self, statements: SchemaStatements, context: SyncContext, target: asyncpg.Connection, started: float
    ) -> None:
        self._statements = statements
        self._context = context
        self._target = target
        self._started = started
        self._failed: dict[str, str] = {}
        self._unfinished: set[str] = set()
        self._progress = RunProgress(run_id=context.run.run_id)
        self._vectors = VectorProgress()

    async def run(self) -> SyncResult:
        context = self._context
        ledger = await read_ledger(self._target, tables=self._statements.tables, run_id=context.run.run_id)
        self._progress = ledger.progress
        pending, ledger, rescanned = await self._ask(ledger)
        for name in pending.ahead:
            self._fail(name, _AHEAD.format(source=self._statements.tables[name].table.source))
        active = pending.tables | ledger.released
        if active or self._progress.unannounced or ledger.outbox or rescanned:
            tenure = await Tenure.take(
                self._target,
                graph=context.graph.slug,
                run_id=context.run.run_id,
                write_cluster=pending.cluster,
                rescan=rescanned,
            )
            await self._drain_tables(tenure, ledger, pending)
            await self._announce(tenure)
            self._vectors = await self._drain_outbox()
        return await self._result(ledger, pending, rescanned)

    async def _ask(self, ledger: Ledger) -> tuple[Pending, Ledger, bool]:
        """Ask the write-db what is new; a cursor that cannot be of this write-db starts again from zero."""
        schema = self._context.write.schema
        async with self._context.write.store.driver() as source:
            pending = await ask_pending(source, self._statements, schema, ledger.cursors)
            another = ledger.write_cluster not in (None, pending.cluster)
            restored = any(cursor.xid > pending.horizon for cursor in ledger.cursors.values())
            if not another and not restored:
                return pending, ledger, False
            self._context.log.warning(
                "cursor is of another write-db, every row is read again",
                graph=self._context.graph.slug,
                reason="another cluster or timeline" if another else "an earlier point in time",
            )
            ledger = ledger.rescanned()
            return await ask_pending(source, self._statements, schema, ledger.cursors), ledger, True

    async def _drain_tables(self, tenure: Tenure, ledger: Ledger, pending: Pending) -> None:
        released = set(ledger.released)
        for name, table in self._statements.tables.items():
            if name not in pending.tables and name not in released:
                continue
            try:
                finished = name not in released or await self._drain_released(tenure, table, released)
                if finished and name in pending.tables:
                    cursor = ledger.cursors[name]
                    finished = await self._drain_table(tenure, table, cursor, pending.horizon, released)
                if not finished:
                    self._unfinished.add(name)
            except StoreRejected as error:
                # The table's own trouble; anything else is the store's and ends the cycle.
                self._fail(name, str(error))

    def _fail(self, table: str, error: str) -> None:
        self._failed[table] = error
        self._context.log.error("table failed", graph=self._context.graph.slug, table=table, error=error)

    async def _drain_table(
        self, tenure: Tenure, table: TableStatements, cursor: Cursor, horizon: int, released: set[str]
    ) -> bool:
        """Move batches until nothing is left below the horizon; return False if time ran out first."""
        limit = self._context.budget.batch_rows
        write = self._context.write
        async with _on_schema(write) as source:
            while not self._out_of_time():
                async with self._batch(table):
                    staged = await copy_to_stage(
                        source,
                        self._target,
                        table,
                        source_name=write.store.name,
                        cursor=cursor,
                        horizon=horizon,
                        limit=limit,
                    )
                    # A full batch may have more behind it; a short one has seen all below the horizon.
                    cursor = await self._last_staged(table) if staged == limit else Cursor(xid=horizon)
                    progress = await self._apply(tenure, table, staged, cursor, released)
                self._committed(progress)
                if staged < limit:
                    return True
        return False

    @asynccontextmanager
    async def _batch(self, table: TableStatements) -> AsyncIterator[None]:
        """One transaction on the graph-db with an empty stage; its driver errors name the graph-db."""
        with self._context.target.store.errors_mapped():
            async with self._target.transaction():
                await self._target.execute(table.create_stage)
                yield

    async def _last_staged(self, table: TableStatements) -> Cursor:
        row = await self._target.fetchrow(table.last_staged)
        return Cursor(xid=row["sync_xid"], key=tuple(row["key"]))

    async def _drain_released(self, tenure: Tenure, table: TableStatements, released: set[str]) -> bool:
        """Land the parked rows whose parent has come; return False if time ran out first."""
        limit = self._context.budget.batch_rows
        while not self._out_of_time():
            async with self._batch(table):
                status = await self._target.execute(table.stage_released, limit)
                staged = int(status.rpartition(" ")[2])
                if staged:
                    progress = await self._apply(tenure, table, staged, None, released)
            if staged:
                self._committed(progress)
            if staged < limit:
                return True
        return False

    async def _apply(
        self, tenure: Tenure, table: TableStatements, staged: int, cursor: Cursor | None, released: set[str]
    ) -> RunProgress:
        """Apply the stage and its ledger entry in the caller's transaction; return the progress with it."""
        applied = await apply_staged(self._target, table, staged=staged)
        if applied.released:
            released.update(self._statements.tables)
        captured = TableProgress(table=table.table.name, captured=0 if cursor is None else staged)
        progress = self._progress.plus([captured, *applied.effects])
        if cursor is None:
            await tenure.note(self._target, progress)
        else:
            await tenure.commit(self._target, progress, table=table.table.name, cursor=cursor)
        return progress

    def _committed(self, progress: RunProgress) -> None:
        # Only now: a rolled-back batch must not be counted.
        self._progress = progress
        self._beat("capture")

    async def _announce(self, tenure: Tenure) -> None:
        """Tell downstream caches, in the transaction that ends the run: no event without data, none twice."""
        changed = self._progress.unannounced
        async with self._target.transaction():
            for payload in self._payloads(changed):
                await self._target.execute("SELECT pg_notify($1, $2)", names.NOTIFY_CHANNEL, payload)
            told = replace(self._progress, untold={})
            await tenure.finish(self._target, told, drained=not self._failed and not self._unfinished)
        self._progress = told

    def _payloads(self, changed: dict[str, TableProgress]) -> Iterator[str]:
        """Yield the event, in parts of fewer tables each where Postgres would refuse it as too long."""
        if not changed:
            return
        event = SyncEvent(
            graph=self._context.graph.slug,
            graph_id=self._context.graph.id,
            run_id=self._context.run.run_id,
            rows={name: table.rows + table.deletes for name, table in changed.items()},
            links={name: table.links for name, table in changed.items() if table.links},
            failures=len(self._failed),
        )
        payload = event.model_dump_json()
        if len(payload.encode()) < _PAYLOAD_LIMIT or len(changed) == 1:
            yield payload
            return
        tables, half = list(changed.items()), len(changed) // 2
        yield from self._payloads(dict(tables[:half]))
        yield from self._payloads(dict(tables[half:]))

    async def _drain_outbox(self) -> VectorProgress:
        def beat(points: int) -> None:
            self._vectors = VectorProgress(upserted=points)
            self._beat("vectors")

        return await drain_outbox(
            self._target,
            self._statements.schema_map,
            self._context,
            out_of_time=self._out_of_time,
            beat=beat,
        )

    async def _result(self, ledger: Ledger, pending: Pending, rescanned: bool) -> SyncResult:
        parked = {row["table_name"]: row["parked"] for row in await self._target.fetch(sql("parked_count"))}
        tables = []
        for name in self._statements.tables:
            counted = self._progress.tables.get(name, TableProgress(table=name))
            error = self._failed.get(name)
            tables.append(
                counted.model_copy(
                    update={
                        "parked": parked.get(name, 0),
                        "drained": error is None and name not in self._unfinished,
                        "failures": 0 if error is None else 1,
                        "error": error,
                    }
                )
            )
        status = self._status(all(table.drained for table in tables))
        writer = pending.oldest_writer
        behind = writer.age_seconds or 0.0 if writer else 0.0
        if self._failed or self._unfinished:
            since = ledger.behind_since
            waited = 0.0 if since is None else (datetime.now(UTC) - since).total_seconds()
            behind = max(behind, waited, time.monotonic() - self._started)
        return SyncResult(
            status=status,
            tables=tuple(tables),
            vectors=self._vectors,
            failures=len(self._failed),
            parked=sum(parked.values()),
            lag_seconds=behind,
            oldest_writer=writer,
            batches=self._progress.batches,
            duration_seconds=time.monotonic() - self._started,
            rescanned=rescanned,
        )

    def _status(self, tables_drained: bool) -> CycleStatus:
        if self._failed:
            return CycleStatus.FAILED
        if not tables_drained or (self._vectors.pending and self._vectors.error is None):
            return CycleStatus.BUDGET_SPENT
        return CycleStatus.VECTORS_DELAYED if self._vectors.error else CycleStatus.DRAINED

    def _out_of_time(self) -> bool:
        return time.monotonic() - self._started >= self._context.budget.seconds

    def _beat(self, phase: str) -> None:
        self._context.heartbeat(
            CycleProgress(
                phase=phase,
                tables=tuple(self._progress.tables.values()),
                vectors=self._vectors.upserted,
            )
        )
