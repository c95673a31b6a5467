"""Due retries: runs graphs with a slow Schedule when rejected rows or delayed vectors are to be retried.

A change starts a run by its notification; a service that answers again notifies nobody. The worker that
listens to the write-db therefore asks the graph-dbs now and then: one probe per graph, many in one statement.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

import asyncpg

from syncline.capture.listen.connection import in_batches
from syncline.capture.listen.starter import RateLimiter, Runs
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.errors import SynclineError
from syncline.logs import get_log
from syncline.messages.base import GraphStatus
from syncline.sql import literal, quoted, statements_of
from syncline.stores.postgres import PostgresStore

__all__ = ["RetryWatch"]

_sql = statements_of("syncline.capture.listen")

_OFTEN: Final = 60
"""Seconds of an interval whose own runs are soon enough for every retry."""
_SECONDS: Final = 10.0
"""Longest time that one graph-db is asked."""
_AGAIN: Final = timedelta(minutes=10)
"""A retry that no run has taken up is tried again after this time: its provider may have been missing."""


def _slow(graph: Graph) -> bool:
    """Return whether the graph's own Schedule may leave a due retry alone for long."""
    schedule = graph.schedule
    often = schedule.cron is None and schedule.every_seconds <= _OFTEN
    return graph.status is GraphStatus.ACTIVE and not often


class RetryWatch:
    """Triggers a run of each graph with a slow Schedule whose retries are due; once for each due time."""

    def __init__(self, services: Services, runs: Runs, limiter: RateLimiter) -> None:
        self._services = services
        self._runs = runs
        self._limiter = limiter
        self._taken: dict[str, tuple[datetime, datetime]] = {}
        """Slug -> the due time for which a run was triggered, and when."""

    async def look(self, graphs: Iterable[Graph]) -> None:
        """Ask the graph-dbs of these graphs, and trigger what is due; one that fails is asked next time."""
        by_store = sorted((graph for graph in graphs if _slow(graph)), key=lambda one: one.graph_store or "")
        for key, listed in groupby(by_store, key=lambda one: one.graph_store):
            here = {graph.schema_name: graph for graph in listed}
            try:
                async with asyncio.timeout(_SECONDS):
                    due = await _due(self._services.store("graph", key), list(here))
            except (SynclineError, TimeoutError) as error:
                get_log().debug("due retries not known", store=key, error=str(error))
                continue
            for schema, (at, now) in due.items():
                await self._trigger(here[schema], at, now)

    async def _trigger(self, graph: Graph, at: datetime, now: datetime) -> None:
        taken = self._taken.get(graph.slug)
        if taken is not None and taken[0] == at and now - taken[1] < _AGAIN:
            return
        await self._limiter.acquire()
        try:
            outcome = await self._runs.trigger(graph)
        except SynclineError as error:
            get_log().debug("retry not started", graph=graph.slug, error=str(error))
            return
        self._taken[graph.slug] = at, now
        get_log().info("retry due", graph=graph.slug, due=at.isoformat(), outcome=outcome)


async def _due(store: PostgresStore, schemas: Sequence[str]) -> dict[str, tuple[datetime, datetime]]:
    """Return schema -> (since when a retry is due, the store's time) of those with a due retry."""
    found: dict[str, tuple[datetime, datetime]] = {}
    async with store.driver() as connection:
        waiting = list(in_batches(schemas))
        while waiting:
            batch = waiting.pop()
            probes = (
                _sql("retry_due", name=f"'{literal(schema)}'", schema=quoted(schema)) for schema in batch
            )
            try:
                rows = await connection.fetch(" UNION ALL ".join(probes))
            except asyncpg.PostgresError:
                # A schema without the tables, or that cannot be read, does not stop the others.
                if len(batch) > 1:
                    waiting += [[schema] for schema in batch]
                continue
            found |= {row["schema"]: (row["due"], row["now"]) for row in rows}
    return found
