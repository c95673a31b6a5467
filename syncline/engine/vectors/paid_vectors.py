"""Vectors that were paid for, by the hash of their text: each text is embedded once per cycle.

What the vector store has not confirmed when a cycle ends is kept for the next cycle in this process.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from syncline.embeddings.pace import Pace, pace_of
from syncline.embeddings.service import EmbeddingService

__all__ = ["PaidVectors", "Vector"]

Vector = npt.NDArray[np.float32]

_BYTES: Final = 32 * 1024 * 1024


class PaidVectors:
    """The newest vectors of one cycle, up to 32 MiB; equal texts further apart are embedded again."""

    def __init__(self, service: EmbeddingService) -> None:
        self._limit = max(1, _BYTES // (4 * service.dimensions))
        # By its pace, which is the service's own; `service` may be what one graph has wrapped around it.
        pace = pace_of(service, service.name)
        self._confirmed: OrderedDict[bytes, Vector] = OrderedDict()
        self._owed: OrderedDict[bytes, Vector] = OrderedDict()
        self._left = _left.setdefault(pace, OrderedDict())
        self._asked: set[bytes] = set()
        self._waiting: list[Callable[[], None]] = []

    def get(self, text_hash: bytes) -> Vector | None:
        """Return the vector of a text, if it is known."""
        if (vector := self._owed.get(text_hash)) is not None:
            return vector
        if (vector := self._confirmed.get(text_hash)) is not None:
            return vector
        return self._left.get(text_hash) if self._left else None

    def add(self, text_hash: bytes, vector: Vector) -> None:
        """Keep a vector that the vector store does not have yet."""
        self._owed[text_hash] = vector
        if len(self._owed) > self._limit:
            self._owed.popitem(last=False)

    def confirmed(self, text_hash: bytes) -> None:
        """Note that the vector store has it."""
        left = self._left.pop(text_hash, None) if self._left else None
        vector = self._owed.pop(text_hash, left)
        if vector is not None:
            self._confirmed[text_hash] = vector
            if len(self._confirmed) > self._limit:
                self._confirmed.popitem(last=False)

    def claim(self, text_hash: bytes) -> bool:
        """Return whether the caller may ask for a text; not while another collection's request has it."""
        if text_hash in self._asked:
            return False
        self._asked.add(text_hash)
        return True

    def release(self, text_hashes: Iterable[bytes]) -> None:
        """End the claims of a request that is over, and let all look again that wait for one of its texts."""
        self._asked.difference_update(text_hashes)
        waiting, self._waiting = self._waiting, []
        for look in waiting:
            look()

    def wait(self, look: Callable[[], None]) -> None:
        """Call `look` once after the next release."""
        self._waiting.append(look)

    def close(self) -> None:
        """Keep for the next cycle, of any graph, what the vector store does not have."""
        self._left.update(self._owed)
        while len(self._left) > self._limit:
            self._left.popitem(last=False)


_left: "WeakKeyDictionary[Pace, OrderedDict[bytes, Vector]]" = WeakKeyDictionary()
