"""Rules of keys and ids: what contradicts itself, or what no id can be made of."""

import re
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from syncline.maps.ids import Id, IdRule
from syncline.maps.key_types import KeyType, Kind, element_type, key_type
from syncline.maps.table_map import Links, Reference, TableMap

__all__ = ["NUMBERS", "OF_TEXT", "Found", "identity_faults", "referring_faults"]

Found = tuple[tuple[str | int, ...], str, str]
"""Where in a table map, what is wrong, and the fix."""

_WANTED: Final = {
    IdRule.UUID5: {"namespace"},
    IdRule.EXPRESSION: {"expression", "type"},
    IdRule.COLUMN: {"source", "type"},
    IdRule.ASSIGNED: {"type"},
}
"""What a rule for ids has to tell."""
_TYPED: Final = (IdRule.EXPRESSION, IdRule.COLUMN, IdRule.ASSIGNED)
_TYPES: Final = (
    "text, varchar, uuid, smallint, integer, bigint, numeric, date, timestamp, timestamptz and bytea"
)
NUMBERS: Final = {Kind.INTEGER, Kind.NUMERIC}
"""The kinds of keys whose values can be equal to one another's."""
OF_TEXT: Final = {Kind.UUID, *NUMBERS}
"""The kinds of keys that a text can name."""


def identity_faults(table: TableMap) -> Iterator[Found]:
    """Yield what is wrong with the types of a table's keys, and with its id."""
    yield from _types(table)
    if table.id is not None:
        yield from _id(table, table.id)


def _types(table: TableMap) -> Iterator[Found]:
    by_value = {reference.column for reference in table.references if reference.by}
    arrays = {links.source for links in table.links}
    together = {column for reference in table.references for column in reference.columns}
    for name, spelled in table.types.items():
        if name in arrays:
            if element_type(spelled) is None:
                yield (
                    ("types", name),
                    f"{spelled} is no array of keys",
                    f"Use an array, such as uuid[], of {_TYPES}; or jsonb.",
                )
        elif name in by_value:
            yield (
                ("types", name),
                f"{name} names a parent by value, which is text",
                "Leave it out.",
            )
        elif name not in table.key_texts and name not in together:
            yield (
                ("types", name),
                f"{name} is no key, no reference and no array of links",
                "Give the type of a column in `columns`.",
            )
    declared = table.copied | dict(table.types)
    for name in (*table.key_texts, *sorted(together - table.key_texts.keys())):
        if key_type(declared.get(name, "text")) is None:
            yield (
                ("types", name) if name in table.types else ("key",),
                f"{name} is {declared[name]}, which cannot be a key",
                f"Keys may be {_TYPES}.",
            )


def _id(table: TableMap, own: Id) -> Iterator[Found]:
    wanted = _WANTED.get(own.rule, set())
    possible = wanted | ({"type"} if own.rule is IdRule.SAME else set())
    for name in ("namespace", "expression", "type", "source"):
        given = getattr(own, name) is not None
        if given and name not in possible:
            yield (("id", name), f"rule {own.rule} has no {name}", "Leave it out.")
        elif name in wanted and not given:
            yield (("id",), f"rule {own.rule} needs `{name}`", f"Add `{name}:`.")
    if own.rule is IdRule.SAME and own.type is not None:
        declared = key_type(own.type)
        if len(table.key) > 1 or declared is None or declared.kind is not table.key_types[0].kind:
            yield (
                ("id", "type"),
                f"the id is the key, which is {' and '.join(type_.name for type_ in table.key_types)}",
                "Leave the type out, or use rule `expression`.",
            )
    if own.rule in _TYPED and own.type is not None and key_type(own.type) is None:
        yield (("id", "type"), f"{own.type} cannot be an id", f"Ids may be {_TYPES}.")
    if own.rule is IdRule.UUID5:
        yield from _uuid5(table, own)
    if own.rule is IdRule.EXPRESSION and own.expression is not None:
        places = {int(place) for place in re.findall(r"\$(\d+)", own.expression)}
        if not places or not places <= set(range(1, len(table.key) + 1)):
            yield (
                ("id", "expression"),
                f"an id is made from the key, whose values are $1 to ${len(table.key)}",
                "Name at least one of them, and no other.",
            )
    yield from _listed(table, own)
    if own.key is not None and (len(table.key) > 1 or not table.identified):
        yield (
            ("id", "key"),
            "a key of several columns, or of references, has a column each",
            "Leave it out.",
        )


def _listed(table: TableMap, own: Id) -> Iterator[Found]:
    """Yield what is wrong with an id that does not follow from the key, or that stands beside it."""
    if own.beside and own.rule is IdRule.SAME:
        yield ("id", "beside"), "the id is the key, so the target has no other column for it", "Leave it out."
    elif own.beside and own.key is not None:
        yield ("id", "key"), "bookkeeping beside leaves no key in the target", "Leave `key` or `beside` out."
    if own.source is not None and own.rule is IdRule.COLUMN:
        used = {
            *table.key,
            *(c for r in table.references for c in r.sources),
            *(links.source for links in table.links),
        }
        if own.source in table.key:
            yield ("id", "source"), f"{own.source} is of the key", "Use rule `same`, or `expression`."
        elif own.source in used:
            yield ("id", "source"), f"{own.source} names other rows", "Name a column with the row's own id."
        copied = {column.name: column.type for column in (*table.columns, *table.source_only)}
        if own.type is not None and copied.get(own.source, own.type) != own.type:
            yield (
                ("id", "type"),
                f"the column {own.source} is {copied[own.source]}, and the id {own.type}",
                "Give both one type.",
            )
    if own.natural and own.rule is not IdRule.ASSIGNED and not own.finds_rows:
        same = own.rule is IdRule.SAME
        fix = "Leave it out, or use `assigned`." if same else "Add `beside: true`, or use `assigned`."
        why = "" if same else " while keys stand in the target"
        yield ("id", "natural"), f"rule {own.rule} finds no existing row{why}", fix
        return
    written = {
        *(column.name for column in table.columns),
        *table.expressions,
        *(reference.target_column for reference in table.required if reference.fills),
        *table.made_of_key,
    } - {own.column}
    for position, name in enumerate(own.natural):
        if name not in written:
            yield (
                ("id", "natural", position),
                f"{name} is no column that this map writes for every row",
                f"Name some of {', '.join(sorted(written)) or 'the columns'}.",
            )


def _uuid5(table: TableMap, own: Id) -> Iterator[Found]:
    if len(table.key) > 1:
        yield (
            ("id", "rule"),
            "a uuid5 is made from a key of one column",
            "Use rule `expression`, such as syncline.uuid5('…', $1 || ':' || $2).",
        )
    try:
        UUID(own.namespace or str(UUID(int=0)))
    except ValueError:
        yield (("id", "namespace"), "a namespace is a uuid", "Write the uuid.")


def referring_faults(table: TableMap, one: Reference | Links, parent: TableMap) -> Iterator[tuple[str, str]]:
    """Yield why a reference or an array cannot hold the parent's keys, each with the fix."""
    if isinstance(one, Reference) and one.by is not None:
        return
    if len(parent.key) > 1:
        problem = f"keys of {parent.name} have {len(parent.key)} columns, not one"
        fix = "Refer to a table with a key of one column."
        if isinstance(one, Reference):
            fix = f"Name what refers to ({', '.join(parent.key)}) in `columns`, or {fix.lower()}"
        yield problem, fix
        return
    own, column = (
        (table.element_types[one.source], one.source)
        if isinstance(one, Links)
        else (table.type_of(one.column), one.column)
    )
    wanted = parent.key_types[0]
    # A part of the key has one form, that of the parent's key: a text could have several.
    exact = column not in table.key or own.kind is not Kind.TEXT or wanted.kind is Kind.TEXT
    if not (_names(own, wanted) and exact):
        problem = f"{column} has {own.name}, and keys of {parent.name} are {wanted.name}"
        fix = f"Give the type that {column} has in `types`, or refer to another table."
        if own.kind is Kind.TEXT and wanted.kind not in OF_TEXT:
            fix = (
                f"Make {column} a {wanted.name} in the write-db, and say so in `types`: a text can name "
                "only a uuid or a number."
            )
        yield problem, fix


def _names(own: KeyType, parent: KeyType) -> bool:
    """Whether values of a type can be keys of another."""
    if own.kind is parent.kind or {own.kind, parent.kind} == NUMBERS:
        return True
    return own.kind is Kind.TEXT and parent.kind in OF_TEXT
