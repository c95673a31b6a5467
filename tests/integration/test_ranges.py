"""Ranges: several lanes read the load of one table side by side."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from syncline.engine.range_drain import RangeDrain
from syncline.engine.ranges import Range
from syncline.engine.render.statements import Cursor, TableStatements
from syncline.engine.state import RunProgress
from syncline.messages.sync import CycleStatus, LaneEnd, SyncResult
from syncline.migrations import migrate_write
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.truth import differences
from tests.kit.damage import damage
from tests.kit.lanes import Lanes, every_load_in_ranges

SEED = """
INSERT INTO write_facts (id, content, dedup_status)
    SELECT format('f%s', n), 'fact ' || n, CASE WHEN n % 11 = 0 THEN 'pending' ELSE 'ready' END FROM generate_series(100, 180) n;
INSERT INTO write_nodes (id, concept, parent_id, source_concept_id, fact_ids)
    SELECT format('n%s', n), 'node ' || n, format('n%s', 100 + n * 37 % 90), format('n%s', 100 + n * 53 % 80),
           ARRAY[format('f%s', n), format('f%s', 100 + n * 7 % 90)]
    FROM generate_series(100, 180) n;
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids, directed)
    SELECT format('e%s', n), format('n%s', n), format('n%s', 100 + n * 29 % 85), 'x', ARRAY[format('f%s', n)], true
    FROM generate_series(100, 180) n
"""
LIMITED = """
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET lock_timeout = ''20ms''', current_database());
    EXECUTE format('ALTER DATABASE %I SET statement_timeout = ''1min''', current_database());
END $$;
CREATE FUNCTION limited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (current_setting('lock_timeout'), current_setting('statement_timeout')) <> ('0', '0') THEN
        RAISE 'a batch has the limits of its database';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER limited AFTER INSERT OR UPDATE OR DELETE ON facts EXECUTE FUNCTION limited();
CREATE TRIGGER limited AFTER INSERT OR UPDATE OR DELETE ON sync_parked_reference EXECUTE FUNCTION limited()
"""
"""Limits for people; and what tells that a batch has them, or the release at the end of a load."""
RANGES = "SELECT table_name, number, done FROM sync_range ORDER BY 1, 2"


@pytest.fixture(autouse=True)
def _ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    every_load_in_ranges(monkeypatch)


@pytest.fixture
def roomy(graph: TestGraph) -> TestGraph:
    """The graph, with connections for several lanes."""
    for store in (graph.write, graph.target):
        store._engine.pool._max_overflow = 8  # type: ignore[attr-defined]
    return graph


def _done(result: SyncResult) -> dict[str, tuple[int, int]]:
    return {table.table: (table.captured, table.rows) for table in result.tables if table.captured}


async def test_lanes_load_a_graph_side_by_side(roomy: TestGraph) -> None:
    """Each row once, whoever read it; the counts of the run are those of one lane."""
    await write(roomy, SEED)
    lanes = Lanes()
    result = await lanes.cycle(roomy.context(batch_rows=7))
    assert (result.status, result.failures, result.owed) == (CycleStatus.DRAINED, 0, ())
    assert await differences(roomy) == []
    assert await damage(roomy) == []
    helped = [task.result() for task in lanes.running]
    assert [lane.end for lane in helped] == [LaneEnd.DONE] * 2
    assert sum(lane.ranges for lane in helped) > 0
    done = _done(result)
    assert {name: done[name][0] for name in ("facts", "nodes", "edges")} == dict.fromkeys(
        ("facts", "nodes", "edges"), 81
    )
    assert (done["nodes"][1] >= 81, done["facts"][1]) == (True, 74)
    assert await read(roomy, RANGES) == []
    assert [row["lanes_after"] for row in await read(roomy, "SELECT lanes_after FROM sync_state")] == [None]
    told = [beat.ranges for beat in roomy.heartbeats if beat.ranges]
    assert any(ranges.lanes > 1 for beat in told for ranges in beat)
    assert (await Lanes().cycle(roomy.context())).batches == 0


async def test_lanes_take_no_range_of_a_table_before_all_earlier_ones_are_loaded(
    roomy: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows refer to theirs: all would be parked, and released at the end."""
    taken: list[tuple[str, set[str]]] = []
    take = RangeDrain.take

    async def noted(drain: RangeDrain, table: TableStatements, found: Range, below: int) -> None:
        # No load begins again, so what is open now was open when the range was chosen.
        loads = await read(
            roomy, "SELECT substr(table_name, 11) AS name FROM sync_cursor WHERE below IS NOT NULL"
        )
        taken.append((table.table.name, {row["name"] for row in loads}))
        await take(drain, table, found, below)

    monkeypatch.setattr(RangeDrain, "take", noted)
    await write(roomy, SEED)
    lanes = Lanes()
    await lanes.cycle(roomy.context(batch_rows=7))
    order = list(lanes.engine.statements.tables)
    assert {name for name, _ in taken} >= {"facts", "nodes", "edges"}
    assert [
        name for name, loads in taken if any(order.index(other) < order.index(name) for other in loads)
    ] == []


class Hold:
    """Holds the first batch of one lane after it has read and applied, before it commits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lane: str) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        move = RangeDrain._move

        async def moved(drain: RangeDrain, *given: object) -> None:
            if drain._lane == lane and not self.reached.is_set():
                self.reached.set()
                await self.go.wait()
            await move(drain, *given)  # type: ignore[arg-type]

        monkeypatch.setattr(RangeDrain, "_move", moved)


class HeldLanes(Lanes):
    """One lane, which is held; then something happens, and until something else is so, it stays held."""

    def __init__(
        self, hold: Hold, then: Callable[[], Awaitable[None]], until: Callable[[], Awaitable[bool]]
    ) -> None:
        super().__init__(number=2)
        self._hold, self._then, self._until = hold, then, until
        self.let: asyncio.Task[None] | None = None

    async def call(self) -> None:
        if self.running:
            return
        await super().call()
        await self._hold.reached.wait()
        await self._then()
        self.let = asyncio.create_task(self._let())

    async def _let(self) -> None:
        async with asyncio.timeout(60):
            while not await self._until():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        self._hold.go.set()


@pytest.fixture
async def in_one_database(roomy: TestGraph) -> TestGraph:
    """The graph, with both schemas in its graph-db: there an open batch of a lane holds back the horizon."""
    await migrate_write(roomy.target, "source")
    return replace(roomy, write=roomy.target, write_dsn=roomy.target_dsn, source_schema="source")


async def _deletes_while_a_lane_is_held(graph: TestGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    await write(graph, SEED)

    async def delete() -> None:
        await write(
            graph,
            "DELETE FROM write_facts WHERE id = 'f100'; UPDATE write_facts SET content = 'newer' WHERE id = 'f101'",
        )

    async def waits_or_has_passed() -> bool:
        [row] = await read(
            graph,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
            " OR (SELECT xid FROM sync_cursor WHERE table_name = 'sync_tombstone')"
            " > (SELECT below FROM sync_cursor WHERE table_name = 'sync_load/facts') AS so",
        )
        return bool(row["so"])

    lanes = HeldLanes(Hold(monkeypatch, "lane 1"), delete, waits_or_has_passed)
    result = await lanes.cycle(graph.context(batch_rows=7))
    assert (result.status, result.failures) == (CycleStatus.DRAINED, 0)
    assert [task.result().end for task in lanes.running] == [LaneEnd.DONE]
    assert await read(graph, "SELECT content FROM facts WHERE key IN ('f100', 'f101')") == [("newer",)]
    assert await differences(graph) == []


async def test_a_delete_waits_for_the_lane_that_has_read_the_row(
    roomy: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the row would be deleted before it is inserted, and stay. No limit of a role or database is one of lanes."""
    await on_target(roomy, LIMITED)
    await _deletes_while_a_lane_is_held(roomy, monkeypatch)


async def test_fresh_changes_do_not_wait_for_lanes_of_the_same_database(
    in_one_database: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cycle has lanes pause, and looks again."""
    await _deletes_while_a_lane_is_held(in_one_database, monkeypatch)


async def test_a_lane_goes_by_what_a_range_says(roomy: TestGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another lane has taken it meanwhile, and got to its middle: only what is left is read."""
    await write(roomy, SEED)
    take, moved, updated = RangeDrain.take, list[Range](), asyncio.Event()

    async def taken(drain: RangeDrain, table: TableStatements, range_: Range, below: int) -> None:
        if table.table.name == "nodes" and (moved or range_.number > 1):
            # Whoever has found it too must not be done with it before.
            await updated.wait()
        elif table.table.name == "nodes":
            moved.append(range_)
            await on_target(
                roomy,
                "UPDATE sync_range SET xid = upto_xid, key = ARRAY['n103'] WHERE table_name = 'nodes' AND number = $1",
                range_.number,
            )
            updated.set()
        await take(drain, table, range_, below)

    monkeypatch.setattr(RangeDrain, "take", taken)
    result = await Lanes().cycle(roomy.context(batch_rows=7))
    assert [range_.number for range_ in moved] == [1]
    # Of the others nobody knows: no lane has applied them.
    assert _done(result)["nodes"][0] == 77
    assert await read(roomy, "SELECT count(*) FROM nodes WHERE key <= 'n104'") == [(1,)]


async def test_rows_of_two_lanes_that_refer_to_each_other_are_released(
    roomy: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent lands while the lane with its child has not seen it, and has not committed that it waits."""
    await write(
        roomy,
        "INSERT INTO write_nodes (id, concept, parent_id)"
        " SELECT format('n%s', n), 'node ' || n, CASE WHEN n < 103 THEN 'n120' WHEN n = 110 THEN 'missing' END"
        " FROM generate_series(100, 120) n",
    )

    async def nothing() -> None:
        """Nothing happens."""

    async def others_are_done() -> bool:
        rows = await read(roomy, RANGES)
        return len(rows) > 1 and sum(not row["done"] for row in rows) == 1

    lanes = HeldLanes(Hold(monkeypatch, "lane 1"), nothing, others_are_done)
    result = await lanes.cycle(roomy.context(batch_rows=3))
    assert (result.status, result.parked) == (CycleStatus.DRAINED, 1)
    assert await differences(roomy) == []
    assert _done(result)["nodes"][0] == 21


async def test_a_lane_commits_nothing_once_another_run_has_the_graph(
    roomy: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in the middle of a batch; the other run applies that range itself, and all that is left."""
    await write(roomy, SEED)
    hold = Hold(monkeypatch, "lane 1")
    later = roomy.context(batch_rows=7)

    async def nothing() -> None:
        """Nothing happens."""

    async def never() -> bool:
        return False

    lanes = HeldLanes(hold, nothing, never)
    async with lanes.beside(roomy.context(batch_rows=7)) as running:
        await hold.reached.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await roomy.wait_until_free()
        assert await damage(roomy, counted=False) == []
        cycle = asyncio.create_task(Lanes().engine.run_cycle(later))
        async with asyncio.timeout(60):
            holder = "SELECT holder_run_id FROM sync_state"
            while (await read(roomy, holder))[0][0] != later.run.run_id:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        hold.go.set()
        [lane] = await asyncio.gather(*lanes.running)
        assert (lane.end, lane.ranges) == (LaneEnd.FENCED, 0)
        result = await cycle
    assert (result.status, result.failures) == (CycleStatus.DRAINED, 0)
    assert await differences(roomy) == []
    assert _done(result)["edges"][0] == 81


@pytest.mark.long("integration/test_range_histories.py::test_no_history_of_lanes_loses_a_change")
async def test_lanes_that_die_cost_the_rest_of_their_batch(roomy: TestGraph) -> None:
    """Their sessions are ended, in and between batches; the run counts each row once all the same."""
    await write(roomy, SEED)
    lanes, number = Lanes(), 0
    async with lanes.beside(roomy.context(batch_rows=6)) as running:
        while not running.done():
            ended = await read(
                roomy,
                "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
                " WHERE l.locktype = 'advisory' AND l.mode = 'ShareLock' AND l.granted"
                " AND a.application_name = 'syncline lane kg'",
            )
            for task in [task for task in lanes.running if task.done()]:
                assert task.result().end in (LaneEnd.FAILED, LaneEnd.DONE)
                lanes.running.remove(task)
                number += 1
                if task.result().end is LaneEnd.FAILED:
                    lanes.running.append(lanes.start(f"further {number}"))
            await asyncio.sleep(0.05 if ended else 0.01)
        result = await running
    assert number > 2
    assert (result.status, result.failures) == (CycleStatus.DRAINED, 0)
    assert await differences(roomy) == []
    assert {_done(result)[name][0] for name in ("facts", "nodes", "edges")} == {81}


async def test_a_row_that_is_rejected_fails_alone_in_a_range(
    roomy: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch is applied while no other lane is at work, as it was when there was one."""
    await write(roomy, SEED)
    await on_target(
        roomy,
        "ALTER TABLE nodes ADD CHECK (concept <> 'node 117'); CREATE UNIQUE INDEX ON facts (content);"
        " CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.key = 'e180' THEN RAISE 'no' USING ERRCODE = '55000'; END IF; RETURN NEW; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON edges FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    await write(roomy, "UPDATE write_facts SET content = 'same' WHERE id IN ('f100', 'f180')")
    move, alone = RangeDrain._move, list[bool]()

    async def moved(drain: RangeDrain, taken: Range, progress: RunProgress, after: Cursor) -> None:
        if any(table.failures for table in progress.tables.values()):
            alone.append(drain._alone)
        await move(drain, taken, progress, after)

    monkeypatch.setattr(RangeDrain, "_move", moved)
    result = await Lanes().cycle(roomy.context(batch_rows=7))
    assert alone == [True] * 3
    letters = await read(roomy, "SELECT table_name, key[1] AS key FROM sync_dead_letter ORDER BY 1, 2")
    assert result.status is CycleStatus.DRAINED
    assert {(row["table_name"], row["key"]) for row in letters} >= {("nodes", "n117"), ("edges", "e180")}
    assert len(letters) == result.dead_letters == 3
    assert _done(result)["nodes"][0] == 81


async def test_ranges_of_a_load_that_is_no_more_are_forgotten(roomy: TestGraph) -> None:
    """The write-db was replaced before anything was here: all is read from the start, in ranges again."""
    await write(roomy, SEED)
    async with Lanes(number=2).beside(roomy.context(batch_rows=7)) as running:
        async with asyncio.timeout(60):
            while not await read(roomy, RANGES):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running})
    await roomy.wait_until_free()
    await on_target(roomy, "DELETE FROM sync_cursor; TRUNCATE raw_sources, facts, nodes, edges CASCADE")
    result = await Lanes().cycle(roomy.context(batch_rows=7))
    assert (result.status, result.failures, result.owed) == (CycleStatus.DRAINED, 0, ())
    assert await differences(roomy) == []
    assert await read(roomy, RANGES) == []
