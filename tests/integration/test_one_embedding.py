"""One truth per graph: workers whose settings differ do not embed a graph in turn."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import structlog
from pydantic import SecretStr
from structlog.testing import capture_logs

from syncline.control.embedding_record import EmbeddingRecord
from syncline.control.graphs import Graph, GraphDraft
from syncline.control.readiness import for_development
from syncline.control.services import Services
from syncline.control.workers import register_worker
from syncline.embeddings.openai import OpenAIEmbedding
from syncline.engine import run_cycle
from syncline.errors import EmbeddingDiffers, StoreUnavailable
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.operator.health.check import CheckStatus
from syncline.operator.health.examine import examine
from syncline.provider import CycleBudget, NoOptions, NullMeter, RunIdentity, SyncContext
from syncline.settings import Settings
from syncline.testing.graphs import TestGraph, write
from tests.kit.dialects import NATIVE, ollama
from tests.kit.faulty_http import FaultyServer

NODE = "INSERT INTO write_nodes (id, concept, metadata) VALUES ('n{0}', 'node {0}', '{{}}')"


@pytest.fixture
def stub() -> Iterator[FaultyServer]:
    with FaultyServer(respond=ollama) as server:
        yield server


def asked(server: FaultyServer, model: str) -> list[str]:
    bodies = [json.loads(request.body) for request in server.requests if request.method == "POST"]
    return [text for body in bodies if body["model"] == model for text in body["input"]]


async def test_two_contexts_without_a_control_plane_embed_nothing_in_turn(
    graph: TestGraph, stub: FaultyServer
) -> None:
    one, other = (OpenAIEmbedding(stub.url, model, NATIVE) for model in ("one", "other"))
    await write(graph, NODE.format(1))
    first = await run_cycle(replace(graph.context(), embedding=one))
    assert (first.vectors.embedded, first.vectors.error) == (1, None)
    for turn in (2, 3):
        refused = await run_cycle(replace(graph.context(), embedding=other))
        assert refused.status is CycleStatus.VECTORS_DELAYED
        assert "graph 'kg' are made with openai-one-4, and this worker would make" in str(
            refused.vectors.error
        )
        assert "SYNCLINE_EMBEDDING" in str(refused.vectors.error)
        await write(graph, NODE.format(turn))
        refused = await run_cycle(replace(graph.context(), embedding=other))
        assert (refused.vectors.embedded, refused.vectors.pending) == (0, 1)
        # The worker with the right settings does not wait for the other's delay.
        again = await run_cycle(replace(graph.context(), embedding=one))
        assert (again.vectors.embedded, again.vectors.pending, again.vectors.error) == (1, 0, None)
    assert asked(stub, "other") == []
    assert sorted(asked(stub, "one")) == ["node 1", "node 2", "node 3"]
    for service in (one, other):
        await service.close()


class Workers:
    """Workers of different settings over one control plane with graph `kg`."""

    def __init__(self, write_dsn: str, graph_dsn: str, folder: Path, url: str) -> None:
        self._stores = {"write_dsn": SecretStr(write_dsn), "graph_dsn": SecretStr(graph_dsn)}
        self._folder, self._url, self._write_dsn = folder, url, write_dsn

    @asynccontextmanager
    async def worker(self, model: str, path: str = "", **more: object) -> AsyncIterator[Services]:
        settings = Settings.model_validate(
            {
                **self._stores,
                "qdrant_path": self._folder,
                "embedding": "openai",
                "embedding_url": f"{self._url}{path}",
                "embedding_model": model,
                "embedding_dimensions": NATIVE,
                **more,
            }
        )
        async with Services.open(settings) as services:
            yield services

    async def write(self, sql: str) -> None:
        connection = await asyncpg.connect(self._write_dsn, server_settings={"search_path": "kg"})
        await connection.execute(sql)
        await connection.close()


@pytest.fixture
async def workers(migrated: tuple[str, str], tmp_path: Path, stub: FaultyServer) -> Workers:
    found = Workers(*migrated, tmp_path, stub.url)
    async with found.worker("one") as services:
        await services.prepare_control()
        await services.graphs.add(GraphDraft(slug="kg"), prepare=services.prepare_graph)
    await found.write(NODE.format(1))
    return found


async def cycle(services: Services) -> SyncResult:
    """Run a cycle as the activity does."""
    graph: Graph = await services.graphs.get("kg")
    return await run_cycle(
        SyncContext(
            graph=graph.ref,
            run=RunIdentity(workflow_id="w", run_id=str(uuid4())),
            write=services.write_schema(graph),
            target=services.target_schema(graph),
            vectors=services.graph_vectors(graph),
            embedding=services.embedding,
            budget=CycleBudget(batch_rows=1000, seconds=60),
            options=NoOptions(),
            heartbeat=lambda _: None,
            log=structlog.get_logger(),
            meter=NullMeter(),
            may_embed=partial(services.embedding_refusal, graph),
        )
    )


async def recorded(services: Services) -> EmbeddingRecord:
    ((_, _, record),) = await services.embedding_records.of_graphs()
    return record


async def test_the_first_to_write_is_recorded_and_the_other_says_why_until_the_record_is_changed(
    workers: Workers, stub: FaultyServer
) -> None:
    async with workers.worker("one") as services:
        assert await services.foreign_vectors() == []
        assert (await cycle(services)).vectors.embedded == 1
        place = stub.url.removeprefix("http://")
        assert await recorded(services) == EmbeddingRecord(
            embedding="openai-one-4", dimensions=4, address=place, options="", store="embedded"
        )
    async with workers.worker("other") as services:
        # Said before anything is paid.
        (problem,) = await services.foreign_vectors()
        assert (problem.graph, problem.found, problem.mine) == ("kg", "openai-one-4", "openai-other-4")
        checks = await examine(services, identity="w", namespace="n", asked_at=datetime.now(UTC))
        (check,) = (check for check in checks.checks if check.name == "embedding: graphs")
        assert check.status is CheckStatus.FAIL
        assert "syncline graph set kg --embedding openai-other-4" in check.found
        asked_before = len(asked(stub, "other"))  # doctor's own word
        refused = await cycle(services)
        assert (refused.status, refused.vectors.embedded) == (CycleStatus.VECTORS_DELAYED, 0)
        assert str(refused.vectors.error) == f"EmbeddingDiffers: {problem}"
        graph = await services.graphs.get("kg")
        await services.embedding_records.accept(graph.id, "openai-other-4")
        assert (await cycle(services)).vectors.embedded == 1
        assert len(asked(stub, "other")) == asked_before + 1
    async with workers.worker("one") as services:
        refused = await cycle(services)
        assert "made with openai-other-4" in str(refused.vectors.error)
    assert asked(stub, "one") == ["node 1"]


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("path", "more", "setting", "said"),
    [
        ("/elsewhere", {}, "SYNCLINE_EMBEDDING_URL", "/elsewhere"),
        ("", {"embedding_body": {"input_type": "query"}}, "SYNCLINE_EMBEDDING_BODY", "fields"),
        ("", {"qdrant_url": "http://127.0.0.1:9"}, "SYNCLINE_QDRANT_URL", "in 127.0.0.1:9"),
    ],
)
async def test_the_same_model_at_another_address_or_in_another_store_is_another(
    path: str, more: dict[str, object], setting: str, said: str, workers: Workers, stub: FaultyServer
) -> None:
    async with workers.worker("one") as services:
        await cycle(services)
    await workers.write(NODE.format(2))
    async with workers.worker("one", path, **more) as services:
        refused = await cycle(services)
        assert (refused.vectors.embedded, refused.vectors.pending) == (0, 1)
        assert setting in str(refused.vectors.error)
        assert said in str(refused.vectors.error)
        graph = await services.graphs.get("kg")
        await services.embedding_records.accept(graph.id, services.embedding.name)
        after = await cycle(services)
        if "qdrant_url" not in more:
            # The name is the same: what is there stays.
            assert (after.vectors.embedded, after.vectors.error) == (1, None)
            assert sorted(asked(stub, "one")) == ["node 1", "node 2"]
        assert await services.foreign_vectors() == []


async def test_vectors_without_a_record_are_those_of_the_service_that_made_them(
    workers: Workers, stub: FaultyServer
) -> None:
    async with workers.worker("one") as services:
        await cycle(services)
        async with services.control.begin() as connection:
            await connection.exec_driver_sql("DELETE FROM syncline.graph_embeddings")
    async with workers.worker("other") as services:
        refused = await cycle(services)
        assert "made with openai-one-4" in str(refused.vectors.error)
        assert await recorded(services) == EmbeddingRecord(embedding="openai-one-4")
    await workers.write(NODE.format(2))
    async with workers.worker("one") as services:
        assert (await cycle(services)).vectors.embedded == 1
        assert (await recorded(services)).address == stub.url.removeprefix("http://")
    assert asked(stub, "other") == []


async def test_a_check_of_vectors_goes_by_the_record_and_not_by_the_worker_that_makes_it(
    workers: Workers,
) -> None:
    async with workers.worker("one") as services:
        await cycle(services)
    async with workers.worker("other") as services:
        graph = await services.graphs.get("kg")
        assert await services.vectors_made_with(graph) == "openai-one-4"
    async with workers.worker("other", qdrant_url="http://127.0.0.1:9") as services:
        with pytest.raises(EmbeddingDiffers, match="SYNCLINE_QDRANT_URL"):
            await services.vectors_made_with(graph)


async def test_a_worker_with_other_settings_is_told_of_by_every_doctor(workers: Workers) -> None:
    async with workers.worker("one") as services:
        await cycle(services)
    async with (
        workers.worker("other") as services,
        register_worker(services, identity="other@host:1"),
        workers.worker("one") as looking,
    ):
        async with asyncio.timeout(60):
            while not (registered := await looking.workers.list()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    (problem,) = registered[0].unusable
    assert "graph 'kg' are made with openai-one-4" in problem


async def test_a_control_plane_that_is_away_holds_vectors_back(
    workers: Workers, stub: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers.worker("one") as services:
        graph = await services.graphs.get("kg")

        def away() -> None:
            raise StoreUnavailable("control", "it is away.")

        monkeypatch.setattr(services.control, "begin", away)
        refused = await services.embedding_refusal(graph, [])
    assert refused is not None
    assert not isinstance(refused, EmbeddingDiffers)
    assert "it is away" in str(refused)


async def test_what_is_for_development_is_said_at_start() -> None:
    dsn = SecretStr("postgresql://localhost/nothing")
    settings = Settings(write_dsn=dsn, graph_dsn=dsn)
    assert list(for_development(settings)) == ["embedded vector store", "development embedding"]
    assert for_development(settings.model_copy(update={"dev_stack": True})) == {}
    served = settings.model_copy(update={"qdrant_url": "https://q.example", "embedding": "openai"})
    assert for_development(served) == {}


async def test_a_worker_logs_what_is_for_development(workers: Workers) -> None:
    from syncline.control.readiness import log_in

    async with workers.worker("one") as services:
        with capture_logs() as logs:
            await log_in(services)
    assert [line["event"] for line in logs if "development stack" in line["event"]] == [
        "embedded vector store outside a development stack"
    ]
