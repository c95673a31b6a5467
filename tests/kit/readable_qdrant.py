"""A Qdrant server that keeps vectors, and an embedding service of many dimensions: for readers who look closely."""

import base64
import hashlib
import json
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.kit.faulty_http import Answer, FaultyServer, Request
from tests.kit.vector_services import QdrantServer, qdrant_error

__all__ = ["LargeModel", "ReadableQdrant", "large_vector"]

Vector = npt.NDArray[np.float32]


@lru_cache(maxsize=20_000)
def large_vector(model: str, text: str, dimensions: int) -> Vector:
    """Return the vector that a model gives a text: of length one, since a server makes it so."""
    seed = int.from_bytes(hashlib.sha256(f"{model}\0{text}".encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return vector / np.linalg.norm(vector)


_CUT = Answer(400, cut=True)


def _whole(request: Request) -> Any:
    """Return the body of a request; None if its client was killed while it sent it."""
    if len(request.body) < int(request.headers.get("content-length", 0)):
        return None
    return json.loads(request.body)


class LargeModel(FaultyServer):
    """An embedding service of one model, that counts what it embedded."""

    def __init__(self, model: str, dimensions: int) -> None:
        super().__init__(respond=self._answer)
        self.model, self.dimensions = model, dimensions
        self.embedded: Counter[str] = Counter()

    def _answer(self, request: Request) -> Answer:
        if request.method != "POST":
            return Answer()
        if (asked := _whole(request)) is None:
            return _CUT
        texts = asked["input"]
        self.embedded.update(texts)
        data = [
            {
                "index": index,
                "embedding": base64.b64encode(large_vector(self.model, text, self.dimensions)).decode(),
            }
            for index, text in enumerate(texts)
        ]
        usage = {"total_tokens": sum(len(text.split()) for text in texts)}
        self.requests.clear()  # of many texts, they would be kept for nothing
        return Answer(body=json.dumps({"data": data, "usage": usage}).encode())


class ReadableQdrant(QdrantServer):
    """Answers with the vectors of points, by collection or alias."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, dict[str, Vector]] = {}
        self.before = self._kept

    def _kept(self, request: Request) -> Answer | None:
        self.requests.clear()
        _, _, name, *rest = (*request.path.split("?")[0].split("/"), "", "")
        name = self.aliases.get(name, name)
        if request.method == "DELETE" and rest[0] == "":
            self.kept.pop(name, None)
        if rest[0] != "points" or rest[1] != "" or request.method not in ("PUT", "POST"):
            return None
        if name not in self.collections:
            return qdrant_error(404, f"Not found: Collection `{name}` doesn't exist!")
        if (body := _whole(request)) is None:
            return _CUT
        kept = self.kept.setdefault(name, {})
        result: object = {"operation_id": 1, "status": "completed"}
        if request.method == "PUT":
            batch = body["batch"]
            self.collections[name] |= dict(zip(batch["ids"], batch["payloads"], strict=True))
            vectors = np.array(batch["vectors"], dtype=np.float32)
            kept |= dict(zip(batch["ids"], vectors, strict=True))
        else:
            known = self.collections[name]
            result = [
                {"id": point, "payload": known[point], "vector": kept[point].tolist()}
                for point in body["ids"]
                if point in known
            ]
        return Answer(body=json.dumps({"result": result, "status": "ok", "time": 0.001}).encode())
