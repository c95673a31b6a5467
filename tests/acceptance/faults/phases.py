"""Where a run is when something happens to it: each place is a gate at which the worker waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg

from syncline.control.graphs import Graph
from tests.acceptance.faults.field import Field

__all__ = ["PHASES", "Gate"]

_FOR_GOOD = 8_710_113
"""The advisory lock at which the end of a run waits."""
_AT_THE_END = f"""
CREATE FUNCTION wait_at_the_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared({_FOR_GOOD});
    RETURN NEW;
END $$;
CREATE TRIGGER wait_at_the_end BEFORE UPDATE ON sync_state FOR EACH ROW
WHEN (OLD.progress->'untold' <> '[]'::jsonb AND NEW.progress->'untold' = '[]'::jsonb)
EXECUTE FUNCTION wait_at_the_end();
"""
_WAITING = """
SELECT count(*) > 0 FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid() AND application_name LIKE 'syncline%'
"""


class Gate:
    """A place where the worker waits until it is opened, by which `open` returns at once."""

    def __init__(self, open_: Callable[[], None]) -> None:
        self._open = open_

    def open(self) -> None:
        """Let the worker go on."""
        self._open()


Phase = Callable[[Field, Graph], AbstractAsyncContextManager[Gate]]


@asynccontextmanager
async def _locked(field: Field, side: str, graph: Graph | None, *statements: str) -> AsyncIterator[Gate]:
    """Hold a lock in a session of our own, until the gate is opened."""
    opened = asyncio.Event()
    taken = asyncio.Event()

    async def hold() -> None:
        async with field.on(side, graph) as connection, connection.transaction():
            for statement in statements:
                await connection.execute(statement)
            taken.set()
            await opened.wait()

    holding = asyncio.create_task(hold())
    try:
        done = asyncio.create_task(taken.wait())
        await asyncio.wait([done, holding], return_when=asyncio.FIRST_COMPLETED)
        yield Gate(opened.set)
    finally:
        opened.set()
        await holding


async def _waits(connection: asyncpg.Connection) -> None:
    """Return once somebody of ours waits for a lock there."""
    async with asyncio.timeout(60):
        while not await connection.fetchval(_WAITING):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _stopped(field: Field, graph: Graph, place: Graph | None, lock: str) -> AsyncIterator[Gate]:
    """Write and start a run, which waits for this lock of the graph-db, in the schema of `place`."""
    async with field.on("graph") as observer, _locked(field, "graph", place, lock) as gate:
        await field.write(graph)
        await field.trigger(graph)
        await _waits(observer)
        yield gate


def resolving(field: Field, graph: Graph) -> AbstractAsyncContextManager[Gate]:
    """The question for the provider waits for the control plane."""
    return _stopped(field, graph, None, "LOCK TABLE syncline.graphs IN ACCESS EXCLUSIVE MODE")


@asynccontextmanager
async def before_the_fence(field: Field, graph: Graph) -> AsyncIterator[Gate]:
    """The cycle has the lock, and asks the write-db what is new."""
    async with field.on("write") as observer:
        await field.write(graph)
        async with _locked(field, "write", graph, "LOCK TABLE write_nodes IN ACCESS EXCLUSIVE MODE") as gate:
            await field.trigger(graph)
            await _waits(observer)
            yield gate


def in_a_batch(field: Field, graph: Graph) -> AbstractAsyncContextManager[Gate]:
    """The first batch is being written."""
    return _stopped(field, graph, graph, "LOCK TABLE nodes IN SHARE MODE")


@asynccontextmanager
async def between_batches(field: Field, graph: Graph) -> AsyncIterator[Gate]:
    """Some batches are committed, and the next is being read."""
    async with field.on("write") as observer:
        await field.write(graph)
        await field.trigger(graph)
        while await field.landed(graph) == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        async with _locked(field, "write", graph, "LOCK TABLE write_nodes IN ACCESS EXCLUSIVE MODE") as gate:
            await _waits(observer)
            yield gate


@asynccontextmanager
async def announcing(field: Field, graph: Graph) -> AsyncIterator[Gate]:
    """All is committed, and downstream caches are being told."""
    async with field.on("graph", graph) as connection:
        await connection.execute(_AT_THE_END)
    async with _stopped(field, graph, graph, f"SELECT pg_advisory_xact_lock({_FOR_GOOD})") as gate:
        yield gate


@asynccontextmanager
async def embedding(field: Field, graph: Graph) -> AsyncIterator[Gate]:
    """The embedding service has been asked and does not answer yet."""
    field.embedding.hold()
    try:
        await field.write(graph)
        await field.trigger(graph)
        async with asyncio.timeout(60):
            while not field.embedding.asked.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        yield Gate(field.embedding.release)
    finally:
        field.embedding.release()


PHASES: dict[str, Phase] = {
    "resolving": resolving,
    "before the fence": before_the_fence,
    "in a batch": in_a_batch,
    "between batches": between_batches,
    "announcing": announcing,
    "embedding": embedding,
}
