"""A cycle that lingers: further changes arrive by it, others have the graph meanwhile, and nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from syncline import names
from syncline.engine import run_cycle
from syncline.engine.linger import _Lingering
from syncline.messages.sync import CycleStatus
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.lab import eventually
from tests.kit.linger import Leave, lingering

NODE = "INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')"


@asynccontextmanager
async def heard(graph: TestGraph) -> AsyncIterator[list[str]]:
    """What is notified, while a listener has its lease."""
    connection, payloads = await graph.connect_write(), list[str]()
    await connection.execute(
        "INSERT INTO syncline.listener VALUES ('test', clock_timestamp() + interval '1 hour', '3')"
        " ON CONFLICT (name) DO UPDATE SET until = excluded.until"
    )
    await connection.add_listener(names.WRITE_CHANNEL, lambda *told: payloads.append(told[3]))
    yield payloads
    await connection.close()


async def arrived(graph: TestGraph, *nodes: str) -> None:
    async def there() -> bool:
        found = await read(graph, "SELECT key FROM nodes")
        return {row["key"] for row in found} >= set(nodes)

    await eventually(there)


async def test_lingering_cycle_applies_further_changes_as_its_own(graph: TestGraph) -> None:
    """Rows, vectors and counts are one run's; its writers do not notify meanwhile, and do again after it."""
    await write(graph, NODE, "first")
    async with heard(graph) as payloads:
        async with lingering(graph) as (leave, cycle):
            for node in ("second", "third"):
                await write(graph, NODE, node)
                await arrived(graph, node)
            # Whoever waits for what wrote nothing here is answered, too.
            before = (await read(graph, "SELECT visible ->> 'wanted' AS wanted FROM sync_state"))[0]["wanted"]
            await on_target(graph, "SELECT nextval('sync_wanted')")

            async def answered() -> bool:
                now = await read(graph, "SELECT visible ->> 'wanted' AS wanted FROM sync_state")
                return bool(now[0]["wanted"] != before)

            await eventually(answered)
            assert payloads == []
        result = cycle.result()
        assert (result.status, result.rows, result.vectors.upserted) == (CycleStatus.DRAINED, 3, 3)
        assert (result.lingered_passes, result.batches, result.idle) == (2, 3, False)
        assert result.lingered_seconds > result.lingered_passes * 0.01
        assert (leave.announced, leave.released, payloads) == ([], True, [])
        await write(graph, NODE, "fourth")
        await eventually(lambda: _true(len(payloads) == 1))


async def _true(found: bool) -> bool:
    return found


async def test_graph_is_free_while_a_cycle_lingers(graph: TestGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run gets it at once, is right, and is not counted as the lingering run's."""
    awake, news = asyncio.Event(), _Lingering._news

    async def once_awake(lingering: _Lingering) -> bool:
        await awake.wait()
        return await news(lingering)

    monkeypatch.setattr(_Lingering, "_news", once_awake)
    await write(graph, NODE, "first")
    async with lingering(graph) as (_, cycle):
        await write(graph, NODE, "other")
        other = await run_cycle(graph.context())
        assert (other.status, other.rows) == (CycleStatus.DRAINED, 1)
        awake.set()
        holder = await graph.connect_target()
        await holder.execute("SELECT pg_advisory_lock(hashtextextended('syncline:kg', 0))")
        await write(graph, NODE, "second")
        await asyncio.sleep(0.2)
        await holder.close()
        await arrived(graph, "second")
    result = cycle.result()
    assert (result.status, result.rows) == (CycleStatus.DRAINED, 2)


@pytest.mark.parametrize("end", ["over", "cancelled"])
async def test_change_that_a_muted_writer_commits_later_is_announced(graph: TestGraph, end: str) -> None:
    """A transaction that wrote while muted, and is open when the cycle ends: the listener hears of it."""
    await write(graph, NODE, "first")
    writer = await graph.connect_write()
    async with heard(graph) as payloads, lingering(graph) as (leave, cycle):
        await writer.execute("BEGIN")
        await writer.execute(NODE, "second")
        xid = int(await writer.fetchval("SELECT pg_current_xact_id()::text"))
        if end == "cancelled":
            cycle.cancel()
            await asyncio.wait({cycle})
            assert cycle.cancelled()
        else:
            leave.why = "over"
            assert (await cycle).rows == 1
        await writer.execute("COMMIT")
        await eventually(lambda: _true(len(payloads) == 1))
    number, schema = payloads[0].split()
    assert (int(number) >= xid, schema, leave.released) == (True, "kg", True)
    [state] = await _state(graph)
    assert not state["muted"]
    await writer.close()


async def _state(graph: TestGraph) -> list[dict[str, bool]]:
    connection = await graph.connect_write()
    rows = await connection.fetch("SELECT muted_until > clock_timestamp() AS muted FROM sync_notify")
    await connection.close()
    return [dict(row) for row in rows]


async def test_idle_cycle_lingers_only_soon_after_a_change(graph: TestGraph) -> None:
    """A run after one that lingered as long as it may goes on where that left off."""
    await write(graph, NODE, "first")
    async with lingering(graph, leave=Leave(graph, longest=0)) as (_, cycle):
        pass
    assert cycle.result().lingered_seconds > 0
    async with lingering(graph, leave=Leave(graph, seconds=600)) as (leave, cycle):
        assert leave.muted.is_set()
    assert cycle.result().idle
    async with lingering(graph, leave=Leave(graph, seconds=0.001)) as (leave, cycle):
        assert (cycle.done(), leave.muted.is_set()) == (True, False)
    # An attempt that was killed may have left writers muted.
    async with lingering(graph, leave=Leave(graph, seconds=0.001), attempt=2) as (leave, _):
        assert leave.muted.is_set()


@pytest.mark.parametrize(
    "where",
    [
        "UPDATE sync_notify SET wanted = false",
        "INSERT INTO syncline.listener SELECT i::text, now() + interval '1 h', '3' FROM generate_series(1, 2) i",
    ],
    ids=["mute", "two deployments"],
)
async def test_cycle_does_not_linger_where_it_may_not_mute(graph: TestGraph, where: str) -> None:
    await write(graph, where)
    await write(graph, NODE, "first")
    async with lingering(graph) as (leave, cycle):
        pass
    result = cycle.result()
    assert (result.rows, result.lingered_seconds) == (1, 0.0)
    # Its place is another cycle's.
    assert leave.released
