"""Columns: what a column of the target is made of."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from syncline.maps.forms import STRICT, Name, Sql

__all__ = ["SAME", "Column"]

SAME = ""
"""In place of a type: the column's own."""


def _typed(value: object) -> object:
    if isinstance(value, str):
        return {value: SAME}
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return dict.fromkeys(value, SAME)
    if isinstance(value, Mapping):
        return {name: SAME if type_ is None else type_ for name, type_ in value.items()}
    return value


Sources = Annotated[
    Mapping[Name, str],
    BeforeValidator(_typed, json_schema_input_type=Name | list[Name] | Mapping[Name, Sql | None]),
]
"""Source column -> its type; a name, or a list of names, has the type of the column that is made."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Column:
    """A column of the target: copied unchanged, renamed, of another type, or made by SQL."""

    name: Name
    """The column of the target; of the source as well, unless `source` or `value` says what it is made of."""
    type: Sql = "text"
    """Its Postgres type, as `format_type` or a cast spells it."""
    source: Sources = field(default_factory=dict)
    """The source column, if it has another name; with its type, if that is another: the value is cast. The
    source columns, if `value` uses several. A type that is not given is that which the source column has in
    the rest of the table map, else the type of this column."""
    value: Sql | None = None
    """SQL over the staged row `s`, cast to the column's type. It may use the columns of `source`, and others
    that the table has in the stage; a constant needs none."""

    @property
    def copied(self) -> bool:
        """Whether it is copied unchanged: same name and type on both sides."""
        return not self.source and self.value is None

    @property
    def sources(self) -> tuple[str, ...]:
        """The source columns that it is made of."""
        return (self.name,) if self.copied else tuple(self.source)

    def typed(self, *, given: bool) -> dict[str, str]:
        """Return the source columns whose type is given -> type; or the others, with the type to assume."""
        if self.copied:
            return {self.name: self.type} if given else {}
        return {name: type_ or self.type for name, type_ in self.source.items() if bool(type_) is given}
