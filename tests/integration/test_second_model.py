"""A graph's second embedding model: both generations are kept in step, and neither waits for the other."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

import pytest

from syncline.embeddings.openai import OpenAIEmbedding
from syncline.engine import run_cycle
from syncline.engine.keys import key_uuid
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.vectors.generations import Generations
from syncline.errors import EmbeddingDiffers
from syncline.messages.sync import CycleStatus, SecondVectors, SyncResult
from syncline.operator.second_model import (
    generations_of,
    start_second,
)
from syncline.provider import RetryRules, SyncContext
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.testing.graphs import TestGraph, write
from syncline.testing.one_graph import read
from tests.kit.vector_services import DIMENSIONS, EmbeddingServer, QdrantServer

LARGE = DIMENSIONS + 4
AT_ONCE = RetryRules(vector_seconds=0, dead_letter_seconds=0)


@dataclass
class Change:
    """A graph whose model changes, and the two services."""

    graph: TestGraph
    first: EmbeddingServer
    second: EmbeddingServer
    services: tuple[OpenAIEmbedding, OpenAIEmbedding]

    def context(self, *, both: bool = True) -> SyncContext:
        context = replace(self.graph.context(), retry=AT_ONCE)
        return replace(context, second_embedding=self.services[1]) if both else context

    async def cycle(self, *, both: bool = True) -> SyncResult:
        return await run_cycle(self.context(both=both))

    async def start(self) -> Generations:
        return await start_second(self.context().target, KNOWLEDGE_GRAPH)

    async def points(self, name: str) -> dict[UUID, dict[str, object]]:
        pages = [page async for page in self.graph.vectors.scroll(name)]
        return {point.id: dict(point.payload) for page in pages for point in page}

    async def both(self) -> tuple[dict[UUID, dict[str, object]], dict[UUID, dict[str, object]]]:
        return await self.points("kg_nodes"), await self.points("kg_nodes.2")

    async def owed(self) -> dict[str, int]:
        rows = await read(self.graph, "SELECT collection, count(*) FROM sync_outbox GROUP BY 1")
        return {row["collection"]: row["count"] for row in rows}


def second_of(result: SyncResult) -> SecondVectors:
    assert result.vectors.second is not None
    return result.vectors.second


@pytest.fixture
def servers() -> Iterator[tuple[EmbeddingServer, EmbeddingServer]]:
    with EmbeddingServer() as first, EmbeddingServer() as second:
        second.dimensions = LARGE
        yield first, second


@pytest.fixture
def qdrant() -> Iterator[QdrantServer]:
    with QdrantServer() as server:
        yield server


@pytest.fixture
async def embedded(
    graph: TestGraph, servers: tuple[EmbeddingServer, EmbeddingServer]
) -> AsyncIterator[Change]:
    """Five nodes are synced; the model is to change."""
    first, second = servers
    services = (
        OpenAIEmbedding(first.url, "small", DIMENSIONS, timeout_seconds=5),
        OpenAIEmbedding(second.url, "large", LARGE, timeout_seconds=5),
    )
    graph.embedding = services[0]
    await write_nodes(graph, 1, 5)
    yield Change(graph, first, second, services)
    for service in services:
        await service.close()


@pytest.fixture(params=["embedded", "served"])
async def change(
    request: pytest.FixtureRequest, embedded: Change, qdrant: QdrantServer
) -> AsyncIterator[Change]:
    """The same over each kind of vector store."""
    if request.param == "embedded":
        yield embedded
        return
    local, store = embedded.graph.vectors, QdrantServerStore("qdrant", qdrant.url, None, 5)
    embedded.graph.vectors = store
    yield embedded
    embedded.graph.vectors = local
    await store.close()


async def write_nodes(graph: TestGraph, first: int, last: int) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'node ' || i"
        " FROM generate_series($1::int, $2::int) i",
        first,
        last,
    )


async def test_both_generations_follow_every_change_and_each_text_is_paid_once_per_model(
    change: Change,
) -> None:
    await change.cycle()
    started = await change.start()
    assert (started.main, started.second and started.second.generation) == (1, 2)
    assert await change.start() == started
    result = await change.cycle()
    assert result.status is CycleStatus.DRAINED
    assert (result.vectors.upserted, result.vectors.embedded) == (0, 0)
    assert second_of(result) == SecondVectors(upserted=5, embedded=5)
    filled = await generations_of(change.context().target)
    assert filled.second is not None
    assert filled.second.filled_at is not None
    assert filled.live == 1
    await write(change.graph, "UPDATE write_nodes SET concept = 'other' WHERE id = 'n1'")
    await write(change.graph, "UPDATE write_nodes SET node_type = 'event' WHERE id = 'n2'")
    await write(change.graph, "DELETE FROM write_nodes WHERE id = 'n3'")
    await write_nodes(change.graph, 6, 6)
    result = await change.cycle()
    assert (result.vectors.upserted, result.vectors.deleted, result.vectors.embedded) == (3, 1, 2)
    assert second_of(result) == SecondVectors(upserted=3, deleted=1, embedded=2)
    main, second = await change.both()
    assert main == second
    assert len(main) == 5
    assert main[key_uuid("n1")]["concept"] == "other"
    texts = {f"node {number}" for number in range(1, 7)} | {"other"}
    for server in (change.first, change.second):
        assert dict(server.embedded) == dict.fromkeys(texts, 1)
    assert await change.graph.vectors.aliases() == {"kg_nodes.live": "kg_nodes"}
    idle = await change.cycle()
    assert (idle.vectors.second, idle.owes) == (None, False)


async def test_a_worker_without_the_second_service_writes_the_main_vectors_and_says_why_no_others(
    embedded: Change,
) -> None:
    await embedded.cycle()
    await embedded.start()
    await embedded.cycle()
    await write_nodes(embedded.graph, 6, 6)
    result = await embedded.cycle(both=False)
    assert (result.status, result.vectors.embedded, result.vectors.error) == (CycleStatus.DRAINED, 1, None)
    second = second_of(result)
    assert (second.embedded, second.pending) == (0, 1)
    assert second.error is not None
    assert second.error.startswith(f"{EmbeddingDiffers.__name__}: ")
    assert "SYNCLINE_SECOND_EMBEDDING" in second.error
    # Not a delay: another worker may have it.
    assert second_of(await embedded.cycle()).embedded == 1
