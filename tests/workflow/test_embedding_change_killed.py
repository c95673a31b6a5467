"""Readers query all along while the embedding of a large graph changes and its worker is killed five times."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from providers.default import DefaultSyncProvider
from syncline.control.graphs import Graph
from syncline.engine.keys import key_uuid
from syncline.messages.sync import CycleStatus
from syncline.testing.lab import Run, SyncLab, eventually
from syncline.testing.worker_process import WorkerProcess, environment_of
from tests.kit.command_line import CommandLine
from tests.kit.pages import one_row, replace_lines
from tests.kit.readable_qdrant import LargeModel, ReadableQdrant, large_vector

ROOT = Path(__file__).parents[2]
KILLS = 5
PER_SECOND = 50
LANES, BATCH = 8, 128


@dataclass
class Reader:
    """Asks for points by the alias, 50 times a second, and looks at the vectors that come."""

    url: str
    models: tuple[LargeModel, LargeModel]
    texts: int
    by_model: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    mixed: list[object] = field(default_factory=list)
    seconds: float = 0.0

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        stopped, begun = asyncio.Event(), time.monotonic()
        task = asyncio.create_task(self._read(stopped))
        try:
            yield
        finally:
            stopped.set()
            await task
            self.seconds = time.monotonic() - begun

    async def _read(self, stopped: asyncio.Event) -> None:
        number, following = random.Random(1), time.monotonic()
        async with httpx.AsyncClient(timeout=10) as client, asyncio.TaskGroup() as asking:
            while not stopped.is_set():
                asking.create_task(self._ask(client, [number.randint(1, self.texts) for _ in range(3)]))
                following += 1 / PER_SECOND
                await asyncio.sleep(max(0, following - time.monotonic()))

    async def _ask(self, client: httpx.AsyncClient, numbers: list[int]) -> None:
        ids = {str(key_uuid(f"n{number}")): f"text {number}" for number in numbers}
        try:
            answer = await client.post(self.url, json={"ids": list(ids), "with_vector": True})
        except httpx.HTTPError as error:
            self.errors.append(repr(error))
            return
        if answer.status_code != httpx.codes.OK:
            self.errors.append(answer.text)
            return
        points = answer.json()["result"]
        models = {self._model(ids[point["id"]], point["vector"]) for point in points}
        if len(points) == len(ids) and len(models) == 1 and None not in models:
            self.by_model.update(models)  # type: ignore[arg-type]
        else:
            self.mixed.append((len(points), models))

    def _model(self, text: str, vector: list[float]) -> str | None:
        for model in self.models:
            if len(vector) == model.dimensions:
                right = large_vector(model.model, text, model.dimensions)
                return model.model if np.allclose(vector, right, atol=1e-5) else None
        return None


@pytest.fixture
def servers() -> Iterator[tuple[ReadableQdrant, LargeModel, LargeModel]]:
    with ReadableQdrant() as qdrant, LargeModel("old", 384) as old, LargeModel("new", 768) as new:
        yield qdrant, old, new


@dataclass
class Scene:
    """The graph, and workers that come and go."""

    lab: SyncLab
    graph: Graph
    environment: dict[str, str]

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[WorkerProcess]:
        async with WorkerProcess.running(ROOT / "worker.py", self.environment) as worker:
            await worker.logs('"worker ready"', seconds=120)
            yield worker

    async def drained(self) -> None:
        """Run cycles until nothing is owed, by either generation."""
        while True:
            result = (await self.lab.run(self.graph)).result
            assert result is not None
            second = result.vectors.second
            waits = result.vectors.pending + (0 if second is None else second.pending)
            if result.status is CycleStatus.DRAINED and not waits:
                return

    async def unsettled(self, model: LargeModel) -> Counter[str]:
        """Return the texts that were paid, and that no vector store has for all that the graph knows."""
        target = self.lab.services.target_schema(self.graph)
        async with target.store.driver() as connection:
            rows = await connection.fetch(
                f"SELECT n.concept FROM {target.schema}.sync_outbox o"
                f" JOIN {target.schema}.nodes n ON n.id = o.point_id WHERE o.collection LIKE 'nodes%'"
            )
        return Counter({row["concept"] for row in rows}.intersection(model.embedded))

    async def write(self, sql: str) -> None:
        write = self.lab.services.write_schema(self.graph)
        async with write.store.driver() as connection:
            await connection.execute(f"SET search_path = {write.schema}")
            await connection.execute(sql)
            await connection.execute("RESET search_path")


@pytest.fixture
async def scene(
    idle_lab: SyncLab,
    temporal_environment: dict[str, str],
    servers: tuple[ReadableQdrant, LargeModel, LargeModel],
    tmp_path: Path,
) -> Scene:
    qdrant, old, new = servers
    graph = await idle_lab.add_graph(DefaultSyncProvider(), prepare=True)
    environment = environment_of(idle_lab.services.settings, temporal_environment, tmp_path) | {
        "SYNCLINE_QDRANT_URL": qdrant.url,
        "SYNCLINE_RECONCILE_SECONDS": "86400",
        "SYNCLINE_NOTIFY": "false",
    }
    for variables, model in (("SYNCLINE_EMBEDDING", old), ("SYNCLINE_SECOND_EMBEDDING", new)):
        environment |= {
            variables: "openai",
            f"{variables}_URL": model.url,
            f"{variables}_MODEL": model.model,
            f"{variables}_DIMENSIONS": str(model.dimensions),
            f"{variables}_LANES": str(LANES),
            f"{variables}_BATCH": str(BATCH),
        }
    return Scene(idle_lab, graph, environment)


@pytest.mark.proof
@pytest.mark.timeout(10_800)
async def test_readers_see_one_model_at_a_time_while_the_worker_is_killed(
    scene: Scene,
    servers: tuple[ReadableQdrant, LargeModel, LargeModel],
    syncline: CommandLine,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    given: int | None = request.config.getoption("--embedding-texts")
    texts, patience = given or 5_000, 120 + (given or 0) / 100
    qdrant, old, new = servers
    slug, prefix = scene.graph.slug, scene.graph.qdrant_prefix
    reader = Reader(f"{qdrant.url}/collections/{prefix}nodes.live/points", (old, new), texts - 1_000)
    await scene.write(
        "INSERT INTO write_nodes (id, concept)"
        f" SELECT 'n' || i, 'text ' || i FROM generate_series(1, {texts}) i"
    )
    again: Counter[str] = Counter()

    async def killed(worker: WorkerProcess, run: Run) -> None:
        worker.process.kill()
        await worker.ended()
        await run.terminate()
        again.update(await scene.unsettled(new))

    async with scene.worker():
        await scene.drained()
    async with reader.reading():
        async with scene.worker():
            await syncline.answer("embedding start", slug)
        del new.embedded["syncline"]
        for part in sorted(random.Random(3).sample(range(texts // 20, texts * 9 // 10), KILLS - 1)):
            async with scene.worker() as worker:
                run = await scene.lab.start(scene.graph)

                async def paid_so_far(least: int = part) -> bool:
                    return new.embedded.total() >= least

                await eventually(paid_so_far, seconds=patience)
                await killed(worker, run)
        async with scene.worker():
            await scene.drained()
            status: Any = await syncline.answer("embedding status", slug)
            assert status["command"] == f"syncline embedding switch {slug}"
            assert reader.by_model["new"] == 0
            await syncline.answer("embedding switch", slug)
        await scene.write(
            f"UPDATE write_nodes SET concept = 'changed ' || id WHERE substr(id, 2)::int > {texts - 500}"
        )
        async with scene.worker() as worker:
            before = new.embedded.total()
            run = await scene.lab.start(scene.graph)

            async def under_way() -> bool:
                return new.embedded.total() > before

            await eventually(under_way, seconds=120)
            await killed(worker, run)
        async with scene.worker():
            await scene.drained()
            begun = time.monotonic()
            await syncline.answer("embedding rollback", slug)
            rolled_back = time.monotonic() - begun
            await syncline.answer("embedding switch", slug)
            verified = await syncline("verify", slug)
            assert verified.status == 0, verified.out
            seen = reader.by_model["new"]
            await syncline.answer("embedding drop", slug, "--yes")

            async def read_on() -> bool:
                return reader.by_model["new"] > seen + PER_SECOND

            await eventually(read_on)
            await scene.drained()
            verified = await syncline("verify", slug)
            assert verified.status == 0, verified.out
    once = Counter([f"text {number}" for number in range(1, texts + 1)])
    once.update(f"changed n{number}" for number in range(texts - 499, texts + 1))
    for model in (old, new):
        del model.embedded["syncline"]  # each worker that starts tries its services
    record_property("answers", dict(reader.by_model))
    record_property("seconds", round(reader.seconds))
    record_property("rollback_seconds", round(rolled_back, 1))
    record_property("paid_twice", (new.embedded - once).total())
    record_property("under_way_when_killed", again.total())
    assert reader.errors == []
    assert reader.mixed == []
    # It shares this process with both services: a machine that is busy gives it fewer turns.
    assert sum(reader.by_model.values()) >= 5 * reader.seconds
    assert rolled_back < 5
    assert old.embedded - once <= again  # the fifth kill met both models
    assert once <= new.embedded
    # What was under way when a worker was killed is asked for again: its answer reached nobody.
    assert new.embedded <= once + again
    # Of each lane two requests: one under way, one that had come back.
    assert again.total() <= KILLS * 2 * LANES * BATCH
    if given is not None:
        replace_lines(
            ROOT / "docs" / "embeddings.md",
            "proof:embedding-change",
            one_row(
                {
                    "Texts": f"{texts:,}",
                    "Kills": str(KILLS),
                    "Took": f"{reader.seconds:.0f} s",
                    "Queries": f"{sum(reader.by_model.values()):,}",
                    "Errors": str(len(reader.errors)),
                    "Answers of two models": str(len(reader.mixed)),
                    "Rollback": f"{rolled_back:.1f} s",
                    "Texts paid twice": f"{(new.embedded - once).total():,}",
                }
            ),
        )
