"""The open polls of a frozen worker take no task for long: the server closes its dead connection."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from syncline.devstack.declaration import TemporalDeclaration
from syncline.devstack.temporal_server import TemporalServer
from tests.kit.ports import free_port

pytestmark = pytest.mark.proof

POLLER = """
import asyncio, sys
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

@activity.defn
async def work() -> None:
    pass

async def main():
    client = await Client.connect(sys.argv[1])
    async with Worker(client, task_queue="frozen", activities=[work]):
        print("polls", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@workflow.defn(sandboxed=False)
class OneTask:
    """One activity of the worker that is frozen."""

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(
            "work", task_queue="frozen", start_to_close_timeout=timedelta(minutes=5)
        )


async def test_a_frozen_workers_polls_take_no_task_once_a_cycle_would_be_retried(tmp_path: Path) -> None:
    """Twenty seconds is the heartbeat timeout of a cycle. By default they took five of eight tasks then."""
    declared = TemporalDeclaration(port=free_port(), ui_port=free_port())
    server = TemporalServer(declared, database=tmp_path / "temporal.db", log=tmp_path / "temporal.log")
    await server.start()
    client = await server.ready()
    poller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", POLLER, declared.address, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert poller.stdout is not None
        assert await poller.stdout.readline() == b"polls\n"
        await asyncio.sleep(1)
        os.kill(poller.pid, signal.SIGSTOP)
        await asyncio.sleep(20)
        runner = UnsandboxedWorkflowRunner()
        async with Worker(client, task_queue="runs", workflows=[OneTask], workflow_runner=runner):
            runs = [
                await client.start_workflow(OneTask.run, id=f"run-{number}", task_queue="runs")
                for number in range(8)
            ]
            await asyncio.sleep(2)
            pending = [
                activity
                for run in runs
                for activity in (await run.describe()).raw_description.pending_activities
            ]
        states = {activity.state for activity in pending}
        assert len(pending) == len(runs)
        assert states == {PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED}
    finally:
        os.kill(poller.pid, signal.SIGCONT)
        poller.kill()
        await poller.wait()
        await server.stop()
