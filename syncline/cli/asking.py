"""How a command has a worker answer: a small workflow is started by name, and its result awaited."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from uuid import uuid4

from pydantic import BaseModel
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError
from temporalio.exceptions import TimeoutError as RunTimeout
from temporalio.service import RPCError

from syncline.client import temporal_errors_mapped
from syncline.errors import QuestionUnanswered

__all__ = ["Poller", "answer_of", "ask", "begin", "nobody_polls", "pollers"]

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_PATIENCE: Final = 1.5
"""Seconds without an answer after which it is looked whether there is anybody to give one."""


class Poller(BaseModel):
    """A process that asks for work on a task queue."""

    identity: str
    seen_at: datetime


async def ask(
    client: Client,
    workflow: str,
    answer: type[AnswerT],
    *,
    task_queue: str,
    seconds: float,
    argument: BaseModel | None = None,
) -> AnswerT:
    """Start the workflow and return its result, or raise as `begin` and `answer_of` do."""
    handle = await begin(client, workflow, answer, task_queue=task_queue, seconds=seconds, argument=argument)
    return await answer_of(client, workflow, handle, task_queue=task_queue, seconds=seconds)


async def begin(
    client: Client,
    workflow: str,
    answer: type[AnswerT],
    *,
    task_queue: str,
    seconds: float,
    argument: BaseModel | None = None,
) -> WorkflowHandle[object, AnswerT]:
    """Start the workflow, or raise TemporalUnavailable. It ends by itself when nobody waits any longer."""
    with temporal_errors_mapped(client):
        return await client.start_workflow(
            workflow,
            *(() if argument is None else (argument,)),
            id=f"{task_queue}/{workflow}-{uuid4()}",
            task_queue=task_queue,
            execution_timeout=timedelta(seconds=seconds),
            result_type=answer,
        )


async def answer_of(
    client: Client,
    workflow: str,
    handle: WorkflowHandle[object, AnswerT],
    *,
    task_queue: str,
    seconds: float,
) -> AnswerT:
    """Return the workflow's result.

    Raise QuestionUnanswered if it fails, if it has not ended within these seconds, or, after a moment, if no
    worker polls the task queue; TemporalUnavailable if Temporal does not answer.
    """
    with temporal_errors_mapped(client):
        waiting = asyncio.create_task(handle.result())
        try:
            done, _ = await asyncio.wait({waiting}, timeout=min(_PATIENCE, seconds))
            if not done and not await pollers(client, task_queue):
                with suppress(RPCError):  # it has ended meanwhile
                    await handle.terminate(reason="no worker polls its task queue")
                raise QuestionUnanswered(workflow, nobody_polls(task_queue))
            # The server ends the run by itself; a little later, it has been lost from sight.
            async with asyncio.timeout(seconds + 2):
                return await waiting
        except (WorkflowFailureError, TimeoutError) as error:
            raise QuestionUnanswered(workflow, _problem(error, task_queue, seconds)) from error
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def pollers(client: Client, task_queue: str) -> Sequence[Poller]:
    """Return who polls the task queue for workflow tasks, or did so in the last five minutes, by identity."""
    described = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    found = [
        Poller(identity=poller.identity, seen_at=poller.last_access_time.ToDatetime(tzinfo=UTC))
        for poller in described.pollers
    ]
    return sorted(found, key=lambda poller: poller.identity)


def nobody_polls(task_queue: str) -> str:
    """Return what is wrong, and what to do about it."""
    return (
        f"no worker polls task queue '{task_queue}'. Start one (`python worker.py`), or set "
        "SYNCLINE_TASK_QUEUE to the queue that the workers poll."
    )


def _problem(error: BaseException, task_queue: str, seconds: float) -> str:
    cause = error.cause if isinstance(error, WorkflowFailureError) else error
    if isinstance(cause, ActivityError) and cause.cause is not None:
        cause = cause.cause
    if isinstance(cause, RunTimeout | TimeoutError):
        return f"no worker on task queue '{task_queue}' answered within {seconds:g} s."
    return str(getattr(cause, "message", None) or cause)
