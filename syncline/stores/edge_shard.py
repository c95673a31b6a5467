"""One collection of the embedded vector store on disk: a Qdrant Edge shard and its description. Blocking.

Imports `qdrant_edge`, an optional dependency, so import this module late. The engine's errors pass through.
"""

import errno
import fcntl
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO
from uuid import UUID

import qdrant_edge as edge
from pydantic import BaseModel

from syncline.embeddings.service import Vectors
from syncline.stores.vectors import PointPayload, payload_json

_DESCRIPTION, _SHARD = "collection.json", "shard"
_POINTS_PER_UPDATE = 1000  # the engine holds Python's GIL during an update: about 15 ms at this size
_KEPT_FREE = 64 * 2**20
"""Bytes of the disk that no write may count on: others write too, and the engine has files of its own."""
_WRITTEN_PER_BYTE = 4  # measured: a vector is in the write-ahead log, in a segment, and there once more
_NEVER_INDEX = 2**40  # kB; below this, searches scan: building HNSW graphs would stall the writes


class _Description(BaseModel):
    """Facts about a shard that the engine does not report."""

    dimensions: int


class EdgeShard:
    """An open shard; used by one thread at a time. Every write is on disk when it returns."""

    def __init__(self, folder: Path, shard: edge.EdgeShard, dimensions: int, lock: IO[str]) -> None:
        self._folder, self._shard, self.dimensions, self._lock = folder, shard, dimensions, lock

    @classmethod
    def create(cls, folder: Path, dimensions: int) -> bool:
        """Create an empty, closed shard if there is none; return whether it was created.

        Raises BlockingIOError if another process holds it.
        """
        with _locked(folder):
            missing = not folder.exists()
            if missing:
                _require_space(folder.parent)
                cls._build(folder, dimensions)
        return missing

    @staticmethod
    def _build(folder: Path, dimensions: int) -> None:
        # Built elsewhere and renamed: a process killed in between leaves no half collection.
        aside = folder.with_name(f".new-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        (aside / _SHARD).mkdir(parents=True)
        (aside / _DESCRIPTION).write_text(_Description(dimensions=dimensions).model_dump_json())
        config = edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine),
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=_NEVER_INDEX, default_segment_number=1),
            max_search_threads=1,
        )
        shard = edge.EdgeShard.create(str(aside / _SHARD), config)
        shard.flush()
        shard.close()
        aside.rename(folder)

    @classmethod
    def load(cls, folder: Path) -> "EdgeShard":
        """Open the shard in this folder.

        Raises FileNotFoundError or ValidationError if it is not ours, BlockingIOError if it is held.
        """
        lock = _locked(folder)
        try:
            description = _Description.model_validate_json((folder / _DESCRIPTION).read_bytes())
            shard = edge.EdgeShard.load(str(folder / _SHARD))
            # Reclaims the space of deleted points once they are a fifth; otherwise returns at once.
            if _has_space(folder, _size(folder)):
                shard.optimize()
        except BaseException:
            lock.close()
            raise
        return cls(folder, shard, description.dimensions, lock)

    def remove(self, folder: Path) -> None:
        """Close the shard and delete its folder."""
        with self._lock:
            self._shard.close()
            # Renamed first: an interrupted removal must not leave half a collection.
            dying = folder.with_name(f".dropped-{folder.name}")
            shutil.rmtree(dying, ignore_errors=True)
            folder.rename(dying)
            shutil.rmtree(dying)

    def close(self) -> None:
        """Close the shard, so that another process can open it."""
        with self._lock:
            self._shard.close()

    def index(self, fields: Iterable[str]) -> None:
        """Add the missing keyword payload indexes."""
        missing = set(fields) - set(self._shard.info().payload_schema)
        if missing:
            _require_space(self._folder)
        for field in sorted(missing):
            self._shard.update(edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Keyword))
        if missing:
            self._shard.flush()

    def upsert(self, points: Sequence[PointPayload], vectors: Vectors) -> None:
        """Write points with vectors of the right dimension."""
        _require_space(self._folder, _WRITTEN_PER_BYTE * (vectors.nbytes + _payload_bytes(points)))
        for start in range(0, len(points), _POINTS_PER_UPDATE):
            part = slice(start, start + _POINTS_PER_UPDATE)
            batch = [
                edge.Point(point.id, vector, dict(point.payload))
                for point, vector in zip(points[part], vectors[part], strict=True)
            ]
            self._shard.update(edge.UpdateOperation.upsert_points(batch))
        # Without this a power cut would lose data, though a killed process would not (only a flush calls
        # fsync).
        self._shard.flush()

    def overwrite_payload(self, points: Sequence[PointPayload]) -> None:
        """Replace payloads; ids that do not exist are ignored."""
        _require_space(self._folder, _WRITTEN_PER_BYTE * _payload_bytes(points))
        for point in points:
            # By filter, because the engine rejects unknown ids.
            only = edge.Filter(must=[edge.HasIdCondition({point.id})])
            self._shard.update(
                edge.UpdateOperation.overwrite_payload_by_filter(only, payload=dict(point.payload))
            )
        self._shard.flush()

    def delete(self, ids: Sequence[UUID]) -> None:
        """Delete points; ids that do not exist are ignored."""
        _require_space(self._folder)
        self._shard.update(edge.UpdateOperation.delete_points(list(ids)))
        self._shard.flush()

    def count(self) -> int:
        """Return the exact number of points."""
        return self._shard.count(edge.CountRequest(exact=True))

    def page(
        self, start: UUID | None, limit: int, fields: Sequence[str] | None = None
    ) -> tuple[list[PointPayload], UUID | None]:
        """Return (points in id order from `start`, start of the next page or None)."""
        selection = True if fields is None else list(fields) or False
        request = edge.ScrollRequest(offset=start, limit=limit, with_payload=selection, with_vector=False)
        records, following = self._shard.scroll(request)
        points = [PointPayload(UUID(str(record.id)), record.payload or {}) for record in records]
        return points, None if following is None else UUID(str(following))

    def retrieve(self, ids: Sequence[UUID]) -> list[PointPayload]:
        """Return those of the points that exist."""
        records = self._shard.retrieve(list(ids), with_payload=True, with_vector=False)
        return [PointPayload(UUID(str(record.id)), record.payload or {}) for record in records]

    def nearest(self, vector: Sequence[float], limit: int) -> list[tuple[PointPayload, float]]:
        """Return the nearest points with their cosine similarity, best first."""
        query = edge.Query.Nearest(list(vector))
        request = edge.SearchRequest(query=query, limit=limit, with_payload=True, with_vector=False)
        return [
            (PointPayload(UUID(str(found.id)), found.payload or {}), found.score)
            for found in self._shard.search(request)
        ]


def _locked(folder: Path) -> IO[str]:
    """Lock a shard's folder until the returned file is closed or this process ends, however it ends."""
    # The engine rejects a shard open elsewhere, but only after touching files that the other process is
    # writing, whose next flush then fails. So it must not even try.
    locks = folder.parent / ".locks"
    locks.mkdir(exist_ok=True)
    lock = (locks / folder.name).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        lock.close()
        raise
    return lock


def _require_space(folder: Path, written: int = 0) -> None:
    """Raise OSError (ENOSPC) unless the disk has room for what is about to be written.

    The engine writes to mapped files: without room the process gets a SIGBUS instead of an error, and again
    after each restart.
    """
    if not _has_space(folder, written):
        wanted, there = math.ceil((_KEPT_FREE + written) / 2**20), shutil.disk_usage(folder).free // 2**20
        raise OSError(errno.ENOSPC, f"its disk is full: {there} MiB are free, {wanted} MiB are needed")


def _has_space(folder: Path, written: int) -> bool:
    return shutil.disk_usage(folder).free >= _KEPT_FREE + written


def _size(folder: Path) -> int:
    """Return the bytes that the files take on disk; mapped ones are sparse."""
    return sum(512 * file.stat().st_blocks for file in folder.rglob("*") if file.is_file())


def _payload_bytes(points: Sequence[PointPayload]) -> int:
    """Return about how much the payloads are."""
    return sum(len(payload_json(point.payload)) for point in points)
