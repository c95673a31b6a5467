"""Comparison: finds rows of the graph-db that the write-db no longer has and whose delete was not captured.

Set-wise and bounded: a page of keys of the target at a time; the write-db returns those that it lacks.
These are requested by key like other retries: missing rows are then deleted with all that depends on them.
Not before all keys were looked at: if too many are gone, the write-db may have been restored to an older
time, or lost a table, and an operator decides.
"""

import json
from collections.abc import Sequence
from copy import copy
from typing import Final

import asyncpg

from syncline.engine.key_forms import cast, form
from syncline.engine.render.fragments import commas, same_key
from syncline.engine.render.identity import Identity
from syncline.engine.render.tenants import of_same_tenant
from syncline.engine.schema_transaction import BY_INDEX
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.provider import GraphSchema
from syncline.sql import literal, quoted
from syncline.stores.tenants import reading

__all__ = ["FEW_ROWS", "Comparison"]

KEYS = 20_000
"""Keys compared in one statement."""
FEW_ROWS: Final = 100
"""So many rows of a table are removed unasked, whatever share of it they are."""
_PARTS = ("rows", "state")


class Comparison:
    """The comparison statements of one table."""

    def __init__(self, schema_map: SchemaMap, table: TableMap) -> None:
        self.table = table
        entries = sql("comparison_state_entries", table=literal(table.name))
        self._next = {"rows": self._next_rows(schema_map, table), "state": entries}
        numbers = range(1, len(table.key) + 1)
        self._absent = {
            "parts": commas([f"key_{number}" for number in numbers]),
            "parameters": commas([f"${number}::text[]" for number in numbers]),
            "same_key": " AND ".join(
                same_key(table, column, number) for number, column in enumerate(table.key, start=1)
            ),
        }

    def of_tenant(self, table: TableMap) -> "Comparison":
        """Return the statements for one tenant's rows, by its map of the table."""
        bound = copy(self)
        bound.table = table
        return bound

    async def step(
        self, target: asyncpg.Connection, source: asyncpg.Connection, write: GraphSchema, *, share: float
    ) -> bool:
        """Compare the next page of keys, in the caller's graph-db transaction; return True when none are
        left, or when too many rows are gone, which then wait for an operator.

        `write` is the graph's schema in the write-db; errors there name it. `share`: the part of the table's
        rows that may leave unasked.
        """
        name = self.table.name
        state = await target.fetchrow(sql("comparison_state"), name)
        if state is None:
            return True
        part = state["part"]
        rows = await target.fetch(self._next[part], state["after"], KEYS)
        with write.store.errors_mapped():
            absent = await self.absent(source, write.schema, [row for row in rows if None not in row["key"]])
        bounded = part == _PARTS[0] and state["seen"] is not None
        if bounded:
            await target.execute(sql("comparison_seen"), name, len(rows))
        if absent:
            await target.execute(
                sql("comparison_absent_rows" if bounded else "comparison_ask"),
                name,
                [row["row_id"] for row in absent],
                [json.dumps(row["key"]) for row in absent],
            )
        if len(rows) == KEYS:
            await target.execute(sql("comparison_moved"), name, part, rows[-1]["after"])
            return False
        if bounded:
            if await target.fetchrow(sql("comparison_withhold"), name, FEW_ROWS, share) is not None:
                return True
            await target.execute(sql("comparison_release"), name)
        if part == _PARTS[-1]:
            await target.execute("DELETE FROM sync_comparison WHERE table_name = $1", name)
            return True
        await target.execute(sql("comparison_moved"), name, _PARTS[-1], None)
        return False

    async def absent(
        self, source: asyncpg.Connection, schema: str, rows: Sequence[asyncpg.Record]
    ) -> Sequence[asyncpg.Record]:
        """Return those of the rows whose `key` the write-db does not have."""
        if not rows:
            return ()
        columns = [list(column) for column in zip(*(row["key"] for row in rows), strict=True)]
        name = f"{quoted(schema)}.{quoted(self.table.source)}"
        absent = {**self._absent, "same_key": self._absent["same_key"] + of_same_tenant(self.table)}
        query = sql("comparison_absent", source=name, **absent)
        async with reading(source, [name], first=BY_INDEX):
            found = await source.fetch(query, *columns)
        return [rows[record["place"] - 1] for record in found]

    def _next_rows(self, schema_map: SchemaMap, table: TableMap) -> str:
        own = Identity(schema_map, table)
        if table.listed:
            return sql("comparison_listed", table=literal(table.name))
        if own.hashed and table.key_column is not None:
            return sql(
                "comparison_rows", target=quoted(table.name), id=own.column, key=commas(own.parts("t"))
            )
        parents = own.joined("t", "p", 1)
        types = own.target_types()
        columns = [f"t.{quoted(column)}" for column in table.target_key]
        return sql(
            "comparison_keyed_rows",
            target=own.ours,
            own_key=commas(columns),
            own_texts=commas(
                [f"({form(type_, column)})::text" for type_, column in zip(types, columns, strict=True)]
            ),
            after=commas(
                [cast(type_, f"($1::text[])[{place}]") for place, type_ in enumerate(types, start=1)]
            ),
            joins=" ".join(f"LEFT JOIN {join}" for join, _ in parents or ()),
            key=commas(own.parts("t") if parents is None else [key for _, key in parents]),
        )
