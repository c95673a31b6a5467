"""The vector store on Qdrant Edge: Qdrant's engine embedded in this process, on disk."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import structlog
from pydantic import ValidationError

from syncline.embeddings.service import Vectors
from syncline.errors import VectorStoreError, VectorStoreRejected, VectorStoreUnavailable
from syncline.logs import redacted
from syncline.private_folder import make_private
from syncline.stores.collection_options import CollectionOptions
from syncline.stores.edge_aliases import EdgeAliases
from syncline.stores.open_collections import OpenCollection, OpenCollections
from syncline.stores.vectors import (
    AS_IT_IS,
    PointPayload,
    checked_name,
    checked_vectors,
    of_other_dimensions,
)

if TYPE_CHECKING:
    from syncline.stores.edge_shard import EdgeShard

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)
_OPEN_COLLECTIONS = 64  # each holds a write-ahead log, mapped files and a thread
_RETRYABLE = ("Service runtime error", "Out of memory", "Operation cancelled", "Operation timed out")


class EmbeddedQdrantStore:
    """One folder of collections. One process at a time can hold a collection, until `close`.

    Safe for concurrent use: each open collection has a thread that runs its calls one by one. Stores given
    the same `opened`, for several event loops, share the open collections, and the last `close` closes them.
    Nothing is opened, nor the folder created, before the first collection is.
    """

    def __init__(self, name: str, path: Path, *, opened: OpenCollections | None = None) -> None:
        self._name, self._path = name, path
        self._opened = opened or OpenCollections()
        self._opened.join(self)
        self._aliases = EdgeAliases(path)
        self._closed = False
        self._options_said = False

    @property
    def name(self) -> str:
        return self._name

    async def ensure_collection(
        self,
        collection: str,
        *,
        dimensions: int,
        indexed: Sequence[str] = (),
        options: CollectionOptions = AS_IT_IS,
    ) -> bool:
        if options.given and not self._options_said:
            self._options_said = True
            _log.info("embedded vector store has no settings of collections", settings=options.given)

        def ensure(one: OpenCollection) -> bool:
            shard, created = self._open(collection, one), False
            if shard is None:
                created = self._create(collection, dimensions)
                shard = self._open(collection, one)
            if shard is None:
                raise VectorStoreUnavailable(
                    self._name, f"folder {self._path / collection} disappeared while it was being created."
                )
            if shard.dimensions != dimensions:
                raise of_other_dimensions(self._name, collection, found=shard.dimensions, wanted=dimensions)
            shard.index(indexed)
            return created

        return await self._run(collection, ensure)

    async def upsert(self, collection: str, points: Sequence[PointPayload], vectors: Vectors) -> None:
        matrix = checked_vectors(self._name, points, vectors)

        def write(shard: "EdgeShard") -> None:
            if points and matrix.shape[1] != shard.dimensions:
                # The engine would reject it too, but only after writing it to the write-ahead log.
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

    async def is_empty(self, collection: str) -> bool:
        return await self.count(collection) == 0

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
        def drop(one: OpenCollection) -> None:
            self._forget_aliases(collection)
            shard, one.shard = self._open(collection, one), None
            if shard is not None:
                shard.remove(self._path / collection)

        await self._run(collection, drop)

    async def set_aliases(self, aliases: Mapping[str, str]) -> None:
        if not aliases:
            return
        for name in (*aliases, *aliases.values()):
            checked_name(self._name, name)

        def change(present: Mapping[str, str]) -> Mapping[str, str]:
            for alias, collection in aliases.items():
                if not (self._path / collection).is_dir():
                    raise VectorStoreRejected(self._name, f"collection '{collection}' does not exist.")
                if (self._path / alias).exists():
                    raise VectorStoreRejected(
                        self._name, f"'{alias}' is a collection, so it cannot be an alias of another."
                    )
            return {**present, **aliases}

        with self._alias_errors():
            self._aliases.change(change)

    async def aliases(self) -> Mapping[str, str]:
        with self._alias_errors():
            return self._aliases.read()

    async def describe(self) -> str:
        return f"Qdrant Edge {version('qdrant-edge-py')}, embedded in {self._path}"

    async def close(self) -> None:
        """Close every collection, so that another process can open them; later calls are rejected."""
        self._closed = True
        if not self._opened.leave(self):
            return
        for collection in self._opened.shards:
            await self._close(collection)

    async def _use(self, collection: str, call: Callable[["EdgeShard"], _T]) -> _T | None:
        """Return what the call returns, or None if the collection does not exist."""

        def use(one: OpenCollection) -> _T | None:
            shard = self._open(collection, one)
            return None if shard is None else call(shard)

        return await self._run(self._collection_of(collection), use)

    async def _write(self, collection: str, call: Callable[["EdgeShard"], None]) -> None:
        """Run a change that needs the collection to exist."""

        def write(one: OpenCollection) -> None:
            shard = self._open(collection, one)
            if shard is None:
                raise VectorStoreRejected(
                    self._name, f"collection '{collection}' does not exist; the next cycle creates it."
                )
            call(shard)

        await self._run(self._collection_of(collection), write)

    def _collection_of(self, name: str) -> str:
        with self._alias_errors():
            return self._aliases.collection_of(name)

    def _forget_aliases(self, collection: str) -> None:
        if collection in self._aliases.read().values():
            self._aliases.change(
                lambda present: {alias: name for alias, name in present.items() if name != collection}
            )

    @contextmanager
    def _alias_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise VectorStoreUnavailable(self._name, f"the aliases in {self._path}: {error}.") from error
        except ValidationError:
            raise VectorStoreRejected(
                self._name,
                f"the file with the aliases in {self._path} is malformed. "
                "Delete it; a restarted worker makes them again.",
            ) from None

    async def _run(self, collection: str, call: Callable[[OpenCollection], _T]) -> _T:
        """Run the call in the collection's thread, then close the least recently used collections."""
        checked_name(self._name, collection)

        def unless_closed(one: OpenCollection) -> _T:
            if self._closed:
                raise VectorStoreUnavailable(self._name, "it has been closed; this process is stopping.")
            return call(one)

        done = await self._submit(collection, unless_closed)
        for unused in self._opened.unused(_OPEN_COLLECTIONS):
            await self._close(unused)
        return done

    async def _close(self, collection: str) -> None:
        await self._submit(collection, OpenCollection.close)

    async def _submit(self, collection: str, call: Callable[[OpenCollection], _T]) -> _T:
        """Run the call in the collection's thread; once it has started, a cancelled caller waits."""
        submitted = self._opened.submit(collection, partial(self._translated, collection, call))
        ended = asyncio.wrap_future(submitted)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            if not submitted.cancel():
                await asyncio.wait([ended])
                if not ended.cancelled():
                    ended.exception()  # retrieved, not reported: the caller is gone
            raise

    def _translated(self, collection: str, call: Callable[[OpenCollection], _T], one: OpenCollection) -> _T:
        """Run the call; map the engine's errors to ours."""
        try:
            return call(one)
        except VectorStoreError:
            raise
        except BaseException as error:
            # A panic of the engine is not an Exception, and its class cannot be imported.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            failure = self._failure(collection, error)
            if failure.retryable:
                # Its files may be missing or broken: the next attempt loads from disk.
                self._translated(collection, OpenCollection.close, one)
            raise failure from error

    def _open(self, collection: str, one: OpenCollection) -> "EdgeShard | None":
        """Return the open shard, or None if the collection does not exist."""
        if one.shard is None:
            one.shard = self._load(collection)
        return one.shard

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
        """Map an engine error to ours: plain exceptions, distinguished only by their text."""
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
