"""Stand-ins over real HTTP: an embedding service, and as much of a Qdrant server as the engine uses."""

import json
import math
from collections import Counter
from collections.abc import Callable, Collection

from tests.kit.faulty_http import Answer, FaultyServer, Request

DIMENSIONS = 8


class EmbeddingServer(FaultyServer):
    """An embedding service that remembers what it embedded, and refuses what `refuses` says."""

    def __init__(self) -> None:
        super().__init__(respond=self._answer)
        self.refuses: Callable[[str], bool] = lambda text: False
        self.strange: Callable[[str], bool] = lambda text: False
        self.failing: Answer | None = None
        self.before: Callable[[list[str]], Answer | None] = lambda texts: None
        """May answer in its place."""
        self.dimensions = DIMENSIONS
        self.embedded: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    def _answer(self, request: Request) -> Answer:
        texts = json.loads(request.body)["input"]
        self.asked.update(texts)
        if self.failing is not None:
            return self.failing
        if (told := self.before(texts)) is not None:
            return told
        if any(map(self.refuses, texts)):
            return Answer(400, b'{"error": {"message": "the input violates the content policy"}}')
        self.embedded.update(texts)
        return self.answer_for(texts)

    def answer_for(self, texts: list[str]) -> Answer:
        """Return the vectors of the texts."""
        vectors = [
            [float(byte) for byte in text.encode()[-self.dimensions :].rjust(self.dimensions, b" ")]
            for text in texts
        ]
        for text, vector in zip(texts, vectors, strict=True):
            if self.strange(text):
                vector[0] = math.nan
        data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        return Answer(body=json.dumps({"data": data}).encode())


class QdrantServer(FaultyServer):
    """As much of a Qdrant server as the engine uses; `before` may answer in its place."""

    def __init__(self) -> None:
        super().__init__(respond=self._answer)
        self.before: Callable[[Request], Answer | None] = lambda request: None
        self.collections: dict[str, dict[str, object]] = {}
        self.vectors: dict[str, list[float]] = {}
        self.sizes: dict[str, int] = {}
        self.aliases: dict[str, str] = {}

    def applies_but_does_not_answer(self, request: Request) -> Answer:
        """Do what is asked for, let nobody know, and fail for everything from then on."""
        self.before = lambda request: None
        self._answer(request)
        self.before = lambda request: qdrant_error(503, "it took too long")
        return qdrant_error(503, "it took too long")

    def _answer(self, request: Request) -> Answer:
        told = self.before(request)
        if told is not None:
            return told
        if request.path == "/healthz":
            return Answer()
        if (said := answer_of_aliases(request, self.aliases, self.collections)) is not None:
            return said
        _, _, name, *rest = request.path.split("?")[0].split("/")
        name = self.aliases.get(name, name)
        body = json.loads(request.body or b"{}")
        done = {"operation_id": 1, "status": "completed"}
        if rest == ["exists"]:
            return _result({"exists": name in self.collections})
        if not rest and request.method == "PUT":
            self.collections[name], self.sizes[name] = {}, body["vectors"]["size"]
            return _result(True)
        if name not in self.collections:
            return qdrant_error(404, f"Not found: Collection `{name}` doesn't exist!")
        points = self.collections[name]
        match rest:
            case [] if request.method == "DELETE":
                del self.collections[name]
                forget_aliases(self.aliases, name)
                return _result(True)
            case []:
                return _result(_described(self.sizes[name]))
            case ["index"]:
                return _result(done)
            case ["points"]:
                points |= dict(zip(body["batch"]["ids"], body["batch"]["payloads"], strict=True))
                self.vectors |= dict(zip(body["batch"]["ids"], body["batch"]["vectors"], strict=True))
                return _result(done)
            case ["points", "batch"]:
                for operation in body["operations"]:
                    change = operation["overwrite_payload"]
                    for point in change["filter"]["must"][0]["has_id"]:
                        if point in points:
                            points[point] = change["payload"]
                return _result([done] * len(body["operations"]))
            case ["points", "delete"]:
                for point in body["points"]:
                    points.pop(point, None)
                return _result(done)
            case ["points", "count"]:
                return _result({"count": len(points)})
            case ["points", "scroll"]:
                found = [{"id": point, "payload": points[point]} for point in sorted(points)]
                return _result({"points": found, "next_page_offset": None})
        raise NotImplementedError(request.path)


def answer_of_aliases(
    request: Request, aliases: dict[str, str], collections: Collection[str]
) -> Answer | None:
    """Return the answer of a Qdrant server to a request on aliases, which it may change; None to others."""
    path = request.path.split("?")[0]
    if path == "/aliases":
        return _result(
            {"aliases": [{"alias_name": one, "collection_name": of} for one, of in aliases.items()]}
        )
    if path != "/collections/aliases":
        return None
    changed = dict(aliases)
    for action in json.loads(request.body)["actions"]:
        if "delete_alias" in action:
            changed.pop(action["delete_alias"]["alias_name"], None)
            continue
        alias, name = (action["create_alias"][key] for key in ("alias_name", "collection_name"))
        if name not in collections:
            return qdrant_error(404, f"Not found: Collection `{name}` doesn't exist!")
        if alias in collections:
            return qdrant_error(400, f"Wrong input: Collection `{alias}` already exists!")
        changed[alias] = name
    aliases.clear()
    aliases.update(changed)
    return _result(True)


def forget_aliases(aliases: dict[str, str], collection: str) -> None:
    """Remove the aliases of a collection that is dropped."""
    for alias in [one for one, of in aliases.items() if of == collection]:
        del aliases[alias]


def _result(value: object) -> Answer:
    return Answer(body=json.dumps({"result": value, "status": "ok", "time": 0.001}).encode())


def is_upsert(request: Request) -> bool:
    """Return whether a client of Qdrant writes points with it."""
    return request.method == "PUT" and request.path.split("?")[0].endswith("/points")


def qdrant_error(status: int, text: str) -> Answer:
    return Answer(status, json.dumps({"status": {"error": text}, "time": 0.001}).encode())


def _described(size: int) -> dict[str, object]:
    optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
    return {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "config": {
            "params": {"vectors": {"size": size, "distance": "Cosine"}},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {**optimizer, "flush_interval_sec": 5},
        },
        "payload_schema": {},
    }
