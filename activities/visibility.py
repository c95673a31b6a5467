"""The activity that waits for what a transaction wrote; many run at once, on one listening connection."""

from dataclasses import dataclass
from typing import Final

from temporalio import activity

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
                watched = _WatchedGraph(services, graph)
                return await self._waits.wait(
                    watched, request.token, vectors=request.vectors, seconds=request.seconds
                )


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
