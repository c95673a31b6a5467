"""The HTTP embedding and services that speak OpenAI's API in a dialect, each as a stub on loopback."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from syncline.embeddings.openai import OpenAIEmbedding
from syncline.embeddings.service import Usage
from syncline.errors import EmbeddingRejected, EmbeddingUnavailable, SettingsInvalid
from syncline.settings import load_settings
from tests.kit.dialects import (
    DIALECTS,
    NATIVE,
    answered,
    cohere,
    gemini,
    openai,
    strict,
    tei,
    vector_of,
    vllm,
)
from tests.kit.faulty_http import Answer, FaultyServer, Request

KEY = SecretStr("sk-dialect")
DOCS = Path(__file__).parents[2] / "docs/embeddings.md"
_TEXTS = ["one text", "two", "three words here"]


def service_on(url: str, batch: int = 2, dimensions: int = NATIVE) -> OpenAIEmbedding:
    return OpenAIEmbedding(url, "small", dimensions, api_key=KEY, batch=batch, timeout_seconds=2)


def sent(server: FaultyServer) -> list[set[str]]:
    return [set(json.loads(request.body)) for request in server.requests]


@pytest.mark.parametrize("name", DIALECTS)
async def test_each_service_gives_one_vector_per_text_in_order(name: str) -> None:
    place = "/openai/deployments/emb?api-version=2024-10-21" if name == "Azure OpenAI" else "/v1"
    with FaultyServer(respond=DIALECTS[name]) as server:
        service = service_on(f"{server.url}{place}")
        vectors = await service.embed(_TEXTS)
        before = len(server.requests)
        await service.embed(_TEXTS)
        await service.close()
    assert vectors.tolist() == [vector_of(text) for text in _TEXTS]
    # What it has learned about the service costs no request again.
    assert len(server.requests) == before + 2


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "strict"])
def test_each_service_is_in_the_docs_with_its_source(name: str) -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith(f"| {name} |")]
    assert rows, name
    assert re.search(r"\]\(https://", rows[0]), name


async def test_a_field_that_the_service_refuses_is_left_out_once_and_remembered() -> None:
    with FaultyServer(respond=vllm) as server:
        service = service_on(server.url)
        await service.embed(["a", "b"])
        await service.embed(["c", "d"])
        await service.close()
    whole = {"model", "input", "dimensions", "encoding_format"}
    assert sent(server) == [whole, whole - {"dimensions"}, whole - {"dimensions"}]


async def test_a_refused_field_that_another_request_has_learned_of_is_left_out_too() -> None:
    """Both were sent before it was known; by the second refusal the other request had succeeded."""

    def late(request: Request) -> Answer:
        answer = strict(request)
        waits = answer.status != 200 and json.loads(request.body)["input"] == ["late"]
        return replace(answer, when=lambda: service._proven) if waits else answer

    with FaultyServer(respond=late) as server:
        service = service_on(server.url, batch=1)
        vectors = await service.embed(["late", "early"])
        await service.close()
    assert vectors.tolist() == [vector_of("late"), vector_of("early")]


async def test_a_service_that_names_no_field_gets_fewer_of_them_until_it_answers() -> None:
    with FaultyServer(respond=cohere) as server:
        service = service_on(server.url)
        await service.embed(["a", "b"])
        await service.close()
    assert sent(server)[1:] == [{"model", "input", "dimensions"}, {"model", "input"}]


async def test_without_dimensions_vectors_of_another_size_are_refused_with_both_sizes() -> None:
    with FaultyServer(respond=vllm) as server:
        service = service_on(server.url, dimensions=3)
        with pytest.raises(
            EmbeddingRejected, match=r"4 dimensions, not 3; set SYNCLINE_EMBEDDING_DIM.*HTTP 400"
        ):
            await service.embed(["a"])
        await service.close()


async def test_a_service_that_refuses_texts_is_not_asked_again_without_fields_once_it_took_them() -> None:
    def poisoned(request: Request) -> Answer:
        if "poison" in json.loads(request.body)["input"]:
            return answered(400, {"error": {"message": "no such dimensions"}})
        return openai(request)

    with FaultyServer(respond=poisoned) as server:
        service = service_on(server.url)
        await service.embed(["a"])
        with pytest.raises(EmbeddingRejected, match="no such dimensions"):
            await service.embed(["poison"])
        await service.close()
    assert len(server.requests) == 2


async def test_fields_can_be_left_out_and_added_by_settings() -> None:
    with FaultyServer(respond=strict) as server:
        service = OpenAIEmbedding(
            server.url, "small", NATIVE, send_dimensions=False, base64=False,
            headers={"X-Team": SecretStr("graph")}, key_header="X-Key", api_key=KEY,
        )  # fmt: skip
        await service.embed(["a"])
        await service.close()
    assert sent(server) == [{"model", "input"}]
    headers = server.requests[0].headers
    assert (headers["x-team"], headers["x-key"]) == ("graph", "sk-dialect")
    assert "authorization" not in headers
    with FaultyServer(respond=gemini) as server:
        service = OpenAIEmbedding(server.url, "small", NATIVE, body={"input_type": "passage"})
        await service.embed(["a"])
        await service.close()
    assert json.loads(server.requests[0].body)["input_type"] == "passage"


async def test_a_secret_header_is_in_no_message() -> None:
    with FaultyServer(Answer(400, b'{"error": {"message": "bad token t0k3n"}}')) as server:
        service = OpenAIEmbedding(server.url, "small", NATIVE, headers={"X-Token": SecretStr("t0k3n")})
        with pytest.raises(EmbeddingRejected) as refused:
            await service.embed(["a"])
        await service.close()
    assert "t0k3n" not in str(refused.value)
    assert "bad token" in str(refused.value)


@pytest.mark.parametrize(
    ("indexes", "order"),
    [
        ([None, None], [0, 1]),
        ([None, 1], [0, 1]),
        ([1, None], [1, 0]),
        ([1, 0], [1, 0]),
    ],
)
async def test_a_vector_without_an_index_has_that_of_its_position(
    indexes: list[int | None], order: list[int]
) -> None:
    data = [
        {"embedding": [float(place)] * NATIVE, **({} if index is None else {"index": index})}
        for place, index in enumerate(indexes)
    ]
    with FaultyServer(answered(200, {"data": data})) as server:
        service = service_on(server.url)
        vectors = await service.embed(["a", "b"])
        await service.close()
    assert vectors[:, 0].tolist() == [order.index(0), order.index(1)]


@pytest.mark.parametrize("indexes", [[1, 2], [0, 0], [7, 8]])
async def test_foreign_indexes_are_refused_and_named(indexes: list[int]) -> None:
    data = [{"embedding": [1.0] * NATIVE, "index": index} for index in indexes]
    with FaultyServer(answered(200, {"data": data})) as server:
        service = service_on(server.url)
        with pytest.raises(EmbeddingRejected, match=rf"indexes {indexes[0]}, {indexes[1]}, not .* 0 to 1"):
            await service.embed(["a", "b"])
        await service.close()


async def test_base64_of_another_width_is_asked_for_in_numbers() -> None:
    def halved(request: Request) -> Answer:
        body = json.loads(request.body)
        if body.get("encoding_format") == "base64":
            halves = np.array(vector_of(body["input"][0]), dtype="<f2").tobytes()
            import base64

            return answered(200, {"data": [{"index": 0, "embedding": base64.b64encode(halves).decode()}]})
        return openai(request)

    with FaultyServer(respond=halved) as server:
        service = service_on(server.url)
        assert (await service.embed(["a"])).tolist() == [vector_of("a")]
        await service.embed(["b"])
        await service.close()
    assert [("encoding_format" in fields) for fields in sent(server)] == [True, False, False]


async def test_each_request_tells_what_it_used() -> None:
    told: list[Usage] = []
    with FaultyServer(respond=tei) as server:
        service = service_on(server.url, batch=3)
        service.used = told.append
        with pytest.raises(EmbeddingRejected, match="batch size 3 > maximum"):
            await service.embed(["one", "two", "three"])
        refused = len(server.requests)
        await service.embed(["one two", "three"])
        await service.close()
    assert told[-1] == Usage(texts=2, tokens=3)
    assert told[:-1] == [Usage(texts=0, tokens=0, refused=3)] * refused


async def test_what_is_not_reached_is_named_by_host_and_port() -> None:
    service = service_on("http://127.0.0.1:9/v1?api-version=1")
    with pytest.raises(EmbeddingUnavailable, match=r"127\.0\.0\.1:9 ") as failure:
        await service.embed(["a"])
    await service.close()
    assert "api-version" not in str(failure.value)
    for url, address in (
        ("https://e.example/v1", "e.example:443/v1"),
        ("http://e.example/v1/embeddings", "e.example:80/v1"),
        ("http://[::1]:8080/?key=secret", "[::1]:8080"),
    ):
        service = OpenAIEmbedding(url, "small", NATIVE)
        assert service.address == address
        await service.close()


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("URL", "https://me:pw@e.example/v1", "user or password"),
        ("URL", "https://e.example/v1#part", "fragment"),
        ("HEADERS", '{"X Team": "s3cret"}', "not the name of a header"),
        ("HEADERS", '{"Content-Type": "s3cret"}', "set by itself"),
        ("HEADERS", '{"X-Team": "s3cret\\n"}', "cannot be sent"),
        ("BODY", '{"input": "s3cret"}', "'input' cannot be among them"),
        ("BODY", '{"dimensions": 3}', "SYNCLINE_EMBEDDING_DIMENSIONS"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_start(
    variable: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCLINE_WRITE_DSN", "postgresql://localhost/nothing")
    monkeypatch.setenv("SYNCLINE_GRAPH_DSN", "postgresql://localhost/nothing")
    monkeypatch.setenv(f"SYNCLINE_EMBEDDING_{variable}", value)
    with pytest.raises(SettingsInvalid, match=problem) as refused:
        load_settings()
    assert f"SYNCLINE_EMBEDDING_{variable}" in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert "pw" not in str(refused.value)
