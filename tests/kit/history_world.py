"""One graph for all histories of a state machine, which is not asynchronous: an event loop of its own."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.testing.graphs import TestGraph
from tests.kit.writer import Writer

__all__ = ["WRITERS", "HistoryWorld"]

T = TypeVar("T")
WRITERS = 3


class HistoryWorld:
    """The graph, its writers, and a session on each of its databases for what is done to them."""

    def __init__(self, write_dsn: str, target_dsn: str, folder: Path, *, pool_size: int = 4) -> None:
        self._runner = asyncio.Runner()
        self._dsns, self._folder, self._pool_size = (write_dsn, target_dsn), folder, pool_size
        self.graph = self.run(self._open())
        self.run(self._prepare())

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Run this to its end."""
        return self._runner.run(work)

    async def _open(self) -> TestGraph:
        write, target = (
            PostgresStore(name, SecretStr(dsn), pool_size=self._pool_size, application_name="histories")
            for name, dsn in zip(("write", "graph"), self._dsns, strict=True)
        )
        graph = TestGraph(
            write=write,
            target=target,
            write_dsn=self._dsns[0],
            target_dsn=self._dsns[1],
            vectors=EmbeddedQdrantStore("vectors", self._folder),
            embedding=DevelopmentEmbedding(16),
        )
        self.control, self.admin = await graph.connect_target(), await graph.connect_write()
        self.writers = [Writer(await graph.connect_write(), number) for number in range(WRITERS)]
        return graph

    async def _prepare(self) -> None:
        """Make what its histories need besides."""

    def close(self) -> None:
        """Close the stores, and the loop."""

        async def close() -> None:
            await self.graph.vectors.close()
            await self.graph.write.close()
            await self.graph.target.close()

        self.run(close())
        self._runner.close()
