"""Outbox drain: writes pending points to the vector store, embedding only texts that changed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic_core import from_json

from syncline.engine.bisect import BisectingSender, Verdicts
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence
from syncline.engine.table_map import SchemaMap, TableMap, VectorProjection
from syncline.engine.vectors.embedding_batch import EmbeddingBatch
from syncline.engine.vectors.outbox import (
    POINT_HASH,
    Entry,
    Left,
    Outbox,
    Settled,
    State,
    read_left,
    read_states,
)
from syncline.engine.vectors.silence import silence_reported
from syncline.errors import EmbeddingError, VectorStoreError, VectorStoreRejected, VectorStoreUnavailable
from syncline.messages.sync import VectorProgress, Waiting
from syncline.provider import SyncContext
from syncline.stores.answer_watch import Watched
from syncline.stores.vectors import PointPayload
from syncline.tracing import span

__all__ = ["drain_outbox"]

_ROWS = 2000
_VECTOR_BYTES = 16 * 1024 * 1024
"""Entries per batch; while one is written the next is embedded and a third has been read."""


@dataclass
class _Counts:
    upserted: int = 0
    deleted: int = 0
    embedded: int = 0
    rebuilt: set[str] = field(default_factory=set)


async def drain_outbox(
    held: HeldSchema,
    schema_map: SchemaMap,
    context: SyncContext,
    *,
    out_of_time: Callable[[], bool],
    beat: Callable[[int], None],
    report_waiting: Callable[[Waiting | None], None] = lambda _: None,
) -> VectorProgress:
    """Write every pending point until the outbox is empty or the time budget is spent.

    A collection that cannot be written is retried later, with growing delays, and not touched before: an
    unreachable vector store delays all collections, any other failure delays one. A rejected point is retried
    alone. The result reports both. Entries leave the outbox only after the vector store has confirmed them,
    so a crash only causes repetition. While everything waits for its retry, this reads a little and writes
    nothing. Raises CycleFenced when another cycle acquired the graph; no further request is sent then.
    `report_waiting` is called when a service stops to answer, and when it answers again.
    """
    counts = _Counts()
    fence = await Fence.current(held.connection, graph=context.graph.slug, schema=held.schema)
    drains = {
        table.vector.collection: OutboxDrain(
            held, table, table.vector, context, counts, fence=fence, out_of_time=out_of_time, beat=beat
        )
        for table in schema_map
        if table.vector is not None
    }
    async with held.transaction() as target:
        states = await read_states(target, list(drains))
    if not any(drain.concerns(states[name]) for name, drain in drains.items()):
        return VectorProgress()
    away: VectorStoreUnavailable | None = None
    services = {
        f"vector store '{context.vectors.store.name}'": context.vectors.store,
        f"embedding service '{context.embedding.name}'": context.embedding,
    }
    async with silence_reported(report_waiting, services):
        for name, drain in drains.items():
            state = states[name]
            if state["waits"]:
                continue
            if away is not None:
                # The same unreachable store: another request would only cost another timeout.
                if drain.has_work(state):
                    await drain.delay(away)
                continue
            try:
                await drain.run(state)
            except (VectorStoreError, EmbeddingError) as failure:
                await drain.delay(failure)
                away = failure if isinstance(failure, VectorStoreUnavailable) else None
    async with held.transaction() as target:
        left = await read_left(target, list(drains))
    return VectorProgress(
        upserted=counts.upserted,
        deleted=counts.deleted,
        embedded=counts.embedded,
        pending=sum(row["owed"] for row in left),
        error=" ".join(_delays(left)) or None,
        refused=sum(row["refused"] for row in left),
        refusal=next((row["refusal"] for row in left if row["refusal"] is not None), None),
        rebuilt=tuple(sorted(counts.rebuilt)),
    )


def _delays(left: Sequence[Left]) -> Iterable[str]:
    """Yield for each cause what happened, what waits since when, and when it is retried."""
    by_cause: dict[str, list[Left]] = {}
    for row in left:
        if row["error"] is not None:
            by_cause.setdefault(row["error"], []).append(row)
    for cause, rows in by_cause.items():
        names = " and ".join(row["collection"] for row in rows)
        since = min(row["since"] for row in rows if row["since"] is not None)
        following = min(row["next_retry_at"] for row in rows if row["next_retry_at"] is not None)
        yield f"{cause} Waiting since {_moment(since)}: {names}; next try at {_moment(following)}."


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _point(entry: Entry) -> PointPayload:
    return PointPayload(entry["point_id"], from_json(entry["payload"]))


def _outdated(entry: Entry) -> PointPayload:
    """Return the payload for a vector of an older text: without a hash, so it is not taken as current."""
    return PointPayload(entry["point_id"], {**from_json(entry["payload"]), POINT_HASH: None})


class _Batch:
    """A batch of entries: read, then embedded, then written."""

    def __init__(self, entries: Sequence[Entry], context: SyncContext) -> None:
        self.gone = [entry for entry in entries if not entry["present"]]
        self.relabelled = [entry for entry in entries if entry["present"] and entry["unchanged"]]
        self.changed = [entry for entry in entries if entry["present"] and not entry["unchanged"]]
        self.embedded = EmbeddingBatch(context.embedding, [entry["text"] for entry in self.changed])


class OutboxDrain:
    """Drains one collection in one cycle."""

    def __init__(
        self,
        held: HeldSchema,
        table: TableMap,
        vector: VectorProjection,
        context: SyncContext,
        counts: _Counts,
        *,
        fence: Fence,
        out_of_time: Callable[[], bool],
        beat: Callable[[int], None],
    ) -> None:
        self._context, self._vector, self._counts = context, vector, counts
        self._out_of_time, self._beat = out_of_time, beat
        self._store = context.vectors.store
        self._service = context.embedding
        self._collection = context.vectors.collection(vector.collection)
        self._outbox = Outbox(
            held,
            table,
            vector,
            fence=fence,
            embedding=self._service.name,
            retry=context.retry,
            rows=max(1, min(_ROWS, _VECTOR_BYTES // (4 * self._service.dimensions))),
        )
        self._delayed = False
        self._upserts: Verdicts[Entry, VectorStoreRejected] = Verdicts()
        self._overwrites: Verdicts[Entry, VectorStoreRejected] = Verdicts()

    def has_work(self, state: State) -> bool:
        """Return whether anything can be written for the collection now."""
        return state["owed"] or state["due"] or state["embedding"] not in (None, self._service.name)

    def concerns(self, state: State) -> bool:
        """Return whether there is anything to do or to report for the collection."""
        return self.has_work(state) or state["refused"] or state["delayed"]

    async def delay(self, failure: VectorStoreError | EmbeddingError) -> None:
        """Delay the collection, longer than the last time."""
        attempts = await self._outbox.delay(f"{type(failure).__name__}: {failure}")
        # Alerts once; later results report that it continues.
        log = self._context.log.warning if attempts == 1 else self._context.log.debug
        log("vectors delayed", **self._names, attempts=attempts, error=str(failure))

    async def run(self, state: State) -> None:
        """Write the pending points.

        Raises VectorStoreError or EmbeddingError when the store or service is unreachable or rejects
        everything; points confirmed before stay confirmed.
        """
        self._delayed = state["delayed"]
        if self.has_work(state):
            if self._out_of_time():
                return
            if self._delayed and isinstance(self._store, Watched):
                self._store.doubt()
            await self._prepare(state)
            await self._write_all()
        await self._resume()

    @property
    def _names(self) -> dict[str, str]:
        return {"graph": self._context.graph.slug, "collection": self._collection}

    @asynccontextmanager
    async def _sending(self, name: str, points: int) -> AsyncIterator[None]:
        """Check the fence around a request that changes points: the vector store itself has no fence."""
        await self._outbox.require()
        with span(name, collection=self._collection, points=points):
            yield

    async def _prepare(self, state: State) -> None:
        """Ensure that the collection exists and that the outbox lists all points it lacks."""
        created = await self._ensured()
        filled = await self._outbox.filled()
        # An empty one was created manually, or by a cycle that died before it queued the points.
        if filled and (created or await self._store.count(self._collection) == 0):
            await self._rebuild()
        elif state["embedding"] != self._service.name:
            if state["embedding"] is not None:
                self._context.log.warning(
                    "embedding service changed, all points are embedded again",
                    **self._names,
                    before=state["embedding"],
                    now=self._service.name,
                )
            await self._outbox.take_over()
        if state["due"]:
            await self._outbox.retry()

    async def _write_all(self) -> None:
        await self._outbox.resolve()
        batch = await self._following()
        embedded: _Batch | None = None
        while batch is not None:
            # While the vector store takes a batch, the service embeds the next and the one after is read.
            reading = asyncio.ensure_future(self._following())
            embedding = asyncio.ensure_future(
                batch.embedded.fill(out_of_time=self._out_of_time, came_back=self._count_embedded)
            )
            try:
                if embedded is not None:
                    await self._write(embedded)
                await embedding
                following = await reading
            except asyncio.CancelledError:
                reading.cancel()
                raise
            finally:
                embedding.cancel()
                await asyncio.gather(reading, embedding, return_exceptions=True)
            embedded, batch = batch, following
            if embedded.embedded.failure is not None:
                break
        if embedded is not None:
            await self._write(embedded)
            if embedded.embedded.failure is not None:
                raise embedded.embedded.failure
        for verdicts in (self._upserts, self._overwrites):
            if verdicts.unclear:
                raise verdicts.unclear[0][1]

    async def _following(self) -> _Batch | None:
        if self._out_of_time():
            return None
        entries = await self._outbox.read()
        return _Batch(entries, self._context) if entries else None

    def _count_embedded(self, texts: int) -> None:
        self._counts.embedded += texts
        self._beat(self._counts.upserted + self._counts.deleted)

    async def _write(self, batch: _Batch) -> None:
        """Write a batch to the vector store, and record the result."""
        embedded = batch.embedded
        changed = [batch.changed[row] for row in embedded.accepted]
        # A point whose new text is rejected keeps its old vector, but must not be found by its old
        # visibility. It may exist unconfirmed; if it does not, this does nothing.
        outdated = [batch.changed[row] for row in embedded.refused]
        labels = [*map(_point, batch.relabelled), *map(_outdated, outdated)]

        async def overwrite(items: range) -> None:
            async with self._sending("overwrite payloads", len(items)):
                await self._store.overwrite_payload(self._collection, labels[items.start : items.stop])

        async def upsert(items: range) -> None:
            vectors = embedded.vectors[[embedded.accepted[item] for item in items]]
            async with self._sending("upsert points", len(items)):
                await self._store.upsert(self._collection, [_point(changed[item]) for item in items], vectors)

        await self._outbox.mark_unconfirmed(gone=batch.gone, changed=changed)
        if batch.gone:
            async with self._sending("delete points", len(batch.gone)):
                await self._store.delete(self._collection, [entry["point_id"] for entry in batch.gone])
        overwritten = await self._sent(len(labels), overwrite)
        upserted = await self._sent(len(changed), upsert)  # last: a lost vector costs most
        refused = [(batch.changed[row], str(error)) for row, error in embedded.refused.items()]
        told = {entry["point_id"] for entry in outdated}
        offenders = self._upserts.offenders(changed, upserted)
        offenders += self._overwrites.offenders([*batch.relabelled, *outdated], overwritten)
        refused += [(entry, str(error)) for entry, error in offenders if entry["point_id"] not in told]
        settled = Settled(
            written=[changed[item] for item in sorted(upserted.accepted)],
            relabelled=[entry for item, entry in enumerate(batch.relabelled) if item in overwritten.accepted],
            gone=batch.gone,
            refused=refused,
        )
        await self._settle(settled)
        for verdicts in (self._upserts, self._overwrites):
            if verdicts.hopeless:
                raise verdicts.unclear[0][1]

    async def _settle(self, settled: Settled) -> None:
        await self._outbox.settle(settled)
        if settled.refused:
            log = self._context.log
            log.warning(
                "points rejected", **self._names, points=len(settled.refused), error=settled.refused[0][1]
            )
        self._counts.deleted += len(settled.gone)
        self._counts.upserted += len(settled.written) + len(settled.relabelled)
        self._beat(self._counts.upserted + self._counts.deleted)
        if settled.written:
            await self._resume()

    async def _sent(
        self, count: int, send: Callable[[range], Awaitable[None]]
    ) -> BisectingSender[VectorStoreRejected]:
        sender = BisectingSender(
            send, refusal=VectorStoreRejected, diagnose=self._was_lost, out_of_time=self._out_of_time
        )
        if count:
            await sender.take(range(count))
        return sender

    async def _was_lost(self, _: VectorStoreRejected) -> bool:
        """Recreate the collection if its loss made the store reject; return whether it did."""
        lost = await self._ensured()
        if lost:
            await self._rebuild()
        return lost

    async def _ensured(self) -> bool:
        return await self._store.ensure_collection(
            self._collection, dimensions=self._service.dimensions, indexed=self._vector.indexed
        )

    async def _rebuild(self) -> None:
        self._context.log.warning("collection lost, all points are written again", **self._names)
        await self._outbox.lost()
        self._counts.rebuilt.add(self._vector.collection)

    async def _resume(self) -> None:
        """End the collection's delay, if it has one."""
        if self._delayed:
            since = await self._outbox.resume()
            self._context.log.info("vectors resumed", **self._names, since=str(since))
        self._delayed = False
