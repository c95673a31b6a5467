"""Drain of one collection: prepares it, moves its entries through the pipe, and records their fate."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from pydantic_core import from_json

from syncline.embeddings.pace import pace_of
from syncline.embeddings.service import EmbeddingService
from syncline.engine.bisect import BisectingSender, Verdicts
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence
from syncline.engine.table_map import SchemaMap, TableMap, VectorProjection
from syncline.engine.vectors.live_alias import LiveAlias
from syncline.engine.vectors.outbox import POINT_HASH, Entry, Outbox, Settled, State
from syncline.engine.vectors.paid_vectors import PaidVectors
from syncline.engine.vectors.pipe import Arrived, VectorPipe
from syncline.errors import (
    EmbeddingError,
    EmbeddingUnavailable,
    VectorStoreError,
    VectorStoreRejected,
    VectorStoreUnavailable,
)
from syncline.provider import GraphVectors, SyncContext
from syncline.stores.answer_watch import Watched
from syncline.stores.vectors import JsonPayload, PointPayload
from syncline.tracing import span

__all__ = ["CollectionDrain", "VectorCounts"]

_ROWS = 2000
"""Entries that are read at once."""


@dataclass
class VectorCounts:
    """What a cycle did to its collections."""

    upserted: int = 0
    deleted: int = 0
    embedded: int = 0
    rebuilt: set[str] = field(default_factory=set)


def _point(entry: Entry) -> PointPayload:
    return PointPayload(entry["point_id"], JsonPayload(entry["payload"]))


def _outdated(entry: Entry) -> PointPayload:
    """Return the payload for a vector of an older text: without a hash, so it is not taken as current."""
    return PointPayload(entry["point_id"], {**from_json(entry["payload"]), POINT_HASH: None})


async def _refused(
    write: Awaitable[None], points: Sequence[PointPayload], items: range
) -> Mapping[int, VectorStoreRejected]:
    """Await the write; return the items that the store rejected while it took all others."""
    try:
        await write
    except VectorStoreRejected as error:
        if not error.points:
            raise
        return {
            item: error.points[point.id]
            for item, point in zip(items, points, strict=True)
            if point.id in error.points
        }
    return {}


class CollectionDrain:
    """Drains one collection in one cycle."""

    def __init__(
        self,
        held: HeldSchema,
        schema_map: SchemaMap,
        table: TableMap,
        vector: VectorProjection,
        context: SyncContext,
        counts: VectorCounts,
        paid: PaidVectors,
        *,
        entries: str,
        filling: Sequence[str],
        vectors: GraphVectors,
        service: EmbeddingService,
        alias: LiveAlias,
        fence: Fence,
        turns: asyncio.Lock,
        out_of_time: Callable[[], bool],
        beat: Callable[[int], None],
    ) -> None:
        """Drain the entries of this name into the collection of this generation, by this service.

        `filling`: the names of all entries of its generation, if that is the second.
        """
        self._context, self._vector, self._counts, self._paid = context, vector, counts, paid
        self._out_of_time, self._beat = out_of_time, beat
        self._store, self._vectors, self._alias = vectors.store, vectors, alias
        self._service = service
        self._collection = vectors.collection(vector.collection)
        self._outbox = Outbox(
            held,
            schema_map,
            table,
            vector,
            collection=entries,
            filling=filling,
            fence=fence,
            turns=turns,
            embedding=self._service.name,
            retry=context.retry,
            rows=_ROWS,
        )
        self._delayed = False
        self._upserts: Verdicts[Entry, VectorStoreRejected] = Verdicts()
        self._overwrites: Verdicts[Entry, VectorStoreRejected] = Verdicts()

    async def delay(self, failure: VectorStoreError | EmbeddingError) -> None:
        """Delay the collection, longer than the last time."""
        until: datetime | None = None
        if isinstance(failure, EmbeddingUnavailable | VectorStoreUnavailable):
            until = failure.until
        attempts = await self._outbox.delay(f"{type(failure).__name__}: {failure}", until=until)
        # Alerts once; later results report that it continues.
        log = self._context.log.warning if attempts == 1 else self._context.log.debug
        log("vectors delayed", **self._names, attempts=attempts, error=str(failure))

    async def open(self, state: State) -> bool:
        """Prepare the collection, which has something to write; return whether there is time for it.

        Raises VectorStoreError.
        """
        self._delayed = state["delayed"]
        if self._out_of_time():
            return False
        if self._delayed and isinstance(self._store, Watched):
            self._store.doubt()
        await self._prepare(state)
        return True

    async def write(self, *, share: int) -> None:
        """Write the pending points; `share`: collections that share what is held in memory.

        Raises VectorStoreError or EmbeddingError when the store or service is unreachable or rejects
        everything; points confirmed before stay confirmed.
        """
        await self._write_all(share)
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
        # An empty one was created manually, or by a cycle that died before it queued the points. That may
        # have made no alias either: another collection's failure ends this drain too.
        if filled and (created or await self._store.is_empty(self._collection)):
            if not created:
                await self._alias.keep(self._vectors, self._vector.collection, created=True)
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

    async def _write_all(self, share: int) -> None:
        await self._outbox.resolve()
        pipe = VectorPipe(
            self._service,
            pace_of(self._service, self._service.name),
            self._paid,
            read=self._outbox.read,
            write=self._write,
            require=self._outbox.require_lately,
            out_of_time=self._out_of_time,
            came_back=self._count_embedded,
            share=share,
        )
        await pipe.run()
        for verdicts in (self._upserts, self._overwrites):
            if verdicts.unclear:
                raise verdicts.unclear[0][1]

    def _count_embedded(self, texts: int) -> None:
        self._counts.embedded += texts
        self._beat(self._counts.upserted + self._counts.deleted)

    async def _write(self, arrived: Arrived) -> bool:
        """Write entries to the vector store, and record the result; return whether it took a vector."""
        changed = arrived.changed
        # A point whose new text is rejected keeps its old vector, but must not be found by its old
        # visibility. It may exist unconfirmed; if it does not, this does nothing.
        outdated = [entry for entry, _ in arrived.refused]
        labels = [*map(_point, arrived.relabelled), *map(_outdated, outdated)]

        async def overwrite(items: range) -> Mapping[int, VectorStoreRejected]:
            points = labels[items.start : items.stop]
            async with self._sending("overwrite payloads", len(items)):
                return await _refused(self._store.overwrite_payload(self._collection, points), points, items)

        async def upsert(items: range) -> Mapping[int, VectorStoreRejected]:
            points = [_point(entry) for entry in changed[items.start : items.stop]]
            vectors = np.stack(arrived.vectors[items.start : items.stop])
            async with self._sending("upsert points", len(items)):
                return await _refused(self._store.upsert(self._collection, points, vectors), points, items)

        await self._outbox.mark_unconfirmed(gone=arrived.gone, changed=changed)
        if arrived.gone:
            async with self._sending("delete points", len(arrived.gone)):
                await self._store.delete(self._collection, [entry["point_id"] for entry in arrived.gone])
        overwritten = await self._sent(len(labels), overwrite)
        upserted = await self._sent(len(changed), upsert)  # last: a lost vector costs most
        refused = [(entry, str(error)) for entry, error in arrived.refused]
        told = {entry["point_id"] for entry in outdated}
        offenders = self._upserts.offenders(changed, upserted)
        offenders += self._overwrites.offenders([*arrived.relabelled, *outdated], overwritten)
        refused += [(entry, str(error)) for entry, error in offenders if entry["point_id"] not in told]
        settled = Settled(
            written=[changed[item] for item in sorted(upserted.accepted)],
            relabelled=[
                entry for item, entry in enumerate(arrived.relabelled) if item in overwritten.accepted
            ],
            gone=arrived.gone,
            refused=refused,
        )
        await self._settle(settled)
        for verdicts in (self._upserts, self._overwrites):
            if verdicts.hopeless:
                raise verdicts.unclear[0][1]
        return bool(settled.written)

    async def _settle(self, settled: Settled) -> None:
        if (started := await self._outbox.settle(settled)) is not None:
            self._context.log.info(
                "second generation is filled",
                graph=self._context.graph.slug,
                generation=self._vectors.generation,
                started_at=str(started),
            )
        if settled.refused:
            log = self._context.log
            log.warning(
                "points rejected", **self._names, points=len(settled.refused), error=settled.refused[0][1]
            )
        self._counts.deleted += len(settled.gone)
        self._counts.upserted += len(settled.written) + len(settled.relabelled)
        self._beat(self._counts.upserted + self._counts.deleted)
        for entry in settled.written:
            self._paid.confirmed(entry["text_hash"])
        if settled.written:
            await self._resume()

    async def _sent(
        self, count: int, send: Callable[[range], Awaitable[Mapping[int, VectorStoreRejected] | None]]
    ) -> BisectingSender[VectorStoreRejected]:
        sender = BisectingSender(
            send, refusal=VectorStoreRejected, diagnose=self._was_lost, out_of_time=self._out_of_time
        )
        if count:
            await sender.take(range(count))
        return sender

    async def _was_lost(self, error: VectorStoreRejected) -> bool:
        """Recreate the collection if its loss made the store reject; return whether it did.

        Raise the error if the store would reject any other points too.
        """
        if error.all_points:
            raise error
        lost = await self._ensured()
        if lost:
            await self._rebuild()
        return lost

    async def _ensured(self) -> bool:
        created = await self._store.ensure_collection(
            self._collection,
            dimensions=self._service.dimensions,
            indexed=self._vector.indexed,
            options=self._vectors.options,
        )
        await self._alias.keep(self._vectors, self._vector.collection, created=created)
        return created

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
