"""Lane lock: a frozen lane is ended, one at work is waited for, and any other session that has the lock is named."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from pydantic import SecretStr

from activities.errors import translated
from syncline.engine import lane_lock, range_drain
from syncline.engine.lane_lock import lane_transaction
from syncline.engine.range_drain import _LaneReading
from syncline.engine.schema_transaction import HeldSchema
from syncline.errors import LoadBlocked, StoreUnavailable
from syncline.messages.sync import CycleStatus, LaneEnd
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.truth import differences
from tests.kit.holders import holding
from tests.kit.lanes import Lanes, every_load_in_ranges

SEED = """
INSERT INTO write_facts (id, content, dedup_status)
    SELECT format('f%s', n), 'fact ' || n, 'ready' FROM generate_series(100, 140) n;
INSERT INTO write_nodes (id, concept, fact_ids)
    SELECT format('n%s', n), 'node ' || n, ARRAY[format('f%s', n)] FROM generate_series(100, 140) n;
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed)
    SELECT format('e%s', n), format('n%s', n), format('n%s', n), 'x', true FROM generate_series(100, 140) n
"""
BATCH = "BEGIN; CREATE TEMP TABLE staged (a text);"
LANES = f"{BATCH} SELECT pg_advisory_xact_lock_shared(hashtextextended('syncline load:kg', 0))"
CYCLE = f"{BATCH} SELECT pg_advisory_xact_lock(hashtextextended('syncline load:kg', 0))"


@pytest.fixture(autouse=True)
def _quick(graph: TestGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    for store in (graph.write, graph.target):
        store._engine.pool._max_overflow = 8  # type: ignore[attr-defined]
    every_load_in_ranges(monkeypatch)
    monkeypatch.setattr(lane_lock, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(lane_lock, "_FROZEN_SECONDS", 1.0)
    monkeypatch.setattr(lane_lock, "_STRANGE_SECONDS", 0.4)


@asynccontextmanager
async def copying(
    session: asyncpg.Connection, source: AsyncIterator[bytes]
) -> AsyncIterator[asyncio.Task[str]]:
    """Copy what `source` yields into the session's table while entered."""
    running = asyncio.create_task(session.copy_to_table("staged", source=source))
    try:
        yield running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await running


async def nothing() -> AsyncIterator[bytes]:
    """Send nothing, like a process that is frozen; its kernel keeps the connection."""
    await asyncio.Event().wait()
    yield b""


@pytest.mark.long(after=1)
@pytest.mark.parametrize("fresh", [False, True])
async def test_a_lane_that_freezes_within_a_copy_is_ended(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    """What is fresh, and its range, wait for it: both are applied, each row once."""
    reached, thaw = asyncio.Event(), asyncio.Event()
    received = _LaneReading._received

    async def frozen(reading: _LaneReading) -> AsyncIterator[bytes]:
        if not reached.is_set():
            reached.set()
            await thaw.wait()
        async for chunk in received(reading):
            yield chunk

    monkeypatch.setattr(_LaneReading, "_received", frozen)
    await write(graph, SEED)
    lanes = Lanes(number=2)
    async with asyncio.timeout(60), lanes.beside(graph.context(batch_rows=7)) as running:
        await reached.wait()
        if fresh:
            await write(graph, "DELETE FROM write_facts WHERE id = 'f100'")
        result = await running
        thaw.set()
    assert [task.result().end for task in lanes.running] == [LaneEnd.FAILED]
    assert (result.status, result.failures) == (CycleStatus.DRAINED, 0)
    assert await differences(graph) == []
    assert await read(graph, "SELECT count(*) FROM facts") == [(40 if fresh else 41,)]


async def test_a_lane_that_copies_slowly_is_waited_for(graph: TestGraph) -> None:
    """No other lane begins a batch meanwhile; then they may, at once."""
    await on_target(graph, "UPDATE sync_state SET lanes_after = '-infinity'")
    waiting = "SELECT lanes_after > clock_timestamp() FROM sync_state"
    paused: list[bool] = []

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"row\n"
            await asyncio.sleep(0.05)
            [(waits,)] = await read(graph, waiting)
            paused.append(waits)

    async with (
        holding(graph, LANES, "syncline lane kg") as session,
        copying(session, slowly()) as copied,
        graph.target.driver() as target,
    ):
        copied.add_done_callback(lambda _: released.append(asyncio.create_task(session.execute("COMMIT"))))
        released: list[asyncio.Task[str]] = []
        async with lane_transaction(graph.context(), HeldSchema(target, "kg"), alone=True) as held:
            assert await held.fetchval("SHOW lock_timeout") == "0"
        assert await copied == "COPY 30"
        await released[0]
    assert paused[-1]
    assert await read(graph, waiting) == [(False,)]


async def test_another_session_that_has_the_lock_is_named(graph: TestGraph, stranger: str) -> None:
    await write(graph, SEED)
    async with holding(graph, CYCLE, "psql", role=stranger) as session:
        pid = session.get_server_pid()
        named = (
            rf"pid {pid} of role '{stranger}' \(application 'psql', database .*pg_terminate_backend\({pid}\)"
        )
        with pytest.raises(LoadBlocked, match=named) as blocked:
            async with asyncio.timeout(60):
                await Lanes(number=2).cycle(graph.context())
        assert not translated(blocked.value).non_retryable
        assert await session.fetchval("SELECT 1") == 1
    assert (await Lanes(number=2).cycle(graph.context())).status is CycleStatus.DRAINED
    assert await differences(graph) == []


@pytest.mark.parametrize("own", [True, False])
async def test_a_role_without_more_rights_ends_its_own_lanes_alone(
    graph: TestGraph, stranger: str, own: bool
) -> None:
    connection = await graph.connect_target()
    await connection.execute(
        f"GRANT USAGE ON SCHEMA kg TO {stranger}; GRANT SELECT, UPDATE ON sync_state TO {stranger}"
    )
    await connection.close()
    dsn = graph.target_dsn.replace("postgres@", f"{stranger}@")
    store = PostgresStore("graph", SecretStr(dsn), pool_size=1, application_name="syncline")
    role = stranger if own else "postgres"
    try:
        async with (
            holding(graph, LANES, "syncline lane kg", role=role) as session,
            copying(session, nothing()),
            store.driver() as asking,
        ):
            taken = lane_transaction(graph.context(), HeldSchema(asking, "kg"), alone=True)
            if own:
                async with taken as held:
                    assert await held.fetchval("SELECT 1") == 1
            else:
                with pytest.raises(LoadBlocked) as blocked:
                    await taken.__aenter__()
                assert blocked.value.pids == (session.get_server_pid(),)
            [(left,)] = await read(
                graph, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncline lane kg'"
            )
            assert left == (0 if own else 1)
    finally:
        await store.close()


async def test_a_lane_gives_up_if_the_write_db_sends_nothing(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, before another takes it for one that is frozen."""
    monkeypatch.setattr(range_drain, "_SILENCE", 0.2)
    with pytest.raises(StoreUnavailable, match="no row came"):
        async with graph.write.driver() as source, graph.target.driver() as target:
            await target.execute("CREATE TEMP TABLE staged (a text)")
            async with _LaneReading(source, "SELECT pg_sleep(60)::text", (), "write", tables=[]) as rows:
                await rows.copy_into(target, "staged", ["a"])


async def test_a_transaction_that_fails_at_its_start_leaves_the_connection_usable(graph: TestGraph) -> None:
    """The driver took the next one for a part of it."""
    async with graph.target.driver() as target:
        held = HeldSchema(target, "kg")
        with pytest.raises(asyncpg.PostgresError):
            async with held.transaction("SET LOCAL ROLE none_of_this_name"):
                pass
        async with held.transaction() as after:
            assert await after.fetchval("SELECT current_schema()") == "kg"
