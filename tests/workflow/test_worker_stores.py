"""A worker and the stores that its settings name: refused, away, of another role than its neighbour's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from activities.sync import SyncActivities
from syncline.control.readiness import log_in
from syncline.control.services import Services
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.errors import StoreUnusable
from syncline.operator.health.examine import examine
from syncline.registry import Registry
from syncline.settings import Settings
from syncline.temporal.client import connect
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider
from syncline.testing.worker_process import WorkerProcess, environment_of
from tests.kit.ports import free_port
from worker import serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def role(
    postgres_admin: Callable[[str], object], unique: Callable[[str], str]
) -> Iterator[Callable[[str], str]]:
    """A function that makes a role with these attributes and returns its name; dropped after the test."""
    made: list[str] = []

    def make(attributes: str) -> str:
        name = unique("role").replace("-", "_")
        postgres_admin(f"CREATE ROLE {name} {attributes}")
        made.append(name)
        return name

    yield make
    for name in made:
        postgres_admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'")
        postgres_admin(f"DROP ROLE {name}")


def as_role(dsn: SecretStr, name: str) -> SecretStr:
    return SecretStr(dsn.get_secret_value().replace("postgres@", f"{name}@"))


@asynccontextmanager
async def worker_over(lab: SyncLab, folder: Path, **changed: object) -> AsyncIterator[Services]:
    """All workers of a process, over the laboratory's stores but for what is changed."""
    settings = lab.services.settings.model_copy(
        update={"graceful_shutdown_seconds": 0, "qdrant_path": folder, **changed}
    )
    registry = Registry()
    registry.register("sync", FakeProvider(), "lab 1.0")
    client = await connect(address=lab.client.service_client.config.target_host, identity=folder.name)
    async with (
        Services.open(settings, registry=registry) as services,
        serving(client, services, SyncActivities(services)),
    ):
        yield services


@pytest.mark.long("test_a_worker_says_ready_once_the_stores_answer")
async def test_a_worker_with_a_wrong_role_fails_no_run_of_the_others(
    idle_lab: SyncLab, role: Callable[[str], str], tmp_path: Path
) -> None:
    """Five graphs, one worker that may log in and one whose write-db role may not: all runs end well."""
    lab = idle_lab
    refused = as_role(lab.services.settings.write_dsn, role("NOLOGIN"))
    graphs = [await lab.add_graph(prepare=True) for _ in range(5)]
    async with AsyncExitStack() as stack:
        wrong = await stack.enter_async_context(worker_over(lab, tmp_path / "wrong", write_dsn=refused))
        await stack.enter_async_context(worker_over(lab, tmp_path / "right"))
        results = await asyncio.gather(*(lab.run(graph) for graph in graphs))
        assert {result.result.status.value for result in results} <= {"drained", "idle"}
        assert set(wrong.usability.refused()) <= {"write"}


@pytest.mark.long("test_a_worker_says_ready_once_the_stores_answer")
async def test_a_worker_that_is_refused_takes_no_runs_until_it_is_let_in(
    idle_lab: SyncLab,
    role: Callable[[str], str],
    postgres_admin: Callable[[str], object],
    tmp_path: Path,
) -> None:
    lab = idle_lab
    name = role("LOGIN SUPERUSER")
    mine = as_role(lab.services.settings.write_dsn, name)
    graph = await lab.add_graph(prepare=True)
    async with worker_over(lab, tmp_path / "only", write_dsn=mine) as services:
        assert (await lab.run(graph)).result.failures == 0
        postgres_admin(f"ALTER ROLE {name} NOLOGIN")
        postgres_admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'")
        run = await lab.start(graph)

        async def barred() -> bool:
            return services.usability.barred

        await eventually(barred)
        postgres_admin(f"ALTER ROLE {name} LOGIN")
        assert (await run.result()).result.failures == 0
        assert not services.usability.refused()


async def test_doctor_tells_which_worker_cannot_use_which_store(
    idle_lab: SyncLab, role: Callable[[str], str], tmp_path: Path
) -> None:
    lab = idle_lab
    refused = as_role(lab.services.settings.write_dsn, role("NOLOGIN"))
    async with worker_over(lab, tmp_path / "refused", write_dsn=refused) as services:
        with pytest.raises(StoreUnusable):
            async with services.store("write", None).begin():
                pass

        async def told() -> bool:
            return any(
                worker.unusable and not worker.providers for worker in await lab.services.workers.list()
            )

        await eventually(told)
        health = await examine(
            lab.services, identity="another", namespace="default", asked_at=datetime.now(UTC)
        )
        [check] = [check for check in health.checks if check.name == "worker refused"]
        assert (check.status, "SYNCLINE_WRITE_DSN" in check.found) == ("warn", True)


@pytest.mark.long(
    "test_an_unknown_database_is_this_processes_fault",
    "workflow/test_worker.py::test_a_worker_that_cannot_start_says_why_in_one_sentence",
)
async def test_a_worker_that_a_store_refuses_exits_with_its_setting_named(
    services: Services,
    temporal_environment: dict[str, str],
    role: Callable[[str], str],
    tmp_path: Path,
) -> None:
    settings = services.settings.model_copy(
        update={"write_dsn": as_role(services.settings.write_dsn, role("NOLOGIN"))}
    )
    async with WorkerProcess.running(
        ROOT / "worker.py", environment_of(settings, temporal_environment, tmp_path)
    ) as worker:
        assert await worker.ended() == 2, worker.said
    assert "SYNCLINE_WRITE_DSN" in worker.said
    assert "worker ready" not in worker.said
    assert "Traceback" not in worker.said


async def test_a_worker_says_ready_once_the_stores_answer(
    services: Services,
    temporal_environment: dict[str, str],
    postgres_server: EmbeddedPostgres,
    tmp_path: Path,
) -> None:
    """A store that is away is waited for; what no graph of the system needs is not, and is told."""
    port = free_port()
    socket = next(postgres_server.socket_dir.glob(".s.PGSQL.*[0-9]"))
    database = services.settings.write_dsn.get_secret_value().split("/")[3].partition("?")[0]
    environment = environment_of(services.settings, temporal_environment, tmp_path) | {
        "SYNCLINE_WRITE_DSN": f"postgresql://postgres:h%40nter2@127.0.0.1:{port}/{database}",
        "SYNCLINE_STORES": '{"far": "postgresql://me:h%40nter2@127.0.0.1:1/none"}',
        "SYNCLINE_QDRANTS": '{"gone": {"url": "http://127.0.0.1:1"}}',
        "SYNCLINE_QDRANT_PATH": str(tmp_path / "qdrant"),
        "SYNCLINE_RECONCILE_SECONDS": "86400",
    }
    async with WorkerProcess.running(ROOT / "worker.py", environment) as worker:
        await worker.logs("waiting for a store before polling")
        assert "worker ready" not in worker.said
        async with _forwarding(port, socket):
            await worker.logs('"worker ready"')
            worker.process.terminate()
            assert await worker.ended() == 0
    assert '"name": "far"' in worker.said
    assert '"name": "gone"' in worker.said
    assert "nter2" not in worker.said
    assert "Traceback" not in worker.said


@asynccontextmanager
async def _forwarding(port: int, socket: Path) -> AsyncIterator[None]:
    """Have a TCP port lead to the server's Unix socket."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(socket))
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


async def test_log_in_is_refused_while_another_store_is_away(
    services: Services, role: Callable[[str], str]
) -> None:
    """The refusal is told at once, whatever else is waited for."""
    settings = services.settings.model_copy(
        update={
            "write_dsn": SecretStr("postgresql://me@127.0.0.1:1/none"),
            "graph_dsn": as_role(services.settings.graph_dsn, role("NOLOGIN")),
        }
    )
    async with Services.open(settings) as other:
        with pytest.raises(StoreUnusable) as refused:
            await asyncio.wait_for(log_in(other), 20)
    assert (refused.value.store, refused.value.sqlstate) == ("graph", "28000")


async def test_an_unknown_database_is_this_processes_fault(services: Services) -> None:
    dsn = services.settings.graph_dsn.get_secret_value().replace("/test_", "/nobody_")
    async with Services.open(Settings(write_dsn=SecretStr(dsn), graph_dsn=SecretStr(dsn))) as other:
        with pytest.raises(StoreUnusable) as refused:
            async with other.store("write", None).begin():
                pass
    assert refused.value.sqlstate == "3D000"
    assert "SYNCLINE_WRITE_DSN" in str(refused.value)
    assert not isinstance(refused.value.__cause__, asyncpg.PostgresError)
