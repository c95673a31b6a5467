"""Tenants of a shared schema: which of them have something new, so that a commit runs their graphs alone.

Tables and columns come from the catalog, tenants from records: a notification says neither.
"""

from collections.abc import Mapping, Sequence

import asyncpg

from syncline.capture.install.steps import TENANT, TOMBSTONES, qualified
from syncline.control.graphs import Graph
from syncline.control.maps import map_options
from syncline.engine.key_forms import cast, ordered
from syncline.errors import StoreError
from syncline.logs import get_log
from syncline.maps.key_types import KeyType, Kind, key_type
from syncline.sql import quoted, statements_of
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import reading

__all__ = ["changed_tenants", "tenants_of"]

_sql = statements_of("syncline.capture.listen")
_TEXT = KeyType("text", Kind.TEXT)


def tenants_of(graphs: Sequence[Graph]) -> Mapping[str, str]:
    """Return slug -> tenant of the graphs of a schema; empty unless all are of tenants."""
    named = {graph.slug: map_options(graph.composition).tenant for graph in graphs}
    found = {slug: str(tenant) for slug, tenant in named.items() if tenant is not None}
    return found if len(found) == len(named) else {}


async def changed_tenants(
    store: PostgresStore, schema: str, tenants: Mapping[str, str], xid: int
) -> frozenset[str]:
    """Return which graphs (slug -> tenant) have rows or tombstones of this transaction or a later one.

    One index probe for each table and tenant. All of them if that cannot be read: their runs say why.
    """
    try:
        async with store.driver() as connection:
            async with reading(connection):
                rows = await connection.fetch(_sql("tenant_columns"), schema)
            if not rows:
                return frozenset(tenants)
            query = _changed(schema, rows)
            tables = [qualified(schema, row["name"]) for row in rows]
            async with reading(connection, tables, lock_timeout="2s"):
                found = await connection.fetch(query, str(xid), list(dict.fromkeys(tenants.values())))
    except StoreError as error:
        get_log().debug("tenants not distinguished", schema=schema, error=str(error))
        return frozenset(tenants)
    if any(row["everyone"] for row in found):
        return frozenset(tenants)
    changed = {row["tenant"] for row in found}
    return frozenset(slug for slug, tenant in tenants.items() if tenant in changed)


def _changed(schema: str, rows: Sequence[asyncpg.Record]) -> str:
    own: list[str] = []
    everyone: list[str] = []
    for row in rows:
        table, column = qualified(schema, row["name"]), row["column"]
        if column is None:
            everyone.append(_sql("tenant_probe", table=table, whose="true"))
            continue
        type_ = key_type(row["type"]) or _TEXT
        whose = f"{ordered(type_, quoted(column))} = {cast(type_, 'u.tenant')}"
        own.append(_sql("tenant_probe", table=table, whose=whose))
        if row["name"] == TOMBSTONES:
            # Of a table without tenants.
            shared = f"{ordered(_TEXT, quoted(TENANT))} = ''"
            everyone.append(_sql("tenant_probe", table=table, whose=shared))
    return _sql(
        "tenants_changed", everyone=f"({' OR '.join(everyone) or 'false'})", own=" OR ".join(own) or "false"
    )
