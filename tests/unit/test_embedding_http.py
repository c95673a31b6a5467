"""The HTTP embedding against a real server on loopback: right answers, wrong answers and none."""

import json
import socket
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from pydantic import SecretStr

from syncline.embeddings.openai import OpenAIEmbedding
from syncline.errors import EmbeddingError, EmbeddingRejected, EmbeddingUnavailable
from tests.kit.faulty_http import Answer, FaultyServer, Request
from tests.kit.secrecy import everything_said

KEY = "sk-embedding-8c1d02"
DIMENSIONS = 3


def service_on(url: str, batch: int = 4, dimensions: int = DIMENSIONS) -> OpenAIEmbedding:
    return OpenAIEmbedding(url, "small", dimensions, api_key=SecretStr(KEY), batch=batch, timeout_seconds=0.5)


def embedded(request: Request) -> Answer:
    """Answer as a service does that puts a text's length and first letter into its vector, items reversed."""
    texts = json.loads(request.body)["input"]
    data = [
        {"object": "embedding", "index": index, "embedding": [len(text), ord(text[0]), 0.5]}
        for index, text in enumerate(texts)
    ]
    return Answer(body=json.dumps({"object": "list", "data": data[::-1], "model": "small"}).encode())


def items(*vectors: tuple[int, list[float]]) -> bytes:
    return json.dumps({"data": [{"index": index, "embedding": vector} for index, vector in vectors]}).encode()


async def failure_of(call: Awaitable[object]) -> EmbeddingError:
    with pytest.raises(EmbeddingError) as raised:
        await call
    told = everything_said(raised.value)
    assert KEY not in told
    assert "Bearer" not in told
    assert "openai-small" in told
    return raised.value


async def failure_with(answer: Answer) -> EmbeddingError:
    with FaultyServer(answer) as server:
        service = service_on(f"{server.url}/v1")
        failure = await failure_of(service.embed(["one", "two"]))
        await service.close()
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    return failure


async def test_texts_come_back_in_order_whatever_the_order_of_answers_and_items() -> None:
    texts = [chr(97 + row) * (row + 1) for row in range(26)]
    with FaultyServer(respond=embedded) as server:
        service = service_on(f"{server.url}/v1/")
        vectors = await service.embed(texts)
        await service.close()
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[row + 1, 97 + row, 0.5] for row in range(26)]
    sent = [json.loads(request.body) for request in server.requests]
    assert sorted(len(body["input"]) for body in sent) == [2, 4, 4, 4, 4, 4, 4]
    assert {request.path for request in server.requests} == {"/v1/embeddings"}
    assert all((body["model"], body["dimensions"]) == ("small", DIMENSIONS) for body in sent)


async def test_no_more_than_four_requests_are_under_way() -> None:
    def slowly(request: Request) -> Answer:
        return Answer(body=embedded(request).body, silence_seconds=0.03)

    with FaultyServer(respond=slowly) as server:
        service = OpenAIEmbedding(server.url, "small", DIMENSIONS, batch=1, lanes=4)
        await service.embed(["text"] * 20)
        await service.close()
    assert 1 < server.most_at_once <= 4


async def test_no_texts_are_no_request() -> None:
    service = service_on("http://127.0.0.1:1")
    assert (await service.embed([])).shape == (0, DIMENSIONS)
    await service.close()


async def test_a_blank_text_is_not_sent_blank_since_services_refuse_it() -> None:
    with FaultyServer(respond=embedded) as server:
        service = service_on(server.url)
        assert (await service.embed(["", " \n", "x"])).shape == (3, DIMENSIONS)
        await service.close()
    assert all(text.strip() for text in json.loads(server.requests[0].body)["input"])


async def test_a_service_without_a_key_gets_none() -> None:
    with FaultyServer(respond=embedded) as server:
        service = OpenAIEmbedding(server.url, "small", DIMENSIONS)
        await service.embed(["x"])
        await service.close()
    assert "authorization" not in server.requests[0].headers


async def test_its_name_tells_model_and_dimension_but_no_address_or_key() -> None:
    service = service_on("https://embedding.example/v1?key=secret")
    assert (service.name, service.dimensions) == ("openai-small-3", 3)
    assert KEY not in repr(service)
    await service.close()


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
async def test_answers_that_pass_are_worth_a_retry(status: int) -> None:
    body = json.dumps({"error": {"message": f"slow down, {KEY}"}})
    failure = await failure_with(Answer(status, body.encode(), {"retry-after": "17"}))
    assert isinstance(failure, EmbeddingUnavailable)
    assert f"HTTP {status}" in str(failure)
    assert "slow down" in str(failure)
    assert "Retry-After: 17" in str(failure)


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (302, "SYNCLINE_EMBEDDING_URL"),
        (400, "SYNCLINE_EMBEDDING_URL"),
        (401, "SYNCLINE_EMBEDDING_API_KEY"),
        (403, "SYNCLINE_EMBEDDING_API_KEY"),
        (404, "SYNCLINE_EMBEDDING_MODEL"),
        (413, "SYNCLINE_EMBEDDING_BATCH"),
        (422, "SYNCLINE_EMBEDDING_URL"),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"message": "Incorrect key sk-embedding-8c1d02 WHY", "type": "x"}}',
        '{"error": "Incorrect key sk-embedding-8c1d02 WHY"}',
        '{"detail": [{"msg": "sk-embedding-8c1d02 WHY"}]}',
        "<html>sk-embedding-8c1d02 WHY</html>",
        "WHY " + "sk-embedding-8c1d02" * 10_000,
    ],
)
async def test_refusals_are_not_retried_and_tell_the_fix(status: int, fix: str, body: str) -> None:
    failure = await failure_with(Answer(status, body.encode()))
    assert isinstance(failure, EmbeddingRejected)
    assert f"HTTP {status}" in str(failure)
    assert "WHY" in str(failure)
    assert fix in str(failure)
    assert len(str(failure)) < 600


@pytest.mark.parametrize(
    "body",
    [
        # As FastAPI refuses a request: it gives the input back.
        {
            "detail": [
                {"type": "string_too_long", "loc": ["body", "input", 1], "msg": "WHY", "input": "a secret"}
            ]
        },
        {"detail": {"reason": "WHY", "input": ["a secret"]}, "message": "WHY"},
        {"error": {"message": "WHY: 'a secret' is not acceptable"}},
        {"error": {"message": 'WHY: "a \\u0073ecret" is not acceptable, a secret'}},
    ],
)
async def test_a_refusal_does_not_tell_the_texts_that_were_sent(body: object) -> None:
    with FaultyServer(Answer(422, json.dumps(body).encode())) as server:
        service = service_on(server.url)
        with pytest.raises(EmbeddingRejected, match="WHY") as failure:
            await service.embed(["harmless", "a secret"])
        await service.close()
    assert "a secret" not in str(failure.value)


@pytest.mark.parametrize(
    "body", [{"detail": [{"input": "a secret"}]}, ["a secret"], {"input": "a secret"}, {}]
)
async def test_a_refusal_of_another_shape_is_told_without_its_body(body: object) -> None:
    failure = await failure_with(Answer(422, json.dumps(body).encode()))
    assert "secret" not in str(failure)
    assert "HTTP 422" in str(failure)


@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b'{"data": [', b"\xff\xfe"])
async def test_an_answer_that_is_not_json_is_worth_a_retry(body: bytes) -> None:
    assert isinstance(await failure_with(Answer(body=body)), EmbeddingUnavailable)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"hello": 1}', "base URL"),
        (b'{"data": [{"index": 0, "embedding": "AAAA"}]}', "base URL"),
        (items((0, [1, 2, 3])), "1 vectors"),
        (items((0, [1, 2, 3]), (0, [1, 2, 3])), "not one for each"),
        (items((0, [1, 2, 3]), (1, [1, 2, 3]), (2, [1, 2, 3])), "3 vectors"),
        (items((0, [1, 2]), (1, [1, 2])), r"2 dimensions, not 3; set SYNCLINE_EMBEDDING_DIMENSIONS"),
        (items((0, [1, 2, 3]), (1, [1, 2])), "2, 3 dimensions"),
        (items((0, [1, 2, 3]), (1, [1, 2, float("nan")])), "not finite|base URL"),
    ],
)
async def test_vectors_that_do_not_fit_are_refused(body: bytes, problem: str) -> None:
    failure = await failure_with(Answer(body=body))
    assert isinstance(failure, EmbeddingRejected)
    with pytest.raises(EmbeddingRejected, match=problem):
        raise failure


async def test_silence_ends_with_the_timeout() -> None:
    failure = await failure_with(Answer(silence_seconds=30))
    assert isinstance(failure, EmbeddingUnavailable)
    assert "Timeout" in str(failure)


async def test_a_port_where_nobody_listens_is_worth_a_retry() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        service = service_on(f"http://127.0.0.1:{held.getsockname()[1]}")
        failure = await failure_of(service.embed(["x"]))
        await service.close()
    assert isinstance(failure, EmbeddingUnavailable)


async def test_a_closed_service_fails_as_one_that_is_gone() -> None:
    service = service_on("http://127.0.0.1:1")
    await service.close()
    assert isinstance(await failure_of(service.embed(["x"])), EmbeddingUnavailable)


async def test_a_text_that_is_not_unicode_is_refused() -> None:
    service = service_on("http://127.0.0.1:1")
    assert isinstance(await failure_of(service.embed(["\ud800"])), EmbeddingRejected)
    await service.close()


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (lambda: OpenAIEmbedding("https://e.example", "small", 3, api_key=SecretStr("sk-é")), "_API_KEY"),
        (lambda: OpenAIEmbedding("https://e.example", "small", 3, api_key=SecretStr("sk-a\nb")), "_API_KEY"),
        (lambda: OpenAIEmbedding("e.example/v1", "small", 3), "_URL"),
        (lambda: OpenAIEmbedding("ftp://e.example/v1", "small", 3), "_URL"),
        (lambda: OpenAIEmbedding("http://[::1/v1", "small", 3), "_URL"),
        (lambda: OpenAIEmbedding("https://user:sk-pw@e.example/v1", "small", 3), "_URL"),
        (lambda: OpenAIEmbedding("https://:sk-pw@e.example/v1", "small", 3), "_URL"),
        (lambda: OpenAIEmbedding("https://e.example/v1#sk-x", "small", 3), "_URL"),
    ],
)
def test_what_cannot_work_at_all_is_refused_at_once(make: Callable[[], object], fix: str) -> None:
    with pytest.raises(EmbeddingRejected, match=f"SYNCLINE_EMBEDDING{fix}") as refused:
        make()
    assert "sk-" not in str(refused.value)
