"""`syncline dev` for real: the sample graphs synced, stopped, started again, killed, and refused."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from syncline.devstack.postgres import PostgresServer
from syncline.devstack.processes import ProcessIdentity
from syncline.devstack.state import StateFolder
from tests.kit.ports import free_port
from tests.kit.processes import working_for

CHECKOUT = Path(__file__).parents[2]
SYNCLINE = Path(sys.executable).with_name("syncline")
GRAPHS = {"world": "world", "world-fallback": "world_fallback"}
WRITE_TABLES = ("write_raw_sources", "write_facts", "write_nodes", "write_edges")
GRAPH_TABLES = ("raw_sources", "facts", "fact_sources", "nodes", "node_facts", "edges", "edge_facts")


@dataclass(frozen=True)
class Stack:
    """A state folder of its own and ports of its own for `syncline dev`."""

    state: Path
    port: int
    ui_port: int

    @property
    def command(self) -> list[str]:
        """The command line; it stands in the checkout."""
        ports = ["--port", str(self.port), "--ui-port", str(self.ui_port)]
        return [str(SYNCLINE), "dev", *ports, "--state-dir", str(self.state)]

    def once(self) -> "subprocess.CompletedProcess[str]":
        """Run `syncline dev --once`, and return how it ended and all that it said."""
        return subprocess.run(
            [*self.command, "--once", "--timeout", "120"],
            cwd=CHECKOUT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=150,
        )

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of ours in the folder of the stack, with no settings but what is there."""
        return subprocess.run(
            [str(SYNCLINE), *arguments],
            cwd=self.state.parent,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )

    @contextmanager
    def live(self) -> "Iterator[subprocess.Popen[str]]":
        """Run `syncline dev` in a process group of its own, as a terminal does; stopped at the end."""
        with subprocess.Popen(
            self.command,
            cwd=CHECKOUT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                # Ctrl-C first, whatever went wrong: a killed stack leaves its servers running.
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)
                    process.communicate(timeout=60)

    def children(self) -> dict[str, ProcessIdentity]:
        """Return the processes that the stack has written down so far."""
        record = StateFolder(self.state).read()
        return {} if record is None else record.children

    def processes(self) -> list[str]:
        """Return the command lines of all processes that work for this stack."""
        return working_for(self.state)

    def logs(self) -> str:
        """Return all that the parts of the stack wrote to their logs."""
        return "".join(log.read_text() for log in sorted(self.state.glob("*.log")))

    def rows(self) -> dict[str, int]:
        """Return the number of rows per table of both databases; the stack must be down."""
        server = PostgresServer(self.state / "postgres")
        postgres = server.start()
        found: dict[str, int] = {}
        try:
            for database, tables in (("syncline_write", WRITE_TABLES), ("syncline_graph", GRAPH_TABLES)):
                counts = " UNION ALL ".join(
                    f"SELECT '{database}.{schema}.{table}', count(*) FROM {schema}.{table}"
                    for schema in GRAPHS.values()
                    for table in tables
                )
                rows = [line.split("|") for line in postgres.psql(counts, database).splitlines()]
                found |= {name: int(count) for name, count in rows}
        finally:
            server.stop()
        return found


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until the condition holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The stack of this module; its state goes from test to test, as it does for a person."""
    # Not pytest's own folder: each pytest that starts closes that to other users, and Postgres, when root
    # starts it, runs as another.
    with tempfile.TemporaryDirectory(prefix="syncline-stack-") as folder:
        yield Stack(Path(folder).resolve() / ".syncline", free_port(), free_port())


@pytest.fixture(scope="module")
def first(stack: Stack) -> "subprocess.CompletedProcess[str]":
    """How the first start over an empty folder ended."""
    return stack.once()


@pytest.fixture(scope="module")
def rows(stack: Stack, first: "subprocess.CompletedProcess[str]") -> dict[str, int]:
    """The rows after the first start."""
    return stack.rows()


@pytest.mark.proof
def test_first_start_syncs_every_graph_and_stops(
    stack: Stack, first: "subprocess.CompletedProcess[str]", rows: dict[str, int]
) -> None:
    assert first.returncode == 0, first.stdout + stack.logs()
    for slug in GRAPHS:
        assert f"{slug}: drained at" in first.stdout
    assert "builtin-engine (fallback)" in first.stdout
    assert "Traceback" not in first.stdout + stack.logs()
    assert stack.processes() == []
    assert len(rows) == 22
    assert all(rows.values()), rows
    for schema in GRAPHS.values():
        for table in ("raw_sources", "facts", "nodes", "edges"):
            there, here = (
                rows[f"syncline_write.{schema}.write_{table}"],
                rows[f"syncline_graph.{schema}.{table}"],
            )
            assert there == here, table


def test_a_taken_port_is_told_and_nothing_is_started(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", stack.ui_port)):
        refused = stack.once()
    assert refused.returncode == 2
    assert refused.stdout.startswith(f"error: Port {stack.ui_port} (Web UI) is taken by")
    assert "--ui-port N" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert stack.processes() == []


@pytest.mark.long("test_a_taken_port_is_told_and_nothing_is_started")
def test_a_folder_in_use_is_told_with_the_pid_of_its_user(stack: Stack) -> None:
    folder = StateFolder(stack.state)
    folder.create()
    with folder.locked():
        refused = stack.once()
    assert refused.returncode == 2
    assert refused.stdout.startswith(f"error: Another `syncline dev` (pid {os.getpid()}) is running over")
    assert "--state-dir" in refused.stdout


@pytest.mark.proof
def test_a_start_after_a_kill_ends_what_was_left_and_syncs(
    stack: Stack, first: "subprocess.CompletedProcess[str]"
) -> None:
    """A guard ends what it ran, also if it is killed at once; without a guard the next start does."""
    with stack.live() as process:
        wait_for(lambda: "worker" in stack.children())
        process.kill()
        process.wait()
    wait_for(lambda: stack.processes() == [])
    with stack.live() as process:
        wait_for(lambda: "worker" in stack.children())
        children = stack.children()
        [guard] = [
            child
            for child in psutil.Process(process.pid).children()
            if "syncline.devstack.guard" in child.cmdline()
        ]
        guard.kill()
        process.kill()
        process.wait()
    assert all(child.process() is not None for child in children.values())
    after = stack.once()
    assert after.returncode == 0, after.stdout + stack.logs()
    assert f"The previous `syncline dev` (pid {process.pid}) was killed; ending its Temporal" in after.stdout
    assert stack.processes() == []


@pytest.mark.proof
@pytest.mark.parametrize("output", ["window", "pipe"])
def test_a_stack_whose_window_or_pipe_is_closed_stops_in_order(
    stack: Stack, first: "subprocess.CompletedProcess[str]", output: str
) -> None:
    """Each step of a stop prints a line, which cannot be written any more."""
    reader, writer = pty.openpty() if output == "window" else os.pipe()
    with subprocess.Popen(
        stack.command, cwd=CHECKOUT, stdin=writer, stdout=writer, stderr=writer, start_new_session=True
    ) as process:
        os.close(writer)
        said = b""
        while b"Starting the worker" not in said:
            said += os.read(reader, 4096)
        wait_for(lambda: "worker" in stack.children())
        os.close(reader)
        if output == "window":
            os.kill(process.pid, signal.SIGHUP)  # by the kernel, where it is the terminal of the session
        assert process.wait(timeout=60) == 0
    assert stack.processes() == []
    assert stack.children() == {}


@pytest.mark.proof
def test_another_start_writes_nothing_and_serves_commands_until_an_interrupt_ends_everything(
    stack: Stack, first: "subprocess.CompletedProcess[str]", rows: dict[str, int]
) -> None:
    with stack.live() as process:
        assert process.stdout is not None
        said: list[str] = []
        killed, totals = False, [0]
        drained: dict[str, str] = {}
        for line in process.stdout:
            said.append(line)
            slug, ended, _ = line.partition(": drained at")
            if ended and slug in GRAPHS:
                drained.setdefault(slug, line)
            if drained.keys() == GRAPHS.keys() and not killed:
                killed = True
                added = stack.cli("graph", "add", "mars")
                assert added.returncode == 0, added.stdout
                assert f"using the stack in .syncline (pid {process.pid})" in added.stdout
                assert "world-fallback" in stack.cli("graph", "list").stdout
                said_of = [stack.cli("status", slug, "--json").stdout for slug in GRAPHS]
                states = [json.loads(text[text.index("{") :])["state"] for text in said_of]
                totals = [state["carried"]["totals"]["rows"] for state in states]
                os.kill(stack.children()["worker"].pid, signal.SIGKILL)
            if "The worker was killed by SIGKILL and was started again" in line:
                break
        children = stack.children()
        # As Ctrl-C does: the whole process group of the terminal gets it.
        os.killpg(process.pid, signal.SIGINT)
        said.append(process.stdout.read())
        assert process.wait(timeout=60) == 0, "".join(said)
    for slug in GRAPHS:
        assert any(line.startswith(f"Graph {slug}: sample world is there already") for line in said)
    assert all(", 0 rows, " in line for line in drained.values()), drained
    assert all(total > 0 for total in totals), totals
    assert "".join(said).endswith("Stopping Temporal.\nStopping PostgreSQL.\nStopped.\n")
    assert children.keys() == {"Temporal", "worker"}
    assert stack.processes() == []
    assert "Traceback" not in "".join(said) + stack.logs()
    assert stack.rows() == rows
