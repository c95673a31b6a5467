"""One graph over a real write-db, graph-db and vector store, and statements for its databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg
import structlog
from pydantic import BaseModel, SecretStr

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.embeddings.service import EmbeddingService
from syncline.messages.base import GraphRef
from syncline.messages.sync import CycleProgress
from syncline.migrations import migrate_graph, migrate_write
from syncline.provider import (
    CycleBudget,
    GraphSchema,
    GraphVectors,
    NoOptions,
    NullMeter,
    RunIdentity,
    SyncContext,
)
from syncline.stores.postgres import PostgresStore
from syncline.stores.vectors import VectorStore

__all__ = [
    "LOCK",
    "SCHEMA",
    "TestGraph",
    "hang_up",
    "on_target",
    "prepare_templates",
    "read",
    "session",
    "write",
]

SCHEMA = "kg"
_KEY = "hashtextextended('syncline:' || current_schema(), 0)"
LOCK = f"SELECT pg_try_advisory_lock({_KEY})"
"""What a cycle takes, over a connection whose search_path is the graph's schema."""
_WRITE_TEMPLATE, _GRAPH_TEMPLATE = "template_write", "template_graph"


@dataclass
class KeptSessions:
    """Connections that wait for the next statement, by connection string; all of one event loop."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    idle: dict[str, list[asyncpg.Connection]] = field(default_factory=dict)

    async def close(self) -> None:
        """End these sessions."""
        for idle in self.idle.values():
            while idle:
                await idle.pop().close()

    async def take(self, dsn: str) -> asyncpg.Connection | None:
        """Return one that still answers."""
        idle = self.idle.get(dsn, [])
        while idle:
            connection = idle.pop()
            try:
                await connection.execute("SELECT 1")
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                connection.terminate()
            else:
                return connection
        return None

    async def give_back(self, dsn: str, connection: asyncpg.Connection) -> None:
        """Keep it, in the state of a new one; one that is in a transaction is closed."""
        if connection.is_in_transaction():
            await connection.close()
        else:
            await connection.execute("DISCARD ALL")
            self.idle.setdefault(dsn, []).append(connection)


@dataclass
class TestGraph:
    """One graph over real stores. `context()` makes what a provider is given for one run."""

    __test__ = False

    write: PostgresStore
    target: PostgresStore
    write_dsn: str
    target_dsn: str
    vectors: VectorStore
    embedding: EmbeddingService
    ref: GraphRef = field(default_factory=lambda: GraphRef(id=UUID(int=1), slug="kg"))
    heartbeats: list[CycleProgress] = field(default_factory=list, repr=False)
    kept: "KeptSessions | None" = field(default=None, repr=False)
    """Those of `write`, `read` and `on_target`; None keeps none."""
    source_schema: str = SCHEMA
    """Schema of the write-db; that of the graph-db is `SCHEMA`."""

    def context(
        self,
        *,
        run_id: str | None = None,
        attempt: int = 1,
        batch_rows: int = 50_000,
        seconds: float = 600,
        options: BaseModel | None = None,
    ) -> SyncContext:
        """Return a context of a new run, or of a further attempt of run `run_id`."""
        run = RunIdentity(workflow_id="sync-graph/kg", run_id=run_id or str(uuid4()), attempt=attempt)
        return SyncContext(
            graph=self.ref,
            run=run,
            write=GraphSchema(store=self.write, schema=self.source_schema),
            target=GraphSchema(store=self.target, schema=SCHEMA),
            vectors=GraphVectors(store=self.vectors, prefix="kg_"),
            embedding=self.embedding,
            budget=CycleBudget(batch_rows=batch_rows, seconds=seconds),
            options=options or NoOptions(),
            heartbeat=self.heartbeats.append,
            log=structlog.get_logger(),
            meter=NullMeter(),
        )

    async def wait_until_free(self) -> None:
        """Return once no cycle holds the graph: Postgres notices the end of a killed one in its own time."""
        connection = await self.connect_target()
        try:
            async with asyncio.timeout(30):
                while not await connection.fetchval(LOCK):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await connection.execute(f"SELECT pg_advisory_unlock({_KEY})")
        finally:
            await connection.close()

    async def connect_write(self) -> asyncpg.Connection:
        """Return a writer's own connection, with the graph's schema on its search_path."""
        return await asyncpg.connect(self.write_dsn, server_settings={"search_path": self.source_schema})

    async def connect_target(self) -> asyncpg.Connection:
        """Return a reader's own connection to the graph-db."""
        return await asyncpg.connect(self.target_dsn, server_settings={"search_path": SCHEMA})


async def write(graph: TestGraph, sql: str, *arguments: object) -> None:
    """Execute a statement on the write-db, or a script without arguments, in a session of its own."""
    async with session(graph, graph.write_dsn, graph.source_schema) as connection:
        await connection.execute(sql, *arguments)


async def on_target(graph: TestGraph, sql: str, *arguments: object) -> None:
    """Execute the same on the graph-db."""
    async with session(graph, graph.target_dsn) as connection:
        await connection.execute(sql, *arguments)


async def read(graph: TestGraph, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """Return the rows of a query on the graph-db."""
    async with session(graph, graph.target_dsn) as connection:
        return list(await connection.fetch(sql, *arguments))


@asynccontextmanager
async def session(graph: TestGraph, dsn: str, schema: str = SCHEMA) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to a database of the graph in the state of a new one, the schema on the search_path.

    Where the graph keeps connections, one that is there is taken: a new one takes Postgres 20 ms of CPU.
    """
    kept = graph.kept
    if kept is not None and kept.loop is not asyncio.get_running_loop():
        kept = None
    connection = None if kept is None else await kept.take(dsn)
    if connection is None:
        settings = {"search_path": SCHEMA}
        connection = await asyncpg.connect(dsn, server_settings=settings, statement_cache_size=0)
    try:
        if schema != SCHEMA:
            await connection.execute("SELECT set_config('search_path', $1, false)", schema)
        yield connection
    except BaseException:
        await connection.close()
        raise
    if kept is None:
        await connection.close()
    else:
        await kept.give_back(dsn, connection)


async def hang_up(graph: TestGraph) -> None:
    """End the sessions that a graph keeps."""
    if graph.kept is not None:
        await graph.kept.close()


async def prepare_templates(server: EmbeddedPostgres) -> tuple[str, str]:
    """Return the names of template databases of a migrated write-db and graph-db; make what is missing."""
    for name, migrate in ((_WRITE_TEMPLATE, migrate_write), (_GRAPH_TEMPLATE, migrate_graph)):
        server.ensure_database(name)
        store = PostgresStore(name, SecretStr(server.dsn(name)), pool_size=2, application_name="template")
        await migrate(store, SCHEMA)
        await store.close()
    return _WRITE_TEMPLATE, _GRAPH_TEMPLATE
