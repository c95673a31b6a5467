"""The alias that readers query: made with its collection, where an earlier release made none, and again."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from weakref import WeakKeyDictionary

from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.vectors.generations import Generations, read_generations
from syncline.errors import VectorStoreError, VectorStoreRejected
from syncline.provider import EventLog, GraphVectors, SyncContext
from syncline.stores.vectors import VectorStore

__all__ = ["LiveAlias", "aliases_lost", "make_again"]

_SEEN_FOR: Final = 10.0
"""Seconds for which an alias that was seen counts as there: one request for all graphs of a store."""
_PATIENCE: Final = 2.0
"""Seconds that the end of a cycle gives the store to say which aliases it has."""

_FIX = (
    "give the vector store's key the right to manage aliases (global access `m`), or make the alias by hand: "
    "readers find nothing by its name. Vectors are written anyway"
)


class LiveAlias:
    """The aliases of one graph in one cycle.

    An alias that leads to some collection is never moved here, only by a command that changes the model.
    """

    def __init__(self, log: EventLog, graph: str, live: Callable[[], Awaitable[int | None]]) -> None:
        """`live` returns the generation that readers are to look at; None: no generation of this cycle's."""
        self._log, self._graph, self._live = log, graph, live

    async def keep(self, vectors: GraphVectors, name: str, *, created: bool) -> None:
        """Make the alias of a collection if it has none and readers are to look at this generation.

        A store that may not or cannot is told of once per graph in this process, and nothing else fails.
        Without `created` each is looked for every ten seconds; a collection that is lost takes it along.
        """
        known = _known.setdefault(vectors.store, {})
        alias, collection = vectors.alias(name), vectors.collection(name)
        if created:
            known.pop(alias, None)
        if not _is_stale(vectors, name):
            return
        try:
            if await self._live() != vectors.generation:
                return
            present = await _present(vectors.store)
            if alias not in present:
                await vectors.store.set_aliases({alias: collection})
            known[alias] = time.monotonic()
        except VectorStoreRejected as error:
            known[alias] = math.inf
            if self._graph in (told := _told.setdefault(vectors.store, set())):
                return
            told.add(self._graph)
            self._log.warning(
                "alias of a collection not made",
                graph=self._graph,
                collection=collection,
                alias=alias,
                error=str(error),
                fix=_FIX,
            )
        except VectorStoreError:
            return  # It is away for the moment: the next drain looks again.


async def aliases_lost(vectors: GraphVectors, names: Sequence[str]) -> Sequence[str]:
    """Return which of these collections, that have got vectors, readers cannot find by their alias.

    Asks the store, for all of its graphs, at most every ten seconds; nothing is lost if it does not answer.
    """
    stale = [name for name in names if _is_stale(vectors, name)]
    if not stale:
        return []
    asked_at, present = _asked.get(vectors.store, (-math.inf, None))
    if time.monotonic() >= asked_at + _SEEN_FOR:
        # Noted first: a store that does not answer is not asked by each graph.
        _asked[vectors.store] = time.monotonic(), None
        try:
            async with asyncio.timeout(_PATIENCE):
                present = await _present(vectors.store)
        except (VectorStoreError, TimeoutError):
            return []
        _asked[vectors.store] = time.monotonic(), present
    return [] if present is None else [name for name in stale if vectors.alias(name) not in present]


async def make_again(
    held: HeldSchema, context: SyncContext, lost: Sequence[str], *, generation: int | None
) -> None:
    """Make the aliases of these collections for the generation that readers are to look at."""
    generations = Generations()
    if generation is not None:
        async with held.transaction() as target:
            generations = await read_generations(target)

    async def live() -> int:
        return generations.live

    vectors = context.vectors.of_generation(generations.live)
    alias = LiveAlias(context.log, context.graph.slug, live)
    try:
        present = await _present(vectors.store)
    except VectorStoreError:
        return
    for name in lost:
        try:
            # Another worker may have made it since. A collection that was emptied or dropped gets its alias
            # once there are points.
            if vectors.alias(name) in present or await vectors.store.is_empty(vectors.collection(name)):
                continue
        except VectorStoreError:
            return
        context.log.warning(
            "alias of a collection is missing, it is made again",
            graph=context.graph.slug,
            collection=vectors.collection(name),
            alias=vectors.alias(name),
        )
        await alias.keep(vectors, name, created=True)


async def _present(store: VectorStore) -> Mapping[str, str]:
    """Return the aliases of a store; note that they were seen."""
    present = await store.aliases()
    now, known = time.monotonic(), _known.setdefault(store, {})
    known.update((alias, max(now, known.get(alias, now))) for alias in present)
    return present


def _is_stale(vectors: GraphVectors, name: str) -> bool:
    known = _known.setdefault(vectors.store, {})
    return time.monotonic() >= known.get(vectors.alias(name), -math.inf) + _SEEN_FOR


_known: "WeakKeyDictionary[VectorStore, dict[str, float]]" = WeakKeyDictionary()
"""Aliases, and when each was seen last in this process; for ever if it was given up."""
_asked: "WeakKeyDictionary[VectorStore, tuple[float, Mapping[str, str] | None]]" = WeakKeyDictionary()
"""When each store was asked last by the ends of cycles, and its answer, if any."""
_told: "WeakKeyDictionary[VectorStore, set[str]]" = WeakKeyDictionary()
"""Graphs whose aliases could not be made."""
