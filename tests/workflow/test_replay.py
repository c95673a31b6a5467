"""Runs that an earlier release began must go on under this one: their histories replay."""

from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from workflows.operations import OPERATIONS
from workflows.reconcile_schedules import ReconcileSchedules
from workflows.sync_graph import SyncGraph

RECORDED = {
    path: path.read_text() for path in sorted((Path(__file__).parents[1] / "histories").glob("*/*.json"))
}


async def replay(history: str) -> None:
    workflows = [SyncGraph, ReconcileSchedules, *OPERATIONS]
    replayer = Replayer(workflows=workflows, data_converter=pydantic_data_converter)
    await replayer.replay_workflow(WorkflowHistory.from_json("recorded", history))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_a_recorded_run_replays(path: Path) -> None:
    await replay(RECORDED[path])


async def test_a_run_that_took_another_path_does_not_replay() -> None:
    """Else the test above proves nothing."""
    history = next(text for path, text in RECORDED.items() if path.stem == "provider_answered")
    with pytest.raises(workflow.NondeterminismError):
        await replay(history.replace('"resolve_provider"', '"another_activity"'))
