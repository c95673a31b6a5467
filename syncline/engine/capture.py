"""Capture: what is new in the write-db, and its road into the stage as one stream of binary COPY."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import asyncpg

from syncline.engine.statements import Cursor, SchemaStatements, TableStatements
from syncline.messages import OpenWriter
from syncline.stores.postgres import map_driver_error

_CHUNKS_IN_FLIGHT = 4
"""What bounds the worker's memory, whatever the backlog: a chunk is one network read of the driver."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """The write-db's answer at the start of a cycle."""

    horizon: int
    """Every transaction below it has ended, so its rows are all visible and final."""
    cluster: str
    """What transaction ids belong to: the cluster's system identifier and its timeline, which a failover or a
    restore to an earlier point in time changes."""
    tables: frozenset[str]
    """Tables with rows between cursor and horizon."""
    ahead: frozenset[str]
    """Tables with rows that another cluster stamped: the horizon here may not reach them for years."""
    oldest_writer: OpenWriter | None


async def ask_pending(
    source: asyncpg.Connection, statements: SchemaStatements, schema: str, cursors: dict[str, Cursor]
) -> Pending:
    """Ask the write-db, in one statement, what lies behind the cursors."""
    query, parameters = statements.pending(schema, cursors)
    row = await source.fetchrow(query, *parameters)
    writer = None
    if row["writing"]:
        age = row["age_seconds"]
        writer = OpenWriter(
            age_seconds=None if age is None else max(0.0, age),
            database=row["database"],
            application_name=row["application_name"],
        )

    def named(flags: Sequence[bool]) -> frozenset[str]:
        return frozenset(name for name, flag in zip(statements.tables, flags, strict=True) if flag)

    return Pending(
        horizon=row["horizon"],
        cluster=row["cluster"],
        tables=named(row["pending"]),
        ahead=named(row["ahead"]),
        oldest_writer=writer,
    )


async def copy_to_stage(
    source: asyncpg.Connection,
    target: asyncpg.Connection,
    table: TableStatements,
    *,
    source_name: str,
    cursor: Cursor,
    horizon: int,
    limit: int,
) -> int:
    """Stream up to `limit` row versions into the stage and return how many came.

    If the source (store `source_name`) fails, the target's COPY fails with that StoreError and its connection
    stays usable; if the target fails, the source connection must be thrown away: its COPY is cut off.
    """
    query = table.capture(cursor, limit=limit)
    parameters = (*cursor.parameters(), str(horizon))
    chunks: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(_CHUNKS_IN_FLIGHT)

    async def read() -> None:
        try:
            await source.copy_from_query(query, *parameters, output=chunks.put, format="binary")
        except Exception as error:
            # Whatever it is: the target's COPY waits for a word.
            await chunks.put(map_driver_error(source_name, error) or error)
        else:
            await chunks.put(None)

    async def received() -> AsyncIterator[bytes]:
        while (chunk := await chunks.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    reading = asyncio.create_task(read())
    try:
        return await _copy_in(target, table.stage_name, table.stage_columns, received())
    finally:
        if not reading.done():
            reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _copy_in(
    target: asyncpg.Connection, stage: str, columns: Sequence[str], chunks: AsyncIterator[bytes]
) -> int:
    status: str = await target.copy_to_table(
        stage, schema_name="pg_temp", source=chunks, columns=columns, format="binary"
    )
    return int(status.removeprefix("COPY "))
