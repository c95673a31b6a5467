"""Unreadable: what a reference names whose text is no uuid or number, as keys of its parent are."""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from syncline.maps.forms import STRICT

__all__ = ["Unreadable", "UnreadableForm", "UnreadableRule"]


class UnreadableRule(StrEnum):
    """Which key a text stands for that is none."""

    NONE = "none"
    UUID5 = "uuid5"
    KEY = "key"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Unreadable:
    """What a text names that is no uuid, or number, as keys of the parent are."""

    rule: UnreadableRule
    """`none`: no row, like NULL; for an optional reference. `uuid5`: the row whose key is the uuid of version
    5 of the text. `key`: the row with the key of `key`."""
    namespace: str | None = None
    """For `uuid5`: the namespace, a uuid."""
    key: str | None = None
    """A key of the parent, such as the zero uuid: with `key` all these texts name it, with `uuid5` the empty
    text does."""


def _short(value: object) -> object:
    return {"rule": value} if isinstance(value, str) else value


UnreadableForm = Annotated[
    Unreadable | None,
    BeforeValidator(_short, json_schema_input_type=Unreadable | UnreadableRule | None),
]
"""An `Unreadable`; a text is its rule."""
