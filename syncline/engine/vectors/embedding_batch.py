"""Embedding batch: the vectors of some texts, as far as the embedding service returned them."""

from collections.abc import Callable, Sequence

import numpy as np

from syncline.embeddings.service import EmbeddingService, Vectors
from syncline.engine.bisect import BisectingSender
from syncline.errors import EmbeddingError, EmbeddingRejected
from syncline.tracing import span

__all__ = ["EmbeddingBatch"]

_AT_ONCE = 1000
_HARMLESS = "A text that every service takes."


class EmbeddingBatch:
    """Texts, their vectors, and which texts the service rejected. Positions are those of the texts."""

    def __init__(self, service: EmbeddingService, texts: Sequence[str]) -> None:
        self._service, self._texts = service, texts
        self.vectors: Vectors = np.empty((len(texts), service.dimensions), dtype=np.float32)
        self.accepted: list[int] = []
        self.refused: dict[int, EmbeddingError] = {}
        self.failure: EmbeddingError | None = None
        """Why the whole service was given up; texts accepted before stay accepted."""

    async def fill(self, *, out_of_time: Callable[[], bool], came_back: Callable[[int], None]) -> None:
        """Embed the texts; calls `came_back` with the number of texts after each success."""

        async def send(items: range) -> None:
            texts = self._texts[items.start : items.stop]
            with span("embed", service=self._service.name, texts=len(texts)):
                vectors = np.asarray(await self._service.embed(texts))
            if vectors.shape != (len(texts), self._service.dimensions):
                raise EmbeddingRejected(
                    self._service.name,
                    f"it returned vectors of shape {vectors.shape} for {len(texts)} texts, "
                    f"of {self._service.dimensions} dimensions as it says.",
                )
            self.vectors[items.start : items.stop] = vectors
            came_back(len(texts))

        sender = BisectingSender(
            send, refusal=EmbeddingRejected, diagnose=self._diagnose, out_of_time=out_of_time
        )
        try:
            for start in range(0, len(self._texts), _AT_ONCE):
                if start and out_of_time():
                    break
                await sender.take(range(start, min(start + _AT_ONCE, len(self._texts))))
        except EmbeddingError as failure:
            self.failure = failure
        self.accepted = sorted(sender.accepted)
        self.refused = dict(sender.refused)
        self._refuse_what_is_not_finite()

    async def _diagnose(self, error: EmbeddingRejected) -> bool:
        """Raise the error if it is not about these texts: wrong credentials or a wrong model reject any."""
        try:
            await self._service.embed([_HARMLESS])
        except EmbeddingRejected:
            raise error from None
        return False

    def _refuse_what_is_not_finite(self) -> None:
        rows = set(np.flatnonzero(~np.isfinite(self.vectors).all(axis=1)).tolist())
        strange = [item for item in self.accepted if item in rows]
        if not strange:
            return
        error = EmbeddingRejected(self._service.name, "it returned numbers that are not finite.")
        self.accepted = [item for item in self.accepted if item not in rows]
        if not self.accepted and len(strange) > 1:
            self.failure = self.failure or error
        else:
            self.refused.update(dict.fromkeys(strange, error))
