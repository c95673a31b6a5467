"""Requests to the embedding service: a failure is the service's, or that of a text that is found by halving.

After a failure a harmless text is sent. If that fails too, the service refuses everything: the failure is
raised, and no text is blamed.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from syncline.embeddings.pace import Held, Pace, PacedRequest
from syncline.embeddings.service import EmbeddingService, Vectors
from syncline.engine.vectors.outbox import Entry
from syncline.engine.vectors.paid_vectors import Vector
from syncline.errors import EmbeddingBudgetSpent, EmbeddingError, EmbeddingRejected, EmbeddingUnavailable
from syncline.tracing import span

__all__ = ["AskedText", "Stopped", "TextRequests"]

_HARMLESS: Final = "A text that every service takes."
_TOO_MANY_REQUESTS: Final = 429
_LARGE: Final = re.compile(
    r"too (large|long|many (tokens|inputs))|reduce|maximum|max(imum)? ?context", re.IGNORECASE
)
_DEAR: Final = 5.0
"""Seconds: a request that failed later than that is halved at once instead of being sent again."""
_PAUSES: Final = 5
_LIMITS_IN_A_ROW: Final = 3
"""Rate limits with nothing answered between them after which the request itself is suspected."""


class Stopped(Exception):  # nothing failed
    """No further request is to be sent: the time is spent, or something else has failed."""


@dataclass(eq=False, slots=True)
class AskedText:
    """A text, and the entries that need its vector."""

    text: str
    text_hash: bytes
    entries: list[Entry] = field(default_factory=list)


class TextRequests:
    """Sends texts to one service; those that it refuses are found and told one by one."""

    def __init__(
        self,
        service: EmbeddingService,
        pace: Pace,
        *,
        allowed: Callable[[], Awaitable[None]],
        deliver: Callable[[Sequence[AskedText], Sequence[Vector]], None],
        refuse: Callable[[AskedText, EmbeddingError], None],
    ) -> None:
        """Store the callbacks; `allowed` is awaited before each request and raises Stopped or CycleFenced."""
        self._service, self._pace = service, pace
        self._allowed, self._deliver, self._refuse = allowed, deliver, refuse
        self._answers = self._limits = 0
        self._probing: asyncio.Task[EmbeddingError | None] | None = None

    async def send(self, texts: Sequence[AskedText], *, full: bool) -> None:
        """Embed the texts in one request, or in more if it fails.

        Raise EmbeddingError if the service refuses everything, and Stopped. Texts that were delivered or
        refused before stay so.
        """
        began = time.monotonic()
        failure = await self._failed(texts, full=full, first=True)
        if failure is None:
            return
        dear = time.monotonic() - began > _DEAR
        self._raise_if_paused(failure)
        if (outage := await self._probe()) is not None:
            raise failure if isinstance(outage, type(failure)) else outage
        # It takes other texts; what failed may have passed by now.
        if isinstance(failure, EmbeddingUnavailable) and not (dear or _is_large(failure)):
            again = await self._failed(texts)
            if again is None:
                return
            self._raise_if_paused(again)
            failure = again
        await self._halve(texts, failure)

    async def _halve(self, texts: Sequence[AskedText], failure: EmbeddingError) -> None:
        if len(texts) == 1:
            await self._convict(texts[0], failure)
            return
        middle = len(texts) // 2
        passed = 0
        for half in (texts[:middle], texts[middle:]):
            again = await self._failed(half)
            if again is None:
                passed += 1
                continue
            self._raise_if_paused(again)
            await self._halve(half, again)
        if passed == 2:
            self._pace.too_large(len(texts), sum(map(_size, texts)))

    async def _convict(self, text: AskedText, failure: EmbeddingError) -> None:
        """Refuse a text that failed alone, unless the service has stopped to take others meanwhile."""
        if (outage := await self._probe()) is not None:
            raise outage
        self._refuse(text, failure)

    def _raise_if_paused(self, failure: EmbeddingError) -> None:
        """Raise the failure if it is a pause that the service asks for."""
        if isinstance(failure, EmbeddingBudgetSpent):
            raise failure
        if not isinstance(failure, EmbeddingUnavailable):
            return
        if failure.until is not None:
            raise failure
        if failure.status == _TOO_MANY_REQUESTS and not _is_large(failure):
            self._pace.limits_in_a_row += 1
            if self._pace.limits_in_a_row < _LIMITS_IN_A_ROW:
                raise failure

    async def _failed(
        self, texts: Sequence[AskedText], *, full: bool = False, first: bool = False
    ) -> EmbeddingError | None:
        """Send one request, after short pauses; return why it failed, or None."""
        failure: EmbeddingError | None = None
        for _ in range(_PAUSES):
            try:
                async with self._pace.request() as request:
                    await self._allowed()
                    failure = await self._sent(request, texts, full=full, first=first)
            except Held as held:
                return EmbeddingUnavailable(self._service.name, f"{held}.", until=held.until)
            if not (isinstance(failure, EmbeddingUnavailable) and failure.until is not None):
                break
            self._pace.hold_until(failure.until)
        return failure

    async def _sent(
        self, request: PacedRequest, texts: Sequence[AskedText], *, full: bool, first: bool
    ) -> EmbeddingError | None:
        try:
            with span("embed", service=self._service.name, texts=len(texts)):
                vectors = self._checked(await self._service.embed([item.text for item in texts]), len(texts))
        except EmbeddingUnavailable as failure:
            # Halving sends what will fail again: that is no load.
            if failure.status == _TOO_MANY_REQUESTS or first:
                self._pace.overloaded(request)
            return failure
        except EmbeddingError as failure:
            return failure
        self._pace.answered(request, len(texts), full=full)
        finite = np.isfinite(vectors).all(axis=1)
        if finite.all():
            self._deliver(texts, list(vectors))
            return None
        strange = EmbeddingRejected(self._service.name, "it returned numbers that are not finite.")
        if not finite.any() and len(texts) > 1:
            return strange
        kept = np.flatnonzero(finite).tolist()
        for row in np.flatnonzero(~finite).tolist():
            self._refuse(texts[row], strange)
        self._deliver([texts[row] for row in kept], list(vectors[kept]))
        return None

    def _checked(self, vectors: Vectors, texts: int) -> Vectors:
        matrix = np.asarray(vectors)
        if matrix.shape != (texts, self._service.dimensions):
            raise EmbeddingRejected(
                self._service.name,
                f"it returned vectors of shape {matrix.shape} for {texts} texts, "
                f"of {self._service.dimensions} dimensions as it says.",
            )
        return matrix

    async def _probe(self) -> EmbeddingError | None:
        """Return why the service refuses a harmless text, or None; lanes that ask at once share it."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._probed())
            self._probing.add_done_callback(self._forget)
        return await asyncio.shield(self._probing)

    async def _probed(self) -> EmbeddingError | None:
        await self._allowed()
        try:
            vectors = self._checked(await self._service.embed([_HARMLESS]), 1)
        except EmbeddingError as failure:
            return failure
        if not np.isfinite(vectors).all():
            return EmbeddingRejected(self._service.name, "it returned numbers that are not finite.")
        return None

    def _forget(self, probing: "asyncio.Task[EmbeddingError | None]") -> None:
        self._probing = None
        if not probing.cancelled():
            probing.exception()  # retrieved: whoever asked may have been cancelled


def _size(item: AskedText) -> int:
    return len(item.text.encode(errors="replace"))


def _is_large(failure: EmbeddingError) -> bool:
    return isinstance(failure, EmbeddingUnavailable) and _LARGE.search(failure.problem) is not None
