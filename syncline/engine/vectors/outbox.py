"""The outbox of one collection: points to write to the vector store, and points to retry later."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict
from uuid import UUID

import asyncpg

from syncline import names
from syncline.engine.render.fragments import column
from syncline.engine.render.identity import ours
from syncline.engine.render.kept import live
from syncline.engine.render.points import PointNames
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
"""The payload field that tells whether the point matches its row."""


def fields_sql(vector: VectorProjection, further: Mapping[str, str] | None = None) -> str:
    """Return the expression for the payload's declared fields, and further ones, as jsonb."""
    fields = {**vector.payload, **(further or {})}
    pairs = [f"'{literal(name)}', {expression}" for name, expression in fields.items()]
    return f"jsonb_build_object({', '.join(pairs)})"


def hash_sql(text: str, fields: str) -> str:
    """Return the expression for the hash of a text and fields; NULL where the text is."""
    return f"left(encode(sha256(convert_to({text} || E'\\n' || {fields}::text, 'UTF8')), 'hex'), 32)"


def point_hash_sql(vector: VectorProjection) -> str:
    """Return the expression for a point's correct `sync_hash`; NULL for a row without a point."""
    return hash_sql(f"({vector.text})", fields_sql(vector))


def payload_sql(text: str, fields: str) -> str:
    """Return the expression for the whole payload, given those for text and fields."""
    return f"{fields} || jsonb_build_object('{POINT_HASH}', {hash_sql(text, fields)})"


def size_sql(vector: VectorProjection) -> str:
    """Return the expression for the approximate bytes of a point's text and fields."""
    # Postgres knows the length of a plain column without reading it, wherever it is stored.
    parts = [f"coalesce(octet_length(({part})::text), 0)" for part in (vector.text, *vector.payload.values())]
    return " + ".join(parts)


_BYTES = 8 * 1024 * 1024
_FRESH = 0.5


class Entry(TypedDict):
    """One row of `outbox_read.sql`."""

    point_id: UUID
    seq: int
    present: bool
    text: str
    text_hash: bytes
    payload: str
    unchanged: bool
    """Whether the vector store is known to have the vector of exactly this text."""


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
    """What became of a batch's entries; entries in no list are unchanged."""

    written: list[Entry] = field(default_factory=list)
    """Confirmed with a new vector."""
    relabelled: list[Entry] = field(default_factory=list)
    """Confirmed with a new payload only."""
    gone: list[Entry] = field(default_factory=list)
    refused: list[tuple[Entry, str]] = field(default_factory=list)


def due_sql(schema_map: SchemaMap, embedding: str) -> str:
    """Return the SQL condition that a drain would find work now, of the main generation or the second.

    `embedding`: the service that the main one's vectors are to be of. False while everything waits for its
    next retry, and always cheap to evaluate.
    """
    collections = [table.vector.collection for table in schema_map if table.vector is not None]
    if not collections:
        return "false"
    named = [*collections, *map(names.second_collection, collections)]
    listed = ", ".join(f"'{literal(name)}'" for name in named)
    return sql("outbox_due", collections=listed, embedding=literal(embedding))


async def read_states(target: asyncpg.Connection, collections: Sequence[str]) -> Mapping[str, State]:
    """Return collection -> its state."""
    rows: Iterable[State] = await target.fetch(sql("outbox_state"), collections)
    return {row["collection"]: row for row in rows}


async def read_left(target: asyncpg.Connection, collections: Sequence[str]) -> Sequence[Left]:
    """Return how much each collection has pending, and why, from the stored counts."""
    rows: Sequence[Left] = await target.fetch(sql("outbox_left"), collections)
    return rows


class Outbox:
    """The entries of one collection, each read once, in the order in which they were queued.

    Calls may overlap; they share the connection one after the other.
    """

    def __init__(
        self,
        held: HeldSchema,
        schema_map: SchemaMap,
        table: TableMap,
        vector: VectorProjection,
        *,
        collection: str,
        filling: Sequence[str] = (),
        fence: Fence,
        turns: asyncio.Lock,
        embedding: str,
        retry: RetryRules,
        rows: int,
    ) -> None:
        """Read at most `rows` entries at once, fewer if texts are large.

        `collection`: as entries name it. `filling`: all collections of its generation, if that is the second.
        `turns`: of all who use the connection.
        """
        self.collection, self._filling = collection, list(filling)
        self._held, self._target = held, held.connection
        self._fence, self._embedding, self._retry = fence, embedding, retry
        self._rows = self._limit = rows
        self._last = 0
        self._turns = turns
        self._required_at = -_FRESH
        target = f"{ours(table)} t" if table.listed else ours(table)
        with_source, points = live(schema_map, table), PointNames(table)
        self._resolve = points.resolve(target if table.listed else f"{target} t")
        self._lost = sql("outbox_lost", target=target, **points.queued())
        self._read = sql(
            "outbox_read",
            target=quoted(table.name),
            projected=quoted(table.name) if with_source is None else f"{with_source} t",
            id=column(table.id_column),
            size=size_sql(vector),
            text=vector.text,
            fields=fields_sql(vector, points.fields),
            **points.of_entry("o"),
            payload=f"({payload_sql('projected.text', 'projected.fields')})::text",
        )

    @asynccontextmanager
    async def _transaction(self, *first: str) -> AsyncIterator[None]:
        async with self._turns, self._held.transaction(*first):
            yield

    async def resolve(self) -> None:
        """Find the rows of entries that were queued by their points alone, as by a repair.

        Entries that are queued so from now on are not read before the next call.
        """
        if self._resolve is not None:
            async with self._transaction():
                await self._target.execute(self._resolve, self.collection)

    async def read(self) -> Sequence[Entry]:
        """Return the next entries; empty when all have been read."""
        async with self._transaction(BY_INDEX):
            entries: Sequence[Entry] = await self._target.fetch(
                self._read, self.collection, self._limit, self._last, _BYTES, self._embedding
            )
        if entries:
            self._last = entries[-1]["seq"]
            # Sizes are summed for every row up to the limit: with large rows, that must not be a thousand.
            self._limit = min(2 * len(entries), self._rows)
        return entries

    async def require(self) -> None:
        """Raise if the graph is no longer ours: CycleFenced, or the driver's error if the lock is lost."""
        async with self._turns:
            await self._fence.require(self._target)
        self._required_at = time.monotonic()

    async def require_lately(self) -> None:
        """Raise as `require` does; what was true half a second ago suffices."""
        if time.monotonic() - self._required_at >= _FRESH:
            await self.require()

    async def mark_unconfirmed(self, *, gone: Iterable[Entry], changed: Iterable[Entry]) -> None:
        """Commit that it is unknown whether the vector store has these points, and with which vector.

        Before anything is sent: a failed request may have been carried out, and a worker may die.
        """
        ids = [[entry["point_id"] for entry in entries] for entries in (gone, changed)]
        if not any(ids):
            return
        async with self._transaction(BY_INDEX):
            await self._fence.require(self._target)
            await self._target.execute(sql("outbox_mark_unconfirmed"), self.collection, *ids)

    async def settle(self, settled: Settled) -> datetime | None:
        """Remove from the outbox what the vector store has confirmed, and set rejected points aside.

        Return when the second generation was started if these were the first after which it owed nothing.
        """
        started: datetime | None = None
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
            if self._filling:
                started = await self._target.fetchval(sql("second_filled"), self._filling)
        return started

    async def retry(self) -> None:
        """Queue rejected points again whose retry is due."""
        async with self._transaction():
            await self._target.execute(sql("outbox_retry"), self.collection, False)

    async def take_over(self) -> None:
        """Queue every vector of another embedding service again, and what that service rejected."""
        async with self._transaction():
            await self._target.execute(sql("outbox_retry"), self.collection, True)
            await self._target.execute(sql("outbox_other"), self.collection, self._embedding)
            await self._target.execute(sql("outbox_embedding"), self.collection, self._embedding)

    async def filled(self) -> bool:
        """Return whether the vector store should have points in this collection."""
        async with self._transaction():
            filled: bool = await self._target.fetchval(sql("outbox_filled"), self.collection)
        return filled

    async def lost(self) -> None:
        """Queue every point again: the vector store has lost them."""
        async with self._transaction():
            await self._target.execute(self._lost, self.collection)
            await self._target.execute(sql("outbox_embedding"), self.collection, self._embedding)

    async def delay(self, error: str, *, until: datetime | None = None) -> int:
        """Delay the whole collection, at least until a moment; return the number of consecutive failures."""
        async with self._transaction():
            attempts: int = await self._target.fetchval(
                sql("outbox_delay"),
                self.collection,
                error,
                self._retry.vector_seconds,
                self._retry.vector_longest_seconds,
                until,
            )
        return attempts

    async def resume(self) -> datetime | None:
        """End the collection's delay; return its start."""
        async with self._transaction():
            since: datetime | None = await self._target.fetchval(sql("outbox_resume"), self.collection)
        return since
