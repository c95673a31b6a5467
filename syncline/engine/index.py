"""Index: drain the outbox into the vector store, embedding only texts that changed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict
from uuid import UUID

import asyncpg

from syncline.engine.statements import sql
from syncline.engine.tablemap import SchemaMap, TableMap, VectorProjection
from syncline.errors import EmbeddingError, VectorStoreError
from syncline.messages import VectorProgress
from syncline.provider import SyncContext
from syncline.sqltext import literal, quoted
from syncline.stores.vectors import PointPayload

_BATCH = 1000
_BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
"""Look entries up by key and read them in order: every other way reads the whole queue for each batch."""


class _Entry(TypedDict):
    """One row of `outbox_read.sql`."""

    point_id: UUID
    seq: int
    present: bool
    text: str
    payload: str
    text_hash: bytes
    unchanged: bool


@dataclass
class _Counts:
    upserted: int = 0
    deleted: int = 0
    embedded: int = 0


async def drain_outbox(
    target: asyncpg.Connection,
    schema_map: SchemaMap,
    context: SyncContext,
    *,
    out_of_time: Callable[[], bool],
    beat: Callable[[int], None],
) -> VectorProgress:
    """Write every queued point until the outbox is empty or time is out.

    A vector store or embedding service that is away ends the drain, one that refuses ends it for that
    collection; the result reports it. Entries leave the outbox only after the vector store has confirmed
    them, so that a repetition is all a crash costs.
    """
    counts = _Counts()
    errors: list[str] = []
    for table in schema_map:
        if table.vector is None:
            continue
        try:
            await _drain_table(
                target, table, table.vector, context, counts, out_of_time=out_of_time, beat=beat
            )
        except (VectorStoreError, EmbeddingError) as failure:
            errors.append(f"{type(failure).__name__}: {failure}")
            context.log.warning("vectors delayed", graph=context.graph.slug, error=str(failure))
            if failure.retryable:
                break
    pending: int = await target.fetchval("SELECT count(*) FROM sync_outbox")
    return VectorProgress(
        upserted=counts.upserted,
        deleted=counts.deleted,
        embedded=counts.embedded,
        pending=pending,
        error="; ".join(errors) or None,
    )


async def _drain_table(
    target: asyncpg.Connection,
    table: TableMap,
    vector: VectorProjection,
    context: SyncContext,
    counts: _Counts,
    *,
    out_of_time: Callable[[], bool],
    beat: Callable[[int], None],
) -> None:
    collection = context.vectors.collection(vector.collection)
    payload = ", ".join(f"'{literal(name)}', {expression}" for name, expression in vector.payload.items())
    query = sql(
        "outbox_read",
        collection=literal(vector.collection),
        target=quoted(table.name),
        text=vector.text,
        payload=payload,
    )
    done = sql("outbox_done", collection=literal(vector.collection))
    forget = sql("outbox_forget", collection=literal(vector.collection))
    service = context.embedding.name
    ready = False
    last = 0
    while not out_of_time():
        async with target.transaction():
            await target.execute(_BY_INDEX)
            entries: Sequence[_Entry] = await target.fetch(query, _BATCH, service, last)
        if not entries:
            return
        last = entries[-1]["seq"]
        if not ready:
            await context.vectors.store.ensure_collection(
                collection, dimensions=context.embedding.dimensions, indexed=vector.indexed
            )
            ready = True
        gone = [entry["point_id"] for entry in entries if not entry["present"]]
        changed = [entry for entry in entries if entry["present"] and not entry["unchanged"]]
        relabelled = [entry for entry in entries if entry["present"] and entry["unchanged"]]
        if gone:
            await context.vectors.store.delete(collection, gone)
        if relabelled:
            await context.vectors.store.overwrite_payload(collection, [_point(entry) for entry in relabelled])
        if changed:
            vectors = await context.embedding.embed([entry["text"] for entry in changed])
            await context.vectors.store.upsert(collection, [_point(entry) for entry in changed], vectors)
        async with target.transaction():
            await target.execute(_BY_INDEX)
            await target.execute(
                done,
                [entry["seq"] for entry in entries],
                [entry["point_id"] for entry in changed],
                [entry["text_hash"] for entry in changed],
                service,
            )
            if gone:
                await target.execute(forget, gone)
        counts.deleted += len(gone)
        counts.upserted += len(changed) + len(relabelled)
        counts.embedded += len(changed)
        beat(counts.upserted + counts.deleted)


def _point(entry: _Entry) -> PointPayload:
    return PointPayload(entry["point_id"], json.loads(entry["payload"]))
