"""Histories over the map of examples/graph_product: whatever happens, in the end the stores say what the map says."""

import os
from collections.abc import AsyncIterator, Callable
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
from tests.kit.product_world import ProductWorld, prepare_product

Tell = Callable[[int, int], object]


@pytest_asyncio.fixture(loop_scope="session")
async def tell(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Callable[[int, int], object]]:
    """A function `(seed, steps)` that tells the history of this number, over stores of its own."""
    templates = [
        urlsplit(dsn).path.removeprefix("/") for dsn in await prepare_product(new_database, tmp_path)
    ]

    async def told(seed: int, steps: int) -> None:
        async with AsyncExitStack() as stack:
            dsns = [new_database(template) for template in templates]
            stores = [
                PostgresStore(name, SecretStr(dsn), pool_size=4, application_name="histories")
                for name, dsn in zip(("write", "graph"), dsns, strict=True)
            ]
            vectors = EmbeddedQdrantStore("vectors", tmp_path / f"qdrant-{seed}")
            for store in (*stores, vectors):
                stack.push_async_callback(store.close)
            graph = TestGraph(
                write=stores[0],
                target=stores[1],
                write_dsn=dsns[0],
                target_dsn=dsns[1],
                vectors=vectors,
                embedding=DevelopmentEmbedding(16),
            )
            world = await ProductWorld.opened(graph, Random(seed), stack)
            try:
                await world.history(steps)
            except BaseException as failed:
                failed.add_note(f"History {seed}:\n" + "\n".join(world.log))
                raise

    yield told


@pytest.mark.parametrize("seed", [int(x) for x in os.environ.get("SEEDS", "1").split(",")])
async def test_it(tell, seed) -> None:
    await tell(seed, 20)
