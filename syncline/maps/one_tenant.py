"""The map of one tenant: only that can be synced, where the rows of a map are told apart by a tenant."""

from dataclasses import replace
from typing import Final

from syncline.errors import TenantInvalid
from syncline.maps.key_types import KeyType, Kind
from syncline.maps.schema_map import SchemaMap
from syncline.maps.tenants import TenantOf

__all__ = ["of_tenant", "tenant_of"]

_BITS: Final = {"smallint": 16, "int2": 16, "integer": 32, "int": 32, "int4": 32}


def tenant_of(schema_map: SchemaMap) -> TenantOf | None:
    """Return the tenant of a map of one; None for a map without tenants. Raise TenantInvalid without it."""
    found = next((table.of_tenant for table in schema_map if table.of_tenant is not None), None)
    if found is None or isinstance(found, TenantOf):
        return found
    raise TenantInvalid(schema_map.name, *_MISSING)


_MISSING: Final = (
    "its rows are told apart by a tenant, and none is given",
    'Name it in the composition: "options": {"map": …, "tenant": …}.',
)


def of_tenant(schema_map: SchemaMap, value: str | int | None) -> SchemaMap:
    """Return the map of one tenant's rows; a map without tenants if there is no value.

    Raise TenantInvalid if the map needs a value and there is none, or the contrary, or it is no such value.
    """
    declared = [table.of_tenant for table in schema_map if table.of_tenant is not None]
    if value is None:
        if declared:
            raise TenantInvalid(schema_map.name, *_MISSING)
        return schema_map
    if not declared:
        raise TenantInvalid(
            schema_map.name,
            "a tenant is given, and no table of the map has a `tenant`",
            "Leave `tenant` out of the composition, or put it into the map.",
        )
    form = {tenant.type: _form(schema_map.name, tenant.key_type, str(value)) for tenant in declared}
    tables = tuple(
        table
        if (own := table.of_tenant) is None
        else replace(table, tenant=TenantOf(column=own.column, type=own.type, value=form[own.type]))
        for table in schema_map
    )
    return replace(schema_map, tables=tables)


def _form(name: str, type_: KeyType, value: str) -> str:
    """Return the form of a tenant's value, or raise TenantInvalid."""
    try:
        form = type_.canonical(value)
        bits = _BITS.get(type_.name, 64)
        if type_.kind is Kind.INTEGER and not -(2 ** (bits - 1)) <= int(form) < 2 ** (bits - 1):
            raise ValueError(value)
        if not form or "\x00" in form or (type_.kind is Kind.INTEGER and form != value):
            raise ValueError(value)
    except ValueError:
        problem = f"the tenant that is given is no {type_.name}"
        raise TenantInvalid(name, problem, f"Give a value of type {type_.name}.") from None
    return form
