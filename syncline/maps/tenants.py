"""Tenants: which column says whose a source row is, and the one tenant whose rows a graph has.

Graphs that share source tables differ by that value. It comes from a graph's composition, never from a map;
`of_tenant` makes the map of one tenant, and only that can be synced.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidatorFunctionWrapHandler
from pydantic.dataclasses import dataclass
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from syncline.errors import TenantInvalid
from syncline.maps.forms import STRICT, Name, Sql
from syncline.maps.key_types import KeyType, Kind, key_type
from syncline.quoting import shown

if TYPE_CHECKING:
    from syncline.maps.schema_map import SchemaMap
    from syncline.maps.table_map import TableMap

__all__ = ["NO_TENANT", "Tenant", "TenantForm", "TenantOf", "of_tenant", "tenant_faults", "tenant_of"]

NO_TENANT: Final = "none"
"""What a table says that has no tenant, in a map whose tables have one."""

_TYPES: Final = "text, varchar, uuid, smallint, integer and bigint"
_BITS: Final = {"smallint": 16, "int2": 16, "integer": 32, "int": 32, "int4": 32}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tenant:
    """A source column that says whose a row is, where graphs share a table and each has the rows of one."""

    column: Name
    """The column. It need not be copied, and may be a part of the key; a row where it is NULL is nobody's."""
    type: Sql = "text"
    """Its type: text, varchar, uuid, smallint, integer or bigint."""

    @property
    def key_type(self) -> KeyType:
        """The type, as keys have it."""
        return key_type(self.type) or KeyType("text", Kind.TEXT)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TenantOf(Tenant):
    """The same, of the one tenant whose rows a graph has."""

    value: str
    """The tenant, in the form of the type."""


class _Form:
    """The forms in which a tenant is written: no union for the validator, which would tell of each part."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate what is no text as a tenant."""
        return core_schema.no_info_wrap_validator_function(_read, handler.generate_schema(Tenant | None))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add that it may be a text."""
        found = handler(schema)
        return {"anyOf": [*found.get("anyOf", [found]), {"type": "string"}]}


def _read(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    if value == NO_TENANT:
        return value
    return handler({"column": value} if isinstance(value, str) else value)


TenantForm = Annotated[Tenant | Literal["none"] | None, _Form()]
"""A tenant; a text is its column, or `none`."""


def tenant_of(schema_map: "SchemaMap") -> TenantOf | None:
    """Return the tenant of a map of one; None for a map without tenants. Raise TenantInvalid without it."""
    found = next((table.of_tenant for table in schema_map if table.of_tenant is not None), None)
    if found is None or isinstance(found, TenantOf):
        return found
    raise TenantInvalid(schema_map.name, *_MISSING)


_MISSING: Final = (
    "its rows are told apart by a tenant, and none is given",
    'Name it in the composition: "options": {"map": …, "tenant": …}.',
)


def of_tenant(schema_map: "SchemaMap", value: str | int | None) -> "SchemaMap":
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


# Rules ------------------------------------------------------------------------------------------------------


def tenant_faults(tables: "Sequence[TableMap]") -> Iterator[tuple[int, tuple[str | int, ...], str, str]]:
    """Yield what contradicts itself about tenants: position of the table, field, problem, fix."""
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


def _declared(
    index: int, table: "TableMap", tenant: Tenant
) -> Iterator[tuple[int, tuple[str | int, ...], str, str]]:
    known = key_type(tenant.type)
    if known is None or known.kind not in (Kind.TEXT, Kind.UUID, Kind.INTEGER):
        yield index, ("tenant",), f"a tenant cannot be {shown(tenant.type)}", f"Tenants may be {_TYPES}."
    if tenant.column.startswith("sync_"):
        problem = f"['{tenant.column}'] begin with sync_ like the engine's own columns"
        yield index, ("tenant",), problem, "Name another column."
    types = {column.name: column.type for column in (*table.columns, *table.source_only)}
    types |= {name: type_.name for name, type_ in table.key_texts.items()}
    other = types.get(tenant.column)
    if known is not None and other is not None and getattr(key_type(other), "kind", None) is not known.kind:
        problem = f"{tenant.column} is {tenant.type} as the tenant and {other} as a column"
        yield index, ("tenant",), problem, "Give it one type."


def _shared(
    index: int, table: "TableMap", by_name: "dict[str, TableMap]"
) -> Iterator[tuple[int, tuple[str | int, ...], str, str]]:
    """Yield references of a table without tenants to one with them: other tenants' rows never arrive."""
    named = [("references", position, one.parent) for position, one in enumerate(table.references)]
    named += [("links", position, one.parent) for position, one in enumerate(table.links)]
    for field, position, name in named:
        parent = by_name.get(name)
        if parent is not None and parent.of_tenant is not None:
            problem = f"{table.name} has no tenant, and refers to {parent.name}, which has one"
            fix = f"Give {table.name} the tenant too, or leave this out."
            yield index, (field, position), problem, fix
