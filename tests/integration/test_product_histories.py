"""Histories over the map of examples/graph_product: whatever happens, the stores say what the map says in the end.

A history is told by its number: the same one every time.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.testing.graphs import TestGraph
from tests.kit.loads import every_load
from tests.kit.product_world import ProductWorld, prepare_product

Tell = Callable[..., Awaitable[None]]


@pytest_asyncio.fixture(loop_scope="session")
async def tell(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Tell]:
    """A function `(number, steps, loads)` that tells a history, over stores of its own."""
    prepared = await prepare_product(new_database, tmp_path)
    templates = [urlsplit(dsn).path.removeprefix("/") for dsn in prepared]

    async def told(number: int, steps: int, *, loads: bool = False) -> None:
        async with AsyncExitStack() as stack:
            dsns = [new_database(template) for template in templates]
            write, target = (
                PostgresStore(name, SecretStr(dsn), pool_size=4, application_name="histories")
                for name, dsn in zip(("write", "graph"), dsns, strict=True)
            )
            vectors = EmbeddedQdrantStore("vectors", tmp_path / f"qdrant-{number}")
            for store in (write, target, vectors):
                stack.push_async_callback(store.close)
            graph = TestGraph(
                write=write,
                target=target,
                write_dsn=dsns[0],
                target_dsn=dsns[1],
                vectors=vectors,
                embedding=DevelopmentEmbedding(16),
            )
            world = await ProductWorld.opened(graph, Random(number), stack, loads=loads)
            try:
                await world.history(steps)
            except BaseException as failed:
                failed.add_note(f"History {number}:\n" + "\n".join(world.log))
                raise

    yield told


@pytest.mark.long(after=1)
@pytest.mark.parametrize("number", [1, 2])
async def test_a_history_of_a_graph_product_loses_nothing(tell: Tell, number: int) -> None:
    await tell(number, 12)


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(1, 7), ids="part {} of 6".format)
async def test_three_hundred_histories_of_a_graph_product_lose_nothing(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """In every second part tables are read again time and again, in turns with what changes."""
    failed: list[Exception] = []
    if loads := part % 2 == 0:
        every_load(monkeypatch)
    for number in range(50 * (part - 1), 50 * part):
        try:
            await tell(number, 20, loads=loads)
        except Exception as one:  # all of them are told
            failed.append(one)
    if failed:
        raise ExceptionGroup("histories", failed)
