"""The contract of the vector store port; both adapters pass it."""

import asyncio
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
from pydantic import JsonValue
from qdrant_client import AsyncQdrantClient

from syncline.embeddings.service import Vectors
from syncline.errors import VectorStoreRejected, VectorStoreUnavailable
from syncline.stores import qdrant_edge as qdrant_embedded
from syncline.stores.open_collections import OpenCollections
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.stores.vectors import PointPayload, VectorStore

# Said by the client's local mode, which stands in for a server here; a server does index.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect in the local Qdrant:UserWarning"
)

DIMENSIONS = 8


@pytest.fixture(params=["server", "embedded"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorStore]:
    opened: VectorStore = (
        EmbeddedQdrantStore("system", tmp_path / "qdrant")
        if request.param == "embedded"
        else QdrantServerStore("system", client=AsyncQdrantClient(":memory:"))
    )
    yield opened
    await opened.close()


@pytest.fixture
async def nodes(store: VectorStore) -> str:
    await store.ensure_collection("world-nodes", dimensions=DIMENSIONS, indexed=["type"])
    return "world-nodes"


def points(count: int, **payload: JsonValue) -> list[PointPayload]:
    return [PointPayload(uuid4(), {"row": row, **payload}) for row in range(count)]


def vectors(count: int, seed: int = 1) -> Vectors:
    return np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob("*nodes"))


async def everything(store: VectorStore, collection: str, batch: int = 1000) -> list[PointPayload]:
    return [point async for page in store.scroll(collection, batch=batch) for point in page]


async def nearest(store: VectorStore, collection: str, vector: Sequence[float]) -> tuple[PointPayload, float]:
    return (await store.search(collection, vector, limit=1))[0]


async def test_a_store_tells_its_name(store: VectorStore) -> None:
    assert store.name == "system"
    assert re.match(r"Qdrant (Edge )?\d+\.\d+", await store.describe())


async def test_what_was_written_is_read_back(store: VectorStore, nodes: str) -> None:
    written = points(
        3, type="country", name="Åland 🏝 日本", none=None, nested={"list": [1, 2.5, True, None, {}]}
    )
    await store.upsert(nodes, written, vectors(3))
    assert await everything(store, nodes) == sorted(written, key=lambda point: point.id)
    assert await store.count(nodes) == 3


async def test_writing_twice_changes_nothing(store: VectorStore, nodes: str) -> None:
    written = points(700)
    for _ in range(2):
        await store.upsert(nodes, written, vectors(700))
    assert await store.count(nodes) == 700
    assert await everything(store, nodes) == sorted(written, key=lambda point: point.id)


async def test_upsert_replaces_payload_and_vector(store: VectorStore, nodes: str) -> None:
    point = uuid4()
    await store.upsert(nodes, [PointPayload(point, {"old": 1, "name": "a"})], vectors(1, seed=1))
    await store.upsert(nodes, [PointPayload(point, {"name": "b"})], vectors(1, seed=2))
    found, score = await nearest(store, nodes, vectors(1, seed=2)[0].tolist())
    assert found == PointPayload(point, {"name": "b"})
    assert math.isclose(score, 1, abs_tol=1e-5)


async def test_the_last_of_several_points_with_one_id_wins(store: VectorStore, nodes: str) -> None:
    point, others = uuid4(), points(300)
    written = [PointPayload(point, {"turn": 1}), *others, PointPayload(point, {"turn": 2})]
    await store.upsert(nodes, written, vectors(302))
    found, score = await nearest(store, nodes, vectors(302)[-1].tolist())
    assert found == PointPayload(point, {"turn": 2})
    assert math.isclose(score, 1, abs_tol=1e-5)
    await store.overwrite_payload(nodes, [PointPayload(point, {"turn": 3}), PointPayload(point, {"turn": 4})])
    assert (await nearest(store, nodes, vectors(302)[-1].tolist()))[0].payload == {"turn": 4}


async def test_overwriting_a_payload_replaces_every_key_and_leaves_the_vector(
    store: VectorStore, nodes: str
) -> None:
    written = points(600, type="country")
    await store.upsert(nodes, written, vectors(600))
    changed = [PointPayload(point.id, {"name": f"n{row}"}) for row, point in enumerate(written)]
    await store.overwrite_payload(nodes, changed)
    assert await everything(store, nodes) == sorted(changed, key=lambda point: point.id)
    found, score = await nearest(store, nodes, vectors(600)[17].tolist())
    assert found == changed[17]
    assert math.isclose(score, 1, abs_tol=1e-5)


async def test_overwriting_the_payload_of_unknown_ids_does_nothing(store: VectorStore, nodes: str) -> None:
    known, unknown = points(2)
    await store.upsert(nodes, [known], vectors(1))
    await store.overwrite_payload(nodes, [unknown, PointPayload(known.id, {"name": "b"})])
    assert await everything(store, nodes) == [PointPayload(known.id, {"name": "b"})]


async def test_deleted_points_are_gone_and_unknown_ids_are_ignored(store: VectorStore, nodes: str) -> None:
    written = points(600)
    await store.upsert(nodes, written, vectors(600))
    gone = [point.id for point in written[:500]]
    for _ in range(2):
        await store.delete(nodes, [*gone, uuid4()])
    assert await everything(store, nodes) == sorted(written[500:], key=lambda point: point.id)
    await store.upsert(nodes, written[:1], vectors(1))
    assert await store.count(nodes) == 101


async def test_scrolling_gives_every_point_once_in_id_order(store: VectorStore, nodes: str) -> None:
    written = [
        PointPayload(UUID(int=value), {"n": str(value)}) for value in (1, 2**127, 2**128 - 1)
    ] + points(2500)
    await store.upsert(nodes, written, vectors(len(written)))
    pages = [page async for page in store.scroll(nodes, batch=700)]
    assert [len(page) for page in pages] == [700, 700, 700, 403]
    assert [point for page in pages for point in page] == sorted(written, key=lambda point: point.id)


async def test_scrolling_fetches_only_the_fields_asked_for(store: VectorStore, nodes: str) -> None:
    written = [*points(5, type="country", name="n"), PointPayload(uuid4(), {"name": "alone"})]
    await store.upsert(nodes, written, vectors(6))
    pages = [page async for page in store.scroll(nodes, batch=4, fields=["row", "type"])]
    assert [point for page in pages for point in page] == sorted(
        (
            PointPayload(p.id, {name: p.payload[name] for name in ("row", "type") if name in p.payload})
            for p in written
        ),
        key=lambda point: point.id,
    )
    (page,) = [page async for page in store.scroll(nodes, fields=[])]
    assert [point.payload for point in page] == [{}] * 6


async def test_search_ranks_by_cosine(store: VectorStore, nodes: str) -> None:
    directions = np.zeros((3, DIMENSIONS), dtype=np.float32)
    directions[0, 0], directions[1, :2], directions[2, 1] = 5, 1, 0.1
    written = points(3)
    await store.upsert(nodes, written, directions)
    found = await store.search(nodes, [2.0] + [0.0] * (DIMENSIONS - 1), limit=2)
    assert [point for point, _ in found] == written[:2]
    assert [score for _, score in found] == pytest.approx([1, math.sqrt(0.5)], abs=1e-5)


async def test_points_are_retrieved_by_id_as_far_as_they_exist(store: VectorStore, nodes: str) -> None:
    written = points(3, name="a")
    await store.upsert(nodes, written, vectors(3))
    found = await store.retrieve(nodes, [written[2].id, uuid4(), written[0].id])
    assert sorted(found, key=lambda point: point.id) == sorted(
        [written[0], written[2]], key=lambda point: point.id
    )
    assert list(await store.retrieve(nodes, [uuid4()])) == []
    assert list(await store.retrieve(nodes, [])) == []
    assert list(await store.retrieve("nowhere", [uuid4()])) == []


async def test_nothing_to_write_is_no_error(store: VectorStore, nodes: str) -> None:
    await store.upsert(nodes, [], np.empty((0, DIMENSIONS), dtype=np.float32))
    await store.overwrite_payload(nodes, [])
    await store.delete(nodes, [])
    assert await everything(store, nodes) == []


async def test_ensuring_a_collection_again_keeps_its_points(store: VectorStore, nodes: str) -> None:
    await store.upsert(nodes, points(2), vectors(2))
    await store.ensure_collection(nodes, dimensions=DIMENSIONS, indexed=["type", "visibility"])
    assert await store.count(nodes) == 2


async def test_ensuring_a_collection_tells_whether_it_was_missing(store: VectorStore) -> None:
    told = [await store.ensure_collection("fresh", dimensions=DIMENSIONS) for _ in range(2)]
    await store.drop_collection("fresh")
    told.append(await store.ensure_collection("fresh", dimensions=DIMENSIONS))
    assert told == [True, False, True]


async def test_another_dimension_is_refused_with_both_numbers(store: VectorStore, nodes: str) -> None:
    with pytest.raises(
        VectorStoreRejected, match=r"world-nodes.* 8 dimensions.* 384\. Drop the collection"
    ) as refused:
        await store.ensure_collection(nodes, dimensions=384)
    assert not refused.value.retryable


async def test_vectors_that_do_not_fit_are_refused_and_harm_nothing(store: VectorStore, nodes: str) -> None:
    written = points(2)
    await store.upsert(nodes, written, vectors(2))
    poisoned = vectors(2)
    poisoned[1, 3] = np.nan
    with pytest.raises(VectorStoreRejected):
        await store.upsert(nodes, written, np.ones((2, 3), dtype=np.float32))
    with pytest.raises(VectorStoreRejected, match="2 points"):
        await store.upsert(nodes, written, vectors(3))
    with pytest.raises(VectorStoreRejected, match=str(written[1].id)):
        await store.upsert(nodes, written, poisoned)
    with pytest.raises(VectorStoreRejected):
        await store.search(nodes, [1.0, 2.0], limit=1)
    assert await store.count(nodes) == 2
    assert math.isclose((await nearest(store, nodes, vectors(2)[1].tolist()))[1], 1, abs_tol=1e-5)


async def test_an_alias_is_read_like_its_collection_and_moves_with_all_others_or_not_at_all(
    store: VectorStore, nodes: str
) -> None:
    await store.ensure_collection("world-nodes.2", dimensions=DIMENSIONS)
    first, second = points(2)
    await store.upsert(nodes, [first], vectors(1))
    await store.upsert("world-nodes.2", [second], vectors(1))
    assert await store.aliases() == {}
    await store.set_aliases({})
    for collection, there in ((nodes, first), ("world-nodes.2", second), (nodes, first)):
        await store.set_aliases({"world-nodes.live": collection})
        assert await store.aliases() == {"world-nodes.live": collection}
        assert (await nearest(store, "world-nodes.live", vectors(1)[0].tolist()))[0] == there
        assert await everything(store, "world-nodes.live") == [there]
        assert list(await store.retrieve("world-nodes.live", [first.id, second.id])) == [there]
        assert await store.count("world-nodes.live") == 1
    with pytest.raises(VectorStoreRejected):
        await store.set_aliases({"world-nodes.live": "world-nodes.2", "other.live": "nothing"})
    with pytest.raises(VectorStoreRejected):
        await store.set_aliases({"world-nodes.2": nodes})
    assert await store.aliases() == {"world-nodes.live": nodes}
    await store.drop_collection(nodes)
    assert await store.aliases() == {}
    assert await store.count("world-nodes.live") == 0


async def test_a_missing_collection_is_empty_to_readers_and_refused_to_writers(store: VectorStore) -> None:
    assert await store.count("nowhere") == 0
    assert await everything(store, "nowhere") == []
    assert await store.search("nowhere", [0.0] * DIMENSIONS, limit=3) == []
    await store.delete("nowhere", [uuid4()])
    await store.drop_collection("nowhere")
    with pytest.raises(VectorStoreRejected, match="nowhere"):
        await store.upsert("nowhere", points(1), vectors(1))
    with pytest.raises(VectorStoreRejected, match="nowhere"):
        await store.overwrite_payload("nowhere", points(1))


async def test_a_dropped_collection_can_be_made_again_with_another_dimension(
    store: VectorStore, nodes: str
) -> None:
    await store.upsert(nodes, points(2), vectors(2))
    for _ in range(2):
        await store.drop_collection(nodes)
    assert await store.count(nodes) == 0
    await store.ensure_collection(nodes, dimensions=3)
    assert await store.count(nodes) == 0
    await store.upsert(nodes, points(1), np.ones((1, 3), dtype=np.float32))


async def test_collections_do_not_mix(store: VectorStore, nodes: str) -> None:
    await store.ensure_collection("other-nodes", dimensions=DIMENSIONS)
    await store.upsert(nodes, points(2), vectors(2))
    await store.upsert("other-nodes", points(3), vectors(3))
    assert (await store.count(nodes), await store.count("other-nodes")) == (2, 3)


@pytest.mark.long(after=4)
@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "a\x00b", "é", "a" * 201, "a b"])
async def test_names_that_are_not_safe_are_refused(store: VectorStore, name: str) -> None:
    with pytest.raises(VectorStoreRejected, match="cannot name a collection"):
        await store.ensure_collection(name, dimensions=DIMENSIONS)


async def test_an_embedded_collection_gets_the_payload_indexes_that_it_lacks(tmp_path: Path) -> None:
    opened = OpenCollections()
    store = EmbeddedQdrantStore("system", tmp_path, opened=opened)
    for indexed in ([], ["type"], ["type", "visibility"]):
        await store.ensure_collection("nodes", dimensions=DIMENSIONS, indexed=indexed)
        assert sorted(opened.shards["nodes"]._shard.info().payload_schema) == indexed
        await store.upsert("nodes", points(10, type="country", visibility="public"), vectors(10))
    await store.close()


async def test_embedded_points_are_there_after_reopening(tmp_path: Path) -> None:
    written = points(1500, type="country")
    first = EmbeddedQdrantStore("system", tmp_path)
    await first.ensure_collection("nodes", dimensions=DIMENSIONS, indexed=["type"])
    await first.upsert("nodes", written, vectors(1500))
    await first.delete("nodes", [point.id for point in written[1000:]])
    await first.close()
    second = EmbeddedQdrantStore("system", tmp_path)
    assert await everything(second, "nodes") == sorted(written[:1000], key=lambda point: point.id)
    with pytest.raises(VectorStoreRejected, match=r"8 dimensions.* 3"):
        await second.ensure_collection("nodes", dimensions=3)
    await second.close()
    with pytest.raises(VectorStoreUnavailable, match="closed"):
        await second.count("nodes")


CHILD = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
import numpy as np
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.stores.vectors import PointPayload

async def main():
    store = EmbeddedQdrantStore("system", Path(sys.argv[1]))
    await store.ensure_collection("nodes", dimensions=8, indexed=["type"])
    for batch in range(1_000_000):
        points = [PointPayload(UUID(int=batch * 100 + row), {"type": "country"}) for row in range(100)]
        await store.upsert("nodes", points, np.ones((100, 8), dtype=np.float32))
        print((batch + 1) * 100, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes to the same folder without end, telling after each batch."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        yield child
        child.kill()


async def test_a_folder_that_another_process_holds_is_refused_until_it_lets_go(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    assert writer.stdout is not None
    writer.stdout.readline()
    store = EmbeddedQdrantStore("system", tmp_path)
    with pytest.raises(VectorStoreUnavailable, match="SYNCLINE_QDRANT_URL") as refused:
        await store.ensure_collection("nodes", dimensions=DIMENSIONS)
    assert str(tmp_path / "nodes") in str(refused.value)
    assert refused.value.retryable
    with pytest.raises(VectorStoreUnavailable, match="another process"):
        await store.drop_collection("nodes")
    # To be refused must not harm the holder.
    assert [int(writer.stdout.readline()) for _ in range(20)]
    writer.kill()
    writer.wait()
    assert await store.count("nodes") >= 2000
    await store.close()


async def test_embedded_aliases_are_there_after_reopening_and_for_a_store_beside(tmp_path: Path) -> None:
    folder = tmp_path / "qdrant"
    first, beside = EmbeddedQdrantStore("one", folder), EmbeddedQdrantStore("other", folder)
    assert await beside.aliases() == {}
    for collection in ("nodes", "nodes.2"):
        await first.ensure_collection(collection, dimensions=DIMENSIONS)
        await first.set_aliases({"nodes.live": collection})
        assert await beside.aliases() == {"nodes.live": collection}
    await first.close()
    reopened = EmbeddedQdrantStore("again", folder)
    await reopened.upsert("nodes.2", points(2), vectors(2))
    assert await reopened.count("nodes.live") == 2
    (folder / ".aliases.json").write_text("{")
    with pytest.raises(VectorStoreRejected, match="malformed"):
        await reopened.count("nodes.live")
    await reopened.close()
    await beside.close()


async def test_what_an_embedded_write_confirmed_survives_sigkill(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    assert writer.stdout is not None
    confirmed = [int(writer.stdout.readline()) for _ in range(20)]
    os.kill(writer.pid, signal.SIGKILL)
    confirmed += [int(line) for line in writer.stdout.read().splitlines()]
    writer.wait()
    store = EmbeddedQdrantStore("system", tmp_path)
    found = {point.id.int for point in await everything(store, "nodes")}
    assert found >= set(range(confirmed[-1]))
    await store.upsert("nodes", points(1), vectors(1))
    assert await store.count("nodes") == len(found) + 1
    await store.close()


async def test_a_collection_half_created_or_half_dropped_is_no_obstacle(tmp_path: Path) -> None:
    for leftover in (".new-nodes", ".dropped-nodes"):
        (tmp_path / leftover / "shard" / "wal").mkdir(parents=True)
        (tmp_path / leftover / "shard" / "rubbish").write_text("x")
    store = EmbeddedQdrantStore("system", tmp_path)
    await store.ensure_collection("nodes", dimensions=DIMENSIONS)
    await store.upsert("nodes", points(1), vectors(1))
    await store.drop_collection("nodes")
    assert leftovers(tmp_path) == []
    await store.close()


async def test_a_strange_folder_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    store = EmbeddedQdrantStore("system", tmp_path)
    with pytest.raises(VectorStoreRejected, match=f"{tmp_path / 'nodes'}.*not a collection"):
        await store.ensure_collection("nodes", dimensions=DIMENSIONS)
    assert (tmp_path / "nodes").is_dir()


async def test_a_folder_lost_under_an_open_store_is_made_again(tmp_path: Path) -> None:
    store = EmbeddedQdrantStore("system", tmp_path / "qdrant")
    await store.ensure_collection("nodes", dimensions=DIMENSIONS)
    (tmp_path / "qdrant").rename(tmp_path / "lost")
    with pytest.raises(VectorStoreUnavailable):
        await store.upsert("nodes", points(1), vectors(1))
    await store.ensure_collection("nodes", dimensions=DIMENSIONS)
    await store.upsert("nodes", points(1), vectors(1))
    assert await store.count("nodes") == 1
    await store.close()


async def test_only_so_many_collections_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdrant_embedded, "_OPEN_COLLECTIONS", 2)
    store = EmbeddedQdrantStore("system", tmp_path)
    for number in range(5):
        await store.ensure_collection(f"nodes-{number}", dimensions=DIMENSIONS)
        await store.upsert(f"nodes-{number}", points(number), vectors(number))
    # Those that were closed can be opened by others; those that are open cannot.
    other = EmbeddedQdrantStore("other", tmp_path)
    assert await other.count("nodes-1") == 1
    with pytest.raises(VectorStoreUnavailable):
        await other.count("nodes-4")
    await other.close()
    assert [await store.count(f"nodes-{number}") for number in range(5)] == list(range(5))
    await store.close()


def test_stores_of_several_event_loops_share_what_is_open(tmp_path: Path) -> None:
    opened = OpenCollections.of_this_process(tmp_path)
    assert OpenCollections.of_this_process(tmp_path) is opened

    async def fill(barrier: threading.Barrier) -> None:
        store = EmbeddedQdrantStore("system", tmp_path, opened=opened)
        for _ in range(10):
            await store.ensure_collection("nodes", dimensions=DIMENSIONS)
            await store.upsert("nodes", points(10), vectors(10))
        barrier.wait(timeout=30)
        assert await store.count("nodes") == 300
        await store.close()

    barrier = threading.Barrier(3)
    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(asyncio.run, fill(barrier)) for _ in range(3)]:
            done.result(timeout=60)
    assert not opened.shards


@pytest.mark.long("test_overwriting_a_payload_replaces_every_key_and_leaves_the_vector")
async def test_deleted_points_give_their_room_back_when_a_collection_is_opened(tmp_path: Path) -> None:
    written = points(3000)
    for kept in (3000, 500):
        store = EmbeddedQdrantStore("system", tmp_path)
        await store.ensure_collection("nodes", dimensions=DIMENSIONS)
        await store.upsert("nodes", written[:kept], vectors(3000)[:kept])
        await store.delete("nodes", [point.id for point in written[kept:]])
        await store.close()
    reopened = EmbeddedQdrantStore("system", tmp_path)
    assert await everything(reopened, "nodes") == sorted(written[:500], key=lambda point: point.id)
    await reopened.upsert("nodes", written, vectors(3000))
    assert await reopened.count("nodes") == 3000
    found, score = await nearest(reopened, "nodes", vectors(3000)[3].tolist())
    assert found == written[3]
    assert math.isclose(score, 1, abs_tol=1e-5)
    await reopened.close()


async def test_a_missing_engine_is_told_with_both_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    monkeypatch.delitem(sys.modules, "syncline.stores.edge_shard", raising=False)
    store = EmbeddedQdrantStore("system", tmp_path)
    with pytest.raises(VectorStoreRejected, match=r"pip install .syncline\[dev-stack\].*SYNCLINE_QDRANT_URL"):
        await store.ensure_collection("nodes", dimensions=DIMENSIONS)
