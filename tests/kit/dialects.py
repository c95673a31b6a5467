"""How services that call themselves OpenAI-compatible answer `POST /embeddings`: the shapes, by service."""

import base64
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.kit.faulty_http import Answer, Request

__all__ = ["DIALECTS", "NATIVE", "answered", "vector_of"]

NATIVE: Final = 4
"""Dimensions of the vectors of every stub's model."""

Dialect = Callable[[Request], Answer]


def vector_of(text: str, dimensions: int = NATIVE) -> list[float]:
    """Return the vector that the stubs give a text."""
    return [float(len(text)), float(ord(text[0])), 0.5, -1.0, *[0.25] * dimensions][:dimensions]


def answered(status: int, body: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer of JSON."""
    return Answer(status, json.dumps(body).encode(), dict(headers or {}))


def _refused(status: int, message: str, **more: object) -> Answer:
    return answered(status, {"error": {"message": message, **more}})


def _listed(texts: Sequence[str], *, encoded: bool, dimensions: int = NATIVE, zero: bool = True) -> Answer:
    data = []
    for index, text in enumerate(texts):
        vector = vector_of(text, dimensions)
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        item = {"object": "embedding", "embedding": packed if encoded else vector}
        data.append(item if index == 0 and not zero else {**item, "index": index})
    tokens = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return answered(200, {"object": "list", "data": data, "model": "small", "usage": usage})


def openai(request: Request) -> Answer:
    """Answer as OpenAI does: it shortens vectors, and gives them in base64 if asked."""
    body = json.loads(request.body)
    if request.headers.get("authorization") != "Bearer sk-dialect":
        return _refused(401, "Incorrect API key provided", type="invalid_request_error")
    encoded = body.get("encoding_format") == "base64"
    return _listed(body["input"], encoded=encoded, dimensions=body.get("dimensions", NATIVE))


def azure(request: Request) -> Answer:
    """Answer as Azure does: the key in a header of its own, the version of the API in the query."""
    path, _, query = request.path.partition("?")
    if path != "/openai/deployments/emb/embeddings" or query != "api-version=2024-10-21":
        return answered(404, {"error": {"code": "404", "message": "Resource not found"}})
    if request.headers.get("api-key") != "sk-dialect" or "authorization" in request.headers:
        return answered(401, {"error": {"code": "401", "message": "Access denied"}})
    body = json.loads(request.body)
    return _listed(body["input"], encoded=body.get("encoding_format") == "base64")


def tei(request: Request) -> Answer:
    """Answer as text-embeddings-inference does: at most so many texts, errors without `error` around them."""
    texts = json.loads(request.body)["input"]
    if len(texts) > 2:
        message = f"batch size {len(texts)} > maximum allowed batch size 2"
        return answered(422, {"message": message, "code": 422, "type": "Validation"})
    return _listed(texts, encoded=json.loads(request.body).get("encoding_format") == "base64")


def vllm(request: Request) -> Answer:
    """Answer as vLLM does for a model that is not trained for shorter vectors."""
    body = json.loads(request.body)
    if "dimensions" in body:
        message = (
            'Model "small" does not support matryoshka representation, changing output dimensions will lead '
            "to poor results."
        )
        return answered(
            400,
            {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400},
        )
    return _listed(body["input"], encoded=body.get("encoding_format") == "base64")


def ollama(request: Request) -> Answer:
    """Answer as older releases of Ollama do: fields that they do not know are ignored."""
    return _listed(json.loads(request.body)["input"], encoded=False)


def llama_cpp(request: Request) -> Answer:
    """Answer as llama.cpp does: a text larger than its batch is an error of the server."""
    body = json.loads(request.body)
    if any(len(text) > 100 for text in body["input"]):
        message = "input (992 tokens) is too large to process. increase the physical batch size"
        return answered(500, {"error": {"code": 500, "message": message, "type": "server_error"}})
    return _listed(body["input"], encoded=body.get("encoding_format") == "base64")


def gemini(request: Request) -> Answer:
    """Answer as Gemini does: an index of 0 is left out."""
    return _listed(json.loads(request.body)["input"], encoded=False, zero=False)


def cohere(request: Request) -> Answer:
    """Answer as Cohere does: no base64, and no size of vectors."""
    body = json.loads(request.body)
    if body.get("encoding_format") == "base64":
        return answered(400, {"message": "base64 embedding_type parameter is not supported"})
    if "dimensions" in body:
        return answered(400, {"message": "invalid request: unknown field"})
    return _listed(body["input"], encoded=False)


def strict(request: Request) -> Answer:
    """Answer as a service made with FastAPI does that takes no field but those that it names."""
    body = json.loads(request.body)
    unknown = [name for name in body if name not in ("model", "input")]
    if unknown:
        extra = [
            {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
            for name in unknown
        ]
        return answered(422, {"detail": extra})
    return _listed(body["input"], encoded=False)


DIALECTS: Final[Mapping[str, Dialect]] = {
    "OpenAI": openai,
    "Azure OpenAI": azure,
    "text-embeddings-inference": tei,
    "vLLM": vllm,
    "Ollama": ollama,
    "llama.cpp": llama_cpp,
    "Gemini": gemini,
    "Cohere": cohere,
    "strict": strict,
}
