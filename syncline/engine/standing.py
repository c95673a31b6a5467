"""Standing rows: those that an earlier version of the map wrote, told by the keys that it left with them.

Where rows keep their ids from now on, whatever their rule makes, these are listed under the ids that they
have. Their values in `natural` may be others by now, or another row's, so that those would not find them.
Where rows are listed from now on, under ids that their keys make as before, these are too: what is in no list
is others', so that one which leaves before it has been read again would stay.
"""

from collections.abc import Mapping
from typing import Final

import asyncpg
from pydantic import TypeAdapter, ValidationError

from syncline.engine.map_changes import Definition
from syncline.engine.render.fragments import commas
from syncline.engine.render.identity import Identity, listed_as, row_hash
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.errors import MapInvalid
from syncline.sql import literal, quoted

__all__ = ["earlier_map", "list_standing", "stands_elsewhere"]

_TABLES: Final[TypeAdapter[TableMap]] = TypeAdapter(TableMap)


def earlier_map(definitions: Mapping[str, Definition]) -> SchemaMap | None:
    """Return the map of stored definitions; None if this version of the engine would refuse it."""
    try:
        tables = [
            _TABLES.validate_python({"name": name, **definition}) for name, definition in definitions.items()
        ]
        return SchemaMap(name="earlier", tables=tuple(tables))
    except (ValidationError, MapInvalid, ValueError):
        return None


async def list_standing(
    target: asyncpg.Connection, schema_map: SchemaMap, earlier: SchemaMap | None, name: str
) -> bool:
    """List the rows of a table under the ids that they have, if its target still tells their keys.

    Return False if it does not, and has rows.
    """
    before, now = _keyed(earlier, schema_map, name), Identity(schema_map, schema_map[name])
    if before is not None and before.table.listed:
        return True
    if before is None or not before.table.identified or not await _has_keys(target, before):
        return not await target.fetchval(sql("standing_any", target=quoted(name)))
    parts = before.parts("t")
    at_home = f" AND t.{now.column} = {now.made(parts, safely=True)}"
    await target.execute(
        sql(
            "list_standing",
            target=quoted(name),
            table=literal(name),
            row_id=row_hash(parts),
            key=commas(parts),
            id="NULL" if now.hashed else listed_as(now.table, f"t.{now.column}"),
            # Under another id, a row is not one of these keys, whatever its column says.
            also="" if now.table.looked_up else at_home,
        )
    )
    return True


async def _has_keys(target: asyncpg.Connection, before: Identity) -> bool:
    """Return whether targets have the columns that told the keys of a table's rows, its parents' too."""
    own = before.table
    told_by = [own.key_column or own.id_column, *own.own_parts]
    if not await target.fetchval(sql("standing_told"), quoted(own.name), told_by):
        return False
    parents = [before.of(part) for name in own.key if (part := own.parent_part(name)) is not None]
    for parent in parents:
        if not (parent.table.listed or parent.table.name == own.name or await _has_keys(target, parent)):
            return False
    return True


def stands_elsewhere(
    schema_map: SchemaMap, earlier: SchemaMap | None, name: str, *, schema: str | None = None
) -> str | None:
    """Return the condition that target row `t` stands under another id than that of its key, as told before.

    None where the target itself tells the keys by both maps, or the id was the key before.
    """
    before, now = _keyed(earlier, schema_map, name, schema=schema), Identity(schema_map, schema_map[name])
    if before is None or not (before.table.identified and now.table.identified):
        return None
    if not before.table.listed and (now.can_be_strange or before.table.id_rule is now.table.id_rule):
        return None
    return f"t.{now.column} IS DISTINCT FROM {now.made(before.parts('t'), safely=True)}"


def _keyed(
    earlier: SchemaMap | None, schema_map: SchemaMap, name: str, *, schema: str | None = None
) -> Identity | None:
    """Return the identity of a table before, if its rows had the keys that they have now."""
    if earlier is None or name not in {table.name for table in earlier}:
        return None
    before, now = earlier[name], schema_map[name]
    same = before.key == now.key and before.key_types == now.key_types
    return Identity(earlier, before, schema=schema) if same else None
