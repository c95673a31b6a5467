"""Two hundred graphs after an outage: of Temporal, and of the only worker, each longer than five minutes."""

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest
from pydantic import SecretStr
from temporalio.client import Client

from syncline import names
from syncline.control.graphs import draft_graph
from syncline.control.services import Services
from syncline.devstack.declaration import TemporalDeclaration
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.devstack.temporal_server import TemporalServer
from syncline.settings import Settings
from syncline.temporal.client import GRAPH
from syncline.testing.worker_process import WorkerProcess, environment_of
from tests.kit.command_line import CommandLine
from tests.kit.pages import replace_lines
from tests.kit.ports import free_port

ROOT = Path(__file__).parents[2]
GRAPHS = [f"outage{number:03}" for number in range(200)]
AWAY = float(os.environ.get("SYNCLINE_PROOF_AWAY_SECONDS", "330"))
"""Seconds: longer than the five minutes for which Temporal keeps a poller that has gone. Less is a trial."""
CAUGHT_UP = 15.0
"""Seconds by which an outage may lengthen what the same machine takes for one change in each graph."""


class Caught(NamedTuple):
    """What came after a return."""

    missing: int
    """Graphs in which it was not there after minutes."""
    seconds: float
    """Until what was written meanwhile was there, in every graph."""
    at_once: int
    """Runs that began within fifteen seconds."""
    most: int
    """Runs of one graph that began within a minute."""
    runs: int
    """Runs of all graphs that began within a minute."""


@dataclass
class Fleet:
    """The graphs, their stores, a Temporal server of their own, and how to run a worker."""

    write_dsn: str
    graph_dsn: str
    temporal: TemporalServer
    client: Client
    environment: dict[str, str]
    syncline: CommandLine

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[WorkerProcess]:
        """Run a worker process until the end of this; yield it when it is ready."""
        async with WorkerProcess.running(ROOT / "worker.py", self.environment) as worker:
            await worker.logs("worker ready")
            yield worker

    async def write(self, word: str) -> None:
        """Write a node into each graph's source."""
        statements = "".join(
            f"INSERT INTO {slug}.write_nodes (id, concept) VALUES ('{word}', '{word}');" for slug in GRAPHS
        )
        await self._execute(self.write_dsn, statements)

    async def missing(self, word: str, *, seconds: float) -> int:
        """Wait until that node is visible in every graph; return in how many it is not after these seconds."""
        counted = " UNION ALL ".join(
            f"SELECT count(*) AS n FROM {slug}.nodes WHERE key = '{word}'" for slug in GRAPHS
        )
        deadline = time.monotonic() + seconds
        connection = await asyncpg.connect(self.graph_dsn)
        try:
            while True:
                there = int(await connection.fetchval(f"SELECT sum(n) FROM ({counted}) AS counted"))
                if there == len(GRAPHS) or time.monotonic() > deadline:
                    return len(GRAPHS) - there
                await asyncio.sleep(0.3)  # each look costs CPU that the worker would have
        finally:
            await connection.close()

    async def caught_up(self, word: str, back: datetime) -> Caught:
        """Return what has come since that time, once a minute has passed."""
        missing = await self.missing(word, seconds=150)
        seconds = (datetime.now(UTC) - back).total_seconds()
        await asyncio.sleep(max(0.0, 65 - seconds))
        query = f"WorkflowType = '{names.SYNC_GRAPH}' AND StartTime >= '{back.isoformat()}'"
        started = Counter[str]()
        at_once = 0
        async for run in self.client.list_workflows(query):
            after = run.start_time - back
            if after < timedelta(seconds=60):
                started[run.typed_search_attributes.get(GRAPH) or run.id] += 1
                at_once += after < timedelta(seconds=CAUGHT_UP)
        return Caught(missing, seconds, at_once, max(started.values()), started.total())

    @staticmethod
    async def _execute(dsn: str, statements: str) -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(statements)
        finally:
            await connection.close()


@pytest.mark.proof
@pytest.mark.timeout(2400)
async def test_an_outage_costs_two_hundred_graphs_15_s_more_than_their_changes_do_and_brings_no_herd(
    postgres_server: EmbeddedPostgres,
    new_database: Callable[..., str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    async with _fleet(postgres_server, new_database, tmp_path) as fleet:
        async with fleet.worker() as worker:
            await fleet.write("before")
            assert await fleet.missing("before", seconds=300) == 0
            await asyncio.sleep(20)
            await fleet.write("nothing-away")
            of_nothing = await fleet.caught_up("nothing-away", datetime.now(UTC))
            await fleet.temporal.stop()
            await fleet.write("temporal-away")
            await asyncio.sleep(AWAY)
            assert worker.process.returncode is None, worker.said[-2000:]
            await fleet.temporal.start()
            fleet.client = await fleet.temporal.ready()
            of_temporal = await fleet.caught_up("temporal-away", datetime.now(UTC))
            worker.process.kill()
            await worker.ended()
        await fleet.write("worker-away")
        began = time.monotonic()
        # A graph whose Schedule has started a run says so within a minute; the worker was killed just now.
        await asyncio.sleep(70)
        told = Counter(one["standing"] for one in json.loads((await fleet.syncline("status", "--json")).out))
        doctor = await fleet.syncline("doctor", "--timeout", "1")
        await asyncio.sleep(max(0.0, AWAY - (time.monotonic() - began)))
        async with fleet.worker():
            of_worker = await fleet.caught_up("worker-away", datetime.now(UTC))
    # A cycle that the kill cut off is tried again first, and says so; no graph is `ok` or `running`.
    assert set(told) <= {"no worker", "retrying"}, told
    assert (told.total(), doctor.status) == (len(GRAPHS), 1)
    everything = (of_nothing, of_temporal, of_worker)
    if request.config.getoption("--record-proofs") is not None and AWAY >= 330:
        _record(*everything)
    for caught in everything:
        assert caught.missing == 0, everything
        # One that makes up for what was missed, and the one of its own next interval.
        assert caught.most <= 2, everything
        assert caught.seconds <= of_nothing.seconds + CAUGHT_UP, everything


@asynccontextmanager
async def _fleet(
    postgres: EmbeddedPostgres, new_database: Callable[..., str], folder: Path
) -> AsyncIterator[Fleet]:
    write_dsn, graph_dsn = new_database(), new_database()
    declared = TemporalDeclaration(port=free_port(), ui_port=free_port())
    server = TemporalServer(
        declared, database=folder / "temporal" / "temporal.db", log=folder / "temporal.log"
    )
    await server.start()
    try:
        client = await server.ready()
        settings = Settings(write_dsn=SecretStr(write_dsn), graph_dsn=SecretStr(graph_dsn))
        await _make_graphs(postgres, settings)
        address = {"TEMPORAL_ADDRESS": declared.address, "TEMPORAL_NAMESPACE": declared.namespace}
        environment = environment_of(settings, address, folder)
        environment["SYNCLINE_QDRANT_PATH"] = str(folder / "qdrant")
        yield Fleet(write_dsn, graph_dsn, server, client, environment, CommandLine(address, folder))
    finally:
        await server.stop()


async def _make_graphs(postgres: EmbeddedPostgres, settings: Settings) -> None:
    """Make the schemas of all graphs, each a copy of one that was migrated, and their records."""
    async with Services.open(settings) as services:
        await services.prepare_control()
        pattern = await services.graphs.add(draft_graph({"slug": "pattern", "status": "archived"}))
        await services.prepare_graph(pattern)
    for dsn in (settings.write_dsn, settings.graph_dsn):
        await asyncio.to_thread(_copy_schemas, postgres, dsn.get_secret_value(), GRAPHS)
    async with Services.open(settings) as services:
        for slug in GRAPHS:
            await services.graphs.add(draft_graph({"slug": slug, "schema_name": slug}))


def _copy_schemas(postgres: EmbeddedPostgres, dsn: str, slugs: Sequence[str]) -> None:
    command = [postgres.bin_dir / "pg_dump", "--schema=pattern", "--no-owner", "-d", dsn]
    dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # One transaction each: all at once would need a lock for each of ten thousand relations.
    script = "".join(f"BEGIN;\n{dump.replace('pattern', slug)}\nCOMMIT;\n" for slug in slugs)
    subprocess.run(
        [postgres.bin_dir / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", dsn],
        input=script,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PGOPTIONS": "-c synchronous_commit=off"},
    )


def _record(of_nothing: Caught, of_temporal: Caught, of_worker: Caught) -> None:
    page = ROOT / "docs" / "performance.md"
    lines = [
        "| One change in each of 200 graphs | all visible after | runs in 15 s | in a minute | of a graph |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {what} | {caught.seconds:.1f} s | {caught.at_once} | {caught.runs} | {caught.most} |"
            for what, caught in (
                ("nothing was away", of_nothing),
                (f"after {AWAY:.0f} s without Temporal", of_temporal),
                (f"after {AWAY:.0f} s without a worker", of_worker),
            )
        ),
    ]
    replace_lines(page, "proof:outages", lines)
