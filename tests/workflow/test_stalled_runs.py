"""Runs that cannot continue, on the real server: changed workflow code, an unknown type, no worker."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowHandle
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    VersioningBehavior,
    WorkerDeploymentVersion,
)
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig

from syncline import names
from syncline.control.graphs import Graph
from syncline.messages.sync import SyncGraphInput, SyncResult
from syncline.provider import SyncContext
from syncline.temporal.client import GRAPH
from syncline.temporal.task_queues import pollers
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from tests.kit.command_line import CommandLine

NON_DETERMINISM = "non deterministic error"


@workflow.defn(name=names.SYNC_GRAPH, sandboxed=False)
class Waiting:
    """Workflow code A: it waits for its end."""

    def __init__(self) -> None:
        self._ended = False

    @workflow.signal
    def end(self) -> None:
        """Let it end."""
        self._ended = True

    @workflow.run
    async def run(self, given: SyncGraphInput) -> None:
        """Wait for the signal."""
        await workflow.sleep(0.01)
        await workflow.wait_condition(lambda: self._ended)


@workflow.defn(name="SomethingElse", sandboxed=False)
class SomethingElse:
    """A type that nobody asks for."""

    @workflow.run
    async def run(self) -> None:
        """Do nothing."""


@asynccontextmanager
async def code(lab: SyncLab, *workflows: type) -> AsyncIterator[None]:
    """Run a worker that has these workflows alone."""
    worker = Worker(
        lab.client, task_queue=lab.task_queue, workflows=workflows,
        workflow_runner=UnsandboxedWorkflowRunner(), max_cached_workflows=0,
    )  # fmt: skip
    async with worker:
        yield


async def begun(lab: SyncLab, graph: Graph, given: object = None) -> WorkflowHandle:
    """Start a run of the graph as `syncline sync` does, and return once it is listed.

    A command that is asked before then cannot know of a run of a graph that has never run.
    """
    run = await lab.client.start_workflow(
        names.SYNC_GRAPH,
        SyncGraphInput(graph=graph.slug) if given is None else given,
        id=names.sync_workflow_id(graph.slug),
        task_queue=lab.task_queue,
        search_attributes=TypedSearchAttributes([SearchAttributePair(GRAPH, graph.slug)]),
    )

    async def listed() -> bool:
        return (await lab.client.count_workflows(f"WorkflowId = '{run.id}'")).count > 0

    await eventually(listed)
    return run


async def waits(run: WorkflowHandle) -> None:
    """Return once the run of code A has nothing to do but to wait."""

    async def waiting() -> bool:
        events = [event async for event in run.fetch_history_events()]
        return events[-1].HasField("workflow_task_completed_event_attributes") and len(events) > 5

    await eventually(waiting)


async def changed(lab: SyncLab) -> tuple[Graph, WorkflowHandle]:
    """Return a graph whose run was begun by other workflow code; a worker with the present one is to come."""
    graph = await lab.add_graph(FakeProvider())
    async with code(lab, Waiting):
        run = await begun(lab, graph)
        await waits(run)
    # Whoever meets it next has something to do for it.
    await run.signal("end")
    return graph, run


async def begin_again(lab: SyncLab, run: WorkflowHandle, run_id: str) -> None:
    """Do as `temporal workflow reset --type FirstWorkflowTask` does."""
    first = await anext(
        event.event_id
        async for event in run.fetch_history_events()
        if event.HasField("workflow_task_completed_event_attributes")
    )
    request = ResetWorkflowExecutionRequest(
        namespace=lab.client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=run.id, run_id=run_id),
        workflow_task_finish_event_id=first,
        request_id=run_id,
        reason="changed code",
    )
    await lab.client.workflow_service.reset_workflow_execution(request)


async def test_changed_workflow_code_is_stuck_in_status_runs_doctor_and_sync(
    idle_lab: SyncLab, syncline: CommandLine
) -> None:
    """The message is told, and the way out that is told is one."""
    graph, run = await changed(idle_lab)
    async with idle_lab.worker():

        async def stuck() -> bool:
            return (await syncline.answer("status GRAPH", graph.slug, "--timeout", "0.2"))[
                "standing"
            ] == "stuck"

        await eventually(stuck)
        answer = await syncline.answer("status GRAPH", graph.slug, "--timeout", "0.2")
        stall = answer["stall"]
        assert stall["kind"] == "task_fails"
        assert NON_DETERMINISM in stall["problem"]
        assert "TMPRL1100" in stall["problem"]
        assert "--type FirstWorkflowTask" in stall["fix"]
        assert answer["run"]["run_id"] in stall["fix"]
        shown = (await syncline("status", graph.slug, "--timeout", "0.2")).out
        assert "TMPRL1100" in shown
        [entry] = await syncline.answer("runs", graph.slug)
        assert entry["stall"]["kind"] == "task_fails"
        assert "TMPRL1100" in (await syncline("runs", graph.slug)).out
        checks = {check["name"]: check for check in (await syncline.answer("doctor", status=1))["checks"]}
        assert checks["runs"]["status"] == "fail"
        assert f"sync-graph/{graph.slug}" in checks["runs"]["found"]
        assert "FirstWorkflowTask" in checks["runs"]["fix"]
        # Whoever waits for it is told at once, once, and it is still open afterwards.
        for follow in ((), ("--follow",)):
            waited = await syncline("sync", graph.slug, "--timeout", "4", *follow)
            assert waited.status == 1
            assert (waited.err + waited.out).count("TMPRL1100") == 1
        # The way out that is told.
        await begin_again(idle_lab, run, answer["run"]["run_id"])
        ended = await idle_lab.client.get_workflow_handle(run.id).result()
        assert ended["result"]["status"] == "drained"


@pytest.mark.long("test_changed_workflow_code_is_stuck_in_status_runs_doctor_and_sync")
async def test_all_graphs_show_a_stuck_run_among_them_once_it_is_listed_so(
    idle_lab: SyncLab, syncline: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["syncline.temporal.overview"], "_LONG_SECONDS", 0.0)
    graph, run = await changed(idle_lab)
    async with idle_lab.worker():

        async def stuck() -> bool:
            listed = {entry["graph"]: entry for entry in await syncline.answer("status")}
            return listed.get(graph.slug, {}).get("standing") == "stuck"

        await eventually(stuck)
    await run.terminate()


@pytest.mark.long("test_changed_workflow_code_is_stuck_in_status_runs_doctor_and_sync")
async def test_an_unknown_workflow_type_fails_doctor_whatever_it_is(
    idle_lab: SyncLab, syncline: CommandLine
) -> None:
    unknown = idle_lab.unique("unknown")
    run = await idle_lab.client.start_workflow("NoSuchType", id=unknown, task_queue=idle_lab.task_queue)
    graph = await idle_lab.add_graph(FakeProvider())
    ours = await begun(idle_lab, graph)
    async with code(idle_lab, SomethingElse):

        async def told() -> bool:
            # It is listed by the doctor once it is three seconds old.
            checks = (await syncline.answer("doctor", "--timeout", "1", status=1))["checks"]
            [check] = [check for check in checks if check["name"] == "runs"]
            return check["status"] == "fail" and unknown in check["found"] and "NoSuchType" in check["found"]

        await eventually(told)
        answer = await syncline.answer("status GRAPH", graph.slug, "--timeout", "0.2")
        assert answer["standing"] == "stuck"
        assert "SyncGraph is not registered" in answer["stall"]["problem"]
        assert "temporal workflow terminate" in answer["stall"]["fix"]
    await run.terminate()
    await ours.terminate()


async def test_a_payload_that_cannot_be_decoded_is_told_without_what_is_in_it(
    idle_lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await idle_lab.add_graph(FakeProvider())
    run = await begun(idle_lab, graph, {"graph": graph.slug, "batch_rows": "s3cret"})
    async with code(idle_lab, Waiting):

        async def stuck() -> bool:
            answer = await syncline.answer("status GRAPH", graph.slug, "--timeout", "0.2")
            assert "s3cret" not in str(answer)
            return answer["standing"] == "stuck"

        await eventually(stuck)
    await run.terminate()


@pytest.mark.long("test_changed_workflow_code_is_stuck_in_status_runs_doctor_and_sync")
async def test_an_operation_that_no_worker_gets_through_says_why(
    idle_lab: SyncLab, syncline: CommandLine
) -> None:
    async with code(idle_lab, SomethingElse):
        failed = await syncline("failures", "retry", "kg", "--all", "--reason", "x", "--timeout", "6")
    assert failed.status == 1
    assert "RetryFailures is not registered" in failed.err


@pytest.mark.long("test_a_worker_that_is_gone_is_no_worker_within_seconds")
async def test_without_a_worker_every_command_says_no_worker(
    idle_lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await idle_lab.add_graph(FakeProvider())
    started = await syncline("sync", graph.slug, "--no-wait")
    assert started.status == 0
    assert f"No worker polls task queue '{idle_lab.task_queue}'" in started.err
    answer = await syncline.answer("status GRAPH", graph.slug, "--timeout", "0.2")
    assert (answer["standing"], answer["stall"]["kind"]) == ("no worker", "no_worker")

    async def listed() -> bool:
        found = {entry["graph"]: entry["standing"] for entry in await syncline.answer("status")}
        return found.get(graph.slug) == "no worker"

    await eventually(listed)
    checks = {check["name"]: check for check in (await syncline.answer("doctor", status=1))["checks"]}
    assert checks["task queue"]["status"] == checks["runs"]["status"] == "fail"
    [entry] = await syncline.answer("runs", graph.slug)
    assert entry["stall"]["kind"] == "no_worker"
    async with idle_lab.worker():
        await idle_lab.client.get_workflow_handle(names.sync_workflow_id(graph.slug)).result()


async def test_a_worker_that_is_gone_is_no_worker_within_seconds(
    idle_lab: SyncLab, syncline: CommandLine
) -> None:
    """The server lists its pollers for five minutes; that none has polled since is what tells."""
    graph = await idle_lab.add_graph(FakeProvider())
    async with idle_lab.worker():
        await idle_lab.run(graph)
    run = await begun(idle_lab, graph)
    waited = await syncline("sync", graph.slug, "--timeout", "6")
    assert waited.status == 1
    assert "No worker polls" in waited.err
    assert "s ago" in waited.err
    # A wait ends with its time, not with that of a busy worker's answer.
    waits = await syncline("wait", graph.slug, "1:1", "--timeout", "1")
    assert waits.status == 1
    assert "any longer" in waits.err
    assert "did not end" not in waits.err
    answer = await syncline.answer("status GRAPH", graph.slug, "--timeout", "0.2")
    assert answer["standing"] == "no worker"
    found = {entry["graph"]: entry["standing"] for entry in await syncline.answer("status")}
    assert found[graph.slug] == "no worker"
    checks = {
        check["name"]: check
        for check in (await syncline.answer("doctor", "--timeout", "1", status=1))["checks"]
    }
    assert checks["runs"]["status"] == "fail"
    await run.terminate()


@pytest.mark.long("test_changed_workflow_code_is_stuck_in_status_runs_doctor_and_sync")
async def test_workers_of_a_version_that_is_not_current_are_no_worker(
    idle_lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await idle_lab.add_graph(FakeProvider())
    version = WorkerDeploymentVersion(idle_lab.unique("deployment"), "two")
    config = WorkerDeploymentConfig(
        version=version, use_worker_versioning=True, default_versioning_behavior=VersioningBehavior.PINNED
    )
    worker = Worker(
        idle_lab.client, task_queue=idle_lab.task_queue, workflows=[SomethingElse], deployment_config=config
    )
    async with worker:

        async def polled() -> bool:
            return bool(await pollers(idle_lab.client, idle_lab.task_queue))

        await eventually(polled)
        failed = await syncline("sync", graph.slug)
        assert failed.status == 1
        assert f"--deployment-name {version.deployment_name} --build-id two" in failed.err
        answer = await syncline.answer("status GRAPH", graph.slug, "--timeout", "0.2")
        assert (answer["standing"], answer["stall"]["kind"]) == ("no worker", "no_worker")
        checks = (await syncline.answer("doctor", "--timeout", "1", status=1))["checks"]
        assert {check["status"] for check in checks if check["name"] in ("task queue", "runs")} == {"fail"}
    await idle_lab.client.get_workflow_handle(names.sync_workflow_id(graph.slug)).terminate()


async def test_a_run_at_work_is_no_stall(lab: SyncLab, syncline: CommandLine) -> None:
    release = asyncio.Event()

    async def wait(context: SyncContext) -> SyncResult:
        await release.wait()
        return sync_result()

    graph = await lab.add_graph(FakeProvider(cycle=wait))
    await begun(lab, graph)
    await asyncio.sleep(4)
    answer = await syncline.answer("status GRAPH", graph.slug)
    assert (answer["standing"], answer["stall"]) == ("running", None)
    found = {entry["graph"]: entry for entry in await syncline.answer("status")}
    assert (found[graph.slug]["standing"], found[graph.slug]["stall"]) == ("running", None)
    release.set()
    await lab.client.get_workflow_handle(names.sync_workflow_id(graph.slug)).result()
