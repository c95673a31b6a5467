"""Ids: how the primary key of a target row is made from the key of its source row."""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from syncline.maps.forms import STRICT, Name, Names, Sql

__all__ = ["Id", "IdForm", "IdRule"]


class IdRule(StrEnum):
    """How an id follows from a key."""

    HASH = "hash"
    SAME = "same"
    UUID5 = "uuid5"
    EXPRESSION = "expression"
    COLUMN = "column"
    ASSIGNED = "assigned"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Id:
    """The primary key of a target.

    Links, references and deletes find rows by it. Where it does not follow from the key (`column`,
    `assigned`), table `sync_row` of the graph's bookkeeping has the id of each key.
    """

    rule: IdRule
    """`hash`: a uuid, the hash of the key. `same`: the key itself, with its own type; of a key of several
    columns, a column each. `uuid5`: the uuid of version 5 of the key's text. `expression`: SQL. `column`: a
    column of the source row beside its key. `assigned`: the default of the target's column, such as a
    sequence."""
    column: Name = "id"
    """The primary key's column; not for a key of several columns that stays as it is."""
    key: Name | None = None
    """The column with the key of one column itself: `key` by default, none for rule `same`. A key of several
    columns has a column of the same name for each that is no reference."""
    namespace: str | None = None
    """For `uuid5`: the namespace, a uuid."""
    expression: Sql | None = None
    """For `expression`: SQL over the values of the key's columns, $1, $2 …, which have their own types.
    It must be immutable, and is evaluated in the graph-db."""
    type: Sql | None = None
    """For `expression`, `column` and `assigned`: the type of the id."""
    source: Name | None = None
    """For `column`: the source column. A row whose value there changes is removed under its old id, with all
    that hangs on it, and written under the new one."""
    natural: Names = ()
    """For `assigned`, and with `beside` for every rule but `same`: columns that this map writes, unique
    together in the target. A row that stands there with the same values, and is no other key's, keeps its id
    and is written from then on; other rows get theirs by the rule once, and keep it as well."""
    beside: Annotated[bool, Field(strict=True)] = False
    """Whether the key, and the version and run of `stamped`, stand in the bookkeeping table `sync_row`
    instead of the target, which then needs no column of the engine. Rows of others may stand in the target:
    only those that `sync_row` names are compared and deleted."""

    @property
    def finds_rows(self) -> bool:
        """Whether ids of the rule give way to those of rows that stand in the target already."""
        return self.beside and bool(self.natural) and self.rule is not IdRule.SAME


def _short(value: object) -> object:
    return {"rule": value} if isinstance(value, str) else value


IdForm = Annotated[Id | None, BeforeValidator(_short, json_schema_input_type=Id | IdRule | None)]
"""An id; a text is its rule."""
