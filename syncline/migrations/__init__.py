"""Versioned DDL of the control plane, of a graph's write-db side and of its graph-db side.

Each function creates what is missing in one transaction, and returns the revisions that it applied: none when
the schema was up to date. The version is kept in table `sync_schema_version` of the migrated schema itself.
"""

from pathlib import Path

from syncline.migrations.revisions import VERSION_TABLE, upgrade
from syncline.stores.postgres import PostgresStore

__all__ = ["CONTROL_SCHEMA", "VERSION_TABLE", "migrate_control", "migrate_graph", "migrate_write"]

CONTROL_SCHEMA = "syncline"

_HERE = Path(__file__).parent


async def migrate_control(store: PostgresStore) -> list[str]:
    """Bring the control plane (schema `syncline`) up to date."""
    return await upgrade(store, CONTROL_SCHEMA, _HERE / "control")


async def migrate_write(store: PostgresStore, schema: str) -> list[str]:
    """Bring the write-db side of a graph up to date: its tables and their capture triggers."""
    return await upgrade(store, schema, _HERE / "write")


async def migrate_graph(store: PostgresStore, schema: str) -> list[str]:
    """Bring the graph-db side of a graph up to date: its tables and the engine's bookkeeping."""
    return await upgrade(store, schema, _HERE / "graph")
