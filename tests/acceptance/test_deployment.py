"""Blue/green by Worker Versioning: every command of docs/deployment.md as it is printed, over two worker processes."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest_asyncio
from pydantic import SecretStr
from temporalio.client import Client

from syncline import names
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.graphs import Graph, draft_graph
from syncline.messages import SyncGraphResult
from syncline.services import Services
from syncline.settings import Settings
from syncline.testing.lab import Run
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


@pytest_asyncio.fixture(loop_scope="session")
async def services(
    postgres_server: EmbeddedPostgres, new_database: Callable[..., str], tmp_path: Path
) -> AsyncIterator[Services]:
    settings = Settings(
        write_dsn=SecretStr(new_database()),
        graph_dsn=SecretStr(new_database()),
        qdrant_path=tmp_path / "qdrant",
        task_queue=QUEUE,
        pool_size=4,
    )
    async with Services.open(settings) as opened:
        await opened.prepare_control()
        yield opened


@dataclass(frozen=True)
class Deployment:
    """A deployment on the test's server: its workers by build, its runs, and the shell of who deploys."""

    client: Client
    services: Services
    environment: dict[str, str]
    folder: Path

    @asynccontextmanager
    async def build(self, build_id: str) -> AsyncIterator[WorkerProcess]:
        """Run a worker of this build."""
        own = {
            "SYNCLINE_DEPLOYMENT_NAME": DEPLOYMENT,
            "SYNCLINE_BUILD_ID": build_id,
            "SYNCLINE_QDRANT_PATH": str(self.folder / build_id),
            "SYNCLINE_RECONCILE_SECONDS": "86400",
        }
        async with WorkerProcess.running(ROOT / "worker.py", self.environment | own) as worker:
            await worker.says('"worker ready"')
            yield worker

    async def sh(self, script: str) -> str:
        """Run a script as a person's shell would; return what it printed."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-euo",
            "pipefail",
            "-c",
            script,
            env=self.environment | {"PATH": path, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, f"{script}\n{said}"
        return said

    async def start(self, graph: Graph, name: str) -> Run:
        return await self.client.start_workflow(
            names.SYNC_GRAPH,
            {"graph": graph.slug},
            id=f"{QUEUE}-{name}",
            task_queue=QUEUE,
            result_type=SyncGraphResult,
        )

    async def served_by(self, run: Run) -> set[str]:
        """Wait for the run's end; return the workers of its workflow tasks and activities, by pid."""
        async with asyncio.timeout(20):
            await run.result()
        events = (await run.fetch_history()).events
        started = [
            event.activity_task_started_event_attributes
            if event.HasField("activity_task_started_event_attributes")
            else event.workflow_task_started_event_attributes
            for event in events
        ]
        return {found.identity.rpartition(":")[2] for found in started if found.identity}


async def test_blue_gives_way_to_green_and_comes_back(
    services: Services, temporal_client: Client, temporal_environment: dict[str, str], tmp_path: Path
) -> None:
    deployment = Deployment(
        temporal_client, services, environment_of(services, temporal_environment, tmp_path), tmp_path
    )
    graph = await services.graphs.add(draft_graph({"slug": "versioned"}))
    await services.prepare_graph(graph)
    async with deployment.build("blue") as blue:
        on_blue = {str(blue.process.pid)}
        first = await deployment.start(graph, "first")
        said = await deployment.sh("syncline doctor || true")
        assert "new runs go to none of these versions" in said
        await deployment.sh(BLOCKS["first"])
        assert await deployment.served_by(first) == on_blue
        target = await asyncpg.connect(services.settings.graph_dsn.get_secret_value())
        async with target.transaction():
            await target.execute(f"LOCK TABLE {graph.schema_name}.sync_state")
            pinned = await deployment.start(graph, "pinned")
            await asyncio.sleep(0.5)
            async with deployment.build("green") as green:
                pass
