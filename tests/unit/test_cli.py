"""The command line against real databases: what it prints, where, and with which exit status."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from syncline.cli import app
from syncline.devstack.environment import StackStores
from syncline.devstack.processes import ProcessIdentity
from syncline.devstack.state import RunningStack, StateFolder

NOWHERE = "postgresql://nobody:s3cret@127.0.0.1:1/nothing"
Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """A function that runs `syncline` with arguments, in a folder without a stack and without settings."""
    for name in [name for name in os.environ if name.startswith(("SYNCLINE_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return invoke


@pytest.fixture
def stores(new_database: Callable[..., str]) -> StackStores:
    """Two empty databases."""
    return StackStores(write_dsn=new_database(), graph_dsn=new_database(), qdrant_path=Path("qdrant"))


@pytest.fixture
def syncline(invoke: Invoke, stores: StackStores, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """A function that runs `syncline` with settings that name two empty databases."""
    for name, value in stores.environment.items():
        monkeypatch.setenv(name, value)
    return invoke


def test_version_and_help_need_no_settings(invoke: Invoke) -> None:
    assert invoke("--version").stdout.startswith("syncline 0.")
    shown = invoke("--help")
    assert shown.exit_code == 0
    for command in ("dev", "migrate", "graph", "sample"):
        assert command in shown.stdout


def test_the_command_line_starts_without_what_is_heavy() -> None:
    heavy = ("temporalio", "sqlalchemy", "pydantic", "rich.console", "numpy", "qdrant_client", "yaml")
    check = f"import sys, syncline.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_without_settings_names_them_and_the_way_out(invoke: Invoke) -> None:
    refused = invoke("graph", "list")
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: SYNCLINE_WRITE_DSN")
    assert "start `syncline dev`" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_store_that_is_down_is_one_line_without_its_password(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCLINE_WRITE_DSN", NOWHERE)
    monkeypatch.setenv("SYNCLINE_GRAPH_DSN", NOWHERE)
    failed = invoke("graph", "list")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("error: Postgres store 'graph'")
    assert "s3cret" not in failed.output


def test_wrong_usage_is_status_2(invoke: Invoke) -> None:
    assert invoke("graph", "list", "--yaml").exit_code == 2
    assert invoke("sample", "wordnet", "--graph", "g", "--dict", "missing").exit_code == 2


def test_migrate_says_what_it_did_and_then_that_nothing_is_left(syncline: Invoke) -> None:
    first = syncline("migrate")
    assert (first.exit_code, first.stderr) == (0, "")
    assert "control plane: " in first.stdout
    assert "up to date" not in first.stdout
    assert syncline("migrate").stdout == "control plane: up to date\n"


def test_a_graph_is_added_listed_shown_and_ready_for_a_sample(syncline: Invoke) -> None:
    added = syncline(
        "graph", "add", "my-world", "--no-schedule", "--default", "--every-seconds", "30", "--json"
    )
    assert added.exit_code == 0, added.stderr
    record = json.loads(added.stdout)
    assert (record["schema_name"], record["qdrant_prefix"]) == ("my_world", "my_world_")
    assert record["schedule"] == {
        "every_seconds": 30, "cron": None, "notify": True, "adaptive": False, "cadence": [120, 300, 900]
    }  # fmt: skip
    assert record["composition"] == {"sync": {"provider": "default"}}
    assert json.loads(syncline("graph", "list", "--json").stdout) == [record]
    assert json.loads(syncline("graph", "show", record["id"], "--json").stdout) == record
    listed = syncline("graph", "list").stdout.splitlines()
    assert listed[0].split() == [
        "graph",
        "status",
        "schema",
        "qdrant",
        "prefix",
        "provider",
        "schedule",
        "default",
    ]
    assert listed[1].split() == [
        "my-world",
        "active",
        "my_world",
        "my_world_",
        "default",
        "every",
        "30",
        "s",
        "default",
    ]
    assert "slug           my-world" in syncline("graph", "show", "my-world").stdout
    assert syncline("migrate").stdout.splitlines()[1] == "graph my-world: up to date"
    loaded = syncline("sample", "world", "--graph", "my-world")
    assert loaded.exit_code == 0, loaded.stderr
    assert "write_nodes" in loaded.stdout
    assert "to the write-db of graph my-world" in loaded.stdout
    assert "0 rows written" in syncline("sample", "world", "--graph", "my-world").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["Bad"], "error: Graph 'Bad', slug:"),
        (["ok", "--schema", "public"], "'public' is reserved; name another schema"),
        (["ok", "--composition", "{"], "--composition is not JSON"),
        (["ok", "--composition", '{"snyc": {}}'], "error: Graph 'ok': composition key 'snyc' is invalid"),
        (["ok", "--every-seconds", "0"], "error: Graph 'ok', schedule.every_seconds:"),
    ],
)
def test_a_graph_that_breaks_a_rule_is_refused_by_name(
    syncline: Invoke, arguments: list[str], sentence: str
) -> None:
    refused = syncline("graph", "add", *arguments, "--no-schedule")
    assert refused.exit_code == 2
    assert sentence in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_an_unknown_graph_is_refused_by_name(syncline: Invoke) -> None:
    syncline("migrate")
    for command in (["graph", "show", "moon"], ["sample", "world", "--graph", "moon"]):
        refused = syncline(*command)
        assert refused.exit_code == 2
        assert "No graph has the slug or id 'moon'" in refused.stderr


def test_without_temporal_a_graph_is_not_half_added(
    syncline: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    syncline("migrate")
    failed = syncline("graph", "add", "mars")
    assert failed.exit_code == 1
    assert "127.0.0.1:1" in failed.stderr
    assert json.loads(syncline("graph", "list", "--json").stdout) == []


def test_commands_use_the_stack_that_runs_here_and_say_so(
    invoke: Invoke, stores: StackStores, tmp_path: Path
) -> None:
    ourselves = ProcessIdentity.of(os.getpid())
    assert ourselves is not None
    folder = StateFolder(tmp_path / ".syncline")
    folder.create()
    folder.write(RunningStack(dev=ourselves, stores=stores))
    migrated = invoke("migrate")
    assert migrated.exit_code == 0, migrated.stderr
    assert migrated.stderr == f"using the stack in .syncline (pid {os.getpid()})\n"
    assert invoke("graph", "list", "--json").stdout == "[]\n"


def test_dev_refuses_a_wrong_file_before_it_starts_anything(invoke: Invoke, tmp_path: Path) -> None:
    assert "There is no temporal-dev.yaml" in invoke("dev").stderr
    (tmp_path / "temporal-dev.yaml").write_text("temporal: {prot: 1}\n")
    refused = invoke("dev")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: temporal-dev.yaml: temporal.prot: this key is not known")
    assert not (tmp_path / ".syncline").exists()
