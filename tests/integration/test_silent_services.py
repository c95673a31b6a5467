"""A vector store or embedding service that falls silent without closing anything, and one that is only slow."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import numpy as np
import pytest

from syncline.embeddings.openai import OpenAIEmbedding
from syncline.engine import run_cycle
from syncline.engine.vectors.silence import silence_reported
from syncline.errors import EmbeddingUnavailable, VectorStoreUnavailable
from syncline.messages.sync import CycleStatus, Waiting
from syncline.stores.answer_watch import AnswerPatience, AnswerWatch, unreached
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.stores.vectors import PointPayload
from syncline.testing.graphs import TestGraph, write
from tests.kit.faulty_http import Answer, FaultyServer, Request
from tests.kit.proxy import SilentProxy, silent_proxy

QUICK = AnswerPatience(open=0.1, apart=0.1, pause=0.1, gap=0.3, late=0.3, silent=0.8, known=0.3)
"""A tenth of the product's patience."""
WRITTEN = {"operation_id": 1, "status": "completed"}


class SlowQdrant(FaultyServer):
    """Answers every request after `seconds`, and its health at once."""

    def __init__(self) -> None:
        super().__init__(respond=self._answer)
        self.seconds = 0.0

    def _answer(self, request: Request) -> Answer:
        if request.path == "/healthz":
            return Answer(body=b"healthz check passed")
        body = json.dumps({"result": WRITTEN, "status": "ok", "time": 0.001}).encode()
        return Answer(body=body, silence_seconds=self.seconds)


@pytest.fixture
def server() -> Iterator[SlowQdrant]:
    with SlowQdrant() as server:
        yield server


@asynccontextmanager
async def store_behind(
    server: FaultyServer, patience: AnswerPatience = QUICK
) -> AsyncIterator[tuple[QdrantServerStore, SilentProxy]]:
    async with silent_proxy(int(server.url.rpartition(":")[2])) as proxy:
        store = QdrantServerStore("q", f"http://127.0.0.1:{proxy.port}", patience=patience)
        yield store, proxy
        await store.close()


async def upsert(store: QdrantServerStore) -> None:
    async with asyncio.timeout(15):
        await store.upsert("nodes", [PointPayload(uuid4(), {})], np.ones((1, 3), dtype=np.float32))


async def test_a_silent_server_is_given_up_before_the_timeout_of_a_request(server: SlowQdrant) -> None:
    """The time-out is 30 seconds; every connection stays open."""
    async with store_behind(server) as (store, proxy):
        await upsert(store)
        proxy.cut()
        with pytest.raises(VectorStoreUnavailable, match="has not answered since"):
            await upsert(store)
        assert store.silent_since is not None
        # The next one is not sent before a probe is answered.
        asked = len(server.requests)
        with pytest.raises(VectorStoreUnavailable, match="has not answered since"):
            await upsert(store)
        proxy.mend()
        await upsert(store)
        assert store.silent_since is None
        later = [request.path for request in server.requests[asked:]]
        assert (later[0], later[-1].partition("?")[0]) == ("/healthz", "/collections/nodes/points")


async def test_a_server_that_comes_back_is_asked_as_soon_as_it_answers(server: SlowQdrant) -> None:
    async with store_behind(server, replace(QUICK, known=60)) as (store, proxy):
        proxy.cut()
        with pytest.raises(VectorStoreUnavailable):
            await upsert(store)
        asked = asyncio.create_task(upsert(store))
        await asyncio.sleep(0.1)
        proxy.mend()
        await asked


async def test_a_doubted_server_is_sent_a_request_once_a_probe_is_answered(server: SlowQdrant) -> None:
    """What another worker has found silent: a connection made just before it is back would stay silent."""
    async with store_behind(server, replace(QUICK, known=60)) as (store, proxy):
        proxy.cut()
        store.doubt()
        asked = asyncio.create_task(upsert(store))
        await asyncio.sleep(0.3)
        assert not server.requests
        proxy.mend()
        await asked
        await upsert(store)
    paths = [request.path.partition("?")[0] for request in server.requests]
    assert paths[0] == "/healthz"
    assert paths[-2:] == ["/collections/nodes/points"] * 2


async def test_a_slow_answer_is_waited_for_while_the_server_answers_others(server: SlowQdrant) -> None:
    server.seconds = 1.5
    # A machine that is busy answers probes late.
    async with store_behind(server, replace(QUICK, gap=0.8, silent=1.4)) as (store, _):
        await upsert(store)
        assert store.silent_since is None
    assert sum(request.path == "/healthz" for request in server.requests) > 2


async def test_a_request_on_a_connection_that_did_not_survive_a_silence_is_given_up(
    server: SlowQdrant,
) -> None:
    """Its packets are gone though the server answers again, and nothing ever closes the connection."""
    async with store_behind(server, replace(QUICK, silent=60)) as (store, proxy):
        proxy.cut()
        asked = asyncio.create_task(upsert(store))
        while store.silent_since is None and not asked.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        proxy.mend()
        with pytest.raises(VectorStoreUnavailable, match="answers again, but not this request"):
            await asked
        await upsert(store)


async def test_a_service_that_answers_requests_and_no_probe_is_not_silent() -> None:
    """One that accepts no more connections still serves those that it has."""

    async def unanswered() -> bool:
        await asyncio.sleep(60)
        return False

    watch = AnswerWatch(unanswered, patience=QUICK)
    long = asyncio.create_task(watch.answer(asyncio.sleep(1.5, "long")))
    for _ in range(6):
        assert await watch.answer(asyncio.sleep(0.2, "short")) == "short"
    assert await long == "long"
    await watch.close()


async def test_a_request_that_is_cancelled_stays_cancelled() -> None:
    async def answered() -> bool:
        return True

    watch = AnswerWatch(answered, patience=QUICK)
    request = asyncio.create_task(watch.answer(asyncio.sleep(60)))
    await asyncio.sleep(0.3)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    with pytest.raises(TimeoutError):
        await watch.answer(_timed_out())
    await watch.close()


async def test_a_process_that_stood_still_does_not_blame_the_service() -> None:
    """Frozen, asleep or blocked by a plugin for longer than its patience."""

    async def answered() -> bool:
        await asyncio.sleep(0.05)
        return True

    watch = AnswerWatch(answered, patience=QUICK)
    request = asyncio.create_task(watch.answer(asyncio.sleep(1.5, "answer")))
    await asyncio.sleep(0.12)
    time.sleep(1)  # noqa: ASYNC251
    assert await request == "answer"
    await watch.close()


async def _timed_out() -> None:
    raise TimeoutError


async def test_an_embedding_service_that_accepts_no_connection_is_given_up() -> None:
    """Packets that are dropped: the queue of the listening socket is full."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        await asyncio.sleep(0.1)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        service = OpenAIEmbedding(url, "small", 3, timeout_seconds=30, patience=QUICK)
        with pytest.raises(EmbeddingUnavailable, match="has not answered since"):
            async with asyncio.timeout(20):
                await service.embed(["one"])
        await service.close()


async def test_an_embedding_service_that_computes_and_answers_nobody_is_waited_for() -> None:
    """Many have one thread; what accepts a connection is alive."""
    answer = Answer(body=json.dumps({"data": [{"index": 0, "embedding": [1.0, 0, 0]}]}).encode())
    slow = Answer(body=answer.body, silence_seconds=1.5)
    with FaultyServer(slow) as server:
        service = OpenAIEmbedding(server.url, "small", 3, timeout_seconds=30, patience=QUICK)
        assert (await service.embed(["one"])).shape == (1, 3)
        await service.close()


def test_what_shows_that_a_service_does_not_answer() -> None:
    refused, unresolved = httpx.ConnectError("refused"), httpx.ConnectError("no such name")
    unresolved.__cause__ = socket.gaierror()
    for error, busy_answers, expected in (
        (httpx.ConnectTimeout(""), True, True),
        (httpx.ReadTimeout(""), False, True),
        (httpx.ReadTimeout(""), True, False),
        (refused, True, True),
        (unresolved, False, False),
        (httpx.RemoteProtocolError("garbage"), False, False),
        (None, False, False),
    ):
        assert unreached(error, busy_answers=busy_answers) is expected


async def test_a_cycle_reports_which_service_does_not_answer_and_since_when(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.engine.vectors.silence._EVERY", 0.05)
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'one')")
    local, before = graph.vectors, datetime.now(UTC)
    with FaultyServer(Answer()) as server:
        async with store_behind(server) as (graph.vectors, proxy):
            proxy.cut()
            result = await run_cycle(graph.context())
    graph.vectors = local
    assert (result.status, result.rows) == (CycleStatus.VECTORS_DELAYED, 1)
    assert "has not answered since" in (result.vectors.error or "")
    waiting = graph.heartbeats[-1].waiting
    assert waiting is not None
    assert (waiting.on, waiting.since >= before) == ("vector store 'q'", True)


async def test_silence_is_reported_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncline.engine.vectors.silence._EVERY", 0.01)

    class Service:
        silent_since: datetime | None = None

        def doubt(self) -> None: ...

    service, reports = Service(), list[Waiting | None]()
    async with silence_reported(reports.append, {"vector store 'q'": service, "other": object()}):
        await asyncio.sleep(0.05)
        service.silent_since = since = datetime.now(UTC)
        await asyncio.sleep(0.05)
        service.silent_since = None
        await asyncio.sleep(0.05)
    assert reports == [Waiting(on="vector store 'q'", since=since), None]
