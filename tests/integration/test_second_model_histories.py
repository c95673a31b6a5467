"""Random histories of a graph whose model changes: whatever happened, each generation ends with every row's point."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import pytest

from syncline.engine.vectors.outbox import Outbox
from syncline.errors import VectorStoreRejected
from syncline.operator.second_model import drop_second, make_second_main, mark_switched
from syncline.testing.graphs import write
from syncline.testing.one_graph import on_target, read
from tests.integration.test_second_model import QUEUE, Change, embedded, servers, write_nodes
from tests.kit.faulty_http import Answer

__all__ = ["embedded", "servers"]

AGAIN = (
    "ON CONFLICT (collection, point_id) DO UPDATE SET seq = excluded.seq, error = NULL, next_retry_at = NULL"
)


def physical(generation: int) -> str:
    return "kg_nodes" if generation == 1 else f"kg_nodes.{generation}"


@dataclass
class History:
    """One history; every method whose name begins with `a_` is something that happens."""

    change: Change
    random: Random
    main: int = 1
    second: int | None = None
    nodes: int = 5
    step: int = 0

    @property
    def some(self) -> str:
        return f"n{self.random.randint(1, self.nodes)}"

    async def happens(self) -> None:
        self.step += 1
        kinds = sorted(name for name in vars(History) if name.startswith("a_"))
        await getattr(self, self.random.choice([*kinds, "a_cycle", "a_text"]))()

    async def a_node(self) -> None:
        self.nodes += 1
        await write_nodes(self.change.graph, self.nodes, self.nodes)

    async def a_text(self) -> None:
        await self._set("concept", f"text {self.step}")

    async def a_payload(self) -> None:
        await self._set("node_type", f"kind {self.step}")

    async def _set(self, column: str, value: str) -> None:
        await write(
            self.change.graph, f"UPDATE write_nodes SET {column} = $2 WHERE id = $1", self.some, value
        )

    async def a_deletion(self) -> None:
        await write(self.change.graph, "DELETE FROM write_nodes WHERE id = $1", self.some)

    async def a_writer_with_sql(self) -> None:
        await on_target(self.change.graph, f"{QUEUE} {AGAIN}")

    async def a_cycle(self) -> None:
        await self.change.cycle()

    async def a_cycle_with_one_service(self) -> None:
        await self.change.cycle(both=False)

    async def a_death(self) -> None:
        step = self.random.choice(["mark_unconfirmed", "settle", "read", "take_over", "lost"])
        real, left = getattr(Outbox, step), self.random.randint(0, 3)

        async def dies(outbox: Outbox, *arguments: object, **named: object) -> object:
            nonlocal left
            if left == 0:
                raise asyncio.CancelledError
            left -= 1
            return await real(outbox, *arguments, **named)

        with pytest.MonkeyPatch.context() as patched, suppress(asyncio.CancelledError):
            patched.setattr(Outbox, step, dies)
            await self.change.cycle()
        await self.change.graph.wait_until_free()

    async def a_loss(self) -> None:
        lost = self.random.choice([self.main, self.second or self.main])
        await self.change.graph.vectors.drop_collection(physical(lost))

    async def a_trouble(self) -> None:
        server = self.random.choice([self.change.first, self.change.second])
        refused = f"text {self.random.randint(0, self.step)}"
        server.refuses = lambda text: text == refused
        server.failing = self.random.choice([None, Answer(503, b"{}")])

    async def a_start(self) -> None:
        # The third model would be a third service.
        if self.main == 1:
            started = await self.change.start()
            assert started.second is not None
            self.second = started.second.generation

    async def a_drop(self) -> None:
        if self.second is not None:
            await drop_second(self.change.context().target)
            await self.change.graph.vectors.drop_collection(physical(self.second))
            self.second = None

    async def a_switch(self) -> None:
        store, target = self.change.graph.vectors, self.change.context().target
        if self.second is None:
            return
        try:
            await store.set_aliases({"kg_nodes.live": physical(self.second)})
        except VectorStoreRejected:
            return  # nothing of it was written yet
        await mark_switched(target, switched=True)
        if self.random.random() < 0.5:
            await self.change.cycle()
        await make_second_main(target)
        await store.drop_collection(physical(self.main))
        self.main, self.second = self.second, None


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(12))
async def test_every_history_ends_with_both_generations_complete(embedded: Change, seed: int) -> None:
    history, graph = History(embedded, Random(seed)), embedded.graph
    await embedded.cycle()
    for _ in range(60):
        await history.happens()
    for server in (embedded.first, embedded.second):
        server.failing, server.refuses = None, lambda _: False
    await on_target(graph, "UPDATE sync_outbox SET error = NULL, next_retry_at = NULL, seq = DEFAULT")
    await history.a_node()  # a loss is noticed by what writes next
    for _ in range(3):
        await embedded.cycle()
    rows = await read(graph, "SELECT id, concept, node_type FROM nodes")
    expected = {row["id"]: (row["concept"], row["node_type"]) for row in rows}
    for generation in filter(None, (history.main, history.second)):
        points = await embedded.points(physical(generation))
        found = {point: (payload["concept"], payload["node_type"]) for point, payload in points.items()}
        assert found == expected
        assert all(payload["sync_hash"] for payload in points.values())
    assert await embedded.owed() == {}
    assert await graph.vectors.aliases() == {"kg_nodes.live": physical(history.main)}
