"""The definition of a graph's state: what agrees with it, and what never counts as `ok`."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from syncline.messages.base import GraphStatus
from syncline.operator.graph_state import (
    ALERTS,
    SAVED_VIEWS,
    Finding,
    GraphHealth,
    GraphNumbers,
    Level,
    VectorDelay,
    judge,
    level_of,
    numbers_findings,
)

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def state_of(**numbers: object) -> tuple[GraphHealth, Level]:
    told = GraphNumbers.model_validate({"graph": "world", **numbers})
    state, level, _ = judge(numbers_findings(told), running=False, ran=True)
    return state, level


def delay(error: str) -> dict[str, object]:
    waits = VectorDelay(collection="nodes", since=NOW, next_retry_at=NOW, error=error)
    return {"delays": (waits,), "pending_points": 1003}


@pytest.mark.parametrize(
    ("numbers", "state", "level"),
    [
        ({}, "ok", "green"),
        ({"refused_rows": 300}, "refused", "red"),
        ({"refused_points": 1, "parked": 3}, "refused", "red"),
        (delay("EmbeddingRejected: it answered HTTP 401: wrong key."), "vectors delayed", "red"),
        (delay("EmbeddingDiffers: nothing is written"), "vectors delayed", "red"),
        (delay("VectorStoreUnavailable: no answer"), "vectors delayed", "yellow"),
        (delay("EmbeddingUnavailable: it answered HTTP 429: slow down."), "rate limited", "yellow"),
        (delay("EmbeddingBudgetSpent: nothing was sent"), "budget spent", "yellow"),
        (delay("SomethingNew: of a later release"), "vectors delayed", "red"),
        ({"held_back_by": "an open transaction"}, "held back", "yellow"),
        ({"withheld": 400, "withheld_tables": "nodes", "parked": 1}, "removal withheld", "red"),
        ({"missing_aliases": ("kg_nodes.live",), "parked": 1}, "no alias", "yellow"),
        ({"lag_seconds": 31, "max_lag_seconds": 30, "parked": 1}, "late", "yellow"),
        ({"lag_seconds": 30, "max_lag_seconds": 30}, "ok", "green"),
        ({"parked": 1}, "parked", "yellow"),
        ({"owed": 12}, "keys owed", "yellow"),
        ({"owed": 1, "owed_problem": "edges_fkey: a row has no parent"}, "keys owed", "red"),
        ({"problem": "its store did not answer within 5 s"}, "unknown", "yellow"),
        ({"invalid": "composition: unknown key"}, "invalid record", "red"),
        ({"status": GraphStatus.ARCHIVED}, "archived", "green"),
    ],
)
def test_numbers_say_the_state(numbers: dict[str, object], state: str, level: str) -> None:
    assert state_of(**numbers) == (state, level)


def test_a_pause_is_the_state_and_hides_no_finding() -> None:
    paused = Finding.of(GraphHealth.PAUSED, "paused by an operator: looking")
    refused = Finding.of(GraphHealth.REFUSED, "3 rows refused")
    state, level, findings = judge([paused, refused], running=False, ran=True)
    assert (state, level, [finding.state for finding in findings]) == (
        "paused",
        "green",
        ["refused", "paused"],
    )
    # Once a run is open, by hand, it is not the pause that matters.
    assert judge([paused, refused], running=True, ran=True)[0] == "refused"
    assert judge([paused], running=True, ran=True)[0] == "running"


def test_red_is_before_yellow_before_green() -> None:
    levels = [level_of(state) for state in GraphHealth]
    assert levels == sorted(levels, key=list(Level).index)


def test_alerts_and_saved_views_go_by_the_same_definition() -> None:
    alerts = (ROOT / "ops/alerts.yml").read_text("utf-8")
    for names in ALERTS.values():
        for name in names:
            assert f"alert: {name}\n" in alerts
    views = (ROOT / "docs/web-ui.md").read_text("utf-8")
    for query in SAVED_VIEWS.values():
        assert query in views
    unwell = [state for state in GraphHealth if level_of(state) is not Level.GREEN]
    assert set(unwell) - ALERTS.keys() == {
        GraphHealth.HALTED,
        GraphHealth.WAITING,
        GraphHealth.NO_ALIAS,
        GraphHealth.KEPT_TOO_LONG,
    }
