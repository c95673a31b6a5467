"""Overviews again and again, for a board: Temporal is read each time, a worker is asked now and then."""

import asyncio
from collections.abc import Sequence
from typing import Final

from temporalio.client import Client

from syncline.temporal.graph_numbers import AnsweredNumbers, ask_numbers
from syncline.temporal.overview import GraphOverview, overview

__all__ = ["OverviewReader"]

_NUMBERS_FOR: Final = 10.0
"""Seconds for which the answer of a worker is shown while no run ends."""


class OverviewReader:
    """Reads overviews again and again. A worker is asked when runs have ended, and every ten seconds."""

    def __init__(
        self, client: Client, *, task_queue: str | None, seconds: float = 5.0, archived: bool = False
    ) -> None:
        self._client, self._task_queue, self._seconds = client, task_queue, seconds
        self._archived = archived
        self._numbers: AnsweredNumbers | None = None
        self._asking: asyncio.Task[AnsweredNumbers] | None = None
        self._asked_at = float("-inf")
        self._ended: dict[str, str] = {}

    async def read(self) -> Sequence[GraphOverview]:
        """Return the overview of now, with a worker's last answer; only the first one is waited for."""
        if self._task_queue is not None:
            await self._ask(self._task_queue)
        found = await overview(
            self._client, task_queue=self._task_queue, numbers=self._numbers, archived=self._archived
        )
        ended = {one.graph: one.last_run.run_id for one in found if one.last_run is not None}
        if ended != self._ended:
            # What has ended may have changed the numbers: the next look asks for them.
            self._ended, self._asked_at = ended, float("-inf")
        return found

    async def _ask(self, task_queue: str) -> None:
        now = asyncio.get_running_loop().time()
        if self._asking is None and now - self._asked_at >= _NUMBERS_FOR:
            self._asked_at = now
            self._asking = asyncio.create_task(ask_numbers(self._client, task_queue, seconds=self._seconds))
        if self._asking is not None and (self._numbers is None or self._asking.done()):
            self._numbers, self._asking = await self._asking, None
