"""One development stack for the acceptance tests, started as a person starts it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from pydantic import SecretStr

from syncline.samples import WordNet, load_sample
from syncline.stores.postgres import PostgresStore
from tests.kit.ports import free_port
from tests.kit.processes import working_for
from tests.kit.small_wordnet import write_small_wordnet

CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RUNNING = pytest.StashKey[ExitStack]()


@dataclass(frozen=True)
class RunningStack:
    """A running `syncline dev`, its folder and its Temporal."""

    process: "subprocess.Popen[str]"
    folder: Path
    """Where a person would stand: everything of the checkout, and `.syncline` of this stack."""
    port: int
    ui_port: int

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

    def sql(self, store: str, schema: str, sql: str) -> list[asyncpg.Record]:
        """Ask one of the stack's databases, `write_dsn` or `graph_dsn`."""

        async def ask() -> list[asyncpg.Record]:
            stores = self.record()["stores"]
            assert isinstance(stores, dict)
            connection = await asyncpg.connect(stores[store], server_settings={"search_path": schema})
            try:
                return list(await connection.fetch(sql))
            finally:
                await connection.close()

        return asyncio.run(ask())

    def load_small_sample(self, folder: Path) -> int:
        """Load a sample of a few rows into the graph `world`, as its writer; return how many."""
        write_small_wordnet(folder)

        async def load() -> int:
            stores = self.record()["stores"]
            assert isinstance(stores, dict)
            dsn = SecretStr(stores["writer_dsn"])
            store = PostgresStore("write", dsn, pool_size=1, application_name="syncline-test")
            try:
                return sum((await load_sample(store, "world", WordNet(folder))).values())
            finally:
                await store.close()

        return asyncio.run(load())

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
        assert working_for(self.state) == []

    def worker_log(self) -> str:
        """Return all that the worker has logged."""
        return (self.state / "worker.log").read_text()


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """A function `(condition, seconds)` that waits for the condition, or fails."""

    def wait(condition: Callable[[], object], seconds: float = 60) -> None:
        # Most ask by a process of `temporal`: ever more rarely.
        deadline, pause = time.monotonic() + seconds, 0.1
        while not condition():
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(pause)
            pause = min(1.5 * pause, 0.8)

    return wait


@pytest.fixture(scope="session")
def whole_sample() -> None:
    """For a test that reads the whole sample: the stack of a session that has one such test loads it."""


@pytest.fixture(scope="session")
def running_stack(
    request: pytest.FixtureRequest, wait_until: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningStack]:
    """A stack whose graphs have completed a cycle; stopped by Ctrl-C after the last test that has it.

    `world` has a sample, `world-fallback` none. All 70,705 rows of the sample that is declared would be 24 s of CPU more
    for each: `make test-ui` has them in one, `make test-walks` in both.
    """
    # The folder borrows the checkout's .venv: a `make` in there must find it up to date, or it would fill it
    # again from there.
    subprocess.run(["make", "--silent", "setup"], cwd=CHECKOUT, check=True)
    whole = any("whole_sample" in getattr(item, "fixturenames", ()) for item in request.session.items)
    with clone() as folder:
        declared = yaml.safe_load((CHECKOUT / "temporal-dev.yaml").read_text())
        del declared["graphs"]["world-fallback"]["sample"]
        if not whole:
            del declared["graphs"]["world"]["sample"]
        (folder / "temporal-dev.yaml").unlink()
        (folder / "temporal-dev.yaml").write_text(yaml.safe_dump(declared))
        with ExitStack() as running:
            stack = running.enter_context(started(folder, (free_port(), free_port()), wait_until))
            if not whole:
                rows = stack.load_small_sample(tmp_path_factory.mktemp("wordnet"))
                query = f'SynclineGraph="world" AND SynclineRows={rows} AND ExecutionStatus="Completed"'
                wait_until(lambda: stack.temporal("workflow", "list", "--query", query))
            request.config.stash[RUNNING] = running
            yield stack


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Stop the stack after the last test that has it: its servers would go on working until the end of all tests."""
    yield
    users = [each for each in item.session.items if "running_stack" in getattr(each, "fixturenames", ())]
    if users[-1:] == [item] and RUNNING in item.config.stash:
        item.config.stash[RUNNING].close()


@contextmanager
def clone() -> Iterator[Path]:
    """A folder with everything of the checkout. Not pytest's own: that is closed to the user of Postgres."""
    with tempfile.TemporaryDirectory(prefix="syncline-stack-") as name:
        folder = Path(name)
        for entry in CHECKOUT.iterdir():
            if entry.name not in (".syncline", ".git"):
                (folder / entry.name).symlink_to(entry)
        yield folder


@contextmanager
def started(folder: Path, ports: tuple[int, int], wait_until: Callable[..., None]) -> Iterator[RunningStack]:
    """A stack over a folder that `clone` made, until its end."""
    output = folder / "output.txt"
    options = ["--port", str(ports[0]), "--ui-port", str(ports[1]), "--state-dir", folder / ".syncline"]
    with output.open("w") as sink:
        process = subprocess.Popen(
            [folder / ".venv" / "bin" / "syncline", "dev", *options],
            cwd=folder,
            text=True,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    stack = RunningStack(process, folder, *ports)
    try:

        def synced() -> bool:
            said = output.read_text()
            assert process.poll() is None, said
            return "world: drained" in said and "world-fallback: drained" in said

        wait_until(synced, 200)
        yield stack
        stack.stop()
    finally:
        # Ctrl-C first, whatever went wrong: a killed stack leaves its servers running.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)


@pytest.fixture
def stack_of(wait_until: Callable[..., None]) -> Callable[[Path], AbstractContextManager[RunningStack]]:
    """A function that starts the stack by what is installed in a folder's `.venv`."""
    return lambda folder: started(folder, (free_port(), free_port()), wait_until)


@pytest.fixture(scope="session")
def newcomer(wait_until: Callable[..., None]) -> Iterator[Callable[[], AbstractContextManager[RunningStack]]]:
    """A clone where what is installed stays in there; a function that starts its stack, also once more."""
    ports = (free_port(), free_port())
    with clone() as folder:
        own = folder / ".venv"
        own.unlink()
        venv.create(own, with_pip=False, symlinks=True)
        [borrowed] = (CHECKOUT / ".venv").glob("lib/python*/site-packages")
        [site] = own.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(f"import site; site.addsitedir({str(borrowed)!r})\n")
        for script in (CHECKOUT / ".venv" / "bin").iterdir():
            if not (own / "bin" / script.name).exists():
                text = script.read_bytes()
                if text.startswith(b"#!"):
                    _, rest = text.split(b"\n", 1)
                    (own / "bin" / script.name).write_bytes(f"#!{own}/bin/python\n".encode() + rest)
                    (own / "bin" / script.name).chmod(0o755)
                else:
                    (own / "bin" / script.name).symlink_to(script)
        yield partial(started, folder, ports, wait_until)
