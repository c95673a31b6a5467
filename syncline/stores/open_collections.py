"""The open collections of an embedded vector store in this process, shared by its event loops."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet, WeakValueDictionary

if TYPE_CHECKING:
    from syncline.stores.edge_shard import EdgeShard

__all__ = ["OpenCollection", "OpenCollections"]

_T = TypeVar("_T")


class OpenCollection:
    """One collection and its only thread. `shard` is None while it is closed."""

    def __init__(self, name: str) -> None:
        self.shard: EdgeShard | None = None
        self.calls = 0
        """Calls queued or running."""
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=f"qdrant-{name}")

    def close(self) -> None:
        """Close the shard if it is open; called in its thread."""
        shard, self.shard = self.shard, None
        if shard is not None:
            shard.close()


class OpenCollections:
    """The open shards of one folder. Calls on one shard run in its thread, in order of submission."""

    def __init__(self) -> None:
        # Reentrant: a call may end before its callback is added.
        self._guard = threading.RLock()
        self._collections: OrderedDict[str, OpenCollection] = OrderedDict()  # least recently used first
        self._users: WeakSet[object] = WeakSet()

    @classmethod
    def of_this_process(cls, folder: Path) -> "OpenCollections":
        """Return the folder's instance, one per process: only one process can open a shard."""
        with _guard:
            return _of_this_process.setdefault(folder.absolute(), cls())

    @property
    def shards(self) -> "Mapping[str, EdgeShard]":
        """The shards that are open now, least recently used first."""
        with self._guard:
            return {name: one.shard for name, one in self._collections.items() if one.shard is not None}

    def join(self, user: object) -> None:
        """Register a user."""
        with self._guard:
            self._users.add(user)

    def leave(self, user: object) -> bool:
        """Unregister a user; return whether none is left."""
        with self._guard:
            self._users.discard(user)
            return not self._users

    def submit(self, collection: str, call: Callable[[OpenCollection], _T]) -> Future[_T]:
        """Queue a call in the collection's thread.

        A call must not wait for another collection. A call cancelled before its start is never made.
        """
        with self._guard:
            one = self._collections.get(collection)
            if one is None:
                one = self._collections[collection] = OpenCollection(collection)
            self._collections.move_to_end(collection)
            one.calls += 1
            future = one.executor.submit(call, one)
            future.add_done_callback(lambda _: self._ended(collection, one))
            return future

    def unused(self, most: int) -> Sequence[str]:
        """Return idle open collections to close so that at most `most` stay open."""
        with self._guard:
            open_ = [(name, one) for name, one in self._collections.items() if one.shard is not None]
            return [name for name, one in open_ if not one.calls][: max(0, len(open_) - most)]

    def _ended(self, collection: str, one: OpenCollection) -> None:
        with self._guard:
            one.calls -= 1
            # A thread exists while its collection is open or in use.
            if not one.calls and one.shard is None:
                del self._collections[collection]
                one.executor.shutdown(wait=False)


_guard = threading.Lock()
_of_this_process: WeakValueDictionary[Path, OpenCollections] = WeakValueDictionary()
