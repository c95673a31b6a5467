"""Versioned DDL of the control plane, of a graph's write-db side and of its graph-db side.

Each function creates what is missing, a side in one transaction, and returns the revisions that it applied,
if any. The version is kept in table `sync_schema_version` of the migrated schema itself;
that of the engine's books, which any table map needs, in `sync_books_version`.
"""

from pathlib import Path

from syncline.migrations.revisions import BOOKS_VERSION_TABLE, VERSION_TABLE, recorded, upgrade
from syncline.stores.postgres import PostgresStore

__all__ = [
    "BOOKS_VERSION_TABLE",
    "CONTROL_SCHEMA",
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

    Tables that are there already stay as they are and are adopted: SchemaMismatch names what they lack.
    """
    # Not at the top: a worker whose graphs all have other providers never loads the engine.
    from syncline.capture.install.install import adopt
    from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH

    applied = await upgrade(store, schema, _HERE / "write")
    await adopt(store, schema, KNOWLEDGE_GRAPH)
    return applied


async def migrate_bookkeeping(store: PostgresStore, schema: str) -> list[str]:
    """Bring the engine's books in a graph-db up to date: what every table map needs beside its own tables."""
    return await upgrade(store, schema, _HERE / "books", version_table=BOOKS_VERSION_TABLE)


async def migrate_graph(store: PostgresStore, schema: str) -> list[str]:
    """Bring the graph-db side of a knowledge graph up to date: the engine's books and its tables."""
    return [*await migrate_bookkeeping(store, schema), *await upgrade(store, schema, _HERE / "graph")]


async def migrate_shadow(store: PostgresStore, schema: str) -> list[str]:
    """Bring the scratch schema of a shadow up to date, if there is one: its first cycle makes it."""
    return await migrate_graph(store, schema) if await recorded(store, schema, BOOKS_VERSION_TABLE) else []
