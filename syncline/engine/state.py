"""The ledger of one graph in its graph-db: fence, cursors, and what the present run has committed so far."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import asyncpg

from syncline import names
from syncline.engine.position import Known, Position
from syncline.engine.render.statements import DELETES, Cursor
from syncline.engine.template import sql
from syncline.errors import CycleFenced
from syncline.messages.base import GraphRef
from syncline.messages.sync import SyncEvent, TableProgress
from syncline.provider import RunIdentity
from syncline.sql import quoted

__all__ = ["payloads"]

_COUNTED = ("captured", "rows", "links", "deletes", "failures")


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """What one run has committed, over all its attempts; it is stored with every batch."""

    run_id: str
    batches: int = 0
    tables: dict[str, TableProgress] = field(default_factory=dict)
    owed_events: dict[str, TableProgress] = field(default_factory=dict)
    """What no event has announced yet, whichever run committed it: a run need not reach its end."""

    def plus(self, effects: Iterable[TableProgress]) -> "RunProgress":
        """Return the progress with one batch's effects added."""
        tables, owed_events = dict(self.tables), dict(self.owed_events)
        for effect in effects:
            for sums in (tables, owed_events):
                sums[effect.table] = _sum(sums.get(effect.table), effect)
        return replace(self, batches=self.batches + 1, tables=tables, owed_events=owed_events)

    def with_failures(self, table: str, number: int) -> "RunProgress":
        """Return the progress with refused rows of a table added to the batch that was added last."""
        refused = TableProgress(table=table, failures=number)
        return replace(self, tables={**self.tables, table: _sum(self.tables.get(table), refused)})

    def written(self, table: str) -> int:
        """Return how many rows of a table were inserted or changed."""
        return self.tables[table].rows if table in self.tables else 0

    def to_json(self) -> str:
        """Return what `from_json` reads."""
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
        """Return the progress of run `run_id`: resumed if it is the stored one, else new."""
        stored = json.loads(text)
        if not stored:
            return cls(run_id=run_id)
        owed_events = _by_name(stored["untold"])
        if stored["run_id"] != run_id:
            return cls(run_id=run_id, owed_events=owed_events)
        tables = _by_name(stored["tables"])
        return cls(run_id=run_id, batches=stored["batches"], tables=tables, owed_events=owed_events)

    @property
    def unannounced(self) -> dict[str, TableProgress]:
        """Every effect that no event has told yet, per table."""
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


def _sum(so_far: TableProgress | None, more: TableProgress) -> TableProgress:
    if so_far is None:
        return more
    sums = {name: getattr(so_far, name) + getattr(more, name) for name in _COUNTED}
    return TableProgress(table=more.table, **sums)


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """One reading of the ledger."""

    write_cluster: str | None
    """System identifier and timeline of the cluster that the cursors are of."""
    behind_since: datetime | None
    """When the stretch of cycles that left something undone began; None when the last one left nothing."""
    progress: RunProgress
    cursors: dict[str, Cursor]
    released: frozenset[str]
    """Tables with parked rows whose parent has landed."""
    requeued: bool
    """Whether rows are asked for by key, or refused ones are due for a retry."""
    retries: bool
    """Whether refused rows are to be tried again, now or later."""
    outbox: bool
    """Whether the vector store is owed anything."""
    outbox_due: bool
    """Whether anything can be done for it now; else all of it waits for the time of its next try."""
    reader: str
    """Who reads: an id that goes with this schema, whatever it is called."""
    position: Position | None = None
    """Which past of the write-db the cursors are of; None as long as none could be remembered there."""
    stored: frozenset[str] = frozenset()
    """The cursors that there are; the others have read nothing yet."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Table -> the hash of how its source was captured."""
    comparisons: frozenset[str] = frozenset()
    """Tables whose keys are to be compared, since rows may have gone without a trace."""
    marks: int = 0
    """How often a cycle found the graph taken: more of them later ask for one more look at the write-db."""
    vector_prefix: str | None = None
    """Of the collections that these books are about; None if no promotion has said so."""

    def foreign_to(self, cluster: str, horizon: int, known: Known | None) -> str | None:
        """Return why the cursors cannot be of a write-db with this cluster and horizon; None if they can.

        `known` is what it remembers of this reader, if it can.
        """
        if self.write_cluster not in (None, cluster):
            return "another cluster or timeline"
        if any(cursor.xid > horizon for cursor in self.cursors.values()):
            return "an earlier point in time"
        if self.position is None or known is None:
            return None
        return known.contradicts(self.position)

    def lost_deletes(self, known: Known | None) -> bool:
        """Return whether deleted keys that this graph-db has not read were cleared away: it was put back."""
        return known is not None and bool(self.stored) and self.cursors[DELETES].xid < known.cleared_below

    def rescanned(self) -> "Ledger":
        """Return the same ledger with every cursor at the beginning."""
        return replace(self, cursors=dict.fromkeys(self.cursors, Cursor()), stored=frozenset())

    def rereading(self, tables: Collection[str]) -> "Ledger":
        """Return the same ledger with the cursors of these tables at the beginning."""
        return replace(self, cursors={**self.cursors, **dict.fromkeys(tables, Cursor())})

    def counted_with(self, progress: RunProgress) -> "Ledger":
        """Return the same ledger with what its run has committed so far, whoever had the graph since."""
        return replace(self, progress=replace(progress, owed_events=self.progress.owed_events))

    def comparing(self, tables: Collection[str]) -> "Ledger":
        """Return the same ledger with the keys of these tables to be compared too."""
        return replace(self, comparisons=self.comparisons.union(tables))


async def read_ledger(
    target: asyncpg.Connection, *, tables: Collection[str], run_id: str, outbox_due: str = "false"
) -> Ledger:
    """Read the graph's ledger as run `run_id` sees it, with a cursor for each table and one for deletes.

    `outbox_due` is the condition that `syncline.engine.outbox.due_sql` gives.
    """
    fragments = {"released": sql("released"), "next_retry": sql("next_retry"), "outbox_due": outbox_due}
    row = await target.fetchrow(sql("ledger_read", **fragments), list(tables))
    stored = json.loads(row["cursors"])
    cursors = {}
    for name in (*tables, DELETES):
        xid, key = stored.get(name, (0, None))
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
        vector_prefix=row["vector_prefix"],
    )


async def deletes_read(target: asyncpg.Connection, schema: str, horizon: int) -> int:
    """Return up to which transaction deleted keys were read, if up to `horizon` for the graph in `schema`.

    Its shadow, as long as there is one, may be behind.
    """
    shadow = quoted(names.shadow_schema(schema))
    if not await target.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{shadow}.sync_cursor"):
        return horizon
    try:
        read: int = await target.fetchval(sql("ledger_shadow", schema=shadow, deletes=DELETES))
    except asyncpg.UndefinedTableError:  # dropped at this very moment
        return 0
    return min(read, horizon)


@dataclass(frozen=True, kw_only=True)
class Fence:
    """The right to commit to one graph, until someone else takes it.

    What is committed compares the fence, and the schema that it is about to be committed to.
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
    ) -> "Fence":
        """Take the graph over, in the caller's transaction; whoever held it can no longer commit.

        A rescan forgets every cursor, `reread` those of some tables. `captured` is how sources are captured
        now, as hash and text; `compare` says of which tables rows may have gone without a trace, and why;
        below `no_deletes_below` there are no deleted keys to be read.
        """
        ways, owed = captured or {}, compare or {}
        if rescan:
            # What was to be compared with another write-db is not to be compared with this one.
            await target.execute("DELETE FROM sync_comparison")
        fence = await target.fetchval(
            sql("ledger_take"),
            run.run_id,
            write_cluster,
            rescan,
            run.workflow_id,
            run.attempt,
            run.provider,
            run.provider_version,
            schema,
            None if position is None else str(position),
            list(reread),
            list(ways),
            [found_hash for found_hash, _ in ways.values()],
            [text for _, text in ways.values()],
            list(owed),
            list(owed.values()),
        )
        if fence is None:
            raise RuntimeError(f"the connection of graph '{graph}' is on another schema than '{schema}'")
        if no_deletes_below is not None:
            # What is cleared away later than this was not read by a graph-db that is put back to now.
            await target.execute(sql("ledger_deletes"), DELETES, no_deletes_below)
        return cls(graph=graph, schema=schema, fence=fence)

    @classmethod
    async def current(cls, target: asyncpg.Connection, *, graph: str, schema: str) -> "Fence":
        """Return the tenure of whoever holds the graph's lock, over the connection that holds it."""
        fence = await target.fetchval(sql("ledger_fence", schema=quoted(schema)))
        return cls(graph=graph, schema=schema, fence=fence)

    async def require(self, target: asyncpg.Connection) -> None:
        """Raise CycleFenced if someone else has taken the graph over."""
        fence = await target.fetchval(sql("ledger_fence", schema=quoted(self.schema)))
        self._require(fence == self.fence)

    async def commit(
        self, target: asyncpg.Connection, progress: RunProgress, *, moved: tuple[str, Cursor] | None = None
    ) -> None:
        """Store progress within the caller's transaction and move a table's cursor, or raise CycleFenced."""
        state = self.fence, progress.to_json()
        if moved is None:
            mine = await target.fetchval(sql("ledger_progress"), *state, self.schema)
        else:
            table, cursor = moved
            position = table, cursor.xid, cursor.stored()
            mine = await target.fetchval(sql("ledger_commit"), *state, *position, self.schema)
        self._require(mine)

    async def finish(self, target: asyncpg.Connection, progress: RunProgress, *, drained: bool) -> None:
        """Store the end of a run within the caller's transaction, or raise CycleFenced."""
        state = self.fence, progress.to_json(), drained, self.schema
        mine = await target.fetchval(sql("ledger_finish"), *state)
        self._require(mine)

    def _require(self, mine: int) -> None:
        if not mine:
            raise CycleFenced(self.graph, self.fence)


_PAYLOAD_LIMIT = 8000
"""Bytes from which on Postgres refuses the payload of a NOTIFY."""


def payloads(
    graph: GraphRef, run_id: str, changed: Mapping[str, TableProgress], failures: int
) -> Iterator[str]:
    """Yield the event, in parts of fewer tables each where Postgres would refuse it as too long."""
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
