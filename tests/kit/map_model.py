"""What the target of a map should say: an independent model, derived from the map, for histories.

It reads the sources whole by plain SQL, resolves references, links and ids in Python, and knows nothing of
cursors, batches, parking or the list of rows. Every value is compared as Postgres's text of it. Rows of
others are told apart by the caller, who made them.

It takes from the target the ids of rows known by `natural`, and of stubs. A stub has what all rows that need it
say, and NULL in the other columns: the target has no defaults for them. Stubs by key are not modelled.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid5

import asyncpg

from syncline.engine.keys import key_uuid
from syncline.maps.ids import IdRule
from syncline.maps.key_types import KeyType, Kind
from syncline.maps.schema_map import SchemaMap
from syncline.maps.table_map import Reference, TableMap
from syncline.maps.unreadable import UnreadableRule
from syncline.sql import quoted

__all__ = ["Relation", "Wanted", "found_in", "miscounted", "wanted"]

Text = str | None
Ident = tuple[Text, ...]
"""The values of a row's primary key in the target."""


@dataclass
class Source:
    """A source row that belongs in the target."""

    key: Ident
    values: dict[str, Text]
    """Target column -> value."""
    refers: Mapping[str, Ident]
    """Reference -> the source's texts of it."""
    arrays: Mapping[str, Sequence[Text]]
    proposes: Mapping[str, Mapping[str, Text]]
    """Reference -> columns of a stub of its parent."""
    made: Text
    """The id by rule `same`, `column` or `expression`."""
    id: Text = None


@dataclass(frozen=True)
class Relation:
    """A table of the target: its primary key, and the further columns that are compared."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass
class Wanted:
    """What a map says of the sources as they are."""

    relations: dict[str, Relation] = field(default_factory=dict)
    rows: dict[str, dict[Ident, dict[str, Text]]] = field(default_factory=dict)
    """Relation -> primary key -> the other columns."""
    ids: dict[tuple[str, Ident], Text] = field(default_factory=dict)
    """Table and key of the source -> id."""
    stubs: dict[str, dict[Ident, dict[str, Text]]] = field(default_factory=dict)
    """Table -> rows that stand there in place of missing parents, with what is certain of them."""
    unfound: list[str] = field(default_factory=list)
    """Rows whose id only the target can say, and that do not stand there."""


async def wanted(schema_map: SchemaMap, write: asyncpg.Connection, target: asyncpg.Connection) -> Wanted:
    """Return what the target should say. It is asked for ids alone, of rows known by `natural` and of stubs."""
    found = Wanted()
    sources: dict[str, dict[Ident, Source]] = {}
    for table in schema_map:
        rows = {row.key: row for row in await _read(schema_map, table, write)}
        await _express(table, list(rows.values()), target)
        if table.into is not None:
            await _write_into(table, rows, sources[table.into], found, write)
            continue
        standing = await _standing(table, target)
        stubs = await _stubs(schema_map, table, target)
        sources[table.name] = _alive(schema_map, table, rows, sources, standing, stubs, found)
    for table in schema_map:
        if table.into is None:
            key = table.target_key
            columns = tuple(
                dict.fromkeys(name for row in sources[table.name].values() for name in row.values)
            )
            found.relations[table.name] = Relation(
                table.name, key, tuple(name for name in columns if name not in key)
            )
            found.rows[table.name] = found.stubs.get(table.name, {}) | {
                tuple(row.values[name] for name in key): row.values for row in sources[table.name].values()
            }
            _link(schema_map, table, sources, found)
    return found


def normal(type_: KeyType, text: Text) -> Text:
    """Return the one form of a key that may be spelled in several ways; None if it is no such key."""
    if text is None or type_.kind is not Kind.UUID:
        return text
    try:
        return str(UUID(text))
    except ValueError:
        return None


async def _read(schema_map: SchemaMap, table: TableMap, write: asyncpg.Connection) -> list[Source]:
    staged = {name: f"{quoted(name)}::{type_}" for name, type_ in table.staged.items()}
    referring = [name for reference in table.references for name in reference.sources]
    for name in (*table.key, *referring, *_source_of_id(table)):
        staged.setdefault(name, quoted(name))
    for links in table.links:
        staged.setdefault(links.source, quoted(links.source))
    stage = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in staged.items())
    columns = {column.name: column for column in table.columns}
    values = {
        name: f"({column.value})::{column.type}"
        if column.value is not None
        else f"s.{quoted(column.sources[0])}::{column.type}"
        for name, column in columns.items()
    }
    values |= {name: f"({sql})" for name, sql in table.expressions.items()}
    listed = [f"({sql})::text" for sql in values.values()]
    listed += [f"s.{quoted(name)}::text" for name in table.key]
    listed += [f"s.{quoted(name)}::text" for name in referring]
    for reference in table.references:
        types_there = {column.name: column.type for column in schema_map[reference.parent].columns}
        listed += [f"({sql})::{types_there[name]}::text" for name, sql in (reference.stub or {}).items()]
    listed += [_elements(table, links.source) for links in table.links]
    listed.append(_made(table))
    rows = await write.fetch(
        f"SELECT {', '.join(listed)} FROM (SELECT {stage} FROM {quoted(table.source)} WHERE {table.present}) s"
    )
    types = dict(zip(table.key, table.key_types, strict=True))
    found = []
    for row in rows:
        cells = list(row)

        def taken(names: Iterable[str], cells: list[Text] = cells) -> dict[str, Text]:
            return {name: cells.pop(0) for name in names}

        of = taken(values)
        key = taken(table.key)
        refers = {each.column: tuple(taken(each.sources).values()) for each in table.references}
        proposes = {each.column: taken(each.stub or {}) for each in table.references}
        arrays = {links.source: cells.pop(0) or () for links in table.links}
        found.append(
            Source(
                tuple(normal(types[name], key[name]) for name in table.key),
                of,
                refers,
                arrays,
                proposes,
                cells[0],
            )
        )
    return found


def _source_of_id(table: TableMap) -> tuple[str, ...]:
    return () if table.id is None or table.id.source is None else (table.id.source,)


def _elements(table: TableMap, array: str) -> str:
    """Return the SQL for the elements of an array of links, as texts."""
    column = f"s.{quoted(array)}"
    if table.is_json(array):
        return f"ARRAY(SELECT e FROM jsonb_array_elements_text({column}) WITH ORDINALITY x (e, n) ORDER BY n)"
    return f"{column}::text[]"


def _made(table: TableMap) -> str:
    """Return the SQL for an id that is a column of the source row."""
    own = table.id
    if own is None or not table.identified:
        return "NULL"
    if own.rule is IdRule.SAME:
        return f"s.{quoted(table.key[0])}::text"
    if own.rule is IdRule.COLUMN:
        return f"s.{quoted(own.source or '')}::text"
    return "NULL"


async def _express(table: TableMap, rows: Sequence[Source], target: asyncpg.Connection) -> None:
    """Make the ids by rule `expression` where the product does: the write-db has no schema `syncline`."""
    if table.id_rule is not IdRule.EXPRESSION or table.id is None:
        return
    places = range(1, len(table.key) + 1)
    values = [f"k.part{place}::{type_.native}" for place, type_ in zip(places, table.key_types, strict=True)]
    filled = re.sub(r"\$(\d+)", lambda n: f"({values[int(n[1]) - 1]})", table.id.expression or "")
    listed = ", ".join(f"${place}::text[]" for place in places)
    named = ", ".join(f"part{place}" for place in places)
    made = await target.fetch(
        f"SELECT (({filled})::{table.id.type})::text AS id FROM unnest({listed}) WITH ORDINALITY k ({named}, n) ORDER BY n",
        *([row.key[place - 1] for row in rows] for place in places),
    )
    for row, id_ in zip(rows, made, strict=True):
        row.made = id_["id"]


async def _standing(table: TableMap, target: asyncpg.Connection) -> dict[Ident, Text]:
    """Return values of `natural` -> id, of what stands in the target."""
    if table.id is None or not table.id.natural:
        return {}
    natural = [f"{quoted(name)}::text" for name in table.id.natural]
    rows = await target.fetch(
        f"SELECT {quoted(table.id_column)}::text, {', '.join(natural)} FROM {quoted(table.name)}"
    )
    return {tuple(row)[1:]: row[0] for row in rows}


async def _stubs(
    schema_map: SchemaMap, table: TableMap, target: asyncpg.Connection
) -> dict[tuple[str, Text], Text]:
    """Return (table of a parent, value by which it is named) -> id, where a reference makes stubs of parents."""
    found: dict[tuple[str, Text], Text] = {}
    for reference in table.required:
        if reference.stub is None or reference.by is None:
            continue
        parent = schema_map[reference.parent]
        rows = await target.fetch(
            f"SELECT {quoted(reference.by)}::text, {quoted(parent.id_column)}::text FROM {quoted(parent.name)}"
        )
        found |= {(parent.name, row[0]): row[1] for row in rows}
    return found


def _alive(
    schema_map: SchemaMap,
    table: TableMap,
    rows: dict[Ident, Source],
    sources: dict[str, dict[Ident, Source]],
    standing: Mapping[Ident, Text],
    stubs: Mapping[tuple[str, Text], Text],
    found: Wanted,
) -> dict[Ident, Source]:
    """Return the rows whose required parents are there, with their references and ids."""
    alive: dict[Ident, Source] = {}
    waiting = list(rows.values())
    while True:  # more than once where a table's own rows are required
        known = sources | {table.name: alive}
        later = []
        for row in waiting:
            parents = [(each, _parent(schema_map, known[each.parent], row, each)) for each in table.required]
            lacking = [each for each, parent in parents if parent is None]
            if any(each.stub is None or row.refers[each.column][0] is None for each in lacking):
                later.append(row)
                continue
            for each, parent in parents:
                id_ = stubs.get((each.parent, row.refers[each.column][0])) if parent is None else parent.id
                if each.fills:
                    row.values[each.target_column] = id_
                if parent is None:
                    _stand_in(schema_map[each.parent], each, id_, row, found)
            row.id = _id(table, row, standing)
            if table.identified and row.id is None:
                found.unfound.append(f"{table.name}: missing {row.key}")
                continue
            found.ids[table.name, row.key] = row.id
            if table.identified:
                row.values[table.id_column] = row.id
            if table.key_column is not None:
                row.values[table.key_column] = row.key[0]
            row.values |= {
                name: row.key[table.key.index(name)] for name in table.own_parts if not table.beside
            }
            alive[row.key] = row
        if len(later) == len(waiting) or not later:
            break
        waiting = later
    for row in alive.values():
        for reference in table.optional:
            parent = _parent(schema_map, (sources | {table.name: alive})[reference.parent], row, reference)
            row.values[reference.target_column] = None if parent is None else parent.id
    return alive


def _stand_in(parent: TableMap, reference: Reference, id_: Text, row: Source, found: Wanted) -> None:
    """Note what is certain of the stub to which a row refers."""
    if id_ is None:
        found.unfound.append(f"{parent.name}: no stub for row {row.key} by {reference.column}")
        return
    says = row.proposes[reference.column] | {reference.by or "": row.refers[reference.column][0]}
    stub = {column.name: says.get(column.name) for column in parent.columns} | {parent.id_column: id_}
    there = found.stubs.setdefault(parent.name, {}).setdefault((id_,), stub)
    for name in [name for name in there if there[name] != stub[name]]:
        del there[name]  # whichever row came first


def _parent(
    schema_map: SchemaMap, parents: Mapping[Ident, Source], row: Source, reference: Reference
) -> Source | None:
    values = row.refers[reference.column]
    if None in values:
        return None
    if reference.by is not None:
        return next((each for each in parents.values() if each.values[reference.by] == values[0]), None)
    types = schema_map[reference.parent].key_types
    return parents.get(
        tuple(_named(reference, type_, value or "") for type_, value in zip(types, values, strict=True))
    )


def _named(reference: Reference, type_: KeyType, text: str) -> Text:
    """Return the key that a text names."""
    readable, rule = normal(type_, text), reference.unreadable
    if readable is not None or rule is None:
        return readable
    if rule.rule is UnreadableRule.UUID5 and (text or rule.key is None):
        return str(uuid5(UUID(rule.namespace), text))
    return rule.key


def _id(table: TableMap, row: Source, standing: Mapping[Ident, Text]) -> Text:
    if not table.identified:
        return None
    own = table.id
    if own is not None and own.natural:
        there = standing.get(tuple(row.values[name] for name in own.natural))
        if there is not None or own.rule is IdRule.ASSIGNED:
            return there
    if own is None or own.rule is IdRule.HASH:
        return str(key_uuid(*row.key))
    if own.rule is IdRule.UUID5:
        return str(uuid5(UUID(own.namespace), row.key[0] or ""))
    return row.made


async def _write_into(
    table: TableMap,
    rows: Mapping[Ident, Source],
    owners: Mapping[Ident, Source],
    found: Wanted,
    write: asyncpg.Connection,
) -> None:
    otherwise = {
        column.name: await write.fetchval(f"SELECT ({table.otherwise[column.name]})::{column.type}::text")
        if column.name in table.otherwise
        else None
        for column in table.columns
    }
    for key, owner in owners.items():
        owner.values |= rows[key].values if key in rows else otherwise


def _link(
    schema_map: SchemaMap, table: TableMap, sources: dict[str, dict[Ident, Source]], found: Wanted
) -> None:
    for links in table.links:
        members = sources[links.parent]
        type_ = schema_map[links.parent].key_types[0]
        rejected: set[Ident] = set()
        if links.rejected_by is not None:
            rejecting = schema_map[links.rejected_by]
            ends = [
                next(r for r in rejecting.references if r.column == name).target_column
                for name in rejecting.key
            ]
            rejected = {tuple(row.values[end] for end in ends) for row in sources[links.rejected_by].values()}
        made: dict[Ident, dict[str, Text]] = {}
        for row in sources[table.name].values():
            for place, element in enumerate(row.arrays[links.source], 1):
                member = members.get((normal(type_, element),))
                if member is None or (row.id, member.id) in rejected:
                    continue
                placed = {} if links.position is None else {links.position: str(place)}
                made.setdefault((row.id, member.id), {links.owner: row.id, links.member: member.id, **placed})
        columns = () if links.position is None else (links.position,)
        found.relations[links.table] = Relation(links.table, (links.owner, links.member), columns)
        found.rows[links.table] = made


async def found_in(target: asyncpg.Connection, relation: Relation) -> dict[Ident, dict[str, Text]]:
    """Return what the target has in a relation: primary key -> columns."""
    names = (*relation.key, *relation.columns)
    listed = ", ".join(f"{quoted(name)}::text AS {quoted(name)}" for name in names)
    rows = await target.fetch(f"SELECT {listed} FROM {quoted(relation.name)}")
    return {tuple(row[name] for name in relation.key): dict(row) for row in rows}


async def miscounted(schema_map: SchemaMap, target: asyncpg.Connection) -> dict[str, set[str]]:
    """Return table -> ids of rows whose counts are not those of what stands in the target."""
    found: dict[str, set[str]] = {}
    for table in schema_map:
        if table.stats is None:
            continue
        place, owner = table.stats_place
        for stat in table.stats.columns:
            by = " OR ".join(f"c.{quoted(name)} = n.{quoted(owner)}" for name in stat.by)
            rows = await target.fetch(
                f"SELECT n.{quoted(owner)}::text AS id FROM {quoted(place)} n WHERE n.{quoted(stat.column)} IS DISTINCT FROM"
                f" (SELECT {stat.value} FROM {quoted(stat.counted)} c WHERE {by})"
            )
            found.setdefault(table.name, set()).update(row["id"] for row in rows)
    return found
