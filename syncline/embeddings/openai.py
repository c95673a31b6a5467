"""The HTTP embedding: any service that speaks OpenAI's `POST /embeddings`, in the dialect that it speaks."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import httpx
import numpy as np
from pydantic import JsonValue, SecretStr

from syncline.concurrency import each_batch
from syncline.embeddings.admission import Admission
from syncline.embeddings.answers import Answer, AnswerInvalid, AnswerUnreadable, parsed_answer
from syncline.embeddings.asked import Asked
from syncline.embeddings.endpoint import Endpoint, endpoint_of
from syncline.embeddings.pace import Pace
from syncline.embeddings.quota import Quota
from syncline.embeddings.refusals import explanation, without
from syncline.embeddings.service import Usage, Vectors
from syncline.errors import EmbeddingError, EmbeddingRejected, EmbeddingUnavailable
from syncline.logs import get_log, redacted, sendable
from syncline.stores.answer_watch import AnswerPatience, AnswerWatch, Unanswered, unreached

__all__ = ["OpenAIEmbedding"]

_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_READ_AT_ONCE: Final = 1_000_000
"""Bytes of an answer that are read without a thread, which costs more than that: 2 to 5 ms."""
_RETRYABLE: Final = {408, 409, 424, 425, 429}
_PATIENCE: Final = AnswerPatience(open=5, pause=10, silent=10)
"""Embedding many texts takes seconds, and each probe may be counted by whoever limits the rate."""
_FIXES: Final = {
    401: "set {0}_API_KEY to a valid key",
    403: "set {0}_API_KEY to a key that may use this model",
    404: "check {0}_URL and {0}_MODEL",
    413: "lower {0}_BATCH",
}


class OpenAIEmbedding:
    """Sends texts in batches, at most `lanes` requests at a time, and no more than the service's limits.

    What a service does not take (`dimensions`, base64) is left out once a request without it succeeded. A
    pause that it asks for holds for every service of this address, model and key in the process.
    """

    def __init__(
        self,
        url: str,
        model: str,
        dimensions: int,
        *,
        api_key: SecretStr | None = None,
        key_header: str | None = None,
        headers: Mapping[str, SecretStr] | None = None,
        body: Mapping[str, JsonValue] | None = None,
        send_dimensions: bool = True,
        base64: bool = True,
        batch: int = 256,
        lanes: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout_seconds: float = 60,
        variables: str = "SYNCLINE_EMBEDDING",
        patience: AnswerPatience = _PATIENCE,
    ) -> None:
        """Connect lazily.

        The key goes into `Authorization` as a Bearer token, or as it is into `key_header`, which is `api-key`
        for Azure. `headers` and `body` are sent along. A request is given up after `timeout_seconds`, or once
        the service accepts no connection at all for the seconds of `patience`. `variables`: what the names of
        its settings begin with.
        """
        self._variables = variables
        self._model, self._dimensions, self._batch = model, dimensions, batch
        self._secrets = [key for key in (api_key, *(headers or {}).values()) if key is not None]
        self._body = dict(body or {})
        self._asked = Asked("encoding_format" not in self._body and base64, send_dimensions)
        self._proven = False
        self._endpoint = self._checked(url)
        sent = {name: value.get_secret_value() for name, value in (headers or {}).items()}
        if api_key is not None:
            if not sendable(api_key):
                raise EmbeddingRejected(
                    self.name,
                    "its API key cannot be sent in an HTTP header (empty, spaces, line breaks or non-ASCII "
                    f"characters); set {variables}_API_KEY again.",
                )
            name, value = key_header or self._endpoint.key_header, api_key.get_secret_value()
            sent[name] = f"Bearer {value}" if name.lower() == "authorization" else value
        self._client = httpx.AsyncClient(headers=sent, timeout=timeout_seconds)
        self.used: Callable[[Usage], None] | None = None
        self._turns = asyncio.Semaphore(lanes)
        # Limits are those of a key.
        whose = hashlib.sha256("\0".join(sent.values()).encode()).hexdigest()
        # With other fields the model gives other vectors, and what was paid for belongs to the pace.
        asked = hashlib.sha256(json.dumps(self._body, sort_keys=True).encode()).hexdigest()
        self._pace = Pace.of_this_process(
            self.name,
            f"{self.address} {whose} {asked}",
            most_lanes=lanes,
            most_rows=batch,
            variables=variables,
        )
        quota = Quota.of(
            (self.address, model, whose),
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            variables=variables,
        )
        self._admission = Admission(self.name, self._endpoint.place, self._pace, quota)
        self._patience = patience
        self._prober: httpx.AsyncClient | None = None
        self._watch = AnswerWatch(self._probe, patience=patience)

    def _checked(self, url: str) -> Endpoint:
        try:
            return endpoint_of(url)
        except ValueError as error:
            problem = str(error)
        raise EmbeddingRejected(self.name, f"{problem}; set {self._variables}_URL again.")

    @property
    def name(self) -> str:
        return f"openai-{self._model}-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def address(self) -> str:
        """Host, port and path of the service, without credentials."""
        return self._endpoint.address

    @property
    def options(self) -> Mapping[str, JsonValue]:
        """The further fields of its requests: with others, it may give other vectors."""
        return self._body

    @property
    def silent_since(self) -> datetime | None:
        """Since when it has answered neither request nor probe; None if it answers, as far as is known."""
        return self._watch.silent_since

    def doubt(self) -> None:
        """Send the next request only once a probe is answered."""
        self._watch.doubt()

    @property
    def pace(self) -> Pace:
        return self._pace

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one vector per text, in order; if a batch fails, the call fails."""
        vectors = np.empty((len(texts), self._dimensions), dtype=np.float32)

        async def send(rows: slice) -> None:
            # The service rejects a whole batch for one blank text; a blank text has no meaning to lose.
            batch = [text if text.strip() else "(empty)" for text in texts[rows]]
            async with self._turns:
                vectors[rows] = await self._embedded(batch)

        await each_batch(len(texts), size=self._batch, in_flight=self._pace.most_lanes, send=send)
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
            await self._prober.head(self._endpoint.url)
        except httpx.HTTPError as error:
            return not unreached(error, busy_answers=True)
        return True

    async def _embedded(self, batch: list[str]) -> Vectors:
        """Return the vectors of one batch, asked for in a way that the service takes."""
        asked, before = self._asked, ""
        characters = sum(map(len, batch))
        while True:
            expected = self._admission.tokens_of(characters)
            response = await self._sent(batch, asked, tokens=expected)
            less = None
            if response.status_code == httpx.codes.OK:
                answer = await self._answer(response.content, len(batch))
                if isinstance(answer, Answer):
                    self._learn(asked)
                    self._admission.counted(characters, answer.tokens, expected=expected)
                    return answer.vectors
                problem = f"{answer.problem}{before}."
                if asked.base64 and answer.encoded:
                    less = self._instead(asked, replace(asked, base64=False))
                failure: EmbeddingError = EmbeddingRejected(self.name, problem)
            else:
                failure = self._refusal(response, batch)
                if isinstance(failure, EmbeddingRejected) or response.status_code >= 500:
                    less = self._instead(asked, asked.less(response.status_code, response.content))
                if less is not None and asked.dimensions and not less.dimensions:
                    before = f" (with `dimensions` in the request it answered HTTP {response.status_code})"
            if less is None:
                raise failure
            asked = less

    def _instead(self, asked: Asked, less: Asked | None) -> Asked | None:
        """Return what to ask instead of what was refused; None if the refusal is about something else.

        Once a request has succeeded that is what it asked, also for one that was under way by then.
        """
        if not self._proven:
            return less
        return None if asked == self._asked else self._asked

    def _learn(self, asked: Asked) -> None:
        """Ask the same way from now on: this request succeeded."""
        if self._proven:
            return
        left_out = []
        if self._asked.base64 and not asked.base64:
            left_out.append(f"{self._variables}_BASE64=false")
        if self._asked.dimensions and not asked.dimensions:
            left_out.append(f"{self._variables}_SEND_DIMENSIONS=false")
        if left_out:
            get_log().info(
                "embedding service takes less than was asked",
                service=self.name,
                place=self._endpoint.place,
                saves_a_request_at_start=" ".join(left_out),
            )
        self._asked, self._proven = asked, True

    async def _sent(self, batch: list[str], asked: Asked, *, tokens: float) -> httpx.Response:
        """Return the service's answer, whatever it is, or raise EmbeddingError."""
        await self._admission.enter(tokens)
        body: dict[str, object] = {**self._body, "model": self._model, "input": batch}
        if asked.dimensions:
            body["dimensions"] = self._dimensions
        if asked.base64:
            body["encoding_format"] = "base64"
        # Raised outside `except`: httpx's exceptions hold the request and with it the key.
        place = self._endpoint.place
        try:
            response = await self._watch.answer(self._client.post(self._endpoint.url, json=body))
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as error:
            detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            failure: EmbeddingError = EmbeddingUnavailable(
                self.name,
                f"the request to {place} failed ({self._redacted(detail)}); it will be retried.",
                unanswered=not isinstance(error, _NOT_SENT),
            )
        except Unanswered as error:
            failure = EmbeddingUnavailable(
                self.name, f"{place}: {error}; it will be retried.", unanswered=True
            )
        except UnicodeEncodeError:
            failure = EmbeddingRejected(self.name, "a text has lone surrogates and cannot be sent as UTF-8.")
        else:
            self._admission.obey(response.headers, failed=_is_retryable(response.status_code))
            return response
        raise failure

    def _parsed(self, content: bytes, texts: int) -> Answer:
        return parsed_answer(content, texts=texts, dimensions=self._dimensions, variables=self._variables)

    async def _answer(self, content: bytes, texts: int) -> Answer | AnswerInvalid:
        """Return the vectors of an answer, or why they do not fit; count what it used."""
        try:
            if len(content) <= _READ_AT_ONCE:
                answer = self._parsed(content, texts)
            else:
                answer = await asyncio.to_thread(self._parsed, content, texts)
        except AnswerUnreadable:
            failure = EmbeddingUnavailable(
                self.name,
                f"its answer of {len(content):,} bytes is not JSON; check {self._variables}_URL.",
            )
        except AnswerInvalid as invalid:
            self._count(Usage(texts=0, tokens=None, refused=texts))
            return invalid
        else:
            self._count(Usage(texts=texts, tokens=answer.tokens))
            return answer
        self._count(Usage(texts=0, tokens=None, refused=texts))
        raise failure

    def _count(self, usage: Usage) -> None:
        if self.used is not None:
            self.used(usage)

    def _refusal(self, response: httpx.Response, batch: Sequence[str]) -> EmbeddingError:
        self._count(Usage(texts=0, tokens=0, refused=len(batch)))
        status = response.status_code
        detail = self._redacted(without(batch, explanation(response.content)))
        if _is_retryable(status):
            after = response.headers.get("retry-after")
            wait = f" Retry-After: {self._redacted(after, limit=40)}." if after else ""
            return EmbeddingUnavailable(
                self.name,
                f"it answered HTTP {status}: {detail}.{wait}",
                status=status,
                until=self._pace.held_until,
            )
        fix = _FIXES.get(status, "check {0}_URL, _MODEL and _DIMENSIONS, and the text")
        return EmbeddingRejected(
            self.name, f"it answered HTTP {status}: {detail}. To fix it, {fix.format(self._variables)}."
        )

    def _redacted(self, text: str, limit: int = 300) -> str:
        for secret in self._secrets:
            text = redacted(text, secret, limit=len(text))
        return redacted(text, None, limit=limit)


def _is_retryable(status: int) -> bool:
    return status in _RETRYABLE or status >= 500
