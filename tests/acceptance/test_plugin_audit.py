"""Plugins as their authors make them: from an empty folder, and the example; built, installed, checked, tested."""

import os
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.wheels import build_wheel, make_environment

ROOT = Path(__file__).parents[2]
[WALK] = re.findall(
    r"<!-- test: walk -->\n```sh\n(.*?)```", (ROOT / "docs" / "providers.md").read_text(), re.DOTALL
)


@dataclass(frozen=True)
class Workplace:
    """An author's: an environment with the wheels of Syncline and of the example, and folders beside it."""

    folder: Path
    python: Path

    def sh(self, script: str, *, folder: str = ".", **environment: str) -> str:
        """Run a script as the author's shell would, with that environment activated."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder / folder,
            env=os.environ
            | {
                "PATH": f"{self.python.parent}:{os.environ['PATH']}",
                "MYPY_CACHE_DIR": str(self.folder / "mypy"),
            }
            | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=240,
        )
        assert done.returncode == 0, f"{script}\nexited {done.returncode}:\n{done.stdout}"
        return done.stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("author")
    example = shutil.copytree(ROOT / "examples" / "plugin-audit", folder / "plugin-audit")
    wheels = [build_wheel(project, folder / "wheels") for project in (ROOT, example)]
    return Workplace(folder, make_environment(folder / "environment", *wheels))


@pytest.mark.proof
def test_the_walk_of_the_docs_leads_to_a_provider_that_conforms(workplace: Workplace) -> None:
    # Of the suite, what shows that it runs, without the plugins of pytest that are here; that the engine
    # conforms is shown elsewhere.
    plain = "-W error -p no:asyncio -p no:timeout -p no:xdist"
    said = workplace.sh(WALK, PYTEST_ADDOPTS=f"{plain} -k 'contract or ties'")
    assert "2 passed" in said
    assert "Success: no issues found" in said
    [wheel] = (workplace.folder / "acme-sync" / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {"acme_sync/__init__.py", "acme_sync/py.typed"} <= set(archive.namelist())


@pytest.mark.long("unit/test_registry.py::test_builtins_and_plugins_come_through_one_door")
def test_a_registry_loads_what_is_installed(workplace: Workplace) -> None:
    said = workplace.sh(
        """python - <<'PYTHON'
import syncline
from syncline.registry import Registry
registry = Registry()
registry.load()
print(syncline.__file__)
print([(found.provider.id, found.distribution) for found in registry.registered()], registry.problems)
PYTHON"""
    )
    assert str(workplace.folder / "environment") in said, (
        "it must be the wheel's Syncline, not the checkout's"
    )
    assert "('audit', 'syncline-audit 0.1.0')" in said
    assert said.rstrip().endswith("] ()")


@pytest.mark.proof
def test_the_example_is_strictly_typed_from_the_outside(workplace: Workplace) -> None:
    said = workplace.sh("python -m mypy", folder="plugin-audit")
    assert "Success: no issues found" in said


@pytest.mark.proof
def test_the_example_passes_its_own_tests(workplace: Workplace) -> None:
    said = workplace.sh("python -m pytest -q -p no:cacheprovider", folder="plugin-audit")
    assert re.search(r"^\d+ passed in ", said, re.MULTILINE), said
