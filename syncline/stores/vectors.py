"""The vector store port: the few operations that the engine needs, and nothing else."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from pydantic import JsonValue

from syncline.embedding import Vectors


@dataclass(frozen=True, slots=True)
class PointPayload:
    """A point's id and payload, without its vector."""

    id: UUID
    payload: Mapping[str, JsonValue]


class VectorStore(Protocol):
    """One Qdrant, by server or embedded. Every write is idempotent; every vector is compared by cosine.

    All methods raise VectorStoreUnavailable when a retry can help and VectorStoreRejected when it cannot.
    """

    @property
    def name(self) -> str:
        """The config key of this store, for messages."""

    async def ensure_collection(self, collection: str, *, dimensions: int, indexed: Sequence[str] = ()) -> None:
        """Create the collection if it is missing, with keyword payload indexes on `indexed`.

        Raise VectorStoreRejected, naming both numbers, if it exists with another dimension.
        """

    async def upsert(self, collection: str, points: Sequence[PointPayload], vectors: Vectors) -> None:
        """Write points with vectors (row i belongs to point i); durable when it returns."""

    async def overwrite_payload(self, collection: str, points: Sequence[PointPayload]) -> None:
        """Replace the whole payload of existing points, leaving vectors; durable when it returns."""

    async def delete(self, collection: str, ids: Sequence[UUID]) -> None:
        """Delete points; ids that do not exist are ignored; durable when it returns."""

    async def count(self, collection: str) -> int:
        """Return the exact number of points; 0 if the collection does not exist."""

    def scroll(self, collection: str, *, batch: int = 1000) -> AsyncIterator[Sequence[PointPayload]]:
        """Yield every point in id order, in batches; nothing if the collection does not exist."""

    async def search(
        self, collection: str, vector: Sequence[float], *, limit: int
    ) -> Sequence[tuple[PointPayload, float]]:
        """Return the nearest points with their cosine similarity, best first."""

    async def drop_collection(self, collection: str) -> None:
        """Delete the collection; nothing happens if it does not exist."""

    async def close(self) -> None:
        """Release connections and files."""
