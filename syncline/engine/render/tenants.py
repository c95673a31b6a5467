"""Tenants in SQL: the source rows, and the deleted keys, of the one tenant whose rows a graph has.

A statement over a table without tenants is not touched by any of this.
"""

from syncline.engine.key_forms import cast, ordered
from syncline.engine.template import sql
from syncline.maps.table_map import TableMap
from syncline.maps.tenants import TenantOf
from syncline.sql import quoted, string_literal

__all__ = ["bound_tenant", "deleted_keys_of", "deleted_rows", "is_tenants", "of_same_tenant", "source_rows"]


def is_tenants(tenant: TenantOf, *, row: str = "", value: str | None = None) -> str:
    """Return the condition that a source row is the tenant's; `value` is an expression for it as text."""
    column = f"{row}.{quoted(tenant.column)}" if row else quoted(tenant.column)
    given = string_literal(tenant.value) if value is None else value
    return f"{ordered(tenant.key_type, column)} = {cast(tenant.key_type, given)}"


def source_rows(table: TableMap, schema: str, *, value: str | None = None) -> str:
    """Return the FROM item, under the source's name, for the rows that a graph may have of a table."""
    source = f"{quoted(schema)}.{quoted(table.source)}"
    tenant = bound_tenant(table)
    if tenant is None:
        return source
    condition = is_tenants(tenant, value=value)
    return sql("tenant_rows", source=source, condition=condition, name=quoted(table.source)).strip()


def of_same_tenant(table: TableMap, row: str = "t") -> str:
    """Return the further condition, beside its key, that source row `t` is one that a graph may have."""
    tenant = bound_tenant(table)
    return "" if tenant is None else f" AND {is_tenants(tenant, row=row)}"


def deleted_rows(
    tenant: TenantOf | None, tombstones: str, *, value: str | None = None, name: str | None = None
) -> str:
    """Return the FROM item for the rows of deleted keys that concern a graph; with `name` if it needs one.

    Those of its tenant, and those of tables without tenants: one index scan each, in the order of the index.
    """
    if tenant is None:
        return tombstones
    given = string_literal(tenant.value) if value is None else value
    rows = sql("tenant_tombstones", tombstones=tombstones, tenant=given).strip()
    return rows if name is None else f"{rows} AS {name}"


def deleted_keys_of(
    tenant: TenantOf | None, tombstones: str, *, rows: str, limit: int | str | None = None
) -> str:
    """Return the FROM item `d` for each deleted key of the (first `limit`) rows that satisfy a condition.

    A key's position is (`sync_xid`, `seq`); in order they are by (`sync_xid`, `pack`, `seq`).
    """
    return sql(
        "each_deleted",
        tombstones=deleted_rows(tenant, tombstones, name="t"),
        rows=rows,
        bounded="OFFSET 0" if limit is None else f"ORDER BY sync_xid, seq LIMIT {limit}",
        name="d",
    ).strip()


def bound_tenant(table: TableMap) -> TenantOf | None:
    """Return the tenant whose rows a graph has of a table, None for all; RuntimeError if none was given."""
    tenant = table.of_tenant
    if tenant is None or isinstance(tenant, TenantOf):
        return tenant
    raise RuntimeError(f"the map of {table.name} is of no tenant yet: `of_tenant` makes it")
