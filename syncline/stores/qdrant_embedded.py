"""The vector store port on Qdrant Edge: Qdrant's own engine in this process, on disk."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from pydantic import ValidationError

from syncline.credentials import redacted
from syncline.embedding import Vectors
from syncline.errors import VectorStoreError, VectorStoreRejected, VectorStoreUnavailable
from syncline.private_folder import make_private
from syncline.stores.open_collections import OpenCollections
from syncline.stores.vectors import PointPayload, checked_name, checked_vectors, of_other_dimensions

if TYPE_CHECKING:
    from syncline.stores.edge_shard import EdgeShard

_T = TypeVar("_T")
_OPEN_COLLECTIONS = 64  # each holds a write-ahead log, mapped files and a thread
_RETRYABLE = ("Service runtime error", "Out of memory", "Operation cancelled", "Operation timed out")


class EmbeddedQdrantStore:
    """One folder of collections. One process at a time can hold a collection, until `close`.

    Safe for concurrent use; calls on one collection take turns. Stores that are given the same `opened`, for
    several event loops, share what is open, and the last one that is closed closes it. Nothing is opened, and
    the folder is not created, before the first collection is.
    """

    def __init__(self, name: str, path: Path, *, opened: OpenCollections | None = None) -> None:
        self._name, self._path = name, path
        self._opened = opened or OpenCollections()
        self._opened.join(self)
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    async def ensure_collection(
        self, collection: str, *, dimensions: int, indexed: Sequence[str] = ()
    ) -> bool:
        created = False
        async with self._turn(collection):
            shard = await self._open(collection)
            if shard is None:
                created = await self._run(collection, lambda: self._create(collection, dimensions))
                shard = await self._open(collection)
            if shard is None:
                raise VectorStoreUnavailable(
                    self._name, f"folder {self._path / collection} vanished while it was being created."
                )
            if shard.dimensions != dimensions:
                raise of_other_dimensions(self._name, collection, found=shard.dimensions, wanted=dimensions)
            await self._run(collection, lambda: shard.index(indexed))
        return created

    async def upsert(self, collection: str, points: Sequence[PointPayload], vectors: Vectors) -> None:
        matrix = checked_vectors(self._name, points, vectors)

        def write(shard: "EdgeShard") -> None:
            if points and matrix.shape[1] != shard.dimensions:
                # The engine would refuse it too, but only after it is in the write-ahead log.
                raise VectorStoreRejected(
                    self._name,
                    f"collection '{collection}' has {shard.dimensions} dimensions, not {matrix.shape[1]}.",
                )
            shard.upsert(points, matrix)

        await self._write(collection, write)

    async def overwrite_payload(self, collection: str, points: Sequence[PointPayload]) -> None:
        await self._write(collection, lambda shard: shard.overwrite_payload(points))

    async def delete(self, collection: str, ids: Sequence[UUID]) -> None:
        await self._use(collection, lambda shard: shard.delete(ids))

    async def count(self, collection: str) -> int:
        return await self._use(collection, lambda shard: shard.count()) or 0

    async def scroll(
        self, collection: str, *, batch: int = 1000, fields: Sequence[str] | None = None
    ) -> AsyncIterator[Sequence[PointPayload]]:
        start: UUID | None = None

        def read(shard: "EdgeShard") -> tuple[list[PointPayload], UUID | None]:
            return shard.page(start, batch, fields)

        while True:
            page = await self._use(collection, read)
            if page is None:
                return
            points, start = page
            if points:
                yield points
            if start is None:
                return

    async def retrieve(self, collection: str, ids: Sequence[UUID]) -> Sequence[PointPayload]:
        return await self._use(collection, lambda shard: shard.retrieve(ids)) or []

    async def search(
        self, collection: str, vector: Sequence[float], *, limit: int
    ) -> Sequence[tuple[PointPayload, float]]:
        return await self._use(collection, lambda shard: shard.nearest(vector, limit)) or []

    async def drop_collection(self, collection: str) -> None:
        async with self._turn(collection):
            shard = await self._open(collection)
            if shard is not None:
                del self._opened.shards[collection]
                await self._run(collection, lambda: shard.remove(self._path / collection))

    async def describe(self) -> str:
        return f"Qdrant Edge {version('qdrant-edge-py')}, embedded in {self._path}"

    async def close(self) -> None:
        """Close every collection, so that another process can open them; later calls are refused."""
        self._closed = True
        if not self._opened.leave(self):
            return
        for collection in list(self._opened.shards):
            async with self._opened.turn(collection):
                await self._let_go(collection)

    @asynccontextmanager
    async def _turn(self, collection: str) -> AsyncIterator[None]:
        checked_name(self._name, collection)
        async with self._opened.turn(collection):
            if self._closed:
                raise VectorStoreUnavailable(self._name, "it has been closed; this process is stopping.")
            yield

    async def _use(self, collection: str, call: Callable[["EdgeShard"], _T]) -> _T | None:
        """Return what the call returns, or None if the collection does not exist."""
        async with self._turn(collection):
            shard = await self._open(collection)
            return None if shard is None else await self._run(collection, lambda: call(shard))

    async def _write(self, collection: str, call: Callable[["EdgeShard"], None]) -> None:
        """Make a change that needs the collection."""
        async with self._turn(collection):
            shard = await self._open(collection)
            if shard is None:
                raise VectorStoreRejected(
                    self._name, f"collection '{collection}' does not exist; the next cycle creates it."
                )
            await self._run(collection, lambda: call(shard))

    async def _open(self, collection: str) -> "EdgeShard | None":
        """Return the open shard, or None if the collection does not exist; the caller has its turn."""
        shard = self._opened.shards.get(collection)
        if shard is None:
            shard = await self._run(collection, lambda: self._load(collection))
            if shard is None:
                return None
            self._opened.shards[collection] = shard
            await self._let_idle_go(keep=collection)
        self._opened.shards.move_to_end(collection)
        return shard

    async def _let_idle_go(self, *, keep: str) -> None:
        for idle in list(self._opened.shards):
            turn = self._opened.turn(idle)
            # Only one that is free at once: two callers that wait for each other's shard would wait for ever.
            if idle != keep and len(self._opened.shards) > _OPEN_COLLECTIONS and turn.take():
                try:
                    await self._let_go(idle)
                finally:
                    turn.pass_on()

    async def _let_go(self, collection: str) -> None:
        shard = self._opened.shards.pop(collection, None)
        if shard is not None:
            await self._run(collection, shard.close)

    async def _run(self, collection: str, call: Callable[[], _T]) -> _T:
        """Run in a thread; even when cancelled, keep the collection's turn until the thread is done."""
        thread = asyncio.ensure_future(asyncio.to_thread(call))
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            await asyncio.wait([thread])
            if not thread.cancelled():
                thread.exception()  # nobody is left to hear it
            raise
        except VectorStoreError:
            raise
        except BaseException as error:
            # A panic of the engine is not an Exception, and its class cannot be imported.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            failure = self._failure(collection, error)
            if failure.retryable:
                # Its files may be gone or broken: the next attempt starts from what is on disk.
                await self._let_go(collection)
            raise failure from error

    def _load(self, collection: str) -> "EdgeShard | None":
        folder = self._path / collection
        if not folder.is_dir():
            return None
        try:
            return _shard_type(self._name).load(folder)
        except (FileNotFoundError, ValidationError):
            raise VectorStoreRejected(
                self._name,
                f"folder {folder} is not a collection of Syncline: its collection.json is missing or "
                "malformed. Move the folder away; a full rescan embeds its vectors again.",
            ) from None

    def _create(self, collection: str, dimensions: int) -> bool:
        shard_type = _shard_type(self._name)
        make_private(self._path)
        return shard_type.create(self._path / collection, dimensions)

    def _failure(self, collection: str, error: BaseException) -> VectorStoreError:
        """Return our error for one of the engine's: plain exceptions that only their text tells apart."""
        folder, text = self._path / collection, redacted(str(error) or type(error).__name__, None)
        if isinstance(error, BlockingIOError) or "WouldBlock" in text:
            return VectorStoreUnavailable(
                self._name,
                f"folder {folder} is held by another process. An embedded store serves one worker: stop the "
                "other one, or set SYNCLINE_QDRANT_URL to share a Qdrant server.",
            )
        if isinstance(error, OSError) or not isinstance(error, Exception) or text.startswith(_RETRYABLE):
            return VectorStoreUnavailable(self._name, f"folder {folder}: {text}.")
        return VectorStoreRejected(self._name, f"collection '{collection}': {text}.")


def _shard_type(store: str) -> "type[EdgeShard]":
    """Import the engine, which is an optional dependency, or raise VectorStoreRejected."""
    try:
        from syncline.stores.edge_shard import EdgeShard
    except ModuleNotFoundError as error:
        if error.name != "qdrant_edge":
            raise
        raise VectorStoreRejected(
            store,
            "the embedded vector store needs a package that is not installed: "
            'pip install "syncline[dev-stack]". Or set SYNCLINE_QDRANT_URL to a Qdrant server.',
        ) from None
    return EdgeShard
