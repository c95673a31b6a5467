"""Answers of an OpenAI-compatible service, in every shape that services give them: vectors and usage."""

import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, Field, JsonValue, ValidationError

from syncline.embeddings.service import Vectors

__all__ = ["Answer", "AnswerInvalid", "AnswerUnreadable", "parsed_answer"]

_NO_LIST = "its answer is not an embedding list; check that {}_URL is the base URL"


class AnswerUnreadable(Exception):
    """The answer is no JSON: it was cut, or a proxy wrote it."""


class AnswerInvalid(Exception):
    """The answer has not one vector of the right length for each text. It never quotes the answer.

    `encoded`: whether a vector came in base64, so that it may fit if it is asked for in numbers.
    """

    def __init__(self, problem: str, *, encoded: bool = False, found: int | None = None) -> None:
        self.problem, self.encoded, self.found = problem, encoded, found
        super().__init__(problem)


class _Item(BaseModel):
    index: int | None = None
    embedding: list[float] | str


class _Body(BaseModel):
    data: list[_Item] = Field(max_length=2048)
    usage: JsonValue = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One vector per text, in order."""

    vectors: Vectors
    tokens: int | None
    """As the service counted them; None if it does not say."""


def parsed_answer(
    content: bytes, *, texts: int, dimensions: int, variables: str = "SYNCLINE_EMBEDDING"
) -> Answer:
    """Return the vectors of an answer, or raise AnswerUnreadable or AnswerInvalid.

    A vector is a list of numbers, or base64 of float32, little endian. One without an `index` has the index
    of its position: some services leave out all, and those that speak protobuf leave out 0. `variables`: what
    the names of the service's settings begin with.
    """
    if (encoded_answer := _of_base64(content, texts=texts, dimensions=dimensions)) is not None:
        return encoded_answer
    try:
        body = _Body.model_validate_json(content)
    except ValidationError as error:
        # A truncated answer, or a proxy's page, which may quote our texts: not chained.
        if (
            error.errors(include_input=False, include_url=False, include_context=False)[0]["type"]
            == "json_invalid"
        ):
            raise AnswerUnreadable from None
        raise AnswerInvalid(_NO_LIST.format(variables)) from None
    encoded = any(isinstance(item.embedding, str) for item in body.data)
    # Values that are too large become infinite and are rejected below.
    with np.errstate(over="ignore"):
        rows = [_vector(item.embedding, variables) for item in body.data]
    order = _order([item.index for item in body.data], texts)
    if isinstance(order, str):
        raise AnswerInvalid(order, encoded=encoded)
    lengths = sorted({len(row) for row in rows})
    if lengths != [dimensions]:
        raise AnswerInvalid(
            f"it returned vectors of {', '.join(map(str, lengths))} dimensions, not {dimensions}; set "
            f"{variables}_DIMENSIONS to what the model gives",
            encoded=encoded,
            found=lengths[0] if len(lengths) == 1 else None,
        )
    vectors = np.empty((texts, dimensions), dtype=np.float32)
    vectors[order] = rows
    if not np.isfinite(vectors).all():
        raise AnswerInvalid("it returned numbers that are not finite", encoded=encoded)
    return Answer(vectors, _tokens(body.usage))


def _of_base64(content: bytes, *, texts: int, dimensions: int) -> Answer | None:
    """Return an answer of the most common shape, in half the CPU; None if it has another."""
    try:
        body = orjson.loads(content)
        data = body["data"]
        embeddings = [item["embedding"] for item in data]
        if len(data) != texts or not all(type(embedding) is str for embedding in embeddings):
            return None
        rows = [binascii.a2b_base64(embedding, strict_mode=True) for embedding in embeddings]
    except (orjson.JSONDecodeError, binascii.Error, KeyError, TypeError, ValueError):
        return None
    numbers = [item.get("index") for item in data]
    if any(len(row) != 4 * dimensions for row in rows) or numbers != list(range(texts)):
        return None
    vectors = np.frombuffer(b"".join(rows), dtype="<f4").reshape(texts, dimensions)
    if not np.isfinite(vectors).all():
        return None
    return Answer(vectors.astype(np.float32, copy=False), _tokens(body.get("usage")))


def _vector(embedding: list[float] | str, variables: str) -> npt.NDArray[np.float32]:
    if not isinstance(embedding, str):
        return np.array(embedding, dtype=np.float32)
    try:
        return np.frombuffer(binascii.a2b_base64(embedding, strict_mode=True), dtype="<f4")
    except (binascii.Error, ValueError):
        raise AnswerInvalid(_NO_LIST.format(variables), encoded=True) from None


def _order(numbers: Sequence[int | None], texts: int) -> Sequence[int] | str:
    """Return the text of each vector, or what is wrong with their numbers."""
    if len(numbers) != texts:
        return f"it returned {len(numbers)} vectors, not one for each of {texts} texts"
    absent = set(range(texts)).difference(numbers)
    unnumbered = sum(number is None for number in numbers)
    if unnumbered == 1 and len(absent) == 1:
        (only,) = absent
        order = [only if number is None else number for number in numbers]
    else:
        order = [place if number is None else number for place, number in enumerate(numbers)]
    if sorted(order) != list(range(texts)):
        said = ", ".join("none" if number is None else str(number) for number in numbers[:5])
        more = ", …" if texts > len(numbers[:5]) else ""
        return (
            f"its vectors have the indexes {said}{more}, not one for each of {texts} texts from 0 to "
            f"{texts - 1}: which is whose cannot be known"
        )
    return order


def _tokens(usage: JsonValue) -> int | None:
    if not isinstance(usage, dict):
        return None
    for key in ("total_tokens", "prompt_tokens"):
        count = usage.get(key)
        if isinstance(count, int) and not isinstance(count, bool) and count > 0:
            return count
    return None
