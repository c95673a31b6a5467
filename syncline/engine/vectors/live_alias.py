"""The alias that readers query: made with its collection, or where an earlier release made none."""

from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

from syncline.errors import VectorStoreError, VectorStoreRejected
from syncline.provider import EventLog, GraphVectors
from syncline.stores.vectors import VectorStore

__all__ = ["LiveAlias"]

_FIX = (
    "give the vector store's key the right to manage aliases (global access `m`), or make the alias by hand: "
    "readers find nothing by its name. Vectors are written anyway"
)


class LiveAlias:
    """The aliases of one graph in one cycle.

    An alias that leads to some collection is never moved here, only by a command that changes the model.
    """

    def __init__(self, log: EventLog, graph: str, live: Callable[[], Awaitable[int]]) -> None:
        """`live` returns the generation that readers are to look at."""
        self._log, self._graph, self._live = log, graph, live

    async def keep(self, vectors: GraphVectors, name: str, *, created: bool) -> None:
        """Make the alias of a collection if it has none and readers are to look at this generation.

        A store that may not or cannot is told of once per graph in this process, and nothing else fails.
        Without `created` each is looked for once in a process; a collection that is lost takes it along.
        """
        known = _known.setdefault(vectors.store, set())
        alias, collection = vectors.alias(name), vectors.collection(name)
        if created:
            known.discard(alias)
        if alias in known:
            return
        try:
            if await self._live() != vectors.generation:
                return
            present = await vectors.store.aliases()
            known.update(present)
            if alias not in present:
                await vectors.store.set_aliases({alias: collection})
            known.add(alias)
        except VectorStoreRejected as error:
            known.add(alias)
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


_known: "WeakKeyDictionary[VectorStore, set[str]]" = WeakKeyDictionary()
"""Aliases that were seen in this process, or given up."""
_told: "WeakKeyDictionary[VectorStore, set[str]]" = WeakKeyDictionary()
"""Graphs whose aliases could not be made."""
