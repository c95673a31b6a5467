"""Blocked graphs: their lock is taken while no run of them is open, so they are not synced."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from temporalio.client import Client

from syncline import names
from syncline.messages.base import LockHolder, Message
from syncline.messages.sync import BLOCKED
from syncline.temporal.runs import list_runs, outcome_of, runs_of

__all__ = ["BlockedGraph", "blocked_graphs"]

_LOOKED_AT: Final = 500
"""Maximum number of newest blocked runs that are read."""
_NEWEST: Final = 20
_AT_ONCE: Final = 8


class BlockedGraph(Message):
    """A blocked graph, by its last run."""

    graph: str
    runs: int = 0
    """Consecutive blocked runs; 0 if the result cannot be read."""
    since: datetime | None = None
    holder: LockHolder | None = None


async def blocked_graphs(client: Client) -> Sequence[BlockedGraph]:
    """Return the graphs whose last ended run found them blocked; raise TemporalUnavailable.

    One request if there was no blocked run lately.
    """
    query = f'{names.ATTRIBUTE_STATUS}="{BLOCKED}"'
    seen = dict.fromkeys([run.graph async for run in list_runs(client, query, limit=_LOOKED_AT) if run.graph])
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(slug: str) -> BlockedGraph | None:
        async with slots:
            last = next((run for run in await runs_of(client, slug, limit=_NEWEST) if not run.open), None)
            if last is None or not last.blocked:
                return None
            outcome = await outcome_of(client, last)
        carried = None if outcome.completed is None else outcome.completed.carried
        return BlockedGraph(
            graph=slug,
            runs=0 if carried is None else carried.unowned_runs,
            since=None if carried is None else carried.unowned_since,
            holder=None if outcome.result is None else outcome.result.holder,
        )

    found = await asyncio.gather(*map(one, seen))
    return [graph for graph in found if graph is not None]
