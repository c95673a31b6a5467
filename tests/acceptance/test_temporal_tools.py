"""Temporal's own tools on our runs: every command of the handbook's page, what it does and what `status` says."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import RunningStack

PAGE = (Path(__file__).parents[2] / "docs" / "operations" / "temporal-tools.md").read_text()
BLOCKS = dict(re.findall(r"<!-- test: ([\w-]+) -->\n```sh\n(.*?)```", PAGE, re.DOTALL))
ROWS = 19_000
"""In batches of five they take half a minute where nothing else runs: a pause is noticed at a heartbeat."""
OF_MANY = "--workflow-id sync-graph/many"


def test_every_block_of_the_page_is_run_by_a_test() -> None:
    assert PAGE.count("```sh") == len(BLOCKS)
    source = Path(__file__).read_text()
    assert [name for name in BLOCKS if f'block("{name}")' not in source] == []


def block(name: str) -> str:
    """A block of the page, for the graph `many`, whose runs take long."""
    return BLOCKS[name].replace("sync-graph/world-2026-01-31T12:00:55Z", "sync-graph/many")


def of_status(stack: "RunningStack", graph: str) -> dict[str, Any]:
    found = json.loads(stack.sh(f"syncline status {graph} --json || true"))
    assert isinstance(found, dict)
    return found


def attempt(stack: "RunningStack") -> int:
    described = stack.temporal("workflow", "describe", "--workflow-id", "sync-graph/many")
    assert isinstance(described, dict)
    return int(next(iter(described.get("pendingActivities", ())), {}).get("attempt", 0))


@pytest.fixture(scope="module")
def many(running_stack: "RunningStack", wait_until: Callable[..., None]) -> "RunningStack":
    """The stack with a run, by hand and under way, that has thousands of rows to sync in small batches."""
    stack = running_stack
    stack.sh("syncline graph add many --cron '0 0 1 1 *'")
    stack.sql(
        "write_dsn",
        "many",
        f"INSERT INTO write_nodes (id, concept) SELECT i, 'Concept ' || i FROM generate_series(1, {ROWS}) i",
    )
    stack.sh(
        f"temporal workflow start --task-queue syncline --type SyncGraph {OF_MANY} --priority-key 1"
        """ --execution-timeout 3h --input '{"graph": "many", "batch_rows": 5}'"""
    )
    wait_until(lambda: rows(stack) > 0)
    return stack


def rows(stack: "RunningStack") -> int:
    [counted] = stack.sql("graph_dsn", "many", "SELECT count(*) FROM nodes")
    return int(counted[0])


@pytest.mark.long("workflow/test_halted.py::test_paused_cycle_is_told_and_continues")
def test_a_cycle_is_paused_continued_and_retried(
    many: "RunningStack", wait_until: Callable[..., None]
) -> None:
    """`status` says who has paused it and why; the attempts continue, and in the end every row is there."""
    many.sh(block("pause"))
    wait_until(lambda: of_status(many, "many")["standing"] == "halted")
    assert "OPS-12: the write-db is repaired" in of_status(many, "many")["findings"][0]["reason"]
    assert "OPS-12" in many.sh("syncline doctor || true")
    # The attempt may still be in its last batch.
    wait_until(
        lambda: "PAUSED" in many.sh(f"temporal workflow describe {OF_MANY} --output json | grep -i paused")
    )
    before = rows(many)
    assert before < ROWS
    many.sh(block("unpause"))
    wait_until(lambda: rows(many) > before)
    many.sh(block("retry"))
    described = many.sh(f"temporal workflow describe {OF_MANY} --output json")
    assert '"maximumInterval": "5s"' in described
    assert re.search(r"Status +COMPLETED", many.sh(f"temporal workflow result {OF_MANY}", timeout=300))
    assert rows(many) == ROWS
    counted = many.sql("graph_dsn", "many", "SELECT count(DISTINCT key) FROM nodes")
    assert counted[0][0] == ROWS


@pytest.mark.long("workflow/test_halted.py::test_rate_limit_holds_for_eager_cycles_and_is_told")
def test_a_rate_limit_is_a_brake(running_stack: "RunningStack", wait_until: Callable[..., None]) -> None:
    """It holds though cycles are handed to workers eagerly, `status` tells of it, and it is lifted."""
    stack, started = running_stack, "temporal workflow start --task-queue syncline --type SyncGraph"
    assert "OPS-12: the graph-db is busy" in stack.sh(block("brake"))
    stack.sh(block("brake").replace("rps-limit 2", "rps-limit 0"))
    try:
        wait_until(lambda: "task queue limit changed" in stack.worker_log())
        # By a search attribute that `syncline status` finds it by: its own comes with its first task.
        given = """--workflow-id braked --input '{"graph": "world"}' --execution-timeout 3h"""
        stack.sh(f"{started} {given} --search-attribute 'SynclineGraph=\"world\"'")
        wait_until(lambda: of_status(stack, "world")["standing"] == "halted")
        [finding, *_] = of_status(stack, "world")["findings"]
        assert "OPS-12: the graph-db is busy" in finding["reason"]
    finally:
        stack.sh(block("lift"))
    assert re.search(r"Status +COMPLETED", stack.sh("temporal workflow result --workflow-id braked"))


@pytest.mark.long("workflow/test_fairness.py::test_fairness_key_is_set_kept_and_taken_back")
def test_workers_and_priorities_are_shown(
    running_stack: "RunningStack", wait_until: Callable[..., None]
) -> None:
    # It tells of itself once a minute.
    wait_until(lambda: "syncline@" in running_stack.sh(block("workers")), seconds=150)
    running_stack.sh(block("reported"))
    assert re.search(r"Status +COMPLETED", running_stack.sh(block("priority")))
    described = running_stack.sh("temporal workflow describe --workflow-id world-first --output json")
    assert '"fairnessKey": "world"' in described
