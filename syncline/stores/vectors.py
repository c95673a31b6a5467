"""The vector store port: the operations that the engine needs."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable
from uuid import UUID

import numpy as np
from pydantic import JsonValue
from pydantic_core import from_json, to_json

from syncline.embeddings.service import Vectors
from syncline.errors import VectorStoreRejected
from syncline.stores.collection_options import CollectionOptions

AS_IT_IS: Final = CollectionOptions()
"""All settings are left to the store."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


class JsonPayload(Mapping[str, JsonValue]):
    """A payload that is JSON already, as Postgres writes jsonb; parsed where somebody looks into it."""

    __slots__ = ("_parsed", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._parsed: Mapping[str, JsonValue] | None = None

    def json(self) -> bytes:
        """Return the payload as a body has it."""
        return self._text.encode()

    def __getitem__(self, key: str) -> JsonValue:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def _values(self) -> Mapping[str, JsonValue]:
        if self._parsed is None:
            self._parsed = from_json(self._text)
        return self._parsed


def payload_json(payload: Mapping[str, JsonValue]) -> bytes:
    """Return a payload as JSON, as a request has it: integers of any size, NaN and infinities as null."""
    if isinstance(payload, JsonPayload):
        return payload.json()
    # Not by orjson, which refuses integers that a payload may have.
    return to_json(dict(payload), inf_nan_mode="null")


@dataclass(frozen=True, slots=True)
class PointPayload:
    """A point's id and payload, without its vector."""

    id: UUID
    payload: Mapping[str, JsonValue]


class VectorStore(Protocol):
    """One Qdrant, server or embedded. Every write is idempotent; vectors are compared by cosine.

    All methods raise VectorStoreUnavailable when a retry can help and VectorStoreRejected when it cannot.
    A collection name is 1 to 200 letters, digits, `_`, `-` or `.`, beginning with a letter or digit.
    If a call contains several points with one id, the last one wins.
    """

    @property
    def name(self) -> str:
        """Config key of this store, for messages."""

    async def ensure_collection(
        self,
        collection: str,
        *,
        dimensions: int,
        indexed: Sequence[str] = (),
        options: CollectionOptions = AS_IT_IS,
    ) -> bool:
        """Create the collection if it is missing; return whether it was created.

        Either way it then has a keyword payload index on every field of `indexed`, and those of the `options`
        that the store can change; what it cannot is logged. Raises VectorStoreRejected, naming both numbers,
        if it exists with another dimension.
        """

    async def upsert(self, collection: str, points: Sequence[PointPayload], vectors: Vectors) -> None:
        """Write points with vectors (row i belongs to point i); durable when it returns.

        Raise VectorStoreRejected if the collection does not exist or a vector does not fit it.
        """

    async def overwrite_payload(self, collection: str, points: Sequence[PointPayload]) -> None:
        """Replace the whole payload of existing points, leaving vectors; durable when it returns.

        Ids that do not exist are ignored. Raise VectorStoreRejected if the collection does not exist.
        """

    async def delete(self, collection: str, ids: Sequence[UUID]) -> None:
        """Delete points; ids, or a collection, that do not exist are ignored; durable when it returns."""

    async def count(self, collection: str) -> int:
        """Return the number of points; 0 if the collection does not exist.

        It is exact unless the store forbids exact counts, as a Qdrant server in strict mode may.
        """

    async def is_empty(self, collection: str) -> bool:
        """Return whether there is no point, or no collection; no point is counted."""

    def scroll(
        self, collection: str, *, batch: int = 1000, fields: Sequence[str] | None = None
    ) -> AsyncIterator[Sequence[PointPayload]]:
        """Yield every point in ascending order of ids, in batches; nothing if the collection does not exist.

        With `fields`, only those of each payload are fetched; a point that lacks one has it not.
        """

    async def retrieve(self, collection: str, ids: Sequence[UUID]) -> Sequence[PointPayload]:
        """Return those of the points that exist, in any order; nothing if the collection does not exist."""

    async def search(
        self, collection: str, vector: Sequence[float], *, limit: int
    ) -> Sequence[tuple[PointPayload, float]]:
        """Return the nearest points with their cosine similarity, best first.

        Nothing if the collection does not exist.
        """

    async def drop_collection(self, collection: str) -> None:
        """Delete the collection; nothing happens if it does not exist."""

    async def set_aliases(self, aliases: Mapping[str, str]) -> None:
        """Make each alias lead to its collection: those that are missing are made, the others moved.

        All at once, or none. Every operation above but `ensure_collection` and `drop_collection` takes an
        alias for a collection. Raise VectorStoreRejected if a collection does not exist, or has an alias's
        name. An alias goes with its collection.
        """

    async def aliases(self) -> Mapping[str, str]:
        """Return alias -> collection, of all that the store has."""

    async def describe(self) -> str:
        """Return in a few words what answers, and its version."""

    async def close(self) -> None:
        """Release connections and files."""


@runtime_checkable
class Located(Protocol):
    """A vector store on a server."""

    @property
    def address(self) -> str:
        """Host and port, without credentials."""


def checked_name(store: str, collection: str) -> str:
    """Return the collection name, which is safe as a folder's name too, or raise VectorStoreRejected."""
    if _NAME.fullmatch(collection) is None:
        raise VectorStoreRejected(
            store,
            f"{collection!r} cannot name a collection: use 1 to 200 letters, digits, '_', '-' or '.', "
            "beginning with a letter or digit.",
        )
    return collection


def of_other_dimensions(store: str, collection: str, *, found: int, wanted: int) -> VectorStoreRejected:
    """Return the error of a collection whose vectors have another length than the embedding service's."""
    return VectorStoreRejected(
        store,
        f"collection '{collection}' has {found} dimensions, the embedding service gives {wanted}. Drop the "
        "collection (`syncline graph drop-collections`), so that the next cycle builds it again, or use the "
        "service that it was filled with.",
    )


def checked_vectors(store: str, points: Sequence[PointPayload], vectors: Vectors) -> Vectors:
    """Return the vectors as one float32 matrix with a finite row per point, or raise VectorStoreRejected.

    Qdrant itself takes a NaN without a word, and the point is never found again.
    """
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or len(matrix) != len(points):
        raise VectorStoreRejected(store, f"{len(points)} points came with vectors of shape {matrix.shape}.")
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        offender = points[int(np.argmin(finite))].id
        raise VectorStoreRejected(
            store, f"the vector of point {offender} has a component that is not finite."
        )
    return matrix
