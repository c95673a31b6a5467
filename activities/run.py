"""The run that an activity belongs to: who it is, what lines and spans tell of it, and signals to it."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.service import RPCError, RPCStatusCode

from syncline.graph_audit import Actor
from syncline.logs import get_log, log_fields
from syncline.messages import Message
from syncline.provider import RunIdentity
from syncline.tracing import annotate

__all__ = ["acting", "run_identity", "run_is_over", "signal_run", "tell"]

_UNNOTICED: Final = timedelta(seconds=20)
"""For so long a worker that beats may not have noticed that its run was closed, if nothing says otherwise."""
_NO_LETTER: Final = re.compile(r"[^0-9A-Za-z-]")


def run_identity() -> RunIdentity:
    """Return whose activity this is."""
    info = activity.info()
    if info.workflow_id is None or info.workflow_run_id is None:
        raise RuntimeError("this activity belongs to a workflow and cannot run on its own")
    return RunIdentity(workflow_id=info.workflow_id, run_id=info.workflow_run_id, attempt=info.attempt)


def tell(**fields: str) -> None:
    """Have every line that this activity logs from now on, and its span, tell the run and these fields."""
    fields = {"run_id": run_identity().run_id, **fields}
    log_fields(**fields)
    annotate(**fields)


async def acting(who: str, why: str) -> Actor:
    """Return who has this activity's run do something: whom they say to be, and who has started it.

    Raise RPCError if Temporal does not answer: nothing is done that nobody could be asked about.
    """
    run = run_identity()
    client = activity.client()
    request = GetWorkflowExecutionHistoryRequest(
        namespace=client.namespace,
        execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id),
        maximum_page_size=1,
    )
    answer = await client.workflow_service.get_workflow_execution_history(request)
    starter = None
    for event in answer.history.events[:1]:
        # A server that knows who its callers are says it; else there is what the caller says.
        known = event.principal
        said = event.workflow_execution_started_event_attributes.identity
        starter = f"{known.type}:{known.name}" if known.name else said or None
    return Actor(who=who.strip(), why=why.strip(), starter=starter, run_id=run.run_id)


async def run_is_over(run_id: str) -> bool:
    """Return whether another run has been closed for so long that no attempt of it is at work any more.

    A worker that lives is told by its next heartbeat. False if Temporal does not know the run, or does not
    answer: whatever is done about a dead attempt waits then.
    """
    if _NO_LETTER.search(run_id):
        return False
    unnoticed = activity.info().heartbeat_timeout or _UNNOTICED
    try:
        async for run in activity.client().list_workflows(f"RunId = '{run_id}'", limit=1):
            return run.close_time is not None and datetime.now(UTC) - run.close_time > unnoticed
    except RPCError as error:
        get_log().warning("could not ask whether a run is over", asked_for=run_id, error=str(error))
    return False


async def signal_run(name: str, payload: Message) -> None:
    """Signal the run; one that was closed meanwhile need not be told."""
    run = run_identity()
    handle = activity.client().get_workflow_handle(run.workflow_id, run_id=run.run_id)
    try:
        await handle.signal(name, payload)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
