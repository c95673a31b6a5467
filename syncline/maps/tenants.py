"""Tenants: which column says whose a source row is, where graphs share source tables.

The value comes from a graph's composition, never from a map: see `syncline.maps.one_tenant`.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidatorFunctionWrapHandler
from pydantic.dataclasses import dataclass
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from syncline.maps.forms import STRICT, Name, Sql
from syncline.maps.key_types import KeyType, Kind, key_type

__all__ = ["NO_TENANT", "TENANT_KINDS", "Tenant", "TenantForm", "TenantOf"]

NO_TENANT: Final = "none"
"""What a table says that has no tenant, in a map whose tables have one."""

TENANT_KINDS: Final = frozenset({Kind.TEXT, Kind.UUID, Kind.INTEGER})
"""The kinds of types that a tenant may have."""


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
