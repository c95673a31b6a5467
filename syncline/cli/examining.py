"""What `syncline doctor` looks at: Temporal, its workers and Schedules from here, the rest from a worker."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import Final
from uuid import uuid4

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from syncline import names
from syncline.cli.answers import Diagnosis
from syncline.cli.target import connect_temporal, find_task_queue
from syncline.control.schedule_spec import DueKind
from syncline.errors import ConfigurationError, NoWorker, RunFailed
from syncline.operator.graph_state import GraphHealth, Level
from syncline.operator.health.check import Check, CheckStatus, Health, bounded, skew_check
from syncline.quoting import counted
from syncline.temporal.client import require_search_attributes, temporal_errors_mapped
from syncline.temporal.overview import GraphOverview, overview
from syncline.temporal.run import execute_and_wait
from syncline.temporal.runs import quoted
from syncline.temporal.schedules.list import due_schedules
from syncline.temporal.stalled_runs import BlockedGraph, blocked_graphs, stalled_runs
from syncline.temporal.stalls import StallKind
from syncline.temporal.task_queues import Poller, live, pollers

__all__ = ["diagnose"]

_SECONDS: Final = 5.0
_RUNS_NAMED: Final = 5
_SCHEDULES_NAMED: Final = 10
_GRAPHS_NAMED: Final = 20
_GRAPHS_SECONDS: Final = 5.0
_TEMPORAL_FIX: Final = (
    "Start Temporal (`syncline dev` brings one), or correct TEMPORAL_ADDRESS, _NAMESPACE, _API_KEY, _TLS_* "
    "or _PROFILE."
)
_NAMES: Final = (
    "namespace",
    "search attributes",
    "task queue",
    "runs",
    "reconciler",
    "schedules",
    "graphs",
    "clock",
    "worker",
)


async def diagnose(seconds: float) -> Diagnosis:
    """Return all checks. Nothing is raised but what keeps this command itself from working."""
    client: Client | None = None

    async def reach() -> Sequence[Check]:
        nonlocal client
        reached = await connect_temporal(prepare=False)
        found = await _temporal(reached)
        client = reached
        return found

    checks = list(await bounded("temporal", _SECONDS, reach, fix=_TEMPORAL_FIX))
    if client is None:
        checks += [
            Check(name=name, status=CheckStatus.SKIP, found="Temporal cannot be asked") for name in _NAMES
        ]
        return _diagnosis(checks)
    task_queue = find_task_queue()
    looks: dict[str, tuple[Callable[[Client], Awaitable[Sequence[Check]]], str]] = {
        "namespace": (
            _namespace,
            "Create it (`temporal operator namespace create`), or correct TEMPORAL_NAMESPACE.",
        ),
        "search attributes": (_search_attributes, "See docs/temporal.md, Search attributes."),
        "task queue": (partial(_task_queue, task_queue=task_queue), _TEMPORAL_FIX),
        "runs": (partial(_runs, task_queue=task_queue), _TEMPORAL_FIX),
        "reconciler": (partial(_reconciler, task_queue=task_queue), _TEMPORAL_FIX),
        "schedules": (partial(_schedules, task_queue=task_queue), _TEMPORAL_FIX),
        "graphs": (
            partial(_graphs, task_queue=task_queue, seconds=min(seconds, _GRAPHS_SECONDS)),
            _TEMPORAL_FIX,
        ),
    }
    asked = [
        # A worker that does not answer is waited for a little longer than it has.
        bounded(
            name,
            _GRAPHS_SECONDS + 2 * _SECONDS if name == "graphs" else _SECONDS,
            partial(look, client),
            fix=fix,
        )
        for name, (look, fix) in looks.items()
    ]
    worker = partial(_worker, client, task_queue, seconds)
    # Longer than the question: it says itself that nobody answers.
    asked.append(bounded("worker", seconds + 5, worker, fix=_TEMPORAL_FIX))
    seen = await asyncio.gather(*asked)
    return _diagnosis([*checks, *(check for found in seen for check in found)])


def _diagnosis(checks: Sequence[Check]) -> Diagnosis:
    well = all(check.status is not CheckStatus.FAIL for check in checks)
    return Diagnosis(well=well, checks=tuple(checks))


async def _temporal(client: Client) -> Sequence[Check]:
    with temporal_errors_mapped(client):
        info = await client.workflow_service.get_system_info(GetSystemInfoRequest())
    config = client.service_client.config
    found = f"server {info.server_version} at {config.target_host}; Syncline {version('syncline')} here"
    return [Check(name="temporal", found=found)]


async def _namespace(client: Client) -> Sequence[Check]:
    with temporal_errors_mapped(client):
        described = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace)
        )
    days = described.config.workflow_execution_retention_ttl.ToTimedelta() / timedelta(days=1)
    kept = "1 day" if days == 1 else f"{days:g} days"
    return [Check(name="namespace", found=f"{client.namespace}, which keeps closed runs for {kept}")]


async def _search_attributes(client: Client) -> Sequence[Check]:
    name = "search attributes"
    try:
        await require_search_attributes(client)
    except ConfigurationError as error:
        return [Check(name=name, status=CheckStatus.FAIL, found=error.problem.rstrip("."), fix=error.fix)]
    return [Check(name=name, found=f"all {len(names.SEARCH_ATTRIBUTES)} are there, with their types")]


async def _task_queue(client: Client, *, task_queue: str) -> Sequence[Check]:
    with temporal_errors_mapped(client):
        found = await pollers(client, task_queue)
    told = ", ".join(map(_poller, found))
    if not live(found):
        none = NoWorker(task_queue, client.namespace)
        lately = f"; gone are {told}" if found else ""
        return [
            Check(name="task queue", status=CheckStatus.FAIL, found=f"{none.problem}{lately}", fix=none.fix)
        ]
    if not any(poller.takes_new_runs for poller in found):
        latest = max(found, key=lambda poller: poller.seen_at)
        deployment, _, build = (latest.version or "").partition(":")
        which = f"--deployment-name {deployment} --build-id {build}" if deployment else "--unversioned"
        return [
            Check(
                name="task queue",
                status=CheckStatus.FAIL,
                found=f"{task_queue} is polled by {told}: new runs go to none of these versions, and wait",
                fix=f"temporal worker deployment set-current-version {which} (see docs/deployment.md).",
            )
        ]
    return [
        Check(name="task queue", found=f"{task_queue} is polled by {told}"),
        *await _beside(client, task_queue),
    ]


def _poller(found: Poller) -> str:
    version = f"{found.version}, " if found.version else ""
    return f"{found.identity} ({version}seen {found.seen_at:%H:%M:%S}Z)"


async def _beside(client: Client, task_queue: str) -> Sequence[Check]:
    """Return a check of each queue of activities that no worker polls though the main one is polled."""
    queues = (task_queue, names.operations_task_queue(task_queue), names.schedules_task_queue(task_queue))
    polled = await asyncio.gather(*(pollers(client, name, activities=True) for name in queues))
    return [
        Check(
            name=f"task queue: {name.removeprefix(task_queue).strip('/') or 'cycles'}",
            status=CheckStatus.WARN,
            found=f"nobody polled {name} for activities in five minutes: all are busy, or none serves it",
            fix="`temporal task-queue describe --task-queue " + name + "`; start one more worker.",
        )
        for name, found in zip(queues, polled, strict=True)
        if not found
    ]


async def _runs(client: Client, *, task_queue: str) -> Sequence[Check]:
    """Look at the open runs of every type on the task queue that cannot continue."""
    found = await stalled_runs(client, task_queue)
    by_kind = {kind: [one for one in found.stalled if one.stall.kind is kind] for kind in StallKind}
    bad = [*by_kind[StallKind.TASK_FAILS], *by_kind[StallKind.NO_WORKER]]
    halted, busy_runs = by_kind[StallKind.HALTED], by_kind[StallKind.NOT_TAKEN]
    if not bad and halted:
        first = halted[0]
        told = f"an operator holds up {counted(len(halted), 'open run')}. {first.workflow_id}: "
        return [
            Check(name="runs", status=CheckStatus.WARN, found=told + first.stall.problem, fix=first.stall.fix)
        ]
    if not bad:
        busy = f", and {len(busy_runs)} of them wait for a free worker" if busy_runs else ""
        return [Check(name="runs", found=f"{found.open:,} open on {task_queue}{busy}")]
    named = " ".join(f"{one.workflow_id}: {one.stall.problem}" for one in bad[:_RUNS_NAMED])
    more = f" And {len(bad) - _RUNS_NAMED:,} more." if len(bad) > _RUNS_NAMED else ""
    count = f"{counted(len(bad), 'open run')} cannot continue"
    return [
        Check(name="runs", status=CheckStatus.FAIL, found=f"{count}. {named}{more}", fix=bad[0].stall.fix)
    ]


async def _reconciler(client: Client, *, task_queue: str) -> Sequence[Check]:
    schedule_id = names.reconcile_schedules_id(task_queue)
    name = "reconciler"
    handle = client.get_schedule_handle(schedule_id)
    with temporal_errors_mapped(client):
        try:
            described = await handle.describe()
        except RPCError:
            return [
                Check(
                    name=name,
                    status=CheckStatus.FAIL,
                    found=f"there is no Schedule '{schedule_id}': new and changed graphs wait",
                    fix="Start a worker: each makes sure of it when it starts.",
                )
            ]
        query = f"TemporalScheduledById={quoted(schedule_id)} AND CloseTime IS NOT NULL"
        last = [run async for run in client.list_workflows(query, limit=1)]
    if described.schedule.state.paused:
        note = described.schedule.state.note or "no reason given"
        return [
            Check(
                name=name,
                status=CheckStatus.WARN,
                found=f"it is paused ({note}): new and changed graphs wait",
                fix=f"temporal schedule toggle --schedule-id {schedule_id} --unpause --reason …",
            )
        ]
    if not last:
        return [Check(name=name, found=f"{schedule_id} is there; it has not run yet")]
    [run] = last
    ended = f"{run.close_time:%Y-%m-%d %H:%M:%S}Z"
    if run.status is WorkflowExecutionStatus.COMPLETED:
        return [Check(name=name, found=f"its last run completed at {ended}")]
    status = "ended" if run.status is None else run.status.name.lower()
    return [
        Check(
            name=name,
            status=CheckStatus.FAIL,
            found=f"its last run {status} at {ended}: new and changed graphs wait",
            fix=f"temporal workflow show --workflow-id '{run.id}' says why; `syncline schedule reconcile`.",
        )
    ]


async def _schedules(client: Client, *, task_queue: str) -> Sequence[Check]:
    """Return a check of each Schedule on the task queue that never comes again, or all too often."""
    found = await due_schedules(client, task_queue=task_queue)
    if not found.problems:
        return [
            Check(
                name="schedules", found=f"{found.listed:,} listed; each that is not paused comes as it should"
            )
        ]
    checks = [
        Check(
            name=f"schedule {schedule_id}",
            status=CheckStatus.FAIL if due.kind is DueKind.NEVER else CheckStatus.WARN,
            found=due.problem,
            fix=due.fix,
        )
        for schedule_id, due in found.problems[:_SCHEDULES_NAMED]
    ]
    more = len(found.problems) - len(checks)
    if more > 0:
        checks.append(
            Check(
                name="schedules",
                status=CheckStatus.WARN,
                found=f"{more:,} more come all too often, or not as they should",
                fix="`syncline status` names those of graphs.",
            )
        )
    return checks


async def _graphs(client: Client, *, task_queue: str, seconds: float) -> Sequence[Check]:
    """Return a check for each graph on the task queue that is not well, as `syncline status` has it.

    Of one that is blocked, the session that has its lock is named. Without a worker, nothing is known of
    graphs: that is another check's failure.
    """
    found, blocked = await asyncio.gather(
        overview(client, task_queue=task_queue, seconds=seconds), blocked_graphs(client)
    )
    holders = {graph.graph: graph for graph in blocked}
    # Of another task queue's graphs this control plane has no record.
    mine = [graph for graph in found if graph.numbers is not None or graph.graph in holders]
    if not mine and found:
        unread = "no worker has said what waits; see the check of worker"
        return [Check(name="graphs", status=CheckStatus.SKIP, found=unread)]
    if not mine:
        return [Check(name="graphs", found="there is none")]
    unwell = [graph for graph in mine if graph.level is not Level.GREEN or graph.graph in holders]
    if not unwell:
        return [Check(name="graphs", found=f"{counted(len(mine), 'graph')}, each well, paused or archived")]
    checks = [_of_graph(graph, holders.get(graph.graph)) for graph in unwell[:_GRAPHS_NAMED]]
    more = len(unwell) - len(checks)
    if more:
        reds = any(graph.level is Level.RED for graph in unwell[_GRAPHS_NAMED:])
        checks.append(
            Check(
                name="graphs",
                status=CheckStatus.FAIL if reds else CheckStatus.WARN,
                found=f"{counted(more, 'more graph')} not well",
                fix="`syncline status` names them.",
            )
        )
    return checks


def _of_graph(graph: GraphOverview, holder: BlockedGraph | None) -> Check:
    name = f"graph {graph.graph}"
    if holder is not None and (graph.standing is GraphHealth.BLOCKED or graph.level is Level.GREEN):
        return Check(name=name, status=CheckStatus.FAIL, found=_held(holder), fix=_free(holder))
    worst = graph.findings[0]
    status = CheckStatus.FAIL if graph.level is Level.RED else CheckStatus.WARN
    told = "; ".join(finding.reason for finding in graph.findings)
    shown = worst.next or f"syncline status {graph.graph}"
    return Check(name=name, status=status, found=f"{graph.standing}: {told}", fix=f"`{shown}`")


def _held(graph: BlockedGraph) -> str:
    since = "" if graph.since is None else f" since {graph.since:%Y-%m-%d %H:%M:%S} UTC"
    runs = f", {counted(graph.runs, 'run')} in a row" if graph.runs else ""
    found = f"it is blocked{since}{runs}: its lock is taken, no run of it is open, and nothing is synced"
    holder = graph.holder
    if holder is None:
        return found
    connected = "" if holder.since is None else f", connected {holder.since:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"{found}. Pid {holder.pid} of the graph-db has it, role {holder.role or 'unknown'} "
        f"(application {holder.application_name or 'unnamed'}{connected})"
    )


def _free(graph: BlockedGraph) -> str:
    pid = "…" if graph.holder is None or graph.holder.pid is None else str(graph.holder.pid)
    return f"On its graph-db: SELECT pg_terminate_backend({pid}); then `syncline sync {graph.graph}`."


async def _worker(client: Client, task_queue: str, seconds: float) -> Sequence[Check]:
    """Have a worker look. Its run also tells the server's clock, whatever becomes of it."""
    workflow_id = f"describe-health/{uuid4().hex[:8]}"
    before = datetime.now(UTC)
    after: list[datetime] = []
    checks: Sequence[Check]
    try:
        health = await execute_and_wait(
            client,
            names.DESCRIBE_HEALTH,
            Health,
            workflow_id=workflow_id,
            task_queue=task_queue,
            seconds=seconds,
            summary="Look at stores, migrations, services and clocks",
            begun=lambda: after.append(datetime.now(UTC)),
        )
        checks = health.checks
    except (NoWorker, RunFailed) as error:
        checks = [
            Check(
                name="worker",
                status=CheckStatus.FAIL,
                found=f"stores, migrations and services were not looked at. {error}",
                fix="Start a worker, or look into its log: it says why it cannot start or answer.",
            )
        ]
    if not after:
        skipped = Check(name="clock", status=CheckStatus.SKIP, found="no run began whose start would tell")
        return [skipped, *checks]
    with temporal_errors_mapped(client):
        began = (await client.get_workflow_handle(workflow_id).describe()).start_time
    # Where our clock stood when the server began the run is between what it was before and after.
    clock = skew_check("clock", before - began, after[0] - began, whose="this machine or Temporal's server")
    return [clock, *checks]
