"""Open runs that do not continue, as their list and the pollers of their task queues tell it."""

import asyncio
from collections.abc import Iterable, Mapping

from temporalio.client import Client

from syncline import names
from syncline.runs.listing import ListedRun
from syncline.stalls import TAKEN_WITHIN, Stall, no_worker, reported
from syncline.task_queues import Poller, live, pollers

__all__ = ["stalls_as_listed"]


async def stalls_as_listed(client: Client, running: Iterable[ListedRun]) -> Mapping[str, Stall]:
    """Return why open runs do not continue, by run id, or raise TemporalUnavailable.

    Seen are runs whose workflow task has failed five times; those that no worker has ever taken up, because
    none has polled since they began; and all of a queue that nobody has polled for 90 seconds.
    """
    waiting = [run for run in running if run.seconds > TAKEN_WITHIN]
    queues = sorted({run.task_queue for run in waiting if run.task_queue})
    found = dict(zip(queues, await asyncio.gather(*(pollers(client, name) for name in queues)), strict=True))
    stalls = {run.run_id: _stall(run, found.get(run.task_queue or "", ())) for run in waiting}
    return {run_id: stall for run_id, stall in stalls.items() if stall is not None}


def _stall(run: ListedRun, found: Iterable[Poller]) -> Stall | None:
    task_queue = run.task_queue
    if task_queue is None:
        return None
    told = reported(
        run.reported_problems,
        task_queue=task_queue,
        workflow_id=run.workflow_id,
        run_id=run.run_id,
        workflow_type=names.SYNC_GRAPH,
    )
    if told is not None:
        return told
    polling = list(found)
    if live(polling) and not any(one.takes_new_runs for one in live(polling)):
        return None  # Of which version the run is, only the run itself says.
    return no_worker(polling, task_queue=task_queue, since=run.started_at)
