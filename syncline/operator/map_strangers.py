"""Rows of filled targets under other ids than a map makes, which a sync would write once more."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import asyncpg

from syncline.capture.install.misfit import Misfit
from syncline.engine.map_changes import Definition, definitions_of, map_changes
from syncline.engine.schema_transaction import SCHEMA_PATH
from syncline.engine.standing import earlier_map
from syncline.engine.strangers import strange_condition, ways_to_leave
from syncline.engine.template import sql as engine_sql
from syncline.maps.schema_map import SchemaMap
from syncline.operator.map_catalog import MapTable
from syncline.operator.schema import sql
from syncline.sql import quoted

__all__ = ["strange_rows"]

_LOOKED_AT: Final = 10_000
"""Rows of a table that are looked at: a rule for ids that is wrong is wrong for most of them."""


async def strange_rows(
    connection: asyncpg.Connection, schema: str, schema_map: SchemaMap, targets: dict[str, MapTable]
) -> AsyncIterator[Misfit]:
    """Yield the tables among whose first rows one stands under another id than the map's.

    A table that does not fit the map is not looked at. Needs the bookkeeping's functions. By the map that the
    graph was synced by, which may be another one.
    """
    before = await _definitions(connection, schema)
    earlier = earlier_map(before)
    changes = map_changes(before, definitions_of(schema_map)) if before else ()
    same_ids = {change.table for change in changes if not change.ids}
    for table in schema_map:
        if table.name in same_ids:
            continue
        condition = strange_condition(
            schema_map, table.name, schema=schema, before=before.get(table.name), earlier=earlier
        )
        if condition is None or table.name not in targets:
            continue
        try:
            async with connection.transaction(readonly=True):
                await connection.execute(SCHEMA_PATH, schema)
                place = f"{quoted(schema)}.{quoted(table.name)}"
                look = sql("map_strangers", target=place, strange=condition, limit=str(_LOOKED_AT))
                found = await connection.fetchval(look)
                leaving = await ways_to_leave(connection, table.name, condition, schema=schema)
        except asyncpg.PostgresError:
            # A column is missing, of another type or forbidden: that is told as what it is.
            continue
        if found:
            yield Misfit(
                f"{table.name} has rows under another id than the map makes of their key: a sync would write "
                "them once more. Let rule `id` say how their ids were made, or delete them and what refers "
                "to them.",
                table=table.name,
                path=("id",),
                statement=" ".join(f"{statement};" for statement in leaving.statements),
            )


async def _definitions(connection: asyncpg.Connection, schema: str) -> dict[str, Definition]:
    """Return the tables of the map that the graph-db was synced by; none before its first cycle."""
    with suppress(asyncpg.PostgresError):
        async with connection.transaction(readonly=True):
            await connection.execute(SCHEMA_PATH, schema)
            rows = await connection.fetch(engine_sql("mapped_read"))
            return {row["table_name"]: json.loads(row["definition"]) for row in rows if not row["gone"]}
    return {}
