"""Map changes: how two versions of a table map differ, and what has to be done again because of it.

One module because what one difference needs depends on the others of its table, and on its parents'.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Final

from pydantic import JsonValue

from syncline.engine.table_map import SchemaMap, TableMap

__all__ = [
    "ChangeKind",
    "Definition",
    "TableChange",
    "definition_of",
    "definitions_of",
    "filled_before",
    "keeps_no_longer",
    "lists_anew",
    "lists_standing",
    "map_changes",
    "map_hash",
]

Definition = Mapping[str, JsonValue]
"""A table of a map as JSON, without what has its default: equal definitions mean the same."""

_IDENTITY: Final = ("key", "source", "id", "types", "tenant")
"""Fields by which rows are found: under another one, the rows that stand there may be of no source row."""
_UNREAD: Final = ("name", "source_only", "ignored")
"""Fields whose change alone changes no row: an expression that uses a column is itself a difference."""


def definition_of(table: TableMap) -> dict[str, JsonValue]:
    """Return the definition of a table."""
    plain = _plain(table)
    if not isinstance(plain, dict):
        raise TypeError(f"{table!r} is no dataclass")
    return plain


def definitions_of(schema_map: SchemaMap) -> dict[str, dict[str, JsonValue]]:
    """Return table -> definition."""
    return {table.name: definition_of(table) for table in schema_map}


def map_hash(schema_map: SchemaMap) -> str:
    """Return the hash of what a map says: equal for maps that differ in their name, layout or comments."""
    said = json.dumps(definitions_of(schema_map), sort_keys=True, ensure_ascii=False)
    return sha256(said.encode()).hexdigest()[:32]


class ChangeKind(StrEnum):
    """What became of a table."""

    ADDED = "added"
    CHANGED = "changed"
    LEFT = "left"
    FILLED = "filled"
    """Nothing: before its first cycle, its target has rows that somebody else wrote."""


@dataclass(frozen=True, kw_only=True)
class TableChange:
    """How one table of the map changed, and what follows from it."""

    table: str
    kind: ChangeKind
    what: tuple[str, ...] = ()
    """What differs, in a few words each."""
    reread: bool = False
    """Whether every row is read from the write-db again."""
    fill: bool = False
    """Whether every row is read again in the background: columns were added, and nothing else was changed."""
    compare: bool = False
    """Whether rows may stand in the target that no source row has: keys are compared."""
    points: bool = False
    """Whether every point is written again. Texts that are the same are not embedded again."""
    indexed: bool = False
    """Whether only the indexes of the collection differ."""
    recount: bool = False
    """Whether all counts are made again."""
    links_left: tuple[str, ...] = ()
    """Link tables that are no longer written."""
    links_ours: tuple[str, ...] = ()
    """Link tables of which all links that are there count as the engine's from now on; more may come."""
    links_all: tuple[str, ...] = ()
    """Link tables in which others have no links any longer."""
    collection_left: str | None = None
    """A collection that is no longer written."""
    ids: bool = False
    """Whether rows may stand in the target under other ids than the map's: no cycle finds them by its own."""
    anew: bool = False
    """Whether the same row has another id than before, so that what refers to it has to name that."""
    unlisted: bool = False
    """Whether what the list of rows says of the table is no longer true, or no longer kept."""
    relisted: bool | None = None
    """Whether the list has the ids of rule `hash` as target ids from now on, or no longer; None if that is as
    before."""
    standing: bool = False
    """Whether rows are listed from now on: those which stand there are, under the ids that they have."""
    rekeyed: bool = False
    """Whether rows have another key, or other ids: those without a source row are known no longer."""
    unmarked: bool = False
    """Whether rows that are marked are kept no longer."""
    unstubbed: bool = False
    """Whether stubs are made no longer in place of missing rows of this table."""
    after: frozenset[str] = frozenset()
    """Tables whose ids changed, and to which this one refers: it is read after them."""

    @property
    def reason(self) -> str:
        """Return why, in words that follow `since`."""
        if self.kind is ChangeKind.ADDED:
            return "it came into the map" + " again" * self.reread
        return f"the map changed: {', '.join(self.what)}"

    @property
    def sentence(self) -> str:
        """Return the change and what the next cycle does about it, in a sentence."""
        if self.kind is ChangeKind.ADDED:
            return f"{self.table}: added to the map; every row is read."
        if self.kind is ChangeKind.LEFT:
            return f"{self.table}: left the map; it is no longer synced, and its rows stay as they are."
        if self.kind is ChangeKind.FILLED:
            points = ", every point is" if self.points else ""
            counts = ", every count is made again" if self.recount else ""
            return f"{self.table}: its target was filled; equal rows are not written{points}{counts}."
        done = [
            *(["rows that have other ids have to be deleted by hand"] if self.ids else []),
            *(["every row is read again"] if self.reread else []),
            *(["every row is read again, in the background"] if self.fill else []),
            *(["rows that the write-db does not have by its key leave"] if self.compare else []),
            *(["every point is written again, changed texts are embedded"] if self.points else []),
            *(["every count is made again"] if self.recount else []),
            *(["the indexes of its collection are made"] if self.indexed else []),
            *(["marked rows leave"] if self.unmarked else []),
            *(["stubs leave"] if self.unstubbed else []),
            *([f"links in {', '.join(self.links_ours)} count as the engine's"] if self.links_ours else []),
            *([f"links of others in {', '.join(self.links_all)} leave"] if self.links_all else []),
        ]
        left = [*self.links_left, *([] if self.collection_left is None else [self.collection_left])]
        if left:
            done.append(f"what stands in {' and '.join(left)} stays")
        return f"{self.table}: {', '.join(self.what)}; {', '.join(done) or 'nothing is read again'}."


def filled_before(name: str, definition: Definition) -> TableChange:
    """Return what follows from rows that stand in a target before its first cycle.

    One that is equal is not written, but it needs a point, and its counts may be somebody else's.
    """
    return TableChange(
        table=name,
        kind=ChangeKind.FILLED,
        points=bool(definition.get("vector")),
        recount=bool(definition.get("stats")),
    )


def map_changes(
    before: Mapping[str, Definition], now: Mapping[str, Definition], *, gone: Sequence[str] = ()
) -> tuple[TableChange, ...]:
    """Return the tables that differ, those that left last.

    `gone` are tables that the map had at some time before: deletes were missed of one that returns.
    """
    found = []
    for name, definition in now.items():
        if name not in before:
            found.append(
                TableChange(
                    table=name,
                    kind=ChangeKind.ADDED,
                    reread=name in gone,
                    # Rows that stand there may have values of before in the columns.
                    compare=name in gone or "into" in definition,
                    rekeyed=name in gone or "into" in definition,
                    ids=True,
                    # Rows may stand there: one that is equal is not written, but it needs a point.
                    points=bool(definition.get("vector")),
                    recount=bool(definition.get("stats")),
                )
            )
        elif before[name] != definition:
            found.append(_changed(name, before[name], definition))
    found = _without_stubs(_with_children(found, now), _stubbed(before) - _stubbed(now), now)
    for name in before.keys() - now.keys():
        collection = _part(before[name], "vector").get("collection")
        found.append(
            TableChange(
                table=name,
                kind=ChangeKind.LEFT,
                what=("left the map",),
                collection_left=collection if isinstance(collection, str) else None,
            )
        )
    return tuple(sorted(found, key=lambda change: change.kind is ChangeKind.LEFT))


def _with_children(found: Sequence[TableChange], now: Mapping[str, Definition]) -> list[TableChange]:
    """Add that what refers to rows under other ids is read again, and what refers to that.

    Rows that were deleted for their ids may have taken with them what referred to them.
    """
    changes = {change.table: change for change in found}
    causes: dict[str, set[str]] = {change.table: {change.table} for change in found if change.anew}
    for _ in now:
        for name, definition in now.items():
            for parent in _parents(definition) - {name}:
                if parent in causes:
                    causes.setdefault(name, set()).update(causes[parent])
    for name in now:
        after = frozenset(causes.get(name, ())) - {name}
        if after:
            change = changes.get(name) or TableChange(table=name, kind=ChangeKind.CHANGED)
            why = tuple(f"ids of {parent} changed" for parent in sorted(after))
            changes[name] = replace(change, what=(*change.what, *why), reread=True, fill=False, after=after)
    return list(changes.values())


def _stubbed(tables: Mapping[str, Definition]) -> set[str]:
    """Return the tables of which references make stubs."""
    named = [item for table in tables.values() for item in _named(table, "references").values()]
    return {str(item["parent"]) for item in named if isinstance(item, dict) and item.get("stub") is not None}


def _without_stubs(
    found: Sequence[TableChange], tables: set[str], now: Mapping[str, Definition]
) -> list[TableChange]:
    """Add that stubs of these tables leave."""
    changes = {change.table: change for change in found}
    for name in sorted(tables & now.keys()):
        change = changes.get(name) or TableChange(table=name, kind=ChangeKind.CHANGED)
        changes[name] = replace(change, what=(*change.what, "no stubs any longer"), unstubbed=True)
    return list(changes.values())


def _parents(table: Definition) -> set[str]:
    named = [*_named(table, "references").values(), *_named(table, "links").values()]
    return {str(item["parent"]) for item in named if isinstance(item, dict)}


def _changed(name: str, before: Definition, now: Definition) -> TableChange:
    differing = [field for field in {**before, **now} if before.get(field) != now.get(field)]
    what: list[str] = []
    reread = fill = False
    for field in differing:
        if field in ("vector", "stats"):
            continue
        if field in _LISTS:
            words, again = _differences(field, before, now)
            what += words
            adding = field == "columns" and _only_added(before, now)
            fill |= again and adding
            reread |= again and not adding
        else:
            what.append(f"{_called(field)} changed")
            reread |= field not in (*_UNREAD, "marked")
    vector = _vector(_part(before, "vector"), _part(now, "vector"))
    stats, recount = _stats(_part(before, "stats"), _part(now, "stats"))
    links = _named(before, "links").keys() - _named(now, "links").keys()
    ids = "types" in differing or (
        "id" in differing and (_made(before) != _made(now) or (_keeps(before) and not _keeps(now)))
    )
    return TableChange(
        table=name,
        kind=ChangeKind.CHANGED,
        what=(*what, *vector.what, *stats),
        reread=reread,
        fill=fill and not reread,
        compare=any(field in (*_IDENTITY, "into", "otherwise") for field in differing),
        rekeyed=ids or any(field in ("key", "source", "tenant", "into", "otherwise") for field in differing),
        ids=ids,
        anew="id" in differing,
        unlisted=_listed(before)
        and (not _listed(now) or _typed(before) != _typed(now))
        and _relisted(before, now) is None,
        relisted=_relisted(before, now),
        standing=lists_standing(before, now),
        points=vector.points or ("id" in differing and bool(now.get("vector"))),
        indexed=vector.indexed and not vector.points,
        recount=recount,
        links_left=tuple(sorted(links)),
        links_ours=_turned(before, now, now),
        links_all=_turned(before, now, before),
        collection_left=vector.left,
        unmarked="marked" in before and "marked" not in now,
    )


_LISTS: Final = {
    "columns": ("name", "column"),
    "source_only": ("name", "source column"),
    "references": ("column", "reference"),
    "links": ("table", "links"),
    "expressions": ("", "expression of"),
}
"""Field with named items -> the name within an item, and what an item is called."""


_HASH: Final = "hash"
_LOOKED_UP: Final = ("column", "assigned")
"""Rules by which an id does not follow from the key."""


_MAKING: Final = ("column", "namespace", "expression", "type", "source")


def lists_anew(before: Definition, now: Definition) -> bool:
    """Return whether rows may stand in the target that the list of rows does not have, under other ids."""
    if _listed(before):
        return _typed(before) != _typed(now)
    return _made(before) != _made(now)


def lists_standing(before: Definition, now: Definition) -> bool:
    """Return whether rows that no list had are in one from now on, under the ids that they have."""
    if _listed(before) or not _listed(now):
        return False
    return _keeps(now) or _part(now, "id").get("rule") == "assigned" or _made(before) == _made(now)


def _listed(table: Definition) -> bool:
    own = _part(table, "id")
    return own.get("rule") in _LOOKED_UP or bool(own.get("beside"))


def listed_by(table: Definition) -> tuple[str, str] | None:
    """Return rule and type of the ids that the list of rows has of a table; None if they are not listed."""
    own = _part(table, "id")
    rule = str(own.get("rule", _HASH))
    made = rule in (_HASH, "uuid5")
    return (rule, "uuid" if made else str(own.get("type"))) if _listed(table) else None


def keeps_no_longer(before: Definition, now: Definition) -> bool:
    """Return whether the list has ids that the rule, which is `hash` before and now, does not make."""
    return _relisted(before, now) is False


def _relisted(before: Definition, now: Definition) -> bool | None:
    own = [_part(table, "id") for table in (before, now)]
    hashed = [bool(each.get("beside") and each.get("rule", _HASH) == _HASH) for each in own]
    if all(hashed):
        return _keeps(now) if _keeps(before) != _keeps(now) else None
    # Listed rows keep their ids by the other rule too, whatever their natural values are by now.
    keeps = own[1].get("natural") and _typed(now) == ("uuid",)
    same_keys = all(before.get(name) == now.get(name) for name in ("key", "types"))
    return True if hashed[0] and keeps and same_keys else None


def _keeps(table: Definition) -> bool:
    own = _part(table, "id")
    return bool(own.get("beside") and own.get("natural"))


def _made(table: Definition) -> tuple[object, ...]:
    """Return what of an id's declaration makes it, and where: two that are equal make the same ids.

    Types of keys may also change what a key makes; under another key, rows have the id of the old one.
    """
    own = _part(table, "id")
    return own.get("rule", "hash"), *(own.get(name) for name in _MAKING)


def _typed(table: Definition) -> tuple[object, ...]:
    """Return as what the list has the ids."""
    own = _part(table, "id")
    rule = own.get("rule", "hash")
    if rule == "hash" and _keeps(table):
        return ("uuid",)
    return ({"hash": "row id", "uuid5": "uuid"}.get(str(rule), own.get("type")),)


def _differences(field: str, before: Definition, now: Definition) -> tuple[list[str], bool]:
    """Return how the named items of a field differ, and whether rows have to be read again for it."""
    old, new = _named(before, field), _named(now, field)
    called = _LISTS[field][1]
    what, reread = [], False
    for name in {**old, **new}:
        if name not in old:
            what.append(f"{called} {name} added")
            reread |= field not in _UNREAD
        elif name not in new:
            what.append(f"{called} {name} left")
            # Rows may be parked for a reference that left, and a plain column takes an expression's place.
            reread |= field == "references" or (field == "expressions" and name in _written(now))
        elif old[name] != new[name]:
            what.append(f"{called} {name} changed")
            reread |= field not in _UNREAD and not (field == "links" and _same_links(old[name], new[name]))
    return what, reread


def _same_links(old: JsonValue, new: JsonValue) -> bool:
    """Return whether two definitions of links ask for the same links, in the same places.

    Further columns are written when a link is made: those that are there keep theirs. A place that is no
    longer kept stays. Those that are there when links become `ours` are recorded instead of read again.
    """
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return False
    fields = {**old, **new}.keys() - {"columns", "owned"} - ({"position"} if "position" not in new else set())
    return all(old.get(field) == new.get(field) for field in fields) and not _turned_all(old, new)


def _turned_all(old: Mapping[str, JsonValue], new: Mapping[str, JsonValue]) -> bool:
    return "owned" in old and "owned" not in new


def _turned(before: Definition, now: Definition, ours: Definition) -> tuple[str, ...]:
    """Return the link tables whose links are owned otherwise in one of both, and `ours` in this one."""
    old, new, those = _named(before, "links"), _named(now, "links"), _named(ours, "links")
    return tuple(
        sorted(
            name
            for name in old.keys() & new.keys()
            if _owned(old[name]) != _owned(new[name]) and _owned(those[name]) != _owned({})
        )
    )


def _owned(links: JsonValue) -> JsonValue:
    return links.get("owned") if isinstance(links, dict) else None


def _only_added(before: Definition, now: Definition) -> bool:
    """Return whether every column that is copied in both is copied as before."""
    old, new = _named(before, "columns"), _named(now, "columns")
    return all(old[name] == new[name] for name in old.keys() & new.keys())


def _written(table: Definition) -> set[str]:
    """Return the target columns that are written without an expression."""
    references = _named(table, "references")
    targets = {
        str(item.get("target", name)) if isinstance(item, dict) else name for name, item in references.items()
    }
    return {*_named(table, "columns"), *targets}


@dataclass(frozen=True, kw_only=True)
class _VectorChange:
    what: tuple[str, ...] = ()
    points: bool = False
    indexed: bool = False
    left: str | None = None


def _vector(before: Definition, now: Definition) -> _VectorChange:
    if before == now:
        return _VectorChange()
    old, new = before.get("collection"), now.get("collection")
    left = str(old) if old is not None and old != new else None
    if not now:
        return _VectorChange(what=(f"vectors of {old} left",), left=left)
    if old != new:
        return _VectorChange(what=(f"vectors go to {new}",), points=True, left=left)
    parts = [field for field in ("text", "payload", "indexed") if before.get(field) != now.get(field)]
    parts += sorted(
        field
        for field in {**before, **now}
        if field not in (*parts, *_VECTOR) and before.get(field) != now.get(field)
    )
    what = tuple(f"{part} of the vectors changed" for part in parts)
    return _VectorChange(what=what, points=parts != ["indexed"], indexed="indexed" in parts)


_VECTOR: Final = ("collection", "text", "payload", "indexed")


def _stats(before: Definition, now: Definition) -> tuple[tuple[str, ...], bool]:
    """Return how counts differ, and whether they have to be made again."""
    if before == now:
        return (), False
    if not now:
        return ("counts left",), False
    if (before.get("table"), before.get("owner")) != (now.get("table"), now.get("owner")):
        return (f"counts go to {now.get('table') or 'the row'}",), True
    old, new = _items(before, "columns", "column"), _items(now, "columns", "column")
    what = [f"count {name} left" for name in old.keys() - new.keys()]
    made = [name for name, item in new.items() if old.get(name) != item]
    what += [f"count {name} {'changed' if name in old else 'added'}" for name in made]
    return tuple(sorted(what)), bool(made)


def _part(table: Definition, field: str) -> Definition:
    part = table.get(field)
    return part if isinstance(part, dict) else {}


def _named(table: Definition, field: str) -> dict[str, JsonValue]:
    return _items(table, field, _LISTS[field][0])


def _items(part: Definition, field: str, named_by: str) -> dict[str, JsonValue]:
    """Return the items of a field by name."""
    listed = part.get(field)
    if isinstance(listed, dict):
        return listed
    if not isinstance(listed, list):
        return {}
    return {str(item[named_by]): item for item in listed if isinstance(item, dict)}


def _called(field: str) -> str:
    return field.replace("_", " ")


def _plain(value: object) -> JsonValue:
    """Return a part of a map as JSON, without what has its default: so a new field changes no definition."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(given)
            for field in fields(value)
            if (given := getattr(value, field.name)) != _default(field)
        }
    if isinstance(value, Mapping):
        return {str(name): _plain(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=str)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a table map cannot have a {type(value).__name__}")


def _default(field: "Field[object]") -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default
