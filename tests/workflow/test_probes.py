"""The probes of a worker: red for each death made on purpose, named with its fix, and green again; else never."""

import asyncio
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from temporalio.service import RPCError

from activities.probes import thread as probes
from activities.probes.board import ProbeAnswer
from activities.probes.thread import probing
from activities.probes.watched import Watched
from activities.sync import SyncActivities
from syncline.capture.listen import listener as listeners
from syncline.control.services import Services
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.errors import SettingsInvalid
from syncline.provider import NullMeter
from syncline.registry import Registry
from syncline.temporal.client import connect
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider
from syncline.testing.worker_process import WorkerProcess, environment_of
from tests.kit.ports import free_port
from tests.kit.proxy import SilentProxy, silent_proxy
from tests.kit.vector_services import QdrantServer
from tests.workflow.test_freshness import SELDOM
from tests.workflow.zoo.installed import install
from worker import listen, serving

ROOT = Path(__file__).parents[2]


_LONGEST = 30.0
"""Seconds within which a death is seen."""


class Gauges(NullMeter):
    """A meter that remembers which checks it was told to be red."""

    def __init__(self) -> None:
        self.red: dict[str, bool] = {}

    def gauge(self, name: str, value: float, **attributes: str) -> None:
        if name == "probe_red":
            self.red[attributes["check"]] = bool(value)


class Probe:
    """What asks a worker's probes, as a kubelet does."""

    def __init__(self, port: int) -> None:
        self.port = port

    def asked(self, path: str) -> ProbeAnswer | None:
        """Return the answer; None if there is none in time."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                status, body = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        except OSError:
            return None
        answer = ProbeAnswer.model_validate_json(body)
        assert status == (503 if answer.red else 200)
        assert all((check.since is not None and check.fix) for check in answer.checks if check.red)
        return answer

    def reds(self, path: str) -> set[str]:
        answer = self.asked(path)
        return {"no answer"} if answer is None else {check.name for check in answer.checks if check.red}

    async def until_red(self, *names: str, path: str = "/readyz", seconds: float = 60) -> None:
        """Return once all these are red."""

        async def red() -> bool:
            return set(names) <= await asyncio.to_thread(self.reds, path)

        await eventually(red, seconds=seconds)

    async def until_green(self, path: str = "/readyz", *, seconds: float = 60) -> None:
        """Return once nothing is red."""

        async def green() -> bool:
            return not await asyncio.to_thread(self.reds, path)

        await eventually(green, seconds=seconds)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes a tenth of its time in production."""
    for name, seconds in {
        "_TICK": 0.1,
        "_SILENT": 2.0,
        "_BETWEEN": 0.3,
        "_SOON": 0.2,
        "_RARELY": 0.5,
        "_LATEST": 2.0,
        "_LISTENER_LOST": 1.0,
        "_LISTENER_SILENT": 20.0,
    }.items():
        monkeypatch.setattr(probes, name, seconds)
    monkeypatch.setattr(listeners, "_LONGEST_PAUSE", 0.5)
    monkeypatch.setattr(listeners, "_SETTLED", 0.5)


class Parts:
    """A worker process in all but the process, with a proxy before each of its servers."""

    def __init__(self, **proxies: SilentProxy) -> None:
        self.proxies = proxies
        self.watched = Watched()
        self.meter = Gauges()
        self.probe = Probe(free_port())


@asynccontextmanager
async def worker_of_parts(lab: SyncLab, server: EmbeddedPostgres, folder: Path) -> AsyncIterator[Parts]:
    unix = next(server.socket_dir.glob(".s.PGSQL.*[0-9]"))
    temporal = int(lab.client.service_client.config.target_host.rpartition(":")[2])
    settings = lab.services.settings
    async with AsyncExitStack() as stack:
        qdrant = stack.enter_context(QdrantServer())
        ports = {
            "write": unix,
            "graph": unix,
            "temporal": temporal,
            "qdrant": int(qdrant.url.rpartition(":")[2]),
        }
        parts = Parts(
            **{name: await stack.enter_async_context(silent_proxy(port)) for name, port in ports.items()}
        )
        settings = settings.model_copy(
            update={
                "write_dsn": SecretStr(parts.proxies["write"].through(settings.write_dsn.get_secret_value())),
                "graph_dsn": SecretStr(parts.proxies["graph"].through(settings.graph_dsn.get_secret_value())),
                "qdrant_url": f"http://127.0.0.1:{parts.proxies['qdrant'].port}",
                "qdrant_path": folder,
                "graceful_shutdown_seconds": 0,
                "blocked_seconds": 1.0,
                "probes": f"127.0.0.1:{parts.probe.port}",
            }
        )
        registry = Registry()
        registry.register("sync", FakeProvider(), "lab 1.0", routed=True)
        client = await connect(address=f"127.0.0.1:{parts.proxies['temporal'].port}", identity=folder.name)
        parts.watched = await stack.enter_async_context(probing(settings, client, parts.meter))
        await parts.probe.until_red("worker", "write-db")
        services = await stack.enter_async_context(Services.open(settings, registry=registry))
        parts.watched.services = services
        await stack.enter_async_context(
            serving(client, services, SyncActivities(services), watched=parts.watched)
        )
        parts.watched.listening = await stack.enter_async_context(listen(client, services))
        parts.watched.serving = True
        yield parts


async def test_probes_are_red_for_each_death_and_green_again(
    idle_lab: SyncLab,
    postgres_server: EmbeddedPostgres,
    postgres_admin: Callable[[str], object],
    soon: None,
    tmp_path: Path,
) -> None:
    """Stores, Temporal, listener, pollers, both kinds of event loops; and nothing else is named meanwhile."""
    await idle_lab.add_graph(prepare=True, schedule=SELDOM)
    async with worker_of_parts(idle_lab, postgres_server, tmp_path / "probed") as parts:
        probe = parts.probe
        await probe.until_green()
        await probe.until_green("/healthz")
        assert set(parts.meter.red.values()) == {False}
        async with idle_lab.services.store("graph", None).driver() as connection:
            kept = await connection.fetch(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncline probe' GROUP BY datname"
            )
        assert {row["count"] for row in kept} == {1}

        for store, check in (("write", "write-db"), ("graph", "graph-db"), ("qdrant", "Qdrant")):
            parts.proxies[store].cut()
            await probe.until_red(check)
            assert parts.meter.red[check]
            assert await asyncio.to_thread(probe.reds, "/healthz") == set()
            parts.proxies[store].mend()
            await probe.until_green()

        async def end_listeners() -> None:
            while True:
                await asyncio.to_thread(
                    postgres_admin,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'syncline listener'",
                )
                await asyncio.sleep(0.05)

        ending = asyncio.create_task(end_listeners())
        await probe.until_red("listener")
        ending.cancel()
        await probe.until_green()

        [room] = parts.watched.rooms
        room._loop.call_soon_threadsafe(time.sleep, 5)
        await probe.until_red("event loop of provider fake", path="/healthz")
        await probe.until_green("/healthz")

        seen: list[set[str]] = []

        def ask_meanwhile() -> None:
            until = time.monotonic() + 4.5
            while time.monotonic() < until:
                seen.append(probe.reds("/healthz"))
                time.sleep(0.2)

        asking = threading.Thread(target=ask_meanwhile)
        asking.start()
        time.sleep(4.5)  # noqa: ASYNC251 # the death that is looked for
        await asyncio.to_thread(asking.join)
        assert {"event loop"} <= set().union(*seen)
        await probe.until_green()

        parts.proxies["temporal"].cut()
        await probe.until_red("Temporal")
        parts.proxies["temporal"].mend()
        await probe.until_green()

        await parts.watched.workers[1].shutdown()
        await probe.until_red("pollers")
        parts.watched.draining = True
        await probe.until_red("worker")
        assert await asyncio.to_thread(probe.reds, "/healthz") == set()


@pytest.mark.long("test_probes_are_red_for_each_death_and_green_again")
async def test_probes_of_a_slow_busy_draining_worker(
    idle_lab: SyncLab,
    temporal_environment: dict[str, str],
    postgres_server: EmbeddedPostgres,
    tmp_path: Path,
) -> None:
    """Stores that answer slowly and a cycle that waits are no death; while draining only readiness is red."""
    settings = idle_lab.services.settings
    graph = await idle_lab.add_graph("default", prepare=True)
    unix = next(postgres_server.socket_dir.glob(".s.PGSQL.*[0-9]"))
    probe = Probe(free_port())
    async with silent_proxy(unix) as proxy:
        environment = environment_of(settings, temporal_environment, tmp_path) | {
            "SYNCLINE_WRITE_DSN": proxy.through(settings.write_dsn.get_secret_value()),
            "SYNCLINE_GRAPH_DSN": proxy.through(settings.graph_dsn.get_secret_value()),
            "SYNCLINE_QDRANT_PATH": str(tmp_path / "qdrant"),
            "SYNCLINE_RECONCILE_SECONDS": "86400",
            "SYNCLINE_PROBES": f"127.0.0.1:{probe.port}",
        }
        async with WorkerProcess.running(ROOT / "worker.py", environment) as worker:
            await probe.until_green()
            writes = idle_lab.services.write_schema(graph)
            async with writes.store.begin() as writer:
                await writer.execute(
                    text(f"INSERT INTO \"{writes.schema}\".write_nodes (id, concept) VALUES ('n', 'c')")
                )
            async with idle_lab.services.store("graph", None).begin() as taken:
                await taken.execute(text(f'LOCK TABLE "{graph.schema_name}".nodes'))
                run = await idle_lab.start(graph)
                proxy.slow = 2.0
                seen: set[str] = set()
                for _ in range(30):
                    seen |= await asyncio.to_thread(probe.reds, "/readyz")
                    await asyncio.sleep(1)
                assert seen == set()
                proxy.slow = 0.0
                worker.process.send_signal(signal.SIGTERM)
                await probe.until_red("worker")
                assert await asyncio.to_thread(probe.reds, "/healthz") == set()
            assert await worker.ended() == 0
        with suppress(RPCError):  # nobody is left to end it, if its cycle took longer
            await run.terminate()


CODEC = """
import pathlib, time
from temporalio.converter import PayloadCodec

class Codec(PayloadCodec):
    async def encode(self, payloads):
        return list(payloads)

    async def decode(self, payloads):
        while pathlib.Path(__file__).with_name("block").exists():
            time.sleep(0.1)
        return list(payloads)
"""
"""A codec of the worker's main event loop, which blocks it while a file is there."""


@pytest.mark.proof
@pytest.mark.timeout(900)
async def test_probes_of_a_process_are_red_within_thirty_seconds_of_each_death(
    idle_lab: SyncLab,
    temporal_environment: dict[str, str],
    postgres_server: EmbeddedPostgres,
    postgres_admin: Callable[[str], object],
    tmp_path: Path,
) -> None:
    """The deployed worker with the product's own patience; a tenth of it is in `make test`."""
    lab, settings = idle_lab, idle_lab.services.settings
    await lab.add_graph(prepare=True, schedule=SELDOM)
    blocking = await lab.add_graph("zoo-sleeper")
    install(tmp_path, "zoo", sleeper="zoo_plugin:Sleeper")
    (tmp_path / "blocking_codec.py").write_text(CODEC, encoding="utf-8")
    block = tmp_path / "block"
    role = lab.unique("probed").replace("-", "_")
    postgres_admin(f"CREATE ROLE {role} LOGIN SUPERUSER")
    ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    listeners_ended = f"{ended} AND application_name = 'syncline listener'"
    unix = next(postgres_server.socket_dir.glob(".s.PGSQL.*[0-9]"))
    temporal = int(temporal_environment["TEMPORAL_ADDRESS"].rpartition(":")[2])
    probe, took = Probe(free_port()), dict[str, float]()
    async with AsyncExitStack() as stack:
        qdrant = stack.enter_context(QdrantServer())
        far = {
            "write": unix,
            "graph": unix,
            "temporal": temporal,
            "qdrant": int(qdrant.url.rpartition(":")[2]),
        }
        proxies = {name: await stack.enter_async_context(silent_proxy(to)) for name, to in far.items()}

        def through(name: str, dsn: SecretStr) -> str:
            return proxies[name].through(dsn.get_secret_value()).replace("postgres@", f"{role}@")

        environment = environment_of(settings, temporal_environment, tmp_path) | {
            "PYTHONPATH": str(tmp_path),
            "TEMPORAL_ADDRESS": f"127.0.0.1:{proxies['temporal'].port}",
            "SYNCLINE_WRITE_DSN": through("write", settings.write_dsn),
            "SYNCLINE_GRAPH_DSN": through("graph", settings.graph_dsn),
            "SYNCLINE_QDRANT_URL": f"http://127.0.0.1:{proxies['qdrant'].port}",
            "SYNCLINE_PAYLOAD_CODEC": "blocking_codec:Codec",
            "SYNCLINE_RECONCILE_SECONDS": "86400",
            "SYNCLINE_PROBES": f"127.0.0.1:{probe.port}",
        }
        worker = await stack.enter_async_context(WorkerProcess.running(ROOT / "worker.py", environment))

        async def red(death: str, check: str, path: str = "/readyz") -> None:
            died = time.monotonic()
            await probe.until_red(check, path=path, seconds=_LONGEST)
            took[death] = round(time.monotonic() - died, 1)

        await probe.until_green()
        for name, check in (
            ("write", "write-db"),
            ("graph", "graph-db"),
            ("qdrant", "Qdrant"),
            ("temporal", "Temporal"),
        ):
            proxies[name].cut()
            await red(f"{check} away", check)
            proxies[name].mend()
            await probe.until_green()

        async def end_listeners() -> None:
            while True:
                await asyncio.to_thread(postgres_admin, listeners_ended)
                await asyncio.sleep(0.2)

        ending = asyncio.create_task(end_listeners())
        await red("listener dead", "listener")
        ending.cancel()
        await probe.until_green()

        postgres_admin(f"ALTER ROLE {role} NOLOGIN")
        postgres_admin(ended)
        await red("pollers stopped", "pollers")
        postgres_admin(f"ALTER ROLE {role} LOGIN")
        await probe.until_green()

        block.touch()
        run = await lab.start(None)
        await red("event loop blocked", "event loop", "/healthz")
        block.unlink()
        await probe.until_green("/healthz")
        with suppress(RPCError):
            await run.terminate()

        await lab.start(blocking)
        await red("provider's thread hung", "event loop of provider zoo-sleeper", "/healthz")

        worker.process.send_signal(signal.SIGSTOP)
        await red("process stopped", "no answer", "/healthz")
        worker.process.send_signal(signal.SIGCONT)
    postgres_admin(f"DROP ROLE {role}")
    sys.stdout.write(f"seconds until red: {took}\n")
    assert len(took) == 9


async def test_probes_address_in_use(
    services: Services, temporal_environment: dict[str, str], tmp_path: Path
) -> None:
    """The error names the setting, and the worker does not start."""
    client = await connect(address=temporal_environment["TEMPORAL_ADDRESS"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = services.settings.model_copy(update={"probes": f"127.0.0.1:{taken.getsockname()[1]}"})
        with pytest.raises(SettingsInvalid, match="SYNCLINE_PROBES"):
            async with probing(settings, client, NullMeter()):
                pass
