"""The run that an activity belongs to: who it is, what lines and spans tell of it, and signals to it."""

from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.service import RPCError, RPCStatusCode

from syncline.graph_audit import Actor
from syncline.logs import log_fields
from syncline.messages import Message
from syncline.provider import RunIdentity
from syncline.tracing import annotate

__all__ = ["acting", "run_identity", "signal_run", "tell"]


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


async def signal_run(name: str, payload: Message) -> None:
    """Signal the run; one that was closed meanwhile need not be told."""
    run = run_identity()
    handle = activity.client().get_workflow_handle(run.workflow_id, run_id=run.run_id)
    try:
        await handle.signal(name, payload)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
