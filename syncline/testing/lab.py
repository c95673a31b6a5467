"""A laboratory for runs of `SyncGraph`: graphs, providers and a worker of a test's own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker

from syncline import names
from syncline.control.graphs import Graph, draft_graph
from syncline.control.services import Services
from syncline.messages.sync import LONGEST_RUN, SyncGraphInput, SyncGraphResult, SyncState
from syncline.provider import SyncProvider

__all__ = ["Run", "SyncLab", "eventually"]

Run = WorkflowHandle[object, SyncGraphResult]
_SELDOM = 0.4


@dataclass(frozen=True, kw_only=True)
class SyncLab:
    """Runs of `SyncGraph` on a task queue of their own, over real services.

    `make_worker` gives the worker under test, and what is to run beside it; the library does not know the
    application that it is part of.
    """

    client: Client
    services: Services
    make_worker: Callable[[Client, Services], AbstractAsyncContextManager[Worker]]
    unique: Callable[[str], str]

    @property
    def task_queue(self) -> str:
        """The task queue of this laboratory alone."""
        return self.services.settings.task_queue

    async def add_graph(
        self, provider: SyncProvider | str | None = None, *, prepare: bool = False, **fields: object
    ) -> Graph:
        """Add a graph whose composition names `provider`, and register the provider unless it is an id.

        With `prepare` its stores are migrated, so that the built-in engine can sync it.
        """
        if provider is not None:
            provider_id = provider if isinstance(provider, str) else provider.id
            fields.setdefault("composition", {"sync": {"provider": provider_id}})
        if provider is not None and not isinstance(provider, str):
            self.services.registry.register("sync", provider, "lab 1.0")
        graph = await self.services.graphs.add(draft_graph({"slug": self.unique("graph"), **fields}))
        if prepare:
            await self.services.prepare_graph(graph)
        return graph

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        """Run a worker."""
        async with self.make_worker(self.client, self.services) as worker:
            yield worker

    async def start(self, graph: Graph | None, **fields: object) -> Run:
        """Start a run as an operator does, by names alone."""
        given = SyncGraphInput.model_validate({"graph": None if graph is None else graph.slug, **fields})
        return await self.client.start_workflow(
            names.SYNC_GRAPH,
            given,
            id=self.unique("run"),
            task_queue=self.task_queue,
            execution_timeout=LONGEST_RUN,
            result_type=SyncGraphResult,
        )

    async def run(self, graph: Graph | None, **fields: object) -> SyncGraphResult:
        """Start a run and return its result, or raise WorkflowFailureError."""
        handle = await self.start(graph, **fields)
        return await handle.result()

    async def state(self, run: Run) -> SyncState:
        """Return the answer to query `sync_state`."""
        return SyncState.model_validate(await run.query(names.SYNC_STATE))

    async def attributes(self, run: Run) -> dict[str, object]:
        """Return our search attributes of the run."""
        described = await run.describe()
        found = {pair.key.name: pair.value for pair in described.typed_search_attributes}
        return {name: found[name] for name in names.SEARCH_ATTRIBUTES if name in found}

    async def details(self, run: Run) -> str:
        """Return the current details, as the Web UI shows them."""
        metadata = await run.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
        return str(metadata.current_details)

    async def events(self, run: Run) -> list[str]:
        """Return the types of the run's history events, such as WORKFLOW_EXECUTION_SIGNALED."""
        history = await run.fetch_history()
        return [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events]

    async def failure(self, run: Run) -> ApplicationError:
        """Wait for the run to fail and return why: the error of its activity, or its own."""
        try:
            await run.result()
        except WorkflowFailureError as failed:
            cause = failed.cause.cause if isinstance(failed.cause, ActivityError) else failed.cause
            if isinstance(cause, ApplicationError):
                return cause
            raise
        raise AssertionError(f"run {run.id} did not fail")


async def eventually(condition: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> None:
    """Return once the condition holds, or raise TimeoutError.

    It is asked ever more rarely, up to `_SELDOM`: to answer takes the servers a part of what is waited for.
    """
    pause = 0.02
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, _SELDOM)
