"""A change in the write-db starts its graph's run at once, through whatever keeps it from being heard."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic

import asyncpg
import pytest

from syncline import names
from syncline.capture.listen import connection as line
from syncline.capture.listen import listener as ear
from syncline.capture.listen import session as attention
from syncline.capture.listen import starter as starting
from syncline.capture.listen.status import ListenerStatus
from syncline.control.graphs import Graph, GraphChanges
from syncline.messages.sync import SyncResult
from syncline.provider import SyncContext
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from worker import listen

SELDOM = {"every_seconds": 2_592_000}  # a time that comes while a test runs would be one run too many


class Runs(FakeProvider):
    """A provider that notes when each graph is run, and does so for as long as a test wants."""

    def __init__(self) -> None:
        super().__init__("noting", cycle=self._cycle)
        self.began: dict[str, list[float]] = {}
        self.gates: dict[str, asyncio.Event] = {}

    def of(self, graph: Graph) -> list[float]:
        return self.began.setdefault(graph.slug, [])

    async def _cycle(self, context: SyncContext) -> SyncResult:
        self.began.setdefault(context.graph.slug, []).append(monotonic())
        if (gate := self.gates.get(context.graph.slug)) is not None:
            await gate.wait()
        return sync_result()


@pytest.fixture
def lab(shared_lab: SyncLab) -> SyncLab:
    """One laboratory for the module, with a worker that does not listen: each test says who does."""
    return shared_lab


@pytest.fixture(scope="module")
def runs(shared_lab: SyncLab) -> Runs:
    runs = Runs()
    shared_lab.services.registry.register("sync", runs, "lab 1.0")
    return runs


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes less time than in production."""
    monkeypatch.setattr(ear, "_STANDBY", 0.1)
    monkeypatch.setattr(attention, "_WINDOW", 0.3)
    monkeypatch.setattr(attention, "_TICK", 0.2)


@asynccontextmanager
async def writer(lab: SyncLab, graph: Graph | None = None) -> AsyncIterator[asyncpg.Connection]:
    """A writer's own connection."""
    dsn = lab.services.settings.write_dsn.get_secret_value()
    settings = {} if graph is None else {"search_path": graph.schema_name}
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


async def scheduled(lab: SyncLab, provider: str | None = "noting", **schedule: object) -> Graph:
    """A graph with its stores and its Schedule, which leaves it alone for a month."""
    graph = await lab.add_graph(provider, prepare=True, schedule={**SELDOM, **schedule})
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    return graph


@asynccontextmanager
async def listened_to(lab: SyncLab, *, lapsed: bool = True) -> AsyncIterator[None]:
    """What a worker does beside its runs, from when it hears the graphs' writers on."""
    if lapsed:
        # Else who listened before would pass for this one.
        async with writer(lab) as connection:
            await connection.execute("UPDATE syncline.listener SET until = '-infinity'")
    async with listen(lab.client, lab.services):
        await eventually(lambda: heard(lab))
        yield


async def heard(lab: SyncLab) -> bool:
    """Whether the lease is fresh and its holder listens."""
    async with writer(lab) as connection:
        lease = "SELECT count(*) FROM syncline.listener WHERE until > clock_timestamp() + interval '25 s'"
        return bool(await connection.fetchval(lease)) and len(await listeners(connection)) == 1


async def listeners(connection: asyncpg.Connection) -> list[int]:
    """The server processes whose worker listens."""
    rows = await connection.fetch(
        "SELECT a.pid FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'advisory' "
        "WHERE a.datname = current_database() AND a.application_name = 'syncline listener' AND l.granted"
    )
    return [row["pid"] for row in rows]


async def insert(connection: asyncpg.Connection, node: str) -> None:
    await connection.execute("INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')", node)


async def arrived(lab: SyncLab, graph: Graph, node: str) -> bool:
    async with lab.services.target_schema(graph).store.driver() as target:
        return bool(
            await target.fetchval(f'SELECT count(*) FROM "{graph.schema_name}".nodes WHERE key = $1', node)
        )


async def ran(runs: Runs, graph: Graph, times: int) -> None:
    async def enough() -> bool:
        return len(runs.of(graph)) >= times

    await eventually(enough)


@asynccontextmanager
async def bystander(lab: SyncLab) -> AsyncIterator[list[str]]:
    """The payloads that somebody else hears on the channel, the listener's own tokens left out."""
    payloads: list[str] = []

    def hear(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        if " " in payload:
            payloads.append(payload.partition(" ")[2])

    async with writer(lab) as connection:
        await connection.add_listener(names.WRITE_CHANNEL, hear)
        yield payloads


async def test_a_change_arrives_while_the_schedule_sleeps(lab: SyncLab) -> None:
    graph = await scheduled(lab, None)
    async with writer(lab, graph) as connection, listened_to(lab):
        for node in ("first", "second"):
            await insert(connection, node)
            await eventually(lambda node=node: arrived(lab, graph, node))


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_a_storm_of_commits_starts_a_run_a_second_and_the_last_one_is_seen(
    lab: SyncLab, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_WINDOW", 1.0)
    graph = await scheduled(lab)
    async with writer(lab, graph) as connection, bystander(lab) as payloads, listened_to(lab):
        began = monotonic()
        for number in range(1000):
            await insert(connection, str(number))
            await asyncio.sleep(max(0.0, number * 0.003 - (monotonic() - began)))
        ended = monotonic()

        async def settled() -> bool:
            return bool(runs.of(graph)) and runs.of(graph)[-1] > ended

        await eventually(settled)
        await asyncio.sleep(2.5)
    # One at once, one a second, and one for writers who may have been silent at the end.
    assert len(runs.of(graph)) <= (ended - began) + 3
    # Its writers were hushed most of the time: a NOTIFY of each would have cost them dearly.
    assert 2 <= payloads.count(graph.schema_name) < 200


async def test_what_lands_during_a_run_gets_one_run_after_it(lab: SyncLab, runs: Runs) -> None:
    graph = await scheduled(lab)
    gate = runs.gates[graph.slug] = asyncio.Event()
    async with writer(lab, graph) as connection, listened_to(lab):
        await insert(connection, "before")
        await ran(runs, graph, 1)
        for node in ("during", "still", "yet"):
            await insert(connection, node)
            await asyncio.sleep(0.4)
        # On a busy machine the last trigger takes a while, too.
        await asyncio.sleep(0.6)
        assert len(runs.of(graph)) == 1
        gate.set()
        await ran(runs, graph, 2)
        await asyncio.sleep(0.7)
        # Three triggers waited for it, and did not pile up.
        assert len(runs.of(graph)) == 2


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_a_schedule_that_an_operator_paused_is_left_alone_and_run_when_it_is_resumed(
    lab: SyncLab, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "_PAUSED", 0.5)
    paused, other = await scheduled(lab), await scheduled(lab)
    schedule = lab.client.get_schedule_handle(names.sync_schedule_id(paused.slug))
    await schedule.pause(note="maintenance")
    async with writer(lab, paused) as connection, writer(lab, other) as beside, listened_to(lab):
        await insert(connection, "a")
        await insert(beside, "a")
        await ran(runs, other, 1)
        await asyncio.sleep(0.5)
        assert runs.of(paused) == []
        assert (await schedule.describe()).schedule.state.note == "maintenance"
        # Nobody writes again.
        await schedule.unpause()
        await ran(runs, paused, 1)
        await asyncio.sleep(1)
        assert len(runs.of(paused)) == 1


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_writers_of_a_graph_that_wants_no_notification_send_none(lab: SyncLab, runs: Runs) -> None:
    silent, other = await scheduled(lab, notify=False), await scheduled(lab)
    async with writer(lab, silent) as connection, writer(lab, other) as beside, bystander(lab) as payloads:
        async with listened_to(lab):
            await insert(connection, "a")
            await insert(beside, "a")
            await ran(runs, other, 1)
            assert set(payloads) == {other.schema_name}
            assert runs.of(silent) == []
        await lab.services.graphs.update(
            silent.slug, GraphChanges.model_validate({"schedule": {**SELDOM, "notify": True}})
        )
        async with listened_to(lab):
            # It is run for what was written before. Whoever writes until then need not speak.
            await ran(runs, silent, 1)

            async def speaks() -> bool:
                await insert(connection, f"n{monotonic()}")
                return silent.schema_name in payloads

            await eventually(speaks)


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_a_schema_that_cannot_be_told_to_notify_stops_no_other_and_is_told_when_it_can(
    lab: SyncLab, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LEASE_SECONDS", 0.6)
    broken, other = await scheduled(lab), await scheduled(lab)
    listener_status = ListenerStatus(lab.services, namespace=lab.client.namespace)
    async with writer(lab, broken) as connection, writer(lab, other) as beside:
        for each in (connection, beside):
            await each.execute("UPDATE sync_notify SET wanted = false")
        await connection.execute("ALTER TABLE sync_notify ADD CONSTRAINT refused CHECK (NOT wanted)")
        async with listened_to(lab):
            await eventually(lambda: beside.fetchval("SELECT wanted FROM sync_notify"))
            # It may have changed for as long as it did not notify.
            await ran(runs, other, 1)
            assert "its writers are not set to notify" in str(
                await listener_status.reason_unavailable(broken)
            )
            await connection.execute("ALTER TABLE sync_notify DROP CONSTRAINT refused")
            await eventually(lambda: connection.fetchval("SELECT wanted FROM sync_notify"))
            assert await listener_status.reason_unavailable(broken) is None
            await ran(runs, broken, 1)


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_what_was_written_while_a_graph_wanted_no_notification_is_seen_when_it_wants_it_again(
    lab: SyncLab, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(attention, "_REFRESH", 0.2)
    graph = await scheduled(lab, notify=False)
    async with writer(lab, graph) as connection, listened_to(lab):
        await insert(connection, "in silence")
        await asyncio.sleep(2)
        assert runs.of(graph) == []
        await lab.services.graphs.update(
            graph.slug, GraphChanges.model_validate({"schedule": {**SELDOM, "notify": True}})
        )
        await ran(runs, graph, 1)


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_the_lease_is_renewed_while_it_takes_long_to_look_for_what_was_not_heard(
    lab: SyncLab, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LEASE_SECONDS", 0.6)
    graph, until = await scheduled(lab), "SELECT max(until) FROM syncline.listener"
    async with writer(lab, graph) as connection, writer(lab, graph) as holder, listened_to(lab):
        looking = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'syncline look-up'"
        async with holder.transaction():
            await holder.execute("LOCK TABLE write_facts IN ACCESS EXCLUSIVE MODE")
            await connection.execute("UPDATE syncline.listener SET until = '-infinity'")
            await eventually(lambda: connection.fetchval(looking))
            before = await connection.fetchval(until)
            await asyncio.sleep(1.5)
            assert await connection.fetchval(looking)
            assert await connection.fetchval(until) > before
        await insert(connection, "a")
        await ran(runs, graph, 1)


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_nobody_notifies_while_nobody_listens_and_who_listens_next_finds_what_changed(
    lab: SyncLab, runs: Runs
) -> None:
    changed, same = await scheduled(lab), await scheduled(lab)
    async with listened_to(lab):
        pass
    async with writer(lab, changed) as connection, bystander(lab) as payloads:
        await connection.execute("UPDATE syncline.listener SET until = clock_timestamp() - interval '1 s'")
        await insert(connection, "unheard")
        await connection.execute("DELETE FROM write_nodes")
        assert payloads == []
        async with listened_to(lab):
            await ran(runs, changed, 1)
            await asyncio.sleep(0.5)
            assert runs.of(same) == []


@pytest.mark.long("test_a_change_arrives_while_the_schedule_sleeps")
async def test_a_listener_whose_connection_is_killed_comes_back_and_misses_nothing(
    lab: SyncLab, runs: Runs
) -> None:
    graph = await scheduled(lab)
    async with writer(lab, graph) as connection, listened_to(lab):
        [pid] = await listeners(connection)
        await connection.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
        assert await listeners(connection) == []
        await insert(connection, "in the gap")
        await ran(runs, graph, 1)
        [another] = await listeners(connection)
        assert another != pid
        await insert(connection, "afterwards")
        await ran(runs, graph, 2)


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_one_worker_listens_for_all_graphs_and_another_takes_over(lab: SyncLab, runs: Runs) -> None:
    graphs = [await scheduled(lab) for _ in range(3)]
    async with AsyncExitStack() as first, writer(lab) as connection:
        await first.enter_async_context(listened_to(lab))
        [pid] = await listeners(connection)
        async with listen(lab.client, lab.services):
            # By then whoever begins to listen has also looked for what was written before that.
            await asyncio.sleep(2)
            assert await listeners(connection) == [pid]
            workers = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncline listener'"
            assert await connection.fetchval(workers) == 2
            for graph in graphs:
                async with writer(lab, graph) as each:
                    await insert(each, "a")
            for graph in graphs:
                await ran(runs, graph, 1)
            await asyncio.sleep(0.5)
            assert [len(runs.of(graph)) for graph in graphs] == [1, 1, 1]

            await first.aclose()
            async with writer(lab, graphs[0]) as each:
                await insert(each, "b")
            await ran(runs, graphs[0], 2)
            assert await listeners(connection) not in ([], [pid])


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_a_frozen_listener_is_evicted(
    lab: SyncLab, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "_FROZEN_SECONDS", 0.2)
    graph = await scheduled(lab)
    frozen = await asyncpg.connect(lab.services.settings.write_dsn.get_secret_value())
    name = f"{lab.client.namespace}/{lab.task_queue}/write"
    await frozen.execute(f"SELECT pg_advisory_lock(hashtextextended('syncline.listener:{name}', 0))")
    await frozen.execute("UPDATE syncline.listener SET until = clock_timestamp()")
    async with writer(lab, graph) as connection, listened_to(lab, lapsed=False):
        assert frozen.is_closed()
        await insert(connection, "a")
        await ran(runs, graph, 1)


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps",
    "unit/test_trigger_debouncer.py::test_a_change_above_the_horizon_is_due_again_when_the_horizon_has_passed_it",
)
async def test_a_change_that_an_older_transaction_holds_back_arrives_when_that_ends(lab: SyncLab) -> None:
    graph = await scheduled(lab, None)
    async with writer(lab) as holder, writer(lab, graph) as connection, listened_to(lab):
        async with holder.transaction():
            await holder.fetchval("SELECT pg_current_xact_id()")
            await insert(connection, "held")
            await asyncio.sleep(1)
            assert not await arrived(lab, graph, "held")
        await eventually(lambda: arrived(lab, graph, "held"))


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_who_wrote_while_hushed_and_commits_later_is_seen_too(lab: SyncLab) -> None:
    graph = await scheduled(lab, None)
    async with (
        writer(lab, graph) as late,
        writer(lab, graph) as connection,
        bystander(lab) as payloads,
        listened_to(lab),
    ):
        muted = f"SELECT muted_until > clock_timestamp() FROM {graph.schema_name}.sync_notify"
        while not await late.fetchval(muted):
            await insert(connection, f"n{monotonic()}")
            await asyncio.sleep(0.02)
        async with late.transaction():
            await insert(late, "late")
            await asyncio.sleep(1)
            heard_so_far = payloads.count(graph.schema_name)
        await eventually(lambda: arrived(lab, graph, "late"))
        assert payloads.count(graph.schema_name) == heard_so_far


@pytest.mark.long(
    "test_a_change_arrives_while_the_schedule_sleeps", "test_what_lands_during_a_run_gets_one_run_after_it"
)
async def test_who_was_hushed_by_a_listener_that_is_gone_is_seen_too(lab: SyncLab, runs: Runs) -> None:
    graph = await scheduled(lab)
    async with writer(lab, graph) as connection, bystander(lab) as payloads:
        await connection.execute("UPDATE syncline.listener SET until = clock_timestamp() + interval '30 s'")
        await connection.execute("UPDATE sync_notify SET muted_until = clock_timestamp() + interval '1 s'")
        async with connection.transaction():
            await insert(connection, "silent")
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(listened_to(lab, lapsed=False))
                await asyncio.sleep(1.5)
                assert runs.of(graph) == []
                listening = stack.pop_all()
        async with listening:
            await ran(runs, graph, 1)
        assert graph.schema_name not in payloads


async def test_hearing_says_why_a_change_would_not_be_heard(lab: SyncLab) -> None:
    graph = await scheduled(lab)

    async def problem() -> str | None:
        return await ListenerStatus(lab.services, namespace=lab.client.namespace).reason_unavailable(graph)

    async with writer(lab, graph) as connection:
        async with listened_to(lab):
            assert await problem() is None
            await connection.execute("ALTER TABLE write_facts DISABLE TRIGGER capture_notify")
            assert "not all of its tables notify" in str(await problem())
            await connection.execute("ALTER TABLE write_facts ENABLE TRIGGER capture_notify")
        await connection.execute("UPDATE syncline.listener SET until = clock_timestamp()")
        assert await problem() == "no worker listens to write-db 'write'"
