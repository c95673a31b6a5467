"""A graph over a control plane, in a worker that offers two embeddings whose vectors can be told apart."""

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import structlog
from pydantic import SecretStr

from syncline.control.audit import Actor
from syncline.control.graphs import Graph, GraphDraft
from syncline.control.services import Services
from syncline.engine import run_cycle
from syncline.engine.keys import key_uuid
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.messages.sync import SyncResult
from syncline.messages.verification import Verification
from syncline.operator.second_model import main_vectors, second_vectors
from syncline.provider import CycleBudget, NoOptions, NullMeter, RetryRules, RunIdentity, SyncContext
from syncline.settings import Settings
from syncline.verify import verify
from tests.kit.faulty_http import Answer, FaultyServer, Request

__all__ = ["ACTOR", "DIMENSIONS", "Model", "TwoModels", "two_models", "vector_of"]

DIMENSIONS = 8
ACTOR = Actor(who="ada", why="a better model", run_id="r")


def vector_of(model: str, text: str) -> list[float]:
    """Return the vector that a model gives a text: all models have the same dimension, and no vector is near."""
    digest = hashlib.sha256(f"{model}\0{text}".encode()).digest()
    return [byte - 127.5 for byte in digest[:DIMENSIONS]]


class Model(FaultyServer):
    """An embedding service of one model, that counts what it embedded."""

    def __init__(self, model: str) -> None:
        super().__init__(respond=self._answer)
        self.model = model
        self.embedded: Counter[str] = Counter()
        self.refuses: Callable[[str], bool] = lambda _: False
        self.seconds = 0.0
        """How long each answer takes."""
        self.most: int | None = None
        """Once more texts than this were embedded, answers wait."""

    def _answer(self, request: Request) -> Answer:
        if request.method != "POST":
            return Answer()
        texts = json.loads(request.body)["input"]
        if any(map(self.refuses, texts)):
            return Answer(400, b'{"error": {"message": "the input violates the content policy"}}')
        self.embedded.update(texts)
        data = [
            {"index": index, "embedding": vector_of(self.model, text)} for index, text in enumerate(texts)
        ]
        usage = {"total_tokens": sum(len(text.split()) for text in texts)}
        body = json.dumps({"data": data, "usage": usage}).encode()
        return Answer(body=body, silence_seconds=self.seconds, when=self._may_answer)

    def _may_answer(self) -> bool:
        return self.most is None or self.embedded.total() <= self.most


@dataclass
class TwoModels:
    """Graph `kg`, whose nodes are embedded by model `old`; its worker offers `new` too."""

    services: Services
    graph: Graph
    old: Model
    new: Model
    write_dsn: str
    texts: dict[str, str] = field(default_factory=dict)
    """Key of a node -> its text, as it stands in the write-db."""
    before: dict[str, set[str]] = field(default_factory=dict)
    """Key of a node -> all texts that it ever had."""

    async def put(self, key: str, text: str | None) -> None:
        """Write a node, or delete it."""
        connection = await asyncpg.connect(self.write_dsn, server_settings={"search_path": "kg"})
        if text is None:
            await connection.execute("DELETE FROM write_nodes WHERE id = $1", key)
            del self.texts[key]
        else:
            await connection.execute(
                "INSERT INTO write_nodes (id, concept) VALUES ($1, $2)"
                " ON CONFLICT (id) DO UPDATE SET concept = excluded.concept",
                key,
                text,
            )
            self.texts[key] = text
            self.before.setdefault(key, set()).add(text)
        await connection.close()

    async def cycle(self) -> SyncResult:
        """Run a cycle as the activity does."""
        services, graph = self.services, await self.services.graphs.get(self.graph.id)
        first, *further = services.embeddings
        return await run_cycle(
            SyncContext(
                graph=graph.ref,
                run=RunIdentity(workflow_id="w", run_id=str(uuid4())),
                write=services.write_schema(graph),
                target=services.target_schema(graph),
                vectors=services.graph_vectors(graph),
                embedding=first,
                second_embedding=further[0] if further else None,
                budget=CycleBudget(batch_rows=1000, seconds=60),
                options=NoOptions(),
                heartbeat=lambda _: None,
                log=structlog.get_logger(),
                meter=NullMeter(),
                retry=RetryRules(vector_seconds=0, dead_letter_seconds=0),
                may_embed=partial(services.embedding_refusal, graph),
                embedding_of=partial(services.embedding_of, graph),
            )
        )

    async def found(self, collection: str, model: str) -> set[str]:
        """Return the nodes whose vector in a collection is this model's vector of their text."""
        return await self._found(collection, model, {key: {text} for key, text in self.texts.items()})

    async def ever(self, collection: str, model: str) -> set[str]:
        """Return the nodes whose vector in a collection is this model's of a text that they once had."""
        return await self._found(collection, model, self.before)

    async def _found(self, collection: str, model: str, texts: Mapping[str, set[str]]) -> set[str]:
        store = self.services.vector_store(None)
        keys = {key_uuid(key): key for key in texts}
        found = set()
        for text in set().union(*texts.values()):
            for point, score in await store.search(collection, vector_of(model, text), limit=3):
                key = keys.get(point.id)
                if key is not None and score > 0.9999 and text in texts[key]:
                    found.add(key)
        return found

    async def points(self, collection: str) -> set[UUID]:
        """Return all points of a collection."""
        store = self.services.vector_store(None)
        return {point.id async for page in store.scroll(collection) for point in page}

    async def verified(self) -> Verification:
        """Compare all stores, and both generations."""
        services, graph = self.services, self.graph
        vectors, generations = await main_vectors(services, graph)
        return await verify(
            KNOWLEDGE_GRAPH,
            write=services.write_schema(graph),
            target=services.target_schema(graph),
            vectors=vectors,
            second=await second_vectors(services, graph, vectors, generations),
            embedding=await services.vectors_made_with(graph, generations.main),
        )


@asynccontextmanager
async def two_models(
    write_dsn: str,
    graph_dsn: str,
    folder: Path,
    texts: Sequence[str],
    *,
    settings: Mapping[str, object] | None = None,
) -> AsyncIterator[TwoModels]:
    """Yield the graph, synced with a node of each text by the first model."""
    with Model("old") as old, Model("new") as new:
        given = Settings.model_validate(
            {
                "write_dsn": SecretStr(write_dsn),
                "graph_dsn": SecretStr(graph_dsn),
                "qdrant_path": folder / "qdrant",
                "embedding": "openai",
                "embedding_url": old.url,
                "embedding_model": old.model,
                "embedding_dimensions": DIMENSIONS,
                "second_embedding": "openai",
                "second_embedding_url": new.url,
                "second_embedding_model": new.model,
                "second_embedding_dimensions": DIMENSIONS,
                **(settings or {}),
            }
        )
        async with Services.open(given) as services:
            await services.prepare_control()
            graph = await services.graphs.add(GraphDraft(slug="kg"), prepare=services.prepare_graph)
            found = TwoModels(services, graph, old, new, write_dsn)
            for number, text in enumerate(texts, 1):
                await found.put(f"n{number}", text)
            await found.cycle()
            yield found
