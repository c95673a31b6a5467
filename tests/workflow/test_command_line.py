"""What operators type: the `temporal` CLI against a run, wrong input included."""

import asyncio
import json

import pytest

from syncline import names
from syncline.devstack.temporal_server import temporal_binary
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.provider import SyncContext
from syncline.testing.lab import SyncLab
from syncline.testing.providers import FakeProvider, sync_result


class Cli:
    """The real binary, on the test's server."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    async def __call__(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            temporal_binary(), *arguments, env=self._environment, stdout=-1, stderr=-1
        )
        output, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()
        return output.decode()


@pytest.fixture
def temporal(temporal_environment: dict[str, str]) -> Cli:
    return Cli(temporal_environment)


async def start(temporal: Cli, lab: SyncLab, *arguments: str) -> str:
    workflow_id = lab.unique("typed")
    await temporal(
        "workflow", "start", "--type", "SyncGraph", "--task-queue", lab.task_queue,
        "--workflow-id", workflow_id, *arguments,
    )  # fmt: skip
    return workflow_id


async def test_a_run_is_started_and_asked_by_hand(lab: SyncLab, temporal: Cli) -> None:
    graph = await lab.add_graph(FakeProvider())
    workflow_id = await start(temporal, lab, "--input", json.dumps({"graph": graph.slug}))
    await lab.client.get_workflow_handle(workflow_id).result()

    asked = await temporal("workflow", "query", "-w", workflow_id, "--type", "sync_state", "-o", "json")
    [state] = json.loads(asked)["queryResult"]
    assert (state["graph"], state["phase"]) == (graph.slug, "done")
    listed = await temporal("workflow", "list", "--query", f'SynclineGraph="{graph.slug}"', "-o", "json")
    assert [run["execution"]["workflowId"] for run in json.loads(listed)] == [workflow_id]


@pytest.mark.long(after=1)
@pytest.mark.parametrize("arguments", [(), ("--input", "null"), ("--input", "{}")])
async def test_no_input_means_the_default_graph(
    lab: SyncLab, temporal: Cli, arguments: tuple[str, ...]
) -> None:
    graph = await lab.add_graph(is_default=True, prepare=True)
    workflow_id = await start(temporal, lab, *arguments)
    result = await lab.client.get_workflow_handle(workflow_id).result()
    assert result["graph"]["slug"] == graph.slug
    assert result["result"]["status"] == CycleStatus.DRAINED


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    ("arguments", "kind", "named"),
    [
        (("--input", '{"grpah": "x"}'), "InputInvalid", "'grpah'"),
        (("--input", '{"graph": 7}'), "InputInvalid", "'graph'"),
        (("--input", '"world"'), "InputInvalid", "valid dictionary"),
        (("--input", '"one"', "--input", '"two"'), "TypeError", "positional arguments"),
    ],
)
async def test_wrong_input_fails_the_run_at_once_and_says_why(
    lab: SyncLab, temporal: Cli, arguments: tuple[str, ...], kind: str, named: str
) -> None:
    workflow_id = await start(temporal, lab, *arguments)
    run = lab.client.get_workflow_handle(workflow_id)
    async with asyncio.timeout(20):
        error = await lab.failure(run)
    assert error.type == kind
    assert named in error.message
    shown = await temporal("workflow", "show", "-w", workflow_id)
    assert "FAILED" in shown
    assert named in shown
    assert "WORKFLOW_TASK_FAILED" not in await lab.events(run)


async def test_signals_sent_by_hand_with_nonsense_are_dropped(lab: SyncLab, temporal: Cli) -> None:
    release = asyncio.Event()

    async def wait(context: SyncContext) -> SyncResult:
        await release.wait()
        return sync_result()

    graph = await lab.add_graph(FakeProvider(cycle=wait))
    run = await lab.start(graph)
    await temporal("workflow", "signal", "-w", run.id, "--name", names.PROVIDER_FALLBACK, "--input", "42")
    release.set()
    await run.result()
    assert (await lab.state(run)).signals == ()
