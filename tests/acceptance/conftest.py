"""One development stack for the acceptance tests, started as a person starts it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from syncline.testing.ports import free_port

CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class RunningStack:
    """A running `syncline dev`, its folder and its Temporal."""

    process: "subprocess.Popen[str]"
    folder: Path
    """Where a person would stand: everything of the checkout, and `.syncline` of this stack."""
    port: int

    @property
    def state(self) -> Path:
        """The folder that the stack writes to."""
        return self.folder / ".syncline"

    @property
    def environment(self) -> dict[str, str]:
        """What a person's second terminal has."""
        return os.environ | {"TEMPORAL_ADDRESS": f"127.0.0.1:{self.port}", "NO_COLOR": "1"}

    def sh(self, script: str, *, timeout: float = 120) -> str:
        """Run a script as a person's shell would; return what it printed, or fail."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"source .venv/bin/activate\n{script}"],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{script}\nexited {done.returncode}:\n{done.stdout}"
        assert "Traceback" not in done.stdout
        return done.stdout

    def temporal(self, *arguments: str) -> object:
        """Run a `temporal` command and return its JSON."""
        done = subprocess.run(
            [BIN / "temporal", *arguments, "--output", "json"],
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def record(self) -> dict[str, object]:
        """Return what the stack has written down about itself."""
        record: dict[str, object] = json.loads((self.state / "dev.json").read_text())
        return record

    def sync(self, workflow_id: str, graph: str, **options: object) -> dict[str, Any]:
        """Run a graph by hand and return the run's result."""
        message = json.dumps({"graph": graph} | options)
        started = ("--workflow-id", workflow_id, "--input", message)
        shown = self.temporal(
            "workflow", "execute", "--type", "SyncGraph", "--task-queue", "syncline", *started
        )
        assert isinstance(shown, dict)
        assert shown["status"] == "COMPLETED", shown
        result: dict[str, Any] = shown["result"]
        return result

    def stop(self) -> None:
        """Press Ctrl-C, once, and wait; the stack must end well."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        said = (self.folder / "output.txt").read_text
        assert self.process.wait(60) == 0, said()
        assert "Traceback" not in said() + self.worker_log()

    def worker_log(self) -> str:
        """Return all that the worker has logged."""
        return (self.state / "worker.log").read_text()


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """A function `(condition, seconds)` that waits for the condition, or fails."""

    def wait(condition: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(0.2)

    return wait


@pytest.fixture(scope="session")
def stack_folder() -> Iterator[Path]:
    """A folder for a stack. Not pytest's own: that is closed to the user that Postgres runs as under root."""
    with tempfile.TemporaryDirectory(prefix="syncline-stack-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def running_stack(stack_folder: Path, wait_until: Callable[..., None]) -> Iterator[RunningStack]:
    """A stack whose sample graphs have completed a cycle; stopped by Ctrl-C at the end."""
    folder = stack_folder
    # The folder borrows the checkout's .venv: a `make` in there must find it up to date, or it would fill it
    # again from there.
    subprocess.run(["make", "--silent", "setup"], cwd=CHECKOUT, check=True)
    for entry in CHECKOUT.iterdir():
        if entry.name not in (".syncline", ".git"):
            (folder / entry.name).symlink_to(entry)
    port, ui_port = free_port(), free_port()
    state = ("--state-dir", folder / ".syncline")
    output = folder / "output.txt"
    with output.open("w") as sink:
        process = subprocess.Popen(
            [BIN / "syncline", "dev", "--port", str(port), "--ui-port", str(ui_port), *state],
            cwd=folder,
            text=True,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    stack = RunningStack(process, folder, port)
    try:

        def synced() -> bool:
            said = output.read_text()
            assert process.poll() is None, said
            return "world: drained" in said and "world-fallback: drained" in said

        wait_until(synced, 120)
        yield stack
        stack.stop()
    finally:
        # Ctrl-C first, whatever went wrong: a killed stack leaves its servers running.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
