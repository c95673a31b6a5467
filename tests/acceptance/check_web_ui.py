"""The Web UI as an operator sees it: a real browser opens it and finds what is to be read there.

`make test-ui` runs this; `make test` does not, since it needs a Chromium (hence the name of the file). The same
run takes the screenshots of the documentation.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from playwright.sync_api import Error, Frame, Page, sync_playwright

if TYPE_CHECKING:
    from conftest import RunningStack

CHECKOUT = Path(__file__).parents[2]
SCREENSHOTS = CHECKOUT / os.environ.get("SCREENSHOTS", "build/screenshots")
SAVED_VIEWS = dict(
    re.findall(r"^\| (.+?) \| `(.+)` \|$", (CHECKOUT / "docs" / "web-ui.md").read_text(), flags=re.MULTILINE)
)
NOTE = "maintenance, OPS-12"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("whole_sample")]


@dataclass(frozen=True)
class WebUI:
    """The Web UI in a browser."""

    page: Page
    stack: "RunningStack"

    def open(self, path: str) -> None:
        """Go to a page of the namespace."""
        self.page.goto(f"http://127.0.0.1:{self.stack.ui_port}/namespaces/default/{path}")

    def open_run(self, query: str, tab: str) -> str:
        """Go to the newest run that the query finds, and return its workflow id."""
        found = self.stack.temporal("workflow", "list", "--limit", "1", "--query", query)
        assert isinstance(found, list)
        run = found[0]["execution"]
        self.open(f"workflows/{quote(run['workflowId'], safe='')}/{run['runId']}/{tab}")
        self.shows(run["workflowId"])
        return str(run["workflowId"])

    def text(self) -> str:
        """All that can be read, in lower case, words one space apart; markdown is in frames of its own."""
        return " ".join(_plain(_words(frame)) for frame in self.page.frames)

    def shows(self, *sentences: str) -> None:
        """Wait until all of it can be read, or fail with what can."""
        for _ in range(150):
            text = self.text()
            missing = [sentence for sentence in sentences if sentence.lower() not in text]
            if not missing:
                return
            self.page.wait_for_timeout(200)
        pytest.fail(f"not there: {missing}\n\nthe page says: {text}")

    def rows(self) -> list[str]:
        """Return the lines of the list of workflows or Schedules, as in `text`."""
        return [_plain(row) for row in self.page.locator("tbody tr").all_inner_texts()]

    def screenshot(self, name: str) -> None:
        """Keep the page as a picture of the documentation."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.wait_for_timeout(300)  # what is faded in is there
        self.page.screenshot(path=path)
        assert path.stat().st_size < 200_000


def _plain(text: str) -> str:
    # The style sheet decides about capitals.
    return " ".join(text.lower().split())


def _words(frame: Frame) -> str:
    try:
        return str(frame.evaluate("document.body ? document.body.innerText : ''"))
    except Error:
        return ""  # a frame that is being replaced; the next look finds the new one


@pytest.fixture(scope="module")
def operated(running_stack: "RunningStack", wait_until: Callable[..., None]) -> "RunningStack":
    """The stack after a bad night: rows that wait and fail, a broken table, a missing plugin, a pause."""
    stack = running_stack
    missing = """'{"sync": {"provider": "acme-sync", "on_missing": "fail"}}'"""
    stack.sh(
        "syncline graph add library; syncline graph add broken; "
        f"syncline graph add unserved --composition {missing}"
    )
    stack.sql("graph_dsn", "library", "ALTER TABLE nodes ADD CHECK (length(concept) < 20)")
    stack.sql(
        "write_dsn",
        "library",
        """
        INSERT INTO write_nodes (id, concept, parent_id)
        SELECT 'n' || i, 'Concept ' || i, NULL FROM generate_series(1, 40) i
        UNION ALL VALUES ('orphan', 'Orphan', 'nobody'), ('long', 'Longer than the check allows', NULL)
        """,
    )
    stack.sql("write_dsn", "broken", "ALTER TABLE write_nodes DROP COLUMN concept")
    stack.sql("write_dsn", "broken", "INSERT INTO write_nodes (id) VALUES ('n')")
    stack.sql(
        "graph_dsn",
        "syncline",
        """
        INSERT INTO graphs (slug, name, schema_name, qdrant_prefix, schedule)
        VALUES ('mistimed', 'Mistimed', 'mistimed', 'mistimed_', '{"cron": "0 99 * * *"}')
        """,
    )
    stack.sh(
        "temporal schedule trigger --schedule-id sync-graph/broken;"
        "temporal schedule trigger --schedule-id sync-graph/unserved;"
        f"temporal schedule toggle --schedule-id sync-graph/library --pause --reason '{NOTE}';"
        "temporal schedule trigger --schedule-id sync-graph/library;"
        "syncline schedule reconcile || true"
    )

    expected = (
        'SynclineGraph="library" AND SynclineRows>0',
        'SynclineGraph="broken" AND ExecutionStatus="Failed"',
        'SynclineGraph="unserved" AND ExecutionStatus="Failed"',
    )

    def every_run_has_ended() -> bool:
        return all(stack.temporal("workflow", "list", "--query", query) for query in expected)

    wait_until(every_run_has_ended, 60)
    return stack


@pytest.fixture(scope="module")
def ui(operated: "RunningStack", tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    """A browser that nobody has used before."""
    profile = tmp_path_factory.mktemp("profile")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=shutil.which("chromium"),
            args=FLAGS,
            viewport={"width": 1440, "height": 860},
            locale="en-GB",
            timezone_id="UTC",
        )
        yield WebUI(context.pages[0], operated)
        context.close()


def test_columns_tell_the_graph_the_provider_and_the_fallback_at_a_glance(ui: WebUI) -> None:
    ui.open("workflows?query=" + quote('WorkflowType="SyncGraph"'))
    ui.shows("Workflow ID")
    ui.page.get_by_test_id("workflows-summary-table-configuration-button").click()
    for column in ("Run ID", "Type", "Start", "End"):
        ui.page.get_by_role("button", name=f"Remove {column} column").click()
    for column in ("SynclineGraph", "SynclineProvider", "SynclineFallback", "SynclineRows"):
        ui.page.get_by_role("button", name=f"Add {column} column").click()
    ui.page.get_by_role("button", name="Close Workflows Table configuration").click()
    ui.shows("SynclineFallback")
    rows = ui.rows()
    assert any(re.search(r"completed sync-graph/world-\S+ world default false \d", row) for row in rows), rows
    assert any(re.search(r"world-fallback builtin-engine true \d", row) for row in rows), rows
    ui.screenshot("runs")


@pytest.mark.parametrize("view", ["Graphs in fallback", "Runs that did not succeed"])
def test_the_query_of_a_view_is_pasted_and_can_be_saved(ui: WebUI, view: str) -> None:
    ui.open("workflows")
    ui.page.get_by_test_id("toggle-manual-query").click()
    ui.page.get_by_test_id("workflow-manual-search-input").fill(SAVED_VIEWS[view])
    ui.page.keyboard.press("Enter")
    ui.shows("Save as New")
    expected = (
        "completed sync-graph/world-fallback-" if view == "Graphs in fallback" else "failed sync-graph/"
    )
    for _ in range(100):
        rows = [row for row in ui.rows() if row]
        if rows and all(expected in row for row in rows):
            return
        ui.page.wait_for_timeout(100)
    pytest.fail(f"expected: {expected}, shown: {rows}")


def test_a_run_says_what_it_did(ui: WebUI) -> None:
    ui.open_run('SynclineGraph="world" AND SynclineRows=70705', "user-metadata")
    ui.shows("Completed", "Sync graph world", "Graph world: drained in ", "Provider: default ")
    ui.shows("Written: 70,705 rows, 31,672 links, 38,792 vectors. Lag: 0.0 s.")
    ui.shows("table rows links captured raw_sources 5 0 5 facts 25,170 0 25,170")
    ui.shows("Nothing to do in 7 other tables.")
    ui.screenshot("run")


def test_a_run_tells_what_is_wrong_before_what_it_did(ui: WebUI) -> None:
    ui.open_run('SynclineGraph="library" AND SynclineRows>0', "user-metadata")
    ui.shows(
        "Graph library: drained in ", "table failures dead letters parked rows captured nodes 1 1 1 41 42"
    )
    text = ui.text()
    wrong = [
        text.index(sentence)
        for sentence in (
            "1 dead letters: syncline failures summary library",
            "1 parked: syncline parked library",
        )
    ]
    assert max(wrong) < text.index("written: 41 rows")
    ui.screenshot("troubles")


def test_a_fallback_is_the_largest_thing_on_the_page(ui: WebUI) -> None:
    ui.open_run("SynclineFallback=true", "user-metadata")
    ui.shows("Graph world-fallback: drained in ", "Fallback to the built-in engine since 20", " in a row: ")
    ui.shows("No installed plugin contributes sync provider ", " (installed: default). (not_installed)")
    ui.screenshot("fallback")


def test_the_timeline_has_a_summary_of_each_activity(ui: WebUI) -> None:
    ui.open_run('SynclineGraph="world" AND SynclineRows=70705', "timeline")
    ui.shows("sync_cycle • sync world with default ", "resolve_provider • resolve the provider of world")
    ui.open_run("SynclineFallback=true", "history")
    ui.shows(
        "Signal Name provider_fallback", "Summary sync world-fallback with the built-in engine (fallback)"
    )


def test_a_failed_table_is_told_with_what_to_do(ui: WebUI) -> None:
    ui.open_run('SynclineGraph="broken" AND ExecutionStatus="Failed"', "timeline")
    advice = "1 of 12 tables of graph 'broken' failed. nodes: broken.write_nodes.concept was dropped. "
    ui.shows("Failed", advice + "Leave it out of the map of nodes: what the graph-db has of it stays.")
    ui.open_run('SynclineGraph="broken" AND ExecutionStatus="Failed"', "user-metadata")
    ui.shows("Graph broken: failed in ", "nodes: broken.write_nodes.concept was dropped. ")
    ui.screenshot("failure")


def test_a_missing_provider_is_told_with_what_to_do(ui: WebUI) -> None:
    ui.open_run('SynclineGraph="unserved" AND ExecutionStatus="Failed"', "timeline")
    ui.shows("with on_missing 'fail'. No installed plugin contributes sync provider '")
    ui.open_run('SynclineGraph="unserved" AND ExecutionStatus="Failed"', "user-metadata")
    ui.shows("Graph unserved: failed", "Error: ProviderMissing: Graph ", "Install the plugin, or restart ")


def test_search_attributes_and_memo_are_shown(ui: WebUI) -> None:
    ui.open_run('SynclineGraph="world" AND SynclineRows=70705', "search-attributes")
    ui.shows('"SynclineFailures": 0', '"SynclineFallback": false', '"SynclineGraph": "world"')
    ui.shows('"SynclineProvider": "default"', '"SynclineRows": 70705')
    ui.open_run('SynclineGraph="world" AND SynclineRows=70705', "memo")
    ui.shows('"graph": "world"')


def test_each_graph_has_its_schedule_and_a_pause_its_note(ui: WebUI) -> None:
    ui.open("schedules")
    ui.shows("sync-graph/world-fallback", "syncline/reconcile-schedules")
    rows = ui.rows()
    assert any(row.startswith("paused sync-graph/library syncgraph") for row in rows), rows
    assert any(row.startswith("running sync-graph/world syncgraph") for row in rows), rows
    ui.screenshot("schedules")
    ui.open(f"schedules/{quote('sync-graph/library', safe='')}")
    ui.shows("Paused sync-graph/library", f"Notes {NOTE}", "Overlap Policy Skip", '"graph": "library"')


def test_a_reconciliation_names_the_graph_that_it_refused(ui: WebUI) -> None:
    ui.open_run('WorkflowType="ReconcileSchedules" AND ExecutionStatus="Completed"', "user-metadata")
    ui.shows("Make the Schedules match the graphs", "0 Schedules changed: ", ", 1 refused.")
    ui.shows("mistimed: ", "Correct it with syncline graph set mistimed --cron … or --every-seconds …")
    ui.screenshot("reconciliation")


def test_the_pictures_of_the_pages_are_those_of_this_run() -> None:
    shown = set(re.findall(r"\]\(images/(\w+)\.png\)", (CHECKOUT / "docs" / "web-ui.md").read_text()))
    assert shown == {path.stem for path in SCREENSHOTS.glob("*.png")}
    assert shown == {path.stem for path in (CHECKOUT / "docs" / "images").glob("*.png")}
