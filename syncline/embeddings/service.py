"""The protocol of embedding services: texts in, vectors out."""

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
        """Name in messages and state; no credentials. A different name means different vectors."""

    @property
    def dimensions(self) -> int:
        """Length of every vector it returns."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one vector per text, in order. Raise EmbeddingUnavailable or EmbeddingRejected."""

    async def close(self) -> None:
        """Release its connections."""
