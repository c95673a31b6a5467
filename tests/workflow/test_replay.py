"""Runs that an earlier release began must go on under this one: their histories replay."""

import importlib
import re
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from syncline.settings import Settings
from syncline.temporal.worker_options import workflow_runner
from workflows.operations import OPERATIONS
from workflows.reconcile import ReconcileSchedules
from workflows.sync_graph import SyncGraph

RECORDED = {
    path: path.read_text() for path in sorted((Path(__file__).parents[1] / "histories").glob("*/*.json"))
}
SOURCE = (Path(__file__).parents[2] / "workflows" / "sync_graph.py").read_text(encoding="utf-8")
RESOLVE, CYCLE = (
    "resolution = await self._resolve(request, until)\n",
    "await self._cycle(request, resolution, until)",
)


async def replay(history: str, sync_graph: type = SyncGraph, *, sandbox: bool = False) -> None:
    # The sandbox imports each of them anew to look at it.
    began = re.search(r'"workflowType":\s*\{\s*"name":\s*"(\w+)"', history)
    assert began is not None
    replayer = Replayer(
        workflows=[
            one
            for one in (sync_graph, ReconcileSchedules, *OPERATIONS)
            if workflow._Definition.must_from_class(one).name == began.group(1)
        ],
        workflow_runner=workflow_runner(sandbox=sandbox),
        data_converter=pydantic_data_converter,
    )
    await replayer.replay_workflow(WorkflowHistory.from_json("recorded", history))


def label(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("sandbox", [True, False], ids=["sandboxed", "as_deployed"])
@pytest.mark.parametrize("path", RECORDED, ids=label)
async def test_a_recorded_run_replays(path: Path, sandbox: bool) -> None:
    await replay(RECORDED[path], sandbox=sandbox)


INCOMPATIBLE = {
    "an_activity_is_renamed": ("SyncActivities.sync_cycle,", '"sync_the_cycle",'),
    "an_activity_is_dropped": (CYCLE, "SyncResult(status=CycleStatus.DRAINED)"),
    "another_activity_comes_first": (
        RESOLVE,
        f'await workflow.execute_activity("look", start_to_close_timeout=_GRACE)\n        {RESOLVE}',
    ),
    "the_cycle_comes_first": (
        RESOLVE,
        (
            "resolution = ProviderResolution(graph={'id': '00000000-0000-0000-0000-000000000001', 'slug': 'kg'})\n"
            f"        await self._cycle(request, resolution, until)\n        {RESOLVE}"
        ),
    ),
}
"""Changes of the workflow's source, old and new, that runs of before it cannot go on with."""


@pytest.mark.long(after=4)
@pytest.mark.parametrize("sandbox", [True, False], ids=["sandboxed", "as_deployed"])
@pytest.mark.parametrize("change", INCOMPATIBLE)
async def test_an_incompatible_change_is_found(
    change: str, sandbox: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the test above proves nothing."""
    old, new = INCOMPATIBLE[change]
    assert SOURCE.count(old) == 1
    (tmp_path / f"sync_graph_where_{change}.py").write_text(SOURCE.replace(old, new))
    monkeypatch.syspath_prepend(tmp_path)  # the sandbox imports it anew
    changed = importlib.import_module(f"sync_graph_where_{change}")
    [history] = [text for path, text in RECORDED.items() if label(path) == "0.1.0/provider_answered"]
    with pytest.raises(workflow.NondeterminismError):
        await replay(history, changed.SyncGraph, sandbox=sandbox)


def test_workflow_runner_is_the_sandbox_where_it_is_set() -> None:
    assert isinstance(workflow_runner(sandbox=True), SandboxedWorkflowRunner)
    assert isinstance(workflow_runner(sandbox=False), UnsandboxedWorkflowRunner)
    assert Settings.model_fields["workflow_sandbox"].default is False
