"""Graphs that stand still because their lock is taken while no run of them is open."""

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
"""Newest blocked runs: graphs that have run rarely since are not found among more."""
_NEWEST: Final = 20
_AT_ONCE: Final = 8


class BlockedGraph(Message):
    """One of them, as its last run has found it."""

    graph: str
    runs: int = 0
    """In a row; 0 if its result cannot be read."""
    since: datetime | None = None
    holder: LockHolder | None = None


async def blocked_graphs(client: Client) -> Sequence[BlockedGraph]:
    """Return the graphs whose last run that has ended found them blocked; raise TemporalUnavailable.

    One question, as long as none of late was.
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
