"""A service that answers again notifies nobody: a graph with a slow Schedule is run when its retry is due."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import structlog
from pydantic import SecretStr

from syncline.capture.listen import session
from syncline.capture.listen.listener import Listening
from syncline.capture.listen.retries import RetryWatch
from syncline.capture.listen.starter import RateLimiter
from syncline.control.graphs import Graph, GraphDraft
from syncline.control.schedule_spec import ScheduleSpec
from syncline.control.services import Services
from syncline.engine import run_cycle
from syncline.messages.base import GraphStatus
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.provider import CycleBudget, NoOptions, NullMeter, RetryRules, RunIdentity, SyncContext
from syncline.settings import Settings
from syncline.testing.lab import eventually
from tests.kit.faulty_http import Answer
from tests.kit.run_starter import RunsStartedBy
from tests.kit.vector_services import EmbeddingServer


@pytest.fixture
def embedding() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture
async def services(
    new_database: Callable[..., str], tmp_path: Path, embedding: EmbeddingServer
) -> AsyncIterator[Services]:
    settings = Settings(
        write_dsn=SecretStr(new_database()),
        graph_dsn=SecretStr(new_database()),
        qdrant_path=tmp_path / "qdrant",
        embedding="openai",
        embedding_url=embedding.url,
        embedding_model="m",
        embedding_dimensions=embedding.dimensions,
        pool_size=4,
    )
    async with Services.open(settings) as opened:
        await opened.prepare_control()
        yield opened


async def cycle(services: Services, graph: Graph) -> SyncResult:
    """Run a cycle as the activity does."""
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
            retry=RetryRules(vector_seconds=0.3, vector_longest_seconds=0.3),
            heartbeat=lambda _: None,
            log=structlog.get_logger(),
            meter=NullMeter(),
        )
    )


async def daily(services: Services, slug: str, **schedule: object) -> Graph:
    spec = ScheduleSpec.model_validate({"every_seconds": 86_400, **schedule})
    return await services.graphs.add(GraphDraft(slug=slug, schedule=spec), prepare=services.prepare_graph)


async def insert_node(services: Services, schema: str) -> None:
    connection = await asyncpg.connect(services.settings.write_dsn.get_secret_value())
    await connection.execute(f"INSERT INTO {schema}.write_nodes (id, concept) VALUES ('n', 'node')")
    await connection.close()


async def test_delayed_vectors_start_a_run_when_their_retry_is_due(
    services: Services, embedding: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_RETRY", 0.2)
    graph = await daily(services, "kg")
    results: list[SyncResult] = []

    async def trigger(started: Graph) -> str:
        results.append(await cycle(services, started))
        return "started"

    async def delayed(times: int) -> bool:
        return len([one for one in results if one.status is CycleStatus.VECTORS_DELAYED]) >= times

    async def drained() -> bool:
        return results[-1].status is CycleStatus.DRAINED

    embedding.failing = Answer(503, b"{}")
    await insert_node(services, graph.schema_name)
    assert (await cycle(services, graph)).status is CycleStatus.VECTORS_DELAYED
    async with Listening(services, RunsStartedBy(trigger), namespace=str(uuid4())):
        # More than the listener's own look at its start: each due time starts one run.
        await eventually(lambda: delayed(3))
        embedding.failing = None
        await eventually(drained)
    assert results[-1].vectors.upserted == 1


async def test_a_due_retry_starts_one_run_and_only_of_a_slow_schedule(
    services: Services, embedding: EmbeddingServer
) -> None:
    slow, quick = await daily(services, "kg"), await daily(services, "quick", every_seconds=60)
    paused = slow.model_copy(update={"status": GraphStatus.PAUSED})
    named: list[str] = []

    async def trigger(started: Graph) -> str:
        named.append(started.slug)
        return "started"

    watch = RetryWatch(services, RunsStartedBy(trigger), RateLimiter(100))
    await watch.look([slow, quick])
    assert named == []
    embedding.failing = Answer(503, b"{}")
    for one in (slow, quick):
        await insert_node(services, one.schema_name)
        await cycle(services, one)

    async def started() -> bool:
        await watch.look([slow, quick, slow.model_copy(update={"schema_name": "nowhere", "slug": "absent"})])
        return bool(named)

    await watch.look([paused, quick])
    assert named == []
    await eventually(started)
    await watch.look([slow, quick])
    assert named == ["kg"]
