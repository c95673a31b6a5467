"""What others have in a graph's schema, or bound to its tables, and how it comes along when that is swapped.

Views, triggers, policies and foreign keys name tables by identity, so a renamed schema takes them away. Their
definitions are read before the renaming and run after it: the same text then means the other tables.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

from syncline.capture.install.checks import target_columns
from syncline.engine.owed import acting_as, read_owed
from syncline.engine.table_map import SchemaMap
from syncline.errors import StoreRejected
from syncline.provider import GraphSchema
from syncline.sql import statements_of

__all__ = ["Dependent", "Dependents", "filled_tables"]

_sql = statements_of("syncline.shadow")

_PATH: Final = "SET LOCAL search_path = pg_catalog"
"""So that definitions name every table with its schema."""
_PATIENCE: Final = "SET LOCAL lock_timeout = '20s'"


@dataclass(frozen=True, kw_only=True)
class Dependent:
    """Something of others, and the statement that makes it, moves it, or binds it to other tables."""

    name: str
    statement: str


def filled_tables(schema_map: SchemaMap) -> dict[str, frozenset[str]]:
    """Return table -> the columns that a map fills, of all tables of the graph-db."""
    found: dict[str, frozenset[str]] = {}
    for table in schema_map:
        if table.into is None:
            counters = {stat.column for stat in table.counters}
            found[table.name] = frozenset(target_columns(schema_map, table)) | counters
        for links in table.links:
            place = set() if links.position is None else {links.position}
            found[links.table] = frozenset({links.owner, links.member, *links.columns} | place)
        if table.stats is not None and not table.counters:
            name, owner = table.stats_place
            found[name] = frozenset({owner, *(stat.column for stat in table.stats.columns)})
    for table in schema_map:
        if table.into is not None:
            columns = {column.name for column in table.columns} | set(table.expressions)
            found[table.into] |= columns | {reference.target_column for reference in table.filled}
    return found


class Dependents:
    """What others have in one schema of a graph-db, for which another one of the same store takes over."""

    def __init__(self, place: GraphSchema, other: str, schema_map: SchemaMap) -> None:
        self._place, self._other = place, other
        self._filled = filled_tables(schema_map)

    async def obstacles(self) -> Sequence[str]:
        """Return what cannot come along, in sentences."""
        async with self._reading() as connection:
            rows = [
                *await self._rows(connection, "bound"),
                *await self._rows(connection, "columns_of_others", *self._columns()),
                *await self._rows(connection, "unknown_indexes"),
            ]
        return [row["problem"] for row in rows]

    async def left(self) -> Sequence[str]:
        """Return what others have there, or bound to it: it goes if the schema is dropped."""
        async with self._reading() as connection:
            rows = [*await self._rows(connection, "left"), *await self._rows(connection, "bound")]
        return [row["problem"] for row in rows]

    async def complete(self) -> AsyncIterator[str]:
        """Make in the other schema what its tables lack of these ones; yield what was made, one by one.

        Nothing while a first load of it has put off some of that. Raises StoreError.
        """
        async with self._reading() as connection:
            if await read_owed(connection, self._other):
                return
        for name in ("missing_tables", "missing_parts"):
            async with self._reading() as connection:
                missing = await self._named(connection, name)
            for part in missing:
                await self._make(part)
                yield f"{part.name[:1].upper()}{part.name[1:]} is made in schema '{self._other}'."

    async def analyze(self) -> None:
        """Give the planner statistics of the other schema's tables that have never been analyzed."""
        async with self._reading() as connection:
            tables = await self._rows(connection, "never_analyzed")
        for row in tables:
            async with self._acting() as connection:
                await connection.execute(f"ANALYZE {row['name']}")

    async def read(self, connection: asyncpg.Connection) -> tuple[Sequence[str], Sequence[Dependent]]:
        """Return what revokes surplus rights on the other tables, and what comes along after the renaming.

        Within the transaction that renames; its search_path is another one afterwards.
        """
        await connection.execute(_PATH)
        surplus = await self._rows(connection, "surplus")
        return [row["statement"] for row in surplus], await self._named(connection, "carried")

    async def locks(self, connection: asyncpg.Connection) -> Sequence[Dependent]:
        """Return what takes the locks that the swap needs, in the order in which readers take theirs."""
        await connection.execute(_PATH)
        return await self._named(connection, "locked")

    async def moves(self, connection: asyncpg.Connection) -> Sequence[Dependent]:
        """Return what swaps the tables one by one, by way of schema `syncline_promotion`."""
        await connection.execute(_PATH)
        return await self._named(connection, "moved")

    async def validate(self) -> AsyncIterator[str]:
        """Check the rows under foreign keys that were made again; yield those whose rows fail, and why."""
        async with self._reading() as connection:
            keys = await self._named(connection, "unvalidated")
        for key in keys:
            try:
                await self._make(key)
            except StoreRejected as error:
                yield f"{key.name} stays NOT VALID: {error.problem}"

    async def _make(self, dependent: Dependent) -> None:
        async with self._acting() as connection:
            await connection.execute(dependent.statement)

    async def rows(self) -> tuple[int, int]:
        """Return how many rows the tables of the map have in both schemas, by the server's statistics."""
        async with self._reading() as connection:
            [row] = await self._rows(connection, "live_rows")
        return row["live"], row["other"]

    async def _named(self, connection: asyncpg.Connection, name: str) -> Sequence[Dependent]:
        rows = await self._rows(connection, name)
        return [Dependent(name=row["object"], statement=row["statement"]) for row in rows]

    async def _rows(
        self, connection: asyncpg.Connection, name: str, *arguments: object
    ) -> Sequence[asyncpg.Record]:
        query = _sql(name, places=_sql("places"))
        found: Sequence[asyncpg.Record] = await connection.fetch(query, *self._names(), *arguments)
        return found

    def _names(self) -> tuple[str, str, list[str], str | None]:
        return self._place.schema, self._other, list(self._filled), self._place.store.owner_role

    def _columns(self) -> tuple[list[str], list[str]]:
        pairs: Iterator[tuple[str, str]] = (
            (table, column) for table, columns in self._filled.items() for column in columns
        )
        tables, columns = zip(*pairs, strict=True)
        return list(tables), list(columns)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[asyncpg.Connection]:
        async with self._place.store.driver() as connection, connection.transaction(readonly=True):
            await connection.execute(_PATH)
            yield connection

    @asynccontextmanager
    async def _acting(self) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection in a transaction of the schemas' owner that waits for no lock for long."""
        async with self._place.store.driver() as connection, connection.transaction():
            await connection.execute(f"{_PATH}; {_PATIENCE}")
            for statement in acting_as(self._place.store):
                await connection.execute(statement)
            yield connection
