"""A run of `SyncGraph` whose worker is killed in the middle of the provider's cycle, from end to end."""

import asyncio
import json
import os
import signal
from collections.abc import Mapping

import asyncpg
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.application_folder import own_application
from syncline.control.graphs import draft_graph
from syncline.messages.sync import LONGEST_RUN, SyncGraphInput, SyncGraphResult
from syncline.testing.conformance.trial import DIMENSIONS, Process, Trial, connection
from syncline.testing.lab import Run
from syncline.testing.one_graph import SCHEMA, write
from syncline.testing.temporal_server import start_temporal
from syncline.testing.worker_process import WorkerProcess

__all__ = ["under_temporal"]

_QUEUE = "conformance"
_SECONDS = 60.0


async def under_temporal(trial: Trial) -> None:
    """Start a run by name, kill its worker in mid-cycle, and have another one finish it."""
    script = own_application().worker
    async with start_temporal() as temporal:
        client = temporal.client
        async with trial.process() as process:
            await _prepare(process)
            provider, connect = process.provider.id, process.graph.connect_target
        environment = _environment(trial, client)
        async with connection(connect) as holder, WorkerProcess.running(script, environment) as first:
            async with holder.transaction():
                await holder.execute(f"LOCK TABLE {trial.ground.locked}")
                await _ready(trial, first, provider)
                run = await client.start_workflow(
                    names.SYNC_GRAPH,
                    SyncGraphInput(graph=SCHEMA),
                    id="conformance",
                    task_queue=_QUEUE,
                    execution_timeout=LONGEST_RUN,
                    result_type=SyncGraphResult,
                )
                await _at_work(trial, run, holder, first)
                first.process.kill()
                await first.ended()
            async with WorkerProcess.running(script, environment) as second:
                await _ready(trial, second, provider)
                await _find_dead(client, run)
                result = await _result(trial, run, second)
                second.process.send_signal(signal.SIGTERM)
                await second.ended()
        attempts = await _attempts(run)
    if result.provider_id is None:
        trial.refuse("the provider to serve the run", "the built-in engine did")
    if attempts < 2 or not result.result.drained:
        seen = f"it ended after {attempts} attempts with status {result.result.status}"
        trial.refuse("a further attempt to drain the graph", seen)
    async with trial.process() as process:
        await process.equal("after a run whose worker had been killed in mid-cycle")


async def _prepare(process: Process) -> None:
    """Make the control plane, with one graph that names the provider, and write what is to be synced."""
    entry = {"provider": process.provider.id, "options": process.trial.subject.options, "on_missing": "fail"}
    await process.services.prepare_control()
    await process.services.graphs.add(draft_graph({"slug": SCHEMA, "composition": {"sync": entry}}))
    await write(process.graph, process.trial.ground.world)


def _environment(trial: Trial, client: Client) -> Mapping[str, str]:
    surroundings = {
        name: value for name, value in os.environ.items() if not name.startswith(("SYNCLINE_", "TEMPORAL_"))
    }
    return surroundings | {
        "SYNCLINE_WRITE_DSN": trial.write_dsn,
        "SYNCLINE_GRAPH_DSN": trial.target_dsn,
        "SYNCLINE_QDRANT_PATH": str(trial.folder / "qdrant"),
        "SYNCLINE_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
        "SYNCLINE_VECTOR_RETRY_SECONDS": "0",
        "SYNCLINE_TASK_QUEUE": _QUEUE,
        "SYNCLINE_LOG_FORMAT": "json",
        # The only run is the one that is started here.
        "SYNCLINE_RECONCILE_SECONDS": "86400",
        "SYNCLINE_NOTIFY": "false",
        "TEMPORAL_ADDRESS": client.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": client.namespace,
    }


async def _ready(trial: Trial, worker: WorkerProcess, provider: str) -> None:
    """Return once the worker serves, or refuse a provider that it has not found."""
    try:
        await worker.logs('"worker ready"')
    except AssertionError as error:
        trial.refuse("a worker to start", f"it said: {error}")
    lines = [json.loads(line) for line in worker.said.splitlines() if line.startswith("{")]
    [loaded] = [line["providers"] for line in lines if line.get("event") == "worker ready"]
    if provider not in loaded:
        left_out = [str(line["error"]) for line in lines if line.get("event") == "provider left out"]
        trial.refuse("a worker to find the provider", f"it has {loaded}; {'; '.join(left_out)}".rstrip("; "))


async def _at_work(trial: Trial, run: Run, holder: asyncpg.Connection, worker: WorkerProcess) -> None:
    """Return once the cycle waits for the table that is locked."""
    # Not pg_stat_activity, of which a transaction sees one and the same state.
    waits = "SELECT 1 FROM pg_locks WHERE relation = $1::text::regclass AND NOT granted"
    locked = trial.ground.locked
    deadline = asyncio.get_running_loop().time() + _SECONDS
    while not await holder.fetchval(waits, locked):
        status = (await run.describe()).status
        late = asyncio.get_running_loop().time() > deadline
        if late or status is not WorkflowExecutionStatus.RUNNING:
            seen = f"the run has not come to it; the worker said:\n{worker.said}"
            trial.refuse(f"a cycle to be at work on {locked}", seen)
        await asyncio.sleep(0.1)


async def _find_dead(client: Client, run: Run) -> None:
    """Tell Temporal that the attempt is dead, as it would find out when heartbeats are missed."""
    [cycle] = (await run.describe()).raw_description.pending_activities
    attempt = client.get_async_activity_handle(
        workflow_id=run.id, run_id=run.first_execution_run_id, activity_id=cycle.activity_id
    )
    try:
        await attempt.fail(ApplicationError("its worker was killed", type="WorkerKilled"))
    except RPCError as error:
        # On a slow machine it has found out already.
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


async def _result(trial: Trial, run: Run, worker: WorkerProcess) -> SyncGraphResult:
    try:
        async with asyncio.timeout(_SECONDS):
            return await run.result()
    except TimeoutError as error:
        seen = f"it was not done {_SECONDS:g} s later; the worker said:\n{worker.said}"
        trial.refuse("another worker to finish the run", seen, cause=error)
    except WorkflowFailureError as error:
        reason = error.cause.cause if isinstance(error.cause, ActivityError) else error.cause
        trial.refuse("another worker to finish the run", f"it failed: {reason}", cause=error)


async def _attempts(run: Run) -> int:
    """Return how often the run's last activity was started."""
    started = EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    history = await run.fetch_history()
    return max(
        event.activity_task_started_event_attributes.attempt
        for event in history.events
        if event.event_type == started
    )
