"""Temporal's own tools: every command of docs/temporal.md and every view of docs/web-ui.md, as they are printed."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from syncline import names

if TYPE_CHECKING:
    from conftest import RunningStack

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "temporal.md").read_text()
BLOCKS = dict(re.findall(r"<!-- test: ([\w-]+) -->\n```sh\n(.*?)```", PAGE, re.DOTALL))
VIEWS = dict(re.findall(r"^\| (.+?) \| `(.+)` \|$", (DOCS / "web-ui.md").read_text(), re.MULTILINE))
ROWS = 6_000
CROWD = 'SynclineGraph="crowd" AND WorkflowType="SyncGraph"'


def runs(stack: "RunningStack", query: str) -> list[dict[str, Any]]:
    found = stack.temporal("workflow", "list", "--query", query)
    return found if isinstance(found, list) else []


def completed(stack: "RunningStack", query: str) -> list[dict[str, Any]]:
    return runs(stack, f'{query} AND ExecutionStatus="Completed"')


def result_of(stack: "RunningStack", run: dict[str, Any]) -> dict[str, Any]:
    """Return what the run's cycle did; by query, since `workflow result` goes on to the last run of a cron."""
    which = ("--workflow-id", run["execution"]["workflowId"], "--run-id", run["execution"]["runId"])
    answer = stack.temporal("workflow", "query", *which, "--type", "sync_state")
    assert isinstance(answer, dict)
    result: dict[str, Any] = answer["queryResult"][0]["last_result"]
    return result


def test_every_shell_block_of_the_page_is_run_by_a_test() -> None:
    assert PAGE.count("```sh") == len(BLOCKS)
    source = Path(__file__).read_text()
    assert [name for name in BLOCKS if f'BLOCKS["{name}"]' not in source] == []


def test_search_attributes_are_created_and_may_be_there(running_stack: "RunningStack") -> None:
    assert running_stack.sh(BLOCKS["search-attributes"]).count("have been added") == len(
        names.SEARCH_ATTRIBUTES
    )


@pytest.mark.long("workflow/test_operations.py::test_damage_is_found_repaired_and_healed_by_the_next_cycle")
def test_a_worker_does_what_is_asked_for_by_name(running_stack: "RunningStack") -> None:
    printed = running_stack.sh(BLOCKS["operation"])
    assert re.search(r"Status +COMPLETED", printed)
    assert '"relations"' in printed
    assert '"syncline_version"' in running_stack.sh(BLOCKS["fleet"])


@pytest.mark.long("acceptance/test_readme.py::test_schedules_and_runs_are_listed")
def test_schedules_are_listed_described_triggered_and_paused(
    running_stack: "RunningStack", wait_until: Callable[..., None]
) -> None:
    printed = running_stack.sh(BLOCKS["schedules"])
    assert "sync-graph/world-fallback" in printed
    assert "Trigger request sent" in printed
    assert "Trigger request sent" in running_stack.sh(BLOCKS["reconciliation"])
    # It may be the first.
    wait_until(lambda: runs(running_stack, 'WorkflowType="ReconcileSchedules"'))
    assert "syncline/reconcile-schedules-20" in running_stack.sh(BLOCKS["reconciliation"])
    for schedule in ("sync-graph/world", "syncline/reconcile-schedules"):
        shown = running_stack.temporal("schedule", "describe", "--schedule-id", schedule)
        assert isinstance(shown, dict)
        assert not shown["schedule"]["state"].get("paused")


def test_runs_are_started_joined_and_named_by_hand(
    running_stack: "RunningStack", wait_until: Callable[..., None]
) -> None:
    # At once, each with an output of its own: in one they would be mixed by the character.
    with ThreadPoolExecutor() as people:
        for printed in people.map(running_stack.sh, [BLOCKS["execute"]] * 2):
            assert re.search(r"Status +COMPLETED", printed)
    assert re.search(r"Status +COMPLETED", running_stack.sh(BLOCKS["start"]))
    shown = running_stack.temporal("workflow", "metadata", "--workflow-id", "world-by-hand")
    assert "drained" in json.dumps(shown) or "already_running" in json.dumps(shown)
    described = running_stack.temporal("workflow", "describe", "--workflow-id", "world-by-hand")
    assert "Sync graph world by hand, OPS-12" in json.dumps(described)
    scheduled = 'TemporalScheduledById="sync-graph/world"'
    before = len(completed(running_stack, scheduled))
    running_stack.sh(BLOCKS["trigger"])
    wait_until(lambda: len(completed(running_stack, scheduled)) > before)


def test_runs_are_stopped(running_stack: "RunningStack", wait_until: Callable[..., None]) -> None:
    running_stack.sh(BLOCKS["stop"])
    wait_until(lambda: not runs(running_stack, 'WorkflowId="world-to-stop" AND ExecutionStatus="Running"'))
    assert len(runs(running_stack, 'WorkflowId="world-to-stop"')) == 2
    assert not runs(running_stack, 'WorkflowId="world-to-stop" AND ExecutionStatus="Failed"')


def test_missed_times_and_runs_of_before_are_run_again(
    running_stack: "RunningStack", wait_until: Callable[..., None]
) -> None:
    before = len(runs(running_stack, 'WorkflowId="world-by-hand"'))
    if not before:
        running_stack.sh(BLOCKS["start"])
    assert re.search(r"Status +COMPLETED", running_stack.sh(BLOCKS["again"]))
    assert len(runs(running_stack, 'WorkflowId="world-by-hand"')) == (before or 1) + 1
    wait_until(
        lambda: len(completed(running_stack, 'WorkflowId STARTS_WITH "sync-graph/world-2026-01-31"')) == 2
    )


def test_a_schedule_of_ones_own_runs_the_graph(
    running_stack: "RunningStack", wait_until: Callable[..., None]
) -> None:
    printed = running_stack.sh(BLOCKS["own-schedule"])
    assert "Europe/Berlin" in printed
    mine = 'TemporalScheduledById="world-nightly" AND SynclineGraph="world"'
    wait_until(lambda: completed(running_stack, mine))
    running_stack.sh(BLOCKS["own-schedule-end"])
    assert "nightly" not in running_stack.sh("temporal schedule list")


@pytest.mark.long("acceptance/test_readme.py::test_a_cron_workflow_runs_every_minute_and_carries_its_state")
def test_a_cron_workflow_is_started_asked_and_stopped(
    running_stack: "RunningStack", wait_until: Callable[..., None]
) -> None:
    assert "'* * * * *'" in BLOCKS["cron"]
    running_stack.sh(BLOCKS["cron"].replace("* * * * *", "@every 1s"))  # the test has no minute
    wait_until(lambda: len(completed(running_stack, 'WorkflowId="world-cron"')) >= 2)
    [answer] = re.findall(r"QueryResult +(\{.*\})", running_stack.sh(BLOCKS["cron-state"]))
    state = json.loads(answer)
    assert (state["phase"], state["graph"]) == ("done", "world")
    assert state["carried"]["totals"]["runs"] >= 2
    stop = BLOCKS["cron-stop"].rstrip()
    running_stack.sh(stop)

    def stopped() -> bool:
        if runs(running_stack, 'WorkflowId="world-cron" AND ExecutionStatus="Canceled"'):
            return True
        # At a run a second it may have met a run that ended of itself just then.
        running_stack.sh(f"{stop} || true")
        return False

    wait_until(stopped)
    assert not runs(running_stack, 'WorkflowId="world-cron" AND ExecutionStatus IN ("Running","Failed")')


@pytest.fixture(scope="module")
def crowd(running_stack: "RunningStack", wait_until: Callable[..., None]) -> "RunningStack":
    """The stack after six runs of one graph, with thousands of rows to sync, that began at the same moment."""
    stack = running_stack
    # Its Schedule has no time that comes in this test: it runs when it is triggered.
    stack.sh("syncline graph add crowd --cron '0 0 1 1 *'")
    stack.sql(
        "write_dsn",
        "crowd",
        f"INSERT INTO write_nodes (id, concept) SELECT i, 'Concept ' || i FROM generate_series(1, {ROWS}) i",
    )
    start = "temporal workflow start --task-queue syncline --type SyncGraph"
    message = """--input '{"graph": "crowd"}'"""
    started = [
        *(f"{start} --workflow-id crowd-by-hand-{number} {message}" for number in range(4)),
        f"{start} --workflow-id crowd-by-cron {message} --cron '@every 1s'",
        "temporal schedule trigger --schedule-id sync-graph/crowd",
    ]
    stack.sh(" & ".join(started) + " & wait")

    def all_ended() -> bool:
        ended = completed(stack, CROWD)
        ids = " ".join(run["execution"]["workflowId"] for run in ended)
        return all(who in ids for who in (*(f"by-hand-{n}" for n in range(4)), "by-cron", "sync-graph/crowd"))

    wait_until(all_ended, 120)
    stack.sh("temporal workflow terminate --workflow-id crowd-by-cron")
    return stack


@pytest.mark.long("integration/test_engine.py::test_two_cycles_of_one_graph_never_overlap")
def test_of_runs_that_begin_at_once_one_syncs_and_no_other_fails_or_writes(crowd: "RunningStack") -> None:
    assert not runs(crowd, 'SynclineGraph="crowd" AND ExecutionStatus IN ("Failed","TimedOut","Canceled")')
    ended = completed(crowd, CROWD)
    results = {run["execution"]["runId"]: result_of(crowd, run) for run in ended}
    assert len(results) >= 6
    statuses = [result["status"] for result in results.values()]
    # One that found it locked either tried until it was not, and found nothing to do, or ended without.
    assert set(statuses) <= {"drained", "already_running"}
    written = {
        run_id: rows
        for run_id, result in results.items()
        if (rows := sum(table["rows"] for table in result["tables"] or ()))  # `temporal` prints [] as null
    }
    assert list(written.values()) == [ROWS]
    assert sum(result["vectors"]["upserted"] for result in results.values()) == ROWS
    began = {run["execution"]["runId"]: run["startTime"] for run in ended}
    closed = {run["execution"]["runId"]: run["closeTime"] for run in ended}
    [syncing] = written
    at_once = [began[run_id] for run_id, result in results.items() if result["status"] == "already_running"]
    assert all(moment < closed[syncing] for moment in at_once)


@pytest.mark.long("integration/test_engine.py::test_two_cycles_of_one_graph_never_overlap")
def test_every_row_of_the_crowd_is_there_once(crowd: "RunningStack") -> None:
    counted = crowd.sql("graph_dsn", "crowd", "SELECT count(*), count(DISTINCT key) FROM nodes")
    assert [tuple(row) for row in counted] == [(ROWS, ROWS)]


@pytest.fixture(scope="module")
def troubled(crowd: "RunningStack", wait_until: Callable[..., None]) -> "RunningStack":
    """The same after a run in which a table failed, with one that no worker will take, and a held graph."""
    crowd.sql("write_dsn", "crowd", "ALTER TABLE write_nodes DROP COLUMN concept")
    crowd.sql("write_dsn", "crowd", "INSERT INTO write_nodes (id) VALUES ('one more')")
    crowd.sh("temporal schedule trigger --schedule-id sync-graph/crowd")
    wait_until(lambda: runs(crowd, 'SynclineGraph="crowd" AND ExecutionStatus="Failed"'))
    crowd.sh("temporal workflow start --task-queue nobody --type SyncGraph --workflow-id at-work")
    wait_until(lambda: runs(crowd, 'WorkflowId="at-work"'))
    composition = json.dumps({"sync": {"provider": "acme-sync", "on_missing": "hold"}})
    crowd.sh(f"syncline graph add waiting --composition '{composition}'")
    wait_until(lambda: runs(crowd, 'SynclineGraph="waiting" AND SynclineStatus="held"'))
    return crowd


@pytest.mark.long("acceptance/test_readme.py::test_the_search_attributes_of_a_fallback_run_are_filled")
@pytest.mark.parametrize(
    ("view", "present", "absent"),
    [
        ("One graph", "sync-graph/world-2", "crowd|fallback|reconcile|at-work"),
        ("Graphs in fallback", "sync-graph/world-fallback-2", "sync-graph/world-2|crowd|reconcile"),
        ("Graphs that are held", "sync-graph/waiting-2", "world|crowd|reconcile|at-work"),
        ("Graphs that are blocked", None, "."),
        ("Runs that left vectors", None, "."),
        ("Runs that left rows for the next one", None, "reconcile|at-work"),
        ("Runs whose workflow task fails", None, "."),
        ("One version of a provider", None, "."),
        (
            "Runs that did not succeed",
            "sync-graph/crowd-2",
            "sync-graph/world|crowd-by-hand|reconcile|at-work",
        ),
        (
            "Runs in which a table failed or rows were refused",
            "sync-graph/crowd-2",
            "world|crowd-by|reconcile",
        ),
        ("Runs that wrote rows", "sync-graph/world-2", "reconcile|at-work"),
        ("At work now", "at-work", "crowd-by-hand|reconcile"),
        ("Runs that took long", None, "reconcile|at-work"),
        ("Started by the Schedule", "sync-graph/world-2", "fallback|crowd|by-hand|reconcile|at-work"),
        ("Started by hand or by cron", "crowd-by-cron", "sync-graph/.*-2|reconcile"),
        ("Reconciliations", "syncline/reconcile-schedules-2", "world|crowd|at-work"),
        ("Reconciliations that did not succeed", None, "."),
        ("What operators asked for", "verify-world", "sync-graph|crowd|reconcile|at-work"),
        (
            "Questions of `syncline providers`, `doctor` and `status`",
            "who-has-what",
            "world|crowd|reconcile|at-work",
        ),
    ],
)
def test_a_view_shows_what_it_says(
    troubled: "RunningStack", view: str, present: str | None, absent: str
) -> None:
    shown = [run["execution"]["workflowId"] for run in runs(troubled, VIEWS[view])]
    assert present is None or [workflow_id for workflow_id in shown if re.match(present, workflow_id)]
    assert [workflow_id for workflow_id in shown if re.search(absent, workflow_id)] == []


@pytest.mark.long("acceptance/test_readme.py::test_the_search_attributes_of_a_fallback_run_are_filled")
def test_a_view_counts_how_runs_ended(troubled: "RunningStack") -> None:
    printed = troubled.sh(f"temporal workflow count --query '{VIEWS['How runs ended (`count` only)']}'")
    assert re.search(r"Completed", printed)
    assert re.search(r"Failed", printed)


def test_every_view_of_the_page_is_tried() -> None:
    source = Path(__file__).read_text()
    assert len(VIEWS) >= 12
    assert [view for view in VIEWS if f'"{view}"' not in source and f"'{view}'" not in source] == []
