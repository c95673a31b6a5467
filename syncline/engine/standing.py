"""Validity of a graph's cursors: checked when a cycle begins, recorded when it acquires the graph."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import asyncpg

from syncline.engine.capture import Pending, ask_pending
from syncline.engine.mapped import MapState, read_map_state
from syncline.engine.position import Position, write_position
from syncline.engine.render.statements import DELETES, SchemaStatements
from syncline.engine.schema_problems import Fit
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence, Ledger
from syncline.engine.watch import captures, doubts
from syncline.errors import StoreRejected
from syncline.provider import SyncContext

__all__ = ["Standing"]

_STANDBY = (
    "The write-db is a standby: open writers cannot be seen from a standby, so the lag is unknown; "
    "a restore to an earlier time cannot be detected, and tombstones are not pruned."
)


class Standing:
    """The checks of one cycle. `fit` is the last result of the schema check.

    `look_again` repeats that check when a table may have been altered.
    """

    def __init__(
        self,
        statements: SchemaStatements,
        context: SyncContext,
        held: HeldSchema,
        fit: Fit,
        look_again: Callable[[], Awaitable[Fit]],
        *,
        replacing: bool = False,
    ) -> None:
        """`replacing`: the map is not the graph's own, so its differences are not changes of the graph."""
        self._statements = statements
        self._context = context
        self._held = held
        self._look_again = look_again
        self.fit = fit
        self.rescanned: str | None = None
        """Why the cursors cannot belong to this write-db, so that every row is read again."""
        self.reread: dict[str, str] = {}
        """Table -> why it is read again from the start."""
        self.compare: dict[str, str] = {}
        """Table -> why its keys are compared: rows may have been deleted without a tombstone."""
        self.map_state: MapState | None = None
        """The stored map, if it differs from this cycle's; None if it does not, or is not compared."""
        self._replacing = replacing
        self._captured: dict[str, tuple[str, str]] = {}

    @property
    def changes(self) -> bool:
        """Whether there is something new to record."""
        recorded = self.rescanned or self.reread or self.compare or self._captured
        return bool(recorded or self.map_state is not None)

    @property
    def map_notes(self) -> tuple[str, ...]:
        """How the map has changed, a sentence for each table that is not read again: `reread` has those."""
        if self.map_state is None:
            return ()
        applied = self.map_state.applied(self.fit.failed)
        return tuple(change.sentence for change in applied if change.table not in self.reread)

    async def ask(self, ledger: Ledger) -> tuple[Pending, Ledger]:
        """Query what is pending in the write-db, and whether the history that the cursors rely on still
        holds.

        A cursor that cannot belong to this write-db, or whose source was not captured without a gap, is reset
        to the beginning in the returned ledger. So is that of a table whose map has changed.
        """
        ledger = await self._compare_map(ledger)
        try:
            return await self._ask(ledger)
        except StoreRejected:
            # One query covers all tables. A table lost since the schema check must fail alone.
            if not await self._fits_otherwise():
                raise
            return await self._ask(ledger)

    async def take(self, ledger: Ledger, pending: Pending) -> Fence:
        """Acquire the fence; before that, commit a token in the write-db that is later than what is read."""
        position = await self._leave_token(ledger, pending)
        # Tombstones pruned unread are compared once: they can no longer be read.
        read = DELETES in ledger.stored and not ledger.lost_deletes(pending.known)
        async with self._held.transaction() as target:
            fence = await Fence.take(
                target,
                graph=self._context.graph.slug,
                schema=self._context.target.schema,
                run=self._context.run,
                write_cluster=pending.cluster,
                position=position,
                rescan=self.rescanned is not None,
                reread=self.reread,
                captured=self._captured,
                compare=self.compare,
                no_deletes_below=None if pending.deletes or read else pending.horizon,
            )
            if self.map_state is not None:
                await self.map_state.record(target, self.fit.failed)
            return fence

    def unknown(self, pending: Pending) -> tuple[str, ...]:
        """Return what cannot be known about this write-db, in sentences."""
        if pending.standby:
            return (_STANDBY,)
        problem = self.fit.footing.problem(self._context.write.schema)
        return () if problem is None else (problem,)

    async def _compare_map(self, ledger: Ledger) -> Ledger:
        """Compare the stored map with this cycle's, if they differ; reset the cursors of changed tables."""
        if ledger.map_hash == self._statements.map_hash or (self._replacing and ledger.map_hash is not None):
            return ledger
        with self._context.target.store.errors_mapped():
            async with self._held.transaction() as target:
                state = await read_map_state(target, self._statements)
        if self._replacing and not state.first:
            return ledger
        self.map_state = state
        for change in state.applied(self.fit.failed):
            self._context.log.info(
                "map changed",
                graph=self._context.graph.slug,
                table=change.table,
                what=change.what or (change.kind.value,),
                reread=change.reread,
            )
            if change.reread:
                self.reread[change.table] = change.reason
            if change.compare:
                ledger = self._comparing(ledger, {change.table: change.reason})
        return ledger.rereading(self.reread)

    async def _ask(self, ledger: Ledger) -> tuple[Pending, Ledger]:
        async with self._context.write.store.driver() as source:
            pending = await self._ask_once(source, ledger, whole=False)
            reason = ledger.foreign_to(pending.cluster, pending.horizon, pending.known)
            if reason is not None or self._otherwise(ledger, pending):
                if reason is not None:
                    ledger = self._rescan(ledger, pending, reason)
                pending = await self._ask_once(source, ledger, whole=True)
                if not all(captures(way) for way in pending.ways.values()):
                    # After the query: the next cycle sees any later change again.
                    await self._fits_otherwise()
                if reason is None:
                    pending, ledger = await self._watch(source, ledger, pending)
                known = set(self._otherwise(ledger, pending)) - self.fit.failed.keys()
                self._captured = pending.ways_of(known)
            if ledger.lost_deletes(pending.known):
                reason = "deleted keys that it had not read were pruned: the graph-db was restored"
                self._log("deletes missing, keys are compared", reason=reason)
                ledger = self._comparing(ledger, dict.fromkeys(self._statements.tables, reason))
            return pending, ledger

    async def _ask_once(self, source: asyncpg.Connection, ledger: Ledger, *, whole: bool) -> Pending:
        return await ask_pending(
            source,
            self._statements,
            self._context.write.schema,
            ledger,
            [name for name in self._statements.tables if name not in self.fit.failed],
            positions=self.fit.footing.readable,
            whole=whole,
        )

    def _otherwise(self, ledger: Ledger, pending: Pending) -> list[str]:
        """Return the tables whose source is captured differently from when it was read."""
        return [name for name, found in pending.hashes.items() if ledger.sources.get(name) != found]

    def _rescan(self, ledger: Ledger, pending: Pending, reason: str) -> Ledger:
        self._log("cursors belong to another write-db, every row is read again", reason=reason)
        self.rescanned = reason
        ledger = ledger.rescanned()
        if pending.known is None or pending.known.branch is None:
            return ledger
        # It knows this very graph-db, so it is not a wrong database: rows that it lacks are deleted.
        return self._comparing(ledger, dict.fromkeys(self._statements.tables, reason))

    async def _watch(
        self, source: asyncpg.Connection, ledger: Ledger, pending: Pending
    ) -> tuple[Pending, Ledger]:
        """Reset cursors of tables that were captured differently for a while, if they are captured now."""
        with self._context.target.store.errors_mapped():
            async with self._held.transaction() as target:
                rows = await target.fetch("SELECT table_name, captured FROM sync_source")
        before = {row["table_name"]: row["captured"] for row in rows}
        found = await doubts(source, before, pending.ways, ledger.cursors, remapped=self._remapped)
        if found:
            await self._fits_otherwise()
        found = {name: doubt for name, doubt in found.items() if name not in self.fit.failed}
        for name, doubt in found.items():
            self._log("capture was interrupted", table=name, reason=doubt.reason, reread=doubt.reread)
        again = {name: doubt.reason for name, doubt in found.items() if doubt.reread}
        self.reread = {**again, **self.reread}
        ledger = self._comparing(ledger, {name: doubt.reason for name, doubt in found.items()})
        return replace(pending, tables=pending.tables.union(again)), ledger.rereading(again)

    @property
    def _remapped(self) -> frozenset[str]:
        """The tables whose map has changed: what they read differs from what was read for that reason."""
        state = self.map_state
        return frozenset() if state is None else frozenset(change.table for change in state.changes)

    def _comparing(self, ledger: Ledger, reasons: Mapping[str, str]) -> Ledger:
        self.compare.update(reasons)
        return ledger.comparing(reasons)

    async def _fits_otherwise(self) -> bool:
        """Repeat the schema check; return whether another table fails or the role's privileges changed."""
        before, self.fit = self.fit, await self._look_again()
        return not self.fit.failed.keys() <= before.failed.keys() or self.fit.footing != before.footing

    async def _leave_token(self, ledger: Ledger, pending: Pending) -> Position | None:
        """Write the token where possible; `unknown` reports where it is not."""
        write, anew = self._context.write, self.rescanned is not None
        if pending.standby or not self._may_write():
            return None
        try:
            async with write.store.driver() as source:
                return await write_position(source, write.schema, ledger.reader, anew=anew)
        except StoreRejected:
            # A privilege was revoked: the cycle does not need it.
            if not await self._fits_otherwise() or self._may_write():
                raise
            return None

    def _may_write(self) -> bool:
        return self.fit.footing.writable

    def _log(self, event: str, **fields: object) -> None:
        self._context.log.warning(event, graph=self._context.graph.slug, **fields)
