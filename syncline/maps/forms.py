"""Forms of fields: names, SQL, and the short forms that an author may write in place of a list of objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = ["KEYED_BY", "RESERVED", "STRICT", "Keyed", "Name", "Names", "Sql", "refusal"]

_LONGEST: Final = 63
"""Bytes of a name in Postgres; longer ones are cut in silence, and then name something else."""

RESERVED: Final = "sync_"
"""Names that begin like this are the engine's own."""

STRICT: Final = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)
"""Unknown fields are refused, and no value is in a message: a password is easily pasted by mistake."""

KEYED_BY: Final = "x-keyed"
"""Mark in the raw JSON Schema: this list may also be a mapping (`syncline.maps.json_schema`)."""


def refusal(problem: str, fix: str, *, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """Return an error of the model with a fix; `at` continues the path of the field that is validated."""
    return PydanticCustomError("map", "{problem}. {fix}", {"problem": problem, "fix": fix, "at": at})


def _a_name(value: str) -> str:
    if not value:
        raise refusal("the name is empty", "Write the name of the table, column or map.")
    if "\x00" in value:
        raise refusal("the name has a NUL character", "Leave it out: Postgres has no such names.")
    if len(value.encode("utf-8", "surrogatepass")) > _LONGEST:
        raise refusal(
            f"the name is longer than {_LONGEST} bytes", "Write the name as Postgres has it: it cut this one."
        )
    return value


def _some_sql(value: str) -> str:
    if not value.strip():
        raise refusal("the SQL is empty", "Write an expression, or leave the key out.")
    if "\x00" in value:
        raise refusal("the SQL has a NUL character", "Leave it out.")
    return value


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Name = Annotated[str, Field(json_schema_extra={"minLength": 1}), AfterValidator(_a_name)]
"""A name of something in Postgres."""

Names = Annotated[tuple[Name, ...], BeforeValidator(_several, json_schema_input_type=Name | list[Name])]
"""One name, or a list of names."""

Sql = Annotated[str, Field(json_schema_extra={"minLength": 1}), AfterValidator(_some_sql)]
"""An SQL expression or a type."""


@dataclass(frozen=True)
class Keyed:
    """A list that may also be written as a mapping, from field `by` of each item to the item's other fields.

    In the mapping, a text stands for an item with field `short` alone; in the list, for one with `by` alone.
    """

    by: str
    short: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Bring the short forms into the long one, then validate that."""
        return core_schema.no_info_before_validator_function(self._listed, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Mark the list, for `syncline.maps.json_schema` to add the mapping."""
        return {**handler(schema), KEYED_BY: {"by": self.by, "short": self.short}}

    def _listed(self, value: object) -> object:
        if isinstance(value, Mapping):
            return [self._item(index, key, body) for index, (key, body) in enumerate(value.items())]
        if isinstance(value, list | tuple) and self.short is not None:
            return [{self.by: item} if isinstance(item, str) else item for item in value]
        return value

    def _item(self, index: int, key: object, body: object) -> object:
        if body is None:
            return {self.by: key}
        if isinstance(body, str) and self.short is not None:
            return {self.by: key, self.short: body}
        if not isinstance(body, Mapping):
            return body
        if self.by in body:
            raise refusal(
                f"'{self.by}' is given twice: it is the key of this entry already",
                f"Leave '{self.by}' out, or write a list in place of the mapping.",
                at=(index, self.by),
            )
        return {self.by: key, **body}
