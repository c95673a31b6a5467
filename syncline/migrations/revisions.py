"""Running alembic's revisions inside one transaction of one of our stores.

Alembic decides what to apply and keeps the version; the DDL itself is in `.sql` files beside the revisions.
Its `op` and `context` proxies are process-wide, and migrations of several graphs run concurrently, so a
revision is given its connection as an argument instead.
"""

import logging
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, MetaData, String, Table, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateSchema

from syncline.errors import StoreRejected
from syncline.sqltext import quoted
from syncline.stores.postgres import PostgresStore

__all__ = [
    "BOOKS_VERSION_TABLE",
    "VERSION_TABLE",
    "act_as_owner",
    "head_of",
    "recorded",
    "run_script",
    "upgrade",
]

VERSION_TABLE: Final = "sync_schema_version"
BOOKS_VERSION_TABLE: Final = "sync_books_version"

_UNDEFINED_TABLE = "42P01"
# One key per database, not per schema: every side also touches the shared schema `syncline`.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('syncline.migrations', 0))")
_SEARCH_PATH = text("SELECT set_config('search_path', quote_ident(:schema), true)")


class _DriverConnection(Protocol):
    async def execute(self, script: str) -> object: ...


async def upgrade(
    store: PostgresStore, schema: str, folder: Path, *, version_table: str = VERSION_TABLE
) -> list[str]:
    """Apply the revisions of `folder` that `schema` lacks, all or nothing; return their ids.

    The ids start with the folder's name, so that the sides of a graph cannot be taken for each other.
    """
    scripts = _scripts(folder)
    if await recorded(store, schema, version_table) == tuple(scripts.get_heads()):
        return []
    async with store.begin() as connection:
        await act_as_owner(connection, store)
        await connection.execute(_LOCK)
        return await connection.run_sync(_upgrade, store.name, schema, folder, version_table)


async def act_as_owner(connection: AsyncConnection, store: PostgresStore) -> None:
    """Have the rest of a transaction done by the role that owns the schemas of graphs, if that is another."""
    if store.owner_role is not None:
        await connection.execute(text(f"SET LOCAL ROLE {quoted(store.owner_role)}"))


def head_of(side: str) -> str:
    """Return the newest revision of a side: `control`, `write`, `graph` or `books`."""
    [head] = _scripts(Path(__file__).parent / side).get_heads()
    return str(head)


def run_script(connection: Connection, path: Path) -> None:
    """Execute a file of several statements inside the connection's running transaction."""
    script = path.read_text(encoding="utf-8")

    async def execute(driver: _DriverConnection) -> None:
        await driver.execute(script)

    # Only the driver's simple protocol takes several statements at once; SQLAlchemy prepares each one.
    adapted = connection.connection.dbapi_connection
    if adapted is None:
        raise RuntimeError("the connection of a migration is closed")
    adapted.run_async(execute)


async def recorded(store: PostgresStore, schema: str, version_table: str) -> tuple[str, ...]:
    """Return the recorded revisions by one statement; nothing when there is no version table."""
    version = Table(version_table, MetaData(), Column("version_num", String), schema=schema)
    try:
        async with store.begin() as connection:
            await act_as_owner(connection, store)
            return tuple((await connection.scalars(select(version.c.version_num))).all())
    except StoreRejected as error:
        if error.sqlstate != _UNDEFINED_TABLE:
            raise
        return ()


def _upgrade(connection: Connection, store: str, schema: str, folder: Path, version_table: str) -> list[str]:
    connection.execute(CreateSchema(schema, if_not_exists=True))
    # The adapter begins lazily, so this statement also makes sure that a script runs inside the transaction.
    connection.execute(_SEARCH_PATH, {"schema": schema})
    scripts = _scripts(folder)
    applied: list[str] = []

    def missing(heads: tuple[str, ...], _: MigrationContext) -> Iterator[MigrationStep]:
        _check_known(store, schema, folder, heads)
        revisions = list(scripts.iterate_revisions("heads", heads or "base", implicit_base=True))
        for revision in reversed(revisions):
            applied.append(revision.revision)
            yield MigrationStep.upgrade_from_script(scripts.revision_map, revision)

    MigrationContext.configure(
        connection, opts={"fn": missing, "version_table": version_table, "version_table_schema": schema}
    ).run_migrations(connection=connection)
    return applied


def _check_known(store: str, schema: str, folder: Path, heads: Iterable[str]) -> None:
    known = {script.revision for script in _scripts(folder).walk_revisions()}
    for head in heads:
        if head in known:
            continue
        if head.startswith(folder.name):
            problem = (
                f"schema '{schema}' is at revision {head}, which a newer Syncline made. "
                f"Upgrade Syncline; this release knows up to {max(known)}."
            )
        else:
            problem = (
                f"schema '{schema}' already holds revision {head}, which is not of the {folder.name} side. "
                "The write-db, the graph-db and the control plane need schemas or databases of their own."
            )
        raise StoreRejected(store, problem)


@cache
def _scripts(folder: Path) -> ScriptDirectory:
    # Alembic reports every step at INFO; what was applied is this module's return value.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return ScriptDirectory(folder, version_locations=[folder])
