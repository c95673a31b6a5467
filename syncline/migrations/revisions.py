"""Alembic runner: applies revisions inside one transaction of one of our stores.

Alembic selects the revisions and stores the version; the DDL is in `.sql` files next to the revisions. Its
`op` and `context` proxies are process-wide, and several graphs migrate concurrently, so a revision gets its
connection as an argument instead.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import asyncpg
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateSchema

from syncline.errors import StoreRejected
from syncline.masking import error_text
from syncline.sql import literal, quoted
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import reading, write_guard

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

__all__ = [
    "CONTROL",
    "ENGINE",
    "ENGINE_VERSION_TABLE",
    "GRAPH",
    "VERSION_TABLE",
    "WRITE",
    "Side",
    "act_as_owner",
    "head_of",
    "recorded",
    "run_script",
    "schemas_behind",
    "upgrade",
]

VERSION_TABLE: Final = "sync_schema_version"
ENGINE_VERSION_TABLE: Final = "sync_engine_version"

_MISSING = ("42P01", "3F000")
_WRITE = "write"
# One key per database, not per schema: every side also touches the shared schema `syncline`.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('syncline.migrations', 0))")
_SEARCH_PATH = text("SELECT set_config('search_path', quote_ident(:schema), true)")

# The owner of the schema's tables, if it is one role that may create there, else the schema's owner.
_OWNER = text(
    """
    SELECT r.rolname::text AS name, r.rolname = current_user AS self,
           r.rolname <> 'pg_database_owner' AND pg_has_role(
               r.oid,
               CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END
           ) AS may_become
    FROM pg_namespace n
    LEFT JOIN LATERAL (
        SELECT min(c.relowner) AS oid FROM pg_class c
        WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p') AND c.relname NOT LIKE 'sync\\_%'
        HAVING count(DISTINCT c.relowner) = 1
    ) t ON has_schema_privilege(t.oid, n.oid, 'CREATE')
    JOIN pg_roles r ON r.oid = coalesce(t.oid, n.nspowner)
    WHERE n.nspname = :schema
    """
)
_THERE = text(
    "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = :schema AND c.relname = :table)"
)


class _DriverConnection(Protocol):
    async def execute(self, script: str) -> object: ...


async def upgrade(
    store: PostgresStore, schema: str, folder: Path, *, version_table: str = VERSION_TABLE
) -> list[str]:
    """Apply the revisions of `folder` that `schema` lacks, all or nothing; return their ids.

    The ids start with the folder's name, so that revisions of different sides cannot be confused.
    """
    scripts = _scripts(folder)
    if await recorded(store, schema, version_table) == tuple(scripts.get_heads()):
        return []
    async with store.begin() as connection:
        await act_as_owner(connection, store)
        await connection.execute(_LOCK)
        return await connection.run_sync(_upgrade, store.name, schema, folder, version_table)


async def act_as_owner(connection: AsyncConnection, store: PostgresStore) -> None:
    """Run the rest of a transaction as the role that owns graph schemas, if configured."""
    if store.owner_role is not None:
        await connection.execute(text(f"SET LOCAL ROLE {quoted(store.owner_role)}"))


def head_of(side: str) -> str:
    """Return a side's newest revision: `control`, `write`, `graph` or `engine`."""
    [head] = _scripts(Path(__file__).parent / side).get_heads()
    return str(head)


def run_script(connection: Connection, path: Path) -> None:
    """Execute a file of several statements inside the connection's running transaction."""
    script = path.read_text(encoding="utf-8")
    if path.parent.name == _WRITE:
        # Alembic's next statements resolve operators in pg_catalog only: others may own this schema.
        script += "\n;SET LOCAL search_path = pg_catalog, pg_temp"
    _execute(connection, script)


def _execute(connection: Connection, script: str) -> None:
    async def execute(driver: _DriverConnection) -> None:
        await driver.execute(script)

    # Only the driver's simple protocol takes several statements at once; SQLAlchemy prepares each one.
    adapted = connection.connection.dbapi_connection
    if adapted is None:
        raise RuntimeError("the connection of a migration is closed")
    adapted.run_async(execute)


async def recorded(store: PostgresStore, schema: str, version_table: str) -> tuple[str, ...]:
    """Return the recorded revisions, with one statement; empty if there is no version table."""
    version = f"{quoted(schema)}.{quoted(version_table)}"
    try:
        # Others may own the schema, and the relation with that name.
        async with store.driver() as connection, reading(connection, [version], role=store.owner_role):
            rows = await connection.fetch(f"SELECT version_num FROM {version}")  # noqa: S608 # quoted
            return tuple(str(row["version_num"]) for row in rows)
    except StoreRejected as error:
        if error.sqlstate not in _MISSING:
            raise
        return ()


def _upgrade(connection: Connection, store: str, schema: str, folder: Path, version_table: str) -> list[str]:
    # Imported where it is needed: most processes, a worker among them, migrate nothing.
    from alembic.runtime.migration import MigrationContext, MigrationStep

    connection.execute(CreateSchema(schema, if_not_exists=True))
    if folder.name == _WRITE:
        _act_as_owner(connection, schema, version_table)
    else:
        # The adapter begins lazily: this statement also ensures that a script runs in the transaction.
        connection.execute(_SEARCH_PATH, {"schema": schema})
    scripts = _scripts(folder)
    applied: list[str] = []

    def missing(heads: tuple[str, ...], _: MigrationContext) -> Iterator[MigrationStep]:
        _check_known(store, schema, folder, heads)
        revisions = list(scripts.iterate_revisions("heads", heads or "base", implicit_base=True))
        for revision in reversed(revisions):
            applied.append(revision.revision)
            connection.execute(_SEARCH_PATH, {"schema": schema})
            yield MigrationStep.upgrade_from_script(scripts.revision_map, revision)

    MigrationContext.configure(
        connection, opts={"fn": missing, "version_table": version_table, "version_table_schema": schema}
    ).run_migrations(connection=connection)
    return applied


def _act_as_owner(connection: Connection, schema: str, version_table: str) -> None:
    """Create objects in a write-db as the owner of its tables, without running that role's code."""
    _execute(connection, "SET LOCAL search_path = pg_catalog, pg_temp")
    owner = connection.execute(_OWNER, {"schema": schema}).one()
    there = connection.scalar(_THERE, {"schema": schema, "table": version_table})
    version = f"{quoted(schema)}.{quoted(version_table)}"
    if there:
        _execute(connection, write_guard([version]))
    if owner.may_become and not owner.self:
        if there:
            _execute(connection, f"ALTER TABLE {version} OWNER TO {quoted(owner.name)}")
        _execute(connection, f"SET LOCAL ROLE {quoted(owner.name)}")
    if not there:
        # Not left to alembic, which would accept a table that another role has created meanwhile.
        key = quoted(f"{version_table}_pkc")
        _execute(
            connection,
            f"CREATE TABLE {version} (version_num varchar(32) NOT NULL CONSTRAINT {key} PRIMARY KEY)",
        )


def _check_known(store: str, schema: str, folder: Path, heads: Iterable[str]) -> None:
    known = {script.revision for script in _scripts(folder).walk_revisions()}
    for head in heads:
        if head in known:
            continue
        if head.startswith(folder.name):
            problem = (
                f"schema '{schema}' is at revision {head} of a newer Syncline. "
                f"Upgrade Syncline; this release knows up to {max(known)}."
            )
        else:
            problem = (
                f"schema '{schema}' already has revision {head}, which is not of the {folder.name} side. "
                "The write-db, the graph-db and the control plane need separate schemas or databases."
            )
        raise StoreRejected(store, problem)


@cache
def _scripts(folder: Path) -> "ScriptDirectory":
    from alembic.script import ScriptDirectory

    # Alembic logs every step at INFO; this module returns what was applied.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return ScriptDirectory(folder, version_locations=[folder])


_AT_ONCE: Final = 200


@dataclass(frozen=True, kw_only=True)
class Side:
    """One kind of migrated schema."""

    name: str
    version_table: str = VERSION_TABLE


CONTROL: Final = Side(name="control")
WRITE: Final = Side(name="write")
GRAPH: Final = Side(name="graph")
ENGINE: Final = Side(name="engine", version_table=ENGINE_VERSION_TABLE)


async def schemas_behind(store: PostgresStore, side: Side, schemas: Collection[str]) -> Mapping[str, str]:
    """Return schema -> revision for schemas not at the newest revision; raise StoreError."""
    head = head_of(side.name)
    found = await _recorded(store, side.version_table, schemas)
    return {schema: found.get(schema, "nothing") for schema in sorted(schemas) if found.get(schema) != head}


async def _recorded(store: PostgresStore, table: str, schemas: Collection[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    async with store.driver() as connection:
        async with reading(connection):
            there = await connection.fetch(
                "SELECT nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE relname = $1 AND nspname = ANY ($2::text[])",
                table,
                list(schemas),
            )
        having = [str(row["nspname"]) for row in there]
        waiting = [having[first : first + _AT_ONCE] for first in range(0, len(having), _AT_ONCE)]
        while waiting:
            batch = waiting.pop()
            try:
                found |= await _versions(connection, table, batch)
            except asyncpg.PostgresError as error:
                # Others may own a schema: one that cannot be read is reported, and does not stop the others.
                if len(batch) == 1:
                    found[batch[0]] = f"a {table} that cannot be read ({error_text(error)})"
                else:
                    waiting += [[schema] for schema in batch]
    return found


async def _versions(connection: asyncpg.Connection, table: str, schemas: Sequence[str]) -> Mapping[str, str]:
    places = {schema: f"{quoted(schema)}.{quoted(table)}" for schema in schemas}
    parts = [
        f"SELECT '{literal(schema)}' AS schema_name, version_num FROM {place}"  # noqa: S608
        for schema, place in places.items()
    ]
    async with reading(connection, list(places.values()), lock_timeout="2s"):
        rows = await connection.fetch(" UNION ALL ".join(parts))
    return {str(row["schema_name"]): str(row["version_num"]) for row in rows}
