"""Blue/green by Worker Versioning: every command of docs/deployment.md as it is printed, over two worker processes."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr
from temporalio.client import Client, WorkflowExecutionStatus

from syncline import names
from syncline.control.graphs import Graph, draft_graph
from syncline.control.services import Services
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.messages.sync import SyncGraphResult
from syncline.settings import Settings
from syncline.testing.lab import Run, eventually
from syncline.testing.worker_process import WorkerProcess
from tests.acceptance.rolling import fleet_environment
from tests.workflow.test_worker import cycling, held_up

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- test: ([\w-]+) -->\n```sh\n(.*?)```", PAGE, re.DOTALL))
DEPLOYMENT = "syncline"
QUEUE = "versioned"
EXAMPLE = "sync-graph/world-2026-01-31T11:59:00Z"


def test_every_command_of_a_deployment_is_run_by_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert PAGE.count("```sh") == len(BLOCKS)
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
    async def build(self, build_id: str | None) -> AsyncIterator[WorkerProcess]:
        """Run a worker of this build; None runs one without a version."""
        own = {
            "SYNCLINE_QDRANT_PATH": str(self.folder / str(build_id)),
            "SYNCLINE_RECONCILE_SECONDS": "86400",
            "SYNCLINE_GRACEFUL_SHUTDOWN_SECONDS": "0",
        }
        if build_id is not None:
            own |= {"SYNCLINE_DEPLOYMENT_NAME": DEPLOYMENT, "SYNCLINE_BUILD_ID": build_id}
        async with WorkerProcess.running(ROOT / "worker.py", self.environment | own) as worker:
            await worker.logs('"worker ready"')
            if build_id is not None:
                await eventually(lambda: self.knows(build_id))
            yield worker

    async def knows(self, build_id: str) -> bool:
        """Whether the server has heard of the build, which it has a moment after its worker's first poll."""
        asked = f"temporal worker deployment describe-version --deployment-name {DEPLOYMENT} --build-id {build_id}"
        return "not found" not in await self.sh(f"{asked} 2>&1 || true")

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


@pytest.mark.proof
async def test_blue_gives_way_to_green_and_comes_back(
    services: Services, temporal_client: Client, temporal_environment: dict[str, str], tmp_path: Path
) -> None:
    deployment = Deployment(
        temporal_client, services, fleet_environment(services, temporal_environment, tmp_path), tmp_path
    )
    graph = await services.graphs.add(draft_graph({"slug": "versioned"}))
    await services.prepare_graph(graph)
    async with deployment.build("blue") as blue, AsyncExitStack() as lock:
        on_blue = {str(blue.process.pid)}
        await lock.enter_async_context(held_up(deployment, graph))
        # Before a version is current nobody is given a run, and whoever wonders is told.
        pinned = await deployment.start(graph, "pinned")
        assert "new runs go to none of these versions" in await deployment.sh("syncline doctor || true")
        await deployment.sh(BLOCKS["first"])
        await cycling(pinned)
        async with deployment.build("green") as green:
            on_green = {str(green.process.pid)}
            said = await deployment.sh(BLOCKS["look"])
            assert re.search(r"syncline +green", said)
            assert re.search(r"versioned is polled by .*\(syncline:blue", said)
            await deployment.sh(BLOCKS["ramp"])
            await deployment.sh(BLOCKS["switch"])
            await lock.aclose()
            assert await deployment.served_by(pinned) == on_blue
            assert await deployment.served_by(await deployment.start(graph, "switched")) == on_green
            assert re.search(r"DrainageStatus +drain", await deployment.sh(BLOCKS["drained"]))
            await deployment.sh(BLOCKS["back"])
            assert await deployment.served_by(await deployment.start(graph, "back")) == on_blue
            assert f"{QUEUE}-switched" in await deployment.sh(BLOCKS["of-green"])
            await lock.enter_async_context(held_up(deployment, graph))
            await deployment.sh(BLOCKS["switch"])
            left = await deployment.start(graph, "left")
            await cycling(left)
            green.process.send_signal(signal.SIGTERM)
            await green.ended()
        await lock.aclose()
        # Its workers have gone too early: it waits for them, until somebody moves it.
        await deployment.sh(BLOCKS["back"])
        await deployment.sh(BLOCKS["moved"].replace(EXAMPLE, left.id))
        assert await deployment.served_by(left) > on_blue
        async with held_up(deployment, graph):
            stuck = await deployment.start(graph, "stuck")
            await deployment.sh(BLOCKS["stuck"].replace(EXAMPLE, stuck.id))
            described = await stuck.describe()
        assert described.status is WorkflowExecutionStatus.TERMINATED
        async with deployment.build(None) as bare:
            await deployment.sh(BLOCKS["none"])
            unversioned = await deployment.start(graph, "unversioned")
            assert await deployment.served_by(unversioned) == {str(bare.process.pid)}
