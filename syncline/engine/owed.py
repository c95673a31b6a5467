"""Owed: foreign keys and indexes that a first load has put off, and how they are put back.

Each step is one transaction that also takes it off the list, so that a crash leaves an object there, or named
as owed. `CREATE INDEX` and `ADD CONSTRAINT … NOT VALID` block other writers, never readers; `VALIDATE` blocks
neither. To count for all rows of a large table takes many steps, once the indexes are there.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import asyncpg

from syncline.engine.dead_letters import may_be_rows
from syncline.engine.merge import MANY_ROWS
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence
from syncline.engine.template import sql
from syncline.messages.sync import Owed
from syncline.provider import EventLog
from syncline.sql import quoted, string_literal
from syncline.stores.postgres import PostgresStore, map_driver_error

__all__ = ["COUNTS", "LOCK_TIMEOUT", "OwedObject", "acting_as", "put_back", "read_owed"]

COUNTS, INDEX, FOREIGN_KEY = "counts", "index", "foreign key"
"""The kinds of what is owed; counts are those of a table for whose rows nothing is counted yet."""
_AT_ONCE = 256 * 2**20
"""Bytes of the tables that are read to count for one, from which on that is no work of a moment."""
_PAGE = 150_000
"""Rows of a large table that are counted for in one step."""
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"
"""Less than a session waits before it looks for a deadlock: who began later gives up, nobody else does."""
_INDEX_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '3s'"
"""An index needs the lock of one table, so there is no deadlock. It waits for other writers, and for VACUUM
and ANALYZE, which Postgres cancels for it after a second (`deadlock_timeout`) where autovacuum runs them: it
does once so many rows have come. No reader waits for it."""
_CHECK_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"
"""To check rows waits for no reader or writer, and none for it: only for VACUUM and ANALYZE."""
_COUNTING = "DISCARD PLANS; SET LOCAL work_mem = '64MB'; SET LOCAL plan_cache_mode = auto"
_MEMORY = (
    "SELECT pg_catalog.set_config('maintenance_work_mem', '256MB', true)"
    " WHERE pg_size_bytes(current_setting('maintenance_work_mem')) < pg_size_bytes('256MB')"
)
"""For sorting an index; a server that gives more keeps it."""


@dataclass(frozen=True, kw_only=True)
class OwedObject:
    """One key or index that is owed, and what the catalogs have of it now."""

    number: int
    kind: str
    table: str
    name: str
    statements: Sequence[str]
    validate: str | None
    there: bool
    tries: int
    problem: str | None
    placed: bool
    """Whether its table is there."""
    found: bool
    """Whether it is there, if only for new rows."""
    valid: bool
    """Whether nothing is left to do."""
    counted: Sequence[str] = ()
    """Of counts that are made page by page: the last id that was counted for, the fence number, the map."""

    @classmethod
    def of(cls, row: asyncpg.Record) -> "OwedObject":
        """Return it from a row of the query `owed`."""
        counts = row["kind"] == COUNTS
        return cls(
            number=row["number"],
            kind=row["kind"],
            table=row["table_name"],
            name=row["name"],
            statements=() if counts else row["statements"],
            counted=row["statements"] if counts else (),
            validate=row["validate"],
            there=row["there"],
            tries=row["tries"],
            problem=row["problem"],
            placed=row["placed"],
            found=row["indexed"] or row["keyed"],
            valid=row["indexed"] or row["valid"],
        )

    def going_on(self, fence: Fence, statements: SchemaStatements) -> Sequence[str]:
        """Return what is known of counts now that this fence was taken; nothing if they begin anew.

        Who had the graph meanwhile may have counted nothing of what it changed, as earlier versions do.
        """
        if len(self.counted) != 3:
            return ()
        last, by, map_hash = self.counted
        if int(by) < fence.fence - 1 or map_hash != statements.map_hash:
            return ()
        return last, str(fence.fence), map_hash

    @property
    def reported(self) -> Owed:
        """What results and operators are told of it."""
        left = [] if self.found else list(self.statements)
        return Owed(
            table=self.table,
            name=self.name,
            kind=self.kind,
            not_valid=self.found and not self.valid,
            problem=self.problem,
            statement="; ".join([*left, *([] if self.validate is None else [self.validate])]),
        )


def acting_as(store: PostgresStore) -> Sequence[str]:
    """Return the statements that make a transaction act as the owner of graphs' schemas, if one is set."""
    return () if store.owner_role is None else (f"SET LOCAL ROLE {quoted(store.owner_role)}",)


async def read_owed(target: asyncpg.Connection, schema: str) -> Sequence[OwedObject]:
    """Return what is owed in a schema, in the order in which it is put back; whatever the search_path is."""
    query = sql("owed", schema=f"{quoted(schema)}.", name=string_literal(schema))
    return [OwedObject.of(row) for row in await target.fetch(query)]


async def put_back(
    held: HeldSchema,
    fence: Fence,
    store: PostgresStore,
    statements: SchemaStatements,
    *,
    refused: set[int],
    out_of_time: Callable[[], bool],
    heartbeat: Callable[[], None],
    log: EventLog,
    graph: str,
    transaction: Callable[..., AbstractAsyncContextManager[asyncpg.Connection]] | None = None,
) -> Sequence[OwedObject]:
    """Put back what is owed, step by step, each in a `transaction` (default: of `held`); return what is left.

    `heartbeat` is called after each step. What Postgres refuses is noted, also in `refused`, whose numbers
    are left alone, and the others follow.
    Raises CycleFenced if another holder has acquired the graph, and driver errors if the connection is lost.
    """
    begin = held.transaction if transaction is None else transaction
    async with held.transaction() as target:
        owed = await read_owed(target, held.schema)
        paged = {
            each.number
            for each in owed
            if each.kind == COUNTS and (each.there or await _is_long(target, statements, each.name))
        }
    steps = [(each, "place") for each in owed if not each.found or each.valid or not each.placed]
    # Pages find what they count by the indexes; keys would have every count checked.
    last = (INDEX, COUNTS, FOREIGN_KEY)
    steps.sort(key=lambda step: last.index(step[0].kind) if paged else 0)
    # The rows are checked at last, so that new ones are checked as they come meanwhile.
    steps += [(each, "validate") for each in owed if each.placed and each.validate and not each.valid]
    for each, step in steps:
        if each.number in refused:
            continue
        if out_of_time():
            break
        try:
            if each.number in paged and (each.there or not _lacking(owed, refused)):
                await _count_pages(begin, fence, statements, each, out_of_time, heartbeat)
            elif each.kind == COUNTS:
                async with begin(statements.recount.create, _COUNTING) as target:
                    await fence.require(target)
                    await statements.recount.run_whole(target, each.name)
                    await target.execute(sql("owed_paid"), each.number)
            else:
                async with begin(*acting_as(store), _patience(each, step), _MEMORY) as target:
                    await fence.require(target)
                    await (_place if step == "place" else _validate)(target, each)
            heartbeat()
        except asyncpg.PostgresError as error:
            problem = map_driver_error(store.name, error)
            if problem is None or held.connection.is_closed() or not may_be_rows(problem):
                raise
            refused.add(each.number)
            reason = str(problem)
            log.warning(
                "key or index still owed", graph=graph, table=each.table, name=each.name, reason=reason
            )
            async with held.transaction() as target:
                await fence.require(target)
                await target.execute(sql("owed_failed"), each.number, reason)
    async with held.transaction() as target:
        return await read_owed(target, held.schema)


def _patience(owed: OwedObject, step: str) -> str:
    if step == "validate":
        return _CHECK_LOCK_TIMEOUT
    return _INDEX_LOCK_TIMEOUT if owed.kind == INDEX else LOCK_TIMEOUT


def _lacking(owed: Sequence[OwedObject], refused: set[int]) -> bool:
    """Return whether an index was refused: then each page would read whole tables."""
    return any(each.kind == INDEX and each.number in refused for each in owed)


async def _is_long(target: asyncpg.Connection, statements: SchemaStatements, name: str) -> bool:
    """Return whether to count for every row of a table at once would keep changes waiting for seconds."""
    size = await target.fetchval(sql("counted_size"), statements.recount.reads(name))
    return bool(size >= _AT_ONCE)


async def _count_pages(
    begin: Callable[..., AbstractAsyncContextManager[asyncpg.Connection]],
    fence: Fence,
    statements: SchemaStatements,
    owed: OwedObject,
    out_of_time: Callable[[], bool],
    heartbeat: Callable[[], None],
) -> None:
    """Count for the next rows of a table, at least for a page of them."""
    last = next(iter(owed.counted), None)
    while True:
        async with begin(_COUNTING, MANY_ROWS) as target:
            await fence.require(target)
            last = await statements.recount.run_page(target, owed.name, after=last, rows=_PAGE)
            if last is None:
                await target.execute(sql("owed_paid"), owed.number)
            else:
                stands = [last, str(fence.fence), statements.map_hash]
                await target.execute(sql("owed_counted"), owed.number, stands)
        if last is None or out_of_time():
            return
        heartbeat()


async def _place(target: asyncpg.Connection, owed: OwedObject) -> None:
    """Make the object, unless somebody has, or its table is gone."""
    if owed.placed and not owed.found:
        for statement in owed.statements:
            await target.execute(statement)
        if owed.validate is not None:
            await target.execute(sql("owed_there"), owed.number)
            return
    await target.execute(sql("owed_paid"), owed.number)


async def _validate(target: asyncpg.Connection, owed: OwedObject) -> None:
    await target.execute(owed.validate or "SELECT")
    await target.execute(sql("owed_paid"), owed.number)
