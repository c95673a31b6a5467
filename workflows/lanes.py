"""Lanes of a run: the activities that take part in its cycle's loads, beside the cycle."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.loads import LoadActivities
    from syncline import names
    from syncline.messages.base import Fairness
    from syncline.messages.sync import LaneEnd, LaneResult, LanesCalled, LoadRangesRequest
    from syncline.temporal.priorities import WAITING, with_fairness

__all__ = ["RunLanes"]

_LONGEST = timedelta(minutes=10)
"""Longest time of one activity: a minute, and the range that it has begun."""
_MOMENT = timedelta(seconds=2)
"""Time that lanes have to notice that their cycle's loads are over."""
_PAUSE = timedelta(seconds=5)
"""Until a lane is started again that had no time for a range, or failed."""
_FAILURES = 5
"""A lane that has failed more often is left to the cycle: it meets the same, and reports it."""
_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))


class RunLanes:
    """The lanes of one run. `ended` hears of each activity that has ended.

    The cycle needs none of them: one that fails, or that no worker takes, changes nothing.
    """

    def __init__(self, ended: Callable[[LaneResult], None]) -> None:
        self._ended = ended
        self._request: LoadRangesRequest | None = None
        self._fairness: Fairness | None = None
        self._attempt = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, request: LoadRangesRequest, *, fairness: Fairness | None) -> None:
        """Let the cycle that begins now call lanes, by this request."""
        self._request, self._fairness, self._attempt = request, fairness, 0

    def call(self, called: LanesCalled) -> None:
        """Start the lanes that an attempt of the cycle calls: once, and only while it runs."""
        if self._request is None or called.attempt <= self._attempt:
            return
        self._attempt = called.attempt
        for number in range(1, called.lanes + 1):
            request = self._request.model_copy(update={"lane": number, "attempt": called.attempt})
            self._tasks.add(asyncio.create_task(self._run(request)))

    async def end(self) -> None:
        """Return once the lanes have ended: by themselves, or else they are cancelled."""
        self._request = None
        if not self._tasks:
            return
        tasks, self._tasks = self._tasks, set()
        _, late = await workflow.wait(tasks, timeout=_MOMENT.total_seconds())
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, request: LoadRangesRequest) -> None:
        failed = 0
        while self._request is not None and request.attempt == self._attempt:
            try:
                result = await self._once(request)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                workflow.logger.warning("lane failed: %s", error.cause or error)
                return
            self._ended(result)
            failed += result.end is LaneEnd.FAILED
            if result.end in (LaneEnd.DONE, LaneEnd.FENCED) or failed > _FAILURES:
                return
            if result.end is LaneEnd.FAILED or not result.ranges:
                await workflow.sleep(_PAUSE)

    async def _once(self, request: LoadRangesRequest) -> LaneResult:
        return await workflow.execute_activity_method(
            LoadActivities.load_ranges,
            request,
            summary=f"load {request.graph.slug}, lane {request.lane} beside the cycle"[:200],
            task_queue=names.loads_task_queue(workflow.info().task_queue),
            start_to_close_timeout=_LONGEST,
            heartbeat_timeout=timedelta(seconds=20),
            retry_policy=_RETRY,
            priority=with_fairness(WAITING, self._fairness),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
