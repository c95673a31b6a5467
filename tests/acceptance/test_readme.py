"""The README's own commands, taken from the page and run as they are printed there."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import RunningStack

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = dict(re.findall(r"<!-- test: (\w+) -->\n```sh\n(.*?)```", README, re.DOTALL))

TABLES = ("raw_sources", "facts", "fact_sources", "nodes", "edges")
EVERY_ROW = "SELECT " + " + ".join(f"(SELECT count(*) FROM write_{table})" for table in TABLES)


def test_every_shell_block_of_the_page_is_run_by_a_test() -> None:
    assert README.count("```sh") == len(BLOCKS)
    assert set(BLOCKS) == {"operate", "query", "start", "fallback", "graph"}


def test_schedules_and_runs_are_listed(running_stack: "RunningStack") -> None:
    printed = running_stack.sh(BLOCKS["operate"])
    assert "sync-graph/world " in printed
    assert "sync-graph/world-fallback" in printed
    assert re.search(r"Completed +sync-graph/world-20\S+ +SyncGraph", printed)


def test_a_closed_run_answers_its_queries(running_stack: "RunningStack") -> None:
    printed = running_stack.sh(BLOCKS["query"])
    states = [json.loads(text) for text in re.findall(r"QueryResult +(\{.*\})", printed)]
    state, provider = states
    assert (state["phase"], state["graph"]) == ("done", "world")
    assert state["last_result"]["status"] == "drained"
    assert {table["table"] for table in state["last_result"]["tables"]} >= {"nodes", "edges", "facts"}
    [[rows]] = running_stack.sql("write_dsn", "world", EVERY_ROW)
    assert state["carried"]["totals"]["rows"] == rows > 0
    assert provider == state["provider"]
    assert (provider["provider_id"], provider["fallback"]) == ("default", None)


def test_every_row_of_a_sample_is_in_the_graph_db(running_stack: "RunningStack") -> None:
    for table in ("raw_sources", "facts", "nodes", "edges"):
        [[there]] = running_stack.sql("write_dsn", "world", f"SELECT count(*) FROM write_{table}")
        [[here]] = running_stack.sql("graph_dsn", "world", f"SELECT count(*) FROM {table}")
        assert there == here > 0, table


def test_runs_start_by_hand_and_by_cron(
    running_stack: "RunningStack", wait_until: Callable[..., None]
) -> None:
    printed = running_stack.sh(BLOCKS["start"])
    assert re.search(r"Status +COMPLETED", printed)
    assert "Workflow terminated" in printed
    shown = running_stack.temporal("schedule", "describe", "--schedule-id", "sync-graph/world")
    assert isinstance(shown, dict)
    assert not shown["schedule"]["state"].get("paused")


@pytest.mark.timeout(200)
def test_a_cron_workflow_runs_every_minute_and_carries_its_state(
    running_stack: "RunningStack", wait_until: Callable[..., None]
) -> None:
    running_stack.sh(
        "temporal workflow start --task-queue syncline --type SyncGraph --workflow-id cron-twice"
        """ --input '{"graph": "world-fallback"}' --cron '@every 2s'"""
    )
    query = 'WorkflowId="cron-twice" AND ExecutionStatus="Completed"'

    def closed() -> list[dict[str, dict[str, str]]]:
        found = running_stack.temporal("workflow", "list", "--query", query)
        return found if isinstance(found, list) else []

    wait_until(lambda: len(closed()) >= 2, 60)
    running_stack.sh("temporal workflow terminate --workflow-id cron-twice")
    newest, earlier = closed()[0]["execution"], closed()[1]["execution"]
    runs = []
    for execution in (earlier, newest):
        answer = running_stack.temporal(
            "workflow",
            "query",
            "--workflow-id",
            execution["workflowId"],
            "--run-id",
            execution["runId"],
            "--type",
            "sync_state",
        )
        assert isinstance(answer, dict)
        runs.append(answer["queryResult"][0]["carried"])
    assert runs[1]["totals"]["runs"] == runs[0]["totals"]["runs"] + 1
    assert runs[1]["consecutive_fallback_runs"] == runs[0]["consecutive_fallback_runs"] + 1
    assert runs[1]["first_fallback_at"] == runs[0]["first_fallback_at"]


def test_a_fallback_is_seen_at_a_glance(running_stack: "RunningStack") -> None:
    printed = running_stack.sh(BLOCKS["fallback"])
    assert "sync-graph/world-fallback-" in printed
    assert '"signalName": "provider_fallback"' in printed
    state = json.loads(re.findall(r"QueryResult +(\{.*\})", printed)[0])
    assert state["provider_id"] is None
    assert state["fallback"]["reason"] == "not_installed"
    assert state["fallback"]["provider_id"] == "acme-sync"
    assert state["fallback_since"] is not None
    assert state["consecutive_fallback_runs"] >= 1


def test_a_missing_provider_is_warned_of_once_per_worker(
    running_stack: "RunningStack", wait_until: Callable[..., None]
) -> None:
    def runs() -> int:
        log = running_stack.worker_log()
        return len([line for line in log.splitlines() if "provider=builtin-engine" in line])

    while runs() < 3:
        before = runs()
        running_stack.sh("temporal schedule trigger --schedule-id sync-graph/world-fallback")
        wait_until(lambda: runs() > before, 60)  # noqa: B023 # called within this very turn
    warnings = [line for line in running_stack.worker_log().splitlines() if "[warning" in line]
    assert len([line for line in warnings if "acme-sync" in line]) == 1, warnings


def test_the_search_attributes_of_a_fallback_run_are_filled(
    running_stack: "RunningStack", wait_until: Callable[..., None]
) -> None:
    node = "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 71) i"
    running_stack.sql("write_dsn", "world_fallback", node)
    # The Schedule's own run may be the one that moves them.
    running_stack.sync("fallback-by-hand", "world-fallback")
    query = 'SynclineGraph="world-fallback" AND SynclineFallback=true AND SynclineRows=71'

    def found(more: str = "") -> int:
        listed = running_stack.temporal("workflow", "list", "--query", query + more)
        return len(listed) if isinstance(listed, list) else 0

    wait_until(lambda: found(' AND SynclineProvider="builtin-engine" AND SynclineFailures=0'))
    assert found() == 1
    [[here]] = running_stack.sql("graph_dsn", "world_fallback", "SELECT count(*) FROM nodes")
    assert here == 71


def test_a_mistyped_input_fails_at_once_and_names_the_key(running_stack: "RunningStack") -> None:
    printed = running_stack.sh(
        "temporal workflow start --task-queue syncline --type SyncGraph --workflow-id mistyped"
        """ --input '{"grpah": "world"}' && ! temporal workflow result --workflow-id mistyped"""
    )
    assert "FAILED" in printed
    assert "grpah" in printed
