"""Listeners: one for every write-db that has a graph to run on notification, while a worker runs."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

from syncline import metrics
from syncline.capture.listen.connection import LEASE_SECONDS, ListenConnection
from syncline.capture.listen.retries import RetryWatch
from syncline.capture.listen.session import ListenSession
from syncline.capture.listen.starter import Directory, ListenContext, RateLimiter, Runs
from syncline.capture.listen.status import listened_to, listener_name
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.errors import SynclineError
from syncline.logs import get_log
from syncline.provider import Meter
from syncline.sql import quoted, statements_of
from syncline.stores.postgres import PostgresStore

__all__ = ["Listener", "ListenerSilence", "Listening", "Runs"]

_sql = statements_of("syncline.capture.listen")
_STANDBY: Final = 3.0
_UNABLE: Final = 30.0
_LEAST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_SETTLED: Final = 5.0
"""Seconds that a connection lasts before it counts as one."""


class ListenerSilence(NamedTuple):
    """How long a listener has had no answer from its write-db."""

    seconds: float
    lost: bool
    """Whether it has no connection, or its task has ended."""
    problem: str | None
    """Why, or what it waits for while its connection works; None while all is well."""


class Listener:
    """Listens to one store. `name` is the same for all workers that compete for it."""

    def __init__(
        self,
        store: PostgresStore,
        key: str | None,
        *,
        name: str,
        directory: Directory,
        limiter: RateLimiter,
        runs: Runs,
        meter: Meter,
        retries: RetryWatch | None = None,
        visible_below: Callable[[Graph], Awaitable[int]] | None = None,
    ) -> None:
        self._store = store
        self._name = name
        self._context = ListenContext(
            store=store.name,
            key=key,
            directory=directory,
            limiter=limiter,
            runs=runs,
            meter=meter,
            report=self._report,
            retries=None if retries is None else retries.look,
            visible_below=visible_below,
        )
        self._reported: str | None = None
        self._line: ListenConnection | None = None
        self._lost_at = self._connected_at = time.monotonic()
        self._obstacle: str | None = None

    def silence(self) -> ListenerSilence:
        """Return how long the write-db has not answered; readable from any thread.

        What the write-db itself prevents, as a standby does, is no silence. A connection that keeps ending is
        no connection.
        """
        line, obstacle, now = self._line, self._obstacle, time.monotonic()
        if obstacle is not None:
            return ListenerSilence(0.0, False, f"nothing is notified: {obstacle}")
        if line is None or now - self._connected_at < _SETTLED:
            return ListenerSilence(now - self._lost_at, True, self._reported or "it is not connected yet")
        silent = now - line.answered_at
        return ListenerSilence(
            silent, False, f"no answer for {silent:.0f} s" if silent > LEASE_SECONDS / 2 else None
        )

    async def run(self) -> None:
        """Listen until cancelled."""
        self._measure(listening=False)
        pause = _LEAST_PAUSE
        while True:
            began = time.monotonic()
            try:
                async with self._store.alone(
                    "listener",
                    synchronous_commit="off",
                    lock_timeout="2000",
                    # Only the catalog's own operators, whatever schemas exist.
                    search_path="pg_catalog, pg_temp",
                ) as connection:
                    self._connected_at = time.monotonic()
                    self._line = ListenConnection(connection, self._name)
                    await self._listen(self._line)
            except SynclineError as error:
                self._report(str(error))
            except Exception:
                # It must not stop the worker: scheduled runs continue.
                get_log().exception("listener failed", store=self._store.name)
            finally:
                if self._line is not None and time.monotonic() - self._connected_at >= _SETTLED:
                    self._lost_at = time.monotonic()
                self._line = self._obstacle = None
                self._measure(listening=False)
            pause = (
                _LEAST_PAUSE if time.monotonic() - began > LEASE_SECONDS else min(2 * pause, _LONGEST_PAUSE)
            )
            await asyncio.sleep(pause)

    async def _listen(self, line: ListenConnection) -> None:
        while (problem := await line.problem()) is not None:
            self._report(problem)
            self._obstacle = problem
            await line.wait_lost(_UNABLE)
        self._obstacle = None
        while not await line.take():
            await line.wait_lost(_STANDBY)
        session = ListenSession(line, self._store, self._context)
        await session.begin()
        get_log().info("listening", store=self._store.name, graphs=len(self._context.entries()))
        self._reported = None
        self._measure(listening=True)
        await session.run()

    def _measure(self, *, listening: bool) -> None:
        metrics.LISTENING.set(self._context.meter, float(listening), store=self._store.name)

    def _report(self, problem: str) -> None:
        """Log a problem: a warning the first time, repetitions at debug level."""
        log = get_log()
        write = log.debug if self._reported == problem else log.warning
        write("notification listener unavailable", store=self._store.name, problem=problem)
        self._reported = problem


_REFRESH: Final = 30.0
_ALONE: Final = 60.0


class Listening:
    """While entered, listens to all stores and starts runs through `runs`. Raises nothing."""

    def __init__(self, services: Services, runs: Runs, *, namespace: str) -> None:
        self._services = services
        self._namespace = namespace
        self._runs = runs
        self._directory = Directory(services.graphs.records)
        self._limiter = RateLimiter(services.settings.notify_runs_per_second)
        self._tasks: dict[str | None, asyncio.Task[None]] = {}
        self._listeners: dict[str | None, Listener] = {}
        self._alone: dict[str | None, float] = {}
        """Store -> when to give up waiting for a listener."""
        self._roused: dict[str | None, set[str]] = {}
        """Graphs that were run because their store has no listener."""
        self._opening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._opening = asyncio.create_task(self._open())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._opening, *self._tasks.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def silence(self, key: str | None) -> ListenerSilence | None:
        """Return that of a store's listener, from any thread; None if no graph needs one.

        A task that has ended without being asked to counts as lost for ever.
        """
        task, listener = self._tasks.get(key), self._listeners.get(key)
        for each in (self._opening, task):
            if each is not None and each.done():
                return ListenerSilence(math.inf, True, "its task has ended: restart this worker")
        return None if listener is None else listener.silence()

    async def _open(self) -> None:
        """Listen to every store, including stores that later records name."""
        while True:
            await self._directory.read(older_than=_REFRESH)
            for key in self._directory.stores:
                try:
                    if key not in self._tasks:
                        self._listeners[key] = self._listener(key)
                        self._tasks[key] = asyncio.create_task(self._listeners[key].run())
                    await self._rouse(key)
                except SynclineError as error:
                    get_log().debug("store cannot be checked", store=key, error=str(error))
            # While there are no graphs, read more often, so that the first is found soon.
            await asyncio.sleep(_REFRESH if self._tasks else 5.0)

    async def _rouse(self, key: str | None) -> None:
        """Run a store's adaptive graphs when it has lost its listener: each returns to its base interval.

        Once, until a worker listens again; a run that could not be started is retried next time.
        """
        adaptive = [
            graph
            for entry in self._directory.entries(key).values()
            for graph in entry
            if graph.schedule.adaptive
        ]
        store = self._services.store("write", key)
        if not adaptive or await listened_to(store, listener_name(self._namespace, self._services, store)):
            self._alone.pop(key, None)
            self._roused.pop(key, None)
            return
        now = time.monotonic()
        if now < self._alone.setdefault(key, now + _ALONE):
            return
        if key not in self._roused:
            get_log().warning("no listener: adaptive graphs reset", store=store.name, graphs=len(adaptive))
        roused = self._roused.setdefault(key, set())
        for graph in adaptive:
            if graph.slug in roused:
                continue
            await self._limiter.acquire()
            try:
                outcome = await self._runs.trigger(graph)
            except SynclineError as error:
                get_log().debug("adaptive graph not yet reset", graph=graph.slug, error=str(error))
                continue
            # When an operator resumes it, its Schedule is as slow as before.
            if outcome != "paused":
                roused.add(graph.slug)

    async def _visible_below(self, graph: Graph) -> int:
        target = self._services.target_schema(graph)
        async with target.store.driver() as connection:
            return int(await connection.fetchval(_sql("visible_below", schema=quoted(target.schema))))

    def _listener(self, key: str | None) -> Listener:
        store = self._services.store("write", key)
        name = listener_name(self._namespace, self._services, store)
        return Listener(
            store,
            key,
            name=name,
            directory=self._directory,
            limiter=self._limiter,
            runs=self._runs,
            meter=self._services.meter,
            retries=RetryWatch(self._services, self._runs, self._limiter),
            visible_below=self._visible_below,
        )
