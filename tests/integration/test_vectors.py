"""Vectors through every trouble: each thing that fails waits by itself, says so, and heals by itself."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from math import ceil
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from structlog.testing import capture_logs

from syncline.embeddings.openai import OpenAIEmbedding
from syncline.engine import run_cycle
from syncline.engine.keys import key_uuid
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.state import Fence
from syncline.engine.vectors import outbox as outbox_module
from syncline.engine.vectors.outbox import Outbox, due_sql, point_hash_sql
from syncline.errors import CycleFenced, StoreUnavailable
from syncline.messages.sync import CycleStatus, VectorProgress
from syncline.provider import RetryRules, SyncContext
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.testing.graphs import SCHEMA, TestGraph, write
from syncline.testing.one_graph import session
from syncline.testing.truth import differences
from tests.kit.faulty_http import Answer, Request
from tests.kit.ports import free_port
from tests.kit.vector_services import DIMENSIONS, EmbeddingServer, QdrantServer, is_upsert, qdrant_error

AT_ONCE = RetryRules(vector_seconds=0, dead_letter_seconds=0)
LATER = RetryRules(vector_seconds=100, vector_longest_seconds=350)
BOTH = ("facts", "nodes")


@pytest.fixture
def embedding() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture
def qdrant() -> Iterator[QdrantServer]:
    with QdrantServer() as server:
        yield server


def service_of(url: str, model: str = "small", dimensions: int = DIMENSIONS) -> OpenAIEmbedding:
    return OpenAIEmbedding(url, model, dimensions, timeout_seconds=5)


@pytest.fixture
async def embedded(graph: TestGraph, embedding: EmbeddingServer) -> AsyncIterator[TestGraph]:
    """The graph with the embedding server for its service."""
    graph.embedding = service_of(embedding.url)
    yield graph
    await graph.embedding.close()


@pytest.fixture
async def served(embedded: TestGraph, qdrant: QdrantServer) -> AsyncIterator[TestGraph]:
    """The graph with both servers: for its vectors too."""
    local, store = embedded.vectors, QdrantServerStore("qdrant", qdrant.url, None, 5)
    embedded.vectors = store
    yield embedded
    embedded.vectors = local
    await store.close()


def accepted(context: SyncContext) -> SyncContext:
    """The context after an operator has accepted its embedding for the graph."""

    async def may_embed(made_by: Sequence[str]) -> None:
        """Refuse nothing."""

    return replace(context, may_embed=may_embed)


def at_once(graph: TestGraph) -> SyncContext:
    """A context without any wait: everything is due again in the next cycle."""
    return replace(graph.context(), retry=AT_ONCE)


@asynccontextmanager
async def connected(graph: TestGraph, side: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await (graph.connect_write() if side == "write" else graph.connect_target())
    try:
        yield connection
    finally:
        await connection.close()


async def books(graph: TestGraph, sql: str, *arguments: object) -> list[asyncpg.Record]:
    async with session(graph, graph.target_dsn) as connection:
        return list(await connection.fetch(sql, *arguments))


async def write_both(graph: TestGraph, number: int, first: int = 1) -> None:
    """Write that many facts and as many nodes."""
    await write(
        graph,
        "WITH n AS (INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'node ' || i"
        " FROM generate_series($1::int, $2::int) i)"
        " INSERT INTO write_facts (id, content, dedup_status) SELECT 'f' || i, 'fact ' || i, 'ready'"
        " FROM generate_series($1::int, $2::int) i",
        first,
        first + number - 1,
    )


async def vectors(context: SyncContext) -> VectorProgress:
    return (await run_cycle(context)).vectors


async def payloads(graph: TestGraph, collection: str = "nodes") -> dict[UUID, dict[str, object]]:
    pages = [page async for page in graph.vectors.scroll(f"kg_{collection}")]
    return {point.id: dict(point.payload) for page in pages for point in page}


async def delays(graph: TestGraph) -> dict[str, tuple[int, int]]:
    """Attempts and seconds of the last wait, per collection: rounded up to fifties, as it runs."""
    rows = await books(
        graph,
        "SELECT collection, attempts, next_retry_at - clock_timestamp() AS wait FROM sync_vector_delay",
    )
    return {row["collection"]: (row["attempts"], 50 * ceil(row["wait"].total_seconds() / 50)) for row in rows}


async def time_passes(graph: TestGraph) -> None:
    """Every wait is over."""
    await books(graph, "UPDATE sync_vector_delay SET next_retry_at = now()")
    await books(graph, "UPDATE sync_outbox SET next_retry_at = now() WHERE next_retry_at IS NOT NULL")


async def is_due(graph: TestGraph) -> bool:
    query = f"SELECT {due_sql(KNOWLEDGE_GRAPH, graph.embedding.name)} AS due"
    return bool((await books(graph, query))[0]["due"])


async def test_facts_and_nodes_arrive_with_the_hash_of_their_row(embedded: TestGraph) -> None:
    await write_both(embedded, 3)
    await write(embedded, "UPDATE write_nodes SET definition = E'zwei\\n\"\\u0001\\\\ é日', creator_id = 'u'")
    result = await vectors(embedded.context())
    assert (result.upserted, result.embedded, result.pending, result.error) == (6, 6, 0, None)
    assert await differences(embedded) == []
    for table in (KNOWLEDGE_GRAPH["facts"], KNOWLEDGE_GRAPH["nodes"]):
        assert table.vector is not None
        rows = await books(embedded, f"SELECT id, {point_hash_sql(table.vector)} AS hash FROM {table.name} t")
        points = await payloads(embedded, table.name)
        assert {row["id"]: row["hash"] for row in rows} == {
            point: payload["sync_hash"] for point, payload in points.items()
        }


async def test_unchanged_text_is_not_embedded_again(embedded: TestGraph, embedding: EmbeddingServer) -> None:
    await write_both(embedded, 5)
    await run_cycle(embedded.context())
    await write(
        embedded,
        "WITH f AS (UPDATE write_facts SET fact_type = 'other')"
        " UPDATE write_nodes SET visibility = 'private'",
    )
    result = await vectors(embedded.context())
    assert (result.upserted, result.embedded) == (10, 0)
    assert set(embedding.asked.values()) == {1}
    assert await differences(embedded) == []


@pytest.mark.long("test_an_outage_of_the_store_costs_no_embedding_and_ends_in_equality")
async def test_a_store_that_is_away_is_asked_once_and_delays_every_collection(
    served: TestGraph, qdrant: QdrantServer, embedding: EmbeddingServer
) -> None:
    qdrant.before = lambda request: qdrant_error(503, "restarting")
    await write_both(served, 3)
    result = await run_cycle(replace(served.context(), retry=LATER))
    assert (result.status, result.rows, result.vectors.pending) == (CycleStatus.VECTORS_DELAYED, 6, 6)
    assert len(qdrant.requests) == 1
    assert await delays(served) == dict.fromkeys(BOTH, (1, 100))
    assert not embedding.asked
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(
        rf"VectorStoreUnavailable: .*'qdrant'.*HTTP 503.*restarting.*"
        rf" Waiting since {moment}: facts and nodes; the first run after {moment} tries again\.",
        result.vectors.error or "",
    )


@pytest.mark.long("test_each_wait_is_twice_the_one_before_up_to_the_longest")
async def test_nothing_is_asked_and_nothing_written_before_the_time_of_the_next_try(
    served: TestGraph, qdrant: QdrantServer
) -> None:
    qdrant.before = lambda request: qdrant_error(503, "restarting")
    await write_both(served, 3)
    first = await vectors(served.context())
    assert not await is_due(served)
    footprint = "SELECT ctid::text, xmin::text FROM {}"
    tables = ("sync_outbox", "sync_vector_delay", "sync_vector_embedding", "sync_vector")
    before = [await books(served, footprint.format(table)) for table in tables]
    again = await vectors(served.context())
    assert again == first
    assert len(qdrant.requests) == 1
    assert [await books(served, footprint.format(table)) for table in tables] == before
    await time_passes(served)
    assert await is_due(served)
    await run_cycle(served.context())
    # A store that has failed is probed before it is asked again.
    assert [request.path for request in qdrant.requests[1:]] == ["/healthz", qdrant.requests[0].path]


async def test_each_wait_is_twice_the_one_before_up_to_the_longest(
    served: TestGraph, qdrant: QdrantServer
) -> None:
    qdrant.before = lambda request: qdrant_error(503, "restarting")
    await write_both(served, 1)
    context = replace(served.context(), retry=LATER)
    waits = []
    with capture_logs() as logs:
        for _ in range(4):
            await run_cycle(context)
            waits.append(await delays(served))
            await time_passes(served)
    assert [wait["nodes"] for wait in waits] == [(1, 100), (2, 200), (3, 350), (4, 350)]
    told = [entry["log_level"] for entry in logs if entry["event"] == "vectors delayed"]
    assert told == ["warning"] * 2 + ["debug"] * 6  # one for each collection, once
    qdrant.before = lambda request: None
    assert (await run_cycle(context)).status is CycleStatus.DRAINED
    assert await delays(served) == {}


async def test_an_outage_of_the_store_costs_no_embedding_and_ends_in_equality(
    served: TestGraph, qdrant: QdrantServer, embedding: EmbeddingServer
) -> None:
    # The same data through changes, outage and return: every text that was ever to be seen is embedded once.
    await write_both(served, 20)
    await run_cycle(at_once(served))
    away = QdrantServerStore("qdrant", f"http://127.0.0.1:{free_port()}", None, 2)
    context = at_once(served)
    context = replace(context, vectors=replace(context.vectors, store=away))
    pending = []
    for step in range(3):
        await write_both(served, 5, first=100 + 5 * step)
        await write(served, "UPDATE write_nodes SET concept = 'again ' || id WHERE id IN ('n1', 'n2')")
        await write(served, "UPDATE write_facts SET fact_type = 'other' WHERE id = 'f3'")
        result = await run_cycle(context)
        assert result.status is CycleStatus.VECTORS_DELAYED
        assert "not reached" in (result.vectors.error or "")
        pending.append(result.vectors.pending)
    await away.close()
    assert pending == [13, 23, 33]  # the graph-db moves on, the outbox grows
    result = await run_cycle(at_once(served))
    assert (result.status, result.vectors.embedded, result.vectors.upserted) == (CycleStatus.DRAINED, 32, 33)
    assert set(embedding.asked.values()) == {1}
    assert await differences(served) == []
    assert await delays(served) == {}


async def test_an_embedding_service_that_is_away_holds_back_what_needs_it(
    embedded: TestGraph, embedding: EmbeddingServer
) -> None:
    await write_both(embedded, 3)
    await run_cycle(embedded.context())
    await write(embedded, "UPDATE write_nodes SET concept = 'other' WHERE id = 'n1'")
    await write(embedded, "UPDATE write_nodes SET visibility = 'private' WHERE id = 'n2'")
    dead = service_of(f"http://127.0.0.1:{free_port()}")
    context = replace(embedded.context(), embedding=dead, retry=LATER)
    result = await run_cycle(context)
    assert result.status is CycleStatus.VECTORS_DELAYED
    assert (result.vectors.upserted, result.vectors.embedded, result.vectors.pending) == (1, 0, 1)
    assert "EmbeddingUnavailable: Embedding service 'openai-small-8'" in (result.vectors.error or "")
    assert await delays(embedded) == {"nodes": (1, 100)}
    # New facts need it too, and ask by themselves: only of the vector store is known that it is one for all.
    await write_both(embedded, 1, first=9)
    await run_cycle(context)
    assert await delays(embedded) == {"nodes": (1, 100), "facts": (1, 100)}
    await dead.close()
    await time_passes(embedded)
    assert (await run_cycle(embedded.context())).status is CycleStatus.DRAINED
    assert await differences(embedded) == []


async def test_a_collection_of_another_dimension_holds_back_itself_alone(embedded: TestGraph) -> None:
    await embedded.vectors.ensure_collection("kg_nodes", dimensions=3)
    await write_both(embedded, 2)
    result = await run_cycle(at_once(embedded))
    assert (result.status, result.vectors.pending) == (CycleStatus.VECTORS_DELAYED, 2)
    assert re.search(
        r"VectorStoreRejected: .*'kg_nodes' has 3 dimensions.* gives 8\. Drop the collection.*: nodes;",
        result.vectors.error or "",
    )
    assert len(await payloads(embedded, "facts")) == 2
    await embedded.vectors.drop_collection("kg_nodes")
    result = await run_cycle(at_once(embedded))
    assert (result.status, result.vectors.rebuilt) == (CycleStatus.DRAINED, ())
    assert await differences(embedded) == []


async def test_another_dimension_of_the_service_heals_once_the_collections_are_dropped(
    embedded: TestGraph, embedding: EmbeddingServer
) -> None:
    await write_both(embedded, 3)
    await run_cycle(embedded.context())
    before = embedded.embedding
    embedded.embedding = service_of(embedding.url, "large", dimensions=5)
    embedding.dimensions = 5
    await write(embedded, "UPDATE write_nodes SET concept = 'other' WHERE id = 'n1'")
    result = await vectors(accepted(at_once(embedded)))
    assert "has 8 dimensions, the embedding service gives 5" in (result.error or "")
    for collection in BOTH:
        await embedded.vectors.drop_collection(f"kg_{collection}")
    result = await vectors(accepted(at_once(embedded)))
    assert (result.embedded, sorted(result.rebuilt), result.error) == (6, ["facts", "nodes"], None)
    assert await differences(embedded) == []
    await before.close()


@pytest.mark.long("test_a_poison_text_is_tried_five_times_and_is_then_dead_until_it_changes")
async def test_one_poison_text_among_a_thousand_harms_only_itself(
    embedded: TestGraph, embedding: EmbeddingServer
) -> None:
    embedding.refuses = lambda text: "poison" in text
    await write(
        embedded,
        "INSERT INTO write_facts (id, content, dedup_status) SELECT 'f' || i,"
        " CASE i WHEN 437 THEN 'poison' ELSE 'fact ' || i END, 'ready' FROM generate_series(1, 1000) i",
    )
    result = await run_cycle(embedded.context())
    assert result.status is CycleStatus.DRAINED
    assert (result.vectors.upserted, result.vectors.embedded) == (999, 999)
    assert (result.vectors.pending, result.vectors.refused, result.vectors.error) == (0, 1, None)
    assert "content policy" in (result.vectors.refusal or "")
    (entry,) = await books(embedded, "SELECT *, next_retry_at - clock_timestamp() AS wait FROM sync_outbox")
    assert (entry["point_id"], entry["attempts"]) == (key_uuid("f437"), 1)
    assert "content policy" in entry["error"]
    assert 55 < entry["wait"].total_seconds() <= 60
    # Every text was embedded; those beside the poison were sent about log2 of the batch more often.
    assert max(embedding.asked.values()) <= 1 + 10 + 1
    assert len(embedding.requests) < 60
    found = await differences(embedded)
    assert len(found) == 1
    assert "missing" in found[0]


async def test_a_poison_text_is_tried_five_times_and_is_then_dead_until_it_changes(
    embedded: TestGraph, embedding: EmbeddingServer
) -> None:
    embedding.refuses = lambda text: "poison" in text
    await write(embedded, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'poison')")
    waits = []
    for _ in range(5):
        # Alone in its batch, and its own trouble all the same: the service takes other texts.
        assert (await vectors(embedded.context())).refused == 1
        (entry,) = await books(embedded, "SELECT next_retry_at - clock_timestamp() AS wait FROM sync_outbox")
        waits.append(entry["wait"] and round(entry["wait"].total_seconds()))
        assert not await is_due(embedded)
        await time_passes(embedded)
    assert waits == [60, 120, 240, 480, None]
    assert await delays(embedded) == {}
    asked = embedding.asked["poison"]
    assert (await vectors(embedded.context())).refused == 1
    assert embedding.asked["poison"] == asked
    await write(embedded, "UPDATE write_nodes SET concept = 'tonic'")
    result = await vectors(embedded.context())
    assert (result.upserted, result.refused, result.refusal) == (1, 0, None)
    assert await differences(embedded) == []


async def test_a_point_whose_new_text_is_refused_is_not_found_by_its_old_visibility(
    embedded: TestGraph, embedding: EmbeddingServer
) -> None:
    embedding.refuses = lambda text: "poison" in text
    await write_both(embedded, 2)
    await run_cycle(embedded.context())
    await write(embedded, "UPDATE write_nodes SET concept = 'poison', visibility = 'private' WHERE id = 'n1'")
    await run_cycle(embedded.context())
    point = (await payloads(embedded))[key_uuid("n1")]
    assert (point["visibility"], point["sync_hash"]) == ("private", None)
    await write(embedded, "UPDATE write_nodes SET concept = 'node 1' WHERE id = 'n1'")
    assert (await vectors(embedded.context())).embedded == 0  # it has the vector of this text already
    assert await differences(embedded) == []


@pytest.mark.long("test_a_point_that_the_store_refuses_harms_only_itself")
async def test_a_service_that_refuses_every_text_marks_no_point(
    embedded: TestGraph, embedding: EmbeddingServer
) -> None:
    await write_both(embedded, 100)
    embedding.failing = Answer(401, b'{"error": {"message": "wrong key"}}')
    wrong_key = await run_cycle(at_once(embedded))
    assert len(embedding.requests) == 2 * 2  # the batch and one question, for each collection
    embedding.failing, embedding.dimensions = None, 5
    wrong_length = await run_cycle(at_once(embedded))
    for result, told in (
        (wrong_key, "SYNCLINE_EMBEDDING_API_KEY"),
        (wrong_length, "returned vectors of 5 dimensions, not 8; set SYNCLINE_EMBEDDING_DIMENSIONS"),
    ):
        assert (result.status, result.vectors.pending) == (CycleStatus.VECTORS_DELAYED, 200)
        assert (result.vectors.refused, result.vectors.embedded) == (0, 0)
        assert told in (result.vectors.error or "")
    assert await books(embedded, "SELECT FROM sync_outbox WHERE attempts > 0") == []
    embedding.dimensions = DIMENSIONS
    assert (await run_cycle(at_once(embedded))).status is CycleStatus.DRAINED
    assert await differences(embedded) == []


async def test_a_vector_that_is_not_finite_harms_only_its_own_point(
    embedded: TestGraph, embedding: EmbeddingServer
) -> None:
    embedding.strange = lambda text: text == "node 3"
    await write_both(embedded, 5)
    result = await vectors(embedded.context())
    assert (result.upserted, result.refused, result.error) == (9, 1, None)
    assert "not finite" in (result.refusal or "")


async def test_a_point_that_the_store_refuses_harms_only_itself(
    served: TestGraph, qdrant: QdrantServer
) -> None:
    def before(request: Request) -> Answer | None:
        refused = request.path.split("?")[0].endswith("/points") and b"node 7" in request.body
        return qdrant_error(400, "payload of a point is not acceptable") if refused else None

    qdrant.before = before
    await write_both(served, 40)
    result = await vectors(served.context())
    assert (result.upserted, result.embedded, result.refused, result.error) == (79, 80, 1, None)
    assert "payload of a point is not acceptable" in (result.refusal or "")
    qdrant.before = lambda request: None
    await time_passes(served)
    assert (await vectors(served.context())).upserted == 1
    assert await differences(served) == []


@pytest.mark.long("test_a_point_that_the_store_refuses_harms_only_itself")
async def test_a_store_that_refuses_every_point_marks_none(served: TestGraph, qdrant: QdrantServer) -> None:
    def before(request: Request) -> Answer | None:
        return qdrant_error(403, "read only") if request.path.split("?")[0].endswith("/points") else None

    qdrant.before = before
    await write_both(served, 3)
    result = await vectors(at_once(served))
    assert (result.refused, result.pending) == (0, 6)
    assert "SYNCLINE_QDRANT_API_KEY" in (result.error or "")
    await write(served, "DELETE FROM write_nodes WHERE id <> 'n1'")
    result = await vectors(at_once(served))
    assert result.refused == 0  # one point alone proves nothing either
    qdrant.before = lambda request: None
    assert (await run_cycle(at_once(served))).status is CycleStatus.DRAINED
    assert await differences(served) == []


@pytest.mark.long("test_a_collection_that_is_lost_in_the_middle_of_a_drain_is_built_again")
async def test_a_collection_that_was_lost_is_built_again_without_another_change_than_one_row(
    embedded: TestGraph,
) -> None:
    await write_both(embedded, 30)
    await run_cycle(embedded.context())
    await embedded.vectors.drop_collection("kg_nodes")
    await write(embedded, "UPDATE write_nodes SET visibility = 'private' WHERE id = 'n1'")
    with capture_logs() as logs:
        result = await vectors(embedded.context())
    assert (result.upserted, result.embedded, result.rebuilt) == (30, 30, ("nodes",))
    assert ("warning", "kg_nodes") in [(entry["log_level"], entry.get("collection")) for entry in logs]
    assert await differences(embedded) == []
    assert (await vectors(embedded.context())).rebuilt == ()


@pytest.mark.long("test_a_collection_that_is_lost_in_the_middle_of_a_drain_is_built_again")
async def test_a_folder_that_was_lost_under_an_open_store_is_built_again(
    embedded: TestGraph, tmp_path: Path
) -> None:
    await write_both(embedded, 3)
    await run_cycle(embedded.context())
    (tmp_path / "qdrant" / "kg_nodes").rename(tmp_path / "lost")
    for step in range(2):  # at the latest in the second cycle
        await write(embedded, "UPDATE write_nodes SET visibility = $1 WHERE id = 'n1'", f"step {step}")
        result = await run_cycle(at_once(embedded))
    assert result.status is CycleStatus.DRAINED
    assert await differences(embedded) == []


async def test_a_collection_that_somebody_made_again_empty_is_filled(embedded: TestGraph) -> None:
    # As a cycle leaves it that is killed right after it has created the collection.
    await write_both(embedded, 3)
    await run_cycle(embedded.context())
    await embedded.vectors.drop_collection("kg_facts")
    await embedded.vectors.ensure_collection("kg_facts", dimensions=DIMENSIONS)
    await write(embedded, "UPDATE write_facts SET content = 'other' WHERE id = 'f1'")
    result = await vectors(embedded.context())
    assert (result.embedded, result.rebuilt) == (3, ("facts",))
    assert await differences(embedded) == []


@pytest.mark.long(after=1)
@pytest.mark.parametrize("at", [1, 3])
async def test_a_collection_that_is_lost_in_the_middle_of_a_drain_is_built_again(
    served: TestGraph, qdrant: QdrantServer, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr("syncline.engine.vectors.collection_drain._ROWS", 10)
    await write_both(served, 40)
    await run_cycle(served.context())
    await write(
        served,
        "UPDATE write_nodes SET visibility = CASE WHEN id < 'n2' THEN 'private' ELSE visibility END,"
        " concept = CASE WHEN id > 'n3' THEN concept || ' again' ELSE concept END",
    )
    await write(served, "DELETE FROM write_nodes WHERE id LIKE 'n_'")
    steps = count(1)

    def before(request: Request) -> Answer | None:
        if "/kg_nodes/points" in request.path and next(steps) == at:
            del qdrant.collections["kg_nodes"]
        return None

    qdrant.before = before
    results = [await vectors(at_once(served)), await vectors(at_once(served))]
    assert [result.rebuilt for result in results].count(("nodes",)) == 1
    assert results[-1].pending == 0
    assert await differences(served) == []


@pytest.mark.long(
    "test_facts_and_nodes_arrive_with_the_hash_of_their_row", "test_unchanged_text_is_not_embedded_again"
)
async def test_another_embedding_that_is_accepted_embeds_everything_again_without_any_change(
    embedded: TestGraph, embedding: EmbeddingServer
) -> None:
    embedding.refuses = lambda text: text == "node 4"
    await write_both(embedded, 4)
    await run_cycle(embedded.context())
    assert not await is_due(embedded)
    before, embedded.embedding = embedded.embedding, service_of(embedding.url, "better")
    embedding.refuses = lambda text: False
    assert await is_due(embedded)
    await write(embedded, "INSERT INTO write_raw_sources (id, title) VALUES ('r', 'no vector at all')")
    result = await vectors(accepted(embedded.context()))
    assert (result.embedded, result.pending, result.refused) == (8, 0, 0)
    services = await books(embedded, "SELECT DISTINCT embedding FROM sync_vector")
    assert [row["embedding"] for row in services] == ["openai-better-8"]
    assert not await is_due(embedded)
    assert await differences(embedded) == []
    await before.close()


async def test_a_folder_that_is_held_delays_until_it_is_free(embedded: TestGraph, tmp_path: Path) -> None:
    holder = EmbeddedQdrantStore("holder", tmp_path / "qdrant")
    await holder.ensure_collection("kg_facts", dimensions=DIMENSIONS)
    await write_both(embedded, 2)
    result = await vectors(at_once(embedded))
    assert "held by another process" in (result.error or "")
    assert result.pending == 4
    await holder.close()
    assert (await run_cycle(at_once(embedded))).status is CycleStatus.DRAINED
    assert await differences(embedded) == []


@pytest.mark.long(
    "test_facts_and_nodes_arrive_with_the_hash_of_their_row", "test_unchanged_text_is_not_embedded_again"
)
async def test_a_point_that_was_deleted_by_half_a_batch_comes_back_with_its_row(
    served: TestGraph, qdrant: QdrantServer
) -> None:
    await write_both(served, 2)
    await run_cycle(at_once(served))
    await write(
        served,
        "UPDATE write_facts SET dedup_status = CASE id WHEN 'f1' THEN 'pending' ELSE dedup_status END,"
        " content = CASE id WHEN 'f2' THEN 'other' ELSE content END",
    )
    qdrant.before = lambda request: qdrant_error(503, "it took too long") if is_upsert(request) else None
    assert "it took too long" in ((await vectors(at_once(served))).error or "")
    assert str(key_uuid("f1")) not in qdrant.collections["kg_facts"]
    qdrant.before = lambda request: None
    await write(served, "UPDATE write_facts SET dedup_status = 'ready'")
    await run_cycle(at_once(served))
    assert await differences(served) == []


@pytest.mark.long(after=1)
@pytest.mark.parametrize("by", ["no answer", "a kill"])
async def test_a_vector_that_was_written_and_not_confirmed_is_not_taken_for_the_one_before(
    served: TestGraph,
    qdrant: QdrantServer,
    embedding: EmbeddingServer,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    await write_both(served, 2)
    await run_cycle(at_once(served))
    before = dict(qdrant.vectors)
    await write(served, "UPDATE write_nodes SET concept = 'another' WHERE id = 'n1'")
    if by == "no answer":
        qdrant.before = lambda request: (
            qdrant.applies_but_does_not_answer(request) if is_upsert(request) else None
        )
        assert "it took too long" in ((await vectors(at_once(served))).error or "")
        qdrant.before = lambda request: None
    else:
        with monkeypatch.context() as patched:
            patched.setattr(Outbox, "settle", _killed)
            with pytest.raises(KilledError):
                await run_cycle(at_once(served))
        await served.wait_until_free()
    assert qdrant.vectors != before
    await write(served, "UPDATE write_nodes SET concept = 'node 1' WHERE id = 'n1'")
    assert (await run_cycle(at_once(served))).status is CycleStatus.DRAINED
    assert qdrant.vectors == before
    assert await differences(served) == []


async def test_a_point_that_nobody_confirmed_is_not_found_by_its_old_visibility(
    served: TestGraph, qdrant: QdrantServer, embedding: EmbeddingServer
) -> None:
    embedding.refuses = lambda text: "poison" in text
    await write_both(served, 1)
    qdrant.before = lambda request: (
        qdrant.applies_but_does_not_answer(request)
        if is_upsert(request) and "kg_nodes" in request.path
        else None
    )
    assert (await vectors(at_once(served))).pending == 1
    qdrant.before = lambda request: None
    await write(served, "UPDATE write_nodes SET concept = 'poison', visibility = 'private'")
    assert (await vectors(at_once(served))).refused == 1
    assert (await payloads(served))[key_uuid("n1")]["visibility"] == "private"


class KilledError(Exception):
    """What stops a cycle between two steps."""


async def _killed(*_: object) -> None:
    raise KilledError


LOCK_LOST = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""Postgres ends the connection of a worker that has stood still, and with it the graph's lock."""
TAKEN_OVER = "UPDATE sync_state SET fence = fence + 1"


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("how", "error"), [(LOCK_LOST, StoreUnavailable), (TAKEN_OVER, CycleFenced)])
async def test_a_cycle_that_was_superseded_sends_no_more_points(
    served: TestGraph, qdrant: QdrantServer, how: str, error: type[Exception]
) -> None:
    await write_both(served, 3)
    await run_cycle(at_once(served))
    await write(served, "DELETE FROM write_facts WHERE id = 'f1'")
    await write(served, "UPDATE write_facts SET fact_type = 'other' WHERE id = 'f2'")
    await write(served, "UPDATE write_facts SET content = 'other' WHERE id = 'f3'")
    sent: list[str] = []

    def before(request: Request) -> Answer | None:
        if "/points" in request.path and "/count" not in request.path and "/scroll" not in request.path:
            sent.append(request.path)
            asyncio.run(books(served, how))  # in a thread of the server
        return None

    qdrant.before = before
    with pytest.raises(error):
        await run_cycle(at_once(served))
    assert [path.split("?")[0] for path in sent] == ["/collections/kg_facts/points/delete"]
    qdrant.before = lambda request: None
    await served.wait_until_free()
    await run_cycle(at_once(served))
    assert await differences(served) == []


async def test_payload_indexes_are_there_for_what_people_filter_by(embedded: TestGraph) -> None:
    # Also on a collection that was made without them.
    await embedded.vectors.ensure_collection("kg_nodes", dimensions=DIMENSIONS)
    await write_both(embedded, 1)
    await run_cycle(embedded.context())
    assert isinstance(embedded.vectors, EmbeddedQdrantStore)
    for collection, fields in (
        ("kg_facts", {"fact_type"}),
        ("kg_nodes", {"node_type", "visibility", "creator_id"}),
    ):
        shard = embedded.vectors._opened.shards[collection]
        assert set(shard._shard.info().payload_schema) == fields


async def test_large_texts_travel_in_small_batches(graph: TestGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_BYTES", 100_000)
    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status) SELECT 'f' || i,"
        " CASE WHEN i % 10 = 0 THEN repeat('x', 60000) ELSE 'small ' || i END, 'ready'"
        " FROM generate_series(1, 95) i",
    )
    context = graph.context()
    away = QdrantServerStore("away", f"http://127.0.0.1:{free_port()}", None, 2)
    await run_cycle(replace(context, vectors=replace(context.vectors, store=away)))
    await away.close()
    facts = KNOWLEDGE_GRAPH["facts"]
    assert facts.vector is not None
    sizes = []
    async with graph.target.driver() as connection:
        fence = await Fence.current(connection, graph="kg", schema=SCHEMA)
        held = HeldSchema(connection, SCHEMA)
        outbox = Outbox(
            held,
            KNOWLEDGE_GRAPH,
            facts,
            facts.vector,
            collection="facts",
            fence=fence,
            turns=asyncio.Lock(),
            embedding="e",
            retry=AT_ONCE,
            rows=50,
        )
        while entries := await outbox.read():
            sizes.append([len(entry["text"]) for entry in entries])
    assert sum(map(len, sizes)) == 95
    assert max(map(sum, sizes)) < 100_000 + 60_000 + 1000  # the entry that fills a batch may go beyond it
    assert max(map(len, sizes)) <= 50


async def test_a_drain_in_many_batches_is_the_same_as_one(
    embedded: TestGraph, embedding: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.engine.vectors.collection_drain._ROWS", 3)
    await write_both(embedded, 30)
    result = await vectors(embedded.context())
    assert (result.upserted, result.embedded, result.pending) == (60, 60, 0)
    assert set(embedding.asked.values()) == {1}
    assert await differences(embedded) == []
