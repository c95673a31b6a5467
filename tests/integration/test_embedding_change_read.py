"""Readers query all along while the embedding of a graph changes and its worker dies, and see one model at a time."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from syncline.engine.keys import key_uuid
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.operator.embedding_change import drop, rollback, start, switch
from syncline.testing.lab import eventually
from tests.kit.two_models import ACTOR, TwoModels, two_models, vector_of

TEXTS = 300
PER_SECOND = 50
KILLS, LANES, BATCH = 2, 2, 10
ALIAS = "kg_nodes.live"


@dataclass
class Reader:
    """Asks for the node of a text, 50 times a second, as the model of the collection has it."""

    models: TwoModels
    by_model: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        stopped = asyncio.Event()
        task = asyncio.create_task(self._read(stopped))
        try:
            yield
        finally:
            stopped.set()
            await task

    async def _read(self, stopped: asyncio.Event) -> None:
        store, number = self.models.services.vector_store(None), random.Random(1)
        while not stopped.is_set():
            following = time.monotonic() + 1 / PER_SECOND
            # The first half of the nodes never changes.
            key = f"n{number.randint(1, TEXTS // 2)}"
            # Readers are led from one to the other between two of these at most.
            for model in ("old", "new", "old"):
                [(point, score)] = await store.search(
                    ALIAS, vector_of(model, self.models.texts[key]), limit=1
                )
                if point.id == key_uuid(key) and score > 0.9999:
                    self.by_model[model] += 1
                    break
            else:
                self.bad.append(key)
            await asyncio.sleep(max(0, following - time.monotonic()))


async def confirmed(models: TwoModels) -> int:
    place = models.services.target_schema(models.graph)
    async with place.store.driver() as connection:
        query = "SELECT count(*) FROM kg.sync_vector WHERE collection = 'nodes@second'"
        found: int = await connection.fetchval(query)
    return found


async def killed_at(models: TwoModels, points: int) -> None:
    """Run a cycle until so many points of the second generation are confirmed, and end it there."""
    # However slow this process is, the cycle does not end before: the rest is not answered.
    models.new.most = points + (KILLS + 1) * LANES * BATCH
    running = asyncio.create_task(models.cycle())

    async def there() -> bool:
        return running.done() or await confirmed(models) >= points

    await eventually(there)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    models.new.most = None
    assert await confirmed(models) < TEXTS


@pytest.mark.long(
    "integration/test_embedding_change.py::test_readers_see_one_model_at_a_time_and_each_text_is_paid_once_per_model",
    "integration/test_embedding_change.py::test_verb_that_dies_after_any_step_is_run_again",
)
async def test_readers_see_no_error_and_no_mixed_answer_while_the_worker_dies(
    migrated: tuple[str, str], tmp_path: Path
) -> None:
    texts = [f"node {number}" for number in range(1, TEXTS + 1)]
    few = {"second_embedding_batch": BATCH, "second_embedding_lanes": LANES}
    async with two_models(*migrated, tmp_path, texts, settings=few) as models:
        models.new.seconds = 0.01
        reader = Reader(models)

        async def do(verb: Callable[..., AsyncIterator[str]]) -> float:
            begun = time.monotonic()
            async for _ in verb(models.services, models.graph, KNOWLEDGE_GRAPH, actor=ACTOR):
                pass
            return time.monotonic() - begun

        async with reader.reading():
            await do(start)
            models.new.embedded.clear()
            for kill in range(1, KILLS + 1):
                await killed_at(models, kill * TEXTS // 4)
            while (await models.cycle()).vectors.second is not None:
                pass
            assert reader.by_model["new"] == 0
            await do(switch)
            await models.put(f"n{TEXTS}", "changed")
            await models.cycle()
            assert await do(rollback) < 5
            await models.put("more", "one more")
            await models.cycle()
            await do(switch)
            seen = reader.by_model["new"]
            await do(drop)
            await models.cycle()

            async def read_on() -> bool:
                return reader.by_model["new"] > seen + 10

            await eventually(read_on)
        assert reader.bad == []
        assert reader.by_model["old"] > 10
        assert (await models.verified()).equal
        once = Counter([*texts, "changed", "one more"])
        assert models.old.embedded == once
        # What was under way when the worker died is asked for again: its answer reached nobody.
        assert models.new.embedded - once <= once
        assert (models.new.embedded - once).total() <= KILLS * LANES * BATCH
        assert once <= models.new.embedded
