"""pytest fixtures: one Temporal dev server per session, and names of a test's own on it."""

from collections.abc import AsyncIterator, Callable
from itertools import count
from uuid import uuid4

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from syncline.testing.temporal_server import start_temporal

__all__ = [
    "start_temporal",
    "temporal_client",
    "temporal_environment",
    "temporal_server",
    "unique",
]

_names = count(1)


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
