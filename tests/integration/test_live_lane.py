"""Live lane: what is written while a table is loaded does not wait for the load."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.embeddings.service import Vectors
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, news, run_cycle
from syncline.engine.live_lane import LoadDrain
from syncline.engine.news import News
from syncline.engine.schema_problems import schema_problems
from syncline.messages.sync import CycleProgress, CycleStatus
from syncline.operator.explain import explain
from syncline.operator.explanation import Explanation, RowState
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.truth import differences
from tests.kit.damage import damage
from tests.kit.lanes import Lanes
from tests.kit.loads import every_load
from tests.kit.seen import Seen

SEED = """
INSERT INTO write_facts (id, content, dedup_status) SELECT format('f%s', n), 'fact ' || n, 'ready' FROM generate_series(10, 29) n;
INSERT INTO write_nodes (id, concept, parent_id, fact_ids)
    SELECT format('n%s', n), 'node ' || n, CASE WHEN n > 10 THEN format('n%s', n - 1) END, ARRAY[format('f%s', n)]
    FROM generate_series(10, 29) n;
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids, directed)
    SELECT format('e%s', n), format('n%s', n), 'n10', 'x', ARRAY[format('f%s', n)], true FROM generate_series(20, 29) n
"""
FRESH = """
INSERT INTO write_nodes (id, concept, parent_id, fact_ids) VALUES ('fresh', 'fresh', 'n28', '{f10,f27}');
UPDATE write_nodes SET concept = 'newer' WHERE id IN ('n10', 'n25');
UPDATE write_nodes SET parent_id = 'n29' WHERE id = 'n11';
DELETE FROM write_nodes WHERE id IN ('n12', 'n27');
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed)
    VALUES ('there', 'n10', 'n11', 'x', true), ('coming', 'n10', 'n26', 'x', true)
"""
"""Of rows that were loaded (n10 to n12), and of others that were not."""
LOADS = "SELECT table_name FROM sync_cursor WHERE below IS NOT NULL"


@pytest.fixture(autouse=True)
def _every_load(monkeypatch: pytest.MonkeyPatch) -> None:
    every_load(monkeypatch)


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Awaitable[None]]]:
    """What happens after the turns of a load of one batch each, one by one."""
    acts: list[Callable[[], Awaitable[None]]] = []
    run_loads = LoadDrain.run_loads

    async def ran(self: LoadDrain, *given: object) -> None:
        await run_loads(self, *given)  # type: ignore[arg-type]
        if acts:
            await acts.pop(0)()

    monkeypatch.setattr(LoadDrain, "run_loads", ran)
    return acts


class _StoppedError(Exception):
    """Stops a cycle between two commits."""


async def _stopped(graph: TestGraph, nodes: int) -> None:
    """Run a cycle until it has captured so many nodes."""

    def beat(progress: CycleProgress) -> None:
        if any(table.table == "nodes" and table.captured >= nodes for table in progress.tables):
            raise _StoppedError

    with pytest.raises(_StoppedError):
        await run_cycle(replace(graph.context(batch_rows=3), heartbeat=beat))
    await graph.wait_until_free()


async def _concepts(graph: TestGraph) -> dict[str, str]:
    return {row["key"]: row["concept"] for row in await read(graph, "SELECT key, concept FROM nodes")}


async def _explained(graph: TestGraph, key: str) -> Explanation:
    context = graph.context()
    return await explain(
        context.write, context.target, context.vectors, KNOWLEDGE_GRAPH, table="nodes", key=[key]
    )


async def test_fresh_changes_overtake_a_load_that_was_interrupted(graph: TestGraph) -> None:
    """Rows, deletes and references of both sides of the load's cursor; nothing deleted comes back."""
    await write(graph, SEED)
    await _stopped(graph, 3)
    await write(graph, FRESH)
    await _stopped(graph, 4)
    concepts = await _concepts(graph)
    assert {key: concepts.get(key) for key in ("n10", "n12", "n25", "n27", "n28", "fresh")} == {
        "n10": "newer", "n12": None, "n25": "newer", "n27": None, "n28": None, "fresh": "fresh",
    }  # fmt: skip
    assert [row["table_name"] for row in await read(graph, f"{LOADS} ORDER BY 1")] == [
        "sync_load/edges",
        "sync_load/nodes",
    ]
    assert await damage(graph, counted=False) == []
    row = await _explained(graph, "n28")
    assert (row.state, row.write.loading) == (RowState.PENDING, True)
    result = await run_cycle(graph.context(batch_rows=3))
    # What refers to a deleted node waits for it: two nodes and an edge.
    assert (result.status, result.failures, result.parked, result.owed) == (CycleStatus.DRAINED, 0, 3, ())
    assert await read(graph, LOADS) == []
    assert await differences(graph) == []
    assert await damage(graph, counted=False) == []
    assert (await run_cycle(graph.context())).batches == 0


async def test_waits_are_granted_while_a_load_goes_on(
    graph: TestGraph, turn: list[Callable[[], Awaitable[None]]]
) -> None:
    """For what came after the load began, not for what the load has yet to read."""
    states: dict[str, str] = {}
    tokens: list[str] = []

    async def token(script: str) -> str:
        connection = await graph.connect_write()
        try:
            async with connection.transaction():
                await connection.execute(script)
                return str(await connection.fetchval("SELECT syncline.token()"))
        finally:
            await connection.close()

    async def ask(number: int) -> str:
        [row] = await read(graph, "SELECT state FROM syncline.visible('kg', $1)", tokens[number])
        return str(row["state"])

    async def written() -> None:
        tokens.append(await token("UPDATE write_nodes SET concept = 'newer' WHERE id IN ('n10', 'n29')"))

    async def then() -> None:
        states.update(before=await ask(0), fresh=await ask(1))
        assert (await _concepts(graph))["n29"] == "newer"
        tokens.append(
            await token(
                "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed)"
                " VALUES ('parks', 'n10', 'n28', 'x', true)"
            )
        )

    async def at_last() -> None:
        states.update(parked=await ask(2), earlier=await ask(1))

    async def nothing() -> None:
        """A turn passes."""

    tokens.append(await token(SEED))
    turn += [*[nothing] * 9, written, then, at_last]
    result = await run_cycle(graph.context(batch_rows=3))
    assert not turn
    assert (result.status, result.parked) == (CycleStatus.DRAINED, 0)
    assert states == {"before": "pending", "fresh": "visible", "parked": "pending", "earlier": "visible"}
    assert [await ask(number) for number in range(3)] == ["visible"] * 3
    told = [table for beat in graph.heartbeats for table in beat.tables if table.table == "nodes"]
    assert any(table.loading and (table.expected or 0) >= 20 for table in told)
    assert not told[-1].loading
    assert await differences(graph) == []


async def test_table_that_fails_is_logged_and_checked_once_in_a_load(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn is a pass of the cycle: what failed before fails in silence, and the catalogs are not read again."""
    checks: list[object] = []

    async def checked(*given: Any, **named: Any) -> Any:
        checks.append(given)
        return await schema_problems(*given, **named)

    monkeypatch.setattr("syncline.engine.cycle.schema_problems", checked)
    await write(graph, SEED)
    await on_target(graph, "ALTER TABLE edges DROP COLUMN weight")
    with capture_logs() as logs:
        # An engine of its own knows of no earlier test's tables.
        result = await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(graph.context(batch_rows=3))
    events = [line["event"] for line in logs]
    assert (result.status, [table.table for table in result.tables if table.error]) == (
        CycleStatus.FAILED,
        ["edges"],
    )
    assert events.count("cycle repeated") > 5
    assert (events.count("table failed"), len(checks)) == (1, 2)


async def test_a_table_that_is_read_again_is_overtaken_too(
    graph: TestGraph, turn: list[Callable[[], Awaitable[None]]]
) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    await on_target(
        graph, "DELETE FROM sync_cursor WHERE table_name = 'nodes'; UPDATE nodes SET concept = 'damaged'"
    )
    seen: list[dict[str, str]] = []

    async def written() -> None:
        await write(graph, FRESH)

    async def then() -> None:
        seen.append(await _concepts(graph))

    turn += [written, then]
    result = await run_cycle(graph.context(batch_rows=3))
    assert (result.status, result.failures) == (CycleStatus.DRAINED, 0)
    assert (seen[0]["n25"], seen[0]["n28"], seen[0]["fresh"]) == ("newer", "damaged", "fresh")
    assert await differences(graph) == []


class _Asked(DevelopmentEmbedding):
    """Does something whenever it is asked for vectors, before it answers."""

    def __init__(self, act: Callable[[], Awaitable[None]]) -> None:
        super().__init__(16)
        self._act = act

    async def embed(self, texts: Sequence[str]) -> Vectors:
        await self._act()
        return await super().embed(texts)


async def test_changes_overtake_points_too(graph: TestGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many points are written, the cycle looks for changes, applies them and goes on."""
    looks: list[News] = []
    there: list[bool] = []
    enter = News.__aenter__

    async def entered(self: News) -> News:
        looks.append(self)
        return await enter(self)

    async def asked() -> None:
        if not there:
            await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('fresh', 'fresh')")
            async with asyncio.timeout(60):
                while not looks[-1].came:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        there.append("fresh" in await _concepts(graph))

    monkeypatch.setattr(News, "__aenter__", entered)
    monkeypatch.setattr(news, "_FIRST", 0.01)
    texts = "INSERT INTO write_facts (id, content, dedup_status)"
    await write(graph, f"{texts} SELECT 'f' || n, 'fact ' || n, 'ready' FROM generate_series(1, 2000) n")
    graph.embedding = _Asked(asked)
    result = await run_cycle(graph.context())
    assert result.status is CycleStatus.DRAINED
    assert (there[0], there[-1], result.vectors.upserted) == (False, True, 2001)
    assert await differences(graph) == []


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("rows", "lanes"), [(500_000, 1), (1_000_000, 2)])
async def test_changes_are_visible_within_five_seconds_during_a_load(
    graph: TestGraph,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rows: int,
    lanes: int,
) -> None:
    """A writer changes, inserts and deletes rows all the while; each change is looked for until it is there."""
    monkeypatch.undo()
    await write(
        graph,
        f"""
    INSERT INTO write_facts (id, content, dedup_status)
        SELECT 'f' || n, repeat('fact ' || n || ' ', 5), 'ready' FROM generate_series(1, {rows} / 2) n;
    INSERT INTO write_nodes (id, concept, parent_id, fact_ids)
        SELECT 'n' || n, 'node ' || n, 'n' || n / 10, ARRAY['f' || n, 'f' || n * 2] FROM generate_series(1, {rows} / 4) n;
    INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids, directed)
        SELECT 'e' || n, 'n' || n, 'n' || (n * 7) % ({rows} / 4) + 1, 'x', ARRAY['f' || n], true FROM generate_series(1, {rows} / 4) n;
    ANALYZE
    """,
    )
    started = time.monotonic()
    load = asyncio.create_task(Lanes(number=lanes).cycle(graph.context(seconds=3600)))
    writer, reader = await graph.connect_write(), await graph.connect_target()
    seen = Seen(writer, reader, rows // 4, "n")
    await seen.watch(load, lambda: run_cycle(graph.context()))
    for connection in (writer, reader):
        await connection.close()
    result, seconds = await load, time.monotonic() - started
    p50, p99, last = (seen.quantile(part) for part in (0.5, 0.99, 1))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{lanes} lanes: {rows:,} rows and {result.vectors.upserted:,} points loaded in {seconds:.1f} s, {result.batches}"
            f" batches; {len(seen.waited):,} changes meanwhile visible after {p50:.2f} s (p50), {p99:.2f} s (p99), {last:.2f} s (last)\n"
        )
    assert result.failures == 0
    assert await damage(graph, counted=False) == []
    assert p99 <= 5
