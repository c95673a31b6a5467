"""First load: foreign keys, indexes and counts of empty tables are put off until all rows are there.

Checking every row by a query, and entering it into each index, takes most of the time of a load. So both
leave, and are listed as owed, in one transaction; at the end they are put back and checked as a whole
(`syncline.engine.owed`). Only keys that the map's references make the engine keep by itself: a row without
its parent is parked as ever. What cannot be put back exactly as it was never leaves: each is tried first.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import asyncpg

from syncline.engine.capture import Pending
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.lane_lock import lane_transaction
from syncline.engine.merge import PutOff
from syncline.engine.owed import COUNTS, LOCK_TIMEOUT, OwedObject, acting_as, put_back, read_owed
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.results import Progress
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence, Ledger
from syncline.engine.table_map import SchemaMap
from syncline.engine.template import sql
from syncline.errors import StoreError
from syncline.provider import SyncContext
from syncline.sql import literal, quoted
from syncline.stores.postgres import map_driver_error
from syncline.stores.tenants import reading

__all__ = ["FirstLoad", "Referring", "are_many", "referring", "without_rows"]

_SECONDS = 2.0
"""Longest time of putting keys back without a look for changes, but for a step that has begun."""
WORTH_ROWS = 20_000
"""Fewer rows to load than this are loaded as ever: to take the keys off and on would cost more."""


@dataclass(frozen=True, kw_only=True)
class Referring:
    """What a map says of its target tables: what may leave them."""

    tables: Mapping[str, str]
    """Table -> the table map that it is filled from: targets, link tables and tables of counts."""
    keys: Sequence[tuple[str, str, str]]
    """Table, column and table referred to, of each key that the engine keeps by itself."""
    asked: Sequence[tuple[str, str]]
    """Table and column by which the engine looks rows up."""
    counts: Mapping[str, str]
    """Table of counts, or target with counts in its rows -> the statement that removes counts of no row."""


def referring(schema_map: SchemaMap) -> Referring:
    """Return what the map says.

    Three kinds of references keep their key, since only that sees what may go wrong: one to rows of the same
    table that is required, or for which stubs are taken over, where the order in a batch decides; and one
    whose id an expression makes, unless it is one of the built-in map's, which choose among parents.
    """
    tables: dict[str, str] = {}
    keys: list[tuple[str, str, str]] = []
    asked: list[tuple[str, str]] = []
    counts: dict[str, str] = {}
    stubbed = {
        reference.parent
        for table in schema_map
        for reference in table.references
        if reference.stub is not None
    }
    for table in schema_map:
        tables.setdefault(table.target, table.name)
        asked.append((table.target, table.id_column))
        if table.key_column is not None:
            asked.append((table.target, table.key_column))
        asked += [(table.target, name) for name in (table.id.natural if table.id is not None else ())]
        for reference in table.references:
            parent = schema_map[reference.parent]
            if reference.by is not None:
                asked.append((parent.target, reference.by))
            by_order = parent.target == table.target and (reference.required or parent.name in stubbed)
            made = {reference.target_column} & {*table.expressions, *table.otherwise}
            made = made if schema_map is not KNOWLEDGE_GRAPH else set()
            if reference.fills and not (by_order or made):
                keys.append((table.target, reference.target_column, parent.target))
        for links in table.links:
            tables.setdefault(links.table, table.name)
            keys.append((links.table, links.owner, table.target))
            keys.append((links.table, links.member, schema_map[links.parent].target))
        if table.stats is not None:
            place, owner = table.stats_place
            counts[place] = ""
            if not table.counters:
                tables.setdefault(place, table.name)
                keys.append((place, owner, table.target))
                id_ = quoted(table.id_column)
                counts[place] = sql(
                    "counts_of_none",
                    stats=quoted(place),
                    owner=quoted(owner),
                    target=quoted(table.target),
                    id=id_,
                )
    return Referring(tables=tables, keys=keys, asked=asked, counts=counts)


async def are_many(context: SyncContext, statements: SchemaStatements, tables: Sequence[str]) -> bool:
    """Return whether the sources have so many rows that it pays to load them apart, reading no more."""
    write, left = context.write, WORTH_ROWS
    async with write.store.driver() as source:
        for name in tables:
            table = statements.tables[name]
            query = sql("load_pays", source=table.rows(write.schema), limit=str(left))
            async with reading(source, [table.source(write.schema)]):
                left -= await source.fetchval(query)
            if left <= 0:
                return True
    return False


@dataclass(kw_only=True)
class FirstLoad:
    """The keys and indexes of one cycle that were put off, by it or by an earlier one."""

    statements: SchemaStatements
    context: SyncContext
    held: HeldSchema
    ledger: Ledger
    fast: bool | None
    """Whether to put them off; None: counts, and keys and indexes of tables that Syncline has made."""
    progress: Progress
    owed: Sequence[OwedObject] = ()
    notes: list[str] = field(default_factory=list)
    """Why keys and indexes were kept, or lanes were not called, in sentences."""
    due: bool = False
    """Whether it is time to put them back, once all is read."""
    many: bool = False
    """Whether it was found that new tables have many rows."""
    beside_lanes: bool = False
    """Whether lanes may be at work, on a table whose load failed."""

    @property
    def owing(self) -> bool:
        """Whether anything is owed."""
        return bool(self.owed)

    @property
    def put_off(self) -> PutOff:
        """What the batches of the cycle have to do without."""
        counts = frozenset(owed.name for owed in self.owed if owed.kind == COUNTS and not owed.there)
        return PutOff(indexes=any(owed.kind != COUNTS for owed in self.owed), counts=counts)

    async def look(self) -> None:
        """Read what is owed: nothing, by what the ledger says, in nearly every cycle."""
        if self.ledger.load_below is not None:
            # One that was refused is due later, the others are as before.
            self.due = self.ledger.load_due or bool(self.progress.refused)
            async with self.held.transaction() as target:
                self.owed = await read_owed(target, self.held.schema)

    async def begin(self, fence: Fence, pending: Pending) -> None:
        """Put off the keys and indexes of the empty tables that are loaded now, if that pays."""
        if self.ledger.load_below is not None:
            await self._go_on(fence)
            return
        if self.fast is False:
            return
        said = referring(self.statements.schema_map)
        new = [name for name in pending.tables if name not in self.ledger.stored]
        tables = [table for table, name in said.tables.items() if name in new]
        if not tables:
            return
        self.many = await are_many(self.context, self.statements, new)
        if not self.many:
            return
        store, log, graph = self.context.target.store, self.context.log, self.context.graph.slug
        try:
            async with self.held.transaction(*acting_as(store), LOCK_TIMEOUT) as target:
                await fence.require(target)
                kept = await self._put_off(target, said, tables, pending.horizon)
                self.owed = await read_owed(target, self.held.schema)
        except asyncpg.PostgresError as error:
            problem = map_driver_error(store.name, error)
            if (
                problem is None
                or self.held.connection.is_closed()
                or (problem.retryable and not _busy(problem))
            ):
                raise
            self.owed, kept = (), [f"Nothing was put off for the first load: {problem}"]
        self.due = bool(self.owed)
        self.notes += kept
        for note in kept:
            log.info("first load keeps keys or indexes", graph=graph, reason=note)
        if self.owed:
            names = [owed.name for owed in self.owed]
            log.info("first load puts off keys, indexes and counts", graph=graph, owed=names)

    async def _go_on(self, fence: Fence) -> None:
        """Go on with counts that are made page by page, if nobody else had the graph since the last one."""
        begun = [each for each in self.owed if each.counted]
        if not begun:
            return
        async with self.held.transaction() as target:
            await fence.require(target)
            for each in begun:
                stands = each.going_on(fence, self.statements)
                await target.execute(sql("owed_counted"), each.number, list(stands))

    async def end(
        self,
        fence: Fence,
        *,
        unfinished: Sequence[str],
        next_xid: int,
        out_of_time: Callable[[], bool],
    ) -> bool:
        """Put back what is owed for some seconds, once everything that the load began with was read.

        Return whether more can be put back at once. At least one step is done, however long it takes.
        """
        until, steps, cut = time.monotonic() + _SECONDS, 0, False

        def over() -> bool:
            nonlocal steps, cut
            steps, cut = steps + 1, steps > 0 and time.monotonic() >= until
            return cut or out_of_time()

        async with self.held.transaction() as target:
            if not self.owed:
                # Somebody has taken the last one off the list.
                await target.execute(sql("load_over"))
                return False
            if not await target.fetchval(sql("owed_read"), list(unfinished), next_xid):
                return False
        self.owed = await put_back(
            self.held,
            fence,
            self.context.target.store,
            self.statements,
            refused=self.progress.refused,
            out_of_time=over,
            heartbeat=self.progress.heartbeat,
            log=self.context.log,
            graph=self.context.graph.slug,
            transaction=self._alone if self.beside_lanes else None,
        )
        return cut

    def _alone(self, *first: str) -> AbstractAsyncContextManager[asyncpg.Connection]:
        return lane_transaction(self.context, self.held, *first, alone=True)

    async def _put_off(
        self, target: asyncpg.Connection, said: Referring, tables: Sequence[str], horizon: int
    ) -> list[str]:
        """Drop what may leave, and list it as owed; return why the rest stays."""
        kept: list[str] = []
        chosen = list(tables)
        if self.fast is None:
            builtin = self.statements.schema_map is KNOWLEDGE_GRAPH
            rows = await target.fetch(sql("load_made"), chosen, builtin)
            chosen = [row["name"] for row in rows]
        leaving = await self._leaving(target, said, chosen, kept) if chosen else []
        there = await target.fetch(sql("load_there"), list(tables))
        empty, _ = await without_rows(target, [row["name"] for row in there])
        # Nothing of a table changes for that: whoever has made it.
        counted = [
            table.name
            for table in self.statements.schema_map
            if table.stats is not None and {table.target, table.stats_place[0]} <= set(empty)
        ]
        if not (leaving or counted):
            return kept
        for each in leaving:
            await target.execute(each.leave)
        entries: list[tuple[object, ...]] = [(COUNTS, name, name, [], None) for name in counted]
        entries += [(each.kind, each.table, each.name, each.statements, each.validate) for each in leaving]
        await target.execute(sql("load_owes"), json.dumps(entries))
        await target.execute(sql("load_begun"), horizon)
        return kept

    async def _leaving(
        self, target: asyncpg.Connection, said: Referring, chosen: Sequence[str], kept: list[str]
    ) -> "list[_Leaving]":
        """Lock those that are empty; return what may leave, and add to `kept` why the rest stays."""
        empty: list[str] = []
        for row in await target.fetch(sql("load_tables"), chosen):
            if row["kept"] is None:
                empty.append(row["name"])
            else:
                kept.append(f"{row['name']} keeps its keys and indexes in the first load: {row['kept']}.")
        empty, filled = await without_rows(target, empty)
        kept += [f"{name} keeps its keys and indexes in the first load: it has rows." for name in filled]
        if not empty:
            return []
        await target.execute(sql("load_lock", tables=", ".join(map(quoted, empty))))
        # Others may have written until the lock was there.
        empty, filled = await without_rows(target, empty)
        kept += [f"{name} keeps its keys and indexes in the first load: it has rows." for name in filled]
        asked = empty, json.dumps(said.keys), json.dumps(said.asked)
        leaving: list[_Leaving] = []
        for row in await target.fetch(sql("load_objects"), *asked):
            each = _Leaving.of(row, said)
            problem = await _tried(target, each, asked)
            if problem is None:
                leaving.append(each)
            else:
                kept.append(f"{each.table} keeps {each.kind} {each.name} in the first load: {problem}")
        return leaving


@dataclass(frozen=True, kw_only=True)
class _Leaving:
    """A key or an index that may leave."""

    kind: str
    table: str
    name: str
    leave: str
    statements: Sequence[str]
    validate: str | None
    fingerprint: str

    @classmethod
    def of(cls, row: asyncpg.Record, said: Referring) -> "_Leaving":
        """Return it from a row of `load_objects`."""
        statements: Sequence[str] = row["statements"]
        if row["kind"] == "foreign key" and said.counts.get(row["table_name"]):
            # Without the key, counts of a removed row stay.
            statements = [said.counts[row["table_name"]], *statements]
        return cls(
            kind=row["kind"],
            table=row["table_name"],
            name=row["name"],
            leave=row["leave"],
            statements=statements,
            validate=row["validate"],
            fingerprint=row["fingerprint"],
        )


async def without_rows(target: asyncpg.Connection, tables: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the tables without any row, and those with rows."""
    if not tables:
        return [], []
    each = [sql("load_rows", name=literal(name), table=quoted(name)) for name in tables]
    rows = await target.fetch(" UNION ALL ".join(each))
    filled = {row["name"] for row in rows}
    return [name for name in tables if name not in filled], sorted(filled)


class _TriedOut(Exception):
    """Rolls back the trial."""


async def _tried(
    target: asyncpg.Connection, leaving: _Leaving, asked: tuple[Sequence[str], str, str]
) -> str | None:
    """Drop one object, put it back and look at it; undo all that. Return why it has to stay, None if not."""
    again: str | None = None
    validating = [] if leaving.validate is None else [leaving.validate]
    try:
        async with target.transaction():
            for statement in (leaving.leave, *leaving.statements, *validating):
                await target.execute(statement)
            for row in await target.fetch(sql("load_objects"), *asked):
                if (row["table_name"], row["name"]) == (leaving.table, leaving.name):
                    again = row["fingerprint"]
            raise _TriedOut
    except _TriedOut:
        pass
    except asyncpg.PostgresError as error:
        problem = map_driver_error("graph", error)
        if problem is None or target.is_closed():
            raise
        return str(problem)
    return None if again == leaving.fingerprint else "it would not be the same when it is put back."


def _busy(problem: StoreError) -> bool:
    return problem.sqlstate in ("55P03", "40P01")
