"""Capture: finds pending changes in the write-db and streams them into the stage as binary COPY."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import asyncpg

from syncline.engine.position import Known
from syncline.engine.render.statements import DELETES, Cursor, SchemaStatements, TableStatements, positions_of
from syncline.engine.schema_transaction import BY_INDEX, KEPT_BY_INDEX
from syncline.engine.state import Ledger
from syncline.engine.template import sql
from syncline.errors import SchemaMismatch
from syncline.messages.sync import OpenWriter
from syncline.provider import GraphSchema
from syncline.sql import literal, quoted
from syncline.stores.floor import ServerBehind
from syncline.stores.postgres import map_driver_error
from syncline.stores.tenants import reading
from syncline.tracing import span

_AHEAD_BYTES = 8 * 2**20
"""How far reading may be ahead of writing: bounds the worker's memory, whatever the backlog."""
_TIMES = 3
"""How often it is asked what is pending, while that waits for a transaction that has just ended elsewhere."""
_PAGES = 64
"""Pages sampled to estimate the row size of a source that was never analyzed."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What is pending in the write-db at the start of a cycle."""

    horizon: int
    """All transactions below it have ended, so their rows are visible and final. Never below a cursor."""
    next_xid: int
    """No transaction from it on has ended."""
    fallen: bool = False
    """Whether the horizon is lower than it would be a moment later: what holds it back has just ended."""
    cluster: str
    """What transaction ids belong to: the cluster's system identifier and its timeline, which changes on a
    failover or a point-in-time restore; and the table of deleted keys, which is a new one after capture was
    undone and adopted again."""
    tables: frozenset[str]
    """Tables with rows between cursor and horizon."""
    deletes: bool
    """Whether there are deleted keys between cursor and horizon."""
    ahead: frozenset[str]
    """Tables with rows stamped by another cluster (DELETES: with such deleted keys): the horizon may not
    reach them for years."""
    held: bool
    """Whether committed rows or deletes are still above the horizon: an older transaction is open."""
    oldest_writer: OpenWriter | None
    standby: bool = False
    """Whether it is a standby: read-only, and it does not know the open writers."""
    known: Known | None = None
    """The position it stores for this reader; None if not requested."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Table -> hash of how its source is captured; a missing source has none."""
    ways: Mapping[str, str] = field(default_factory=dict)
    """Table -> how its source is captured, if requested."""
    shapes: Mapping[str, str] = field(default_factory=dict)
    """Table -> hash of all columns of its source."""

    def ways_of(self, tables: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return (hash, text) of how the sources of these tables are captured."""
        return {name: (self.hashes[name], self.ways[name]) for name in tables if name in self.ways}

    prunable: bool = False
    """Whether deleted keys are past their retention and this role may prune them."""
    kept_too_long: bool = False
    """Whether there are such keys and this role may not prune them."""


async def ask_pending(
    source: asyncpg.Connection,
    statements: SchemaStatements,
    schema: str,
    ledger: Ledger,
    tables: Sequence[str],
    *,
    positions: bool = False,
    crashes: bool = False,
    whole: bool = False,
) -> Pending:
    """Query in one statement which tables and deleted keys have pending changes.

    `positions`: the write-db has the table of positions. `crashes`: it tells when it recovered from one.
    `whole`: also return how each source is captured.
    """
    asked = [*statements.sources(schema, tables), *([positions_of(schema)] if positions else [])]
    with needing_deleted_keys(schema):
        for _ in range(_TIMES):
            async with reading(source, asked, first=KEPT_BY_INDEX):
                pending = await pending_at(
                    source,
                    statements,
                    schema,
                    ledger,
                    tables,
                    positions=positions,
                    crashes=crashes,
                    whole=whole,
                )
            if not (pending.held and pending.fallen):
                break
        return pending


@contextmanager
def needing_deleted_keys(schema: str) -> Iterator[None]:
    """Raise SchemaMismatch instead of the driver's error when the table of deleted keys is missing.

    So too when it was adopted before the map had tenants.
    """
    try:
        yield
    except asyncpg.UndefinedColumnError as error:
        if "tenant" not in str(error):
            raise
        raise SchemaMismatch(
            f"Deleted keys of the write-db's schema '{schema}' do not say whose they were. "
            "Run `syncline graph adopt` to install capture by tenant."
        ) from None
    except asyncpg.UndefinedTableError as error:
        if DELETES not in str(error):
            raise
        raise SchemaMismatch(
            f"The write-db's schema '{schema}' has no table {DELETES}, so deletes would be lost. "
            "Run `syncline graph adopt` to create it."
        ) from None


async def pending_at(
    source: asyncpg.Connection,
    statements: SchemaStatements,
    schema: str,
    ledger: Ledger,
    tables: Sequence[str],
    *,
    positions: bool = False,
    crashes: bool = False,
    whole: bool = False,
) -> Pending:
    """Like `ask_pending`, within an open read transaction.

    Raises ServerBehind on a standby that may lack transactions below the ledger's cursors: not even that is
    known there to be another past.
    """
    query, values = statements.pending(
        schema, ledger.cursors, tables, positions=positions, crashes=crashes, whole=whole
    )
    parameters: list[str] = list(values)
    if positions:
        parameters += [ledger.reader, str(ledger.position.number if ledger.position else 0)]
    row = await source.fetchrow(query, *parameters)
    known = Known.from_text(row["known"])
    if row["standby"] and ledger.may_be_ahead_of(row["cluster"], row["horizon"], known):
        raise ServerBehind
    writer = None
    if row["writing"]:
        age = row["age"]
        writer = OpenWriter(
            age_seconds=None if age is None else max(0.0, age),
            database=row["database"],
            application_name=row["application_name"],
        )

    def named(flags: Iterable[bool]) -> frozenset[str]:
        return frozenset(name for name, flag in zip((*tables, DELETES), flags, strict=True) if flag)

    def by_table(texts: Sequence[str | None] | None) -> dict[str, str]:
        found = zip(tables, texts or [None] * len(tables), strict=True)
        return {name: text for name, text in found if text is not None}

    waiting = named(row["pending"])
    horizon, next_xid = row["horizon"], row["next_xid"]
    return Pending(
        # A horizon can be lower than an earlier one; but what that one said of its past is true for ever.
        horizon=max(horizon, ledger.reached) if ledger.reached <= next_xid else horizon,
        next_xid=next_xid,
        fallen=row["fallen"],
        cluster=row["cluster"],
        tables=waiting - {DELETES},
        deletes=DELETES in waiting,
        ahead=named(stage == 2 for stage in row["ahead"]),
        held=1 in row["ahead"],
        oldest_writer=writer,
        standby=row["standby"],
        known=known,
        hashes=by_table(row["hashes"]),
        ways=by_table(row["texts"]),
        shapes=by_table(row["shapes"]),
        prunable=row["old_tombstones"] == 1,
        kept_too_long=row["old_tombstones"] == 2,
    )


async def bytes_a_row(
    source: asyncpg.Connection, schema: str, table: TableStatements, *, enough: int
) -> float | None:
    """Return the average bytes of a source row, TOAST included; None if the source is empty.

    None too if all of it has less than `enough` bytes, and its rows would have to be counted.
    """
    name = f"{quoted(schema)}.{quoted(table.table.source)}"
    # The catalog alone: no row, and no code of an owner, is read.
    size = await source.fetchrow(sql("row_bytes", source=literal(name)))
    pages, rows = size["pages"], size["rows"]
    if not pages or (rows is None and size["bytes"] < enough):
        return None
    if rows is None:
        share = min(1.0, _PAGES / pages)
        async with reading(source, [name]):
            rows = await source.fetchval(sql("row_sample", source=name, percent=str(100 * share))) / share
    # Empty pages (bloat) must not lead to tiny batches.
    average: float = size["bytes"] / max(rows, pages)
    return average


def read_rows(
    source: asyncpg.Connection,
    table: TableStatements,
    *,
    place: GraphSchema,
    cursor: Cursor,
    horizon: int,
    limit: int,
) -> "Reading":
    """Start reading up to `limit` row versions after the cursor."""
    query = table.capture_at(place.schema, cursor, horizon=horizon, limit=limit)
    return Reading(source, query, (), place.store.name, tables=[table.source(place.schema)])


class Reading:
    """A running COPY out of the write-db, buffered a few megabytes ahead of its consumer.

    Always close it. If closing interrupts the COPY, discard its connection.
    """

    def __init__(
        self,
        source: asyncpg.Connection,
        query: str,
        parameters: Sequence[object],
        source_name: str,
        *,
        tables: Sequence[str],
    ) -> None:
        """Read from `tables` (qualified, quoted) in a separate transaction."""
        self._chunks: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self._ahead = 0
        self._space = asyncio.Event()
        self._source_name = source_name
        self._tables = tables
        self._reading = asyncio.create_task(self._read(source, query, parameters))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the COPY if it is still running."""
        if not self._reading.done():
            self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def copy_into(self, target: asyncpg.Connection, stage: str, columns: Sequence[str]) -> int:
        """Stream all rows into a temporary table and return their count."""
        with span("stage", table=stage):
            status: str = await target.copy_to_table(
                stage, schema_name="pg_temp", source=self._received(), columns=columns, format="binary"
            )
        return int(status.removeprefix("COPY "))

    async def _read(self, source: asyncpg.Connection, query: str, parameters: Sequence[object]) -> None:
        try:
            with span("capture", statement=query):
                await self._copy(source, query, parameters)
        except Exception as error:
            # Any error must be passed on: the target's COPY is waiting for the next chunk.
            await self._chunks.put(map_driver_error(self._source_name, error) or error)
        else:
            await self._chunks.put(None)

    async def _copy(self, source: asyncpg.Connection, query: str, parameters: Sequence[object]) -> None:
        async with reading(source, self._tables, first=BY_INDEX):
            await source.copy_from_query(query, *parameters, output=self._keep, format="binary")

    async def _keep(self, chunk: bytes) -> None:
        while self._ahead > _AHEAD_BYTES:
            self._space.clear()
            await self._space.wait()
        self._ahead += len(chunk)
        await self._chunks.put(chunk)

    async def _received(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            self._ahead -= len(chunk)
            self._space.set()
            yield chunk
