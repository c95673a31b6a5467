"""The activity that waits for what a transaction wrote; many run at once, on one listening connection."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.errors import errors_translated
from activities.heartbeat import Heartbeater
from activities.run import bind_fields
from syncline import names
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.messages.base import GraphStatus
from syncline.messages.visibility import Visibility, WaitVisibleInput
from syncline.stores.postgres import PostgresStore
from syncline.temporal.schedules.trigger import trigger_run
from syncline.visibility.waits import Waits

__all__ = ["VisibilityActivities"]

_BEAT: Final = 10.0


class VisibilityActivities:
    """Waits over one worker's services."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waits = Waits()

    @activity.defn(name=names.WAIT_VISIBLE_ACTIVITY)
    async def wait_visible(self, request: WaitVisibleInput) -> Visibility:
        """Wait until it is visible, and say so, or why it is not."""
        services = self._services
        bind_fields(graph=request.graph)
        with errors_translated(activity=names.WAIT_VISIBLE_ACTIVITY, graph=request.graph):
            async with Heartbeater[Visibility](beat_seconds=_BEAT):
                graph = await services.graphs.get(request.graph)
                waiting = self._waits.wait(
                    _WatchedGraph(services, graph),
                    request.token,
                    vectors=request.vectors,
                    seconds=_left(request.seconds),
                )
                return await _unless_worker_stops(waiting)


def _left(seconds: float) -> float:
    """Return what is left of the wait: another worker may have waited before."""
    info = activity.info()
    if info.attempt == 1:
        return seconds
    return max(0.0, seconds - (datetime.now(UTC) - info.scheduled_time).total_seconds())


async def _unless_worker_stops(waiting: Coroutine[object, object, Visibility]) -> Visibility:
    """Return what is waited for; raise as soon as the worker stops, so that another one continues."""
    wait = asyncio.create_task(waiting)
    stop = asyncio.create_task(activity.wait_for_worker_shutdown())
    try:
        await asyncio.wait((wait, stop), return_when=asyncio.FIRST_COMPLETED)
        if not wait.done():
            raise ApplicationError(
                "the worker stops", type="WorkerStops", category=ApplicationErrorCategory.BENIGN
            )
        return wait.result()
    finally:
        wait.cancel()
        stop.cancel()
        await asyncio.gather(wait, stop, return_exceptions=True)


@dataclass(frozen=True)
class _WatchedGraph:
    """A graph as those who wait for it see it."""

    services: Services
    graph: Graph

    @property
    def slug(self) -> str:
        return self.graph.slug

    @property
    def target(self) -> PostgresStore:
        return self.services.target_schema(self.graph).store

    @property
    def write(self) -> PostgresStore:
        return self.services.write_schema(self.graph).store

    @property
    def schema(self) -> str:
        return self.graph.schema_name

    @property
    def notified(self) -> bool:
        return self.graph.schedule.notify and self.services.settings.notify

    async def trigger(self) -> str:
        if self.graph.status is not GraphStatus.ACTIVE:
            return "paused"
        return await trigger_run(
            activity.client(), self.graph.slug, task_queue=self.services.settings.task_queue
        )
