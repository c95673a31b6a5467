"""The house stands: names that nobody else owns, a wheel that installs one of them, modules of one noun."""

import ast
import importlib.util
import re
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from tests.kit.house import long_modules

ROOT = Path(__file__).parents[2]
APPLICATION = ("activities", "providers", "worker", "workflows")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The paths inside a wheel that is built from this tree."""
    [built] = WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]
    )
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def _files(*tops: str) -> set[str]:
    """The files of the tree below these, relative to it."""
    found = (path for top in tops for path in (ROOT / top, *(ROOT / top).rglob("*")))
    return {
        path.relative_to(ROOT).as_posix()
        for path in found
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("name", APPLICATION)
def test_no_installed_distribution_owns_a_name_of_the_application(name: str) -> None:
    assert packages_distributions().get(name) is None


@pytest.mark.parametrize("name", APPLICATION)
def test_a_name_of_the_application_means_this_tree(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)


def test_the_wheel_installs_one_name(wheel: set[str]) -> None:
    tops = {path.split("/", 1)[0] for path in wheel}
    [info] = [top for top in tops if top.endswith(".dist-info")]
    assert tops == {"syncline", info}
    assert {f"{info}/METADATA", f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"} <= wheel


def test_the_wheel_holds_every_file_of_the_library_and_of_the_application(wheel: set[str]) -> None:
    library = _files("syncline")
    application = _files("activities", "providers", "workflows", "worker.py", "temporal-dev.yaml")
    inside = {f"syncline/application/{path}" for path in application}
    assert {path for path in wheel if path.startswith("syncline/")} == library | inside
    assert "syncline/py.typed" in library
    assert any(path.startswith("syncline/engine/sql/") and path.endswith(".sql") for path in library)


def test_the_sdist_holds_what_the_wheel_is_built_from(tmp_path: Path) -> None:
    [built] = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(built) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames()}
    project = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    parts = ("syncline", "activities", "providers", "workflows", "worker.py", "temporal-dev.yaml")
    assert held - {"PKG-INFO", ".gitignore"} == _files(*parts) | project


def test_the_runtime_needs_no_servers_and_no_test_tools() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime, everything = map(_pins, ("constraints-runtime.txt", "constraints.txt"))
    assert runtime <= everything, "run `make constraints`"
    pinned = {pin.split("==")[0] for pin, _ in runtime}
    extras = project["optional-dependencies"]
    needed, brought = (
        {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in requirements}
        for requirements in (project["dependencies"] + extras["tracing"], extras["dev-stack"])
    )
    assert needed <= pinned
    assert not {*brought, "pytest", "hypothesis", "mypy", "ruff"} & pinned


def test_the_chart_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = yaml.safe_load((ROOT / "ops/chart/Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])


def _pins(file: str) -> set[tuple[str, str]]:
    """The versions that a file pins, each with its hash."""
    text = (ROOT / file).read_text(encoding="utf-8")
    assert "://" not in text
    pins = [(pin, re.findall(r"--hash=(\S+)", pin)) for pin in re.split(r"\n(?=\S)", text.strip())]
    assert all(hashes for _, hashes in pins)
    return {(pin.split()[0], digest) for pin, hashes in pins for digest in hashes}


@pytest.mark.parametrize("side", ["control", "graph", "write"])
def test_the_wheel_holds_the_revisions_and_their_sql(wheel: set[str], side: str) -> None:
    here = {path for path in wheel if path.startswith(f"syncline/migrations/{side}/")}
    revisions = {path for path in here if "/revision_" in path}
    scripts = {path for path in here if path.endswith(".sql")}
    assert revisions
    assert len(revisions) == len(scripts)


def test_every_revision_runs_a_script_that_exists() -> None:
    for module in (ROOT / "syncline/migrations").glob("*/revision_*.py"):
        number = module.stem.removeprefix("revision_")
        [script] = module.parent.glob(f"{number}_*.sql")
        assert f'"{script.name}"' in module.read_text(encoding="utf-8")
        assert f'"{module.parent.name}_{number}"' in module.read_text(encoding="utf-8")


def _modules() -> list[Path]:
    roots = [ROOT / name for name in ("syncline", "benchmarks", *APPLICATION)]
    found = [path for root in roots for path in root.rglob("*.py")]
    return sorted([*found, ROOT / "worker.py"])


def test_long_modules_say_why() -> None:
    """A module of more than 400 lines says at its top why it is one thing."""
    assert [path for path, _, reason in long_modules(ROOT) if reason is None] == []


def test_every_module_opens_with_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _modules()
        if not path.read_text(encoding="utf-8").lstrip().startswith('"""')
    ]
    assert not silent


def test_worker_only_composes() -> None:
    """It decides, repeats, waits for and catches nothing itself: that is in a room where it can be tested."""
    logic = (ast.While, ast.For, ast.AsyncFor, ast.Try, ast.Raise, ast.ClassDef, ast.Compare)
    tree = ast.parse((ROOT / "worker.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(functions) > 5
    found = [node for function in functions for node in ast.walk(function) if isinstance(node, logic)]
    assert [f"{type(node).__name__} in line {getattr(node, 'lineno', '?')}" for node in found] == []


def test_nobody_imports_the_worker() -> None:
    importing = [
        str(path.relative_to(ROOT))
        for path in _modules()
        if any(
            line.lstrip().startswith(("import worker", "from worker "))
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert not importing
