"""The run of an activity: its identity, its fields in logs and spans, signals to it, runs that meet it."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.control.audit import Actor
from syncline.errors import TemporalUnavailable
from syncline.logs import get_log, log_fields
from syncline.messages.base import GraphRef, Message
from syncline.messages.provider_state import Fallback, Held, ProviderFallback, ProviderHeld, ProviderReturned
from syncline.messages.sync import CycleStatus, SyncCycleRequest, SyncResult
from syncline.provider import RunIdentity
from syncline.temporal.runs import run_at_work
from syncline.temporal.schedules.trigger import trigger_run
from syncline.tracing import annotate

__all__ = [
    "acting",
    "bind_fields",
    "run_identity",
    "run_is_over",
    "signal_fallback",
    "signal_held",
    "signal_returned",
    "signal_run",
    "trigger_next",
    "with_holder",
]

_UNNOTICED: Final = timedelta(seconds=20)
"""Time after which a heartbeating worker has noticed that its run was closed, by default."""
_NO_LETTER: Final = re.compile(r"[^0-9A-Za-z-]")


def run_identity() -> RunIdentity:
    """Return the run and attempt of this activity; RuntimeError outside a workflow."""
    info = activity.info()
    if info.workflow_id is None or info.workflow_run_id is None:
        raise RuntimeError("this activity needs a workflow and cannot be started directly")
    return RunIdentity(workflow_id=info.workflow_id, run_id=info.workflow_run_id, attempt=info.attempt)


def bind_fields(**fields: str) -> None:
    """Add the run and these fields to all further log lines of this activity, and to its span.

    An activity that was started without a workflow has no run.
    """
    run_id = activity.info().workflow_run_id
    fields = fields if run_id is None else {"run_id": run_id, **fields}
    log_fields(**fields)
    annotate(**fields)


async def acting(who: str, why: str) -> Actor:
    """Return the actor of an operation for the audit: the name they gave, and who started the run.

    Raise RPCError if Temporal does not answer: no action without an audit entry.
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
        # A server with authentication records the principal; otherwise only the client's identity is known.
        known = event.principal
        said = event.workflow_execution_started_event_attributes.identity
        starter = f"{known.type}:{known.name}" if known.name else said or None
    return Actor(who=who.strip(), why=why.strip(), starter=starter, run_id=run.run_id)


async def run_is_over(run_id: str) -> bool:
    """Return whether another run has been closed long enough that no attempt of it can still be working.

    A live worker learns it from its next heartbeat. False if Temporal does not know the run or does not
    answer: a dead attempt is then dealt with later.
    """
    if _NO_LETTER.search(run_id):
        return False
    unnoticed = activity.info().heartbeat_timeout or _UNNOTICED
    try:
        async for run in activity.client().list_workflows(f"RunId = '{run_id}'", limit=1):
            return run.close_time is not None and datetime.now(UTC) - run.close_time > unnoticed
    except RPCError as error:
        get_log().warning("cannot check whether a run is closed", asked_for=run_id, error=str(error))
    return False


async def signal_run(name: str, payload: Message) -> None:
    """Signal the run of this activity; ignored if it has been closed."""
    run = run_identity()
    handle = activity.client().get_workflow_handle(run.workflow_id, run_id=run.run_id)
    try:
        await handle.signal(name, payload)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


async def signal_fallback(graph: GraphRef, fallback: Fallback) -> None:
    """Signal the run that the built-in engine replaces the provider."""
    key = _key(fallback.reason.value)
    signal = ProviderFallback(idempotency_key=key, graph=graph, fallback=fallback, at=datetime.now(UTC))
    await signal_run(names.PROVIDER_FALLBACK, signal)


async def signal_held(graph: GraphRef, held: Held) -> None:
    """Signal the run that the graph is held and not synced."""
    signal = ProviderHeld(idempotency_key=_key("held"), graph=graph, held=held, at=datetime.now(UTC))
    await signal_run(names.PROVIDER_HELD, signal)


async def signal_returned(request: SyncCycleRequest, result: SyncResult) -> None:
    """Signal the run that a provider serves its graph again, if an outage has ended.

    Not after a failed cycle: the outage is carried on, and the first successful cycle signals its end. A
    signal that cannot be sent is only logged: the cycle is committed, and the run records the return itself.
    """
    if request.away is None or request.provider_id is None or result.status is CycleStatus.FAILED:
        return
    signal = ProviderReturned(
        idempotency_key=_key("returned"),
        graph=request.graph,
        provider_id=request.provider_id,
        served=result.served,
        away=request.away,
        at=datetime.now(UTC),
    )
    log = get_log().bind(was=request.away.how.value, since=request.away.since.isoformat())
    try:
        await signal_run(names.PROVIDER_RETURNED, signal)
    except RPCError as error:
        log.warning("return of the provider not signalled", error=str(error))
    log.info("provider returned")


def _key(edge: str) -> str:
    """Return the idempotency key of a signal: the activity id is the same for all attempts."""
    return f"{run_identity().run_id}/{activity.info().activity_id}/{edge}"


async def with_holder(request: SyncCycleRequest, result: SyncResult, *, run_id: str) -> SyncResult:
    """Return the result of a cycle that found the lock taken, with `unowned`, `blocked` and its lag set."""
    seen, unowned = request.seen_up_to, False
    try:
        at_work = await run_at_work(activity.client(), request.graph.slug, but=run_id)
        unowned = at_work is None
    except TemporalUnavailable as error:
        get_log().warning("open run could not be looked up", reason=str(error))
    lag = 0.0 if seen is None else max(0.0, (datetime.now(UTC) - seen).total_seconds())
    blocked = unowned and request.unowned_runs > 0
    if blocked:
        holder = result.holder
        get_log().warning(
            "graph blocked: its lock is taken and no run of it is open",
            runs=request.unowned_runs + 1,
            pid=None if holder is None else holder.pid,
        )
    return result.model_copy(
        update={"unowned": unowned, "blocked": blocked, "lag_seconds": lag, "lag_known": seen is not None}
    )


async def trigger_next(graph: str, *, task_queue: str) -> None:
    """Trigger the graph's Schedule: a run found the lock taken, and this cycle could not capture again."""
    try:
        outcome = await trigger_run(activity.client(), graph, task_queue=task_queue)
    except TemporalUnavailable as error:
        get_log().warning("owed run could not be triggered", reason=str(error))
    else:
        get_log().info("owed run triggered", schedule=outcome)
