"""The collections of an embedded vector store that this process has open, whichever event loops use them."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet, WeakValueDictionary

from syncline.turns import Turn

if TYPE_CHECKING:
    from syncline.stores.edge_shard import EdgeShard

__all__ = ["OpenCollections"]


class OpenCollections:
    """The open shards of one folder, and whose turn it is at each: whoever uses a shard has its turn."""

    def __init__(self) -> None:
        self.shards: OrderedDict[str, EdgeShard] = OrderedDict()  # least recently used first
        self._guard = threading.Lock()
        self._turns: WeakValueDictionary[str, Turn] = WeakValueDictionary()
        self._users: WeakSet[object] = WeakSet()

    @classmethod
    def of_this_process(cls, folder: Path) -> "OpenCollections":
        """Return those of the folder, the same to all who ask: one process alone can open a shard."""
        with _guard:
            return _of_this_process.setdefault(folder.absolute(), cls())

    def join(self, user: object) -> None:
        """Count who uses them."""
        with self._guard:
            self._users.add(user)

    def leave(self, user: object) -> bool:
        """Return whether nobody is left who uses them."""
        with self._guard:
            self._users.discard(user)
            return not self._users

    def turn(self, collection: str) -> Turn:
        """Return the turn at a collection."""
        with self._guard:
            return self._turns.setdefault(collection, Turn())


_guard = threading.Lock()
_of_this_process: WeakValueDictionary[Path, OpenCollections] = WeakValueDictionary()
