"""A graph that is taken while no run of it is open is blocked, and says so everywhere; a look that is owed is made."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from providers.default import DefaultSyncProvider
from syncline import names
from syncline.control.graphs import Graph
from syncline.messages.sync import CycleStatus, SyncGraphResult, SyncResult
from syncline.provider import SyncContext
from syncline.temporal.runs import run_at_work
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from tests.kit.command_line import CommandLine
from tests.workflow.test_carried_state import SELDOM, ScheduledRuns, scheduled


@asynccontextmanager
async def stranger(lab: SyncLab, graph: Graph) -> AsyncIterator[asyncpg.Connection]:
    """A session that has the graph's lock, and is no run's."""
    dsn = lab.services.settings.graph_dsn.get_secret_value()
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "somebody"})
    await connection.execute(f"SELECT pg_advisory_lock(hashtextextended('syncline:{graph.schema_name}', 0))")
    try:
        yield connection
    finally:
        await connection.close()


async def following(runs: ScheduledRuns) -> SyncGraphResult:
    return await (await runs.next()).result()


async def standing(syncline: CommandLine, graph: Graph) -> str:
    [found] = [row for row in await syncline.answer("status") if row["graph"] == graph.slug]
    return found["standing"]


def stands(syncline: CommandLine, graph: Graph, wanted: str) -> Callable[[], object]:
    """Whether the graph is told to be so: what visibility knows is a moment old."""

    async def told() -> bool:
        return await standing(syncline, graph) == wanted

    return told


async def checks(syncline: CommandLine, status: int) -> dict[str, dict]:
    answer = await syncline.answer("doctor", "--timeout", "1", status=status)
    return {check["name"]: check for check in answer["checks"]}


async def test_a_lock_of_a_stranger_blocks_the_graph_until_it_is_given_back(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await lab.add_graph(DefaultSyncProvider(), prepare=True, schedule=SELDOM)
    runs = await scheduled(lab, graph)
    looked = await following(runs)
    assert looked.carried.seen_up_to is not None

    async with stranger(lab, graph) as session:
        first = await following(runs)
        assert (first.result.status, first.result.unowned) == (CycleStatus.ALREADY_RUNNING, True)
        assert (first.result.blocked, first.carried.unowned_runs) == (False, 1)

        run = await runs.next()
        second = await run.result()
        pid = session.get_server_pid()
        assert (second.result.blocked, second.carried.unowned_runs) == (True, 2)
        assert second.carried.unowned_since == first.carried.unowned_since
        assert second.result.holder is not None
        assert (second.result.holder.pid, second.result.holder.application_name) == (pid, "somebody")
        # Nobody has looked since: it counts on.
        assert second.carried.seen_up_to == looked.carried.seen_up_to
        assert second.result.lag_seconds > first.result.lag_seconds > looked.result.lag_seconds

        assert (await lab.attributes(run))[names.ATTRIBUTE_STATUS] == "blocked"
        assert "**Blocked**" in await lab.details(run)
        await eventually(stands(syncline, graph, "blocked"))
        assert "blocked" in (await syncline("status", graph.slug)).out
        found = (await checks(syncline, 1))[f"graph {graph.slug}"]
        assert found["status"] == "fail"
        assert "2 runs in a row" in found["found"]
        assert f"Pid {pid}" in found["found"]
        assert f"pg_terminate_backend({pid})" in found["fix"]

    free = await following(runs)
    assert (free.result.status, free.carried.unowned_runs) == (CycleStatus.DRAINED, 0)
    assert free.carried.unowned_since is None
    await eventually(stands(syncline, graph, "ok"))
    assert f"graph {graph.slug}" not in await checks(syncline, 1)


async def test_a_run_that_is_open_is_no_block(lab: SyncLab) -> None:
    """Whatever holds the graph may be that run's: it is waited for."""
    inside, may = asyncio.Event(), asyncio.Event()

    async def one_at_a_time(_context: SyncContext) -> SyncResult:
        if inside.is_set():
            return SyncResult(status=CycleStatus.ALREADY_RUNNING)
        inside.set()
        await may.wait()
        return sync_result()

    graph = await lab.add_graph(FakeProvider("one-at-a-time", cycle=one_at_a_time), schedule=SELDOM)
    runs = await scheduled(lab, graph)
    by_hand = await lab.start(graph)
    await inside.wait()

    async def listed() -> bool:
        return await run_at_work(lab.client, graph.slug, but="") is not None

    await eventually(listed)
    for _ in range(2):
        lost = await following(runs)
        assert (lost.result.status, lost.result.unowned) == (CycleStatus.ALREADY_RUNNING, False)
        assert (lost.result.blocked, lost.carried.unowned_runs) == (False, 0)
    may.set()
    assert (await by_hand.result()).result.status is CycleStatus.DRAINED


async def test_a_look_that_is_owed_starts_the_next_run(lab: SyncLab) -> None:
    """A holder whose time was up says so: the Schedule is not waited for, be it an hour away."""
    began: list[str] = []

    async def owing(context: SyncContext) -> SyncResult:
        began.append(context.run.run_id)
        owed = len(began) == 1
        result = sync_result(CycleStatus.BUDGET_SPENT if owed else CycleStatus.DRAINED)
        return result.model_copy(update={"look_owed": owed})

    graph = await lab.add_graph(FakeProvider("owing", cycle=owing), schedule={"every_seconds": 3_600})
    await scheduled(lab, graph)
    assert (await lab.run(graph)).result.look_owed

    async def followed() -> bool:
        return len(began) == 2

    await eventually(followed)
    await asyncio.sleep(1)
    assert len(began) == 2


@pytest.mark.long("integration/test_looks.py::test_holder_looks_again_for_a_loser")
async def test_a_change_is_not_lost_to_a_run_by_hand(lab: SyncLab) -> None:
    """The Schedule's run finds the graph taken, ends at once, and the one by hand does what it was for."""
    graph = await lab.add_graph(DefaultSyncProvider(), prepare=True, schedule={"every_seconds": 3_600})
    runs = await scheduled(lab, graph)
    path = {"search_path": graph.schema_name}
    settings = lab.services.settings
    write = await asyncpg.connect(settings.write_dsn.get_secret_value(), server_settings=path)
    target = await asyncpg.connect(settings.graph_dsn.get_secret_value(), server_settings=path)
    await write.execute("INSERT INTO write_nodes (id, concept) VALUES ('first', 'c')")

    async def at_the_end() -> bool:
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"
        return bool(await write.fetchval(waits, database))

    database = await target.fetchval("SELECT current_database()")
    # The one by hand has read its write-db, and waits to write its rows.
    async with target.transaction():
        await target.execute("LOCK TABLE nodes IN ACCESS EXCLUSIVE MODE")
        by_hand = await lab.start(graph)
        await eventually(at_the_end)
        await write.execute("INSERT INTO write_nodes (id, concept) VALUES ('late', 'c')")
        woken = (await following(runs)).result
        assert (woken.status, woken.unowned, woken.look_owed) == (CycleStatus.ALREADY_RUNNING, False, False)
    done = (await by_hand.result()).result
    assert (done.status, done.rows) == (CycleStatus.DRAINED, 2)
    assert {row["key"] for row in await target.fetch("SELECT key FROM nodes")} == {"first", "late"}
    await write.close()
    await target.close()
