"""The vector pipe: what is paid for is written or kept, whatever else fails, waits or is slow."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from syncline.embeddings.openai import OpenAIEmbedding
from syncline.embeddings.pace import Pace
from syncline.engine import run_cycle
from syncline.errors import CycleFenced
from syncline.messages.sync import CycleStatus, VectorProgress
from syncline.provider import CycleBudget, RetryRules, SyncContext
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.testing.graphs import TestGraph, on_target, write
from syncline.testing.one_graph import session
from syncline.testing.truth import differences
from tests.kit.faulty_http import Answer, Request
from tests.kit.vector_services import DIMENSIONS, EmbeddingServer, QdrantServer, is_upsert, qdrant_error

AT_ONCE = RetryRules(vector_seconds=0, dead_letter_seconds=0)


@pytest.fixture
def embedding() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture
def qdrant() -> Iterator[QdrantServer]:
    with QdrantServer() as server:
        yield server


@pytest.fixture
async def served(
    graph: TestGraph, embedding: EmbeddingServer, qdrant: QdrantServer
) -> AsyncIterator[TestGraph]:
    """The graph with both servers."""
    local = graph.vectors
    graph.embedding = service = OpenAIEmbedding(embedding.url, "small", DIMENSIONS, timeout_seconds=30)
    graph.vectors = store = QdrantServerStore("qdrant", qdrant.url, None, 5)
    yield graph
    graph.vectors = local
    await store.close()
    await service.close()


def at_once(graph: TestGraph, **changes: object) -> SyncContext:
    return replace(graph.context(), retry=AT_ONCE, **changes)  # type: ignore[arg-type]


async def write_facts(graph: TestGraph, number: int, content: str = "'fact ' || i") -> None:
    await write(
        graph,
        f"INSERT INTO write_facts (id, content, dedup_status) SELECT 'f' || i, {content}, 'ready'"
        " FROM generate_series(1, $1::int) i",
        number,
    )


async def vectors(context: SyncContext) -> VectorProgress:
    return (await run_cycle(context)).vectors


def pace_of(graph: TestGraph) -> Pace:
    assert isinstance(graph.embedding, OpenAIEmbedding)
    return graph.embedding.pace


async def test_a_pause_is_kept_and_what_came_before_it_is_written(
    served: TestGraph, embedding: EmbeddingServer
) -> None:
    service = OpenAIEmbedding(embedding.url, "other", DIMENSIONS, batch=2)
    served.embedding = service
    await write_facts(served, 5)
    slow_down = Answer(429, headers={"Retry-After": "30"})
    embedding.before = lambda texts: None if len(embedding.requests) == 1 else slow_down
    result = await vectors(at_once(served))
    assert (result.upserted, result.embedded, result.pending) == (2, 2, 3)
    asked = len(embedding.requests)
    assert asked == 2
    async with session(served, served.target_dsn) as connection:
        wait = await connection.fetchval(
            "SELECT extract(epoch FROM next_retry_at - clock_timestamp()) FROM sync_vector_delay"
        )
    assert 25 < float(wait) <= 30
    # Also for another collection, and for whoever forgets the delay.
    await write(served, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'node')")
    await on_target(served, "DELETE FROM sync_vector_delay")
    result = await vectors(at_once(served))
    assert (result.pending, len(embedding.requests)) == (4, asked)
    assert "it asked for a pause until" in (result.error or "")
    service.pace._held = 0
    embedding.before = lambda texts: None
    await on_target(served, "UPDATE sync_vector_delay SET next_retry_at = now()")
    assert (await run_cycle(at_once(served))).status is CycleStatus.DRAINED
    assert set(embedding.embedded.values()) == {1}
    assert await differences(served) == []
    await service.close()


@pytest.mark.long(after=1)
@pytest.mark.parametrize("answer", [Answer(500), Answer(cut=True), Answer(body=b'{"data": [{"ind')])
async def test_a_text_that_breaks_the_service_is_refused_alone(
    served: TestGraph, embedding: EmbeddingServer, answer: Answer
) -> None:
    embedding.before = lambda texts: answer if "fact 3" in texts else None
    await write_facts(served, 5)
    result = await run_cycle(served.context())
    assert result.status is CycleStatus.DRAINED
    assert (result.vectors.upserted, result.vectors.refused, result.vectors.pending) == (4, 1, 0)
    assert len(embedding.requests) < 15


@pytest.mark.long(after=1)
@pytest.mark.parametrize("answer", [Answer(500), Answer(cut=True), Answer(body=b'{"data": [{"ind')])
async def test_a_service_that_fails_for_every_text_delays_and_refuses_none(
    served: TestGraph, embedding: EmbeddingServer, answer: Answer
) -> None:
    embedding.failing = answer
    await write_facts(served, 50)
    for _ in range(3):
        result = await run_cycle(at_once(served))
        assert result.status is CycleStatus.VECTORS_DELAYED
        assert (result.vectors.refused, result.vectors.pending) == (0, 50)
    assert len(embedding.requests) == 3 * 2  # the texts, and one that every service takes


async def test_a_request_that_fails_once_is_sent_again(served: TestGraph, embedding: EmbeddingServer) -> None:
    embedding.before = lambda texts: Answer(502) if len(embedding.requests) == 2 else None
    await write_facts(served, 100)
    assert (await run_cycle(served.context())).status is CycleStatus.DRAINED
    assert {embedding.embedded[f"fact {i}"] for i in range(1, 101)} == {1}


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    "answer",
    [
        Answer(413),
        Answer(429, b'{"error": {"message": "Request too large for this model: reduce your input"}}'),
        Answer(400, b'{"error": {"message": "too many inputs"}}'),
    ],
)
async def test_a_service_that_takes_few_texts_at_once_gets_few(
    served: TestGraph, embedding: EmbeddingServer, answer: Answer
) -> None:
    embedding.before = lambda texts: answer if len(texts) > 20 else None
    await write_facts(served, 300)
    result = await run_cycle(served.context())
    assert (result.status, result.vectors.upserted) == (CycleStatus.DRAINED, 300)
    assert result.vectors.refused == 0
    assert pace_of(served).rows <= 20
    assert {embedding.embedded[f"fact {i}"] for i in range(1, 301)} == {1}


async def test_a_slow_service_lets_the_cycle_end_in_time(
    served: TestGraph, embedding: EmbeddingServer
) -> None:
    embedding.failing = Answer(500)
    await write_facts(served, 5000)
    await run_cycle(at_once(served))
    embedding.failing = None

    def slowly(texts: list[str]) -> Answer | None:
        time.sleep(0.01 * len(texts))  # one after the other
        return None

    embedding.before = slowly
    result = await run_cycle(at_once(served, budget=CycleBudget(batch_rows=10_000, seconds=4)))
    # The service is asked for what is left of them once the entries are read; for all it would take 50 s.
    assert result.status is CycleStatus.BUDGET_SPENT
    assert 0 < result.vectors.upserted == result.vectors.embedded < 600


async def test_one_slow_request_holds_up_no_other(
    served: TestGraph, embedding: EmbeddingServer, qdrant: QdrantServer
) -> None:
    pace_of(served).lanes = 4
    others_landed: list[bool] = []

    def when() -> bool:
        others_landed.append(len(qdrant.collections.get("kg_facts", {})) >= 60)
        return others_landed[-1]

    embedding.before = lambda texts: (
        replace(embedding.answer_for(texts), when=when) if "fact 40" in texts else None
    )
    await write_facts(served, 400)
    result = await run_cycle(served.context())
    assert (result.status, result.vectors.upserted) == (CycleStatus.DRAINED, 400)
    assert others_landed[-1]


async def test_a_server_that_cuts_large_requests_gets_small_ones_and_each_text_is_embedded_once(
    served: TestGraph, embedding: EmbeddingServer, qdrant: QdrantServer
) -> None:
    served.embedding = service = OpenAIEmbedding(embedding.url, "small", 1024)
    embedding.dimensions = 1024
    qdrant.before = lambda request: Answer(cut=True) if len(request.body) > 100_000 else None
    await write_facts(served, 50)
    result = await run_cycle(served.context())
    assert (result.status, result.vectors.upserted) == (CycleStatus.DRAINED, 50)
    assert set(embedding.embedded.values()) == {1}
    await service.close()


@pytest.mark.long(after=1)
@pytest.mark.parametrize("answer", [qdrant_error(503, "restarting"), qdrant_error(400, "no")])
async def test_a_store_that_takes_nothing_costs_at_most_one_request_of_texts_per_try(
    served: TestGraph, embedding: EmbeddingServer, qdrant: QdrantServer, answer: Answer
) -> None:
    qdrant.before = lambda request: answer if is_upsert(request) else None
    await write_facts(served, 50)
    for _ in range(3):
        before = len(embedding.requests)
        assert (await run_cycle(at_once(served))).status is CycleStatus.VECTORS_DELAYED
        assert len(embedding.requests) - before <= 1
    qdrant.before = lambda request: None
    assert (await run_cycle(at_once(served))).status is CycleStatus.DRAINED
    assert set(embedding.asked.values()) == {1}
    assert await differences(served) == []


async def test_a_slow_store_leaves_no_more_unsettled_than_two_requests_of_texts_per_lane(
    served: TestGraph, embedding: EmbeddingServer, qdrant: QdrantServer
) -> None:
    lanes, batch = 2, 10
    served.embedding = service = OpenAIEmbedding(embedding.url, "few", DIMENSIONS, lanes=lanes, batch=batch)
    await write_facts(served, 300)
    unsettled: list[int] = []

    def slow(request: Request) -> None:
        if is_upsert(request):
            time.sleep(0.1)
            unsettled.append(embedding.embedded.total() - len(qdrant.collections["kg_facts"]))

    qdrant.before = slow
    assert (await vectors(at_once(served))).upserted == 300
    # What a worker that is killed now would pay for again.
    assert max(unsettled) <= 2 * lanes * batch
    await service.close()


async def test_what_was_paid_for_when_the_store_fell_silent_is_written_later(
    served: TestGraph, embedding: EmbeddingServer, qdrant: QdrantServer
) -> None:
    taken = 0

    def before(request: Request) -> Answer | None:
        nonlocal taken
        if is_upsert(request):
            taken += 1
        return qdrant_error(503, "restarting") if taken > 1 else None

    qdrant.before = before
    pace_of(served).lanes = 4
    await write_facts(served, 500)
    result = await run_cycle(at_once(served))
    assert result.status is CycleStatus.VECTORS_DELAYED
    assert result.vectors.embedded > result.vectors.upserted > 0
    qdrant.before = lambda request: None
    assert (await run_cycle(at_once(served))).status is CycleStatus.DRAINED
    assert set(embedding.asked.values()) == {1}


async def test_a_failure_in_one_collection_does_not_delay_another(
    served: TestGraph, qdrant: QdrantServer
) -> None:
    qdrant.before = lambda request: (
        qdrant_error(503, "shard is not active")
        if is_upsert(request) and "kg_facts" in request.path
        else None
    )
    await write_facts(served, 3)
    await write(served, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'node')")
    result = await run_cycle(served.context())
    assert (result.vectors.upserted, result.vectors.pending) == (1, 3)


async def test_equal_texts_are_embedded_once(served: TestGraph, embedding: EmbeddingServer) -> None:
    await write_facts(served, 300, content="'fact ' || i % 3")
    await write(served, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'fact 1')")
    result = await vectors(served.context())
    assert (result.upserted, result.embedded) == (301, 3)
    assert sum(embedding.asked.values()) == 3
    assert await differences(served) == []


async def test_a_cycle_that_was_superseded_pays_for_no_more_texts(
    served: TestGraph, embedding: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.engine.vectors.outbox._FRESH", 0)

    def before(texts: list[str]) -> Answer | None:
        asyncio.run(on_target(served, "UPDATE sync_state SET fence = fence + 1"))  # in a thread of the server
        return None

    embedding.before = before
    await write_facts(served, 100)
    with pytest.raises(CycleFenced):
        await run_cycle(at_once(served))
    assert len(embedding.requests) == 1


async def write_nodes(graph: TestGraph, number: int, concept: str = "'node ' || i") -> None:
    await write(
        graph,
        f"INSERT INTO write_nodes (id, concept) SELECT 'n' || i, {concept} FROM generate_series(1, $1::int) i",
        number,
    )


async def test_a_collection_whose_texts_are_slow_delays_no_other(
    served: TestGraph, embedding: EmbeddingServer, qdrant: QdrantServer
) -> None:
    service = OpenAIEmbedding(embedding.url, "uneven", DIMENSIONS, batch=1)
    service.pace.lanes = 2  # as it learns by itself
    served.embedding = service
    await write_facts(served, 3)
    await write_nodes(served, 3)

    def others_are_there() -> bool:
        return len(qdrant.collections.get("kg_nodes", {})) == 3

    embedding.before = lambda texts: (
        replace(embedding.answer_for(texts), when=others_are_there) if texts[0].startswith("fact") else None
    )
    assert (await vectors(at_once(served))).pending == 0
    written = [request.path.split("/")[2] for request in qdrant.requests if is_upsert(request)]
    assert written == sorted(written, reverse=True)
    assert set(written) == {"kg_nodes", "kg_facts"}
    assert await differences(served) == []
    await service.close()


@pytest.mark.long(after=1)
@pytest.mark.parametrize("status", [200, 400])
async def test_a_text_of_two_collections_is_asked_for_by_one_at_a_time(
    served: TestGraph, embedding: EmbeddingServer, status: int
) -> None:
    await write_facts(served, 2, "CASE i WHEN 1 THEN 'both' ELSE 'fact' END")
    await write_nodes(served, 2, "CASE i WHEN 1 THEN 'both' ELSE 'node' END")
    embedding.before = lambda texts: (
        replace(embedding.answer_for(texts), silence_seconds=0.2)
        if status == 200 or "both" not in texts
        else Answer(400, b'{"error": {"message": "no"}}')
    )
    result = await vectors(at_once(served))
    if status == 200:
        assert (result.upserted, result.pending, embedding.asked["both"]) == (4, 0, 1)
        assert await differences(served) == []
    else:
        assert (result.upserted, result.refused) == (2, 2)
