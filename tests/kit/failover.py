"""A primary with a standby that can be cut off and promoted, as often as a test wants."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
import pytest

from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer

__all__ = ["Failover"]

_STREAMING: Final = "\nwal_level = replica\nmax_wal_senders = 4\nhot_standby = on\n"
_PATIENCE: Final = 120.0


class Failover:
    """Two servers of one history: `primary` is written to, until the other is promoted and takes its place."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._primary = PostgresServer(self._data)
        self._standby: PostgresServer | None = None
        self.primary = self._primary.start()
        self._primary.stop()
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(_STREAMING)
        self.primary = self._primary.start()

    @property
    def _data(self) -> Path:
        return self._folder / f"server{self._number}"

    def add_standby(self) -> None:
        """Start a standby that streams from the primary, which is restarted for it."""
        self._primary.stop()
        source, copy = self._data, self._folder / f"server{self._number + 1}"
        # With its owner: for root, the server runs as somebody else.
        subprocess.run(["cp", "-a", source, copy], check=True)
        (copy / "standby.signal").touch()
        self.primary = self._primary.start()
        with (copy / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"\nprimary_conninfo = 'host={self.primary.socket_dir} user=postgres'\n")
        self._standby = PostgresServer(copy)
        self._copied = self._standby.start()

    def caught_up(self) -> None:
        """Return when the standby has replayed everything that the primary has committed."""
        position = self.primary.psql("SELECT pg_current_wal_insert_lsn()")
        _until(self._copied, f"SELECT pg_last_wal_replay_lsn() >= '{position}'")

    def cut(self) -> None:
        """End the streaming: what the primary commits from now on is lost with it."""
        self._copied.psql("ALTER SYSTEM SET primary_conninfo = ''")
        self._copied.psql("SELECT pg_reload_conf()")
        _until(self._copied, "SELECT count(*) = 0 FROM pg_stat_wal_receiver")

    def promote(self) -> None:
        """Stop the primary and promote the standby."""
        if self._standby is None:
            pytest.fail("there is no standby to promote")
        self._primary.stop()
        self._copied.psql("SELECT pg_promote()")
        _until(self._copied, "SELECT NOT pg_is_in_recovery()")
        self._copied.psql("ALTER SYSTEM RESET primary_conninfo")
        self._primary, self._standby = self._standby, None
        self.primary, self._number = self._copied, self._number + 1

    def restart(self, *, crash: bool) -> None:
        """Start the primary again, after a shutdown or a crash: that loses what was not flushed."""
        if crash:
            postmaster = psutil.Process(int((self._data / "postmaster.pid").read_text().split("\n", 1)[0]))
            postmaster.send_signal(signal.SIGQUIT)
            _until_gone(postmaster)
        else:
            self._primary.stop()
        self.primary = self._primary.start()

    @contextmanager
    def set(self, *settings: str) -> Iterator[None]:
        """Give the primary other settings for a while: those that need no start."""
        for setting in settings:
            self.primary.psql(f"ALTER SYSTEM SET {setting}")
        self.primary.psql("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            for setting in settings:
                self.primary.psql(f"ALTER SYSTEM RESET {setting.split()[0]}")
            self.primary.psql("SELECT pg_reload_conf()")

    def stop(self) -> None:
        """Stop both."""
        if self._standby is not None:
            self._standby.stop()
        self._primary.stop()


def _until_gone(process: psutil.Process) -> None:
    deadline = time.monotonic() + _PATIENCE
    with suppress(psutil.NoSuchProcess):
        # Where nobody reaps orphans, a zombie is all that stays.
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                pytest.fail("the server did not die")
            time.sleep(0.02)


def _until(server: EmbeddedPostgres, condition: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while server.psql(condition) != "t":
        if time.monotonic() > deadline:
            pytest.fail(f"it did not come to: {condition}")
        time.sleep(0.05)
