"""Rows of filled targets under other ids than a map makes, which a sync would write once more."""

from collections.abc import AsyncIterator
from typing import Final

import asyncpg

from syncline.capture.install.misfit import Misfit
from syncline.engine.schema_transaction import SCHEMA_PATH
from syncline.engine.strangers import strange_condition, ways_to_leave
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

    A table that does not fit the map is not looked at. Needs the bookkeeping's functions.
    """
    for table in schema_map:
        condition = strange_condition(schema_map, table.name, schema=schema)
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
