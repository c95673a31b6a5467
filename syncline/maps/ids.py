"""Ids: how the primary key of a target row is made from the key of its source row."""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from syncline.maps.forms import STRICT, Name, Sql

__all__ = ["Id", "IdForm", "IdRule"]


class IdRule(StrEnum):
    """How an id follows from a key."""

    HASH = "hash"
    SAME = "same"
    UUID5 = "uuid5"
    EXPRESSION = "expression"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Id:
    """The primary key of a target, made from the key of the source row.

    Links, references and deletes find rows by it, so it must follow from the key alone.
    """

    rule: IdRule
    """`hash`: a uuid, the hash of the key. `same`: the key itself, with its own type; of a key of several
    columns, a column each. `uuid5`: the uuid of version 5 of the key's text. `expression`: SQL."""
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
    """For `expression`: the type of the id."""


def _short(value: object) -> object:
    return {"rule": value} if isinstance(value, str) else value


IdForm = Annotated[Id | None, BeforeValidator(_short, json_schema_input_type=Id | IdRule | None)]
"""An id; a text is its rule."""
