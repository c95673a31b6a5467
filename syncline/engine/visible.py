"""Visible: finds below which transaction everything committed is in the graph-db, and records it.

Capture reads the rows' current versions below the horizon. A row of a transaction below it may have been
written again by one above it before it was read, and is not there then. So after the last batch one more
look, of one snapshot, asks for rows from the horizon on. If it shows none, everything below its own horizon
was read. If it shows some, and somebody waits, these rows are requested by key and read whatever their
version.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

import asyncpg
from pydantic import BaseModel

from syncline import names
from syncline.engine.keys import key_bytes, key_of_bytes, presented, row_uuid
from syncline.engine.render.fragments import commas, key_source
from syncline.engine.render.statements import SchemaStatements, deleted_keys
from syncline.engine.render.tenants import deleted_keys_of, deleted_rows
from syncline.engine.schema_transaction import BY_INDEX
from syncline.engine.template import sql
from syncline.maps.one_tenant import tenant_of
from syncline.provider import GraphSchema
from syncline.sql import string_literal
from syncline.stores.horizon import HORIZON
from syncline.stores.tenants import reading

__all__ = ["Look", "Visible", "advance", "answer", "look", "notify", "request", "shows_newer"]

_MOST: Final = 1_000
"""Rows of one table that are requested by key: more wait for the horizon."""


class Visible(BaseModel):
    """What `sync_state.visible` says."""

    below: int = 0
    sources: Sequence[str] = ()
    wanted: int = 0
    at: datetime | None = None

    @classmethod
    def from_text(cls, text: str | None) -> Self | None:
        """Parse it; None where the bookkeeping tables are older."""
        return None if text is None else cls.model_validate_json(text)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one snapshot of the write-db shows."""

    source: str
    """Which running server and database it is."""
    uptime: float
    """Seconds since the server was started."""
    below: int
    """The transaction below which all have ended; at least the asked one."""
    newer: bool
    """Whether it shows rows or deleted keys from the asked transaction on."""
    keys: Sequence[tuple[str, tuple[str, ...]]] | None
    """(table, key) of these; None if they are not asked for, or are too many."""


async def look(
    source: asyncpg.Connection,
    statements: SchemaStatements,
    write: GraphSchema,
    horizon: int,
    *,
    keys: bool,
) -> Look:
    """Look for what is there from transaction `horizon` on; with `keys`, also return the keys."""
    schema = write.schema
    shown = shows_newer(statements, schema)
    asked = statements.sources(schema, list(statements.tables))
    async with reading(source, asked, one_moment=True, first=BY_INDEX):
        row = await source.fetchrow(sql("visible_look", horizon=HORIZON, shown=shown), str(horizon))
        newer = any(row["shown"])
        found = await _keys(source, statements, schema, horizon) if newer and keys else None
    return Look(
        source=row["source"], uptime=row["uptime"], below=max(row["below"], horizon), newer=newer, keys=found
    )


def shows_newer(statements: SchemaStatements, schema: str, *, either: bool = False) -> str:
    """Return whether each table shows rows from transaction $1 on, or `either` of them: SQL conditions."""
    deleted = deleted_rows(tenant_of(statements.schema_map), deleted_keys(schema), name="d")
    sources = [*(table.rows(schema) for table in statements.tables.values()), deleted]
    shown = [sql("visible_shown", source=each) for each in sources]
    return " OR ".join(shown) if either else commas(shown)


async def _keys(
    source: asyncpg.Connection, statements: SchemaStatements, schema: str, horizon: int
) -> Sequence[tuple[str, tuple[str, ...]]] | None:
    tables = list(statements.tables.values())
    parts = [
        sql(
            "visible_rows",
            place=str(place),
            key=commas([key_bytes(key_source(each.table, column)) for column in each.table.key]),
            source=each.rows(schema),
            limit=str(_MOST + 1),
        )
        for place, each in enumerate(tables)
    ]
    parts.append(
        sql(
            "visible_deletes",
            source_bytes=key_bytes("d.source_table"),
            part_bytes=key_bytes("k.part"),
            tombstones=deleted_keys_of(
                tenant_of(statements.schema_map),
                deleted_keys(schema),
                rows="sync_xid >= $1::text::xid8",
                limit=_MOST + 1,
            ),
            limit=str(_MOST + 1),
        )
    )
    rows = await source.fetch(" UNION ALL ".join(parts), str(horizon))
    found: list[tuple[str, tuple[str, ...]]] = []
    counts: dict[int, int] = {}
    for row in rows:
        counts[row["place"]] = counts.get(row["place"], 0) + 1
        key = key_of_bytes(row["key"])
        if row["place"] >= 0:
            found.append((tables[row["place"]].table.name, key))
        else:
            [name] = key_of_bytes([row["source"]])
            found += [(each.table.name, key) for each in tables if each.table.source == name]
    return None if any(count > _MOST for count in counts.values()) else found


async def request(target: asyncpg.Connection, keys: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    """Request these rows by key, in the caller's transaction."""
    await target.execute(
        sql("visible_request"),
        [name for name, _ in keys],
        [row_uuid(key) for _, key in keys],
        [json.dumps(presented(key)) for _, key in keys],
    )


async def answer(target: asyncpg.Connection, *, wanted: int) -> None:
    """Record that a cycle has looked for those who wait, and found no more."""
    await target.execute(sql("visible_unchanged"), wanted)


async def notify(target: asyncpg.Connection) -> None:
    """Notify those who listen that vectors were written."""
    await target.execute("SELECT pg_notify($1, current_schema()::text)", names.VISIBLE_CHANNEL)


async def advance(target: asyncpg.Connection, *, source: str, below: int, wanted: int, beyond: bool) -> None:
    """Record that everything below a transaction is applied, parked or rejected; tell those who listen.

    `beyond`: rows of later ones may be applied too, so that it does not tell their points from others.
    """
    await target.execute(
        sql("visible_advance", channel=string_literal(names.VISIBLE_CHANNEL)),
        source,
        below,
        wanted,
        not beyond,
    )
