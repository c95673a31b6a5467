"""A Qdrant server in strict mode, with limits of reads, with a key of few rights, and with settings of collections."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import numpy as np
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from syncline.engine import KNOWLEDGE_GRAPH, run_cycle
from syncline.errors import VectorStoreRejected
from syncline.messages.sync import CycleStatus
from syncline.messages.verification import Verdict
from syncline.stores.collection_options import CollectionOptions
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.stores.vectors import PointPayload
from syncline.testing.graphs import TestGraph, write
from syncline.verify import verify
from tests.kit.faulty_http import Request
from tests.kit.strict_qdrant import StrictQdrant


@pytest.fixture
async def qdrant() -> AsyncIterator[StrictQdrant]:
    with StrictQdrant() as server:
        yield server


@pytest.fixture
async def store(qdrant: StrictQdrant) -> AsyncIterator[QdrantServerStore]:
    store = QdrantServerStore("system", qdrant.url, SecretStr("key"), timeout_seconds=2)
    yield store
    await store.close()


async def filled(store: QdrantServerStore, count: int) -> set[UUID]:
    points = [PointPayload(uuid4(), {"n": number}) for number in range(count)]
    await store.ensure_collection("nodes", dimensions=3)
    await store.upsert("nodes", points, np.ones((count, 3), dtype=np.float32))
    return {point.id for point in points}


async def scrolled(store: QdrantServerStore) -> list[UUID]:
    return [point.id async for page in store.scroll("nodes", batch=1000) for point in page]


async def test_pages_become_what_strict_mode_allows_and_stay_so(
    qdrant: StrictQdrant, store: QdrantServerStore
) -> None:
    written = await filled(store, 23)
    qdrant.strict = {"max_query_limit": 10}
    for _ in range(2):
        found = await scrolled(store)
        assert (len(found), set(found)) == (23, written)
    assert [body["limit"] for body in qdrant.sent("/scroll")] == [1000, 10, 10, 10, 10, 10, 10]


async def test_no_exact_count_is_needed(qdrant: StrictQdrant, store: QdrantServerStore) -> None:
    qdrant.strict = {"search_allow_exact": False, "max_query_limit": 1}
    assert await store.is_empty("nodes")
    await store.ensure_collection("nodes", dimensions=3)
    assert await store.is_empty("nodes")
    assert qdrant.sent("/count") == []
    await filled(store, 2)
    assert not await store.is_empty("nodes")
    assert [await store.count("nodes") for _ in range(2)] == [2, 2]
    assert [body["exact"] for body in qdrant.sent("/count")] == [True, False, False]


async def test_reads_wait_for_a_limit_of_reads(qdrant: StrictQdrant, store: QdrantServerStore) -> None:
    written = await filled(store, 3)
    qdrant.pauses = 1
    assert set(await scrolled(store)) == written
    assert len(qdrant.sent("/scroll")) == 2


async def test_a_key_without_the_right_is_told_which(qdrant: StrictQdrant, store: QdrantServerStore) -> None:
    def no_global(request: Request) -> str | None:
        made = request.method == "PUT" and request.path.count("/") == 2
        return "Global access is required" if made else None

    qdrant.forbids = no_global
    with pytest.raises(VectorStoreRejected) as raised:
        await store.ensure_collection("nodes", dimensions=3)
    assert "HTTP 403: Forbidden: Global access is required" in str(raised.value)
    assert "global access `m`" in str(raised.value)
    assert "does not suit" not in str(raised.value)


EVERYTHING = CollectionOptions(
    vectors_on_disk=True,
    payload_on_disk=False,
    hnsw_m=32,
    hnsw_ef_construct=200,
    hnsw_on_disk=True,
    quantization="scalar",
    shards=3,
    replication_factor=2,
    write_consistency_factor=2,
)


async def test_a_new_collection_has_the_settings_of_its_graph(
    qdrant: StrictQdrant, store: QdrantServerStore
) -> None:
    assert await store.ensure_collection("nodes", dimensions=3, options=EVERYTHING)
    config = qdrant.config["nodes"]
    assert config["params"] == {
        "vectors": {"size": 3, "distance": "Cosine", "on_disk": True},
        "shard_number": 3,
        "replication_factor": 2,
        "write_consistency_factor": 2,
        "on_disk_payload": False,
    }
    assert {name: config["hnsw_config"][name] for name in ("m", "ef_construct", "on_disk")} == {
        "m": 32,
        "ef_construct": 200,
        "on_disk": True,
    }
    assert config["quantization_config"]["scalar"]["type"] == "int8"
    sent = len(qdrant.requests)
    await store.ensure_collection("nodes", dimensions=3, options=EVERYTHING)
    # As many as without settings: whether it is there, and what it is.
    assert [request.method for request in qdrant.requests[sent:]] == ["GET", "GET"]


async def test_a_collection_is_given_what_can_change_and_what_cannot_is_said_once(
    qdrant: StrictQdrant, store: QdrantServerStore
) -> None:
    await store.ensure_collection("nodes", dimensions=3)
    with capture_logs() as logs:
        for _ in range(2):
            await store.ensure_collection("nodes", dimensions=3, options=EVERYTHING)
    config = qdrant.config["nodes"]
    assert config["params"]["shard_number"] == 1
    assert (config["params"]["replication_factor"], config["hnsw_config"]["m"]) == (2, 32)
    assert config["quantization_config"]["scalar"]["type"] == "int8"
    assert [request.method for request in qdrant.requests].count("PATCH") == 1
    fixed = [
        line for line in logs if line["event"] == "collection keeps settings that are fixed when it is made"
    ]
    assert [line["settings"] for line in fixed] == [["shards"]]
    await store.ensure_collection("nodes", dimensions=3, options=CollectionOptions(quantization="none"))
    assert qdrant.config["nodes"]["quantization_config"] is None
    assert qdrant.config["nodes"]["hnsw_config"]["m"] == 32


async def test_settings_that_the_record_leaves_alone_are_nobodys_business(
    qdrant: StrictQdrant, store: QdrantServerStore
) -> None:
    await store.ensure_collection("nodes", dimensions=3, options=EVERYTHING)
    await store.ensure_collection("nodes", dimensions=3)
    assert [request.method for request in qdrant.requests].count("PATCH") == 0
    assert qdrant.config["nodes"]["hnsw_config"]["m"] == 32


async def test_cycles_and_verification_live_with_every_limit(
    graph: TestGraph, qdrant: StrictQdrant, store: QdrantServerStore
) -> None:
    qdrant.strict = {"search_allow_exact": False, "max_query_limit": 7, "upsert_max_batchsize": 256}
    graph.vectors = store

    async def damage(repair: bool = False) -> tuple[int, Sequence[str]]:
        context = graph.context()
        found = await verify(
            KNOWLEDGE_GRAPH, write=context.write, target=context.target, vectors=context.vectors,
            tables=["facts"], embedding=context.embedding.name, repair=repair, who="tester", why="a test",
        )  # fmt: skip
        [relation] = [one for one in found.relations if one.kind.value == "vectors"]
        return relation.compared, [verdict for verdict in Verdict if relation.found(verdict).count]

    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status)"
        " SELECT 'f' || i, 'fact ' || i, 'ready' FROM generate_series(1, 30) i",
    )
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert await damage() == (30, [])
    await write(graph, "UPDATE write_facts SET content = 'other' WHERE id = 'f1'")
    await write(graph, "DELETE FROM write_facts WHERE id = 'f2'")
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert await damage() == (29, [])
    qdrant.points["kg_facts"].popitem()
    assert await damage(repair=True) == (29, [Verdict.MISSING])
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert await damage() == (29, [])
    assert qdrant.sent("/count") == []
