"""pytest fixtures: one Temporal dev server per session, and names of a test's own on it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from uuid import uuid4

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from syncline import names
from syncline.devstack.temporal_server import temporal_binary

__all__ = [
    "start_temporal",
    "temporal_client",
    "temporal_environment",
    "temporal_server",
    "unique",
]

_names = count(1)


@asynccontextmanager
async def start_temporal() -> AsyncIterator[WorkflowEnvironment]:
    """Yield a Temporal dev server with our search attributes, on a free port; stop it at the end."""
    declared = (f"{name}={kind}" for name, kind in names.SEARCH_ATTRIBUTES.items())
    environment = await WorkflowEnvironment.start_local(
        data_converter=pydantic_data_converter,
        dev_server_existing_path=str(temporal_binary()),
        dev_server_log_level="error",
        dev_server_extra_args=[part for item in declared for part in ("--search-attribute", item)],
    )
    async with environment:
        yield environment


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal_server() -> AsyncIterator[WorkflowEnvironment]:
    """A Temporal dev server with our search attributes, on a free port; stopped at the end of the session."""
    async with start_temporal() as environment:
        yield environment


@pytest.fixture(scope="session")
def temporal_client(temporal_server: WorkflowEnvironment) -> Client:
    """A client of that server."""
    return temporal_server.client


@pytest.fixture(scope="session")
def temporal_environment(temporal_server: WorkflowEnvironment) -> dict[str, str]:
    """The `TEMPORAL_*` variables with which a subprocess (`temporal`, `worker.py`) reaches that server."""
    client = temporal_server.client
    return {
        "TEMPORAL_ADDRESS": client.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": client.namespace,
    }


@pytest.fixture
def unique() -> Callable[[str], str]:
    """A function `(word) -> name` for task queues, graphs and workflow ids that no other test uses."""
    session = uuid4().hex[:8]
    return lambda word: f"{word}-{session}-{next(_names)}"
