"""Outbox drain: writes pending points to the vector store, embedding only texts that changed."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from syncline.concurrency import all_of
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence
from syncline.engine.table_map import SchemaMap
from syncline.engine.vectors.collection_drain import CollectionDrain, VectorCounts
from syncline.engine.vectors.outbox import Left, State, read_left, read_states
from syncline.engine.vectors.paid_vectors import PaidVectors
from syncline.engine.vectors.permission import refusal_to_write
from syncline.engine.vectors.silence import silence_reported
from syncline.errors import EmbeddingError, VectorStoreError, VectorStoreUnavailable
from syncline.messages.sync import VectorProgress, Waiting
from syncline.provider import SyncContext

__all__ = ["drain_outbox"]


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

    Collections are drained side by side: one that is slow or fails delays no other. One that cannot be
    written is retried later, with growing delays, and not touched before: an unreachable vector store delays
    all collections, any other failure delays one. A rejected point is retried alone. The result reports both.
    Entries leave the outbox only after the vector store has confirmed them, so a crash only causes
    repetition. While everything waits for its retry, this reads a little and writes nothing. Raises
    CycleFenced when another cycle acquired the graph; no further request is sent then. `report_waiting` is
    called when a service stops to answer, and when it answers again. If the graph's vectors are made with
    another embedding than this cycle has, nothing is sent, and the result says why.
    """
    counts, paid = VectorCounts(), PaidVectors(context.embedding)
    fence = await Fence.current(held.connection, graph=context.graph.slug, schema=held.schema)
    turns = asyncio.Lock()  # they share one connection
    drains = {
        table.vector.collection: CollectionDrain(
            held,
            schema_map,
            table,
            table.vector,
            context,
            counts,
            paid,
            fence=fence,
            turns=turns,
            out_of_time=out_of_time,
            beat=beat,
        )
        for table in schema_map
        if table.vector is not None
    }
    async with held.transaction() as target:
        states = await read_states(target, list(drains))
    if not any(drain.concerns(states[name]) for name, drain in drains.items()):
        return VectorProgress()
    if any(drain.has_work(states[name]) and not states[name]["waits"] for name, drain in drains.items()):
        refusal = await refusal_to_write(context, states.values())
        if refusal is not None:
            # Not a delay of the collections: a worker with the right settings may run the next cycle.
            context.log.warning("vectors not written", graph=context.graph.slug, error=str(refusal))
            async with held.transaction() as target:
                left = await read_left(target, list(drains))
            return _progress(counts, left, error=f"{type(refusal).__name__}: {refusal}")
    services = {
        f"vector store '{context.vectors.store.name}'": context.vectors.store,
        f"embedding service '{context.embedding.name}'": context.embedding,
    }
    async with silence_reported(report_waiting, services):
        try:
            await _drain_all([(drain, states[name]) for name, drain in drains.items()])
        finally:
            paid.close()
    async with held.transaction() as target:
        left = await read_left(target, list(drains))
    return _progress(counts, left, error=" ".join(_delays(left)) or None)


async def _drain_all(drains: Sequence[tuple[CollectionDrain, State]]) -> None:
    """Drain what does not wait for its retry, side by side; delay what fails."""
    due = [(drain, state) for drain, state in drains if not state["waits"]]
    working = max(1, sum(drain.has_work(state) for drain, state in due))
    opening = asyncio.Lock()
    away: VectorStoreUnavailable | None = None

    async def opened(drain: CollectionDrain, state: State) -> bool:
        nonlocal away
        async with opening:
            if away is not None:
                # The same unreachable store: another request would only cost another timeout.
                if drain.has_work(state):
                    await drain.delay(away)
                return False
            try:
                return await drain.open(state)
            except VectorStoreUnavailable as failure:
                away = failure
                raise

    async def drained(drain: CollectionDrain, state: State) -> None:
        try:
            if await opened(drain, state):
                await drain.write(share=working)
        except (VectorStoreError, EmbeddingError) as failure:
            await drain.delay(failure)

    await all_of(*(drained(drain, state) for drain, state in due))


def _progress(counts: VectorCounts, left: Sequence[Left], *, error: str | None) -> VectorProgress:
    return VectorProgress(
        upserted=counts.upserted,
        deleted=counts.deleted,
        embedded=counts.embedded,
        pending=sum(row["owed"] for row in left),
        error=error,
        refused=sum(row["refused"] for row in left),
        refusal=next((row["refusal"] for row in left if row["refusal"] is not None), None),
        rebuilt=tuple(sorted(counts.rebuilt)),
    )


def _delays(left: Sequence[Left]) -> Iterable[str]:
    """Yield for each cause what happened, what waits since when, and from when on a run tries again."""
    by_cause: dict[str, list[Left]] = {}
    for row in left:
        if row["error"] is not None:
            by_cause.setdefault(row["error"], []).append(row)
    for cause, rows in by_cause.items():
        names = " and ".join(row["collection"] for row in rows)
        since = min(row["since"] for row in rows if row["since"] is not None)
        following = min(row["next_retry_at"] for row in rows if row["next_retry_at"] is not None)
        again = f"the first run after {_moment(following)} tries again"
        yield f"{cause} Waiting since {_moment(since)}: {names}; {again}."


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
