"""Embedding services: texts in, vectors out. The protocol that each implementation has."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

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
