"""The engine state of one graph, in its graph-db: fence, cursors, and the running run's progress.

One module because its records are read, and written, by the same few statements.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Final

import asyncpg

from syncline import names
from syncline.engine.checkpoints import Checkpoint, Checkpoints
from syncline.engine.position import Known, Position
from syncline.engine.render.statements import DELETES, Cursor, Load
from syncline.engine.template import sql
from syncline.engine.visible import Visible
from syncline.errors import CycleFenced
from syncline.messages.base import GraphRef
from syncline.messages.sync import SyncEvent, TableProgress
from syncline.provider import RunIdentity
from syncline.sql import quoted

__all__ = [
    "FILL",
    "LOAD",
    "Fence",
    "Ledger",
    "RunProgress",
    "deletes_read",
    "payloads",
    "read_ledger",
]

FILL: Final = "sync_fill/"
"""With a table's name: the cursor of its rows that are read again in the background."""
LOAD: Final = "sync_load/"
"""With a table's name: the cursor of the rows that it had when it was first read, or is read again."""
_COUNTED = ("captured", "rows", "links", "deletes", "failures")


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """What one run has committed, over all its attempts; stored with every batch."""

    run_id: str
    batches: int = 0
    tables: dict[str, TableProgress] = field(default_factory=dict)
    owed_events: dict[str, TableProgress] = field(default_factory=dict)
    """Changes not announced by an event yet, of any run: a run need not reach its end."""

    def plus(self, effects: Iterable[TableProgress]) -> "RunProgress":
        """Return the progress plus one batch's effects."""
        found = tuple(effects)
        return self._with(batches=1, tables=found, owed_events=found)

    def with_failures(self, table: str, number: int) -> "RunProgress":
        """Return the progress with a table's rejected rows added to the last batch."""
        refused = TableProgress(table=table, failures=number)
        return replace(self, tables={**self.tables, table: _sum(self.tables.get(table), refused)})

    def written(self, table: str) -> int:
        """Return the number of inserted or changed rows of a table."""
        return self.tables[table].rows if table in self.tables else 0

    def to_json(self) -> str:
        """Return the JSON that `from_json` reads."""
        return json.dumps(
            {
                "run_id": self.run_id,
                "batches": self.batches,
                "tables": [_counts(table) for table in self.tables.values()],
                "untold": [_counts(table) for table in self.owed_events.values()],
            }
        )

    @classmethod
    def from_json(cls, text: str, run_id: str) -> "RunProgress":
        """Return the progress of run `run_id`: resumed if it is the stored one, else empty."""
        stored = json.loads(text)
        if not stored:
            return cls(run_id=run_id)
        owed_events = _by_name(stored["untold"])
        if stored["run_id"] != run_id:
            return cls(run_id=run_id, owed_events=owed_events)
        tables = _by_name(stored["tables"])
        return cls(run_id=run_id, batches=stored["batches"], tables=tables, owed_events=owed_events)

    def joined(self, other: "RunProgress") -> "RunProgress":
        """Return the progress with what other batches have committed, of another lane."""
        return self._with(
            batches=other.batches, tables=other.tables.values(), owed_events=other.owed_events.values()
        )

    def _with(
        self, *, batches: int, tables: Iterable[TableProgress], owed_events: Iterable[TableProgress]
    ) -> "RunProgress":
        return replace(
            self,
            batches=self.batches + batches,
            tables=_added(self.tables, tables),
            owed_events=_added(self.owed_events, owed_events),
        )

    @property
    def unannounced(self) -> dict[str, TableProgress]:
        """Table -> changes that no event has announced yet."""
        return {
            name: table
            for name, table in self.owed_events.items()
            if table.rows or table.links or table.deletes
        }


def _counts(table: TableProgress) -> dict[str, str | int]:
    return {"table": table.table} | {name: getattr(table, name) for name in _COUNTED}


def _by_name(stored: Iterable[dict[str, str | int]]) -> dict[str, TableProgress]:
    tables = [TableProgress.model_validate(item) for item in stored]
    return {table.table: table for table in tables}


def _added(so_far: Mapping[str, TableProgress], more: Iterable[TableProgress]) -> dict[str, TableProgress]:
    sums = dict(so_far)
    for table in more:
        sums[table.table] = _sum(sums.get(table.table), table)
    return sums


def _sum(so_far: TableProgress | None, more: TableProgress) -> TableProgress:
    if so_far is None:
        return more
    sums = {name: getattr(so_far, name) + getattr(more, name) for name in _COUNTED}
    return TableProgress(table=more.table, **sums)


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The engine state as of one read."""

    write_cluster: str | None
    """System identifier and timeline of the cluster that the cursors belong to."""
    behind_since: datetime | None
    """Start of the current series of cycles that did not finish; None if the last one finished."""
    progress: RunProgress
    cursors: dict[str, Cursor]
    released: frozenset[str]
    """Tables with parked rows whose parent has arrived."""
    requeued: bool
    """Whether rows are requested by key, or dead letters are due for a retry."""
    retries: bool
    """Whether dead letters will be retried, now or later."""
    outbox: bool
    """Whether the outbox has entries."""
    outbox_due: bool
    """Whether any of them is due; else all wait for their next retry."""
    reader: str
    """The reader's id: belongs to this schema, whatever its name."""
    position: Position | None = None
    """Write-db history that the cursors belong to; None until a position could be recorded."""
    stored: frozenset[str] = frozenset()
    """The existing cursors; other tables have not been read yet."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Table -> hash of how its source was captured."""
    comparisons: frozenset[str] = frozenset()
    """Tables whose keys are to be compared: rows may have been deleted without a tombstone."""
    marks: int = 0
    """How often a cycle found the graph locked: if this grows, another look at the write-db is requested."""
    vector_prefix: str | None = None
    """Prefix of this schema's collections; None unless a promotion set it."""
    vector_generation: int | None = None
    """The main generation of its collections; None if the bookkeeping tables know of none yet: the first."""
    collections: frozenset[str] = frozenset()
    """Collections that have got vectors, as the outbox names them."""
    fills: Mapping[str, Cursor] = field(default_factory=dict)
    """Table -> how far its rows have been read again for columns that were added to the map."""
    loads: Mapping[str, Load] = field(default_factory=dict)
    """Table -> what is left of its load, parents first; its own cursor finds what was written since."""
    not_landed: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Table -> (parked entries, dead letters)."""
    map_hash: str | None = None
    """Hash of the map that these tables were synced by, once it was applied completely."""
    visible: Visible | None = None
    """What is visible of the write-db's transactions; None where the bookkeeping tables are older."""
    wanted: int = 0
    """How often somebody waited for more: if this is not `visible.wanted`, another look is requested."""

    load_below: int | None = None
    """While keys or indexes are owed: the transaction below which all belongs to that first load."""
    load_due: bool = False
    """Whether it is time to put them back, or to try again."""
    may_range: bool = False
    """Whether loads may be read in ranges: bookkeeping tables of before have none."""
    ranged: bool = False
    """Whether there are ranges, so that lanes may be at work."""
    withheld: Mapping[str, tuple[int, int, str]] = field(default_factory=dict)
    """Table -> (rows that the write-db does not have, of so many, why that was looked for): too many to leave
    unasked."""
    notes: bool = False
    """Whether what is read after a checkpoint can be noted: bookkeeping tables of before cannot."""
    noted: bool = False
    """Whether all of it was, by every cycle since."""
    checkpoint_age: float | None = None
    """Seconds since the last checkpoint; None: there is none."""
    recent: int = 0
    """The last batch that may have been noted."""

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits for more to be visible."""
        return self.visible is not None and self.wanted != self.visible.wanted

    def foreign_to(self, cluster: str, next_xid: int, known: Known | None) -> str | None:
        """Return why the cursors cannot be of the write-db with this cluster and next transaction, or None.

        `known` is what the write-db stores about this reader, if available.
        """
        if self.write_cluster not in (None, cluster):
            return "another cluster or timeline"
        if self.reached > next_xid:
            return "an earlier point in time"
        if self.position is None or known is None:
            return None
        return known.contradicts(self.position)

    def may_be_ahead_of(self, cluster: str, horizon: int, known: Known | None) -> bool:
        """Return whether a standby with this horizon may only lack, so far, what the cursors belong to.

        What it has of this cluster is an earlier point in time of the same history.
        """
        if self.write_cluster not in (None, cluster):
            return False
        if self.reached > horizon:
            return True
        if self.position is None or known is None:
            return False
        return known.number is None or known.number < self.position.number

    @property
    def reached(self) -> int:
        """The transaction below which a server must have everything for the cursors to move on."""
        return max((cursor.xid for cursor in self.cursors.values()), default=0)

    def lost_deletes(self, known: Known | None) -> bool:
        """Return whether tombstones were pruned that this graph-db has not read, as after its restore."""
        return known is not None and bool(self.stored) and self.cursors[DELETES].xid < known.cleared_below

    @property
    def settled(self) -> bool:
        """Whether what was read is told by its cursors alone: nothing is compared, filled or loaded."""
        return not (self.comparisons or self.fills or self.loads) and self.load_below is None

    def rescanned(self) -> "Ledger":
        """Return a copy with every cursor at the beginning."""
        return replace(self, cursors=dict.fromkeys(self.cursors, Cursor()), stored=frozenset(), loads={})

    def rewound(self, checkpoint: Checkpoint) -> "Ledger":
        """Return a copy with the cursors of a checkpoint; what was read since is about to be requested."""
        cursors = {name: checkpoint.cursors[name] for name in self.cursors}
        return replace(self, cursors=cursors, requeued=True)

    def rereading(self, tables: Collection[str]) -> "Ledger":
        """Return a copy with these tables' cursors at the beginning."""
        left = {name: load for name, load in self.loads.items() if name not in tables}
        return replace(self, cursors={**self.cursors, **dict.fromkeys(tables, Cursor())}, loads=left)

    def counted_with(self, progress: RunProgress) -> "Ledger":
        """Return a copy with the run's progress so far, even if another run held the graph since."""
        return replace(self, progress=replace(progress, owed_events=self.progress.owed_events))

    def comparing(self, tables: Collection[str]) -> "Ledger":
        """Return a copy in which these tables' keys are to be compared too."""
        return replace(self, comparisons=self.comparisons.union(tables))


@lru_cache(maxsize=100)
def _ledger_query(outbox_due: str) -> str:
    fragments = {name: sql(name) for name in ("released", "next_retry", "not_landed")}
    return sql("ledger_read", outbox_due=outbox_due, **fragments)


async def read_ledger(
    target: asyncpg.Connection, *, tables: Collection[str], run_id: str, outbox_due: str = "false"
) -> Ledger:
    """Read the graph's state for run `run_id`, with a cursor for each table and one for deletes.

    `outbox_due` is the condition from `syncline.engine.vectors.outbox.due_sql`.
    """
    row = await target.fetchrow(_ledger_query(outbox_due), list(tables))
    stored = json.loads(row["cursors"])
    cursors = {}
    for name in (*tables, DELETES):
        xid, key, _ = stored.get(name, (0, None, None))
        cursors[name] = Cursor.of_stored(xid, key)
    return Ledger(
        write_cluster=row["write_cluster"],
        behind_since=row["behind_since"],
        progress=RunProgress.from_json(row["progress"], run_id),
        cursors=cursors,
        released=frozenset(row["released"]),
        requeued=row["requeued"],
        retries=row["retries"],
        outbox=row["outbox"],
        outbox_due=row["outbox_due"],
        reader=row["reader"],
        position=Position.from_text(row["position"]),
        stored=frozenset(stored),
        sources=json.loads(row["sources"]),
        comparisons=frozenset(row["comparisons"]).intersection(cursors),
        marks=row["marks"],
        collections=frozenset(row["collections"]),
        not_landed={name: (parked, dead) for name, (parked, dead) in json.loads(row["not_landed"]).items()},
        vector_prefix=row["vector_prefix"],
        vector_generation=row["vector_generation"],
        map_hash=row["map_hash"],
        visible=Visible.from_text(row["visible"]),
        wanted=row["wanted"],
        load_below=row["load_below"],
        load_due=row["load_due"],
        may_range=row["may_range"],
        ranged=row["ranged"],
        withheld={name: tuple(each) for name, each in json.loads(row["withheld"]).items()},
        notes=row["notes"],
        noted=row["noted"],
        checkpoint_age=row["checkpoint_age"],
        recent=row["recent"],
        fills={
            name.removeprefix(FILL): Cursor.of_stored(xid, key)
            for name, (xid, key, _) in stored.items()
            if name.startswith(FILL)
        },
        loads={
            name: Load(cursor=Cursor.of_stored(xid, key), below=below)
            for name in tables
            for xid, key, below in [stored.get(f"{LOAD}{name}", (0, None, None))]
            if below is not None
        },
    )


async def deletes_read(target: asyncpg.Connection, schema: str, horizon: int) -> int:
    """Return the transaction up to which the graph and its shadow have read tombstones, at most `horizon`.

    The horizon is that of the graph in `schema`; its shadow, if there is one, may be behind.
    """
    shadow = quoted(names.shadow_schema(schema))
    if not await target.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{shadow}.sync_cursor"):
        return horizon
    try:
        read: int = await target.fetchval(sql("ledger_shadow", schema=shadow, deletes=DELETES))
    except asyncpg.UndefinedTableError:  # dropped concurrently
        return 0
    return min(read, horizon)


@dataclass(frozen=True, kw_only=True)
class Fence:
    """The right to commit to one graph, until another holder acquires it.

    Every commit compares the fence number and the schema.
    """

    graph: str
    schema: str
    fence: int

    @classmethod
    async def take(
        cls,
        target: asyncpg.Connection,
        *,
        graph: str,
        schema: str,
        run: RunIdentity,
        write_cluster: str,
        position: Position | None = None,
        rescan: bool = False,
        reread: Collection[str] = (),
        captured: Mapping[str, tuple[str, str]] | None = None,
        compare: Mapping[str, str] | None = None,
        no_deletes_below: int | None = None,
        forget_visible: bool = False,
        checkpoints: Checkpoints | None = None,
    ) -> "Fence":
        """Acquire the graph in the caller's transaction; the previous holder can no longer commit.

        `rescan` resets every cursor, `reread` those of some tables. `captured`: table -> (hash, text) of how
        its source is captured now. `compare`: table -> why rows may have been deleted without a tombstone.
        There are no tombstones to read below `no_deletes_below`. `forget_visible`: what is visible of another
        past is not known to be so of this one. `checkpoints`: what becomes of them; None where the
        bookkeeping tables have none.
        """
        ways, owed = captured or {}, compare or {}
        if rescan:
            # Comparisons requested for another write-db do not apply to this one.
            await target.execute("DELETE FROM sync_comparison")
            if checkpoints is not None:
                await target.execute("DELETE FROM sync_absent")
        if forget_visible:
            await target.execute(sql("visible_forget"))
        noting = checkpoints is not None
        fence = await target.fetchval(
            sql(
                "ledger_take",
                anew="true" if checkpoints is not None and checkpoints.rewind is not None else "$3",
                notes=sql("ledger_notes") if noting else "",
                token_column=", position" if noting else "",
                token=", $9" if noting else "",
            ),
            run.run_id,
            write_cluster,
            rescan,
            run.workflow_id,
            run.attempt,
            run.provider,
            run.provider_version,
            schema,
            None if position is None else str(position),
            [*reread, *(f"{LOAD}{name}" for name in reread)],
            list(ways),
            [found_hash for found_hash, _ in ways.values()],
            [text for _, text in ways.values()],
            list(owed),
            list(owed.values()),
        )
        if fence is None:
            raise RuntimeError(f"the connection of graph '{graph}' is on a schema other than '{schema}'")
        if checkpoints is not None:
            if owed:
                await target.execute(sql("comparison_restart"), list(owed))
            await checkpoints.apply(target, fence, reread=reread)
        if no_deletes_below is not None:
            # A graph-db restored to now has not read what is pruned after this.
            await target.execute(sql("ledger_deletes"), DELETES, no_deletes_below)
        return cls(graph=graph, schema=schema, fence=fence)

    @classmethod
    async def current(cls, target: asyncpg.Connection, *, graph: str, schema: str) -> "Fence":
        """Return the fence of the lock's current holder, over the connection that holds the lock."""
        fence = await target.fetchval(sql("ledger_fence", schema=quoted(schema)))
        return cls(graph=graph, schema=schema, fence=fence)

    async def require(self, target: asyncpg.Connection) -> None:
        """Raise CycleFenced if another holder has acquired the graph."""
        fence = await target.fetchval(sql("ledger_fence", schema=quoted(self.schema)))
        self._require(fence == self.fence)

    async def commit(
        self,
        target: asyncpg.Connection,
        progress: RunProgress,
        *,
        moved: tuple[str, Cursor] | None = None,
        lanes_wait: bool = False,
    ) -> None:
        """Store progress in the caller's transaction and move a table's cursor, or raise CycleFenced.

        `lanes_wait`: for a moment no lane begins a batch, since more of this cycle's follow.
        """
        state, lanes = (self.fence, progress.to_json()), sql("lanes_held").rstrip() if lanes_wait else ""
        if moved is None:
            mine = await target.fetchval(sql("ledger_progress", lanes=lanes), *state, self.schema)
        else:
            table, cursor = moved
            position = table, cursor.xid, cursor.stored()
            query = sql("ledger_commit", lanes=lanes)
            mine = await target.fetchval(query, *state, *position, self.schema)
        self._require(mine)

    async def finish(
        self, target: asyncpg.Connection, progress: RunProgress, *, drained: bool, lanes: bool = False
    ) -> None:
        """Store the end of a run in the caller's transaction, or raise CycleFenced.

        `lanes`: they need not wait any longer.
        """
        state = self.fence, progress.to_json(), drained, self.schema
        query = sql("ledger_finish", lanes=sql("lanes_let").rstrip() if lanes else "")
        mine = await target.fetchval(query, *state)
        self._require(mine)

    def _require(self, mine: int) -> None:
        if not mine:
            raise CycleFenced(self.graph, self.fence)


_PAYLOAD_LIMIT = 8000
"""Length in bytes at which Postgres rejects the payload of a NOTIFY."""


def payloads(
    graph: GraphRef, run_id: str, changed: Mapping[str, TableProgress], failures: int
) -> Iterator[str]:
    """Yield the event, split by tables where Postgres would reject it as too long."""
    if not changed:
        return
    event = SyncEvent(
        graph=graph.slug,
        graph_id=graph.id,
        run_id=run_id,
        rows={name: table.rows + table.deletes for name, table in changed.items()},
        links={name: table.links for name, table in changed.items() if table.links},
        failures=failures,
    )
    payload = event.model_dump_json()
    if len(payload.encode()) < _PAYLOAD_LIMIT or len(changed) == 1:
        yield payload
        return
    tables, half = list(changed.items()), len(changed) // 2
    yield from payloads(graph, run_id, dict(tables[:half]), failures)
    yield from payloads(graph, run_id, dict(tables[half:]), failures)
