"""What commands say to a person at a terminal: help by `-h`, lines that fit, counts of one, idle cycles."""

import io
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console
from typer.testing import CliRunner

from syncline.cli import app
from syncline.cli.embedding import _plan_lines
from syncline.cli.run_output import did_something, has_news
from syncline.cli.status import status_table
from syncline.cli.tables import print_fields
from syncline.errors import EmbeddingBudgetSpent, EmbeddingChangeRefused
from syncline.messages.embedding import EmbeddingPlan, PlannedEmbedding
from syncline.messages.sync import CycleStatus, SyncResult, TableProgress, VectorProgress
from syncline.misnamed_settings import misnamed
from syncline.operator.embedding_candidate import candidate
from syncline.operator.embedding_state import GraphEmbeddings
from syncline.operator.graph_state import GraphHealth, GraphNumbers, Level, VectorDelay
from syncline.temporal.findings import all_findings, run_findings
from syncline.temporal.graph_numbers import AnsweredNumbers
from syncline.temporal.overview import GraphOverview
from syncline.temporal.runs import ListedRun, RunStatus, StartedBy


def test_help_is_also_h_of_groups_and_commands() -> None:
    for path in ((), ("status",), ("embedding",), ("embedding", "plan")):
        said = CliRunner().invoke(app, [*path, "-h"])
        assert said.exit_code == 0, path
        assert "Usage: " in said.output


def test_long_values_continue_below_themselves_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "sync-graph/a-graph-of-a-rather-long-name-2026-11-30T00:04:55Z-and-longer-still-than-the-line"
    fields = [("run", "completed, started by schedule " * 4), ("", name), ("max_lag_seconds", "-")]
    print_fields(fields)
    plain = capsys.readouterr().out.splitlines()
    assert [line[:16].strip() for line in plain] == ["run", "", "max_lag_seconds"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    print_fields(fields)
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if len(line) > 80] == [" " * 16 + name]
    assert " ".join(" ".join(shown).split()) == " ".join(" ".join(plain).split())


def _result(**changes: object) -> SyncResult:
    return SyncResult.model_validate(
        {"status": CycleStatus.DRAINED, "tables": (), "duration_seconds": 0.1, "vectors": VectorProgress()}
        | changes
    )


def test_a_cycle_that_was_refused_a_row_is_not_told_as_one_without_changes() -> None:
    idle = _result()
    assert not has_news(idle)
    assert not did_something(idle)
    refused = _result(tables=(TableProgress(table="nodes", captured=1, failures=1, dead_letters=1),))
    assert has_news(refused)
    assert did_something(refused)
    standing = _result(tables=(TableProgress(table="nodes", parked=1, dead_letters=1),))
    assert has_news(standing)
    assert not did_something(standing)
    assert did_something(_result(vectors=VectorProgress(upserted=1)))


def test_without_a_record_the_only_embedding_is_no_other_one() -> None:
    one = SimpleNamespace(service=SimpleNamespace(name="e"))
    found = SimpleNamespace(
        services=SimpleNamespace(offered=[one]),
        records={},
        generations=SimpleNamespace(main=1),
        graph=SimpleNamespace(slug="a"),
    )
    with pytest.raises(EmbeddingChangeRefused, match="this worker offers no second embedding"):
        candidate(cast("GraphEmbeddings", found), None)
    found.services.offered.append(SimpleNamespace(service=SimpleNamespace(name="f")))
    assert candidate(cast("GraphEmbeddings", found), None).service.name == "f"


def test_one_is_singular() -> None:
    spent = EmbeddingBudgetSpent(
        "service", scope="graph", whose="graph 'a'", used=418, budget=1, retry_at=datetime.now(UTC), fix="x"
    )
    assert "418 of its 1 token for today" in str(spent)
    plan = EmbeddingPlan(
        graph="a",
        main=PlannedEmbedding(embedding="e", dimensions=1, setting=None),
        second=None,
        obstacles=(),
        points=1,
        texts=1,
        tokens=1,
        tokens_from="ledger",
        seconds=None,
        limited_by=None,
        aliases=(),
    )
    said = "\n".join(_plan_lines(plan))
    assert "1 point, 1 different text\nabout 1 token (" in said
    assert "1 dimension " in said


def test_a_variable_that_is_nearly_a_setting_is_told_and_a_plugins_own_is_not() -> None:
    given = (
        "SYNCLINE_SECOND_EMBEDING",
        "SYNCLINE_SECOND_EMBEDDING_MODLE",
        "SYNCLINE_SECOND_EMBEDDING_MODEL",
        "syncline_embedding",
        "SYNCLINE_AES_KEYS",
        "HOME",
    )
    assert misnamed(given) == {
        "SYNCLINE_SECOND_EMBEDING": "SYNCLINE_SECOND_EMBEDDING",
        "SYNCLINE_SECOND_EMBEDDING_MODLE": "SYNCLINE_SECOND_EMBEDDING_MODEL",
    }


def test_vectors_that_wait_for_another_worker_are_told_by_the_run_that_left_them() -> None:
    """The state tables have no cause of it: it is that worker's settings, and others may have the right ones."""
    now = datetime.now(UTC)
    last = ListedRun(
        workflow_id="w",
        run_id="r",
        graph="a",
        started_by=StartedBy.SCHEDULE,
        status=RunStatus.COMPLETED,
        started_at=now,
        ended_at=now,
        seconds=0.1,
        vectors_delayed=True,
    )

    def states(**numbers: object) -> list[str]:
        told = GraphNumbers.model_validate({"graph": "a", **numbers})
        of_runs = run_findings("a", last, None, None, None)
        answered = AnsweredNumbers(graphs={"a": told})
        return [finding.reason for finding in all_findings(of_runs, "a", answered, last=last, running=False)]

    assert states(pending_points=3) == ["its last run left vectors"]
    assert states(pending_points=0) == []
    again = now + timedelta(seconds=5)
    delay = VectorDelay(collection="nodes", since=now, next_retry_at=again, error="VectorStoreRejected: 401.")
    [reason] = states(pending_points=3, delays=(delay,))
    assert reason.startswith("3 vectors wait: 401.")
    # The last run was due to try again, and did not: what kept it from that is not the cause of before.
    old = delay.model_copy(update={"next_retry_at": now - timedelta(seconds=5)})
    assert states(pending_points=3, delays=(old,))[0] == "its last run left vectors"


def test_a_red_state_is_red_also_where_it_is_mostly_yellow() -> None:
    def shown(level: Level) -> str:
        graph = GraphOverview(graph="a", standing=GraphHealth.VECTORS_DELAYED, level=level)
        written = io.StringIO()
        Console(file=written, force_terminal=True, color_system="standard", width=80).print(
            status_table([graph])
        )
        return written.getvalue()

    assert "\x1b[1;31mvectors delayed" in shown(Level.RED)
    assert "\x1b[33mvectors delayed" in shown(Level.YELLOW)
