"""Transactions on tables that other roles own, whose code must not run with this role's privileges.

A schema's owner can at any time replace a table by a view, or add triggers, rules, policies, operators and
expression indexes. So a read is a read-only transaction in which names resolve to pg_catalog only and
relations are checked first; a write holds a lock that prevents all of that, and checks first. Nothing depends
on the session: a prologue is one message, and ends with its transaction.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache

import asyncpg

from syncline.sql import Statements, quoted, statements_of
from syncline.stores.floor import Floor

__all__ = ["read_settings", "reading", "write_guard", "writing"]

_sql: Statements = statements_of("syncline.stores")


@asynccontextmanager
async def reading(
    connection: asyncpg.Connection,
    tables: Sequence[str] = (),
    *,
    one_moment: bool = False,
    first: str = "SELECT",
    role: str | None = None,
    lock_timeout: str | None = None,
) -> AsyncIterator[None]:
    """Enter a read-only transaction in which reading `tables` runs no other role's code.

    `one_moment`: one snapshot. `tables` are qualified and quoted, and cannot change until the end; statements
    must qualify their sources. Raises InsufficientPrivilegeError, with a sentence, if one is not a table or
    has code that planning would run, and on a standby below the connection's floor. One round trip before,
    including the settings `first`, and one after; one more if a table has anything that such code may be in.
    `role`: act as that role. `lock_timeout`: raise LockNotAvailableError when a table is not free in time, so
    that a query for many owners does not wait for one of them.
    """
    isolation = "REPEATABLE READ" if one_moment else "READ COMMITTED"
    begin = f"BEGIN ISOLATION LEVEL {isolation} READ ONLY"
    if role is not None:
        begin = f"{begin};SET LOCAL ROLE {quoted(role)}"
    if lock_timeout is not None:
        begin = f"{begin};SET LOCAL lock_timeout = '{lock_timeout}'"
    begin = f"{begin};{_sql('read_settings')};{_floor_of(connection).required}"
    if not tables:
        async with _transaction(connection, f"{begin}{first}"):
            yield
        return
    async with _transaction(connection, f"{begin}{_read_check(tuple(tables), first)}", guarded=tables):
        yield


def _floor_of(connection: asyncpg.Connection) -> Floor:
    # A connection that no store has opened has none.
    floor: Floor | None = getattr(connection, "floor", None)
    return floor or Floor()


@lru_cache(maxsize=1_000)
def _read_check(tables: tuple[str, ...], first: str) -> str:
    # An idle cycle is little more than a read.
    return f"{_sql('read_lock', tables=', '.join(tables))};{first};{_sql('read_doubt', names=_names(tables))}"


def read_settings(tables: Sequence[str] = ()) -> str:
    """Return the prologue of `reading`, for a transaction that is started otherwise."""
    settings = _sql("read_settings")
    if not tables:
        return settings
    lock = _sql("read_lock", tables=", ".join(tables))
    return f"{settings};{lock};{_read_guard(_names(tables))}"


def _read_guard(names: str) -> str:
    return _sql("read_guard", names=names, tag=_tag(names))


@asynccontextmanager
async def writing(
    connection: asyncpg.Connection,
    tables: Sequence[str],
    *,
    lock_timeout: str = "2s",
    nowait: bool = False,
    first: str = "SELECT",
) -> AsyncIterator[None]:
    """Enter a transaction in which writing to `tables` runs no other role's code; commit at the end.

    For the engine's tables in a schema that others own; they are qualified and quoted, and statements name
    them so, with ONLY. Raises InsufficientPrivilegeError, with a sentence, if a table has triggers, rules,
    policies, foreign keys, children, foreign types, expressions that call anything not built in, or a foreign
    owner. Raises LockNotAvailableError when its lock is not free in time (`nowait`: at once; autovacuum
    yields to waiting lock requests, which must not happen often on a large table). The role needs UPDATE or
    DELETE on each. One round trip before, including the script `first`, and one after.
    """
    settings = f"SET LOCAL lock_timeout = '{lock_timeout}';{_sql('read_settings')}"
    guard = write_guard(tables, nowait=nowait)
    # A session of ours is for writing; to say so again would be no outage on a standby, but a rejection.
    begin = f"BEGIN ISOLATION LEVEL READ COMMITTED;{settings};{guard};{first}"
    async with _transaction(connection, begin):
        yield


def write_guard(tables: Sequence[str], *, nowait: bool = False) -> str:
    """Return the lock and the checks of `writing`, for a transaction that is started otherwise."""
    names = _names(tables)
    only = ", ".join(f"ONLY {table}" for table in tables)
    return _sql("write_guard", only=only, names=names, nowait=" NOWAIT" if nowait else "", tag=_tag(names))


@asynccontextmanager
async def _transaction(
    connection: asyncpg.Connection, begin: str, *, guarded: Sequence[str] = ()
) -> AsyncIterator[None]:
    """Enter a transaction; unless `begin` ends with a query for no rows, look closely at `guarded` tables."""
    try:
        # A script returns no rows, but its status has their number.
        if await connection.execute(begin) != "SELECT 0" and guarded:
            await connection.execute(_read_guard(_names(guarded)))
        yield
        await connection.execute("COMMIT")
    except asyncpg.PostgresError:
        # A caller that catches it may keep using the connection. After anything else it is discarded.
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise


def _names(tables: Sequence[str]) -> str:
    # Escape strings mean the same under any standard_conforming_strings.
    escaped = (table.replace("\\", "\\\\").replace("'", "''") for table in tables)
    literals = ", ".join(f"E'{name}'" for name in escaped)
    return f"ARRAY[{literals}]::text[]"


def _tag(names: str) -> str:
    tag = "$guard$"
    while tag in names:
        tag = f"{tag[:-1]}_$"
    return tag
