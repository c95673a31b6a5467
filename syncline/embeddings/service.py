"""The protocol of embedding services: texts in, vectors out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

Vectors = npt.NDArray[np.float32]
"""Shape (texts, dimensions)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one request to the service used; several add up field by field."""

    texts: int
    """Texts that came back as vectors."""
    tokens: int | None
    """As the service counted them; None if it does not say."""
    requests: int = 1
    refused: int = 0
    """Texts of a request that it refused, whatever the reason."""


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


@runtime_checkable
class Addressed(Protocol):
    """An embedding service at an address: under another one, the same name may mean other vectors."""

    @property
    def address(self) -> str:
        """Host, port and path, without credentials."""

    @property
    def options(self) -> Mapping[str, JsonValue]:
        """The further fields of its requests."""


@runtime_checkable
class Metered(Protocol):
    """An embedding service that tells what each request used.

    `used` is called once per request, after its answer and before `embed` returns; not if none came.
    """

    used: Callable[[Usage], None] | None
