"""Runs by hand: a workflow started, waited for, and told in a sentence when it does not end well."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from temporalio.api.deployment.v1 import WorkerDeploymentOptions, WorkerDeploymentVersion
from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeWorkflowExecutionResponse
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import Priority, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError
from temporalio.service import RPCError

from syncline import errors
from syncline.client import temporal_errors_mapped
from syncline.errors import ConfigurationError, NoWorker, RunFailed, SynclineError
from syncline.priorities import BY_HAND
from syncline.search_attributes import GRAPH

__all__ = ["Poller", "pollers", "run_by_hand"]

_LOOK_FOR_WORKER: Final = 3.0
"""Seconds that a worker which is starting may take to appear."""
_LOOK: Final = 2.0
"""Seconds between looks at a run that has not ended."""

ResultT = TypeVar("ResultT", bound=BaseModel)


class Poller(BaseModel):
    """A process that asks for work on a task queue."""

    identity: str
    seen_at: datetime
    version: str | None = None
    """`deployment:build`; None of a worker without a version."""
    takes_new_runs: bool = True
    """Whether new runs go to workers of its version."""


async def run_by_hand(
    client: Client,
    workflow: str,
    result_type: type[ResultT],
    *arguments: BaseModel,
    workflow_id: str,
    task_queue: str,
    seconds: float,
    summary: str,
    graph: str | None = None,
    priority: Priority = BY_HAND,
    tell: Callable[[str], None] = lambda _: None,
    begun: Callable[[], None] = lambda: None,
) -> ResultT:
    """Start a workflow by its name, wait for it, and return its result.

    `tell` gets a sentence when a try has failed and is repeated, or nobody takes it up; `begun` is called
    once the run is there. Whoever is cancelled while waiting here cancels the run. Raise ConfigurationError
    if the run failed by one, RunFailed if it failed otherwise or has not ended within these seconds (the
    server then ends it); NoWorker, soon and with nothing started, if nobody polls the task queue;
    TemporalUnavailable.
    """
    with temporal_errors_mapped(client):
        await _require_worker(client, task_queue)
        handle: WorkflowHandle[object, ResultT] = await client.start_workflow(
            workflow,
            args=arguments,
            id=workflow_id,
            task_queue=task_queue,
            # Nobody waits for it any longer.
            execution_timeout=timedelta(seconds=seconds),
            static_summary=summary[:200],
            search_attributes=TypedSearchAttributes(
                [] if graph is None else [SearchAttributePair(GRAPH, graph)]
            ),
            result_type=result_type,
            priority=priority,
        )
        begun()
        watch = _Watch(handle, tell)
        watching = asyncio.create_task(watch.look())
        try:
            # The server ends the run by itself; a little later, it has been lost from sight.
            async with asyncio.timeout(seconds + 5):
                return await handle.result()
        except asyncio.CancelledError:
            with contextlib.suppress(RPCError, TimeoutError):
                async with asyncio.timeout(5):
                    await handle.cancel()
                    tell(f"Run {handle.id} is cancelled.")
            raise
        except WorkflowFailureError as error:
            raise _told(error, handle.id) or _late(handle.id, seconds, watch, task_queue) from error
        except TimeoutError as error:
            raise _late(handle.id, seconds, watch, task_queue) from error
        except ValidationError as error:
            problem = "its result is not understood here: the worker is of another release"
            raise RunFailed(handle.id, f"Run {handle.id} has ended, but {problem}.") from error
        finally:
            watching.cancel()


async def pollers(client: Client, task_queue: str) -> Sequence[Poller]:
    """Return who polls the task queue for workflow tasks, or did so in the last five minutes, by identity."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    with temporal_errors_mapped(client):
        described = await client.workflow_service.describe_task_queue(request)
    routing = described.versioning_info
    taking = {_version(routing.current_deployment_version)}
    if routing.ramping_version_percentage:
        taking.add(_version(routing.ramping_deployment_version))
    found = []
    for poller in described.pollers:
        version = _version(poller.deployment_options)
        found.append(
            Poller(
                identity=poller.identity,
                seen_at=poller.last_access_time.ToDatetime(tzinfo=UTC),
                version=version,
                takes_new_runs=version in taking,
            )
        )
    return sorted(found, key=lambda poller: poller.identity)


def _version(told: WorkerDeploymentOptions | WorkerDeploymentVersion) -> str | None:
    """Return `deployment:build`; None of workers without Worker Versioning, who tell a build all the same."""
    return f"{told.deployment_name}:{told.build_id}" if told.deployment_name else None


async def _require_worker(client: Client, task_queue: str) -> None:
    """Raise NoWorker if nobody polls the queue. One that died within minutes still counts."""
    deadline = time.monotonic() + _LOOK_FOR_WORKER
    while not await pollers(client, task_queue):
        if time.monotonic() > deadline:
            raise NoWorker(task_queue, client.namespace)
        await asyncio.sleep(0.3)


class _Watch:
    """Looks at a run now and then, to say why it has not ended."""

    def __init__(self, handle: WorkflowHandle[object, ResultT], tell: Callable[[str], None]) -> None:
        self._handle = handle
        self._tell = tell
        self.trouble: str | None = None

    async def look(self) -> None:
        """Look until cancelled."""
        again = False
        while True:
            await asyncio.sleep(_LOOK)
            try:
                run = (await self._handle.describe()).raw_description
            except RPCError:
                continue  # whoever waits for the result is told
            # What was not taken up at one look may be on its way.
            trouble = _failure(run) or (_wait(run) if again else None)
            if trouble is not None and trouble != self.trouble:
                self._tell(trouble)
            self.trouble, again = trouble, True


def _failure(run: DescribeWorkflowExecutionResponse) -> str | None:
    """Return what has failed and is tried again."""
    for pending in run.pending_activities:
        if pending.attempt > 1 and pending.last_failure.message:
            return f"{pending.last_failure.message.removesuffix('.')}; it is tried again."
    if run.pending_workflow_task.attempt > 1:
        return "No worker gets through its first step: are they of this release? Their logs say more."
    return None


def _wait(run: DescribeWorkflowExecutionResponse) -> str | None:
    """Return what nobody has taken up yet."""
    if run.pending_workflow_task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED:
        return "No worker has taken it up yet; one that polled lately may be gone."
    waiting = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    if any(pending.state == waiting for pending in run.pending_activities):
        return "It waits for a worker that is free."
    return None


def _told(error: WorkflowFailureError, workflow_id: str) -> SynclineError | None:
    """Return what a run ended by, None if it was not given the time."""
    for cause in _causes(error):
        if isinstance(cause, ApplicationError):
            kind = _class_of(cause)
            if kind is None:
                problem = f"Run {workflow_id} failed: {cause.type}: {cause.message}"
                return RunFailed(workflow_id, problem)
            if issubclass(kind, ConfigurationError):
                return ConfigurationError(cause.message)
            return RunFailed(workflow_id, cause.message)
        if isinstance(cause, CancelledError | TerminatedError):
            stopped = "cancelled" if isinstance(cause, CancelledError) else "terminated"
            return RunFailed(workflow_id, f"Run {workflow_id} was {stopped} by somebody: {cause.message}.")
    return None


def _class_of(error: ApplicationError) -> type[SynclineError] | None:
    """Return the class of ours that the activity's error was translated from, if it was."""
    kind: object = getattr(errors, error.type or "", None)
    return kind if isinstance(kind, type) and issubclass(kind, SynclineError) else None


def _causes(error: WorkflowFailureError) -> Iterator[BaseException]:
    cause: BaseException | None = error.cause
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _late(workflow_id: str, seconds: float, watch: _Watch, task_queue: str) -> RunFailed:
    why = watch.trouble or f"Is a worker running on task queue '{task_queue}'?"
    return RunFailed(workflow_id, f"Run {workflow_id} did not end within {seconds:g} s. {why}")
