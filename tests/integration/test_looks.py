"""A cycle that finds its graph taken leaves a mark, and whoever has the graph looks once more before it ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy
import pytest
from structlog.testing import capture_logs

from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, run_cycle
from syncline.engine.schema_transaction import HeldSchema
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.one_graph import LOCK
from tests.kit.cycle_clock import CycleClock

MARKS = "SELECT coalesce(pg_sequence_last_value('sync_look'), 0) AS marks"
FACT = "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready')"
NODE = "INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')"


class Slow(DevelopmentEmbedding):
    """An embedding service that answers once it is let."""

    def __init__(self) -> None:
        super().__init__(64)
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> numpy.ndarray:
        self.asked.set()
        await self.may.wait()
        return await super().embed(texts)


@asynccontextmanager
async def embedding(graph: TestGraph, **fields: object) -> AsyncIterator["asyncio.Task[SyncResult]"]:
    """A cycle that has read all of its write-db, and waits for its embeddings until this is left."""
    slow = Slow()
    await write(graph, FACT)
    # A new engine: another remembers which tables of an earlier graph fit.
    engine = SyncEngine(KNOWLEDGE_GRAPH)
    cycle = asyncio.create_task(engine.run_cycle(replace(graph.context(**fields), embedding=slow)))  # type: ignore[arg-type]
    await asyncio.wait_for(slow.asked.wait(), 60)
    yield cycle
    slow.may.set()
    await asyncio.wait_for(asyncio.wait({cycle}), 60)


async def nodes(graph: TestGraph) -> set[str]:
    return {row["key"] for row in await read(graph, "SELECT key FROM nodes")}


async def marks(graph: TestGraph) -> int:
    return int((await read(graph, MARKS))[0]["marks"])


async def test_holder_looks_again_for_a_loser(graph: TestGraph) -> None:
    """What was written after the holder's last look arrives by the holder, and is counted as its own."""
    async with embedding(graph) as holder:
        await write(graph, NODE, "late")
        assert (await run_cycle(graph.context())).status is CycleStatus.ALREADY_RUNNING
        assert await nodes(graph) == set()
    result = holder.result()
    assert await nodes(graph) == {"late"}
    assert (result.status, result.rows, result.look_owed) == (CycleStatus.DRAINED, 2, False)
    assert {table.table: table.rows for table in result.tables if table.rows} == {"facts": 1, "nodes": 1}
    assert (result.vectors.upserted, result.vectors.embedded, result.vectors.pending) == (2, 2, 0)


@pytest.mark.long("test_holder_looks_again_for_a_loser")
async def test_many_losers_cost_one_more_look(graph: TestGraph) -> None:
    async with embedding(graph) as holder:
        for node in ("a", "b", "c"):
            await write(graph, NODE, node)
        losers = await asyncio.gather(*(run_cycle(graph.context()) for _ in range(3)))
        assert {loser.status for loser in losers} == {CycleStatus.ALREADY_RUNNING}
        assert await marks(graph) == 3
    result = holder.result()
    assert (result.rows, result.batches) == (4, 2)
    assert await nodes(graph) == {"a", "b", "c"}


async def test_loser_tries_once_more_after_its_mark(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is given back between its two tries: nobody would look, so it does."""
    await write(graph, NODE, "late")
    holder = await graph.connect_target()
    assert await holder.fetchval(LOCK)
    locking = HeldSchema.locking

    @asynccontextmanager
    async def given_back(
        held: HeldSchema, name_sql: str | None = None, *, mark: bool = False
    ) -> AsyncIterator[bool]:
        if mark:
            await holder.execute("SELECT pg_advisory_unlock_all()")
        async with locking(held, name_sql, mark=mark) as locked:
            yield locked

    monkeypatch.setattr(HeldSchema, "locking", given_back)
    assert (await run_cycle(graph.context())).rows == 1
    await holder.close()


async def test_lock_of_an_operation_is_waited_for(graph: TestGraph) -> None:
    """It has the graph for one transaction, reads no mark, and nobody would look after it."""
    await write(graph, NODE, "late")
    operation = await graph.connect_target()
    transaction = operation.transaction()
    await transaction.start()
    assert await operation.fetchval(LOCK.replace("lock(", "xact_lock("))
    cycle = asyncio.create_task(run_cycle(graph.context()))
    await asyncio.sleep(0.3)
    await transaction.commit()
    assert (await cycle).rows == 1
    await operation.close()


async def test_look_is_owed_when_time_is_up(graph: TestGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder does not go on for ever: it says that there is more, and the next cycle does it."""
    clock = CycleClock(monkeypatch)
    async with embedding(graph) as holder:
        await write(graph, NODE, "late")
        assert (await run_cycle(graph.context())).status is CycleStatus.ALREADY_RUNNING
        clock.spend()
    result = holder.result()
    assert (result.status, result.look_owed, result.idle) == (CycleStatus.BUDGET_SPENT, True, False)
    assert await nodes(graph) == set()
    following = await run_cycle(graph.context())
    assert (following.rows, following.look_owed) == (1, False)


async def test_mark_of_a_holder_that_died_is_harmless(graph: TestGraph) -> None:
    """Whoever takes the graph next looks anyway, and nobody after it looks twice."""
    async with embedding(graph) as holder:
        await write(graph, NODE, "late")
        assert (await run_cycle(graph.context())).status is CycleStatus.ALREADY_RUNNING
        holder.cancel()
    await graph.wait_until_free()
    with capture_logs() as logs:
        assert (await run_cycle(graph.context())).rows == 1
        assert (await run_cycle(graph.context())).idle
    assert await nodes(graph) == {"late"}
    assert not [line for line in logs if line["event"] == "cycle repeated"]


async def test_holder_without_a_mark_looks_once(graph: TestGraph) -> None:
    """An idle cycle is as cheap as it was: nothing is written, and the lock is given back."""
    await run_cycle(graph.context())
    with capture_logs() as logs:
        assert (await run_cycle(graph.context())).idle
    assert not [line for line in logs if line["event"] == "cycle repeated"]
    assert await marks(graph) == 0
    await graph.wait_until_free()


async def test_worker_newer_than_the_books_still_syncs(graph: TestGraph) -> None:
    """Without the sequence nobody leaves a mark, and a cycle that finds the graph taken says so as before."""
    await on_target(graph, "DROP SEQUENCE sync_look")
    async with embedding(graph) as holder:
        assert (await run_cycle(graph.context())).status is CycleStatus.ALREADY_RUNNING
    assert holder.result().status is CycleStatus.DRAINED


async def test_failed_table_does_not_hide_a_mark(graph: TestGraph) -> None:
    """A cycle with a table that fails looks once more, too; the others' rows arrive."""
    await write(graph, "ALTER TABLE write_edges DROP COLUMN directed")
    async with embedding(graph) as holder:
        await write(graph, NODE, "late")
        await run_cycle(graph.context())
    assert holder.result().status is CycleStatus.FAILED
    assert await nodes(graph) == {"late"}
