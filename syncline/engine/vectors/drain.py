"""Outbox drain: writes pending points to the vector store, embedding only texts that changed.

The main generation comes first; a second one, while the graph's model changes, gets a part of the time.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from syncline import names
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence
from syncline.engine.table_map import SchemaMap, TableMap, VectorProjection
from syncline.engine.template import sql
from syncline.engine.vectors.generation_drain import DrainedGeneration, GenerationDrain
from syncline.engine.vectors.generations import Generations, read_generations
from syncline.engine.vectors.live_alias import LiveAlias
from syncline.engine.vectors.outbox import State, read_states
from syncline.messages.sync import SecondVectors, VectorProgress, Waiting
from syncline.provider import SyncContext

__all__ = ["Drained", "drain_outbox"]

_SECOND_SECONDS: Final = 10.0
"""Longest time of one pass for the second generation: so long fresh rows wait."""


@dataclass(frozen=True, kw_only=True)
class Drained:
    """What a drain did."""

    vectors: VectorProgress = field(default_factory=VectorProgress)
    filling: bool = False
    """Whether the second generation owes points that nothing keeps from being written but its time."""
    embedding: str | None = None
    """The service of the main generation, if it was asked for."""


async def drain_outbox(
    held: HeldSchema,
    schema_map: SchemaMap,
    context: SyncContext,
    *,
    generation: int | None = None,
    out_of_time: Callable[[], bool],
    beat: Callable[[int], None],
    report_waiting: Callable[[Waiting | None], None] = lambda _: None,
) -> Drained:
    """Write every pending point until the outbox is empty or the time budget is spent.

    Collections are drained side by side: one that is slow or fails delays no other. One that cannot be
    written is retried later, with growing delays, and not touched before: an unreachable vector store delays
    all collections, any other failure delays one. A rejected point is retried alone. The result reports both.
    Entries leave the outbox only after the vector store has confirmed them, so a crash only causes
    repetition. While everything waits for its retry, this reads a little and writes nothing. Raises
    CycleFenced when another cycle acquired the graph; no further request is sent then. `report_waiting` is
    called when a service stops to answer, and when it answers again. If the graph's vectors are made with
    another embedding than this cycle has, nothing is sent, and the result says why.
    `generation` is the main one; None if the bookkeeping tables know of none, so there is no second either.
    """
    drain = _Drain(held, schema_map, context, generation, out_of_time=out_of_time, beat=beat)
    return await drain.run(report_waiting)


class _Drain:
    def __init__(
        self,
        held: HeldSchema,
        schema_map: SchemaMap,
        context: SyncContext,
        generation: int | None,
        *,
        out_of_time: Callable[[], bool],
        beat: Callable[[int], None],
    ) -> None:
        self._held, self._map, self._context = held, schema_map, context
        self._turns = asyncio.Lock()  # all collections share one connection
        self._main, self._several = generation or 1, generation is not None
        self._out_of_time, self._beat = out_of_time, beat
        self._generations: Generations | None = None if self._several else Generations()
        self._collections: dict[str, tuple[TableMap, VectorProjection]] = {
            table.vector.collection: (table, table.vector) for table in schema_map if table.vector is not None
        }
        self._alias = LiveAlias(context.log, context.graph.slug, self._live)

    async def run(self, report_waiting: Callable[[Waiting | None], None]) -> Drained:
        """Drain the main generation, then the second."""
        context = self._context
        fence = await Fence.current(self._held.connection, graph=context.graph.slug, schema=self._held.schema)
        seconds = {names.second_collection(name): of for name, of in self._collections.items()}
        async with self._held.transaction() as target:
            states = await read_states(target, [*self._collections, *seconds])
        main = self._drain(self._collections, states, fence, self._main, self._out_of_time)
        done = None
        if main.concerns:
            done = await main.run(report_waiting)
        vectors = VectorProgress() if done is None else _progress(done)
        embedding = None if done is None or done.service is None else done.service.name
        if self._several and any(_waits(states[name]) for name in seconds):
            second = (await self._now()).second
            if second is None:
                await self._forget_orphans()
            else:
                until = time.monotonic() + _SECOND_SECONDS
                drain = self._drain(
                    seconds,
                    states,
                    fence,
                    second.generation,
                    lambda: self._out_of_time() or time.monotonic() >= until,
                    second=True,
                )
                filled = await drain.run(report_waiting, None if done is None else done.away)
                progress = _second_progress(filled, live=second.switched_at is not None)
                return Drained(
                    vectors=vectors.model_copy(update={"second": progress}),
                    filling=bool(filled.pending) and filled.error is None,
                    embedding=embedding,
                )
        return Drained(vectors=vectors, embedding=embedding)

    def _drain(
        self,
        collections: Mapping[str, tuple[TableMap, VectorProjection]],
        states: Mapping[str, State],
        fence: Fence,
        generation: int,
        out_of_time: Callable[[], bool],
        *,
        second: bool = False,
    ) -> GenerationDrain:
        return GenerationDrain(
            self._held,
            self._map,
            self._context,
            {name: states[name] for name in collections},
            collections=collections,
            vectors=self._context.vectors.of_generation(generation),
            second=second,
            alias=self._alias,
            fence=fence,
            turns=self._turns,
            out_of_time=out_of_time,
            beat=self._beat,
        )

    async def _now(self) -> Generations:
        if self._generations is None:
            async with self._turns, self._held.transaction() as target:
                self._generations = await read_generations(target)
        return self._generations

    async def _live(self) -> int | None:
        # The aliases are the graph's: its shadow's collections get none before a promotion.
        return None if self._context.shadow else (await self._now()).live

    async def _forget_orphans(self) -> None:
        async with self._held.transaction() as target:
            gone = await target.execute(sql("second_orphans"))
        self._context.log.info(
            "entries of a dropped generation removed",
            graph=self._context.graph.slug,
            entries=int(gone.rpartition(" ")[2]),
        )


def _waits(state: State) -> bool:
    return state["owed"] or state["due"] or state["refused"] or state["delayed"]


def _progress(drained: DrainedGeneration) -> VectorProgress:
    counts = drained.counts
    return VectorProgress(
        upserted=counts.upserted,
        deleted=counts.deleted,
        embedded=counts.embedded,
        pending=drained.pending,
        error=drained.error,
        refused=drained.refused,
        refusal=drained.refusal,
        rebuilt=drained.rebuilt,
    )


def _second_progress(drained: DrainedGeneration, *, live: bool) -> SecondVectors:
    return SecondVectors(**_progress(drained).model_dump(exclude={"second"}), live=live)
