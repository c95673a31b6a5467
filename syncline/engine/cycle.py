"""One sync cycle of one graph: lock, drain every table, notify, index vectors, report.

One module because its steps share the lock, the fence and the time budget of the run, in this order.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import asyncpg

from syncline import names
from syncline.engine.capture import Pending
from syncline.engine.checkpoints import RecentKeys
from syncline.engine.drain import BatchDrain
from syncline.engine.fill import FillDrain
from syncline.engine.first_load import FirstLoad
from syncline.engine.lane import run_lane
from syncline.engine.lane_lock import lane_session, lane_transaction
from syncline.engine.linger import Passes, linger
from syncline.engine.live_lane import begin_loads
from syncline.engine.lock import Holder, end_dead_holder, find_holder, holder_name_sql, refuse_own_run
from syncline.engine.news import News
from syncline.engine.position import Position
from syncline.engine.pruning import Pruning
from syncline.engine.range_drain import RangeDrain
from syncline.engine.ranges import (
    CYCLE,
    OpenRanges,
    forget_ranges,
    read_ranges,
    stop_lanes,
    worth_ranges,
)
from syncline.engine.render.statements import DELETES, Cursor, SchemaStatements
from syncline.engine.results import Progress, add_up
from syncline.engine.schema_problems import Fit, schema_problems
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.source_check import SourceCheck
from syncline.engine.state import Fence, Ledger, payloads, read_ledger
from syncline.engine.table_map import SchemaMap
from syncline.engine.template import sql
from syncline.engine.vectors.drain import Drained, drain_outbox
from syncline.engine.vectors.live_alias import aliases_lost, make_again
from syncline.engine.vectors.outbox import due_sql
from syncline.engine.visible import Look, advance, answer, look, notify, request
from syncline.errors import RowsFiltered, SchemaMoved, StatementOutdated, StoreError
from syncline.maps.one_tenant import of_tenant, tenant_of
from syncline.messages.sync import CycleStatus, LaneResult, OpenWriter, SyncResult, TableProgress, Withheld
from syncline.provider import SyncContext
from syncline.tracing import span

__all__ = ["Cursor", "SyncEngine"]

_AHEAD = (
    "{source} has rows with a sync_xid beyond this write-db's transactions, as after a restore from a dump "
    "of another cluster; they are not synced until they are stamped again: "
    "UPDATE {source} SET sync_xid = DEFAULT WHERE sync_xid >= pg_snapshot_xmax(pg_current_snapshot())"
)
_LOCK_SECONDS = 5.0
"""Longest wait for the advisory lock of a connection that was closed or terminated."""
_MOST_TENANTS = 1_000
"""Engines of tenants that are kept: one more is made in a millisecond."""
_FILL_SECONDS = 1.0
"""Longest time of one pass for rows that are read again in the background: so long other tables wait."""
_Drain = TypeVar("_Drain", bound=BatchDrain)
_ASKED_AGAIN = 60.0
"""Seconds for which the choice between several embedding services is remembered."""
_PASSING_TRIES, _PASS_TRIES, _PASSING_PAUSE = 20, 10, 0.1
"""Polls for a lock that no cycle holds, 2 s in all: an operation holds it for one transaction. And for one
that a cycle holds: if that lingers, it holds the lock for a pass."""


class SyncEngine:
    """The built-in engine for one schema map.

    Between cycles it caches per graph: that the tables fit the map, what was logged, and reduced batch sizes
    of tables where larger batches hit a limit of the stores.
    """

    def __init__(self, schema_map: SchemaMap) -> None:
        self.schema_map = schema_map
        self.statements = SchemaStatements(schema_map)
        self._fitting: dict[tuple[str, ...], Fit] = {}
        self._logged: set[tuple[str, ...]] = set()
        self._sizes: dict[tuple[str, ...], dict[str, int]] = {}
        self._chosen: dict[tuple[str, ...], tuple[str, float]] = {}
        self._timeless: set[str] = set()
        self._pruning = Pruning()
        self._tenants: OrderedDict[str, SyncEngine] = OrderedDict()

    def of_tenant(self, value: str | int | None) -> "SyncEngine":
        """Return the engine for one tenant's rows; itself for a map without tenants, which takes no value.

        It shares everything that was rendered. Raise TenantInvalid for a value that does not fit the map.
        """
        if value is None:
            of_tenant(self.schema_map, value)
            return self
        key = str(value)
        if key not in self._tenants:
            bound = copy(self)
            bound.schema_map = of_tenant(self.schema_map, value)
            bound.statements = self.statements.of_tenant(bound.schema_map)
            self._tenants[key] = bound
            if len(self._tenants) > _MOST_TENANTS:
                self._tenants.popitem(last=False)
        self._tenants.move_to_end(key)
        return self._tenants[key]

    async def run_cycle(
        self,
        context: SyncContext,
        *,
        replacing: bool = False,
        frozen: bool = False,
        fast_load: bool | None = None,
    ) -> SyncResult:
        """Run one cycle and return its result.

        `frozen`: columns that are added to sources stay out; the first cycle that finds one says so.
        `fast_load`: whether the first load of empty tables puts off their counts, foreign keys and indexes;
        None: keys and indexes only of tables that Syncline has made.

        A table whose map has changed since the last cycle is read again where its rows may differ. Not while
        the engine is `replacing` a provider that is not there: its map is not the graph's.
        Terminates the lock's holder if that is an earlier attempt of this run, or a run that has ended.
        Raises StoreUnavailable when a store cannot be reached, CycleBusy when another attempt of this run
        still holds the graph, CycleFenced when another cycle took it over, LoadBlocked when another session
        has the lock of its lanes. A table that fails is reported in the result; the other tables continue.
        Raises TenantInvalid if its map has tenants, and it is of none.
        Where the context lets it `linger`, it stays open for further changes once it has drained.
        """
        tenant_of(self.schema_map)
        started, passes = time.monotonic(), Passes()

        async def once() -> SyncResult:
            return await self._run_pass(
                context, started, passes, replacing=replacing, frozen=frozen, fast_load=fast_load
            )

        return await linger(context, self.statements, passes, await once(), once)

    async def load_ranges(self, context: SyncContext, *, lane: str, over: Callable[[], bool]) -> LaneResult:
        """Take part in the loads of the graph, beside its cycle (`syncline.engine.lane`).

        `context.run` is the attempt of the cycle; `lane` is the name by which ranges say who has taken them.
        Raises TenantInvalid like `run_cycle`.
        """
        tenant_of(self.schema_map)
        return await run_lane(self.statements, context, lane=lane, over=over)

    async def _run_pass(
        self,
        context: SyncContext,
        started: float,
        passes: Passes,
        *,
        replacing: bool,
        frozen: bool,
        fast_load: bool | None,
    ) -> SyncResult:
        try:
            return await self._run_cycle(
                context, started, passes, replacing=replacing, frozen=frozen, fast_load=fast_load
            )
        except RowsFiltered:
            # Postgres names only the table. Row security on the engine's own tables is raised by this check.
            self._fitting.pop(_place(context), None)
            async with context.target.store.driver() as target:
                await self._schema_problems(context, target)
            raise
        except StatementOutdated as error:
            # A table was altered. The connection is closed; a new one continues from the last committed
            # batch.
            context.log.info("cycle restarted", graph=context.graph.slug, reason=str(error))
            self._fitting.pop(_place(context), None)
            return await self._run_cycle(
                context,
                started,
                passes,
                patience=_LOCK_SECONDS,
                replacing=replacing,
                frozen=frozen,
                fast_load=fast_load,
            )

    async def _run_cycle(
        self,
        context: SyncContext,
        started: float,
        passes: Passes,
        *,
        patience: float = 0.0,
        replacing: bool,
        frozen: bool,
        fast_load: bool | None,
    ) -> SyncResult:
        async with context.target.store.driver() as target:
            held = HeldSchema(target, context.target.schema)
            deadline = time.monotonic() + patience
            ended = False
            while (ledger := await self._take(context, held)) is None:
                if time.monotonic() >= deadline:
                    if ended or not await end_dead_holder(context, held):
                        break
                    ended, deadline = True, time.monotonic() + _LOCK_SECONDS
                await asyncio.sleep(0.05)
            # The holder may have looked for changes before those of this run were committed: leave it a mark.
            if ledger is None and (ledger := await self._take(context, held, mark=True)) is None:
                async with held.transaction(held.unnamed) as held_target:
                    taken_by = await held_target.fetchval("SELECT holder_run_id FROM sync_state")
                    holder = await find_holder(held_target, context.target.schema)
                # Where it lingers, this very attempt has had it last.
                refuse_own_run(context, holder, taken_by=None if passes.any else taken_by)
                # An operation does not read the mark; a pass of a lingering cycle is over soon.
                operation = holder is None or holder.claims is None
                ledger = await self._take_patiently(
                    context, held, tries=_PASSING_TRIES if operation else _PASS_TRIES
                )
                if ledger is None:
                    return _already_running(holder, started)

            async def look_again() -> Fit:
                self._fitting.pop(_place(context), None)
                return await self._schema_problems(context, target)

            # The last transaction releases the lock. Not in a finally: after an exception the connection is
            # closed, which releases it too.
            sizes = self._sizes.setdefault(_place(context), {})

            async def cycle(before: _Cycle | None = None) -> _Cycle:
                if before is None or before.progress.failed_anew:
                    fit = await self._schema_problems(context, target)
                else:
                    # Tables that fail as in the pass before are not checked again: turns of a load are short.
                    fit = before.fit
                check = SourceCheck(
                    self.statements,
                    context,
                    held,
                    fit,
                    look_again,
                    replacing=replacing,
                    frozen=frozen,
                    timeless=self._timeless,
                )
                return _Cycle(
                    self.statements,
                    context,
                    held,
                    started,
                    check,
                    self._pruning,
                    sizes,
                    fast_load,
                    Progress(context, None if before is None else before.progress),
                )

            result = await self._look(context, held, cycle, passes, ledger)
            self._log_unknown(context, result)
            return result

    async def _look(
        self,
        context: SyncContext,
        held: HeldSchema,
        cycle: "Callable[..., Awaitable[_Cycle]]",
        passes: Passes,
        ledger: Ledger,
    ) -> SyncResult:
        """Run the cycle, and again while other runs left marks because they found the graph locked, or rows
        are left of loads, or rows that are read again in the background.

        Stops at the time budget; the result then has `look_owed`.
        """
        look = await cycle()
        result = await look.run(passes.begun(ledger))
        passes.ended(look.progress.run, look.horizon)
        self._recheck_after_failure(context, result)
        self._remember(context, look.embedding)
        while held.marked or look.turn_over or (look.filling and result.status is not CycleStatus.FAILED):
            if look.out_of_time():
                spent = result.status is CycleStatus.DRAINED
                status = CycleStatus.BUDGET_SPENT if spent else result.status
                return result.model_copy(update={"status": status, "look_owed": True})
            again = await self._take(context, held)
            if again is None:
                # The new holder took the lock after the mark was left, so it sees those changes.
                async with held.transaction(held.unnamed):
                    pass
                break
            context.log.info(
                "cycle repeated", graph=context.graph.slug, filling=look.filling, turn_over=look.turn_over
            )
            look = await cycle(look)
            result = add_up(result, await look.run(passes.begun(again)))
            passes.ended(look.progress.run, look.horizon)
            self._recheck_after_failure(context, result)
            self._remember(context, look.embedding)
        return result

    def _made_with(self, context: SyncContext) -> str:
        """Return the service that the graph's vectors are likely made with: of several, the last chosen.

        With another one each cycle would ask again; so it does once a minute, since the record may change.
        """
        name, asked_at = self._chosen.get(_place(context), (None, 0.0))
        fresh = time.monotonic() - asked_at < _ASKED_AGAIN
        offered = [service.name for service in context.embeddings]
        return name if name in offered and fresh else context.embedding.name

    def _remember(self, context: SyncContext, embedding: str | None) -> None:
        if embedding is not None and len(context.embeddings) > 1:
            self._chosen[_place(context)] = embedding, time.monotonic()

    def _recheck_after_failure(self, context: SyncContext, result: SyncResult) -> None:
        """Drop the cached schema check after a cycle with failures: a table may have been altered."""
        if result.status is CycleStatus.FAILED or result.failures:
            self._fitting.pop(_place(context), None)

    async def _take(self, context: SyncContext, held: HeldSchema, *, mark: bool = False) -> Ledger | None:
        """Acquire the graph's lock and return its ledger; None if another cycle holds the lock.

        `mark`: ask that cycle to look for changes once more before it ends.
        """
        name = holder_name_sql(context.run.run_id, context.run.attempt)
        async with held.locking(name, mark=mark) as locked:
            if not locked:
                return None
            return await read_ledger(
                held.connection,
                tables=self.statements.tables,
                run_id=context.run.run_id,
                outbox_due=due_sql(self.schema_map, self._made_with(context)),
            )

    async def _schema_problems(self, context: SyncContext, target: asyncpg.Connection) -> Fit:
        """Return the tables that cannot be synced, and why. Cached until a cycle fails."""
        place = _place(context)
        if place in self._fitting:
            return self._fitting[place]
        # This may run inside a write-db connection, and then errors would name the write-db.
        with context.target.store.errors_mapped():
            found = await schema_problems(
                context.write, target, context.target.schema, self.schema_map, shadow=context.shadow
            )
        # A missing privilege may be granted at any time, so that result is not cached.
        if not found.failed and found.footing.writable:
            self._fitting[place] = found
        return found

    def _log_unknown(self, context: SyncContext, result: SyncResult) -> None:
        """Log once per write-db what it cannot report; every result has it too."""
        place = (*_place(context), *result.unknown)
        if result.unknown and place not in self._logged:
            self._logged.add(place)
            context.log.warning(
                "write-db cannot report everything", graph=context.graph.slug, unknown=list(result.unknown)
            )

    async def _take_patiently(self, context: SyncContext, held: HeldSchema, *, tries: int) -> Ledger | None:
        """Poll for the graph's lock; None if it stays held."""
        for _ in range(tries):
            await asyncio.sleep(_PASSING_PAUSE)
            if (ledger := await self._take(context, held)) is not None:
                return ledger
        async with held.transaction(held.unnamed):
            return None


def _already_running(holder: Holder | None, started: float) -> SyncResult:
    return SyncResult(
        status=CycleStatus.ALREADY_RUNNING,
        duration_seconds=time.monotonic() - started,
        holder=None if holder is None else holder.session,
    )


def _place(context: SyncContext) -> tuple[str, ...]:
    return context.write.store.name, context.write.schema, context.target.store.name, context.target.schema


class _Cycle:
    """The state of one running cycle. Tables that do not fit the map are skipped and reported."""

    def __init__(
        self,
        statements: SchemaStatements,
        context: SyncContext,
        held: HeldSchema,
        started: float,
        source_check: SourceCheck,
        pruning: Pruning,
        sizes: dict[str, int],
        fast_load: bool | None,
        progress: Progress,
    ) -> None:
        self._statements = statements
        # The write-db's address may lead to several servers; `ask` found the horizon on one of them.
        self._context = replace(context, write=context.write.with_floor())
        self._fast_load = fast_load
        self._held, self._target = held, held.connection
        self._started = started
        self._source_check = source_check
        self._failed = source_check.fit.failed
        self._sizes = sizes
        self._pruning = pruning
        self._deletes_read = 0
        self._unfinished: set[str] = set()
        self._recounted = False
        self._withheld: Mapping[str, tuple[int, int, str]] = {}
        self._ranges: Mapping[str, OpenRanges] = {}
        self._beside_lanes = False
        self._visible: Look | None = None
        self._position: Position | None = None
        self.filling = False
        """Whether rows are left that are read again in the background, or points of a second generation."""
        self.turn_over = False
        """Whether it ended a turn, of a load or of points: it looks for changes, and takes another one."""
        self.embedding: str | None = None
        """The service that the main vectors are made with, if that was asked."""
        self.horizon = 0
        """Below which transaction it has captured everything, unless tables failed or are unfinished."""
        self.progress = progress

    async def run(self, ledger: Ledger) -> SyncResult:
        context = self._context
        if ledger.vector_prefix not in (None, context.vectors.prefix):
            raise SchemaMoved(
                context.graph.slug,
                context.target.schema,
                prefix=ledger.vector_prefix,
                expected=context.vectors.prefix,
            )
        self.progress.run = ledger.progress
        pending, asked = await self._source_check.ask(ledger)
        if ledger.ranged and pending.held and self._is_lane(pending.oldest_writer):
            # Both schemas are in one database: what is fresh is behind a lane's batch.
            await stop_lanes(context, self._held)
            pending, asked = await self._source_check.ask(ledger)
        ledger = asked
        self.horizon = pending.horizon
        context.write.store.floor.rise(pending.horizon)
        self._withheld = ledger.withheld
        self._load = load = FirstLoad(
            statements=self._statements,
            context=context,
            held=self._held,
            ledger=ledger,
            fast=self._fast_load,
            progress=self.progress,
        )
        await load.look()
        self._failed = self._source_check.fit.failed
        owed = pending.tables or pending.deletes or ledger.released or ledger.requeued or ledger.outbox_due
        for name, error in self._failed.items():
            self.progress.failed(name, error)
        busy = bool(
            owed
            or pending.ahead
            or self._failed
            or self.progress.run.unannounced
            or self._source_check.changes
            or ledger.comparisons
            or ledger.loads
            or ledger.waited_for
            or load.due
        )
        if busy:
            fence = await self._source_check.take(ledger, pending)
            await load.begin(fence, pending)
            ledger, pending = await self._begin_loads(fence, ledger, pending)
            checkpoints = self._source_check.checkpoints
            noting = checkpoints is not None and checkpoints.kept and not ledger.loads
            self._recent = RecentKeys(self._statements, noting=noting)
            await self._drain(fence, ledger, pending)
            await self._load_on(fence, ledger, pending)
            await self._announce(fence, ledger)
        # Points follow when a load is over: its next turn comes first, while there is time.
        if (busy or ledger.outbox) and (not self.turn_over or self.out_of_time()):
            # While every item waits for its next retry, this only reports the counts.
            drained = await self._drain_outbox(ledger.vector_generation)
            self.progress.vectors, self.embedding = drained.vectors, drained.embedding
            self.filling |= drained.filling
        await self._keep_aliases(ledger)
        # Last: nothing depends on it. A shadow prunes nothing, nor does one of several readers.
        if context.alone and not context.shadow and not pending.standby:
            if pending.prunable:
                tenant = tenant_of(self._statements.schema_map)
                read = self._deletes_read or ledger.cursors[DELETES].xid
                reader = ledger.reader if self._source_check.fit.footing.writable else None
                await self._pruning.run(
                    context,
                    self._target,
                    read=read,
                    reader=reader,
                    out_of_time=self.out_of_time,
                    own=None if tenant is None else tenant.value,
                )
            elif pending.kept_too_long:
                self._pruning.not_allowed(context)
        not_landed = ledger.not_landed
        points = self.progress.vectors.upserted or self.progress.vectors.deleted
        if busy or points:
            async with self._held.unlocking(ledger.marks) as target:
                waiting = await target.fetch(sql("not_landed"))
                if ledger.comparisons and ledger.notes:
                    compared = await target.fetch(sql("comparisons_withheld"))
                    self._withheld = {row["table_name"]: tuple(row)[1:] for row in compared}
                if points:
                    await notify(target)
            not_landed = {row["table_name"]: (row["parked"], row["dead"]) for row in waiting}
        else:
            await self._held.unlock(ledger.marks)
        return self._result(ledger, pending, not_landed)

    def _is_lane(self, writer: OpenWriter | None) -> bool:
        return writer is not None and writer.application_name == lane_session(self._context.target.schema)

    def _batches(self, kind: type[_Drain], fence: Fence, failed: Mapping[str, str]) -> _Drain:
        return kind(
            self._statements,
            self._context,
            self._held,
            fence,
            self.progress,
            failed=failed,
            out_of_time=self.out_of_time,
            sizes=self._sizes,
            recent=self._recent,
            put_off=self._load.put_off,
            beside_lanes=self._beside_lanes,
        )

    async def _begin_loads(self, fence: Fence, ledger: Ledger, pending: Pending) -> tuple[Ledger, Pending]:
        state = self._source_check.map_state
        self._load.beside_lanes = self._beside_lanes = ledger.ranged
        if ledger.ranged:
            # Ranges of a load that is no more leave before another one begins.
            self._ranges = await self._read_ranges(fence)
        if state is None or not any(change.anew for change in state.changes):
            ranged = await self._worth_ranges(ledger, pending)
            ledger, pending = await begin_loads(
                self._held,
                fence,
                self._statements,
                self._context,
                ledger,
                pending,
                many=self._load.many,
                ranged=ranged,
            )
            if ranged:
                self._load.beside_lanes = self._beside_lanes = True
                self._ranges = await self._read_ranges(fence)
        self.progress.loading = ledger.loads.keys()
        self.progress.ranges = [ranges.said for ranges in self._ranges.values()]
        return ledger, pending

    async def _worth_ranges(self, ledger: Ledger, pending: Pending) -> list[str]:
        """Return the tables whose load, if it begins now, is read in ranges."""
        lanes, paced = self._context.lanes, self._context.budget.rows_per_second is not None
        new = [
            name
            for name in self._statements.tables
            if name in pending.tables and name not in ledger.stored and name not in ledger.loads
        ]
        if lanes is None or lanes.number < 2 or paced or not (ledger.may_range and new):
            return []
        ranged, notes = await worth_ranges(
            self._context, self._held, self._statements, new, self._load.put_off
        )
        self._load.notes += notes
        return ranged

    async def _read_ranges(self, fence: Fence) -> Mapping[str, OpenRanges]:
        async with self._held.transaction() as target:
            ranges, stale = await read_ranges(target)
        if stale or not ranges:
            # Their tables are read otherwise since: from the start, or by an earlier version.
            async with lane_transaction(self._context, self._held, alone=True) as target:
                run = await forget_ranges(target, self.progress.run)
                await fence.commit(target, run)
            self.progress.committed(run)
        return ranges

    async def _load_on(self, fence: Fence, ledger: Ledger, pending: Pending) -> None:
        """Take a turn of loads, or of putting back what they put off, once readers know what is fresh."""
        loads = {name: load for name, load in ledger.loads.items() if name not in self._failed}
        if not (loads or self._load.due):
            return
        unfinished = [name for name in self._unfinished if name in self._statements.tables]
        self._unfinished |= loads.keys()
        await self._announce(fence, ledger)
        self._visible = None
        if loads:
            drain = self._batches(RangeDrain, fence, self._failed).in_ranges(self._ranges, lane=CYCLE)
            if self._context.lanes is not None and not self._ranges.keys().isdisjoint(loads):
                await self._context.lanes.call()
            await drain.run_loads(loads)
            self._failed = drain.failed
            self.turn_over = not loads.keys() <= drain.failed.keys()
        if self._load.due and not self.turn_over:
            self.turn_over = await self._load.end(
                fence, unfinished=unfinished, next_xid=pending.next_xid, out_of_time=self.out_of_time
            )

    async def _drain(self, fence: Fence, ledger: Ledger, pending: Pending) -> None:
        drain = self._batches(BatchDrain, fence, self._failed)
        state = self._source_check.map_state
        recounts = () if state is None else state.owed_recounts(self._source_check.fit.failed)
        await drain.run(ledger, pending, recounts)
        fills = self._source_check.fills
        if fills:
            self.filling = await self._fill(fence, ledger, drain)
        if state is not None and (recounts or fills) and drain.recounted.issuperset(recounts):
            self._recounted = not self.filling
        if not (drain.failed or drain.unfinished or pending.ahead or self.filling):
            self._visible = await self._look(drain, ledger, pending)
        for name in pending.ahead - drain.failed.keys():
            source = DELETES if name == DELETES else self._statements.tables[name].table.source
            drain.fail(name, _AHEAD.format(source=source))
        self._failed, self._unfinished = drain.failed, drain.unfinished
        self._deletes_read = drain.deletes_read or 0

    async def _look(self, drain: BatchDrain, ledger: Ledger, pending: Pending) -> Look | None:
        """Return a look at the write-db below which everything is here; None if it is not, or unknown."""
        if ledger.visible is None or pending.standby:
            return None
        write = self._context.write
        try:
            async with write.store.driver() as source:
                seen = await look(source, self._statements, write, pending.horizon, keys=ledger.waited_for)
        except StoreError as error:
            # What was read is committed; only how far it is remains unknown.
            self._context.log.warning(
                "visible position unknown", graph=self._context.graph.slug, error=str(error)
            )
            return None
        known = [] if self._source_check.another_past else ledger.visible.sources
        if seen.source not in known:
            # Started meanwhile, it may be another past than the one that was read.
            meanwhile = seen.uptime <= time.monotonic() - self._started
            if meanwhile or (known and not self._source_check.knows_the_past):
                return None
        if not seen.newer:
            return seen
        if seen.keys is None:
            return None
        async with self._held.transaction() as target:
            await request(target, seen.keys)
        write.store.floor.rise(seen.below)
        await drain.run(
            replace(ledger, requeued=True, comparisons=frozenset()),
            replace(pending, tables=frozenset(), deletes=False),
        )
        # They may be newer than the token that the cursors belong to: leave one that is newer than they are.
        self._position = await self._source_check.leave_newer_token(ledger)
        return None if drain.failed or drain.unfinished else seen

    async def _fill(self, fence: Fence, ledger: Ledger, drained: BatchDrain) -> bool:
        """Read more rows again for columns that were added to the map; return whether rows are left.

        It is short, and every other table comes first: the cycle then looks for changes again.
        """
        fill = self._batches(FillDrain, fence, drained.failed)
        check = self._source_check
        cursors = {
            name: Cursor() if name in check.filled else ledger.fills.get(name, Cursor())
            for name in check.fills
        }
        left = await fill.run_turn(cursors, check.fills, seconds=_FILL_SECONDS)
        drained.failed = fill.failed
        return left

    async def _announce(self, fence: Fence, ledger: Ledger) -> None:
        """Notify readers in the transaction that ends the run: no event without data, no event twice."""
        context = self._context
        unannounced = {} if context.shadow else self.progress.run.unannounced
        events = payloads(context.graph, context.run.run_id, unannounced, self._failures())
        async with self._held.transaction() as target:
            for payload in events:
                await target.execute("SELECT pg_notify($1, $2)", names.NOTIFY_CHANNEL, payload)
            announced = replace(self.progress.run, owed_events={})
            if self._recounted and self._source_check.map_state is not None:
                await self._source_check.map_state.complete(target, self._source_check.fit.failed)
            await fence.finish(
                target,
                announced,
                drained=not self._failed and not self._unfinished,
                lanes=self._beside_lanes,
            )
            if self._position is not None:
                await target.execute(sql("visible_position"), str(self._position))
            if self._visible is not None:
                seen = self._visible
                await advance(
                    target, source=seen.source, below=seen.below, wanted=ledger.wanted, beyond=seen.newer
                )
            elif ledger.waited_for:
                await answer(target, wanted=ledger.wanted)
        self.progress.run = announced

    async def _keep_aliases(self, ledger: Ledger) -> None:
        """Make aliases again that somebody has deleted: readers find nothing without them."""
        if self._context.shadow:
            return
        tables = self._statements.schema_map
        collections = [table.vector.collection for table in tables if table.vector is not None]
        made = [name for name in collections if name in ledger.collections]
        lost = await aliases_lost(self._context.vectors, made)
        if lost:
            await make_again(self._held, self._context, lost, generation=ledger.vector_generation)

    async def _drain_outbox(self, generation: int | None) -> Drained:
        """Write points; where there are many, until there is news of the write-db."""
        with span("index"):
            # Of tables that failed there always is.
            watching = not (self._failed or self._unfinished)
            async with News(self._context.write, self._statements, self.horizon, watching=watching) as news:
                drained = await drain_outbox(
                    self._held,
                    self._statements.schema_map,
                    self._context,
                    generation=generation,
                    out_of_time=lambda: self.out_of_time() or news.came,
                    beat=self.progress.indexed,
                    report_waiting=self.progress.waits,
                )
        left = drained.vectors.pending and drained.vectors.error is None
        self.turn_over |= bool(news.came and left)
        return drained

    def _failures(self) -> int:
        return len(self._failed) + sum(table.failures for table in self.progress.run.tables.values())

    def _result(
        self, ledger: Ledger, pending: Pending, not_landed: Mapping[str, tuple[int, int]]
    ) -> SyncResult:
        parked, dead = ({name: counts[kind] for name, counts in not_landed.items()} for kind in (0, 1))
        tables = []
        # A failed stream of deleted keys is reported; what it deleted is counted by table.
        for name in dict.fromkeys([*self._statements.tables, *self._failed]):
            counted, error = self.progress.run.tables.get(name), self._failed.get(name)
            noted = {
                "parked": parked.get(name, 0),
                "dead_letters": dead.get(name, 0),
                "drained": error is None and name not in self._unfinished,
                "loading": name in self.progress.loading,
                "failures": (counted.failures if counted else 0) + (error is not None),
                "error": error,
                "reread": self._source_check.reread.get(name) or self._source_check.filled.get(name),
                "compared": self._source_check.compare.get(name),
            }
            tables.append(
                counted.model_copy(update=noted)
                if counted
                else TableProgress.model_validate({"table": name, **noted})
            )
        writer = pending.oldest_writer
        behind = writer.age_seconds or 0.0 if writer else 0.0
        if self._failed or self._unfinished:
            since = ledger.behind_since
            waited = 0.0 if since is None else (datetime.now(UTC) - since).total_seconds()
            behind = max(behind, waited, time.monotonic() - self._started)
        rewound, checkpoints = self._source_check.rewound, self._source_check.checkpoints
        return SyncResult(
            status=self._status(),
            tables=tuple(tables),
            vectors=self.progress.vectors,
            failures=self._failures(),
            parked=sum(parked.values()),
            dead_letters=sum(dead.values()),
            lag_seconds=behind,
            oldest_writer=writer,
            batches=self.progress.run.batches,
            duration_seconds=time.monotonic() - self._started,
            rescanned=self._source_check.rescanned is not None,
            rescan_reason=self._source_check.rescanned or self._source_check.rewind_reason,
            rewound_to=None if rewound is None else rewound.at,
            rewound_rows=0 if checkpoints is None else checkpoints.requested,
            unknown=self._source_check.unknown(pending),
            map_changes=self._source_check.map_notes,
            new_columns=self._source_check.new_columns,
            lag_known=not pending.standby,
            owed=tuple(owed.reported for owed in self._load.owed),
            withheld=tuple(
                Withheld(table=name, rows=gone, of=seen, reason=why)
                for name, (gone, seen, why) in sorted(self._withheld.items())
            ),
            load_notes=tuple(self._load.notes),
            owes=bool(pending.held or ledger.retries or ledger.outbox or self.filling or self._load.owing),
        )

    def _status(self) -> CycleStatus:
        if self._failed:
            return CycleStatus.FAILED
        vectors = self.progress.vectors
        if self._unfinished or (vectors.pending and vectors.error is None):
            return CycleStatus.BUDGET_SPENT
        # What readers do not look at yet may wait.
        live = vectors.second if vectors.second is not None and vectors.second.live else None
        error = vectors.error or (live and live.error)
        return CycleStatus.VECTORS_DELAYED if error else CycleStatus.DRAINED

    @property
    def fit(self) -> Fit:
        """The schema check that it went by."""
        return self._source_check.fit

    def out_of_time(self) -> bool:
        """Return whether the time budget is spent."""
        return time.monotonic() - self._started >= self._context.budget.seconds
