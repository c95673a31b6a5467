"""The command line in this process, with an environment of its own: what a command says, and how it ends."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import JsonValue
from typer.testing import CliRunner

from syncline.cli import app
from tests.kit.answers import validated

__all__ = ["CommandLine", "Said"]


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said where."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> JsonValue:
        """What it printed, as JSON."""
        answer: JsonValue = json.loads(self.out)
        return answer


class CommandLine:
    """Runs `syncline` with these variables, and no others of SYNCLINE_* and TEMPORAL_*, in a folder.

    One command at a time: the streams and the environment are the process's.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder

    async def __call__(self, *arguments: str) -> Said:
        """Run a command beside the event loop, where a worker may be at work for it."""
        return await asyncio.to_thread(self._invoke, arguments)

    async def answer(self, command: str, *arguments: str, status: int = 0) -> JsonValue:
        """Run a command with `--json` and return its answer, which its documented schema allows.

        `command` is as in `syncline.cli.answers.ANSWERS`; arguments that are part of it come again.
        """
        words = [word for word in command.split() if word.islower() and not word.startswith("-")]
        said = await self(*words, *arguments, "--json")
        if said.status != status:
            raise AssertionError(f"exit status {said.status}: {said.err or said.out}")
        return validated(command, said.out)

    def _invoke(self, arguments: tuple[str, ...]) -> Said:
        with self._surroundings():
            result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        before, folder = dict(os.environ), Path.cwd()
        root = logging.getLogger()
        configured, handlers, level = structlog.get_config(), list(root.handlers), root.level
        for name in [name for name in os.environ if name.startswith(("SYNCLINE_", "TEMPORAL_"))]:
            del os.environ[name]
        os.environ.update({"COLUMNS": "200", **self._environment})
        os.chdir(self._folder)
        # A worker in this process goes on meanwhile: what it logs is no part of what the command prints.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stdout))
        try:
            yield
        finally:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(before)
            # A command sends logs to its own stderr, which is closed by now.
            structlog.configure(**configured)
            root.handlers[:] = handlers
            root.setLevel(level)
