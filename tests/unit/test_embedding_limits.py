"""The limits of an embedding service: pauses that it asks for, and the quota of the settings."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from syncline.embeddings.openai import OpenAIEmbedding
from syncline.embeddings.pauses import pause_asked
from syncline.embeddings.quota import Quota
from syncline.errors import EmbeddingUnavailable
from tests.kit.dialects import NATIVE, answered, openai, vector_of
from tests.kit.faulty_http import Answer, FaultyServer, Request

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def service_on(url: str, **more: float) -> OpenAIEmbedding:
    return OpenAIEmbedding(
        url, "small", NATIVE, api_key=SecretStr("sk-dialect"), batch=2, timeout_seconds=2,
        requests_per_minute=more.get("requests"), tokens_per_minute=more.get("tokens"),
    )  # fmt: skip


def texts_of(requests: list[Request]) -> list[str]:
    return [text for request in requests for text in json.loads(request.body)["input"]]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Sun, 29 Nov 2026 12:00:20 GMT"}, 20),
        # The service's clock is an hour ahead of ours.
        ({"retry-after": "Sun, 29 Nov 2026 13:00:20 GMT", "date": "Sun, 29 Nov 2026 13:00:00 GMT"}, 20),
        ({"retry-after": "30", "retry-after-ms": "250"}, 0.25),
        ({"x-ratelimit-reset-requests": "1m30.5s"}, 90.5),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "6s"}, 6),
        (
            {
                "x-ratelimit-remaining-requests": "99", "x-ratelimit-reset-requests": "10m",
                "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2s",
            },
            2,
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) + 7)}, 7),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "9"}, 9),
        ({"x-ratelimit-reset-requests": "2026-11-29T12:00:03Z"}, 3),
        ({"retry-after": "999999999"}, 86_400),
        ({"retry-after": "Sun, 29 Nov 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_a_pause_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    pause = pause_asked(headers, refused=True, now=NOW)
    assert (None if pause is None else pause[0]) == seconds


def test_a_success_asks_for_a_pause_only_once_its_limit_is_used_up() -> None:
    reset = {"x-ratelimit-reset-requests": "8s", "retry-after": "5"}
    assert pause_asked({**reset, "x-ratelimit-remaining-requests": "1"}, refused=False, now=NOW) is None
    assert pause_asked(reset, refused=False, now=NOW) is None
    used_up = pause_asked({**reset, "x-ratelimit-remaining-requests": "0"}, refused=False, now=NOW)
    assert used_up == (8, "x-ratelimit-reset-requests")


async def test_a_pause_is_kept_by_every_client_of_the_service_and_each_text_is_sent_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def limited(request: Request) -> Answer:
        if len(server.requests) == 2:
            return answered(429, {"error": {"message": "slow down"}}, {"retry-after": "30"})
        return openai(request)

    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    with FaultyServer(respond=limited) as server:
        one, other = service_on(server.url), service_on(server.url)
        assert (await one.embed(texts[:2])).tolist() == [vector_of(text) for text in texts[:2]]
        with pytest.raises(EmbeddingUnavailable, match="HTTP 429") as refused:
            await one.embed(texts[2:4])
        assert refused.value.until is not None
        assert 25 < (refused.value.until - datetime.now(UTC)).total_seconds() <= 30
        for service in (one, other):
            with pytest.raises(EmbeddingUnavailable, match=r"no request is sent to 127\.0\.0\.1:\d+ before"):
                await service.embed(texts[2:4])
        assert len(server.requests) == 2
        later = time.monotonic() + 31
        monkeypatch.setattr(one.pace, "_clock", lambda: later)
        await one.embed(texts[2:4])
        await other.embed(texts[4:])
        for service in (one, other):
            await service.close()
    accepted = [request for number, request in enumerate(server.requests) if number != 1]
    assert sorted(texts_of(accepted)) == texts


async def test_another_key_or_model_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    with FaultyServer(Answer(429, b"{}", {"retry-after": "30"})) as server:
        one = service_on(server.url)
        other = OpenAIEmbedding(server.url, "small", NATIVE, api_key=SecretStr("sk-other"))
        for service in (one, other):
            with pytest.raises(EmbeddingUnavailable, match="HTTP 429"):
                await service.embed(["a"])
            await service.close()
    assert len(server.requests) == 2


async def test_a_short_pause_is_waited_for() -> None:
    used_up = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}

    def once(request: Request) -> Answer:
        answer = openai(request)
        return Answer(200, answer.body, used_up) if len(server.requests) == 1 else answer

    with FaultyServer(respond=once) as server:
        service = service_on(server.url)
        await service.embed(["a"])
        began = time.monotonic()
        await service.embed(["b"])
        await service.close()
    assert time.monotonic() - began >= 0.25


def test_a_quota_spaces_requests_and_tokens_over_the_minute() -> None:
    now = [0.0]
    quota = Quota(requests_per_minute=30, tokens_per_minute=6000, clock=lambda: now[0])
    passed: list[float] = []
    while now[0] < 120:
        if (wait := quota.book(50)) > 0:
            now[0] += wait
        else:
            passed.append(now[0])
    most = max(sum(at <= other < at + 60 for other in passed) for at in passed)
    assert most == 30
    assert len(passed) >= 58
    quota.correct(1000 - 50)  # it was much more than expected
    assert quota.book(50) > 8
    assert quota.because == "SYNCLINE_EMBEDDING_TOKENS_PER_MINUTE"


async def test_requests_keep_their_quota_across_lanes() -> None:
    with FaultyServer(respond=openai) as server:
        service = service_on(server.url, requests=600)
        began = time.monotonic()
        await service.embed(["a"] * 8)
        await service.close()
    assert len(server.requests) == 4
    assert time.monotonic() - began >= 0.3


async def test_a_quota_that_is_used_up_for_long_is_named() -> None:
    with FaultyServer(respond=openai) as server:
        service = service_on(server.url, tokens=2)
        await service.embed(["a", "b"])
        with pytest.raises(EmbeddingUnavailable, match="TOKENS_PER_MINUTE is used up") as refused:
            await asyncio.wait_for(service.embed(["c"]), 20)
        await service.close()
    assert refused.value.until is not None
    assert refused.value.until - datetime.now(UTC) > timedelta(seconds=30)
    assert len(server.requests) == 1
