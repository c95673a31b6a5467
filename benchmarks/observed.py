"""The lab: a server of its own, databases on it, one timed cycle, and what it cost in CPU."""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import structlog
from pydantic import SecretStr

from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.embedding import Vectors
from syncline.embedding_development import DevelopmentEmbedding
from syncline.engine import run_cycle
from syncline.errors import EmbeddingUnavailable
from syncline.messages import CycleProgress, CycleStatus, GraphRef, SyncResult
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
from syncline.stores.vectors import VectorStore

SCHEMA = "kg"
DIMENSIONS = 384
BATCH_ROWS: int = Settings.model_fields["batch_rows"].default


class NoVectors(DevelopmentEmbedding):
    """The development embedding on a day when it is away: for cycles timed for their rows alone."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Fail."""
        raise EmbeddingUnavailable(self.name, f"not asked for {len(texts)} vectors by this benchmark")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds by the clock, and of CPU: this process's and the Postgres server's."""

    seconds: float = 0.0
    worker: float = 0.0
    postgres: float = 0.0


class Watch:
    """Reads the clock and both CPUs; the server's includes what its ended processes used."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        pid = (server.data_dir / "postmaster.pid").read_text().split("\n", 1)[0]
        self._postmaster = psutil.Process(int(pid))
        self._begun = self._now()

    def restart(self) -> None:
        """Count from here."""
        self._begun = self._now()

    def read(self) -> Cost:
        """Return what was used since the start."""
        now, begun = self._now(), self._begun
        return Cost(
            seconds=now.seconds - begun.seconds,
            worker=now.worker - begun.worker,
            postgres=now.postgres - begun.postgres,
        )

    def _now(self) -> Cost:
        own = self._postmaster.cpu_times()
        used = own.user + own.system + own.children_user + own.children_system
        for process in self._postmaster.children():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            used += times.user + times.system
        return Cost(seconds=time.perf_counter(), worker=time.process_time(), postgres=used)


@dataclass(kw_only=True)
class Statements:
    """What was said to a database: statement -> [times, seconds]."""

    told: dict[str, list[float]] = field(default_factory=dict)

    def note(self, statement: str, seconds: float) -> None:
        """Count one statement."""
        entry = self.told.setdefault(statement, [0, 0.0])
        entry[0] += 1
        entry[1] += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return int(sum(times for times, _ in self.told.values()))


class LoggedStore(PostgresStore):
    """A store that notes every statement. COPY is not among them: the driver does not tell of it."""

    statements: Statements

    async def _connect(self):  # type: ignore[no-untyped-def] # the driver has no types
        connection = await super()._connect()
        connection.add_query_logger(lambda record: self.statements.note(record.query, record.elapsed))
        return connection


def open_store(server: EmbeddedPostgres, database: str) -> LoggedStore:
    """Return a store of the worker's kind over a database that is there."""
    store = LoggedStore(database, SecretStr(server.dsn(database)), pool_size=4, application_name="benchmark")
    store.statements = Statements()
    return store


@contextmanager
def running_server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """Run an embedded server over an empty folder."""
    postgres = PostgresServer(folder / "postgres")
    try:
        yield postgres.start()
    finally:
        postgres.stop()


@asynccontextmanager
async def database(
    server: EmbeddedPostgres, name: str, *, template: str | None = None
) -> AsyncIterator[LoggedStore]:
    """A database that is new, or a copy; what was written so far is on disk: no run pays for another's."""
    copied = f' TEMPLATE "{template}" STRATEGY file_copy' if template else ""
    server.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    server.psql(f'CREATE DATABASE "{name}"{copied}')
    server.psql("CHECKPOINT")
    store = open_store(server, name)
    try:
        yield store
    finally:
        await store.close()


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One cycle: its result, the cost until the graph-db had everything, and that of all of it."""

    result: SyncResult
    rows: Cost
    all: Cost

    @property
    def vector_seconds(self) -> float:
        """From the last row until the cycle's end."""
        return self.all.seconds - self.rows.seconds


async def timed_cycle(
    watch: Watch, write: PostgresStore, target: PostgresStore, vectors: VectorStore, *, with_vectors: bool
) -> Timing:
    """Run one cycle as the worker does."""
    rows: Cost | None = None

    def beat(progress: CycleProgress) -> None:
        nonlocal rows
        if progress.phase == "capture":
            rows = watch.read()

    context = SyncContext(
        graph=GraphRef(id=UUID(int=1), slug="benchmark"),
        run=RunIdentity(workflow_id="benchmark", run_id=str(uuid4())),
        write=GraphSchema(store=write, schema=SCHEMA),
        target=GraphSchema(store=target, schema=SCHEMA),
        vectors=GraphVectors(store=vectors, prefix="benchmark_"),
        embedding=DevelopmentEmbedding(DIMENSIONS) if with_vectors else NoVectors(DIMENSIONS),
        budget=CycleBudget(batch_rows=BATCH_ROWS, seconds=36_000),
        options=NoOptions(),
        heartbeat=beat,
        log=structlog.get_logger(),
        meter=NullMeter(),
    )
    watch.restart()
    result = await run_cycle(context)
    ended = watch.read()
    expected = {CycleStatus.DRAINED} if with_vectors else {CycleStatus.DRAINED, CycleStatus.VECTORS_DELAYED}
    if result.status not in expected or result.parked or result.dead_letters:
        raise SystemExit(f"the cycle did not drain: {result}")
    return Timing(result=result, rows=rows or replace(ended), all=ended)


def peak_memory() -> float:
    """Return the most memory that this process ever held, in MiB.

    Not ru_maxrss: that begins with what the parent held when it started us.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell a process's peak memory")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)
