"""Sized requests: many points in requests bounded by bytes, and in smaller ones where a request fails.

A failed request is sent once more, then halved, if the store still takes a harmless write. What passes in
halves was too large, and later requests are smaller; a point that fails alone is refused.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from syncline.concurrency import all_of
from syncline.errors import VectorStoreError, VectorStoreRejected, VectorStoreUnavailable

__all__ = ["SizedRequests"]

_LEAST_BYTES: Final = 16_384
_IN_VAIN: Final = 8
"""This many points refused one by one, with none accepted, are the store's fault."""
_DEAR: Final = 5.0
"""Seconds: a request that failed later than that is halved at once instead of being sent again."""
_log = structlog.get_logger(__name__)


class SizedRequests:
    """What one store is known to take in one request; learned as long as the process has the store."""

    def __init__(
        self, store: str, *, most_bytes: int = 1_000_000, most_points: int = 256, lanes: int = 4
    ) -> None:
        self._store, self._lanes = store, lanes
        self.most_bytes, self.most_points = most_bytes, most_points

    async def send(
        self,
        sizes: Sequence[int],
        send: Callable[[Sequence[int]], Awaitable[None]],
        *,
        probe: Callable[[], Awaitable[VectorStoreError | None]],
    ) -> None:
        """Send all items, by their positions, a few requests at a time, in no guaranteed order.

        `sizes`: approximate bytes of each item. `probe` returns why the store refuses a harmless write.
        Raise what made the store refuse everything; what was under way is awaited first. Raise
        VectorStoreRejected with `refused` positions if it took all others.
        """
        call = _Call(self, sizes, send, probe)
        parts = iter(self._parts(sizes))
        failures: list[VectorStoreError] = []

        async def lane() -> None:
            for part in parts:
                if failures:
                    return
                try:
                    await call.deliver(part)
                except VectorStoreError as failure:
                    failures.append(failure)

        await all_of(*(lane() for _ in range(min(self._lanes, len(sizes)))))
        if failures:
            raise failures[0]
        if call.refused:
            raise PositionsRefused(call.refused)

    def too_large(self, size: int, points: int, *, by_points: bool) -> None:
        """Note that a request failed of which each half passed."""
        if by_points:
            self.most_points = max(1, min(self.most_points, points // 2))
        else:
            self.most_bytes = max(_LEAST_BYTES, min(self.most_bytes, size // 2))
        _log.info(
            "vector store requests made smaller",
            store=self._store,
            bytes=self.most_bytes,
            points=self.most_points,
        )

    def _parts(self, sizes: Sequence[int]) -> list[range]:
        parts: list[range] = []
        start = size = 0
        for item, grown in enumerate(sizes):
            if item > start and (size + grown > self.most_bytes or item - start >= self.most_points):
                parts.append(range(start, item))
                start, size = item, 0
            size += grown
        if start < len(sizes):
            parts.append(range(start, len(sizes)))
        return parts


class PositionsRefused(Exception):  # an outcome
    """The store took all items but these."""

    def __init__(self, refused: dict[int, VectorStoreRejected]) -> None:
        self.refused = refused
        super().__init__()


class _Call:
    """The requests of one call."""

    def __init__(
        self,
        requests: SizedRequests,
        sizes: Sequence[int],
        send: Callable[[Sequence[int]], Awaitable[None]],
        probe: Callable[[], Awaitable[VectorStoreError | None]],
    ) -> None:
        self._requests, self._sizes, self._send, self._probe = requests, sizes, send, probe
        self._accepted = False
        self.refused: dict[int, VectorStoreRejected] = {}

    async def deliver(self, part: range) -> None:
        """Send the part, or what of it the store takes; raise what makes the store refuse everything."""
        began = time.monotonic()
        failure = await self._failed(part)
        if failure is None:
            return
        dear = time.monotonic() - began > _DEAR
        if not failure.of_request or await self._probe() is not None:
            raise failure
        if isinstance(failure, VectorStoreUnavailable) and not dear:
            again = await self._failed(part)
            if again is None:
                return
            failure = again
        await self._halve(part, failure)

    async def _halve(self, part: range, failure: VectorStoreError) -> None:
        if not failure.of_request:
            raise failure
        if len(part) == 1:
            await self._convict(part[0], failure)
            return
        middle = len(part) // 2
        passed = 0
        for half in (part[:middle], part[middle:]):
            again = await self._failed(half)
            if again is None:
                passed += 1
            else:
                await self._halve(half, again)
        if passed == 2:
            size = sum(self._sizes[part.start : part.stop])
            self._requests.too_large(size, len(part), by_points=isinstance(failure, VectorStoreRejected))

    async def _convict(self, item: int, failure: VectorStoreError) -> None:
        if isinstance(failure, VectorStoreRejected):
            refusal = failure
        elif await self._probe() is not None:
            raise failure
        else:
            problem = f"{failure.problem.removesuffix('.')}, at a request with this point alone."
            refusal = VectorStoreRejected(failure.store, problem)
        if len(self.refused) + 1 >= _IN_VAIN and not self._accepted:
            raise VectorStoreRejected(failure.store, failure.problem, all_points=True)
        self.refused[item] = refusal

    async def _failed(self, part: range) -> VectorStoreError | None:
        try:
            await self._send(part)
        except VectorStoreError as failure:
            return failure
        self._accepted = True
        return None
