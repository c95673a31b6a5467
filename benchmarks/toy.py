"""A toy on the same server: the least that two activities under a Schedule cost. `python -m benchmarks.toy`."""

import asyncio
import signal
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.worker import Worker

TASK_QUEUE = "toy"


@activity.defn
async def one() -> str:
    """Do nothing."""
    return "one"


@activity.defn
async def two(given: str) -> str:
    """Do nothing again."""
    return given


@workflow.defn
class Toy:
    """Two activities, one after the other."""

    @workflow.run
    async def run(self) -> str:
        """Run both."""
        limit = timedelta(seconds=30)
        first = await workflow.execute_activity(one, start_to_close_timeout=limit)
        return await workflow.execute_activity(two, first, start_to_close_timeout=limit)


async def serve() -> None:
    """Serve the toy's task queue until SIGTERM."""
    from syncline.temporal.client import connect

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = await connect()
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[Toy], activities=[one, two]):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve())
