"""Which revision each schema of a store has, asked for all of them at once, and which it should have."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from syncline.masking import error_text
from syncline.migrations.revisions import BOOKS_VERSION_TABLE, VERSION_TABLE, head_of
from syncline.sqltext import literal, quoted
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import reading

__all__ = ["BOOKS", "CONTROL", "GRAPH", "WRITE", "Side", "schemas_behind"]

_AT_ONCE: Final = 200


@dataclass(frozen=True, kw_only=True)
class Side:
    """One kind of schema that is migrated."""

    name: str
    version_table: str = VERSION_TABLE


CONTROL: Final = Side(name="control")
WRITE: Final = Side(name="write")
GRAPH: Final = Side(name="graph")
BOOKS: Final = Side(name="books", version_table=BOOKS_VERSION_TABLE)


async def schemas_behind(store: PostgresStore, side: Side, schemas: Collection[str]) -> Mapping[str, str]:
    """Return the schemas that are not at the newest revision, and what they have; raise StoreError."""
    head = head_of(side.name)
    found = await _recorded(store, side.version_table, schemas)
    return {schema: found.get(schema, "nothing") for schema in sorted(schemas) if found.get(schema) != head}


async def _recorded(store: PostgresStore, table: str, schemas: Collection[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    async with store.driver() as connection:
        async with reading(connection):
            there = await connection.fetch(
                "SELECT nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE relname = $1 AND nspname = ANY ($2::text[])",
                table,
                list(schemas),
            )
        having = [str(row["nspname"]) for row in there]
        waiting = [having[first : first + _AT_ONCE] for first in range(0, len(having), _AT_ONCE)]
        while waiting:
            batch = waiting.pop()
            try:
                found |= await _versions(connection, table, batch)
            except asyncpg.PostgresError as error:
                # Others may own a schema: one that cannot be read is told, and stops none of the others.
                if len(batch) == 1:
                    found[batch[0]] = f"a {table} that cannot be read ({error_text(error)})"
                else:
                    waiting += [[schema] for schema in batch]
    return found


async def _versions(connection: asyncpg.Connection, table: str, schemas: Sequence[str]) -> Mapping[str, str]:
    places = {schema: f"{quoted(schema)}.{quoted(table)}" for schema in schemas}
    parts = [
        f"SELECT '{literal(schema)}' AS schema_name, version_num FROM {place}"  # noqa: S608
        for schema, place in places.items()
    ]
    async with reading(connection, list(places.values()), lock_timeout="2s"):
        rows = await connection.fetch(" UNION ALL ".join(parts))
    return {str(row["schema_name"]): str(row["version_num"]) for row in rows}
