"""Servers that no wheel brings, between the product and the embedded Postgres or in its place.

`make test-field` runs what is here; `make test` does not (hence the name of the files, `check_*.py`).
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from syncline.devstack.postgres import EmbeddedPostgres
from tests.kit.ports import free_port


@dataclass(frozen=True, kw_only=True)
class Pooler:
    """A running PgBouncer in front of the embedded Postgres."""

    port: int
    config: Path
    process: "subprocess.Popen[bytes]"

    def set_mode(self, mode: str, *, pool_size: int) -> None:
        """Have it pool in another way from now on, as an operator does with clients at work."""
        text = re.sub(r"(?m)^pool_mode = .*$", f"pool_mode = {mode}", self.config.read_text())
        text = re.sub(r"(?m)^default_pool_size = .*$", f"default_pool_size = {pool_size}", text)
        self.config.write_text(text)
        self.process.send_signal(signal.SIGHUP)

    def admit(self, *roles: str) -> None:
        """Let these roles in, too."""
        with (self.config.parent / "users.txt").open("a") as users:
            users.writelines(f'"{role}" ""\n' for role in roles)
        self.process.send_signal(signal.SIGHUP)

    def dsn(self, database: str) -> str:
        """Return the connection URI of a database through the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def through(self, dsn: str) -> str:
        """Return the connection URI, through the pooler, of the database that a direct one names."""
        return self.dsn(urlsplit(dsn).path.removeprefix("/"))


@pytest.fixture
def pooler(postgres_server: EmbeddedPostgres) -> Iterator[Callable[..., Pooler]]:
    """A function `(mode, *, pool_size=1, **settings) -> Pooler`; each one ends with the test.

    Everything that is not given is as PgBouncer has it by default.
    """
    with ExitStack() as running:

        def start(mode: str, *, pool_size: int = 1, **settings: object) -> Pooler:
            return running.enter_context(_pgbouncer(postgres_server, mode, pool_size, settings))

        yield start


@contextmanager
def _pgbouncer(
    server: EmbeddedPostgres, mode: str, pool_size: int, settings: dict[str, object]
) -> Iterator[Pooler]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="syncline-pooler-") as name:
        folder = Path(name)
        users = folder / "users.txt"
        users.write_text('"postgres" ""\n')
        written = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": users,
            "pool_mode": mode,
            "default_pool_size": pool_size,
        } | settings
        lines = [f"{key} = {value}" for key, value in written.items()]
        config = folder / "pgbouncer.ini"
        databases = f"[databases]\n* = host={server.socket_dir}\n"
        config.write_text(f"{databases}[pgbouncer]\n" + "\n".join(lines) + "\n")
        folder.chmod(0o755)
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None, "PgBouncer is not installed"
        # It refuses to run as root, and goes on as somebody else if it is told whom.
        someone = ["-u", server.data_dir.owner()] if os.getuid() == 0 else []
        output = folder / "log"
        with output.open("w") as sink:
            process = subprocess.Popen([program, *someone, config], stdout=sink, stderr=subprocess.STDOUT)
        try:
            _wait_for(port, process, output)
            yield Pooler(port=port, config=config, process=process)
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", output: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        assert process.poll() is None, output.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        else:
            return
