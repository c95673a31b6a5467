"""Transactions on one graph's schema in its graph-db; none depends on an earlier one.

Each sets its search_path in the round trip that begins it. The only session state is the graph's advisory
lock, and the fence stops a cycle that has lost it unnoticed.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from syncline.sql import literal, quoted, string_literal

__all__ = [
    "BY_INDEX",
    "FRESH_PLANS",
    "PLAN_EACH",
    "SCHEMA_PATH",
    "HeldSchema",
    "looking_up",
    "schema_transaction",
]


@asynccontextmanager
async def schema_transaction(
    connection: asyncpg.Connection, schema: str, *first: str, last: str | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """Yield the connection in a transaction whose search_path is the schema; commit at the end.

    The statements `first`, without parameters, run at its start; `last` runs after the commit. Neither costs
    a round trip. The connection must be one of a PostgresStore.
    """
    # Without USAGE, Postgres silently skips a schema in the path and its tables "do not exist"; a qualified
    # name raises the real error.
    seen = f"SELECT to_regclass({string_literal(f'{quoted(schema)}.sync_state')})"
    opening = [seen, f"SET LOCAL search_path = {quoted(schema)}", *first]
    with connection.beginning("; ".join(opening), last):
        async with connection.transaction():
            yield connection


@dataclass(frozen=True)
class HeldSchema:
    """A graph's schema, and the connection that holds, or wants, its advisory lock."""

    connection: asyncpg.Connection
    schema: str

    @asynccontextmanager
    async def locking(self, name_sql: str | None = None, *, mark: bool = False) -> AsyncIterator[bool]:
        """Enter a transaction that tries to acquire the graph's lock for this session; yield whether it did.

        Before that it sets the session's name to `name_sql`, until the lock is released or `unnamed` runs.
        `mark` asks the holder to look for changes once more before it ends: the mark is left before trying
        the lock and read after releasing it, so one of the two sessions always sees the other.
        """
        first = [] if name_sql is None else [_named(name_sql)]
        if mark:
            first.append(f"SELECT nextval({self._marks})")
        async with self.transaction(KEPT_BY_INDEX, *first, f"SELECT WHERE pg_try_advisory_lock({self._key})"):
            # A script returns no rows, but its status has their number.
            yield self.connection.begun == "SELECT 1"

    def transaction(
        self, *first: str, last: str | None = None
    ) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Return a transaction on the schema; `last` runs after the commit."""
        return schema_transaction(self.connection, self.schema, *first, last=last)

    @asynccontextmanager
    async def unlocking(self, marks: int) -> AsyncIterator[asyncpg.Connection]:
        """Enter a transaction that releases the lock and the session's name once it is committed.

        Afterwards `marked` is whether a mark was left since the count was `marks`.
        """
        async with self.transaction(last=self._unlocking(marks)):
            yield self.connection

    async def unlock(self, marks: int) -> None:
        """Release the lock and the session's name outside of a transaction; `marked` as after `unlocking`."""
        self.connection.ended = await self.connection.execute(self._unlocking(marks))

    def _unlocking(self, marks: int) -> str:
        unlock = f"SELECT pg_advisory_unlock({self._key})"
        # Each statement of a script has its own snapshot, and a sequence has none. The script's status has
        # the number of rows of its last statement.
        compare = f"SELECT WHERE coalesce(pg_sequence_last_value({self._marks}), 0) <> {marks:d}"
        return f"{unlock}; {self.unnamed}; {compare}"

    @property
    def marked(self) -> bool:
        """Whether a mark was left between the last look and the release of the lock."""
        return bool(self.connection.ended == "SELECT 1")

    @property
    def _marks(self) -> str:
        # Null if the bookkeeping tables are older than this worker: then marks are not used.
        return f"to_regclass({string_literal(f'{quoted(self.schema)}.sync_look')})"

    @property
    def unnamed(self) -> str:
        """The statement that resets the session's name."""
        return _named(string_literal(self.connection.called))

    @property
    def _key(self) -> str:
        return f"hashtextextended('syncline:{literal(self.schema)}', 0)"


def _named(name_sql: str) -> str:
    # Visible to other sessions at once, and kept after the commit.
    return f"SELECT pg_catalog.set_config('application_name', {name_sql}, false)"


BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
"""For a transaction that looks entries up by key or reads them in order. Without statistics the planner would
choose to read the whole table."""

KEPT_BY_INDEX = f"{BY_INDEX}; SET LOCAL plan_cache_mode = force_generic_plan"
"""For a transaction with one query that reads the first entry of each table: a session plans it once.

The plan is right for any number of rows, since it may not read a whole table."""

FRESH_PLANS = "DISCARD PLANS; SET LOCAL plan_cache_mode = auto"
"""For a transaction that writes many rows: earlier plans are forgotten, and from here on they are kept.

A plan for a batch of five is a disaster for one of 50,000. But Postgres checks foreign keys by a query for
each row, and runs an SQL function that cannot be inlined by one for each call: to plan those each time, as
sessions do (`plan_cache_mode`), costs more than to run them."""
PLAN_EACH = "SET LOCAL plan_cache_mode = force_custom_plan"
"""Undoes half of `FRESH_PLANS` where a table may grow by much between two statements of a transaction."""

SCHEMA_PATH = """
SELECT set_config('search_path', quote_ident($1), true), to_regclass(quote_ident($1) || '.sync_state')
"""
"""Sets the search_path to a schema until the transaction ends, and fails if the role may not use it: Postgres
would skip it silently, and its tables would not exist."""


@asynccontextmanager
async def looking_up(connection: asyncpg.Connection, *, few: bool) -> AsyncIterator[None]:
    """Make joins of `few` rows use indexes, in the caller's transaction.

    Without statistics the planner expects many rows and reads whole tables instead. Only for statements in
    which every join has an index: others would compare every pair of rows.
    """
    if few:
        await connection.execute(_set("off"))
    yield
    if few:
        await connection.execute(_set("DEFAULT"))


def _set(value: str) -> str:
    return ";".join(f"SET LOCAL enable_{way} TO {value}" for way in ("hashjoin", "mergejoin", "seqscan"))
