"""Which revision each schema of a store has, asked for all of them at once, and which it should have."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from syncline.migrations.revisions import BOOKS_VERSION_TABLE, VERSION_TABLE, head_of
from syncline.sqltext import literal, quoted
from syncline.stores.postgres import PostgresStore

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
    async with store.begin() as connection:
        there = await connection.scalars(
            text(
                "SELECT nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE relname = :table AND nspname = ANY (:schemas)"
            ),
            {"table": table, "schemas": list(schemas)},
        )
        having: Sequence[str] = there.all()
        found: dict[str, str] = {}
        for first in range(0, len(having), _AT_ONCE):
            parts = [
                f"SELECT '{literal(schema)}' AS schema_name, version_num"  # noqa: S608
                f" FROM {quoted(schema)}.{quoted(table)}"
                for schema in having[first : first + _AT_ONCE]
            ]
            rows = (await connection.exec_driver_sql(" UNION ALL ".join(parts))).all()
            found |= {str(row.schema_name): str(row.version_num) for row in rows}
        return found
