"""The embedded PostgreSQL through what happens to a development machine."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from syncline.devstack.postgres import PostgresServer
from syncline.errors import DevStackError


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder that the server's own user can reach, and nothing running over it afterwards."""
    with tempfile.TemporaryDirectory(prefix="syncline-pg-") as folder:
        path = Path(folder).resolve() / "data"
        yield path
        PostgresServer(path).stop()


def postmaster(data_dir: Path) -> int:
    """Return the pid of the running server."""
    return int((data_dir / "postmaster.pid").read_text().split("\n", 1)[0])


def test_data_survives_stop_and_start(data_dir: Path) -> None:
    server = PostgresServer(data_dir)
    server.start().ensure_database("kept")
    pid = postmaster(data_dir)
    server.stop()
    server.stop()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert server.start().psql("SELECT 1", "kept") == "1"


@pytest.mark.long("test_a_server_that_was_killed_itself_recovers")
def test_a_server_that_a_killed_process_left_is_taken_over_and_stopped(data_dir: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from syncline.devstack.postgres import PostgresServer; "
        "PostgresServer(Path(sys.argv[1])).start().ensure_database('kept'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(data_dir)])
    assert killed.returncode == -signal.SIGKILL
    pid = postmaster(data_dir)
    server = PostgresServer(data_dir)
    assert server.start().psql("SELECT 1", "kept") == "1"
    assert postmaster(data_dir) == pid
    server.stop()
    assert not (data_dir / "postmaster.pid").exists()


def test_a_server_that_was_killed_itself_recovers(data_dir: Path) -> None:
    PostgresServer(data_dir).start().ensure_database("kept")
    os.kill(postmaster(data_dir), signal.SIGKILL)
    assert PostgresServer(data_dir).start().psql("SELECT 1", "kept") == "1"


def test_a_pid_file_that_names_somebody_else_is_stale(data_dir: Path) -> None:
    server = PostgresServer(data_dir)
    server.start()
    pid_file = data_dir / "postmaster.pid"
    lines = pid_file.read_text().split("\n", 1)
    server.stop()
    # As after a reboot: the pid that is written down belongs to another process by now.
    pid_file.write_text(f"{os.getpid()}\n{lines[1]}")
    assert PostgresServer(data_dir).start().psql("SELECT 1") == "1"


def test_a_folder_that_is_no_data_folder_is_told_with_the_way_out(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "PG_VERSION").write_text("9\n")
    with pytest.raises(DevStackError, match="remove that folder and start again"):
        PostgresServer(data_dir).start()
    (data_dir / "PG_VERSION").unlink()
