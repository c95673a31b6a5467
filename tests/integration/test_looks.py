"""A cycle that finds its graph taken leaves a mark, and whoever has the graph looks once more before it ends.

The write-db and the graph-db are on servers of their own: on one, the horizon that the graph-db's transactions
hold back hides what is lost.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy
import pytest
import pytest_asyncio
from pydantic import SecretStr
from structlog.testing import capture_logs

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.engine import run_cycle
from syncline.engine.schema_transaction import HeldSchema
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.one_graph import LOCK, prepare_templates
from tests.kit.cycle_clock import CycleClock

MARKS = "SELECT coalesce(pg_sequence_last_value('sync_look'), 0) AS marks"
FACT = "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready')"
NODE = "INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def write_template(second_postgres_server: EmbeddedPostgres) -> str:
    template, _ = await prepare_templates(second_postgres_server)
    return template


@pytest_asyncio.fixture(loop_scope="session")
async def apart(
    graph: TestGraph,
    second_postgres_server: EmbeddedPostgres,
    write_template: str,
    unique: Callable[[str], str],
) -> AsyncIterator[TestGraph]:
    """The graph, with its write-db on the other server."""
    name = unique("write")
    second_postgres_server.psql(f'CREATE DATABASE "{name}" TEMPLATE "{write_template}"')
    dsn = second_postgres_server.dsn(name)
    # The engine remembers by the store's name which tables fit.
    store = PostgresStore(name, SecretStr(dsn), pool_size=4, application_name="syncline-test")
    yield replace(graph, write=store, write_dsn=dsn)
    await store.close()


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
    cycle = asyncio.create_task(run_cycle(replace(graph.context(**fields), embedding=slow)))  # type: ignore[arg-type]
    await asyncio.wait_for(slow.asked.wait(), 60)
    yield cycle
    slow.may.set()
    await asyncio.wait_for(asyncio.wait({cycle}), 60)


async def nodes(graph: TestGraph) -> set[str]:
    return {row["key"] for row in await read(graph, "SELECT key FROM nodes")}


async def marks(graph: TestGraph) -> int:
    return int((await read(graph, MARKS))[0]["marks"])


async def test_holder_looks_again_for_a_loser(apart: TestGraph) -> None:
    """What was written after the holder's last look arrives by the holder, and is counted as its own."""
    async with embedding(apart) as holder:
        await write(apart, NODE, "late")
        assert (await run_cycle(apart.context())).status is CycleStatus.ALREADY_RUNNING
        assert await nodes(apart) == set()
    result = holder.result()
    assert await nodes(apart) == {"late"}
    assert (result.status, result.rows, result.look_owed) == (CycleStatus.DRAINED, 2, False)
    assert {table.table: table.rows for table in result.tables if table.rows} == {"facts": 1, "nodes": 1}
    assert (result.vectors.upserted, result.vectors.embedded, result.vectors.pending) == (2, 2, 0)


@pytest.mark.long("test_holder_looks_again_for_a_loser")
async def test_many_losers_cost_one_more_look(apart: TestGraph) -> None:
    async with embedding(apart) as holder:
        for node in ("a", "b", "c"):
            await write(apart, NODE, node)
        losers = await asyncio.gather(*(run_cycle(apart.context()) for _ in range(3)))
        assert {loser.status for loser in losers} == {CycleStatus.ALREADY_RUNNING}
        assert await marks(apart) == 3
    result = holder.result()
    assert (result.rows, result.batches) == (4, 2)
    assert await nodes(apart) == {"a", "b", "c"}


async def test_loser_tries_once_more_after_its_mark(
    apart: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is given back between its two tries: nobody would look, so it does."""
    await write(apart, NODE, "late")
    holder = await apart.connect_target()
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
    assert (await run_cycle(apart.context())).rows == 1
    await holder.close()


async def test_lock_of_an_operation_is_waited_for(apart: TestGraph) -> None:
    """It has the graph for one transaction, reads no mark, and nobody would look after it."""
    await write(apart, NODE, "late")
    operation = await apart.connect_target()
    transaction = operation.transaction()
    await transaction.start()
    assert await operation.fetchval(LOCK.replace("lock(", "xact_lock("))
    cycle = asyncio.create_task(run_cycle(apart.context()))
    await asyncio.sleep(0.3)
    await transaction.commit()
    assert (await cycle).rows == 1
    await operation.close()


async def test_look_is_owed_when_time_is_up(apart: TestGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder does not go on for ever: it says that there is more, and the next cycle does it."""
    clock = CycleClock(monkeypatch)
    async with embedding(apart) as holder:
        await write(apart, NODE, "late")
        assert (await run_cycle(apart.context())).status is CycleStatus.ALREADY_RUNNING
        clock.spend()
    result = holder.result()
    assert (result.status, result.look_owed, result.idle) == (CycleStatus.BUDGET_SPENT, True, False)
    assert await nodes(apart) == set()
    following = await run_cycle(apart.context())
    assert (following.rows, following.look_owed) == (1, False)


async def test_mark_of_a_holder_that_died_is_harmless(apart: TestGraph) -> None:
    """Whoever takes the graph next looks anyway, and nobody after it looks twice."""
    async with embedding(apart) as holder:
        await write(apart, NODE, "late")
        assert (await run_cycle(apart.context())).status is CycleStatus.ALREADY_RUNNING
        holder.cancel()
    await apart.wait_until_free()
    with capture_logs() as logs:
        assert (await run_cycle(apart.context())).rows == 1
        assert (await run_cycle(apart.context())).idle
    assert await nodes(apart) == {"late"}
    assert not [line for line in logs if line["event"] == "cycle repeated"]


async def test_holder_without_a_mark_looks_once(apart: TestGraph) -> None:
    """An idle cycle is as cheap as it was: nothing is written, and the lock is given back."""
    await run_cycle(apart.context())
    with capture_logs() as logs:
        assert (await run_cycle(apart.context())).idle
    assert not [line for line in logs if line["event"] == "cycle repeated"]
    assert await marks(apart) == 0
    await apart.wait_until_free()


async def test_worker_newer_than_the_books_still_syncs(apart: TestGraph) -> None:
    """Without the sequence nobody leaves a mark, and a cycle that finds the graph taken says so as before."""
    await on_target(apart, "DROP SEQUENCE sync_look")
    async with embedding(apart) as holder:
        assert (await run_cycle(apart.context())).status is CycleStatus.ALREADY_RUNNING
    assert holder.result().status is CycleStatus.DRAINED


async def test_failed_table_does_not_hide_a_mark(apart: TestGraph) -> None:
    """A cycle with a table that fails looks once more, too; the others' rows arrive."""
    await write(apart, "ALTER TABLE write_edges DROP COLUMN directed")
    async with embedding(apart) as holder:
        await write(apart, NODE, "late")
        await run_cycle(apart.context())
    assert holder.result().status is CycleStatus.FAILED
    assert await nodes(apart) == {"late"}
