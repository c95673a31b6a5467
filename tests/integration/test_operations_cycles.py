"""What operators do, and what the engine's cycles then make of it."""

from pathlib import Path

import pytest

from syncline.control.audit import Actor
from syncline.engine import run_cycle
from syncline.engine.keys import key_uuid
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.messages.sync import SyncResult
from syncline.operator.dead_letters import (
    DeadLetterState,
    Selection,
    discard,
    list_dead_letters,
    retry,
    show,
    summarize,
)
from syncline.operator.explain import explain
from syncline.operator.explanation import Explanation, RowState
from syncline.operator.parked import Obstacle, summarize_parked
from syncline.provider import GraphSchema, GraphVectors
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.testing.graphs import SCHEMA, TestGraph, write
from syncline.testing.one_graph import session


def target(graph: TestGraph) -> GraphSchema:
    return GraphSchema(store=graph.target, schema=SCHEMA)


def source(graph: TestGraph) -> GraphSchema:
    return GraphSchema(store=graph.write, schema=SCHEMA)


async def on_target(graph: TestGraph, sql: str) -> list[tuple[object, ...]]:
    async with session(graph, graph.target_dsn) as connection:
        return [tuple(row) for row in await connection.fetch(sql)]


async def cycle(graph: TestGraph) -> SyncResult:
    return await run_cycle(graph.context())


async def told(graph: TestGraph, table: str, *key: str) -> Explanation:
    vectors = GraphVectors(store=graph.vectors, prefix="kg_")
    return await explain(source(graph), target(graph), vectors, KNOWLEDGE_GRAPH, table=table, key=key)


async def nodes(graph: TestGraph) -> list[tuple[object, ...]]:
    return await on_target(graph, "SELECT key, concept FROM nodes ORDER BY key")


@pytest.fixture
async def refusing(graph: TestGraph) -> TestGraph:
    """A graph whose graph-db refuses two of three nodes, after a cycle."""
    await on_target(graph, "ALTER TABLE nodes ADD CONSTRAINT short CHECK (length(concept) < 4)")
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'too long'), ('n2', 'fit'), ('n3', 'longer')",
    )
    await cycle(graph)
    return graph


@pytest.mark.long("test_waits_double_from_a_minute_until_the_fifth_refusal_is_the_last")
async def test_refused_rows_land_after_a_retry_by_their_cause(refusing: TestGraph) -> None:
    assert await nodes(refusing) == [("n2", "fit")]
    [group] = (await summarize(target(refusing))).groups
    assert (group.table, group.sqlstate, group.constraint, group.rows) == ("nodes", "23514", "short", 2)
    assert group.state is DeadLetterState.RETRYING
    explained = await told(refusing, "nodes", "n1")
    assert explained.state is RowState.RETRYING
    assert explained.verdict.startswith("refused: [23514] new row for relation")
    await on_target(refusing, "ALTER TABLE nodes DROP CONSTRAINT short")
    # Nothing happens before its time.
    assert (await cycle(refusing)).rows == 0
    selection = Selection(fingerprint=group.fingerprint)
    assert await retry(target(refusing), selection, by=Actor(who="ada", why="constraint dropped")) == 2
    assert (await cycle(refusing)).rows == 2
    assert await nodes(refusing) == [("n1", "too long"), ("n2", "fit"), ("n3", "longer")]
    assert (await summarize(target(refusing))).rows == 0
    assert (await told(refusing, "nodes", "n1")).state is RowState.IN_STEP


async def test_waits_double_from_a_minute_until_the_fifth_refusal_is_the_last(refusing: TestGraph) -> None:
    waits = []
    for attempt in range(1, 6):
        letter = await show(target(refusing), "nodes", ["n1"])
        assert letter is not None
        assert letter.attempts == attempt
        if letter.next_retry_at is None:
            break
        assert letter.last_failed_at is not None
        waits.append(round((letter.next_retry_at - letter.last_failed_at).total_seconds()))
        await on_target(refusing, "UPDATE sync_dead_letter SET next_retry_at = now()")
        result = await cycle(refusing)
        assert (result.failures, result.dead_letters) == (2, 2)
    assert waits == [60, 120, 240, 480]
    page = await list_dead_letters(target(refusing), state=DeadLetterState.DEAD)
    assert {letter.key for letter in page.letters} == {("n1",), ("n3",)}
    assert (await told(refusing, "nodes", "n1")).state is RowState.DEAD
    # The dead are left alone: a cycle has nothing to do.
    assert (await cycle(refusing)).failures == 0
    # A retry begins the same schedule anew.
    assert (
        await retry(target(refusing), Selection(everything=True), by=Actor(who="ada", why="try again")) == 2
    )
    await cycle(refusing)
    again = await show(target(refusing), "nodes", ["n1"])
    assert again is not None
    assert (again.attempts, again.state) == (1, DeadLetterState.RETRYING)


async def test_a_discarded_version_is_never_tried_and_a_newer_one_is(refusing: TestGraph) -> None:
    assert await discard(target(refusing), Selection(table="nodes"), by=Actor(who="ada", why="nonsense")) == 2
    await on_target(refusing, "ALTER TABLE nodes DROP CONSTRAINT short")
    assert (await cycle(refusing)).rows == 0
    assert await nodes(refusing) == [("n2", "fit")]
    assert (await told(refusing, "nodes", "n1")).state is RowState.GIVEN_UP
    await write(refusing, "UPDATE write_nodes SET concept = 'new' WHERE id = 'n1'")
    assert (await told(refusing, "nodes", "n1")).state is RowState.PENDING
    await cycle(refusing)
    assert await nodes(refusing) == [("n1", "new"), ("n2", "fit")]
    explained = await told(refusing, "nodes", "n1")
    assert (explained.state, explained.discarded) == (RowState.IN_STEP, None)


@pytest.mark.long("test_waits_double_from_a_minute_until_the_fifth_refusal_is_the_last")
async def test_a_newer_version_takes_the_place_of_a_refused_one(refusing: TestGraph) -> None:
    first = await show(target(refusing), "nodes", ["n1"])
    assert first is not None
    await write(refusing, "UPDATE write_nodes SET concept = 'too long again' WHERE id = 'n1'")
    await write(refusing, "UPDATE write_nodes SET concept = 'now' WHERE id = 'n3'")
    await cycle(refusing)
    second = await show(target(refusing), "nodes", ["n1"])
    assert second is not None
    assert second.version > first.version
    assert (second.attempts, second.fingerprint) == (1, first.fingerprint)
    assert await show(target(refusing), "nodes", ["n3"]) is None
    assert ("n3", "now") in await nodes(refusing)


async def test_a_refused_row_that_is_deleted_is_no_failure_any_longer(refusing: TestGraph) -> None:
    await write(refusing, "DELETE FROM write_nodes WHERE id = 'n1'")
    explained = await told(refusing, "nodes", "n1")
    assert explained.state is RowState.PENDING
    await cycle(refusing)
    assert await show(target(refusing), "nodes", ["n1"]) is None
    explained = await told(refusing, "nodes", "n1")
    assert explained.state is RowState.IN_STEP
    assert explained.verdict.startswith("not in the write-db, deleted 20")


async def test_what_waits_is_told_with_its_reason_until_it_lands(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('n1', 'c', '{f1}');"
        " INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'c', 'pending');"
        " INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)"
        " VALUES ('e1', 'n1', 'n2', 't');"
        " INSERT INTO write_prohibited_chunks (id, content_hash, chunk_text) VALUES ('p1', 'h1', 't')",
    )
    await cycle(graph)
    found = await summarize_parked(source(graph), target(graph), KNOWLEDGE_GRAPH)
    assert (found.rows, found.references) == (2, 1)
    assert {(one.table, one.key, one.named_by, one.obstacle) for one in found.awaited} == {
        ("nodes", "n2", None, Obstacle.MISSING),
        ("facts", "f1", None, Obstacle.NOT_READY),
        ("raw_sources", "h1", "content_hash", Obstacle.MISSING),
    }
    edge = await told(graph, "edges", "e1")
    assert edge.state is RowState.PARKED
    assert edge.verdict.startswith("waits for nodes 'n2' since 20")
    node = await told(graph, "nodes", "n1")
    assert node.verdict == "in step; its node_facts waits for facts 'f1'"
    assert [(part.table, part.waiting) for part in (await told(graph, "nodes", "n2")).waiting_for_it] == [
        ("edges", 1)
    ]
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) VALUES ('n2', 'c');"
        " UPDATE write_facts SET dedup_status = 'ready';"
        " INSERT INTO write_raw_sources (id, content_hash) VALUES ('r1', 'h1')",
    )
    await cycle(graph)
    found = await summarize_parked(source(graph), target(graph), KNOWLEDGE_GRAPH)
    assert (found.rows, found.references, found.released, found.awaited) == (0, 0, 0, ())
    for row in (("edges", "e1"), ("nodes", "n1"), ("nodes", "n2"), ("prohibited_chunks", "p1")):
        explained = await told(graph, *row)
        assert (explained.state, explained.verdict) == (RowState.IN_STEP, "in step")
        by = explained.graph.synced_by
        assert by is not None
        assert by.workflow_id == "sync-graph/kg"
    vector = explained.vector
    assert vector is None
    vector = (await told(graph, "nodes", "n1")).vector
    assert vector is not None
    assert (vector.wanted, vector.written, vector.current, vector.queued_at) == (True, True, True, None)
    assert (vector.point, vector.problem) == (True, None)


async def test_a_change_of_nothing_that_travels_is_in_step(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'c', 'ready')")
    await cycle(graph)
    await write(graph, "UPDATE write_facts SET content = content")
    await cycle(graph)
    explained = await told(graph, "facts", "f1")
    assert explained.state is RowState.IN_STEP
    assert explained.verdict in (
        "in step",
        f"in step: version {explained.write.version} changed no replicated column",
    )


@pytest.mark.long("test_waits_double_from_a_minute_until_the_fifth_refusal_is_the_last")
async def test_a_point_that_the_vector_store_lost_is_told_and_one_that_cannot_be_asked_is_no_failure(
    graph: TestGraph, tmp_path: Path
) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c')")
    await cycle(graph)
    await graph.vectors.delete("kg_nodes", [key_uuid("n1")])
    lost = await told(graph, "nodes", "n1")
    assert lost.state is RowState.IN_STEP
    assert lost.verdict == "in step; its point is not in the vector store, unlike the engine state"
    assert lost.vector is not None
    assert (lost.vector.written, lost.vector.point) == (True, False)
    another = EmbeddedQdrantStore("another", tmp_path / "qdrant")
    held = await explain(
        source(graph),
        target(graph),
        GraphVectors(store=another, prefix="kg_"),
        KNOWLEDGE_GRAPH,
        table="nodes",
        key=("n1",),
    )
    await another.close()
    assert (held.state, held.verdict) == (RowState.IN_STEP, "in step")
    assert held.vector is not None
    assert held.vector.point is None
    assert "is held by another process" in (held.vector.problem or "")
