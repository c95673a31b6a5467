"""Who holds a graph's lock: it says so itself, and a dead attempt loses it to the next one."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from activities.errors import translated
from syncline.engine import run_cycle
from syncline.engine.lock import end_dead_holder
from syncline.engine.schema_transaction import HeldSchema
from syncline.errors import CycleBusy
from syncline.messages.sync import CycleProgress, CycleStatus
from syncline.operator.health.check import CheckStatus
from syncline.operator.health.tenancy import check_locks
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, read, write
from syncline.testing.lab import eventually
from syncline.testing.truth import differences
from tests.kit.holders import holding

SEED = "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 6) i"
HOLDERS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
LOCK = "SELECT pg_advisory_lock(hashtextextended('syncline:kg', 0))"


def named(run_id: str, attempt: int) -> str:
    return f"syncline {run_id} #{attempt} {datetime.now(UTC) - timedelta(minutes=3):%m-%d %H:%M}Z"


async def test_a_cycle_says_in_its_session_which_run_and_attempt_holds_the_graph(graph: TestGraph) -> None:
    await write(graph, SEED)
    run_id = str(uuid4())
    looking: list[asyncio.Task[list[asyncpg.Record]]] = []
    look = (
        "SELECT application_name FROM pg_stat_activity a JOIN pg_locks l USING (pid)"
        " WHERE l.locktype = 'advisory' AND a.datname = current_database()"
    )

    def look_once(_: CycleProgress) -> None:
        if not looking:
            looking.append(asyncio.create_task(read(graph, look)))

    context = graph.context(run_id=run_id, attempt=999, batch_rows=1)
    await run_cycle(replace(context, heartbeat=look_once))
    [[name]] = await looking[0]
    assert name.startswith(f"syncline {run_id} #999 ")
    assert name.endswith("Z")
    # And nothing of it is left in the pool.
    left = await read(graph, "SELECT application_name FROM pg_stat_activity WHERE application_name ~ '#'")
    assert left == []


async def test_an_attempt_takes_the_graph_from_an_earlier_one_of_its_run_that_is_frozen(
    graph: TestGraph,
) -> None:
    await write(graph, SEED)
    run_id = str(uuid4())
    async with holding(graph, LOCK, named(run_id, 1)) as frozen:
        # As it is before the fence, so that nothing in the books says whose it is.
        result = await run_cycle(graph.context(run_id=run_id, attempt=2))
        assert (result.status, result.rows) == (CycleStatus.DRAINED, 6)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await frozen.execute("SELECT 1")
    assert await differences(graph) == []


async def test_an_attempt_that_was_overtaken_ends_no_later_one(graph: TestGraph) -> None:
    run_id = str(uuid4())
    async with holding(graph, LOCK, named(run_id, 2)) as later:
        with pytest.raises(CycleBusy) as busy:
            await run_cycle(graph.context(run_id=run_id, attempt=1))
        assert await later.fetchval("SELECT 1") == 1
        assert busy.value.pid == later.get_server_pid()
    assert translated(busy.value).next_retry_delay == timedelta(seconds=2)


@pytest.mark.parametrize("claim", ["own run", "run that is over"])
async def test_a_session_of_another_role_is_named_and_never_ended(
    graph: TestGraph, stranger: str, claim: str
) -> None:
    run_id, other = str(uuid4()), str(uuid4())

    async def over(_: str) -> bool:
        return True

    context = replace(graph.context(run_id=run_id, attempt=2), run_is_over=over)
    async with holding(
        graph, LOCK, named(run_id if claim == "own run" else other, 1), role=stranger
    ) as session:
        if claim == "own run":
            with pytest.raises(CycleBusy, match=f"role '{stranger}'.*pg_terminate_backend") as busy:
                await run_cycle(context)
            assert translated(busy.value).next_retry_delay is None
        else:
            result = await run_cycle(context)
            assert result.status is CycleStatus.ALREADY_RUNNING
            assert result.holder is not None
            assert (result.holder.role, result.holder.run_id) == (stranger, None)
        assert await session.fetchval("SELECT 1") == 1


async def test_a_role_without_more_rights_ends_its_own_session(graph: TestGraph, stranger: str) -> None:
    connection = await graph.connect_target()
    await connection.execute(
        f"GRANT USAGE ON SCHEMA kg TO {stranger}; GRANT SELECT ON sync_state TO {stranger}"
    )
    await connection.close()
    dsn = graph.target_dsn.replace("postgres@", f"{stranger}@")
    store = PostgresStore("graph", SecretStr(dsn), pool_size=2, application_name="syncline")
    context = graph.context(attempt=2)
    try:
        async with (
            holding(graph, LOCK, named(context.run.run_id, 1), role=stranger),
            store.driver() as asking,
        ):
            held = HeldSchema(asking, "kg")
            assert await end_dead_holder(context, held)

            async def ended() -> bool:
                return not await asking.fetchval(HOLDERS)

            await eventually(ended)  # a session ends a little after it was told to
            assert not await end_dead_holder(context, held)
    finally:
        await store.close()


@pytest.mark.parametrize("over", [True, False, None])
async def test_a_graph_is_taken_from_another_run_only_once_that_is_over(
    graph: TestGraph, over: bool | None
) -> None:
    await write(graph, SEED)
    asked: list[str] = []
    holder_run = str(uuid4())

    async def is_over(run_id: str) -> bool:
        asked.append(run_id)
        return bool(over)

    context = replace(graph.context(), run_is_over=None if over is None else is_over)
    async with holding(graph, LOCK, named(holder_run, 3)) as frozen:
        result = await run_cycle(context)
        if over:
            assert result.status is CycleStatus.DRAINED
        else:
            assert result.status is CycleStatus.ALREADY_RUNNING
            holder = result.holder
            assert holder is not None
            assert (holder.pid, holder.run_id, holder.attempt) == (frozen.get_server_pid(), holder_run, 3)
            assert holder.held_since is not None
            assert timedelta(minutes=2) < datetime.now(UTC) - holder.held_since < timedelta(minutes=5)
            assert holder.idle_since is not None
            assert await frozen.fetchval("SELECT 1") == 1
    assert asked == ([] if over is None else [holder_run])


async def test_doctor_names_a_holder_of_the_own_role_that_does_nothing(graph: TestGraph) -> None:
    run_id = str(uuid4())
    async with holding(graph, LOCK, named(run_id, 2)):
        [busy] = await check_locks("graph-db", graph.target, {"kg": "world"})
        assert busy.status is CheckStatus.OK
        assert f"world by run {run_id}, attempt 2, since " in busy.found
        [silent] = await check_locks("graph-db", graph.target, {"kg": "world"}, silent_seconds=0)
        assert silent.status is CheckStatus.WARN
        assert f"world by run {run_id}, attempt 2, since " in silent.found
    async with holding(graph, LOCK, "psql"):
        [silent] = await check_locks("graph-db", graph.target, {"kg": "world"}, silent_seconds=0)
        assert silent.status is CheckStatus.WARN
        assert "application psql" in silent.found


@pytest.mark.parametrize("store", ["write", "target"])
async def test_a_session_of_either_store_ends_its_statement_when_its_worker_is_gone(
    graph: TestGraph, store: str
) -> None:
    async with getattr(graph, store).driver() as connection:
        assert await connection.fetchval("SHOW client_connection_check_interval") == "2s"
