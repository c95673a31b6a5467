"""The lab: fresh databases, both ends on a graph's schema, and one timed cycle as the worker runs it."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import psutil
import structlog
from pydantic import SecretStr

from benchmarks.bare import copy_and_merge, copy_and_merge_without_keys
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.embeddings.service import EmbeddingService, Vectors
from syncline.engine import run_cycle
from syncline.errors import EmbeddingUnavailable
from syncline.messages.base import GraphRef
from syncline.messages.sync import CycleProgress, CycleStatus, SyncResult
from syncline.provider import (
    CycleBudget,
    GraphSchema,
    GraphVectors,
    NoOptions,
    NullMeter,
    RunIdentity,
    SyncContext,
)
from syncline.settings import Settings
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore

SCHEMA = "kg"


class NoEmbedding(DevelopmentEmbedding):
    """The development embedding on a day when it is away: for cycles that are timed for their rows alone."""

    def __init__(self) -> None:
        super().__init__(384)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Fail."""
        raise EmbeddingUnavailable(self.name, f"not asked for {len(texts)} vectors by this benchmark")


class Meter:
    """The CPU seconds of a server and of this process: on a busy machine the clock says less."""

    def __init__(self, folder: Path) -> None:
        self._server = psutil.Process(int((folder / "postmaster.pid").read_text().split("\n", 1)[0]))

    def cpu(self) -> float:
        """Return all CPU seconds so far."""
        ended, pid = self._server.cpu_times(), self._server.pid
        seconds = time.process_time() + ended.children_user + ended.children_system
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return seconds + sum(map(_seconds, [pid, *map(int, children)]))


def _seconds(pid: int) -> float:
    """Return the CPU seconds of one process; a clock tick is too long for short steps."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it has ended, and counts as its parent's


@dataclass(frozen=True)
class Timing:
    """One cycle: its result, its seconds until the graph-db had everything, and those until it ended."""

    result: SyncResult
    rows_seconds: float
    vector_seconds: float
    cpu_seconds: float
    rows_cpu: float
    """By the clock that was given: until the graph-db had everything."""


async def timed_cycle(
    write: PostgresStore,
    target: PostgresStore,
    vectors: EmbeddedQdrantStore,
    embedding: EmbeddingService,
    *,
    run: Callable[[SyncContext], Awaitable[SyncResult]] = run_cycle,
    clock: Callable[[], float] = time.process_time,
) -> Timing:
    """Run one cycle with the worker's default batches."""
    started = time.perf_counter()
    cpu = time.process_time()
    rows_done, begun = started, clock()
    rows_cpu = begun

    def beat(progress: CycleProgress) -> None:
        nonlocal rows_done, rows_cpu
        if progress.phase == "capture":
            rows_done, rows_cpu = time.perf_counter(), clock()

    result = await run(
        SyncContext(
            graph=GraphRef(id=UUID(int=1), slug="benchmark"),
            run=RunIdentity(workflow_id="benchmark", run_id=str(uuid4())),
            write=GraphSchema(store=write, schema=SCHEMA),
            target=GraphSchema(store=target, schema=SCHEMA),
            vectors=GraphVectors(store=vectors, prefix="benchmark_"),
            embedding=embedding,
            budget=CycleBudget(batch_rows=Settings.model_fields["batch_rows"].default, seconds=3600),
            options=NoOptions(),
            heartbeat=beat,
            log=structlog.get_logger(),
            meter=NullMeter(),
        )
    )
    ended = time.perf_counter()
    if result.status not in (CycleStatus.DRAINED, CycleStatus.VECTORS_DELAYED):
        raise SystemExit(f"the cycle did not drain: {result}")
    return Timing(result, rows_done - started, ended - rows_done, time.process_time() - cpu, rows_cpu - begun)


async def timed_by_hand(
    server: EmbeddedPostgres,
    write: PostgresStore,
    target: PostgresStore,
    *,
    since: int | None = None,
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, float, float]:
    """Move the same by `copy_and_merge`; return its seconds, those of the numbers within them, and its CPU."""
    server.psql("CHECKPOINT")
    cpu, started = clock(), time.perf_counter()
    async with both(write, target) as (source, sink):
        numbers = await copy_and_merge(source, sink, since=since)
    return time.perf_counter() - started, numbers, clock() - cpu


async def timed_without_keys(
    server: EmbeddedPostgres, write: PostgresStore, target: PostgresStore, *, clock: Callable[[], float]
) -> tuple[float, float]:
    """Move the same by `copy_and_merge_without_keys`; return its seconds and its CPU."""
    server.psql("CHECKPOINT")
    cpu, started = clock(), time.perf_counter()
    async with both(write, target) as (source, sink):
        await copy_and_merge_without_keys(source, sink)
    return time.perf_counter() - started, clock() - cpu


@asynccontextmanager
async def fresh_store(server: EmbeddedPostgres, name: str) -> AsyncIterator[PostgresStore]:
    """An empty database, with everything written so far on disk, so that no run pays for another's."""
    server.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    server.psql(f'CREATE DATABASE "{name}"')
    server.psql("CHECKPOINT")
    store = PostgresStore(name, SecretStr(server.dsn(name)), pool_size=4, application_name="benchmark")
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def both(
    write: PostgresStore, target: PostgresStore
) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    """A connection to either side, with the graph's schema on its search_path."""
    async with write.driver() as source, target.driver() as sink:
        for connection in (source, sink):
            # Postgres's own way with plans: a session of ours plans each time, the checks of foreign keys too.
            await connection.execute(f"SET search_path = {SCHEMA}; SET plan_cache_mode = auto")
        yield source, sink
        for connection in (source, sink):
            await connection.execute(
                "SET search_path = pg_catalog, pg_temp; SET plan_cache_mode = force_custom_plan"
            )
