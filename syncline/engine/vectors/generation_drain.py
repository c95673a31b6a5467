"""Drain of one generation of a graph's collections: chooses the service, then drains them side by side."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from syncline.concurrency import all_of
from syncline.embeddings.service import EmbeddingService
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence
from syncline.engine.table_map import SchemaMap, TableMap, VectorProjection
from syncline.engine.template import sql
from syncline.engine.vectors.collection_drain import CollectionDrain, VectorCounts
from syncline.engine.vectors.live_alias import LiveAlias
from syncline.engine.vectors.outbox import Left, State, read_left
from syncline.engine.vectors.paid_vectors import PaidVectors
from syncline.engine.vectors.permission import service_of
from syncline.engine.vectors.silence import silence_reported
from syncline.errors import EmbeddingError, VectorStoreError, VectorStoreUnavailable
from syncline.messages.sync import Waiting
from syncline.provider import GraphVectors, SyncContext

__all__ = ["DrainedGeneration", "GenerationDrain"]


@dataclass(frozen=True, kw_only=True)
class DrainedGeneration:
    """What the drain of a generation did, and what it left."""

    counts: VectorCounts
    left: Sequence[Left]
    error: str | None
    """Why entries are left, since when, until when; None: nothing is, or only the time was spent."""
    away: VectorStoreUnavailable | None = None
    """Why the whole vector store could not be reached."""
    service: EmbeddingService | None = None
    """The service that its vectors are made with; None if nothing was to be written."""

    @property
    def pending(self) -> int:
        """Entries left, without rejected ones."""
        return sum(row["owed"] for row in self.left)

    @property
    def refused(self) -> int:
        """Points that were rejected individually."""
        return sum(row["refused"] for row in self.left)

    @property
    def refusal(self) -> str | None:
        """Why one of them was."""
        return next((row["refusal"] for row in self.left if row["refusal"] is not None), None)

    @property
    def rebuilt(self) -> tuple[str, ...]:
        """Collections that the vector store had lost."""
        return tuple(sorted(self.counts.rebuilt))


class GenerationDrain:
    """The drain of one generation in one cycle."""

    def __init__(
        self,
        held: HeldSchema,
        schema_map: SchemaMap,
        context: SyncContext,
        states: Mapping[str, State],
        *,
        collections: Mapping[str, tuple[TableMap, VectorProjection]],
        vectors: GraphVectors,
        second: bool = False,
        alias: LiveAlias,
        fence: Fence,
        turns: asyncio.Lock,
        out_of_time: Callable[[], bool],
        beat: Callable[[int], None],
    ) -> None:
        """`collections`: name of its entries -> its table; `states`: that of each."""
        self._held, self._map, self._context, self._states = held, schema_map, context, states
        self._collections, self._vectors, self._second = collections, vectors, second
        self._alias, self._fence, self._turns = alias, fence, turns
        self._out_of_time, self._beat = out_of_time, beat

    @property
    def concerns(self) -> bool:
        """Whether there is anything to do or to report."""
        first = self._context.embedding
        return any(
            self._has_work(state, first) or state["refused"] or state["delayed"]
            for state in self._states.values()
        )

    async def run(
        self, report_waiting: Callable[[Waiting | None], None], away: VectorStoreUnavailable | None = None
    ) -> DrainedGeneration:
        """Write what can be written. `away`: why the vector store is known not to be reached now.

        Without anything to write no service is chosen, and none is taken for the one of these vectors.
        """
        counts, service = VectorCounts(), None
        due = {name: state for name, state in self._states.items() if not state["waits"]}
        if any(self._has_work(state, self._context.embedding) for state in due.values()):
            found = await service_of(
                self._context,
                self._states.values(),
                generation=self._vectors.generation,
                second=self._second,
            )
            if isinstance(found, EmbeddingError):
                # Not a delay of the collections: a worker with the right settings may run the next cycle.
                self._context.log.warning(
                    "vectors not written",
                    graph=self._context.graph.slug,
                    second=self._second,
                    error=str(found),
                )
                left = await self._left()
                return DrainedGeneration(
                    counts=counts, left=left, error=f"{type(found).__name__}: {found}", away=away
                )
            service = found
        working = (
            {}
            if service is None
            else {name: state for name, state in due.items() if self._has_work(state, service)}
        )
        await self._resume(name for name, state in due.items() if state["delayed"] and name not in working)
        if service is not None:
            away = await self._drain(working, service, counts, report_waiting, away)
        left = await self._left()
        error = " ".join(_delays(left)) or None
        return DrainedGeneration(counts=counts, left=left, error=error, away=away, service=service)

    def _has_work(self, state: State, service: EmbeddingService) -> bool:
        """Return whether anything can be written for a collection, if the service makes its vectors."""
        # Which model a second generation is of never changes.
        other = not self._second and state["embedding"] not in (None, service.name)
        return state["owed"] or state["due"] or other

    async def _resume(self, collections: Iterable[str]) -> None:
        """End the delays of collections that have nothing left to write."""
        for name in collections:
            async with self._held.transaction() as target:
                since = await target.fetchval(sql("outbox_resume"), name)
            self._context.log.info(
                "vectors resumed",
                graph=self._context.graph.slug,
                collection=self._vectors.collection(self._collections[name][1].collection),
                since=str(since),
            )

    async def _drain(
        self,
        working: Mapping[str, State],
        service: EmbeddingService,
        counts: VectorCounts,
        report_waiting: Callable[[Waiting | None], None],
        away: VectorStoreUnavailable | None,
    ) -> VectorStoreUnavailable | None:
        paid = PaidVectors(service)
        store = self._vectors.store
        services = {
            f"vector store '{store.name}'": store,
            f"embedding service '{service.name}'": service,
        }
        async with silence_reported(report_waiting, services):
            try:
                return await _drain_all(
                    [(self._of(name, service, counts, paid), state) for name, state in working.items()],
                    away,
                )
            finally:
                paid.close()

    def _of(
        self, name: str, service: EmbeddingService, counts: VectorCounts, paid: PaidVectors
    ) -> CollectionDrain:
        table, vector = self._collections[name]
        return CollectionDrain(
            self._held,
            self._map,
            table,
            vector,
            self._context,
            counts,
            paid,
            entries=name,
            filling=list(self._collections) if self._second else (),
            vectors=self._vectors,
            service=service,
            alias=self._alias,
            fence=self._fence,
            turns=self._turns,
            out_of_time=self._out_of_time,
            beat=self._beat,
        )

    async def _left(self) -> Sequence[Left]:
        async with self._held.transaction() as target:
            return await read_left(target, list(self._collections))


async def _drain_all(
    drains: Sequence[tuple[CollectionDrain, State]], away: VectorStoreUnavailable | None
) -> VectorStoreUnavailable | None:
    """Drain each collection; delay what fails; return why the whole store is away."""
    opening = asyncio.Lock()

    async def opened(drain: CollectionDrain, state: State) -> bool:
        nonlocal away
        async with opening:
            if away is not None:
                # The same unreachable store: another request would only cost another timeout.
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
                await drain.write(share=len(drains))
        except (VectorStoreError, EmbeddingError) as failure:
            await drain.delay(failure)

    await all_of(*(drained(drain, state) for drain, state in drains))
    return away


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
