"""Standing stubs: rows of a filled target that stand for rows which the write-db does not have.

Another engine made them as this one makes stubs: no source row has their key, something refers to them, and
they have nothing but what a stub has. A takeover lists them; others without a source row are extra.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import asyncpg

from syncline.engine.keys import bytes_of, key_bytes, key_of_bytes
from syncline.engine.render.fragments import commas, key_source
from syncline.engine.render.identity import Identity
from syncline.engine.render.kept import is_kept, referred, stubbing, target_key
from syncline.engine.render.tenants import source_rows
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.maps.into import written_beside
from syncline.provider import GraphSchema
from syncline.sql import literal, quoted, statements_of
from syncline.verify.snapshots import Side, open_source

__all__ = ["StandingStubs", "standing_stubs"]

_sql = statements_of("syncline.verify")
_PAGE: Final = 5_000
_OF_A_ROW: Final = re.compile(r"\bs\.")


Row = tuple[UUID, str, str]
"""Row id, key and primary key of a row, both as JSON."""


@dataclass(frozen=True, kw_only=True)
class StandingStubs:
    """The stubs that stand in a target, by table."""

    found: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Table -> how many, of those that have any."""
        return {name: len(rows) for name, rows in self.found.items() if rows}

    async def enter(self, side: Side) -> None:
        """List them, in the transaction of a graph-db."""
        for name in self.counts:
            columns = zip(*self.found[name], strict=True)
            await side.fetch(_sql("stubs_enter", table=literal(name)), *map(list, columns))


async def standing_stubs(schema_map: SchemaMap, write: GraphSchema, side: Side) -> StandingStubs:
    """Return the stubs that stand in the target of `side`, as the write-db is now."""
    tables = [table for table in schema_map if stubbing(schema_map, table)]
    return StandingStubs(found={each.name: await _of_table(schema_map, each, write, side) for each in tables})


async def _of_table(schema_map: SchemaMap, table: TableMap, write: GraphSchema, side: Side) -> list[Row]:
    own, rows, page = Identity(schema_map, table), list[Row](), list[asyncpg.Record]()
    bare = await _nothing_else(schema_map, table, side)
    if bare is None:
        return rows
    query = _sql(
        "stubs_standing",
        target=quoted(table.target),
        row_id=own.row_id("t"),
        key=commas(own.parts("t")),
        target_key=target_key(table, "t"),
        is_kept=is_kept(table, "t"),
        referred=referred(schema_map, table, f"t.{own.column}"),
        bare="".join(f" AND {condition}" for condition in bare),
    )
    async for row in side.stream(query):
        page.append(row)
        if len(page) == _PAGE:
            rows += await _without_source(table, write, page)
            page = []
    return rows + await _without_source(table, write, page)


async def _without_source(table: TableMap, write: GraphSchema, page: Sequence[asyncpg.Record]) -> list[Row]:
    keys = [tuple(row["key"]) for row in page]
    there = await _there(table, write, keys) if keys else set()
    return [
        (row["row_id"], json.dumps(key), json.dumps(row["target_key"]))
        for row, key in zip(page, keys, strict=True)
        if key not in there
    ]


async def _there(
    table: TableMap, write: GraphSchema, keys: Sequence[tuple[str, ...]]
) -> set[tuple[str, ...]]:
    query = _sql(
        "present_keys",
        key=commas([key_bytes(key_source(table, column)) for column in table.key]),
        source=source_rows(table, write.schema),
        parameters=commas([f"${place + 1}::bytea[]" for place in range(len(table.key))]),
        present=table.present,
    )
    columns = [[bytes_of(part) for part in column] for column in zip(*keys, strict=True)]
    async with open_source(write, [f"{quoted(write.schema)}.{quoted(table.source)}"]) as source:
        return {key_of_bytes(row["key"]) for row in await source.fetch(query, *columns)}


async def _nothing_else(schema_map: SchemaMap, table: TableMap, side: Side) -> list[str] | None:
    """Return the conditions that row `t` has in each column what a stub has; None for a table without them.

    What the map makes of the row that needs the stub may be anything.
    """
    known = {row["name"]: row for row in await side.fetch(_sql("stub_columns"), quoted(table.target))}
    said: dict[str, set[str]] = {}
    for _, reference in stubbing(schema_map, table):
        for name, value in (reference.stub or {}).items():
            said.setdefault(name, set()).add(value)
    looked_up = {reference.by for _, reference in stubbing(schema_map, table)}
    types = {column.name: column.type for column in table.columns}
    named = [*types, *(reference.target_column for reference in table.filled)]
    beside = written_beside(schema_map.tables, table)
    conditions = []
    for name in (*named, *beside):
        if name in looked_up:
            continue
        if name not in known:
            return None
        column = known[name]
        values = {f"({value})::{types[name]}" for value in said.get(name, ())}
        values |= {beside[name]} if name in beside else set()
        if any(_OF_A_ROW.search(value) for value in values):
            continue
        if not values:
            values = {"NULL"} | ({column["default"]} if column["default"] else set())
            if not column["nullable"] and not column["default"]:
                continue
        same = [f"t.{quoted(name)}::text IS NOT DISTINCT FROM ({value})::text" for value in sorted(values)]
        conditions.append(f"({' OR '.join(same)})")
    return conditions
