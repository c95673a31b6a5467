"""From an empty folder and the wheel alone: the stack up, tables of one's own synced, a plugin made and serving."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.check_tutorial import PAGE, STEP, Terminal
from tests.kit.wheels import build_wheel, make_bare_environment

if TYPE_CHECKING:
    from conftest import RunningStack

ROOT = Path(__file__).parents[2]
OWN_TABLES = PAGE[PAGE.index("## Tables of your own") : PAGE.index("## Where to go from here")]
PLUGIN = """
syncline provider new acme-sync
python -m pip install --quiet --disable-pip-version-check ./acme-sync
cd acme-sync && python -m pytest -q -p no:cacheprovider -k 'contract or temporal' && cd ..
"""
SERVING = """
syncline graph add mine --composition '{"sync": {"provider": "acme-sync", "on_missing": "fail"}}'
syncline sync mine
temporal workflow list --limit 1 --query 'SynclineGraph="mine" AND SynclineProvider="acme-sync"'
"""


@pytest.fixture
def empty() -> Iterator[Path]:
    """An empty folder. Not pytest's own: that is closed to the user of Postgres."""
    with tempfile.TemporaryDirectory(prefix="syncline-wheel-") as name:
        yield Path(name)


@contextmanager
def terminal(stack: "RunningStack") -> Iterator[Terminal]:
    """A second terminal in the stack's folder."""
    with subprocess.Popen(
        ["bash", "-e"],
        cwd=stack.folder,
        env={name: value for name, value in stack.environment.items() if name != "PYTHONPATH"},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as shell:
        yield Terminal(shell)
        shell.communicate("exit\n")


@pytest.mark.proof
@pytest.mark.timeout(1200)
def test_the_wheel_is_enough_from_an_empty_folder(
    empty: Path,
    tmp_path: Path,
    stack_of: 'Callable[[Path], AbstractContextManager["RunningStack"]]',
    wait_until: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    began = time.monotonic()

    def tell(what: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{(time.monotonic() - began) / 60:.1f} minutes: {what}")

    wheel = build_wheel(ROOT, tmp_path)
    python = make_bare_environment(empty / ".venv", f"{wheel}[testing]")
    # Another distribution's package of the same name does no harm.
    [site] = (empty / ".venv").glob("lib/python*/site-packages")
    (site / "workflows.py").write_text("raise ImportError('of another distribution')")
    tell("installed")
    with stack_of(empty) as stack:
        tell("the stack is up, its graphs are synced")
        assert f"Starting the worker of the installed Syncline ({site}" in (empty / "output.txt").read_text()
        with terminal(stack) as shell:
            shell.walk(next(STEP.finditer(PAGE)).group())
            shell.walk(OWN_TABLES)
            tell("tables of one's own are synced and verified")
            assert "2 passed" in shell.type(PLUGIN)
            children = stack.record()["children"]
            assert isinstance(children, dict)
            os.kill(children["worker"]["pid"], signal.SIGTERM)  # it is started again, with the plugin

            def serves() -> bool:
                fleet = json.loads(shell.type("command syncline providers --json 2> /dev/null || echo '{}'"))
                return any(each["id"] == "acme-sync" for each in fleet.get("providers", ()))

            wait_until(serves, 60)
            assert "acme-sync" in shell.type("syncline doctor || true; syncline providers")
            said = shell.type(SERVING)
            assert "drained" in said
            assert "Completed" in said
            tell("a plugin was made, tested, installed, and serves a graph")
    assert {entry.name for entry in empty.iterdir()} == {
        ".venv", ".syncline", "acme-sync", "bookshop.yaml", "fewer.yaml", "output.txt",
    }  # fmt: skip
    assert python.exists()
