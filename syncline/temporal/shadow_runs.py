"""Runs of a graph's shadow that no run of the graph has started."""

from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.messages.sync import LONGEST_RUN, SyncGraphInput
from syncline.temporal.client import GRAPH, temporal_errors_mapped
from syncline.temporal.priorities import WAITING

__all__ = ["ShadowRuns"]


class ShadowRuns:
    """The runs of one graph's shadow: one is open at a time. Its methods raise TemporalUnavailable."""

    def __init__(self, client: Client, slug: str, *, task_queue: str) -> None:
        self._client, self._slug, self._task_queue = client, slug, task_queue

    async def start(self) -> None:
        """Start one unless one is open, as the graph's runs do."""
        name = names.shadow_slug(self._slug)
        with temporal_errors_mapped(self._client):
            await self._client.start_workflow(
                names.SYNC_GRAPH,
                SyncGraphInput(graph=self._slug, shadow=True),
                id=names.shadow_workflow_id(self._slug),
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                execution_timeout=LONGEST_RUN,
                search_attributes=TypedSearchAttributes([SearchAttributePair(GRAPH, name)]),
                static_summary=f"Sync {name}"[:200],
                priority=WAITING,
            )

    async def stop(self) -> None:
        """Cancel the open one, if there is one: its cycle ends after the batch that it is at."""
        with temporal_errors_mapped(self._client):
            try:
                await self._client.get_workflow_handle(names.shadow_workflow_id(self._slug)).cancel()
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
