"""Blue/green by Worker Versioning: every command of docs/deployment.md as it is printed, over two worker processes."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from syncline import names
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.graphs import Graph, draft_graph
from syncline.services import Services
from syncline.settings import Settings
from syncline.testing.lab import Run, eventually
from syncline.testing.worker_process import WorkerProcess
from tests.acceptance.rolling import environment_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- test: ([\w-]+) -->\n```sh\n(.*?)```", PAGE, re.DOTALL))
DEPLOYMENT = "syncline"
QUEUE = "versioned"


def test_every_command_of_a_deployment_is_run_by_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    printed = re.findall(r"^temporal worker deployment .*$", PAGE, flags=re.MULTILINE)
    assert printed
    assert [line for line in printed if not any(line in block for block in BLOCKS.values())] == []
    assert [name for name in BLOCKS if f'BLOCKS["{name}"]' not in source] == []
