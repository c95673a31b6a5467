"""Where fleets live: all servers, schemas for many graphs, one worker process, and meters on each of them."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil
from pydantic import SecretStr
from temporalio.client import Client

from benchmarks.toy import TASK_QUEUE as TOY
from syncline import names
from syncline.control.graphs import draft_graph
from syncline.control.services import Services
from syncline.devstack.declaration import TemporalDeclaration
from syncline.devstack.environment import StackStores, worker_environment
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.devstack.processes import ChildProcess
from syncline.devstack.temporal_server import TemporalServer
from syncline.settings import Settings
from syncline.temporal.task_queues import pollers
from tests.kit.ports import free_port

ROOT = Path(__file__).parents[1]
WRITE, GRAPH = "write", "graph"


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far and MiB now, of one process and the children that it has had."""

    cpu: float
    mib: float


@dataclass
class FleetLab:
    """Servers and a worker, running."""

    folder: Path
    servers: dict[str, EmbeddedPostgres]
    """Database -> its server: one for both, or one each."""
    stores: StackStores
    temporal: ChildProcess
    client: Client
    address: str
    workers: list[ChildProcess] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a worker, or an operator's command, is told."""
        return worker_environment(
            self.stores, {"SYNCLINE_LOG_LEVEL": "WARNING"}, address=self.address, namespace="default"
        )

    @asynccontextmanager
    async def worker(self, *command: str) -> AsyncIterator[ChildProcess]:
        """Run a worker process."""
        log = self.folder / f"{Path(command[-1]).stem}.log"
        child = await ChildProcess.start(
            "the worker", [sys.executable, *command], log=log, cwd=ROOT, env=self.environment
        )
        try:
            await self._served(child)
            yield child
        finally:
            await child.stop(patience=40)
            said = log.read_text().strip()
            if said:
                print(f"{log.name} ended with:\n{said[-2000:]}", flush=True)

    async def _served(self, child: ChildProcess) -> None:
        while child.returncode is None:
            seen = [
                poller.identity
                for queue in (names.TASK_QUEUE, TOY)
                for poller in await pollers(self.client, queue)
            ]
            if any(
                identity.split("@")[0] == str(child.pid) or identity.endswith(f":{child.pid}")
                for identity in seen
            ):
                return
            await asyncio.sleep(0.5)

    async def command(self, *arguments: str) -> float:
        """Run a command of ours and return its seconds."""
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("syncline"), *arguments, env=self.environment, cwd=self.folder
        )
        if await process.wait():
            raise SystemExit(f"syncline {' '.join(arguments)} failed")
        return time.perf_counter() - started

    def postgres_usage(self) -> Usage:
        """Return what PostgreSQL uses, all of its processes together."""
        folders = {server.data_dir for server in self.servers.values()}
        pids = [int((folder / "postmaster.pid").read_text().split()[0]) for folder in folders]
        children = (psutil.Process(pid).children(recursive=True) for pid in pids)
        return usage(*pids, *(child.pid for each in children for child in each))

    async def connections(self) -> Counter[str]:
        """Return how many connections there are, by application."""
        connection = await asyncpg.connect(
            self.servers[GRAPH].dsn(GRAPH), server_settings={"application_name": "benchmark"}
        )
        try:
            rows = await connection.fetch(
                "SELECT application_name AS name, count(*) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND application_name LIKE 'syncline%' GROUP BY 1"
            )
        finally:
            await connection.close()
        return Counter({row["name"]: row["count"] for row in rows})


def usage(*pids: int) -> Usage:
    """Return what these processes use together."""
    cpu = mib = 0.0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
            cpu += times.user + times.system + times.children_user + times.children_system
            mib += process.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            continue
    return Usage(cpu, mib)


@asynccontextmanager
async def fleet_lab(folder: Path, *, apart: bool = False) -> AsyncIterator[FleetLab]:
    """Start PostgreSQL and a Temporal dev server over a database file; stop them at the end.

    `apart`: a PostgreSQL each for the write-db and the graph-db.
    """
    names_of = {WRITE: "postgres", GRAPH: "postgres-graph" if apart else "postgres"}
    started = {name: PostgresServer(folder / name) for name in dict.fromkeys(names_of.values())}
    running = {name: await asyncio.to_thread(server.start) for name, server in started.items()}
    servers = {database: running[name] for database, name in names_of.items()}
    declared = TemporalDeclaration(port=free_port(), ui_port=free_port())
    temporal = TemporalServer(declared, database=folder / "temporal.db", log=folder / "temporal.log")
    try:
        for database, postgres in servers.items():
            postgres.ensure_database(database)
        child = await temporal.start()
        client = await temporal.ready()
        stores = StackStores(
            write_dsn=servers[WRITE].dsn(WRITE),
            graph_dsn=servers[GRAPH].dsn(GRAPH),
            qdrant_path=folder / "qdrant",
        )
        yield FleetLab(folder, servers, stores, child, client, declared.address)
    finally:
        await temporal.stop()
        for server in started.values():
            await asyncio.to_thread(server.stop)


async def make_schemas(lab: FleetLab, slugs: Sequence[str]) -> None:
    """Make the schemas of all graphs, each a copy of one that was migrated: thousands in minutes."""
    settings = Settings(write_dsn=SecretStr(lab.stores.write_dsn), graph_dsn=SecretStr(lab.stores.graph_dsn))
    async with Services.open(settings) as services:
        await services.prepare_control()
        pattern = await services.graphs.add(draft_graph({"slug": "pattern", "status": "archived"}))
        await services.prepare_graph(pattern)
    await asyncio.gather(
        *(asyncio.to_thread(_copy_schema, server, name, slugs) for name, server in lab.servers.items())
    )


def _copy_schema(postgres: EmbeddedPostgres, database: str, slugs: Sequence[str]) -> None:
    dump = subprocess.run(
        [postgres.bin_dir / "pg_dump", "--schema=pattern", "--no-owner", "-d", postgres.dsn(database)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    with (postgres.data_dir.parent / f"{database}.log").open("w") as log:
        psql = subprocess.Popen(
            [postgres.bin_dir / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", postgres.dsn(database)],
            stdin=subprocess.PIPE,
            stdout=log,
            text=True,
            env=os.environ | {"PGOPTIONS": "-c synchronous_commit=off"},
        )
        assert psql.stdin is not None
        for slug in slugs:
            # One transaction each: all at once would need a lock for each of a hundred thousand relations.
            psql.stdin.write(f"BEGIN;\n{dump.replace('pattern', slug)}\nCOMMIT;\n")
        psql.stdin.close()
        if psql.wait():
            raise SystemExit(f"the schemas of {database} could not be made")


async def insert_graphs(lab: FleetLab, slugs: Sequence[str], schedule: str) -> None:
    """Insert the graphs' records, as a product does: by SQL, and nothing else."""
    connection = await asyncpg.connect(lab.stores.graph_dsn)
    try:
        await connection.execute(
            "INSERT INTO syncline.graphs (id, slug, name, status, is_default, schema_name, qdrant_prefix, schedule, composition)"
            " SELECT gen_random_uuid(), slug, slug, 'active', false, slug, slug || '_', $2::jsonb,"
            """ '{"sync": {"provider": "default"}}' FROM unnest($1::text[]) slug""",
            slugs,
            schedule,
        )
    finally:
        await connection.close()
