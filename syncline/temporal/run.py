"""Manual runs: start a workflow, wait for its result, and translate its failure into an error."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import Priority, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError
from temporalio.service import RPCError

from syncline import errors
from syncline.errors import ConfigurationError, NoWorker, RunFailed, SynclineError
from syncline.temporal.client import GRAPH, temporal_errors_mapped
from syncline.temporal.priorities import BY_HAND
from syncline.temporal.stalls import TAKEN_WITHIN, Pending, StallKind, pending_of
from syncline.temporal.task_queues import pollers

__all__ = ["class_of", "execute_and_wait"]

_CODEC: Final = "it is encoded, and SYNCLINE_PAYLOAD_CODEC is not set here"
_LOOK_FOR_WORKER: Final = 3.0
"""Seconds that a starting worker may take to poll."""
_LOOK: Final = 2.0
"""Seconds between two checks of a run that has not ended."""

ResultT = TypeVar("ResultT", bound=BaseModel)


async def execute_and_wait(
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
    patience: float | None = None,
    report: Callable[[str], None] = lambda _: None,
    begun: Callable[[], None] = lambda: None,
) -> ResultT:
    """Start a workflow by its type name, wait for it, and return its result.

    `report` is called with a sentence if an attempt has failed and is retried, or no worker takes it; `begun`
    once the run has started. Cancelling the caller cancels the run. Raise ConfigurationError if the run
    failed with one; RunFailed if it failed otherwise, or has not ended within `seconds` (the server then
    times it out); NoWorker, without starting a run, if no worker polls the task queue; TemporalUnavailable.
    With `patience`, NoWorker too once the workers that polled it lately have not taken the run for so many
    seconds; it is then terminated.
    """
    with temporal_errors_mapped(client):
        await _require_worker(client, task_queue)
        handle: WorkflowHandle[object, ResultT] = await client.start_workflow(
            workflow,
            args=arguments,
            id=workflow_id,
            task_queue=task_queue,
            # The caller does not wait for longer.
            execution_timeout=timedelta(seconds=seconds),
            static_summary=summary[:200],
            search_attributes=TypedSearchAttributes(
                [] if graph is None else [SearchAttributePair(GRAPH, graph)]
            ),
            result_type=result_type,
            priority=priority,
        )
        begun()
        watch = _Watch(client, handle, report, patience)
        # The server times the run out; if that is not seen a little later, stop waiting.
        waiting = asyncio.timeout(seconds + 5)
        watching = asyncio.create_task(watch.look(waiting))
        try:
            async with waiting:
                return await handle.result()
        except asyncio.CancelledError:
            with contextlib.suppress(RPCError, TimeoutError):
                async with asyncio.timeout(5):
                    await handle.cancel()
                    report(f"Run {handle.id} is cancelled.")
            raise
        except WorkflowFailureError as error:
            raise _error_of(error, handle.id) or _late(handle.id, seconds, watch, task_queue) from error
        except TimeoutError as error:
            if watch.gone is not None:
                with contextlib.suppress(RPCError):
                    await handle.terminate("No worker has taken it, and nobody waits for it any more.")
                raise NoWorker(task_queue, client.namespace, last_poll=watch.gone) from None
            raise _late(handle.id, seconds, watch, task_queue) from error
        except (ValidationError, KeyError) as error:
            unlike = "the worker has another release" if isinstance(error, ValidationError) else _CODEC
            problem = f"its result cannot be decoded here: {unlike}"
            raise RunFailed(handle.id, f"Run {handle.id} has ended, but {problem}.") from error
        finally:
            watching.cancel()


async def _require_worker(client: Client, task_queue: str) -> None:
    """Raise NoWorker if no polling worker accepts new runs. A worker that died recently still counts."""
    deadline = time.monotonic() + _LOOK_FOR_WORKER
    while True:
        found = await pollers(client, task_queue)
        if any(one.takes_new_runs for one in found):
            return
        if time.monotonic() > deadline:
            raise NoWorker(task_queue, client.namespace, others=[one.version for one in found])
        await asyncio.sleep(0.3)


class _Watch:
    """Periodic check of an open run, to report why it has not ended."""

    def __init__(
        self,
        client: Client,
        handle: WorkflowHandle[object, ResultT],
        report: Callable[[str], None],
        patience: float | None,
    ) -> None:
        self._client = client
        self._handle = handle
        self._report = report
        self._patience = patience
        self.trouble: str | None = None
        self.gone: str | None = None
        """Why nobody waits any longer, in a sentence: no worker is left."""

    async def look(self, waiting: asyncio.Timeout) -> None:
        """Check until cancelled, or end the waiting because no worker is left."""
        last: object = None
        loop = asyncio.get_running_loop()
        patient_until = None if self._patience is None else loop.time() + max(self._patience, TAKEN_WITHIN)
        while True:
            await asyncio.sleep(_LOOK)
            pending = await pending_of(self._client, self._handle.id, self._handle.first_execution_run_id)
            self.trouble = _trouble(pending)
            # The same stall is reported once, although its duration changes.
            news = self.trouble if pending.stall is None else (pending.stall.kind, pending.stall.since)
            if self.trouble is not None and news != last:
                self._report(self.trouble)
            last = news
            stall = pending.stall
            if stall is None or stall.kind is not StallKind.NO_WORKER or patient_until is None:
                continue
            if loop.time() >= patient_until - _LOOK / 2:
                self.gone = stall.problem
                waiting.reschedule(loop.time())
                return


def _trouble(pending: Pending) -> str | None:
    """Return the failure that is retried, or the stall with its fix; None if there is none."""
    if pending.stall is not None:
        return f"{pending.stall.problem} {pending.stall.fix}"
    if pending.trying is not None and pending.trying.attempt > 1:
        return f"{pending.trying.problem.removesuffix('.')}; it is retried."
    return None


def _error_of(error: WorkflowFailureError, workflow_id: str) -> SynclineError | None:
    """Return the error of a failed run; None if it timed out."""
    for cause in _causes(error):
        if isinstance(cause, ApplicationError):
            kind = class_of(cause)
            if kind is None:
                problem = f"Run {workflow_id} failed: {cause.type}: {cause.message}"
                return RunFailed(workflow_id, problem)
            if issubclass(kind, ConfigurationError):
                return ConfigurationError(cause.message)
            return RunFailed(workflow_id, cause.message)
        if isinstance(cause, CancelledError | TerminatedError):
            stopped = "cancelled" if isinstance(cause, CancelledError) else "terminated"
            return RunFailed(workflow_id, f"Run {workflow_id} was {stopped}: {cause.message}.")
    return None


def class_of(error: ApplicationError) -> type[SynclineError] | None:
    """Return the SynclineError class that the activity's error was translated from, if any."""
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
