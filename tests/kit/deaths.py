"""Cycles that die: between two commits, inside a commit, or anywhere."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count

import asyncpg

from syncline.errors import StoreUnavailable
from syncline.messages.sync import CycleProgress, SyncResult
from syncline.provider import SyncContext
from syncline.testing.graphs import TestGraph

__all__ = ["Deaths"]

Cycle = Callable[[SyncContext], Awaitable[SyncResult]]

_AT_COMMIT = """
CREATE SEQUENCE IF NOT EXISTS public.commits;
CREATE TABLE IF NOT EXISTS public.kill (at bigint);
CREATE OR REPLACE FUNCTION public.die() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
    IF nextval('commits') = (SELECT at FROM kill) THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER die AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION public.die();
"""
"""Ends the cycle's backend inside a commit: after everything was written, before any of it counts."""


class _KilledError(Exception):
    """What stops a cycle between two commits."""


class Deaths:
    """Kills cycles of a graph; the database that it prepares may be a template."""

    def __init__(self, graph: TestGraph, control: asyncpg.Connection, cycle: Cycle) -> None:
        self._graph, self._control, self._cycle = graph, control, cycle

    @staticmethod
    async def prepare(control: asyncpg.Connection, *, table: str = "sync_cursor") -> None:
        """Make what ends a backend that commits a row of this table, once in a graph-db with bookkeeping."""
        await control.execute(_AT_COMMIT.replace("{table}", table))

    async def between_commits(self, batch_rows: int, after: int) -> None:
        """Stop a cycle at its heartbeat of this number, if it has so many."""
        beats = count(1)

        def beat(_: CycleProgress) -> None:
            if next(beats) == after:
                raise _KilledError

        try:
            await self._cycle(replace(self._graph.context(batch_rows=batch_rows), heartbeat=beat))
        except _KilledError:
            await self._graph.wait_until_free()

    async def in_a_commit(self, batch_rows: int, after: int) -> None:
        """End the backend of a cycle within its commit of this number, if it has so many."""
        at = await self._control.fetchval("SELECT last_value FROM public.commits") + after
        await self._control.execute("TRUNCATE public.kill")
        await self._control.execute("INSERT INTO public.kill VALUES ($1)", at)
        try:
            await self._cycle(self._graph.context(batch_rows=batch_rows))
        except StoreUnavailable:
            await self._graph.wait_until_free()
        finally:
            await self._control.execute("TRUNCATE public.kill")

    async def anywhere(self, batch_rows: int, seconds: float) -> None:
        """Cancel a cycle after a while."""
        running = asyncio.ensure_future(self._cycle(self._graph.context(batch_rows=batch_rows)))
        await asyncio.wait([running], timeout=seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await self._graph.wait_until_free()
