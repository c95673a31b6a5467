"""Which service makes which generation: the control plane has it, whatever the settings of a worker call them."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import structlog
from pydantic import SecretStr

from syncline.control.embedding_record import record_of
from syncline.control.graphs import GraphDraft
from syncline.control.services import Services
from syncline.embeddings.openai import OpenAIEmbedding
from syncline.embeddings.service import Vectors
from syncline.engine.cycle import SyncEngine
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.errors import EmbeddingBudgetSpent, EmbeddingDiffers, ShadowInvalid
from syncline.messages.sync import SyncResult
from syncline.operator.collections import drop_collections
from syncline.operator.second_model import generations_of, main_vectors, make_second_main, start_second
from syncline.provider import CycleBudget, NoOptions, NullMeter, RunIdentity, SyncContext
from syncline.settings import Settings
from syncline.shadow.prepare import prepare_shadow
from tests.kit.vector_services import DIMENSIONS, EmbeddingServer

LARGE = DIMENSIONS + 4


class Site:
    """One graph over one control plane; workers offer one service or two, in any order."""

    def __init__(self, write_dsn: str, graph_dsn: str, folder: Path) -> None:
        self._write_dsn, self._graph_dsn, self._folder = write_dsn, graph_dsn, folder
        self.engine = SyncEngine(KNOWLEDGE_GRAPH)

    @asynccontextmanager
    async def worker(self, *offered: OpenAIEmbedding, **more: object) -> AsyncIterator[Services]:
        settings = Settings.model_validate(
            {
                "write_dsn": SecretStr(self._write_dsn),
                "graph_dsn": SecretStr(self._graph_dsn),
                "qdrant_path": self._folder,
                **more,
            }
        )
        first, second = (*offered, None)[:2]
        async with Services.open(settings, embedding=first, second_embedding=second) as services:
            yield services

    async def write(self, sql: str) -> None:
        connection = await asyncpg.connect(self._write_dsn, server_settings={"search_path": "kg"})
        await connection.execute(sql)
        await connection.close()

    async def write_nodes(self, first: int, last: int) -> None:
        await self.write(
            "INSERT INTO write_nodes (id, concept)"
            f" SELECT 'n' || i, 'node ' || i FROM generate_series({first}, {last}) i"
        )

    async def cycle(self, services: Services) -> SyncResult:
        """Run a cycle as the activity does."""
        graph, run_id = await services.graphs.get("kg"), str(uuid4())
        booked = partial(services.usage.cycle, graph, slug="kg", run_id=run_id, batch=10)
        first, *further = services.embeddings
        async with (
            booked(service=first) as (embedding, _),
            booked(service=further[0] if further else first) as (second, _),
        ):
            context = SyncContext(
                graph=graph.ref,
                run=RunIdentity(workflow_id="w", run_id=run_id),
                write=services.write_schema(graph),
                target=services.target_schema(graph),
                vectors=services.graph_vectors(graph),
                embedding=embedding,
                second_embedding=second if further else None,
                embedding_of=partial(services.embedding_of, graph),
                budget=CycleBudget(batch_rows=1000, seconds=60),
                options=NoOptions(),
                heartbeat=lambda _: None,
                log=structlog.get_logger(),
                meter=NullMeter(),
            )
            return await self.engine.run_cycle(context)

    async def start(self, services: Services, service: OpenAIEmbedding) -> None:
        graph = await services.graphs.get("kg")
        started = await start_second(services.target_schema(graph), KNOWLEDGE_GRAPH, graph="kg")
        assert started.second is not None
        record = record_of(service, services.vector_store(graph.qdrant_store))
        await services.embedding_records.put(graph.id, record, started.second.generation)


@pytest.fixture
def servers() -> Iterator[tuple[EmbeddingServer, EmbeddingServer]]:
    with EmbeddingServer() as first, EmbeddingServer() as second:
        second.dimensions = LARGE
        yield first, second


@pytest.fixture
def small(servers: tuple[EmbeddingServer, EmbeddingServer]) -> Callable[[], OpenAIEmbedding]:
    return lambda: OpenAIEmbedding(servers[0].url, "small", DIMENSIONS, timeout_seconds=5)


@pytest.fixture
def large(servers: tuple[EmbeddingServer, EmbeddingServer]) -> Callable[[], OpenAIEmbedding]:
    return lambda: OpenAIEmbedding(servers[1].url, "large", LARGE, timeout_seconds=5)


@pytest.fixture
async def site(migrated: tuple[str, str], tmp_path: Path, small: Callable[[], OpenAIEmbedding]) -> Site:
    made = Site(*migrated, tmp_path)
    async with made.worker(small()) as services:
        await services.prepare_control()
        await services.graphs.add(GraphDraft(slug="kg"), prepare=services.prepare_graph)
        await made.write_nodes(1, 3)
        await made.cycle(services)
    return made


async def test_each_generation_has_its_service_whichever_setting_names_it(
    site: Site,
    servers: tuple[EmbeddingServer, EmbeddingServer],
    small: Callable[[], OpenAIEmbedding],
    large: Callable[[], OpenAIEmbedding],
) -> None:
    first, second = servers
    async with site.worker(small(), service := large()) as services:
        # Before it is recorded, nothing of it is written.
        graph = await services.graphs.get("kg")
        await start_second(services.target_schema(graph), KNOWLEDGE_GRAPH)
        result = await site.cycle(services)
        assert result.vectors.second is not None
        assert "is not recorded" in str(result.vectors.second.error)
        await site.start(services, service)
        result = await site.cycle(services)
        assert result.vectors.second is not None
        assert result.vectors.second.embedded == 3
        assert await services.foreign_vectors() == []
    # The variables the other way round, each alone, and after the change.
    await site.write_nodes(4, 4)
    async with site.worker(large(), small()) as services:
        result = await site.cycle(services)
        assert (result.vectors.error, result.vectors.embedded) == (None, 1)
        assert result.vectors.second is not None
        assert result.vectors.second.embedded == 1
        assert await services.foreign_vectors() == []
    async with site.worker(small()) as services:
        (problem,) = await services.foreign_vectors()
        assert (problem.found, problem.second) == ("openai-large-12", True)
    await site.write_nodes(5, 5)
    async with site.worker(large()) as services:
        result = await site.cycle(services)
        assert EmbeddingDiffers.__name__ in str(result.vectors.error)
        assert result.vectors.second is not None
        assert result.vectors.second.embedded == 1
    async with site.worker(small(), large()) as services:
        assert (await site.cycle(services)).vectors.embedded == 1
        graph = await services.graphs.get("kg")
        target = services.target_schema(graph)
        await make_second_main(target)
        # Between the steps: both are recorded, and the main one is looked up by its number.
        await site.write_nodes(6, 6)
        result = await site.cycle(services)
        assert (result.vectors.embedded, result.vectors.second) == (1, None)
        await services.embedding_records.remove(graph.id, 1)
        vectors, generations = await main_vectors(services, graph)
        assert (generations.main, await services.vectors_made_with(graph, 2)) == (2, "openai-large-12")
        assert await vectors.store.count(vectors.collection("nodes")) == 6
        assert await vectors.store.count("kg_nodes") == 5
        # Its service is not the first of the worker, and that is remembered: cycles become idle.
        assert not (await site.cycle(services)).owes
    for server, texts in ((first, range(1, 6)), (second, range(1, 7))):
        assert dict(server.embedded) == {f"node {number}": 1 for number in texts}
    async with site.worker(small()) as services:
        await site.write_nodes(7, 7)
        result = await site.cycle(services)
        assert "made with openai-large-12" in str(result.vectors.error)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("spent", [0, 1])
async def test_a_budget_that_is_spent_holds_its_own_model_alone(
    spent: int, site: Site, small: Callable[[], OpenAIEmbedding], large: Callable[[], OpenAIEmbedding]
) -> None:
    async with site.worker(*(offered := (small(), large()))) as services:
        await site.start(services, offered[1])
        await site.cycle(services)
        held = offered[spent]

        async def nothing_left(texts: Sequence[str]) -> Vectors:
            until = datetime.now(UTC) + timedelta(hours=1)
            raise EmbeddingBudgetSpent(
                held.name, scope="service", whose="the service", used=2, budget=1, retry_at=until, fix="more"
            )

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(held, "embed", nothing_left)
            await site.write_nodes(4, 4)
            result = await site.cycle(services)
        second = result.vectors.second
        assert second is not None
        assert (result.vectors.embedded, second.embedded) == ((0, 1) if spent == 0 else (1, 0))
        errors = [result.vectors.error, second.error]
        assert f"{EmbeddingBudgetSpent.__name__}: " in str(errors.pop(spent))
        assert errors == [None]


async def test_a_shadow_and_a_second_model_exclude_each_other(
    site: Site, small: Callable[[], OpenAIEmbedding], large: Callable[[], OpenAIEmbedding]
) -> None:
    async with site.worker(small(), service := large()) as services:
        graph = await services.graphs.get("kg")
        await site.start(services, service)
        with pytest.raises(ShadowInvalid, match="syncline embedding drop kg"):
            await prepare_shadow(services, graph, "acme")
        await make_second_main(services.target_schema(graph))
        await prepare_shadow(services, graph, "acme")
        shadow = await generations_of(services.target_schema(graph, shadow=True))
        assert shadow.main == 2
        with pytest.raises(ShadowInvalid, match="vectors of one model"):
            await site.start(services, service)


@pytest.mark.long(
    "integration/test_second_model.py::test_a_collection_that_is_lost_is_built_again_by_its_own_model_and_gets_its_alias"
)
async def test_collections_of_both_generations_are_dropped_by_command_and_made_again(
    site: Site, small: Callable[[], OpenAIEmbedding], large: Callable[[], OpenAIEmbedding]
) -> None:
    from syncline.control.audit import Actor

    async with site.worker(small(), service := large()) as services:
        await site.start(services, service)
        await site.cycle(services)
        graph = await services.graphs.get("kg")
        actor = Actor(who="ada", why="shards", run_id=None, starter=None)
        dropped = await drop_collections(services, graph, KNOWLEDGE_GRAPH, named=["nodes"], actor=actor)
        assert [(one.name, one.points) for one in dropped.collections] == [("kg_nodes", 3), ("kg_nodes.2", 3)]
        result = await site.cycle(services)
        assert result.vectors.second is not None
        assert (result.vectors.rebuilt, result.vectors.second.rebuilt) == (("nodes",), ("nodes",))
        await site.cycle(services)
        store = services.vector_store(None)
        assert [await store.count(name) for name in ("kg_nodes", "kg_nodes.2")] == [3, 3]
