"""Listening: an ear at every write-db that has a graph to be told of, for as long as a worker runs."""

import asyncio
from types import TracebackType
from typing import Final, Self

from syncline.errors import SynclineError
from syncline.freshness.attention import Wake
from syncline.freshness.directory import Directory
from syncline.freshness.ear import Ear
from syncline.freshness.hearing import line_name
from syncline.freshness.pace import Pace
from syncline.logs import get_log
from syncline.services import Services

__all__ = ["Listening", "Wake"]

_REFRESH: Final = 30.0


class Listening:
    """Hears of changes and has `wake` start runs, while it is entered. Nothing that goes wrong is raised."""

    def __init__(self, services: Services, wake: Wake, *, namespace: str) -> None:
        self._services = services
        self._namespace = namespace
        self._wake = wake
        self._directory = Directory(services.graphs.records)
        self._pace = Pace(services.settings.notify_runs_per_second)
        self._tasks: dict[str | None, asyncio.Task[None]] = {}
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
            for key in self._directory.stores - self._tasks.keys():
                try:
                    self._tasks[key] = asyncio.create_task(self._ear(key).run())
                except SynclineError as error:
                    get_log().debug("a store cannot be listened to", store=key, error=str(error))
            # Without a graph yet, the first is heard of soon.
            await asyncio.sleep(_REFRESH if self._tasks else 5.0)

    def _ear(self, key: str | None) -> Ear:
        store = self._services.store("write", key)
        name = line_name(self._namespace, self._services.settings.task_queue, store.name)
        return Ear(store, key, name=name, directory=self._directory, pace=self._pace, wake=self._wake)
