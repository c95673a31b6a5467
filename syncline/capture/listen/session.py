"""Listen session: while a listen connection is held, receives, finds missed changes and starts runs."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final

import asyncpg

from syncline import metrics
from syncline.capture.install.steps import qualified
from syncline.capture.listen.connection import LEASE_SECONDS, ListenConnection, in_batches
from syncline.capture.listen.debounce import Snapshot, TriggerDebouncer
from syncline.capture.listen.starter import ListenContext, Starting, loop_time
from syncline.capture.listen.tenants import changed_tenants, tenants_of
from syncline.logs import get_log
from syncline.masking import error_text
from syncline.sql import literal, statements_of
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import reading

__all__ = ["ListenSession", "changed_since"]

_sql = statements_of("syncline.capture.listen")


async def changed_since(store: PostgresStore, schemas: Sequence[str], xid: int) -> frozenset[str]:
    """Return which of the schemas have rows or tombstones of this transaction or a later one.

    Every map has an index in that order, so it is one probe per table.
    """
    found: set[str] = set()
    # A connection caches every table that it has read: the shared one would keep thousands in memory.
    async with store.alone("look-up") as connection:
        async with reading(connection):
            rows = await connection.fetch(_sql("stamped"), schemas)
        tables = {
            schema: [qualified(schema, row["name"]) for row in of_schema]
            for schema, of_schema in groupby(rows, key=lambda row: str(row["schema"]))
        }
        waiting = list(in_batches(list(tables)))
        while waiting:
            batch = waiting.pop()
            try:
                found |= await _changed(connection, {schema: tables[schema] for schema in batch}, xid)
            except asyncpg.PostgresError:
                # A schema that cannot be read does not stop the others. Its own run reports why.
                if len(batch) == 1:
                    found.update(batch)
                else:
                    waiting += [[schema] for schema in batch]
    return frozenset(found)


async def _changed(
    connection: asyncpg.Connection, tables: Mapping[str, Sequence[str]], xid: int
) -> frozenset[str]:
    selects = [
        f"SELECT '{literal(schema)}' AS schema WHERE "
        + " OR ".join(_sql("probe", table=table) for table in of_schema)
        for schema, of_schema in tables.items()
    ]
    asked = [table for of_schema in tables.values() for table in of_schema]
    async with reading(connection, asked, lock_timeout="2s"):
        rows = await connection.fetch(" UNION ALL ".join(selects), str(xid))
    return frozenset(row["schema"] for row in rows)


_WINDOW: Final = 1.0
_TICK: Final = 1.0
_REFRESH: Final = 30.0
_RETRY: Final = 15.0
"""Seconds between two looks for due retries."""
_UNKNOWN: Final = 5.0
"""Seconds between lookups of a notified schema without a record."""
_MOST_UNKNOWN: Final = 100


@dataclass
class _Doubt:
    """Changes that may have been missed."""

    since: int
    """The first transaction concerned."""
    silence_ends: float
    """When the last mute, or lapse of the lease, no longer has an effect."""
    look_again: int | None = None
    """At this horizon no muted writer is left; None before the first check."""


class ListenSession:
    """One session on a listen connection: `begin`, then `run` until an error; then a new one is needed."""

    def __init__(self, connection: ListenConnection, store: PostgresStore, context: ListenContext) -> None:
        self._connection = connection
        self._store = store
        self._context = context
        self._debouncer = TriggerDebouncer(Snapshot(xmin=0, xmax=0), window=_WINDOW)
        self._news = asyncio.Event()
        self._unknown: dict[str, int] = {}
        """A few schemas without a record: a graph may have been added since the records were read."""
        self._throttling: set[asyncio.Task[None]] = set()
        self._wanted: dict[str, bool] = {}
        """Schema -> whether its record wants writers to notify."""
        self._notifying: dict[str, bool] = {}
        """Schema -> whether its writers are set to notify."""
        self._doubted: _Doubt | None = None
        self._renewed = 0.0
        self._since = 0
        """Nothing below it is notified any more: such a claim is made up."""

    async def begin(self) -> None:
        """Listen, renew the lease, and run what changed while no worker listened."""
        await self._connection.listen(self._on_notification)
        await self._connection.check()
        seen = await self._connection.snapshot()
        self._debouncer = TriggerDebouncer(seen, window=_WINDOW)
        self._since = seen.xmin
        last = await self._connection.last_low_watermark()
        if last is None:
            last = seen.xmin
        # Beyond all transactions of this server: the table came with a dump of another cluster.
        self._doubt(last if last <= seen.xmax else 0)
        await self._context.directory.read(older_than=_REFRESH)
        await self._follow_records()
        await self._renew()

    async def run(self) -> None:
        """Start runs until the connection is lost; raise the cause."""
        starting = Starting(
            self._context,
            self._debouncer,
            snapshot=self._connection.snapshot,
            news=self._news,
            changed=partial(changed_tenants, self._store),
            muted=self._connection.muted,
        )
        work = (
            self._tick(),
            self._keep_up(),
            self._retry(),
            starting.run(),
            self._connection.wait_lost(None),
        )
        tasks = [asyncio.create_task(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, *self._throttling):
                task.cancel()
            await asyncio.gather(*tasks, *self._throttling, return_exceptions=True)

    def _on_notification(self, schema: str, xid: int) -> None:
        # Any role may notify: nothing is stored, queried or updated for a schema without a record.
        if schema not in self._context.entries():
            if len(self._unknown) < _MOST_UNKNOWN:
                self._unknown[schema] = xid
            return
        now, xid = loop_time(), max(xid, self._since)
        metrics.NOTIFICATIONS.add(self._context.meter, 1, store=self._context.store)
        seconds = self._debouncer.note(schema, xid, xid, now=now)
        self._news.set()
        if seconds > 0:
            self._debouncer.throttle(schema, until=now + seconds)
            task = asyncio.create_task(self._throttle(schema, seconds))
            self._throttling.add(task)
            task.add_done_callback(self._throttling.discard)

    async def _throttle(self, schema: str, seconds: float) -> None:
        try:
            await self._connection.throttle(schema, seconds)
        except (asyncpg.PostgresError, TimeoutError) as error:
            self._context.report(f"writers of schema '{schema}' cannot be muted: {error_text(error)}")
        else:
            self._debouncer.throttle(schema, until=loop_time() + seconds)

    async def _tick(self) -> None:
        """Check the horizon and the lease; usually there is nothing to do."""
        while True:
            await asyncio.sleep(_TICK)
            renew = loop_time() - self._renewed >= LEASE_SECONDS / 3
            if renew:
                seen = await self._connection.snapshot()
                await self._connection.check()
                # What ended before our own notification was notified before it, and so has arrived.
                self._since = seen.xmin
                await self._renew()
            if renew or self._debouncer.held:
                self._debouncer.moved(await self._connection.snapshot(), now=loop_time())
                self._news.set()

    async def _keep_up(self) -> None:
        """Refresh the records and check for missed changes; not in the tick, since a lease may be shorter."""
        followed = loop_time()
        while True:
            await asyncio.sleep(_TICK)
            if loop_time() - followed >= LEASE_SECONDS / 3:
                followed = loop_time()
                await self._context.directory.read(older_than=_REFRESH)
                await self._follow_records()
            if self._unknown:
                await self._look_up_unknown()
            if self._doubted is not None and loop_time() >= self._doubted.silence_ends:
                await self._look(self._doubted, await self._connection.snapshot())

    async def _retry(self) -> None:
        """Run graphs whose retries are due; apart, since their graph-dbs may answer late."""
        while True:
            await asyncio.sleep(_RETRY)
            if self._context.retries is not None:
                entries = self._context.entries()
                await self._context.retries([graph for entry in entries.values() for graph in entry])

    async def _look_up_unknown(self) -> None:
        """Add notified schemas that have a record by now, drop the others; at a limited rate."""
        if not await self._context.directory.read(older_than=_UNKNOWN):
            return
        unknown, self._unknown = self._unknown, {}
        for schema, xid in unknown.items():
            if schema in self._context.entries():
                self._on_notification(schema, xid)

    async def _renew(self) -> None:
        """Renew the lease; if it had lapsed, writers may not have notified since."""
        seen = await self._connection.snapshot()
        heard_below = self._debouncer.low_watermark(seen)
        if self._doubted is not None:
            heard_below = min(heard_below, self._doubted.since)
        lapsed = await self._connection.renew(heard_below)
        self._renewed = loop_time()
        if lapsed:
            self._doubt(heard_below)

    def _doubt(self, heard_below: int) -> None:
        """Schedule a check for missed changes, soon, when all writers notify again."""
        self._doubted = _Doubt(heard_below, silence_ends=loop_time() + 2 * _WINDOW)

    async def _look(self, doubt: _Doubt, seen: Snapshot) -> None:
        """Run what changed without a notification; again after transactions that may be muted have ended."""
        if doubt.look_again is None:
            doubt.look_again = seen.xmax
        elif seen.xmin < doubt.look_again:
            return
        schemas = [schema for schema, wanted in self._wanted.items() if wanted]
        entries = self._context.entries()
        # Its tables are in the order of tenants: those that have something new are found when it is due.
        shared = {schema for schema in schemas if tenants_of(entries.get(schema, ()))}
        changed = await changed_since(self._store, [s for s in schemas if s not in shared], doubt.since)
        for schema in sorted(changed | shared):
            self._debouncer.note(schema, min(doubt.since, seen.xmin), seen.xmax - 1, now=loop_time())
        self._news.set()
        if changed:
            get_log().info("missed changes found", graphs=len(changed))
        # Another check may have been scheduled meanwhile.
        if seen.xmin >= doubt.look_again and self._doubted is doubt:
            self._doubted = None

    async def _follow_records(self) -> None:
        """Make the writers of each graph notify as its record says; failures are retried next time."""
        entries = self._context.entries()
        able = await self._connection.able(list(entries))
        self._wanted = {schema: bool(entry) for schema, entry in entries.items() if schema in able}
        update = await self._connection.want(
            {schema: flag for schema, flag in self._wanted.items() if self._notifying.get(schema) is not flag}
        )
        self._notifying = {
            schema: flag if schema in update.schemas else self._notifying[schema]
            for schema, flag in self._wanted.items()
            if schema in update.schemas or schema in self._notifying
        }
        if update.problem is not None:
            self._context.report(f"some writers cannot be set to notify: {update.problem}")
        roused = [schema for schema in update.newly_enabled if self._wanted[schema]]
        if roused:
            # They did not notify until now, for an unknown time.
            seen = await self._connection.snapshot()
            for schema in sorted(roused):
                self._debouncer.note(schema, seen.xmin, seen.xmax - 1, now=loop_time())
            self._news.set()
