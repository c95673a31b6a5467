"""Whatever starts a run bounds it: the server ends one that no worker can go on with."""

import ast
import asyncio
import re
import shlex
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client, ScheduleActionStartWorkflow

from syncline import names
from syncline.devstack.temporal_server import temporal_binary

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_RECIPE = re.compile(r"^temporal (?:workflow (?:start|execute)|schedule create) (?:.*\\\n)*.*", re.MULTILINE)
RECIPES = {
    f"{page.relative_to(ROOT)}:{number}": re.sub(r"\s*\\\n\s*", " ", found[0])
    for page in PAGES
    for number, found in enumerate(_RECIPE.finditer(page.read_text(encoding="utf-8")), start=1)
}
MAY_TAKE = {
    # Two hours for all activities, then two minutes for the cadence; a shadow is started, not waited for.
    names.SYNC_GRAPH: timedelta(hours=2, minutes=2),
    names.VERIFY_GRAPH: timedelta(hours=12),
    names.DESCRIBE_FLEET: timedelta(seconds=30),
}
"""What each workflow may take by itself."""


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


async def temporal(environment: dict[str, str], *words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        temporal_binary(), *words, env=environment, stdout=-1, stderr=-1
    )
    _, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()


def test_recipes_are_found() -> None:
    assert len(RECIPES) >= 10


@pytest.mark.parametrize("place", RECIPES)
async def test_recipe_has_a_timeout(
    place: str,
    temporal_client: Client,
    temporal_environment: dict[str, str],
    unique: Callable[[str], str],
) -> None:
    """The documented command, on a task queue that nobody polls; the server says how it is bounded."""
    words = shlex.split(RECIPES[place])[1:]
    may_take, workflow_id = MAY_TAKE[option(words, "--type")], unique("recipe")
    words[words.index("--task-queue") + 1] = unique("nobody")
    words[words.index("--workflow-id") + 1] = workflow_id
    if words[0] == "schedule":
        words[words.index("--schedule-id") + 1] = workflow_id
        await temporal(temporal_environment, *words)
        schedule = temporal_client.get_schedule_handle(workflow_id)
        action = (await schedule.describe()).schedule.action
        assert isinstance(action, ScheduleActionStartWorkflow)
        assert action.execution_timeout is not None
        assert action.execution_timeout > may_take
        await schedule.delete()
        return
    words[1] = "start"
    await temporal(temporal_environment, *words)
    run = temporal_client.get_workflow_handle(workflow_id)
    config = (await run.describe()).raw_description.execution_config
    await run.terminate()
    whole, each = (
        bound.ToTimedelta() for bound in (config.workflow_execution_timeout, config.workflow_run_timeout)
    )
    assert each > may_take
    # The execution of a cron workflow is the whole chain.
    assert whole == timedelta(0) if "--cron" in words else whole > may_take


STARTS = {"start_workflow", "execute_workflow", "start_child_workflow", "execute_child_workflow"} | {
    "ScheduleActionStartWorkflow"
}


def test_every_start_in_the_code_has_a_timeout() -> None:
    found = []
    for folder in ("syncline", "workflows", "activities", "providers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                if name in STARTS:
                    given = {keyword.arg for keyword in node.keywords}
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", "execution_timeout" in given))
    assert len(found) >= 5
    assert [place for place, bounded in found if not bounded] == []
