"""The listener through a restart of its Postgres, without Temporal: what it hears, what it says of itself."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from syncline.capture.listen import listener as ear
from syncline.capture.listen.listener import Listening
from syncline.control.graphs import Graph, GraphDraft
from syncline.control.services import Services
from syncline.devstack.postgres import PostgresServer
from syncline.provider import NullMeter
from syncline.settings import Settings
from syncline.testing.lab import eventually
from tests.kit.waking import WokenBy


class Measured(NullMeter):
    """A meter that keeps the gauge of the listener, each value once, and the sums of counters."""

    def __init__(self) -> None:
        self.listening: list[float] = []
        self.sums: dict[str, int] = {}

    def gauge(self, name: str, value: float, **attributes: str) -> None:
        assert (name, attributes) == ("listening", {"store": "write"})
        if self.listening[-1:] != [value]:
            self.listening.append(value)

    def count(self, name: str, value: int, **attributes: str) -> None:
        key = " ".join([name, *attributes.values()])
        self.sums[key] = self.sums.get(key, 0) + value


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of this test alone: it is stopped under the listener."""
    with tempfile.TemporaryDirectory(prefix="syncline-pg-") as folder:
        server = PostgresServer(Path(folder) / "data")
        yield server
        server.stop()


async def test_a_restart_of_postgres_is_told_and_outlived(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ear, "_LEAST_PAUSE", 0.1)
    running = server.start()
    for side in ("write", "graph"):
        running.ensure_database(side)
    dsn = running.dsn("write")
    settings = Settings(
        write_dsn=SecretStr(dsn),
        graph_dsn=SecretStr(running.dsn("graph")),
        qdrant_path=tmp_path / "qdrant",
        pool_size=4,
    )
    meter, woken = Measured(), []

    async def wake(graph: Graph) -> str:
        woken.append(graph.slug)
        return "started"

    async def written(node: str) -> None:
        connection = await asyncpg.connect(dsn, server_settings={"search_path": "kg"})
        await connection.execute("INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')", node)
        await connection.close()

    async def heard(times: int) -> bool:
        return len(woken) >= times

    async with Services.open(settings, meter=meter) as services:
        await services.prepare_control()
        graph = await services.graphs.add(GraphDraft(slug="kg", write_store=None))
        await services.prepare_graph(graph)
        with capture_logs() as logs:
            async with Listening(services, WokenBy(wake), namespace="restart"):
                await eventually(lambda: is_true(meter.listening[-1:] == [1]))
                await written("before")
                await eventually(lambda: heard(1))
                server.stop()
                await eventually(lambda: is_true(meter.listening[-1:] == [0]))
                server.start()
                await eventually(lambda: is_true(meter.listening[-1:] == [1]))
                before = len(woken)
                await written("after")
                await eventually(lambda: heard(before + 1))
    assert meter.listening == [0, 1, 0, 1, 0]
    assert meter.sums["notifications write"] >= 2
    assert meter.sums["wakes write started"] == len(woken) >= 2
    told = [entry["event"] for entry in logs if entry["log_level"] != "debug"]
    assert told[0] == told[-1] == "listening"
    assert "notification listener unavailable" in told


async def is_true(value: bool) -> bool:
    return value
