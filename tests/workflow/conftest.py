"""A laboratory per test: the application's own worker over a control plane, stores and a task queue apart."""

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.schedules import ScheduleActivities
from activities.sync import SyncActivities
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.services import Services
from syncline.settings import Settings
from syncline.testing.lab import SyncLab
from worker import create_worker


def fast_worker(client: Client, services: Services) -> Worker:
    """Return the worker as deployed, but with signs of life that a test need not wait for."""
    activities = SyncActivities(services, beat_seconds=0.2, progress_seconds=0.2)
    schedules = ScheduleActivities(services, beat_seconds=0.2)
    return create_worker(client, activities, services.settings, schedules=schedules)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_template(postgres_server: EmbeddedPostgres) -> str:
    """Name of a template database with a migrated control plane."""
    name = "template_control"
    postgres_server.ensure_database(name)
    dsn = SecretStr(postgres_server.dsn(name))
    async with Services.open(Settings(write_dsn=dsn, graph_dsn=dsn)) as services:
        await services.prepare_control()
    return name


@pytest_asyncio.fixture(loop_scope="session")
async def services(
    control_template: str, new_database: Callable[..., str], unique: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[Services]:
    settings = Settings(
        write_dsn=SecretStr(new_database()),
        graph_dsn=SecretStr(new_database(control_template)),
        qdrant_path=tmp_path / "qdrant",
        task_queue=unique("queue"),
        graceful_shutdown_seconds=1,
        pool_size=4,
    )
    async with Services.open(settings) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_lab(
    request: pytest.FixtureRequest,
    temporal_server: WorkflowEnvironment,
    postgres_server: EmbeddedPostgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[SyncLab]:
    """A laboratory that the tests of a module share, each with graphs of its own; its worker runs."""
    name = Path(request.node.path).stem
    numbers = count(1)
    for side in ("write", "graph"):
        postgres_server.ensure_database(f"{name}_{side}")
    settings = Settings(
        write_dsn=SecretStr(postgres_server.dsn(f"{name}_write")),
        graph_dsn=SecretStr(postgres_server.dsn(f"{name}_graph")),
        qdrant_path=tmp_path_factory.mktemp(name) / "qdrant",
        task_queue=name,
        graceful_shutdown_seconds=1,
        pool_size=4,
    )
    async with Services.open(settings) as services:
        await services.prepare_control()
        lab = SyncLab(
            client=temporal_server.client,
            services=services,
            make_worker=fast_worker,
            unique=lambda word: f"{name.replace('_', '-')}-{word}-{next(numbers)}",
        )
        async with lab.worker():
            yield lab


@pytest_asyncio.fixture(loop_scope="session")
async def lab(
    temporal_client: Client, services: Services, unique: Callable[[str], str]
) -> AsyncIterator[SyncLab]:
    """A laboratory whose worker runs."""
    lab = SyncLab(client=temporal_client, services=services, make_worker=fast_worker, unique=unique)
    async with lab.worker():
        yield lab


@pytest_asyncio.fixture(loop_scope="session")
async def idle_lab(temporal_client: Client, services: Services, unique: Callable[[str], str]) -> SyncLab:
    """A laboratory without a worker: the test starts the ones it needs."""
    return SyncLab(client=temporal_client, services=services, make_worker=fast_worker, unique=unique)
