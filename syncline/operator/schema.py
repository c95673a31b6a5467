"""Transactions on a graph's schema, and helpers for tables, keys and pages, for operations."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeVar
from uuid import UUID

import asyncpg
from pydantic import BaseModel

from syncline.engine.schema_transaction import SCHEMA_PATH
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.errors import InputInvalid
from syncline.masking import masked_message
from syncline.provider import GraphSchema
from syncline.quoting import shown
from syncline.sql import Statements, statements_of
from syncline.stores import tenants

__all__ = [
    "acting",
    "checked_limit",
    "find_row",
    "find_table",
    "first_page",
    "key_form",
    "moment",
    "naming_values",
    "place_after",
    "reading",
    "reading_sources",
    "refusal",
    "row_name",
    "sql",
]

sql: Statements = statements_of("syncline.operator")


@asynccontextmanager
async def reading(place: GraphSchema) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection in a read-only snapshot of the graph's schema."""
    async with (
        place.store.driver() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await _enter(connection, place)
        yield connection


@asynccontextmanager
async def reading_sources(place: GraphSchema, sources: Sequence[str]) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection in a read-only snapshot of tables of the write-db, given qualified and quoted.

    Statements must qualify them too: the search_path is pg_catalog only.
    """
    async with place.store.driver() as connection, tenants.reading(connection, sources, one_moment=True):
        yield connection


@asynccontextmanager
async def acting(place: GraphSchema) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection in a transaction on the graph's schema that commits at the end."""
    async with place.store.driver() as connection, connection.transaction():
        await _enter(connection, place)
        yield connection


async def _enter(connection: asyncpg.Connection, place: GraphSchema) -> None:
    await connection.execute(SCHEMA_PATH, place.schema)


EntryT = TypeVar("EntryT", bound=BaseModel)

_AT_MOST: Final = 10_000
"""Maximum rows of one page: they are read into memory."""
_BYTES: Final = 1_000_000
"""Maximum bytes of one page as JSON: Temporal rejects a payload of more than two million."""


def checked_limit(limit: int) -> int:
    """Return the limit of a page, or raise InputInvalid if it is out of range."""
    if not 1 <= limit <= _AT_MOST:
        raise InputInvalid(f"`limit` must be 1 to {_AT_MOST}, not {limit}.")
    return limit


def place_after(after: str | None) -> tuple[str | None, UUID | None]:
    """Return name and row id of a page's end, given as `<name>/<row id>`, or raise InputInvalid."""
    if after is None:
        return None, None
    name, _, row_id = after.rpartition("/")
    try:
        return name, UUID(row_id)
    except ValueError:
        raise InputInvalid(f"{shown(after)} is not the `next` of a page.") from None


def first_page(entries: Iterable[EntryT], limit: int) -> tuple[EntryT, ...]:
    """Return the entries of one page: up to `limit`, fewer if they are large, at least one."""
    page: list[EntryT] = []
    size = 0
    for entry in islice(entries, limit):
        size += len(entry.model_dump_json().encode())
        if page and size > _BYTES:
            break
        page.append(entry)
    return tuple(page)


def find_table(schema_map: SchemaMap, name: str) -> TableMap:
    """Return the table whose target or source has this name, or raise InputInvalid listing the known ones."""
    for table in schema_map:
        if name in (table.name, table.source):
            return table
    known = ", ".join(table.name for table in schema_map)
    raise InputInvalid(f"No table {shown(name)} is synced. Known: {known}; or their names in the write-db.")


def find_row(schema_map: SchemaMap, name: str, key: Sequence[str]) -> TableMap:
    """Return the table if `key` has the parts of its key, or raise InputInvalid naming the parts."""
    table = find_table(schema_map, name)
    if len(key) != len(table.key):
        parts = "one part" if len(table.key) == 1 else f"{len(table.key)} parts"
        raise InputInvalid(f"A key of {table.name} has {parts}, {' and '.join(table.key)}; not {len(key)}.")
    return table


def key_form(table: TableMap, key: Sequence[str]) -> tuple[str, ...]:
    """Return a key that a person has given, in its form; raise InputInvalid for a part of no such type."""
    parts = []
    for name, type_, part in zip(table.key, table.key_types, key, strict=True):
        try:
            parts.append(type_.canonical(part))
        except ValueError:
            raise InputInvalid(f"{name} of {table.name} is {type_.name}; {shown(part)} is not.") from None
    return tuple(parts)


def known_form(schema_map: SchemaMap, name: str, key: Sequence[str]) -> tuple[str, ...]:
    """Return a key in its form if the table is in the map and has such keys, else as it was given."""
    try:
        return key_form(find_row(schema_map, name, key), key)
    except InputInvalid:
        return tuple(key)


def naming_values(schema_map: SchemaMap, parent: TableMap) -> list[str]:
    """Return the columns, other than the key, by which other tables reference rows of `parent`."""
    references = [reference for table in schema_map for reference in table.references]
    named = [reference.by for reference in references if reference.parent == parent.name and reference.by]
    return list(dict.fromkeys(named))


def moment(at: datetime) -> str:
    """Return a time to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def row_name(table: str, key: Sequence[str]) -> str:
    """Return a row as `nodes 'n1'`."""
    return " ".join([table, *(f"'{part}'" for part in key)])


def refusal(sqlstate: str, message: str, next_retry_at: datetime | None) -> str:
    """Return the graph-db's message about a rejected row, and when it is retried."""
    said = f"[{sqlstate}] {masked_message(sqlstate, message)}"
    return f"dead: {said}" if next_retry_at is None else f"refused: {said}; next try {moment(next_retry_at)}"
