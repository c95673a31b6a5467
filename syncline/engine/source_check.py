"""Source check: whether the write-db is still what a graph's cursors belong to, captured without a gap since.

A catalog row gets a new xmin with each change. So one text of everything that capture consists of shows
whether anything was different in between, even if it has been changed back.

One module because every check may reset cursors or fail tables, which the next one has to know.
"""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import asyncpg

from syncline.engine.capture import Pending, ask_pending
from syncline.engine.checkpoints import (
    LONGEST,
    SECONDS,
    Checkpoint,
    Checkpoints,
    common_checkpoint,
    known_tokens,
    large_parts,
    of_all,
)
from syncline.engine.mapped import MapState, read_map_state
from syncline.engine.position import Position, write_position
from syncline.engine.render.statements import DELETES, SYNC_COLUMN, Cursor, SchemaStatements
from syncline.engine.schema_problems import Fit
from syncline.engine.schema_transaction import BY_INDEX, HeldSchema
from syncline.engine.state import Fence, Ledger
from syncline.engine.template import sql
from syncline.errors import RowsFiltered, StoreRejected
from syncline.messages.sync import NewColumn
from syncline.provider import SyncContext
from syncline.stores.tenants import reading

__all__ = ["SourceCheck"]

_TRIGGERS = 4
"""The triggers that capture needs on each source; one more where INSERT and UPDATE have one each."""
_OF_BOTH = 5
"""Parts of what is told of a trigger that stamps both."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """What may have been missed of one table."""

    reason: str
    reread: bool
    """Whether changes may have been missed; otherwise only deletes."""


@dataclass(frozen=True, kw_only=True)
class _Way:
    """A `captured` text, parsed."""

    table: object
    triggers: object
    columns: Sequence[Sequence[object]]
    stamps: object
    file: object
    partitions: Mapping[int, Sequence[object]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> "_Way":
        table, triggers, columns, stamps, file, partitions = json.loads(text)
        found = {int(partition[0]): partition[1:] for partition in partitions or ()}
        return cls(
            table=table,
            triggers=triggers,
            columns=columns or (),
            stamps=stamps,
            # A partitioned table has no file: whether its partitions were rewritten is unknown.
            file=None if file == "0" else file,
            partitions=found,
        )

    def shared_with(self, other: "_Way") -> "_Way":
        """Return it with the columns alone that the other has too."""
        names = {column[1] for column in other.columns}
        columns = [column for column in self.columns if column[1] in names]
        stamped = [column[1] for column in self.columns if column[1] != SYNC_COLUMN]
        stamps = zip(stamped, str(self.stamps or "").split(","), strict=False)
        shared = ",".join(stamp for name, stamp in stamps if name in names)
        return replace(self, columns=columns, stamps=shared)


def captures(way: str) -> bool:
    """Return whether a source's triggers existed and were enabled when this text was read."""
    triggers = [trigger.split(":") for trigger in str(json.loads(way)[1] or "").split(",")]
    stamping = {trigger[5] for trigger in triggers if len(trigger) > _OF_BOTH}
    if len(triggers) != _TRIGGERS + bool(stamping) or len(stamping) not in (0, 2):
        return False
    return all(trigger[2] in "OA" for trigger in triggers)


async def doubts(
    source: asyncpg.Connection,
    before: Mapping[str, str],
    now: Mapping[str, str],
    cursors: Mapping[str, Cursor],
    *,
    remapped: Collection[str] = (),
) -> dict[str, Doubt]:
    """Return what may have been missed of the tables that are captured differently than before.

    Of the tables in `remapped`, the map names other columns than before: only those of both are compared.
    """
    found: dict[str, Doubt] = {}
    for name, text in before.items():
        if name in now:
            way, current = _Way.of(text), _Way.of(now[name])
            if name in remapped:
                way, current = way.shared_with(current), current.shared_with(way)
            doubt = await _doubt(source, way, current, cursors[name])
            if doubt is not None:
                found[name] = doubt
    return found


async def _doubt(source: asyncpg.Connection, before: _Way, now: _Way, cursor: Cursor) -> Doubt | None:
    if before.table != now.table:
        return Doubt(reason="its source is another table", reread=True)
    if before.triggers != now.triggers:
        return Doubt(reason="its triggers were changed", reread=True)
    if before.columns != now.columns:
        return Doubt(reason="columns of its source were changed", reread=True)
    # For an ordinary table, a rewrite that kept the type made a new file; without one, no value changed.
    if before.stamps != now.stamps and (now.file is None or before.file != now.file):
        return Doubt(reason="columns of its source were rewritten", reread=True)
    return await _partitions_doubt(source, before.partitions, now.partitions, cursor)


async def _partitions_doubt(
    source: asyncpg.Connection,
    before: Mapping[int, Sequence[object]],
    now: Mapping[int, Sequence[object]],
    cursor: Cursor,
) -> Doubt | None:
    # The last part is the trigger for TRUNCATE of the partition alone.
    other = [oid for oid, parts in now.items() if before.get(oid, [None])[:-1] != parts[:-1]]
    for oid in other:
        if await _has_passed_rows(source, oid, cursor):
            return Doubt(reason="a partition was attached with rows, or was changed separately", reread=True)
    gone = before.keys() - now.keys()
    if gone or any(before[oid] != parts for oid, parts in now.items() if oid in before):
        return Doubt(reason="a partition was detached, at least for a while", reread=False)
    return None


async def _has_passed_rows(source: asyncpg.Connection, oid: int, cursor: Cursor) -> bool:
    """Return whether a partition has rows before the cursor, which would never be read."""
    name = await source.fetchval(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        oid,
    )
    if name is None:
        return False
    try:
        async with reading(source, [name], first=BY_INDEX):
            first = await source.fetchval(sql("partition_first", partition=name))
    except (asyncpg.InsufficientPrivilegeError, RowsFiltered):
        # Privileges and policies are checked on the whole table; a partition need not have them.
        return True
    return first is not None and first <= cursor.xid


_UNTOLD = (
    "{table}: its target does not tell by which keys its rows were written; one that has left the write-db "
    "when all are read again stays there, as a row of others."
)
_RECOVERED = "it has recovered from a crash"
_CRASHED = (
    "The write-db has recovered from a crash, and the graph has no checkpoint to go back to: if it lost "
    "transactions (synchronous_commit = off), versions that they had hidden may be missing. "
    "`syncline verify --repair` finds them."
)
_STANDBY = (
    "The write-db is a standby: open writers cannot be seen from a standby, so the lag is unknown; "
    "a restore to an earlier time cannot be detected, and tombstones are not pruned."
)


def _timeline_of(cluster: str) -> int:
    return int(cluster.split("/")[1])


def _place_of(cluster: str) -> tuple[str, str]:
    """Return system identifier and table of deleted keys: what a promoted standby has in common."""
    system, _, table = cluster.split("/")
    return system, table


class SourceCheck:
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
        frozen: bool = False,
        timeless: set[str] | None = None,
    ) -> None:
        """`replacing`: the map is not the graph's own, so its differences are not changes of the graph.

        `frozen`: columns that are added to sources stay out, which is said once. `timeless`: the write-dbs
        that have refused to tell their timeline, so that they are not asked again.
        """
        self._statements = statements
        self._context = context
        self._held = held
        self._look_again = look_again
        self.fit = fit
        self.rescanned: str | None = None
        """Why the cursors cannot belong to this write-db, so that every row is read again."""
        self.rewound: Checkpoint | None = None
        """The checkpoint to go back to, since the write-db has lost what came later."""
        self.rewind_reason: str | None = None
        self.checkpoints: Checkpoints | None = None
        """What became of the checkpoints when the fence was taken; None where none can be kept."""
        self.reread: dict[str, str] = {}
        """Table -> why it is read again from the start."""
        self.filled: dict[str, str] = {}
        """Table -> why its rows are read again in the background."""
        self.fills: dict[str, int] = {}
        """Table -> the transaction below which that is so, of earlier cycles too."""
        self.compare: dict[str, str] = {}
        """Table -> why its keys are compared: rows may have been deleted without a tombstone."""
        self.map_state: MapState | None = None
        """The stored map, if it differs from this cycle's; None if it does not, or is not compared."""
        self._untold: list[str] = []
        self._replacing = replacing
        self._frozen = frozen
        self._timeless = set() if timeless is None else timeless
        self._crashed = False
        self._fresh: tuple[NewColumn, ...] = ()
        self._captured: dict[str, tuple[str, str]] = {}

    @property
    def changes(self) -> bool:
        """Whether there is something new to record."""
        recorded = self.another_past or self.reread or self.compare or self._captured
        columns = not self._replacing and self.fit.columns.changed
        return bool(recorded or self.map_state is not None or columns)

    @property
    def another_past(self) -> bool:
        """Whether the write-db's history is not the one that the cursors belonged to."""
        return self.rescanned is not None or self.rewound is not None

    @property
    def new_columns(self) -> tuple[NewColumn, ...]:
        """The columns of sources that wait for a decision."""
        return () if self._replacing or self._frozen else self.fit.columns.new

    @property
    def map_notes(self) -> tuple[str, ...]:
        """How the map has changed, a sentence for each table that is not read again: `reread` has those."""
        fresh = self._fresh if self._frozen else ()
        kept_out = [f"{each.table}: {each.source}.{each.column} was added and stays out." for each in fresh]
        if self.map_state is None:
            return tuple(kept_out)
        applied = self.map_state.applied(self.fit.failed)
        said = {**self.reread, **self.filled}
        changes = [change.sentence for change in applied if change.table not in said]
        untold = [_UNTOLD.format(table=name) for name in self._untold]
        return (*changes, *untold, *kept_out)

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
        position, running = await self._leave_token(ledger, pending)
        # What is read from the start by its own cursor needs no other.
        again = self._statements.tables.keys() if self.rescanned is not None else self.reread.keys()
        self.fills = {name: bound for name, bound in self.fills.items() if name not in again}
        # Tombstones pruned unread are compared once: they can no longer be read.
        read = DELETES in ledger.stored and not ledger.lost_deletes(pending.known)
        self.checkpoints = self._checkpoints(ledger, pending, position, running)
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
                forget_visible=self.another_past and ledger.visible is not None,
                checkpoints=self.checkpoints,
            )
            if self.map_state is not None:
                self._untold = await self.map_state.record(target, self.fit.failed, self.fills)
            if not self._replacing:
                await self.fit.columns.record(target)
        if not self._replacing:
            self._fresh = self.fit.columns.fresh
            self.fit.columns.recorded()
        return fence

    def unknown(self, pending: Pending) -> tuple[str, ...]:
        """Return what cannot be known about this write-db, in sentences."""
        if pending.standby:
            return (_STANDBY,)
        if self._crashed and self.rewound is None:
            return (_CRASHED,)
        problem = self.fit.footing.problem(self._context.write.schema)
        return () if problem is None else (problem,)

    async def _compare_map(self, ledger: Ledger) -> Ledger:
        """Compare the stored map with this cycle's, if they differ; reset the cursors of changed tables."""
        if ledger.map_hash == self._statements.map_hash or (self._replacing and ledger.map_hash is not None):
            return ledger
        with self._context.target.store.errors_mapped():
            async with self._held.transaction() as target:
                unread = [name for name in self._statements.tables if name not in ledger.stored]
                state = await read_map_state(target, self._statements, failed=self.fit.failed, unread=unread)
        if self._replacing and not state.first:
            return ledger
        if self._replacing:
            # What the missing provider wrote is its own: neither its points nor its counts are made again.
            state = replace(state, changes=())
        self.map_state = state
        self.fit = self._and_strangers(self.fit)
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
            if change.fill and change.table in ledger.stored:
                self.filled[change.table] = change.reason
            if change.compare:
                ledger = self._comparing(ledger, {change.table: change.reason})
            if change.unmarked or change.unstubbed:
                # They are requested with the record of the change.
                ledger = replace(ledger, requeued=True)
        filled = {**state.fills, **{name: ledger.cursors[name].end for name in self.filled}}
        self.fills = {name: bound for name, bound in filled.items() if name in self._statements.tables}
        return ledger.rereading(self.reread)

    async def _ask(self, ledger: Ledger) -> tuple[Pending, Ledger]:
        async with self._context.write.store.driver() as source:
            pending = await self._ask_once(source, ledger, whole=False)
            if not self._replacing and self.fit.columns.differ(pending.shapes):
                await self._fits_otherwise()
            self.rewound = None
            reason = ledger.foreign_to(pending.cluster, pending.next_xid, pending.known)
            self._crashed = reason is None and self._may_have_lost(ledger, pending)
            if reason is not None or self._crashed:
                self.rewound = await self._common(source, ledger, pending)
            if reason is not None or self.rewound is not None or self._otherwise(ledger, pending):
                if self.rewound is not None:
                    ledger = self._rewind(ledger, self.rewound, reason or _RECOVERED)
                    reason = None
                elif reason is not None:
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
            crashes=self.fit.footing.statistics,
            whole=whole,
        )

    def _otherwise(self, ledger: Ledger, pending: Pending) -> list[str]:
        """Return the tables whose source is captured differently from when it was read."""
        return [name for name, found in pending.hashes.items() if ledger.sources.get(name) != found]

    def _may_have_lost(self, ledger: Ledger, pending: Pending) -> bool:
        """Return whether the write-db may lack transactions that a cycle has seen, though it is no other one.

        The token is flushed before a cycle reads, with all that the cycle takes; but not what is committed
        meanwhile without being flushed, and hides an earlier version from it. A crash loses that, and the
        version that is there again is behind the cursor.
        """
        known = pending.known
        recovered = known is not None and known.recovered and ledger.position is not None
        return recovered and self._may_write() and not pending.standby

    async def _common(
        self, source: asyncpg.Connection, ledger: Ledger, pending: Pending
    ) -> Checkpoint | None:
        """Return the newest checkpoint that this write-db has in common with the cursors; None if unsure."""
        if self._replacing or self.map_state is not None or pending.standby or not self.fit.footing.readable:
            return None
        # In another cluster, or after capture was undone, transaction ids mean something else.
        if ledger.write_cluster is None or _place_of(ledger.write_cluster) != _place_of(pending.cluster):
            return None
        if not ledger.settled or not ledger.noted or ledger.checkpoint_age is None:
            return None
        positions = await known_tokens(source, self._context.write.schema, ledger.reader)
        with self._context.target.store.errors_mapped():
            async with self._held.transaction() as target:
                found = await common_checkpoint(target, positions)
                if found is None or of_all(found.cursors, self._statements.tables) is None:
                    return None
                if any(cursor.xid > pending.next_xid for cursor in found.cursors.values()):
                    return None
                if self._crashed:
                    # It has lost next to nothing: what is gone of the rows read since was deleted.
                    return found
                share = self._context.removal_share
                large = await large_parts(target, self._statements, found, share=share)
        for name, allowed, keys in large:
            # Where too much is gone, all keys are compared, which removes nothing unasked.
            gone = await self._statements.comparisons[name].absent(source, self._context.write.schema, keys)
            if len(gone) > allowed:
                return None
        return found

    def _rewind(self, ledger: Ledger, checkpoint: Checkpoint, reason: str) -> Ledger:
        self._log(
            "write-db may lack its last transactions, what was read since a checkpoint is read again",
            reason=reason,
            checkpoint=checkpoint.at.isoformat(),
        )
        self.rewind_reason = reason
        return ledger.rewound(checkpoint)

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
        before, self.fit = self.fit, self._and_strangers(await self._look_again())
        return not self.fit.failed.keys() <= before.failed.keys() or self.fit.footing != before.footing

    def _and_strangers(self, fit: Fit) -> Fit:
        """Return the result with the tables that have rows under other ids than the map's."""
        strangers = {} if self.map_state is None else self.map_state.strangers
        return replace(fit, failed={**strangers, **fit.failed}) if strangers else fit

    def _checkpoints(
        self, ledger: Ledger, pending: Pending, position: Position | None, running: int | None
    ) -> Checkpoints | None:
        """Return what becomes of the checkpoints in this cycle."""
        if not ledger.notes:
            return None
        there = ledger.checkpoint_age is not None
        # What such a change makes the cycle read, or believe, is not told by keys and cursors.
        changed = bool(
            self.rescanned or self.reread or self.compare or self._captured or self.map_state or self.fills
        )
        if changed or not ledger.noted:
            return Checkpoints(forget=there or self.rewound is not None, rewind=self.rewound)
        if self.rewound is not None:
            return Checkpoints(rewind=self.rewound, kept=True)
        # A write-db that does not tell its timeline, or is not on the one that was asked, may be another one
        # than what was read so far came from.
        certain = position is not None and running is not None and _timeline_of(pending.cluster) == running
        # A table that was never read is at its beginning; a graph that has read nothing needs no checkpoint.
        if certain and ledger.settled and DELETES in ledger.stored:
            return Checkpoints(take=ledger.cursors, seq=ledger.recent, kept=True)
        if there and self._due(ledger) and (ledger.checkpoint_age or 0.0) > LONGEST:
            # What is noted would grow for ever.
            return Checkpoints(forget=True)
        return Checkpoints(kept=there)

    def _due(self, ledger: Ledger) -> bool:
        return ledger.notes and (ledger.checkpoint_age is None or ledger.checkpoint_age >= SECONDS)

    async def _leave_token(self, ledger: Ledger, pending: Pending) -> tuple[Position | None, int | None]:
        """Write the token where possible; `unknown` reports where it is not.

        Also return the timeline that it was written on, if a checkpoint is due and the write-db tells.
        """
        write, anew = self._context.write, self.another_past
        if pending.standby or not self._may_write():
            return None, None
        try:
            async with write.store.driver() as source:
                asked = ledger.settled and self._due(ledger) and self._timeline_known()
                position, timeline = await write_position(
                    source, write.schema, ledger.reader, anew=anew, timeline=asked
                )
                if asked and timeline is None:
                    self._timeless.add(write.store.name)
                return position, timeline
        except StoreRejected:
            # A privilege was revoked: the cycle does not need it.
            if not await self._fits_otherwise() or self._may_write():
                raise
            return None, None

    async def leave_newer_token(self, ledger: Ledger) -> Position | None:
        """Commit another token in the write-db, later than what was read beyond the horizon."""
        if not self._may_write():
            return None
        write = self._context.write
        async with write.store.driver() as source:
            position, _ = await write_position(source, write.schema, ledger.reader, anew=False)
            return position

    @property
    def knows_the_past(self) -> bool:
        """Whether a write-db that is put back to an earlier time is noticed."""
        return self._may_write()

    def _timeline_known(self) -> bool:
        return self.fit.footing.timeline and self._context.write.store.name not in self._timeless

    def _may_write(self) -> bool:
        return self.fit.footing.writable

    def _log(self, event: str, **fields: object) -> None:
        self._context.log.warning(event, graph=self._context.graph.slug, **fields)
