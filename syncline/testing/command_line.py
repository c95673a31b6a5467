"""The command line of a test: `syncline …` in this process, in a folder and an environment of its own."""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

__all__ = ["CommandLine", "Said"]


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said where."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> object:
        """What it printed, which must be one JSON document."""
        return json.loads(self.out)


class CommandLine:
    """Runs commands while the event loop of the test goes on, and with it the worker that they talk to."""

    def __init__(self, environment: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give this process these variables, and no others of ours or of Temporal's."""
        for name in [name for name in os.environ if name.startswith(("SYNCLINE_", "TEMPORAL_"))]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.chdir(folder)

    async def __call__(self, *arguments: str) -> Said:
        """Run `syncline` with these arguments."""
        from syncline.cli import app

        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)
