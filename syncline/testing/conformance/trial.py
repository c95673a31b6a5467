"""A provider on trial: on a graph of its own, in processes that can be killed; the stores are the judge."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import asyncpg
from pydantic import BaseModel, JsonValue, SecretStr, ValidationError

from syncline.control.services import Services
from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.errors import SynclineError
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.provider import GraphVectors, RetryRules, SyncContext, SyncProvider, options_model_of, preparing
from syncline.raised import described
from syncline.settings import Settings
from syncline.stores.vectors import VectorStore
from syncline.testing.conformance.ground import KNOWLEDGE, Ground
from syncline.testing.one_graph import TestGraph

__all__ = ["DIMENSIONS", "Nonconforming", "Process", "Subject", "Trial", "connection", "new_run"]

_PATIENCE = 30.0
"""Seconds after which a cycle of a few rows does not end any more."""
DIMENSIONS = 64
_AT_ONCE = RetryRules(dead_letter_seconds=0, vector_seconds=0)
_processes = count(1)


class Nonconforming(AssertionError):
    """A provider breaks the contract: one sentence with what was expected, what was seen, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Which provider is exercised."""

    make: Callable[[], SyncProvider]
    """Its class, or whatever else its entry point names."""
    options: Mapping[str, JsonValue]
    vectors: bool = True
    """Whether it writes vectors."""
    ground: Ground = KNOWLEDGE
    """The tables that it syncs."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One item's trial of a provider, over fresh databases."""

    item: str
    advice: str
    subject: Subject
    write_dsn: str
    target_dsn: str
    folder: Path
    """Of its own."""

    @property
    def ground(self) -> Ground:
        """The tables on which it is tried."""
        return self.subject.ground

    def refuse(
        self, expected: str, seen: str, *, provider: object = None, cause: Exception | None = None
    ) -> NoReturn:
        """Raise Nonconforming; `provider` is the instance, if there is one."""
        named = provider or self.subject.make
        who = f"Provider '{getattr(named, 'id', named)}' {getattr(named, 'version', '')}".rstrip()
        raise Nonconforming(f"{who}, {self.item}: expected {expected}, but {seen}. {self.advice}.") from cause

    @asynccontextmanager
    async def process(self) -> AsyncIterator["Process"]:
        """Yield what a worker process has: pools of its own, and an instance that was initialized."""
        provider = self.made()
        settings = Settings.model_validate(
            {
                "write_dsn": SecretStr(self.write_dsn),
                "graph_dsn": SecretStr(self.target_dsn),
                "qdrant_path": self.folder / "qdrant",
                "pool_size": 4,
            }
        )
        name = f"conformance {next(_processes)}"
        async with Services.open(
            settings, embedding=DevelopmentEmbedding(DIMENSIONS), application_name=name
        ) as services:
            process = Process(self, provider, self._options(provider), services, name)
            try:
                await provider.initialize(services)
            except Exception as error:
                package = type(provider).__module__.partition(".")[0]
                process.refuse("initialize to succeed", f"it {_raised(error, package)}", cause=error)
            try:
                yield process
            finally:
                # A killed process closes nothing; in this one, what is open would be in the way of others.
                with suppress(Exception):
                    await provider.close()

    def made(self) -> SyncProvider:
        """Return a new instance; refuse a subject that makes none."""
        try:
            return self.subject.make()
        except Exception as error:
            self.refuse("an instance", f"making it {_raised(error)}", cause=error)

    def _options(self, provider: SyncProvider) -> BaseModel:
        try:
            return options_model_of(provider).model_validate(dict(self.subject.options))
        except (TypeError, ValidationError) as error:
            self.refuse("the given options to suit its options_model", str(error))


class Process:
    """One process's provider, and the graph as it reaches it."""

    def __init__(
        self, trial: Trial, provider: SyncProvider, options: BaseModel, services: Services, name: str
    ) -> None:
        self.trial, self.provider, self.services = trial, provider, services
        self._options = options
        self._package = type(provider).__module__.partition(".")[0]
        self._name = name
        self._has_prepared = False
        self.graph = TestGraph(
            write=services.store("write", None),
            target=services.store("graph", None),
            write_dsn=trial.write_dsn,
            target_dsn=trial.target_dsn,
            vectors=services.vector_store(None),
            embedding=services.embedding,
        )

    def refuse(self, expected: str, seen: str, *, cause: Exception | None = None) -> NoReturn:
        """Raise Nonconforming."""
        self.trial.refuse(expected, seen, provider=self.provider, cause=cause)

    def context(
        self,
        run_id: str | None = None,
        *,
        attempt: int = 1,
        batch_rows: int = 50_000,
        vectors: VectorStore | None = None,
    ) -> SyncContext:
        """Return what a cycle is given, with every wait for a retry at zero."""
        context = self.graph.context(
            run_id=run_id, attempt=attempt, batch_rows=batch_rows, options=self._options
        )
        run = replace(context.run, provider=self.provider.id, provider_version=self.provider.version)
        given = GraphVectors(store=vectors or self.graph.vectors, prefix=context.vectors.prefix)
        return replace(context, run=run, vectors=given, retry=_AT_ONCE)

    def start(self, context: SyncContext) -> "asyncio.Task[object]":
        """Start a cycle."""
        return asyncio.ensure_future(self._prepared(context))

    async def _prepared(self, context: SyncContext) -> object:
        """Run a cycle as a worker does: before the first one, the provider prepares."""
        if not self._has_prepared:
            await self.prepare(context)
            self._has_prepared = True
        return await self.provider.sync_cycle(context)

    async def prepare(self, context: SyncContext) -> None:
        """Have the provider prepare a graph, if it has anything to prepare; refuse it if it fails."""
        provider = preparing(self.provider)
        if provider is None:
            return
        try:
            await provider.prepare(context)
        except Exception as error:
            raised = _raised(error, self._package)
            self.refuse("prepare to succeed, however often it is called", f"it {raised}", cause=error)

    async def ended(self, cycle: "asyncio.Task[object]") -> SyncResult:
        """Return the result of a cycle that nobody has cut off; refuse whatever else it does."""
        await asyncio.wait({cycle}, timeout=_PATIENCE)
        if not cycle.done():
            self.refuse("a cycle of a few rows to end", f"it was at work after {_PATIENCE:g} s")
        try:
            result = cycle.result()
        except asyncio.CancelledError:
            self.refuse("a result", "it raised CancelledError, and nobody had cancelled it")
        except Exception as error:
            self.refuse("a result", f"the cycle {_raised(error, self._package)}", cause=error)
        if not isinstance(result, SyncResult):
            self.refuse("a SyncResult", f"sync_cycle returned {type(result).__name__}")
        return result

    async def cycle(self, context: SyncContext | None = None) -> SyncResult:
        """Run a cycle to its end."""
        return await self.ended(self.start(context or self.context()))

    async def finish(self, run_id: str, *, attempt: int) -> SyncResult:
        """Run attempts of a run until one ends well, as Temporal would; what a retry may cure is retried."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            cycle = self.start(self.context(run_id, attempt=attempt))
            await asyncio.wait({cycle}, timeout=_PATIENCE)
            error = cycle.exception() if cycle.done() and not cycle.cancelled() else None
            late = asyncio.get_running_loop().time() > deadline
            if late or not (isinstance(error, SynclineError) and error.retryable):
                return await self.ended(cycle)
            attempt += 1
            await asyncio.sleep(0.05)

    async def settle(self, when: str) -> None:
        """Run cycles until one has drained the graph; refuse what then differs from the write-db."""
        for _ in range(10):
            result = await self.cycle()
            if result.status not in (CycleStatus.BUDGET_SPENT, CycleStatus.ALREADY_RUNNING):
                break
        errors = [f"{table.table}: {table.error}" for table in result.tables if table.error]
        if result.status is CycleStatus.FAILED:
            self.refuse(f"no table to fail {when}", f"the status is failed ({'; '.join(errors)})")
        await self.equal(when)

    async def equal(self, when: str, *, vectors: bool = True) -> None:
        """Refuse whatever differs between the write-db and the other stores."""
        subject = self.trial.subject
        found = await subject.ground.differences(self.graph, vectors=vectors and subject.vectors)
        if found:
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            self.refuse(f"the stores to say what the write-db says {when}", f"{found[0]}{more}")

    async def kill(self, cycle: "asyncio.Task[object]") -> None:
        """End a cycle as a killed process would: its connections are gone, and it does nothing more."""
        await self._backends("pg_terminate_backend(pid)")
        cycle.cancel()
        await asyncio.wait({cycle}, timeout=_PATIENCE)
        if not cycle.done():
            self.refuse("a cycle that is cut off to end", f"it was at work {_PATIENCE:g} s later")
        if not cycle.cancelled():
            cycle.exception()  # whatever a broken connection made it raise is nobody's fault

    async def waiting(self, cycle: "asyncio.Task[object]", seconds: float = 10) -> bool:
        """Return whether the cycle has come to wait for a lock, in that time and before its end."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not cycle.done() and asyncio.get_running_loop().time() < deadline:
            if True in await self._backends("wait_event_type = 'Lock'"):
                return True
            await asyncio.sleep(0.02)
        return False

    async def open_transactions(self) -> int:
        """Return how many transactions the process has open."""
        return sum(bool(open_) for open_ in await self._backends("state LIKE 'idle in transaction%'"))

    async def _backends(self, expression: str) -> list[object]:
        """Return what holds of each of the process's connections."""
        found: list[object] = []
        for connect in (self.graph.connect_write, self.graph.connect_target):
            async with connection(connect) as observer:
                rows = await observer.fetch(
                    f"SELECT {expression} AS value FROM pg_stat_activity"  # noqa: S608 - ours, from above
                    # The session that holds the graph's lock is called by its run instead.
                    " WHERE (application_name = $1 OR application_name LIKE 'syncline % #%')"
                    " AND datname = current_database()",
                    self._name,
                )
                found.extend(row["value"] for row in rows)
        return found


@asynccontextmanager
async def connection(
    connect: Callable[[], Awaitable[asyncpg.Connection]],
) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection that is closed at the end."""
    opened = await connect()
    try:
        yield opened
    finally:
        await opened.close()


def new_run() -> str:
    """Return the id of a run that nobody had yet."""
    return str(uuid4())


def _raised(error: Exception, package: str = "") -> str:
    return f"raised {described(error, package)}"
