"""The HTTP embedding: any service that speaks OpenAI's `POST /embeddings`."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import httpx
import numpy as np
from pydantic import BaseModel, Field, JsonValue, SecretStr, ValidationError
from pydantic_core import from_json

from syncline.concurrency import each_batch
from syncline.embeddings.service import Usage, Vectors
from syncline.errors import EmbeddingError, EmbeddingRejected, EmbeddingUnavailable
from syncline.logs import redacted, sendable
from syncline.stores.answer_watch import AnswerPatience, AnswerWatch, Unanswered, unreached

_IN_FLIGHT = 4
_RETRYABLE = {408, 409, 425, 429}
_SAYING = ("error", "message", "detail", "msg")
_TELLING = 4
_PART = 16
"""Characters in a row that no one writes by chance: a message that shares them quotes the text."""
_LONGEST_BODY = 100_000
"""Longer than any message shown, so that a key is not cut in half before it is redacted."""
_LONGEST_MESSAGE = 2_000
_PATIENCE: Final = AnswerPatience(open=5, pause=10, silent=10)
"""Embedding many texts takes seconds, and each probe may be counted by whoever limits the rate."""
_FIXES = {
    401: "set SYNCLINE_EMBEDDING_API_KEY to a valid key",
    403: "set SYNCLINE_EMBEDDING_API_KEY to a key that may use this model",
    404: "check SYNCLINE_EMBEDDING_URL and SYNCLINE_EMBEDDING_MODEL",
    413: "lower SYNCLINE_EMBEDDING_BATCH",
}


class _Item(BaseModel):
    index: int
    embedding: list[float]


class _Answer(BaseModel):
    data: list[_Item] = Field(max_length=2048)


class OpenAIEmbedding:
    """Sends texts in batches, at most four requests at a time for the whole service."""

    def __init__(
        self,
        url: str,
        model: str,
        dimensions: int,
        *,
        api_key: SecretStr | None = None,
        batch: int = 256,
        timeout_seconds: float = 60,
        patience: AnswerPatience = _PATIENCE,
    ) -> None:
        """Connect lazily.

        A request is given up after `timeout_seconds`, or once the service accepts no connection at all for
        the seconds of `patience`.
        """
        self._model, self._dimensions, self._batch = model, dimensions, batch
        self._api_key = api_key
        headers: dict[str, str] = {}
        if api_key is not None:
            if not sendable(api_key):
                raise EmbeddingRejected(
                    self.name,
                    "its API key cannot be sent in an HTTP header (empty, spaces, line breaks or non-ASCII "
                    "characters); set SYNCLINE_EMBEDDING_API_KEY again.",
                )
            headers["Authorization"] = f"Bearer {api_key.get_secret_value()}"
        try:
            self._endpoint = httpx.URL(f"{url.rstrip('/')}/embeddings")
        except httpx.InvalidURL:
            self._endpoint = httpx.URL()
        if self._endpoint.scheme not in ("http", "https") or not self._endpoint.host:
            raise EmbeddingRejected(
                self.name, "its URL is not an http or https URL; set SYNCLINE_EMBEDDING_URL again."
            )
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout_seconds)
        self.used: Callable[[Usage], None] | None = None
        self._turns = asyncio.Semaphore(_IN_FLIGHT)
        self._patience = patience
        self._prober: httpx.AsyncClient | None = None
        self._watch = AnswerWatch(self._probe, patience=patience)

    @property
    def name(self) -> str:
        return f"openai-{self._model}-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def silent_since(self) -> datetime | None:
        """Since when it has answered neither request nor probe; None if it answers, as far as is known."""
        return self._watch.silent_since

    def doubt(self) -> None:
        """Send the next request only once a probe is answered."""
        self._watch.doubt()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one vector per text, in order; if a batch fails, the call fails."""
        vectors = np.empty((len(texts), self._dimensions), dtype=np.float32)

        async def send(rows: slice) -> None:
            # The service rejects a whole batch for one blank text; a blank text has no meaning to lose.
            batch = [text if text.strip() else "(empty)" for text in texts[rows]]
            async with self._turns:
                content = await self._post(batch)
            vectors[rows] = await asyncio.to_thread(self._parsed, content, len(batch))

        await each_batch(len(texts), size=self._batch, in_flight=_IN_FLIGHT, send=send)
        return vectors

    async def close(self) -> None:
        """Close the connections."""
        await self._watch.close()
        if self._prober is not None:
            await self._prober.aclose()
        await self._client.aclose()

    async def _probe(self) -> bool:
        """Return whether the service accepts a new connection; one that computes may answer nobody."""
        if self._prober is None:
            limits = httpx.Limits(max_keepalive_connections=0)
            self._prober = httpx.AsyncClient(timeout=self._patience.silent, limits=limits)
        try:
            await self._prober.head(self._endpoint)
        except httpx.HTTPError as error:
            return not unreached(error, busy_answers=True)
        return True

    async def _post(self, batch: list[str]) -> bytes:
        # Raised outside `except`: httpx's exceptions hold the request and with it the key.
        try:
            response = await self._watch.answer(
                self._client.post(
                    self._endpoint,
                    json={"model": self._model, "input": batch, "dimensions": self._dimensions},
                )
            )
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as error:
            detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            failure: EmbeddingError = EmbeddingUnavailable(
                self.name, f"the request failed ({redacted(detail, self._api_key)}); it will be retried."
            )
        except Unanswered as error:
            failure = EmbeddingUnavailable(self.name, f"{error}; it will be retried.")
        except UnicodeEncodeError:
            failure = EmbeddingRejected(self.name, "a text has lone surrogates and cannot be sent as UTF-8.")
        else:
            if response.status_code == httpx.codes.OK:
                return response.content
            failure = self._refusal(response, batch)
        raise failure

    def _refusal(self, response: httpx.Response, batch: Sequence[str]) -> EmbeddingError:
        status = response.status_code
        detail = redacted(_without(batch, _explanation(response.content)), self._api_key)
        if status in _RETRYABLE or status >= 500:
            after = response.headers.get("retry-after")
            wait = f" Retry-After: {redacted(after, self._api_key, limit=40)}." if after else ""
            return EmbeddingUnavailable(self.name, f"it answered HTTP {status}: {detail}.{wait}")
        fix = _FIXES.get(status, "check SYNCLINE_EMBEDDING_URL, _MODEL and _DIMENSIONS, and the text")
        return EmbeddingRejected(self.name, f"it answered HTTP {status}: {detail}. To fix it, {fix}.")

    def _parsed(self, content: bytes, expected: int) -> Vectors:
        problem: str
        try:
            body = from_json(content)
        except ValueError:
            # A truncated answer, or a proxy's page, which may quote our texts.
            raise EmbeddingUnavailable(
                self.name,
                f"its answer of {len(content):,} bytes is not JSON; check SYNCLINE_EMBEDDING_URL.",
            ) from None
        try:
            items = sorted(_Answer.model_validate(body).data, key=lambda item: item.index)
        except ValidationError:
            problem = "its answer is not an embedding list; check that SYNCLINE_EMBEDDING_URL is the base URL"
        else:
            lengths = {len(item.embedding) for item in items}
            if [item.index for item in items] != list(range(expected)):
                problem = f"it returned {len(items)} vectors, not one for each of {expected} texts"
            elif lengths != {self._dimensions}:
                problem = (
                    f"it returned vectors of {', '.join(map(str, sorted(lengths)))} dimensions, not "
                    f"{self._dimensions}; set SYNCLINE_EMBEDDING_DIMENSIONS to what the model gives"
                )
            else:
                # Values that are too large become infinite and are rejected below.
                with np.errstate(over="ignore"):
                    vectors = np.array([item.embedding for item in items], dtype=np.float32)
                if np.isfinite(vectors).all():
                    return vectors
                problem = "it returned numbers that are not finite"
        raise EmbeddingRejected(self.name, f"{problem}.")


def _explanation(content: bytes) -> str:
    """Return the message of an error body, in OpenAI's shape or a similar one.

    Never the body as a whole: many services quote the request in it.
    """
    try:
        body: JsonValue = from_json(content)
    except ValueError:
        return content[:_LONGEST_BODY].decode(errors="replace")
    while isinstance(body, dict):
        body = next((body[key] for key in _SAYING if key in body), None)
        # A list of problems, as FastAPI sends: take the first.
        if isinstance(body, list):
            body = next((problem for problem in body if isinstance(problem, dict)), None)
    return body if isinstance(body, str) and body else "no message"


def _without(texts: Sequence[str], message: str) -> str:
    """Return the message without the texts that it quotes, or parts of them."""
    for text in sorted(texts, key=len, reverse=True):
        for quoted in (text, json.dumps(text)[1:-1]):
            # Anything shorter is a word of the message itself, or reveals nothing.
            if len(quoted) >= _TELLING:
                message = message.replace(quoted, "…")
    message = message[:_LONGEST_MESSAGE]
    sent = "\0".join([*texts, *(json.dumps(text)[1:-1] for text in texts)])
    kept: list[str] = []
    place = 0
    while place < len(message):
        if len(message) - place >= _PART and message[place : place + _PART] in sent:
            end = place + _PART
            while end < len(message) and message[place : end + 1] in sent:
                end += 1
            kept.append("…")
            place = end
        else:
            kept.append(message[place])
            place += 1
    return "".join(kept)
