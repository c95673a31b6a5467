"""Cycles that meet on one graph: report a lock without an open run, and trigger the run that a cycle owes."""

from datetime import UTC, datetime

from temporalio import activity

from syncline.errors import TemporalUnavailable
from syncline.logs import get_log
from syncline.messages.sync import SyncCycleRequest, SyncResult
from syncline.temporal.runs import run_at_work
from syncline.temporal.schedules.trigger import trigger_run

__all__ = ["trigger_next", "with_holder"]


async def with_holder(request: SyncCycleRequest, result: SyncResult, *, run_id: str) -> SyncResult:
    """Return the result of a cycle that found the lock taken, with `unowned`, `blocked` and its lag set."""
    seen, unowned = request.seen_up_to, False
    try:
        at_work = await run_at_work(activity.client(), request.graph.slug, but=run_id)
        unowned = at_work is None
    except TemporalUnavailable as error:
        get_log().warning("open run could not be looked up", reason=str(error))
    lag = 0.0 if seen is None else max(0.0, (datetime.now(UTC) - seen).total_seconds())
    blocked = unowned and request.unowned_runs > 0
    if blocked:
        holder = result.holder
        get_log().warning(
            "graph blocked: its lock is taken and no run of it is open",
            runs=request.unowned_runs + 1,
            pid=None if holder is None else holder.pid,
        )
    return result.model_copy(
        update={"unowned": unowned, "blocked": blocked, "lag_seconds": lag, "lag_known": seen is not None}
    )


async def trigger_next(graph: str, *, task_queue: str) -> None:
    """Trigger the graph's Schedule: a run found the lock taken, and this cycle could not capture again."""
    try:
        outcome = await trigger_run(activity.client(), graph, task_queue=task_queue)
    except TemporalUnavailable as error:
        get_log().warning("owed run could not be triggered", reason=str(error))
    else:
        get_log().info("owed run triggered", schedule=outcome)
