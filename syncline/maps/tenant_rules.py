"""Rules of tenants: what contradicts itself about whose the rows of tables are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from syncline.maps.forms import RESERVED
from syncline.maps.key_types import key_type
from syncline.maps.table_map import TableMap
from syncline.maps.tenants import TENANT_KINDS, Tenant
from syncline.quoting import shown

__all__ = ["tenant_faults"]

_TYPES: Final = "text, varchar, uuid, smallint, integer and bigint"

_Found = tuple[int, tuple[str | int, ...], str, str]
"""Position of the table, field, what is wrong, and the fix."""


def tenant_faults(tables: Sequence[TableMap]) -> Iterator[_Found]:
    """Yield what contradicts itself about tenants."""
    by_name = {table.name: table for table in tables}
    by_source: dict[str, TableMap] = {}
    first: Tenant | None = None
    for index, table in enumerate(tables):
        other = by_source.setdefault(table.source, table)
        if other.of_tenant != table.of_tenant:
            problem = f"{table.source} is the source of {other.name} too, with another tenant"
            yield index, ("tenant",), problem, "Give both the same `tenant`."
        tenant = table.of_tenant
        if tenant is None:
            yield from _shared(index, table, by_name)
            continue
        yield from _declared(index, table, tenant)
        first = first or tenant
        if first.key_type.kind is not tenant.key_type.kind:
            problem = f"the tenant is {tenant.type} here and {first.type} in other tables"
            yield index, ("tenant",), problem, "A graph has one value for all of them: give them one type."


def _declared(index: int, table: TableMap, tenant: Tenant) -> Iterator[_Found]:
    known = key_type(tenant.type)
    if known is None or known.kind not in TENANT_KINDS:
        yield index, ("tenant",), f"a tenant cannot be {shown(tenant.type)}", f"Tenants may be {_TYPES}."
    if tenant.column.startswith(RESERVED):
        problem = f"{tenant.column} begins with {RESERVED} like the engine's own columns"
        yield index, ("tenant",), problem, "Name another column."
    types = table.staged | {name: type_.name for name, type_ in table.key_texts.items()}
    other = types.get(tenant.column)
    if known is not None and other is not None and getattr(key_type(other), "kind", None) is not known.kind:
        problem = f"{tenant.column} is {tenant.type} as the tenant and {other} as a column"
        yield index, ("tenant",), problem, "Give it one type."


def _shared(index: int, table: TableMap, by_name: Mapping[str, TableMap]) -> Iterator[_Found]:
    """Yield references of a table without tenants to one with them: other tenants' rows never arrive."""
    named = [("references", position, one.parent) for position, one in enumerate(table.references)]
    named += [("links", position, one.parent) for position, one in enumerate(table.links)]
    for field, position, name in named:
        parent = by_name.get(name)
        if parent is not None and parent.of_tenant is not None:
            problem = f"{table.name} has no tenant, and refers to {parent.name}, which has one"
            fix = f"Give {table.name} the tenant too, or leave this out."
            yield index, (field, position), problem, fix
