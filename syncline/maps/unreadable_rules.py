"""Rules of `unreadable`: what contradicts itself about texts that are no keys of a reference's parent."""

from collections.abc import Iterator
from typing import Final
from uuid import UUID

from syncline.maps.key_rules import OF_TEXT, Found
from syncline.maps.key_types import KeyType, Kind
from syncline.maps.table_map import Links, Reference, TableMap
from syncline.maps.unreadable import Unreadable, UnreadableRule

__all__ = ["unreadable_faults"]

_TAKES: Final = {
    UnreadableRule.NONE: {},
    UnreadableRule.UUID5: {"namespace": True, "key": False},
    UnreadableRule.KEY: {"key": True},
}
"""Rule -> the further keys that it has, and whether it needs them."""


def unreadable_faults(table: TableMap, reference: Reference | Links, parent: TableMap) -> Iterator[Found]:
    """Yield what is wrong with a reference's `unreadable`; where in it, not in the table map."""
    own = reference.unreadable
    if own is None or len(parent.key) > 1:
        return
    at, wanted = ("unreadable",), parent.key_types[0]
    links = isinstance(reference, Links)
    name = reference.source if isinstance(reference, Links) else reference.column
    named_by = table.element_types[name] if links else table.type_of(name)
    if isinstance(reference, Reference) and reference.by is not None:
        problem = f"{reference.column} names a row by value, which any text can be"
        yield at, problem, "Leave it out."
        return
    if named_by.kind is not Kind.TEXT or wanted.kind not in OF_TEXT:
        problem = f"every value of {name} can be a key of {parent.name}"
        yield at, problem, "Leave it out: it is for a text that names a row whose key is no text."
        return
    if own.rule is UnreadableRule.NONE and isinstance(reference, Reference) and reference.required:
        problem = f"{reference.column} is required, so it names a row"
        yield at, problem, "Write `required: false`, or use `uuid5` or `key`."
    if own.rule is UnreadableRule.UUID5 and wanted.kind is not Kind.UUID:
        problem = f"keys of {parent.name} are {wanted.name}, and a uuid5 is a uuid"
        yield at, problem, "Use `none` or `key`."
    yield from _parts(own, wanted)


def _parts(own: Unreadable, wanted: KeyType) -> Iterator[Found]:
    for name in ("namespace", "key"):
        given, needed = getattr(own, name) is not None, _TAKES[own.rule].get(name)
        if given and needed is None:
            yield ("unreadable", name), f"rule {own.rule} has no {name}", "Leave it out."
        elif needed and not given:
            yield ("unreadable",), f"rule {own.rule} needs `{name}`", f"Add `{name}:`."
    try:
        UUID(own.namespace or str(UUID(int=0)))
    except ValueError:
        yield ("unreadable", "namespace"), "a namespace is a uuid", "Write the uuid."
    try:
        if own.key is not None:
            wanted.canonical(own.key)
    except ValueError:
        yield ("unreadable", "key"), f"it is no {wanted.name}", "Write a key of the parent."
