"""Verification of the vectors: what a cycle does meanwhile is no damage, and both sides have one order."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from syncline.cli.verify import print_verification
from syncline.engine import KNOWLEDGE_GRAPH, run_cycle
from syncline.engine.keys import key_uuid
from syncline.errors import VectorStoreRejected
from syncline.messages.sync import CycleStatus
from syncline.messages.verification import Relation, Verdict, Verification
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.stores.vectors import PointPayload, VectorStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify
from syncline.verify.vectors import same_json

Step = Callable[[], Awaitable[object]]

# Said by the client's local mode, which stands in for a server here.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect in the local Qdrant:UserWarning"
)


class Interrupted:
    """A store where something happens when its first scroll begins, and before that tells its end."""

    def __init__(self, store: VectorStore, *, first: Step | None = None, last: Step | None = None) -> None:
        self._store, self._first, self._last = store, first, last

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def scroll(
        self, collection: str, *, batch: int = 1000, fields: Sequence[str] | None = None
    ) -> AsyncIterator[Sequence[PointPayload]]:
        first, last, self._first, self._last = self._first, self._last, None, None
        if first is not None:
            await first()
        pages = [page async for page in self._store.scroll(collection, batch=batch, fields=fields)]
        if last is not None:
            await last()
        for page in pages:
            yield page


async def vectors_of(graph: TestGraph, store: object = None, *, repair: bool = False) -> Relation:
    """Return what is found in collection `nodes`, scrolled through `store`."""
    context = graph.context()
    vectors = context.vectors if store is None else replace(context.vectors, store=store)
    found = await verify(
        KNOWLEDGE_GRAPH, write=context.write, target=context.target, vectors=vectors, tables=["nodes"],
        embedding=context.embedding.name, repair=repair, who="tester", why="a test",
    )  # fmt: skip
    return next(relation for relation in found.relations if relation.kind.value == "vectors")


def told(relation: Relation) -> dict[str, tuple[tuple[str, ...], ...]]:
    return {
        verdict.value: relation.found(verdict).keys for verdict in Verdict if relation.found(verdict).count
    }


async def synced(graph: TestGraph, sql: str) -> None:
    await write(graph, sql)
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED


@pytest.fixture
async def three(graph: TestGraph) -> TestGraph:
    await synced(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'A'), ('b', 'B'), ('c', 'C')")
    return graph


async def test_what_a_cycle_writes_meanwhile_is_not_damage(three: TestGraph) -> None:
    async def cycle() -> None:
        await synced(
            three,
            "UPDATE write_nodes SET concept = 'changed' WHERE id = 'a'; DELETE FROM write_nodes WHERE id = 'b';"
            "INSERT INTO write_nodes (id, concept) VALUES ('d', 'D')",
        )

    found = await vectors_of(three, Interrupted(three.vectors, first=cycle))
    assert found.equal == 1
    assert set(told(found)["pending"]) == {("a",), ("b",), (str(key_uuid("d")),)}
    assert found.damaged == 0


async def test_a_point_that_came_and_went_meanwhile_is_not_damage(three: TestGraph) -> None:
    stranger = PointPayload(uuid4(), {})

    async def come() -> None:
        await synced(three, "INSERT INTO write_nodes (id, concept) VALUES ('d', 'D')")
        await three.vectors.upsert("kg_nodes", [stranger], np.ones((1, 64), dtype=np.float32))

    async def go() -> None:
        await synced(three, "DELETE FROM write_nodes WHERE id = 'd'")

    found = await vectors_of(three, Interrupted(three.vectors, first=come, last=go))
    # What nobody has taken away is damage all the same, however many cycles there were.
    assert told(found) == {"extra": ((str(stranger.id),),)}
    assert found.equal == 3


async def test_a_payload_that_was_changed_by_hand_is_stale_whatever_its_hash_says(three: TestGraph) -> None:
    [point] = [
        point
        async for page in three.vectors.scroll("kg_nodes")
        for point in page
        if point.payload["key"] == "b"
    ]
    changed = PointPayload(point.id, {**point.payload, "visibility": "private"})
    await three.vectors.overwrite_payload("kg_nodes", [changed])
    found = await vectors_of(three, repair=True)
    assert told(found) == {"stale": (("b",),)}
    await run_cycle(three.context())
    assert told(await vectors_of(three)) == {}


async def test_what_the_books_do_not_know_of_a_vector_makes_it_stale(three: TestGraph) -> None:
    await on_target(three, "DELETE FROM sync_vector WHERE point_id = $1", key_uuid("a"))
    await on_target(
        three, "UPDATE sync_vector SET text_hash = sha256('other') WHERE point_id = $1", key_uuid("c")
    )
    found = await vectors_of(three, repair=True)
    assert set(told(found)["stale"]) == {("a",), ("c",)}
    result = await run_cycle(three.context())
    assert result.vectors.embedded == 2
    assert told(await vectors_of(three)) == {}


async def test_points_that_are_owed_wait_or_were_refused_are_told_apart(three: TestGraph) -> None:
    for key, error, retry in (("a", None, None), ("b", "no", "now"), ("c", "no", None)):
        await on_target(
            three,
            "INSERT INTO sync_outbox (collection, point_id, error, next_retry_at)"
            " VALUES ('nodes', $1, $2, $3::text::timestamptz)",
            key_uuid(key), error, retry,
        )  # fmt: skip
    await three.vectors.drop_collection("kg_nodes")
    found = await vectors_of(three)
    assert told(found) == {"pending": (("a",),), "delayed": (("b",),), "dead": (("c",),)}


EXTREMES = [0, 1, 2**32, 2**63 - 1, 2**63, 2**64, 2**127 - 1, 2**127, 2**128 - 1, 0x7F << 120]


@pytest.mark.parametrize("kind", ["embedded", "server"])
async def test_postgres_and_qdrant_put_ids_in_one_order(graph: TestGraph, kind: str, tmp_path: Path) -> None:
    ids = [UUID(int=value) for value in EXTREMES] + [key_uuid(f"k{i}") for i in range(300)]
    ids += [uuid4() for _ in range(300)]
    store: VectorStore = (
        EmbeddedQdrantStore("other", tmp_path / "other")
        if kind == "embedded"
        else QdrantServerStore("other", client=AsyncQdrantClient(":memory:"))
    )
    try:
        await store.ensure_collection("c", dimensions=4)
        shuffled = [PointPayload(point, {}) for point in sorted(ids, key=lambda point: point.int % 1009)]
        await store.upsert("c", shuffled, np.ones((len(ids), 4), dtype=np.float32))
        scrolled = [point.id async for page in store.scroll("c", batch=50) for point in page]
    finally:
        await store.close()
    rows = await read(graph, "SELECT id FROM unnest($1::uuid[]) AS i (id) ORDER BY id", ids)
    assert [row["id"] for row in rows] == scrolled == sorted(scrolled)


async def test_a_store_that_has_another_order_is_not_compared(three: TestGraph) -> None:
    class Backwards(Interrupted):
        async def scroll(
            self, collection: str, *, batch: int = 1000, fields: Sequence[str] | None = None
        ) -> AsyncIterator[Sequence[PointPayload]]:
            async for page in self._store.scroll(collection, batch=batch, fields=fields):
                yield page[::-1]

    found = await vectors_of(three, Backwards(three.vectors))
    assert found.problem is not None
    assert VectorStoreRejected.__name__ in found.problem
    assert found.damaged == 0


def test_json_is_equal_but_for_the_last_digit_of_a_fraction() -> None:
    assert same_json({"a": [1, 0.1, None, {"b": "x"}]}, {"a": [1, 0.1, None, {"b": "x"}]})
    assert same_json([0.1 + 0.2], [0.3])
    for one, other in (
        ("1", 1),
        ([1], [1, 2]),
        ({"a": None}, {}),
        (0.1, 0.1001),
        (1, 2),
    ):
        assert not same_json(one, other)
        assert not same_json([one], [other])


async def test_points_that_cannot_be_written_say_what_helps_instead_of_a_repair(
    three: TestGraph, capsys: pytest.CaptureFixture[str]
) -> None:
    """A collection of another dimension: what a repair queues is refused until the collection is dropped."""
    await three.vectors.drop_collection("kg_nodes")
    await three.vectors.ensure_collection("kg_nodes", dimensions=4)
    await write(three, "INSERT INTO write_nodes (id, concept) VALUES ('d', 'D')")
    assert (await run_cycle(three.context())).status is CycleStatus.VECTORS_DELAYED
    found = await vectors_of(three)
    assert found.damaged == 3
    assert "syncline graph drop-collections" in str(found.delayed_by)
    print_verification(Verification(relations=(found,)), repaired=False)
    said = capsys.readouterr().out
    assert "--repair fixes" not in said
    assert "syncline graph drop-collections" in said
    await three.vectors.drop_collection("kg_nodes")
    await on_target(three, "UPDATE sync_vector_delay SET next_retry_at = now()")
    await run_cycle(three.context())
    found = await vectors_of(three)
    assert (found.damaged, found.delayed_by) == (0, None)
