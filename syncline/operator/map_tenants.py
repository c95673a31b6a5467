"""Tenants of a proposal: the tables as they are within one tenant, where a column says whose a row is."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from syncline.errors import InputInvalid
from syncline.maps.key_types import key_type
from syncline.maps.tenants import TENANT_KINDS
from syncline.operator.map_catalog import MapTable, ParentKey
from syncline.operator.map_decisions import Side
from syncline.quoting import shown

__all__ = ["ProposedTenants", "within_tenant"]


@dataclass(frozen=True, kw_only=True)
class ProposedTenants:
    """Which column says whose a row is, in the map and in tables where it is another one."""

    column: str
    type: str
    others: Mapping[str, str | None]
    """Source table -> its own column, None for a table without tenants."""


def within_tenant(write: Side, column: str) -> tuple[Side, ProposedTenants]:
    """Return the write-db's tables as they are within one tenant, and whose they are.

    Keys and foreign keys are proposed without the tenant where they contain it. The table that the tenants
    themselves are in has its key for it. Raise InputInvalid if no table has the column, or it is no tenant.
    """
    having = {name: table for name, table in write.tables.items() if column in table.columns}
    if not having:
        raise InputInvalid(f"No table of schema {write.catalog.schema} has a column {shown(column)}.")
    type_ = write.type_of(min(having), column)
    known = key_type(type_)
    if known is None or known.kind not in TENANT_KINDS:
        raise InputInvalid(f"{shown(column)} is {type_}, which cannot be a tenant.")
    own = {
        key.parent: key.parent_columns[0]
        for table in having.values()
        for key in table.parents
        if key.columns == (column,) and key.parent not in having
    }
    others = {name: own.get(name) for name in write.tables if name not in having}
    tables = {name: _within(table, column, having, others) for name, table in write.tables.items()}
    return replace(write, tables=tables), ProposedTenants(column=column, type=type_, others=others)


def _within(
    table: MapTable, column: str, having: Mapping[str, MapTable], others: Mapping[str, str | None]
) -> MapTable:
    mine = table.name in having
    if not mine and others[table.name] is None:
        # Of rows that every tenant has, none can refer to those of one.
        parents = tuple(key for key in table.parents if key.parent not in having and not others[key.parent])
        return replace(table, parents=parents)

    def without(columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in columns if name != column) or columns

    def key(found: ParentKey) -> ParentKey:
        pairs = [
            pair for pair in zip(found.columns, found.parent_columns, strict=True) if pair[0] != column
        ] or list(zip(found.columns, found.parent_columns, strict=True))
        return replace(found, columns=tuple(a for a, _ in pairs), parent_columns=tuple(b for _, b in pairs))

    if not mine:
        return table
    return replace(
        table,
        key=without(table.key),
        unique=tuple(map(without, table.unique)),
        parents=tuple(map(key, table.parents)),
    )
