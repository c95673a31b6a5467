"""Parked rows: list them, and summarize them by missing parent with the reason why it does not arrive."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

import asyncpg

from syncline.engine.key_forms import safe
from syncline.engine.render.fragments import commas, named_together
from syncline.engine.render.identity import Identity
from syncline.engine.render.statements import deleted_keys
from syncline.engine.render.tenants import bound_tenant, deleted_keys_of, source_rows
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.masking import FROM_CODE
from syncline.messages.base import Message
from syncline.operator.schema import (
    checked_limit,
    find_table,
    first_page,
    moment,
    naming_values,
    place_after,
    reading,
    reading_sources,
    refusal,
    row_name,
    sql,
)
from syncline.provider import GraphSchema
from syncline.quoting import counted
from syncline.sql import literal, quoted

__all__ = [
    "AwaitedRow",
    "Obstacle",
    "ParkedEntry",
    "ParkedPage",
    "ParkedPart",
    "ParkedSummary",
    "list_parked",
    "summarize_parked",
]


class Obstacle(StrEnum):
    """Why a parent row has not arrived in the graph-db."""

    LANDED = "landed"
    """It has arrived: the next cycle applies the rows that wait for it."""
    MISSING = "missing"
    """The write-db does not contain it, and has no record of a deletion."""
    DELETED = "deleted"
    """It was deleted from the write-db."""
    NOT_READY = "not_ready"
    """The write-db contains it, but the table map's condition excludes it from the graph-db."""
    DEAD = "dead"
    """The graph-db rejected it; it is no longer retried."""
    RETRYING = "retrying"
    """The graph-db rejected it; it will be retried."""
    PARKED = "parked"
    """It is parked itself."""
    PENDING = "pending"
    """The write-db contains it, and it has not been synced yet."""
    UNKNOWN = "unknown"
    """Its table is not in the table map."""


class ParkedPart(Message):
    """Rows of one table that wait for the same parent."""

    table: str
    name: str | None = None
    """The parked link table or referencing column; null: complete rows are parked."""
    waiting: int = 0
    since: datetime | None = None


class AwaitedRow(Message):
    """A missing parent row."""

    table: str
    key: str
    named_by: str | None = None
    """The column of `key`, if the parked rows reference it by another column than its key."""
    waiting: int = 0
    since: datetime | None = None
    parts: tuple[ParkedPart, ...] = ()
    obstacle: Obstacle = Obstacle.UNKNOWN
    reason: str = ""
    """The obstacle in words."""


class ParkedSummary(Message):
    """A graph's parked rows by missing parent, the parents with most parked rows first."""

    rows: int = 0
    """Number of parked rows."""
    references: int = 0
    """Number of parked links and optional references whose row has been applied."""
    released: int = 0
    """Rows whose parent has arrived, applied by the next cycle; not included in the other counts."""
    awaited: tuple[AwaitedRow, ...] = ()
    left_off: int = 0
    """Number of missing parents beyond the page."""

    @property
    def outcome(self) -> str:
        """The counts in one line."""
        return (
            f"{counted(self.rows, 'parked row')}, {self.references:,} parked links and references, "
            f"{self.released:,} ready to apply"
        )


class ParkedEntry(Message):
    """A parked row, link or optional reference."""

    table: str
    key: tuple[str, ...] = ()
    """Key of the parked row, or of the row with the parked link or reference."""
    name: str | None = None
    """The link table or the referencing column; null: the complete row is parked."""
    waits_for_table: str = ""
    waits_for_key: str = ""
    since: datetime | None = None
    released: bool = False
    """Its parent has arrived; the next cycle applies it."""


class ParkedPage(Message):
    """One page of the parked rows of a table, in arbitrary order."""

    entries: tuple[ParkedEntry, ...] = ()
    next: str | None = None
    """Value of `after` for the following page; null on the last page."""


async def summarize_parked(
    write: GraphSchema, target: GraphSchema, schema_map: SchemaMap, *, limit: int = 20
) -> ParkedSummary:
    """Return the parked rows by missing parent, with one query to each database."""
    limit = checked_limit(limit)
    by_value = [
        (table.name, reference.column, reference.parent, reference.by)
        for table in schema_map
        for reference in table.references
        if reference.by is not None
    ]
    columns = [[row[place] for row in by_value] for place in range(4)]
    async with reading(target) as connection:
        counts = await connection.fetchrow(sql("parked_counts"))
        awaited = await connection.fetch(
            sql("awaited", landed=_landed(schema_map), from_code=literal(FROM_CODE)), *columns, limit
        )
    sources = await _ask_write_db(write, schema_map, awaited)
    shown = first_page((_awaited(schema_map, row, sources) for row in awaited), limit)
    return ParkedSummary(
        rows=counts["rows"],
        references=counts["references"],
        released=counts["released"],
        awaited=shown,
        left_off=awaited[0]["all_awaited"] - len(shown) if shown else 0,
    )


async def list_parked(
    target: GraphSchema, schema_map: SchemaMap, table: str, *, limit: int = 100, after: str | None = None
) -> ParkedPage:
    """Return one page of the parked rows of a table; `after` is the `next` of the previous page.

    Raise InputInvalid for a table that is not in the map.
    """
    limit = checked_limit(limit)
    found = find_table(schema_map, table)
    # Each row, and each of its parts, has one position: `<name>/<parent it waits for>/<row>`.
    place, row_id = place_after(after)
    name, waits_for = place_after(place)
    owner = _owner_key(Identity(schema_map, found)) if found.identified else "NULL"
    async with reading(target) as connection:
        rows = await connection.fetch(
            sql("parked", owner_key=owner), found.name, row_id, name, waits_for, limit + 1
        )
    entries = first_page((ParkedEntry.model_validate({"table": found.name, **row}) for row in rows), limit)
    following = None
    if len(rows) > len(entries):
        last = rows[len(entries) - 1]
        following = f"{last['name'] or ''}/{last['waits_for']}/{last['row_id']}"
    return ParkedPage(entries=entries, next=following)


def _owner_key(own: Identity) -> str:
    """Return the key of the row that a parked link or reference belongs to."""
    if not own.hashed:
        return "w.owner_key"
    return sql("owner_key", target=quoted(own.table.name), id=own.column, key=commas(own.parts("t")))


def _landed(schema_map: SchemaMap) -> str:
    """Return the CASE branches that check whether a parent row is in the graph-db."""
    cases = ["WHEN false THEN false"]
    for table in schema_map:
        own = Identity(schema_map, table)
        if not table.identified and not named_together(schema_map, table):
            continue
        # Of rule `hash` the id does not tell whose row it is.
        target = own.ours if table.hashed else quoted(table.name)
        names = {"table": literal(table.name), "target": target}
        cases.append(
            sql(
                "landed",
                named_by="w.named_by IS NULL",
                match=own.is_named(
                    "t", "w.key", own.parked("w.waits_for", "w.key") if table.identified else ""
                ),
                **names,
            )
        )
        for column in naming_values(schema_map, table):
            named_by = f"w.named_by = '{literal(column)}'"
            match = f't.{quoted(column)} = w.key AND t.{quoted(column)}::text COLLATE "C" = w.key'
            cases.append(sql("landed", named_by=named_by, match=match, **names))
    return "\n".join(cases)


_Place = tuple[str, str | None, str]
"""Identity of a parent row: table, referenced column, value."""


def _place(row: Mapping[str, str]) -> _Place:
    return row["table"], row["named_by"], row["key"]


async def _ask_write_db(
    write: GraphSchema, schema_map: SchemaMap, awaited: Sequence[asyncpg.Record]
) -> dict[_Place, asyncpg.Record]:
    """Return the state in the write-db of each parent row of a known table."""
    asked: dict[tuple[str, str | None], list[str]] = {}
    for row in awaited:
        asked.setdefault((row["table"], row["named_by"]), []).append(row["key"])
    questions = []
    keys = []
    named = []
    for table in schema_map:
        for column in (None, *naming_values(schema_map, table)):
            if (table.name, column) not in asked:
                continue
            keys.append(asked[table.name, column])
            named.append(table.source)
            questions.append(
                sql(
                    "awaited_source",
                    table=literal(table.name),
                    named_by="NULL::text" if column is None else f"'{literal(column)}'",
                    number=str(len(keys)),
                    source=source_rows(table, write.schema),
                    tombstones=deleted_keys_of(
                        bound_tenant(table),
                        deleted_keys(write.schema),
                        rows=f"source_table = '{literal(table.source)}'",
                    ),
                    present=table.present,
                    is_asked=_is_asked(table, column),
                    own_key="true" if column is None else "false",
                    key="d.key[1]" if len(table.key) == 1 else "to_jsonb(d.key)::text",
                    asked_key="ARRAY[k]"
                    if len(table.key) == 1
                    else "ARRAY(SELECT jsonb_array_elements_text(k::jsonb))",
                )
            )
    if not questions:
        return {}
    sources = [f"{quoted(write.schema)}.{quoted(name)}" for name in dict.fromkeys(named)]
    async with reading_sources(write, [*sources, deleted_keys(write.schema)]) as connection:
        rows = await connection.fetch("\nUNION ALL\n".join(questions), *keys)
    return {_place(row): row for row in rows}


def _is_asked(table: TableMap, column: str | None) -> str:
    """Return the condition that a source row is the one that is named, by its key or by a target column."""
    if column is not None:
        return f"{quoted(table.texts[column])} = asked.key"
    parts = Identity.of_one_text(table, "asked.key")
    return " AND ".join(
        f"{quoted(name)} = {safe(type_, part)}"
        for name, type_, part in zip(table.key, table.key_types, parts, strict=True)
    )


def _awaited(
    schema_map: SchemaMap, row: asyncpg.Record, sources: Mapping[_Place, asyncpg.Record]
) -> AwaitedRow:
    obstacle, reason = _obstacle(schema_map, row, sources.get(_place(row)))
    return AwaitedRow(
        table=row["table"],
        key=row["key"],
        named_by=row["named_by"],
        waiting=row["waiting"],
        since=row["since"],
        parts=tuple(ParkedPart.model_validate(part) for part in json.loads(row["parts"])),
        obstacle=obstacle,
        reason=reason,
    )


def _obstacle(
    schema_map: SchemaMap, row: asyncpg.Record, source: asyncpg.Record | None
) -> tuple[Obstacle, str]:
    if row["landed"]:
        return Obstacle.LANDED, "it has arrived: the next cycle applies the rows that wait for it"
    if source is None:
        return Obstacle.UNKNOWN, "its table is not in the table map"
    if source["deleted_at"] is not None and not source["there"]:
        return Obstacle.DELETED, f"deleted from the write-db {moment(source['deleted_at'])}"
    if not source["there"]:
        return Obstacle.MISSING, "not in the write-db"
    if not source["present"]:
        return Obstacle.NOT_READY, f"in the write-db, but not: {schema_map[row['table']].present}"
    if row["sqlstate"] is not None:
        state = Obstacle.DEAD if row["next_retry_at"] is None else Obstacle.RETRYING
        return state, refusal(row["sqlstate"], row["message"], row["next_retry_at"])
    if row["parked_for_key"] is not None:
        return (
            Obstacle.PARKED,
            f"parked itself, waits for {row_name(row['parked_for_table'], [row['parked_for_key']])}",
        )
    return Obstacle.PENDING, "in the write-db, not synced yet"
