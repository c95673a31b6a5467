"""Listening: an ear at every write-db that has a graph to be told of, for as long as a worker runs."""

import asyncio
import time
from types import TracebackType
from typing import Final, Self

from syncline import metrics
from syncline.capture.listen.connection import LEASE_SECONDS, ListenConnection
from syncline.capture.listen.directory import Directory
from syncline.capture.listen.session import ListenSession
from syncline.capture.listen.starter import RateLimiter, Runs
from syncline.capture.listen.status import listened_to, listener_name
from syncline.control.services import Services
from syncline.errors import SynclineError
from syncline.logs import get_log
from syncline.provider import Meter
from syncline.stores.postgres import PostgresStore

__all__ = ["Listener", "Listening", "Runs"]

_STANDBY: Final = 3.0
_UNABLE: Final = 30.0
_LEAST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0


class Listener:
    """One store's listener. `name` is the same for all workers that take turns at it."""

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
    ) -> None:
        self._store = store
        self._key = key
        self._name = name
        self._directory = directory
        self._limiter = limiter
        self._runs = runs
        self._meter = meter
        self._reported: str | None = None

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
                    # The catalog's own operators, whatever schemas there are.
                    search_path="pg_catalog, pg_temp",
                ) as connection:
                    await self._listen(ListenConnection(connection, self._name))
            except SynclineError as error:
                self._report(str(error))
            except Exception:
                # It must not take the worker with it: what is run by schedule goes on.
                get_log().exception("the listener failed", store=self._store.name)
            finally:
                self._measure(listening=False)
            pause = (
                _LEAST_PAUSE if time.monotonic() - began > LEASE_SECONDS else min(2 * pause, _LONGEST_PAUSE)
            )
            await asyncio.sleep(pause)

    async def _listen(self, line: ListenConnection) -> None:
        while (problem := await line.problem()) is not None:
            self._report(problem)
            await line.wait_lost(_UNABLE)
        while not await line.take():
            await line.wait_lost(_STANDBY)
        session = ListenSession(
            line,
            self._store,
            self._key,
            directory=self._directory,
            limiter=self._limiter,
            runs=self._runs,
            meter=self._meter,
            report=self._report,
        )
        await session.begin()
        get_log().info("listening", store=self._store.name, graphs=len(self._directory.entries(self._key)))
        self._reported = None
        self._measure(listening=True)
        await session.run()

    def _measure(self, *, listening: bool) -> None:
        metrics.LISTENING.set(self._meter, float(listening), store=self._store.name)

    def _report(self, problem: str) -> None:
        """Log what is wrong; the same again is told more quietly."""
        log = get_log()
        write = log.debug if self._reported == problem else log.warning
        write("notification listener unavailable", store=self._store.name, problem=problem)
        self._reported = problem


_REFRESH: Final = 30.0
_ALONE: Final = 60.0


class Listening:
    """Hears of changes and has `runs` start runs, while it is entered. Nothing that goes wrong is raised."""

    def __init__(self, services: Services, runs: Runs, *, namespace: str) -> None:
        self._services = services
        self._namespace = namespace
        self._runs = runs
        self._directory = Directory(services.graphs.records)
        self._limiter = RateLimiter(services.settings.notify_runs_per_second)
        self._tasks: dict[str | None, asyncio.Task[None]] = {}
        self._alone: dict[str | None, float] = {}
        """When it is time to do without a listener, for each store that has none."""
        self._roused: dict[str | None, set[str]] = {}
        """The graphs that have been run since nobody listens to their store."""
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

    async def _open(self) -> None:
        """Have an ear at every store, those that a record names later too."""
        while True:
            await self._directory.read(older_than=_REFRESH)
            for key in self._directory.stores:
                try:
                    if key not in self._tasks:
                        self._tasks[key] = asyncio.create_task(self._listener(key).run())
                    await self._rouse(key)
                except SynclineError as error:
                    get_log().debug("a store cannot be looked after", store=key, error=str(error))
            # Without a graph yet, the first is heard of soon.
            await asyncio.sleep(_REFRESH if self._tasks else 5.0)

    async def _rouse(self, key: str | None) -> None:
        """Run the adaptive graphs of a store that nobody listens to any more: each goes back to its base.

        Once, until somebody has listened again; what could not be started is tried again next time.
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
            get_log().warning(
                "no listener: adaptive graphs return to their shortest interval",
                store=store.name,
                graphs=len(adaptive),
            )
        roused = self._roused.setdefault(key, set())
        for graph in adaptive:
            if graph.slug in roused:
                continue
            await self._limiter.acquire()
            try:
                outcome = await self._runs.trigger(graph)
            except SynclineError as error:
                get_log().debug("an adaptive graph does not go back yet", graph=graph.slug, error=str(error))
                continue
            # An operator who resumes it finds its Schedule as slow as it was.
            if outcome != "paused":
                roused.add(graph.slug)

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
        )
