"""Migrations: versioned DDL of the control plane, of a graph's write-db side and of its graph-db side.

Each function creates what is missing, one transaction per side, and returns the applied revisions.
The version is stored in table `sync_schema_version` of the migrated schema; that of the engine's bookkeeping
tables, which any table map needs, in `sync_engine_version`.
"""

from pathlib import Path

from syncline.migrations.revisions import ENGINE_VERSION_TABLE, VERSION_TABLE, recorded, upgrade
from syncline.stores.postgres import PostgresStore

__all__ = [
    "CONTROL_SCHEMA",
    "ENGINE_VERSION_TABLE",
    "VERSION_TABLE",
    "migrate_bookkeeping",
    "migrate_control",
    "migrate_graph",
    "migrate_shadow",
    "migrate_write",
]

CONTROL_SCHEMA = "syncline"

_HERE = Path(__file__).parent


async def migrate_control(store: PostgresStore) -> list[str]:
    """Bring the control plane (schema `syncline`) up to date."""
    return await upgrade(store, CONTROL_SCHEMA, _HERE / "control")


async def migrate_write(store: PostgresStore, schema: str) -> list[str]:
    """Bring the write-db side of a knowledge graph up to date: its tables, then their capture.

    Existing tables are kept and adopted: SchemaMismatch names what they lack.
    """
    # Imported here: a worker whose graphs all have other providers never loads the engine.
    from syncline.capture.install.install import adopt
    from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH

    applied = await upgrade(store, schema, _HERE / "write")
    await adopt(store, schema, KNOWLEDGE_GRAPH)
    return applied


async def migrate_bookkeeping(store: PostgresStore, schema: str) -> list[str]:
    """Bring the engine's bookkeeping tables in a graph-db up to date; every table map needs them."""
    return await upgrade(store, schema, _HERE / "engine", version_table=ENGINE_VERSION_TABLE)


async def migrate_graph(store: PostgresStore, schema: str) -> list[str]:
    """Bring the graph-db side of a knowledge graph up to date: bookkeeping tables and its own tables."""
    return [*await migrate_bookkeeping(store, schema), *await upgrade(store, schema, _HERE / "graph")]


async def migrate_shadow(store: PostgresStore, schema: str, *, bookkeeping_only: bool = False) -> list[str]:
    """Bring a shadow's schema up to date, if it exists: the shadow's first cycle creates it."""
    if not await recorded(store, schema, ENGINE_VERSION_TABLE):
        return []
    return await (migrate_bookkeeping if bookkeeping_only else migrate_graph)(store, schema)
