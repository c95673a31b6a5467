"""Transactions on one graph's schema in its graph-db. Nothing in them depends on an earlier transaction.

Each sets its own search_path, by the round trip that begins it. What a connection keeps from one to the next
is the graph's advisory lock alone, and a cycle that has lost it without noticing is stopped by the fence.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from syncline.sql import literal, quoted, string_literal

__all__ = ["BY_INDEX", "SCHEMA_PATH", "HeldSchema", "looking_up", "schema_transaction"]


@asynccontextmanager
async def schema_transaction(
    connection: asyncpg.Connection, schema: str, *first: str, last: str | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """Yield the connection in a transaction whose search_path is the schema; it commits at the end.

    The statements `first`, without parameters, begin it; `last` is executed once it is committed. Neither
    costs a round trip. The connection is one of a PostgresStore.
    """
    # Without USAGE a schema is silently left out of the path, and its tables "do not exist"; a name with the
    # schema in it is refused as what it is.
    seen = f"SELECT to_regclass({string_literal(f'{quoted(schema)}.sync_state')})"
    opening = [seen, f"SET LOCAL search_path = {quoted(schema)}", *first]
    with connection.beginning("; ".join(opening), last):
        async with connection.transaction():
            yield connection


@dataclass(frozen=True)
class HeldSchema:
    """A graph's schema, and the connection that has, or wants, its advisory lock."""

    connection: asyncpg.Connection
    schema: str

    @asynccontextmanager
    async def locking(self, name_sql: str | None = None, *, mark: bool = False) -> AsyncIterator[bool]:
        """Enter a transaction that takes the graph's lock for this session; yield whether it was free.

        Before it has the lock it is called what `name_sql` says, until that is given back or it is `unnamed`.
        With `mark` its holder is asked to look once more before it ends: the mark is left before the lock is
        tried, and read after the lock was given back, so that one of the two always sees the other.
        """
        first = [] if name_sql is None else [_named(name_sql)]
        if mark:
            first.append(f"SELECT nextval({self._marks})")
        async with self.transaction(*first, f"SELECT WHERE pg_try_advisory_lock({self._key})"):
            # A script gives no rows, but says how many there were.
            yield self.connection.begun == "SELECT 1"

    def transaction(
        self, *first: str, last: str | None = None
    ) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Return a transaction on the schema; `last` is executed once it is committed."""
        return schema_transaction(self.connection, self.schema, *first, last=last)

    @asynccontextmanager
    async def unlocking(self, marks: int) -> AsyncIterator[asyncpg.Connection]:
        """Enter a transaction that gives the lock back, and the name, once it is committed.

        `marked` says afterwards whether a mark was left since there were `marks`.
        """
        unlock = f"SELECT pg_advisory_unlock({self._key})"
        # Each statement of a script has a snapshot of its own, and a sequence has none at all. The script
        # says of its last statement how many rows there were.
        compare = f"SELECT WHERE coalesce(pg_sequence_last_value({self._marks}), 0) <> {marks:d}"
        async with self.transaction(last=f"{unlock}; {self.unnamed}; {compare}"):
            yield self.connection

    @property
    def marked(self) -> bool:
        """Whether the lock was given back with a mark that was left since the last look."""
        return bool(self.connection.ended == "SELECT 1")

    @property
    def _marks(self) -> str:
        # Null where the books are older than this worker: then nobody counts, and nobody compares.
        return f"to_regclass({string_literal(f'{quoted(self.schema)}.sync_look')})"

    @property
    def unnamed(self) -> str:
        """The statement that gives the session its usual name back."""
        return _named(string_literal(self.connection.called))

    @property
    def _key(self) -> str:
        return f"hashtextextended('syncline:{literal(self.schema)}', 0)"


def _named(name_sql: str) -> str:
    # Shown to others at once, and kept when the transaction commits.
    return f"SELECT pg_catalog.set_config('application_name', {name_sql}, false)"


BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
"""For a transaction that looks entries up by key or reads them in order. Any other way reads all of a table,
and is what the planner takes where it lacks statistics."""

SCHEMA_PATH = """
SELECT set_config('search_path', quote_ident($1), true), to_regclass(quote_ident($1) || '.sync_state')
"""
"""Puts a schema on the search_path until the transaction ends, and refuses one that the role may not use:
else it is left out of it without a word, and its tables do not exist."""


@asynccontextmanager
async def looking_up(connection: asyncpg.Connection, *, few: bool) -> AsyncIterator[None]:
    """Have rows, if they are `few`, look up what they are joined with by index, in the caller's transaction.

    Without statistics the planner takes each for many, and reads a table of any size instead. Only for
    statements in which every join has an index: others would compare each row with each.
    """
    if few:
        await connection.execute(_set("off"))
    yield
    if few:
        await connection.execute(_set("DEFAULT"))


def _set(value: str) -> str:
    return ";".join(f"SET LOCAL enable_{way} TO {value}" for way in ("hashjoin", "mergejoin", "seqscan"))
