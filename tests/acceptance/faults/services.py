"""An embedding service and a Qdrant server on loopback: HTTP in front of our own embedding and of Qdrant's client."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import numpy as np
from qdrant_client import QdrantClient, models

from tests.kit.faulty_http import Answer, FaultyServer, Request

__all__ = ["DIMENSIONS", "EmbeddingServer", "QdrantFront"]

DIMENSIONS = 16


def _ok(result: object) -> Answer:
    return Answer(body=json.dumps({"result": result, "status": "ok", "time": 0.001}).encode())


class EmbeddingServer:
    """Speaks `POST /embeddings`. While it is held, it answers nobody; `asked` says that somebody has asked."""

    def __init__(self) -> None:
        self._free = threading.Event()
        self._free.set()
        self.asked = threading.Event()
        self.texts = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        """Run it, and yield its URL."""
        # The lock that FaultyServer has while it responds would hold the others up too: they are to be held.
        with FaultyServer(respond=self._respond) as server:
            yield server.url
            self._free.set()

    def hold(self) -> None:
        """Let requests wait from now on."""
        self.asked.clear()
        self._free.clear()

    def release(self) -> None:
        """Answer."""
        self._free.set()

    def _respond(self, request: Request) -> Answer:
        self.asked.set()
        self._free.wait(120)
        asked = json.loads(request.body)
        self.texts += len(asked["input"])
        data = []
        for index, text in enumerate(asked["input"]):
            vector = np.random.default_rng(abs(hash(text)) % 2**32).normal(size=DIMENSIONS).astype("<f4")
            told: object = vector.tolist()
            if asked.get("encoding_format") == "base64":
                told = base64.b64encode(vector.tobytes()).decode()
            data.append({"index": index, "embedding": told, "object": "embedding"})
        return Answer(body=json.dumps({"object": "list", "data": data}).encode())


class QdrantFront:
    """Qdrant's REST, as far as Syncline uses it, in front of the real client's own store in memory."""

    def __init__(self) -> None:
        self.store = QdrantClient(":memory:")
        # It is no store for several threads, and each request has one.
        self._one = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[FaultyServer]:
        """Run it."""
        with FaultyServer(respond=self._respond) as server:
            yield server

    def ids(self, collection: str) -> set[UUID]:
        """Return the ids of all points of a collection."""
        with self._one:
            if not self.store.collection_exists(collection):
                return set()
            points, _ = self.store.scroll(collection, limit=100_000, with_payload=False)
        return {UUID(str(point.id)) for point in points}

    def _respond(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        body = json.loads(request.body) if request.body else {}
        if path == "/":
            return Answer(body=json.dumps({"title": "qdrant", "version": "1.15.0"}).encode())
        found = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        if found is None:
            return _ok(
                {"collections": [{"name": each.name} for each in self.store.get_collections().collections]}
            )
        with self._one:
            return self._of_collection(request.method, found[1], found[2] or "", body)

    def _of_collection(self, method: str, name: str, rest: str, body: dict[str, object]) -> Answer:
        exists = self.store.collection_exists(name)
        if rest == "/exists":
            return _ok({"exists": exists})
        if (method, rest) == ("PUT", ""):
            if not exists:
                self.store.create_collection(name, models.VectorParams.model_validate(body["vectors"]))
            return _ok(True)
        if not exists:
            return Answer(
                404, json.dumps({"status": {"error": f"Collection `{name}` doesn't exist!"}}).encode()
            )
        match method, rest:
            case "GET", "":
                return _ok(self.store.get_collection(name).model_dump(mode="json"))
            case "PUT", "/index":
                pass
            case "PUT", "/points":
                batch = models.PointsBatch.model_validate(body).batch
                self.store.upsert(name, models.Batch.model_validate(batch.model_dump()))
            case "POST", "/points/batch":
                operations = models.UpdateOperations.model_validate(body).operations
                self.store.batch_update_points(name, operations)
            case "POST", "/points/delete":
                self.store.delete(name, models.PointIdsList.model_validate(body))
            case "POST", "/points/count":
                return _ok({"count": self.store.count(name).count})
            case "POST", "/points/scroll":
                asked = models.ScrollRequest.model_validate(body)
                points, after = self.store.scroll(
                    name, asked.filter, limit=asked.limit or 10, offset=asked.offset, with_vectors=False
                )
                told = [point.model_dump(mode="json") for point in points]
                return _ok({"points": told, "next_page_offset": after})
            case _:
                raise AssertionError(
                    f"Syncline asks a Qdrant server for more than this one has: {method} {rest}"
                )
        if (method, rest) == ("POST", "/points/batch"):
            return _ok([{"operation_id": 1, "status": "completed"} for _ in body["operations"]])  # type: ignore[attr-defined]
        return _ok({"operation_id": 1, "status": "completed"})
