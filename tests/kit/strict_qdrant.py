"""A Qdrant server on loopback with what strict mode and access control do, as its source has it.

Limits and their messages are those of `lib/collection/src/operations/verification` of Qdrant 1.16; a strict
refusal is HTTP 400 (403 until 1.13), a rate limit 429 with `Retry-After`, a missing right 403.
"""

import json
from collections.abc import Callable
from typing import Any

from tests.kit.faulty_http import Answer, FaultyServer, Request
from tests.kit.vector_services import answer_of_aliases, forget_aliases

__all__ = ["StrictQdrant"]

_DONE = {"operation_id": 1, "status": "completed"}


class StrictQdrant(FaultyServer):
    """Collections with points, a config, and a `strict_mode_config` that is enforced."""

    def __init__(self, **strict: object) -> None:
        super().__init__(respond=self._answer)
        self.strict = strict
        self.forbids: Callable[[Request], str | None] = lambda request: None
        self.points: dict[str, dict[str, Any]] = {}
        self.config: dict[str, dict[str, Any]] = {}
        self.pauses = 0
        self.aliases: dict[str, str] = {}

    def sent(self, ending: str) -> list[dict[str, Any]]:
        """Return the bodies of the requests to a path."""
        found = [request for request in self.requests if request.path.split("?")[0].endswith(ending)]
        return [json.loads(request.body or b"{}") for request in found]

    def _answer(self, request: Request) -> Answer:
        denied = self.forbids(request)
        if denied is not None:
            return _error(403, f"Forbidden: {denied}")
        if (said := answer_of_aliases(request, self.aliases, self.points)) is not None:
            return said
        _, _, name, *rest = request.path.split("?")[0].split("/")
        body = json.loads(request.body or b"{}")
        name = self.aliases.get(name, name)
        if rest == ["exists"]:
            return _result({"exists": name in self.points})
        if not rest and request.method == "PUT":
            self.points[name] = {}
            self.config[name] = _config(body)
            return _result(True)
        if name not in self.points:
            return _error(404, f"Not found: Collection `{name}` doesn't exist!")
        points = self.points[name]
        match rest:
            case [] if request.method == "PATCH":
                _update(self.config[name], body)
                return _result(True)
            case [] if request.method == "DELETE":
                del self.points[name]
                forget_aliases(self.aliases, name)
                return _result(True)
            case []:
                return _result(_info(self.config[name]))
            case ["index"]:
                return _result(_DONE)
            case ["points"] if request.method == "PUT":
                batch = body["batch"]
                answer = self._limited(len(batch["ids"]), "upsert_max_batchsize", "upsert limit", _DONE)
                if answer.status == 200:
                    points |= dict(zip(batch["ids"], batch["payloads"], strict=True))
                return answer
            case ["points"]:
                return _result([{"id": one, "payload": points[one]} for one in body["ids"] if one in points])
            case ["points", "batch"]:
                for operation in body["operations"]:
                    change = operation["overwrite_payload"]
                    for one in change["filter"]["must"][0]["has_id"]:
                        if one in points:
                            points[one] = change["payload"]
                return _result([_DONE] * len(body["operations"]))
            case ["points", "delete"]:
                for one in body["points"]:
                    points.pop(one, None)
                return _result(_DONE)
            case ["points", "count"]:
                if body["exact"] and self.strict.get("search_allow_exact") is False:
                    return _refused("Exact search disabled!", "Set exact=false.")
                return _result({"count": len(points)})
            case ["points", "scroll"]:
                if self.pauses:
                    self.pauses -= 1
                    problem = (
                        "Read rate limit exceeded: Operation requires 1 tokens but only 0.0 were available"
                    )
                    return Answer(429, _said(f"Rate limiting exceeded: {problem}"), {"retry-after": "1"})
                limit = body.get("limit", 10)
                rest_of = sorted(one for one in points if body.get("offset") is None or one >= body["offset"])
                page, following = rest_of[:limit], rest_of[limit : limit + 1]
                found = [{"id": one, "payload": points[one]} for one in page]
                answer = {"points": found, "next_page_offset": following[0] if following else None}
                return self._limited(limit, "max_query_limit", "limit", answer)
        raise NotImplementedError(request.path)

    def _limited(self, value: int, limit: str, parameter: str, answer: object) -> Answer:
        allowed = self.strict.get(limit)
        if isinstance(allowed, int) and value > allowed:
            return _refused(
                f'Limit exceeded {value} > {allowed} for "{parameter}"',
                f'Reduce the "{parameter}" parameter to or below {allowed}.',
            )
        return _result(answer)


def _said(text: str) -> bytes:
    return json.dumps({"status": {"error": text}, "time": 0.001}).encode()


def _error(status: int, text: str) -> Answer:
    return Answer(status, _said(text))


def _refused(error: str, solution: str) -> Answer:
    return _error(400, f"Bad request: {error}. Help: {solution}")


def _result(value: object) -> Answer:
    return Answer(body=json.dumps({"result": value, "status": "ok", "time": 0.001}).encode())


def _given(fields: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (fields or {}).items() if value is not None}


def _config(body: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a new collection, with Qdrant's defaults."""
    return {
        "params": {
            "vectors": _given(body["vectors"]),
            "shard_number": body.get("shard_number") or 1,
            "replication_factor": body.get("replication_factor") or 1,
            "write_consistency_factor": body.get("write_consistency_factor") or 1,
            "on_disk_payload": body.get("on_disk_payload") is not False,
        },
        "hnsw_config": {
            "m": 16,
            "ef_construct": 100,
            "full_scan_threshold": 10000,
            **_given(body.get("hnsw_config")),
        },
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
        "quantization_config": body.get("quantization_config"),
    }


def _update(config: dict[str, Any], body: dict[str, Any]) -> None:
    config["params"] |= _given(body.get("params"))
    config["params"]["vectors"] |= _given((body.get("vectors") or {}).get(""))
    config["hnsw_config"] |= _given(body.get("hnsw_config"))
    if body.get("quantization_config") is not None:
        wanted = body["quantization_config"]
        config["quantization_config"] = None if wanted == "Disabled" else wanted


def _info(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "config": config,
        "payload_schema": {},
    }
