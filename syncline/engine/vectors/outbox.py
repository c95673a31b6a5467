"""The outbox of one collection: what the vector store is owed, and what waits for another try."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict
from uuid import UUID

import asyncpg

from syncline.engine.schema_transaction import BY_INDEX, HeldSchema
from syncline.engine.state import Fence
from syncline.engine.table_map import SchemaMap, TableMap, VectorProjection
from syncline.engine.template import sql
from syncline.provider import RetryRules
from syncline.sql import literal, quoted

__all__ = [
    "POINT_HASH",
    "Entry",
    "Left",
    "Outbox",
    "Settled",
    "State",
    "due_sql",
    "fields_sql",
    "hash_sql",
    "payload_sql",
    "point_hash_sql",
    "read_left",
    "read_states",
    "size_sql",
]

POINT_HASH = "sync_hash"
"""The field of every payload that tells whether the point is what its row says now."""


def fields_sql(vector: VectorProjection) -> str:
    """Return the expression for the payload's declared fields, as jsonb."""
    pairs = [f"'{literal(name)}', {expression}" for name, expression in vector.payload.items()]
    return f"jsonb_build_object({', '.join(pairs)})"


def hash_sql(text: str, fields: str) -> str:
    """Return the expression for the hash of a text and of fields; NULL where the text is."""
    return f"left(encode(sha256(convert_to({text} || E'\\n' || {fields}::text, 'UTF8')), 'hex'), 32)"


def point_hash_sql(vector: VectorProjection) -> str:
    """Return the expression for what a point's `sync_hash` should be; NULL for a row without a point."""
    return hash_sql(f"({vector.text})", fields_sql(vector))


def payload_sql(text: str, fields: str) -> str:
    """Return the expression for the whole payload, from those for its text and its fields."""
    return f"{fields} || jsonb_build_object('{POINT_HASH}', {hash_sql(text, fields)})"


def size_sql(vector: VectorProjection) -> str:
    """Return the expression for about how many bytes a point's text and fields are."""
    # Of a plain column Postgres knows its length without reading it, wherever it is stored.
    parts = [f"coalesce(octet_length(({part})::text), 0)" for part in (vector.text, *vector.payload.values())]
    return " + ".join(parts)


_BYTES = 8 * 1024 * 1024


class Entry(TypedDict):
    """One row of `outbox_read.sql`."""

    point_id: UUID
    seq: int
    present: bool
    text: str
    text_hash: bytes
    payload: str
    unchanged: bool
    """Whether the vector store is known to have the vector of this very text."""


class State(TypedDict):
    """One row of `outbox_state.sql`."""

    collection: str
    delayed: bool
    waits: bool
    owed: bool
    refused: bool
    due: bool
    embedding: str | None


class Left(TypedDict):
    """One row of `outbox_left.sql`."""

    collection: str
    since: datetime | None
    next_retry_at: datetime | None
    error: str | None
    owed: int
    refused: int
    refusal: str | None


@dataclass(kw_only=True)
class Settled:
    """What became of the entries of a batch; those that are in no list stay as they are."""

    written: list[Entry] = field(default_factory=list)
    """Confirmed with a new vector."""
    relabelled: list[Entry] = field(default_factory=list)
    """Confirmed with a new payload alone."""
    gone: list[Entry] = field(default_factory=list)
    refused: list[tuple[Entry, str]] = field(default_factory=list)


def due_sql(schema_map: SchemaMap, embedding: str) -> str:
    """Return the SQL condition that a drain would find something to do now.

    It is false while everything waits for the time of its next try, and cheap to ask whatever waits.
    """
    names = [f"'{literal(table.vector.collection)}'" for table in schema_map if table.vector is not None]
    if not names:
        return "false"
    return sql("outbox_due", collections=", ".join(names), embedding=literal(embedding))


async def read_states(target: asyncpg.Connection, collections: Sequence[str]) -> Mapping[str, State]:
    """Return the state of each collection."""
    rows: Iterable[State] = await target.fetch(sql("outbox_state"), collections)
    return {row["collection"]: row for row in rows}


async def read_left(target: asyncpg.Connection, collections: Sequence[str]) -> Sequence[Left]:
    """Return how much each collection waits for, and why, by the kept counts."""
    rows: Sequence[Left] = await target.fetch(sql("outbox_left"), collections)
    return rows


class Outbox:
    """The entries of one collection, read once each in the order in which they were queued.

    Calls may overlap; they take turns on the connection.
    """

    def __init__(
        self,
        held: HeldSchema,
        table: TableMap,
        vector: VectorProjection,
        *,
        fence: Fence,
        embedding: str,
        retry: RetryRules,
        rows: int,
    ) -> None:
        """Read at most `rows` entries at once, and of large texts fewer."""
        self.collection = vector.collection
        self._held, self._target = held, held.connection
        self._fence, self._embedding, self._retry = fence, embedding, retry
        self._rows = self._limit = rows
        self._last = 0
        self._turns = asyncio.Lock()
        self._lost = sql("outbox_lost", target=quoted(table.name))
        self._read = sql(
            "outbox_read",
            target=quoted(table.name),
            size=size_sql(vector),
            text=vector.text,
            fields=fields_sql(vector),
            payload=f"({payload_sql('projected.text', 'projected.fields')})::text",
        )

    @asynccontextmanager
    async def _transaction(self, *first: str) -> AsyncIterator[None]:
        async with self._turns, self._held.transaction(*first):
            yield

    async def read(self) -> Sequence[Entry]:
        """Return the next entries; none when all have been read."""
        async with self._transaction(BY_INDEX):
            entries: Sequence[Entry] = await self._target.fetch(
                self._read, self.collection, self._limit, self._last, _BYTES, self._embedding
            )
        if entries:
            self._last = entries[-1]["seq"]
            # Sizes are summed up for every row of the limit: where rows are large, it must not be a thousand.
            self._limit = min(2 * len(entries), self._rows)
        return entries

    async def require(self) -> None:
        """Raise unless the graph is still ours: CycleFenced, or the driver's error if its lock is lost."""
        async with self._turns:
            await self._fence.require(self._target)

    async def mark_unconfirmed(self, *, gone: Iterable[Entry], changed: Iterable[Entry]) -> None:
        """Commit that the vector store may have these points or not, and with whatever vector.

        Before anything of them is sent: a request that fails may have been done, and a worker may die.
        """
        ids = [[entry["point_id"] for entry in entries] for entries in (gone, changed)]
        if not any(ids):
            return
        async with self._transaction(BY_INDEX):
            await self._fence.require(self._target)
            await self._target.execute(sql("outbox_mark_unconfirmed"), self.collection, *ids)

    async def settle(self, settled: Settled) -> None:
        """Take what the vector store has confirmed off the outbox, and put aside what was refused."""
        done = [*settled.written, *settled.relabelled, *settled.gone]
        async with self._transaction(BY_INDEX):
            await self._fence.require(self._target)
            await self._target.execute(
                sql("outbox_done"),
                self.collection,
                [entry["seq"] for entry in done],
                [entry["point_id"] for entry in settled.written],
                [entry["text_hash"] for entry in settled.written],
                self._embedding,
            )
            if settled.refused:
                await self._target.execute(
                    sql("outbox_refuse"),
                    self.collection,
                    [entry["seq"] for entry, _ in settled.refused],
                    [error for _, error in settled.refused],
                    self._retry.dead_letter_seconds,
                    self._retry.dead_letter_attempts,
                )

    async def retry(self) -> None:
        """Owe again those refused points whose time has come."""
        async with self._transaction():
            await self._target.execute(sql("outbox_retry"), self.collection, False)

    async def take_over(self) -> None:
        """Owe every vector of another embedding service again, and what that one refused."""
        async with self._transaction():
            await self._target.execute(sql("outbox_retry"), self.collection, True)
            await self._target.execute(sql("outbox_other"), self.collection, self._embedding)
            await self._target.execute(sql("outbox_embedding"), self.collection, self._embedding)

    async def filled(self) -> bool:
        """Return whether the vector store should have points of this collection."""
        async with self._transaction():
            filled: bool = await self._target.fetchval(sql("outbox_filled"), self.collection)
        return filled

    async def lost(self) -> None:
        """Owe every point again: the vector store has none of them any more."""
        async with self._transaction():
            await self._target.execute(self._lost, self.collection)
            await self._target.execute(sql("outbox_embedding"), self.collection, self._embedding)

    async def delay(self, error: str) -> int:
        """Let the collection wait as a whole; return how many tries in a row have failed."""
        async with self._transaction():
            attempts: int = await self._target.fetchval(
                sql("outbox_delay"),
                self.collection,
                error,
                self._retry.vector_seconds,
                self._retry.vector_longest_seconds,
            )
        return attempts

    async def resume(self) -> datetime | None:
        """End the collection's wait; return since when it had waited."""
        async with self._transaction():
            since: datetime | None = await self._target.fetchval(sql("outbox_resume"), self.collection)
        return since
