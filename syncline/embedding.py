"""Embedding services: texts in, vectors out. The protocol, and the choice that the settings make."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from syncline.settings import Settings

Vectors = npt.NDArray[np.float32]
"""Shape (texts, dimensions)."""


class EmbeddingService(Protocol):
    """Turns texts into vectors of one dimension. Safe for concurrent use within one event loop."""

    @property
    def name(self) -> str:
        """What to call it in messages and state; no credentials. Another name means other vectors."""

    @property
    def dimensions(self) -> int:
        """Length of every vector it returns."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one vector per text, in order. Raise EmbeddingUnavailable or EmbeddingRejected."""

    async def close(self) -> None:
        """Release its connections."""


def open_embedding(settings: Settings) -> EmbeddingService:
    """Return the service that `settings.embedding` names. Nothing is connected until the first text.

    Raise EmbeddingRejected if its URL or key cannot work at all.
    """
    # Each implementation imports this module for `Vectors`, and only one of them is ever needed.
    if settings.embedding == "development":
        from syncline.embedding_development import DevelopmentEmbedding

        return DevelopmentEmbedding(settings.embedding_dimensions)
    from syncline.embedding_http import OpenAIEmbedding

    return OpenAIEmbedding(
        settings.embedding_url,
        settings.embedding_model,
        settings.embedding_dimensions,
        api_key=settings.embedding_api_key,
        batch=settings.embedding_batch,
        timeout_seconds=settings.embedding_timeout_seconds,
    )
