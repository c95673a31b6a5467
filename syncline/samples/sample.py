"""What a sample is: rows for the tables of a write-db. Loading one: COPY to a stage, then merge."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import NamedTuple, Protocol

import asyncpg

from syncline.errors import SampleInvalid
from syncline.sql import quoted, statements_of
from syncline.stores.postgres import PostgresStore

__all__ = []

Value = str | bool | int | float | list[str] | None
"""What a cell holds; a jsonb cell holds JSON text, a text[] cell a list."""
Row = tuple[Value, ...]


class SampleTable(NamedTuple):
    """Rows for one table of the write-db; columns that are not named keep their defaults."""

    table: str
    columns: tuple[str, ...]
    rows: Iterator[Row]


COLUMNS = {
    "write_raw_sources": (
        "id", "uri", "title", "content_type", "content_hash", "provider_id", "provider_metadata",
        "fetch_status",
    ),
    "write_facts": ("id", "content", "fact_type", "dedup_status"),
    "write_fact_sources": ("fact_id", "raw_source_id", "context_snippet", "attribution"),
    "write_nodes": ("id", "concept", "node_type", "definition", "parent_id", "fact_ids", "metadata"),
    "write_edges": (
        "id", "source_node_id", "target_node_id", "relationship_type", "directed", "justification",
        "fact_ids", "metadata",
    ),
}  # fmt: skip
"""What the samples here fill, in the order of their rows."""


def sample_table(table: str, rows: Iterator[Row]) -> SampleTable:
    """Return rows that have the columns which `COLUMNS` names for the table."""
    return SampleTable(table, COLUMNS[table], rows)


class Sample(Protocol):
    """A data set that can be loaded again and again: the same rows in the same order each time."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def tables(self) -> Iterable[SampleTable]:
        """Return fresh iterators over all rows, or raise SampleInvalid if the data is not there.

        Rows are read while they are loaded; reading them raises SampleInvalid where the data is malformed.
        """
        ...


_BREATH = 1_000
_sql = statements_of("syncline.samples")


async def load_sample(store: PostgresStore, schema: str, sample: Sample) -> dict[str, int]:
    """Insert or update every row of the sample in one transaction; return the changed rows per table.

    Rows that are there already and say the same are not written, so loading twice changes nothing the second
    time. Rows that the sample does not have are left alone. Raise SampleInvalid, with nothing written, if the
    sample is malformed or the schema has not its tables.
    """
    tables = sample.tables()
    changed: dict[str, int] = {}
    async with store.driver() as connection, connection.transaction():
        for table in tables:
            changed[table.table] = await _load_table(connection, schema, table)
    return changed


async def holds_rows(store: PostgresStore, schema: str, sample: Sample) -> bool:
    """Return whether a table that the sample fills has any row: then somebody may have changed it since."""
    tables = [f"{quoted(schema)}.{quoted(table.table)}" for table in sample.tables()]
    async with store.driver() as connection:
        for table in tables:
            if await connection.fetchval(_sql("filled", table=table)):
                return True
    return False


async def _load_table(connection: asyncpg.Connection, schema: str, table: SampleTable) -> int:
    stage = f"sample_{table.table}"
    target = f"{quoted(schema)}.{quoted(table.table)}"
    key = [row["name"] for row in await connection.fetch(_sql("key"), target)]
    if not key:
        raise SampleInvalid(
            f"The write-db has no table {schema}.{table.table} with a primary key; "
            "`syncline migrate` creates the tables of a graph."
        )
    columns = [quoted(name) for name in table.columns]
    assignments = [f"{quoted(name)} = excluded.{quoted(name)}" for name in table.columns if name not in key]
    names = {"stage": f"pg_temp.{quoted(stage)}", "target": target, "columns": ", ".join(columns)}
    await connection.execute(_sql("stage", **names))
    await connection.copy_records_to_table(
        stage, records=_paced(table.rows), columns=table.columns, schema_name="pg_temp"
    )
    status: str = await connection.execute(
        _sql(
            "merge",
            **names,
            key=", ".join(map(quoted, key)),
            assignments=", ".join([*assignments, "updated_at = now()"]),
            current=", ".join(f"t.{name}" for name in columns),
            proposed=", ".join(f"excluded.{name}" for name in columns),
        )
    )
    changed = int(status.rpartition(" ")[2])
    if changed:
        # The next reader plans for what is there now, not for the empty table of a moment ago.
        await connection.execute(f"ANALYZE {target}")
    return changed


async def _paced(rows: Iterable[Row]) -> AsyncIterator[Row]:
    """Yield the rows, and let the event loop turn now and then: reading them never waits for anything."""
    for number, row in enumerate(rows):
        if number % _BREATH == 0:
            await asyncio.sleep(0)
        yield row
