"""A laboratory per test: the application's own worker over a control plane, stores and a task queue apart."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.operations import FleetActivities, OperationActivities
from activities.schedules import ScheduleActivities
from activities.sync import SyncActivities
from activities.visibility import VisibilityActivities
from syncline import names
from syncline.control.graphs import GraphDraft
from syncline.control.services import Services
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.errors import SynclineError
from syncline.settings import Settings
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine
from worker import create_operations_worker, create_schedules_worker, create_waits_worker, create_worker


@asynccontextmanager
async def fast_worker(client: Client, services: Services) -> AsyncIterator[Worker]:
    """Run the workers as deployed, but with signs of life that a test need not wait for."""
    activities = SyncActivities(services, beat_seconds=0.2, signal_seconds=0.2)
    schedules = ScheduleActivities(services, beat_seconds=0.2)
    fleet = FleetActivities(services, identity=client.identity)
    async with (
        create_worker(client, activities, services.settings, fleet=fleet) as worker,
        create_schedules_worker(client, schedules, services.settings),
        create_waits_worker(client, VisibilityActivities(services), services.settings),
    ):
        yield worker


@asynccontextmanager
async def serving(lab: SyncLab) -> AsyncIterator[SyncLab]:
    """Run all workers of a process but those of plugins."""
    operations = OperationActivities(lab.services, beat_seconds=0.2)
    async with lab.worker(), create_operations_worker(lab.client, operations, lab.services.settings):
        yield lab


async def _control_plane(dsn: SecretStr, *graphs: GraphDraft) -> None:
    async with Services.open(Settings(write_dsn=dsn, graph_dsn=dsn)) as services:
        await services.prepare_control()
        for graph in graphs:
            await services.graphs.add(graph)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_template(postgres_server: EmbeddedPostgres) -> str:
    """Name of a template database with a migrated control plane."""
    name = "template_control"
    postgres_server.ensure_database(name)
    await _control_plane(SecretStr(postgres_server.dsn(name)))
    return name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kg_templates(
    postgres_server: EmbeddedPostgres, graph_templates: tuple[str, str]
) -> tuple[str, str]:
    """Names of the template databases of a write-db and a graph-db that have one graph, `kg`."""
    write, graph = graph_templates
    name = "template_kg"
    postgres_server.psql(f'CREATE DATABASE "{name}" TEMPLATE "{graph}"')
    await _control_plane(SecretStr(postgres_server.dsn(name)), GraphDraft(slug="kg"))
    return write, name


@asynccontextmanager
async def _services(
    write_dsn: str, graph_dsn: str, unique: Callable[[str], str], folder: Path
) -> AsyncIterator[Services]:
    settings = Settings(
        write_dsn=SecretStr(write_dsn),
        graph_dsn=SecretStr(graph_dsn),
        qdrant_path=folder / "qdrant",
        task_queue=unique("queue"),
        graceful_shutdown_seconds=1,
        pool_size=4,
        linger_seconds=0,
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
    """A laboratory that the tests of a module share, each with graphs of its own; its worker runs.

    In the sandbox, which takes a worker 0.3 s of CPU to start: a laboratory of one test is as deployed.
    """
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
        linger_seconds=0,
        workflow_sandbox=True,
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
        await _forget_schedules(temporal_server.client, services)


async def _forget_schedules(client: Client, services: Services) -> None:
    """Delete the Schedules of this laboratory's graphs that a test has left.

    Nobody will ever serve their runs, and the server would look after all of them until the end of the session.
    """
    with suppress(SynclineError):
        records = await services.graphs.records()
        ours = {names.sync_schedule_id(graph.slug) for graph in records.valid}
        ours.add(names.reconcile_schedules_id(services.settings.task_queue))
        left = [found.id async for found in await client.list_schedules() if found.id in ours]
        for schedule in left:
            with suppress(RPCError):
                await client.get_schedule_handle(schedule).delete()


@pytest_asyncio.fixture(loop_scope="session")
async def services(
    control_template: str, new_database: Callable[..., str], unique: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[Services]:
    async with _services(new_database(), new_database(control_template), unique, tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def lab(
    temporal_client: Client, services: Services, unique: Callable[[str], str]
) -> AsyncIterator[SyncLab]:
    """A laboratory whose workers run."""
    lab = SyncLab(client=temporal_client, services=services, make_worker=fast_worker, unique=unique)
    async with serving(lab):
        yield lab
    await _forget_schedules(temporal_client, services)


@pytest_asyncio.fixture(loop_scope="session")
async def idle_lab(
    temporal_client: Client, services: Services, unique: Callable[[str], str]
) -> AsyncIterator[SyncLab]:
    """A laboratory without a worker: the test starts the ones it needs."""
    yield SyncLab(client=temporal_client, services=services, make_worker=fast_worker, unique=unique)
    await _forget_schedules(temporal_client, services)


@pytest_asyncio.fixture(loop_scope="session")
async def kg_idle(
    temporal_client: Client,
    kg_templates: tuple[str, str],
    new_database: Callable[..., str],
    unique: Callable[[str], str],
    tmp_path: Path,
) -> AsyncIterator[SyncLab]:
    """A laboratory without a worker, over stores that have one graph, `kg`."""
    write, graph = map(new_database, kg_templates)
    async with _services(write, graph, unique, tmp_path) as services:
        yield SyncLab(client=temporal_client, services=services, make_worker=fast_worker, unique=unique)
        # Every such laboratory has a graph of this name on one server: a Schedule that a test leaves, with a
        # run that no worker will ever serve, would be the next test's.
        with suppress(RPCError):
            await temporal_client.get_schedule_handle(names.sync_schedule_id("kg")).delete()
        await _forget_schedules(temporal_client, services)


@pytest_asyncio.fixture(loop_scope="session")
async def kg(kg_idle: SyncLab) -> AsyncIterator[SyncLab]:
    """The same with its workers."""
    async with serving(kg_idle):
        yield kg_idle


@pytest.fixture
def quiet() -> Iterator[None]:
    """The worker of this process says nothing: commands share their stdout with it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def temporal_only(
    temporal_environment: dict[str, str],
    quiet: None,
    tmp_path: Path,
) -> Callable[[SyncLab], CommandLine]:
    """A function that gives the command line for a laboratory: it knows of Temporal, and of no store."""
    return lambda lab: CommandLine({**temporal_environment, "SYNCLINE_TASK_QUEUE": lab.task_queue}, tmp_path)


@pytest.fixture
def with_stores(temporal_environment: dict[str, str], tmp_path: Path) -> Callable[[SyncLab], CommandLine]:
    """A function that gives the command line of somebody who reaches the laboratory's stores too."""

    def command_line(lab: SyncLab) -> CommandLine:
        settings = lab.services.settings
        return CommandLine(
            {
                **temporal_environment,
                "SYNCLINE_TASK_QUEUE": settings.task_queue,
                "SYNCLINE_WRITE_DSN": settings.write_dsn.get_secret_value(),
                "SYNCLINE_GRAPH_DSN": settings.graph_dsn.get_secret_value(),
            },
            tmp_path,
        )

    return command_line


@pytest.fixture
def syncline(services: Services, temporal_environment: dict[str, str], tmp_path: Path) -> CommandLine:
    """The command line of an operator: it knows Temporal and the task queue, and no store."""
    return CommandLine(
        {**temporal_environment, "SYNCLINE_TASK_QUEUE": services.settings.task_queue}, tmp_path
    )
