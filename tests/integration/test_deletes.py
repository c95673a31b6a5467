"""Deletes: whatever leaves the write-db leaves the graph-db and Qdrant, and what hung on it waits or leaves too."""

import re
from itertools import count

import pytest

from syncline.engine import run_cycle
from syncline.engine.keys import key_uuid
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.render.statements import Cursor, SchemaStatements
from syncline.messages.sync import CycleStatus, SyncResult, TableProgress
from syncline.testing.graphs import TestGraph, read, write
from syncline.testing.one_graph import session
from syncline.testing.truth import differences
from tests.kit.cases import further

SEED = """
INSERT INTO write_raw_sources (id, title, content_hash) VALUES ('r1', 'One', 'h1'), ('r2', 'Two', 'h1'), ('r3', 'Three', 'h3');
INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready'), ('f2', 'two', 'ready');
INSERT INTO write_fact_sources (fact_id, raw_source_id) VALUES ('f1', 'r1'), ('f2', 'r3');
INSERT INTO write_nodes (id, concept, parent_id, source_concept_id, fact_ids)
    VALUES ('a', 'A', NULL, NULL, '{f1,f2}'), ('b', 'B', 'a', 'a', '{f1}'), ('c', 'C', 'b', NULL, '{}');
INSERT INTO write_node_fact_rejections (node_id, fact_id) VALUES ('a', 'f2');
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids, directed)
    VALUES ('ab', 'a', 'b', 'x', '{f1}', true), ('bc', 'b', 'c', 'x', '{f2}', false), ('cc', 'c', 'c', 'x', '{}', true);
INSERT INTO write_dimensions (id, node_id, model_id, content, fact_ids) VALUES ('d1', 'a', 'm', 'dim', '{f1}');
INSERT INTO write_convergence_reports (node_id, convergence_score) VALUES ('a', 0.5), ('b', 0.25);
INSERT INTO write_node_counters (node_id, access_count) VALUES ('a', 7);
INSERT INTO write_node_versions (id, node_id, version) VALUES ('v1', 'a', 1), ('v2', 'a', 2);
INSERT INTO write_prohibited_chunks (id, content_hash, chunk_text) VALUES ('p1', 'h1', 'no'), ('p3', 'h3', 'no');
INSERT INTO write_llm_usage (id, model_id) VALUES ('u1', 'm');
"""
CHILDREN = ["edges", "dimensions", "convergence_reports", "node_counters", "node_versions"]


async def cycle(graph: TestGraph, batch_rows: int = 50_000) -> SyncResult:
    result = await run_cycle(graph.context(batch_rows=batch_rows))
    assert (result.status, result.failures, result.dead_letters) == (CycleStatus.DRAINED, 0, 0), result
    assert await differences(graph) == []
    return result


def of(result: SyncResult, table: str) -> TableProgress:
    return next(progress for progress in result.tables if progress.table == table)


async def test_all_ten_tables_and_the_numbers_arrive(graph: TestGraph) -> None:
    await write(graph, SEED)
    result = await cycle(graph)
    assert {progress.table: progress.rows for progress in result.tables if progress.rows} == {
        "raw_sources": 3, "facts": 2, "fact_sources": 2, "nodes": 3, "node_fact_rejections": 1, "edges": 3,
        "dimensions": 1, "convergence_reports": 2, "node_counters": 1, "node_versions": 2,
        "prohibited_chunks": 2, "llm_usage": 1,
    }  # fmt: skip
    [numbers] = await read(graph, f"SELECT * FROM node_stats WHERE node_id = '{key_uuid('a')}'")
    assert dict(numbers) == {
        "node_id": key_uuid("a"), "fact_count": 1, "edge_count": 1, "child_count": 1, "dimension_count": 1,
        "convergence_score": 0.5,
    }  # fmt: skip
    assert await graph.vectors.count("kg_nodes") == 3
    assert await graph.vectors.count("kg_facts") == 2
    assert (await cycle(graph)).batches == 0


@pytest.mark.long(
    "test_all_ten_tables_and_the_numbers_arrive", "test_a_delete_that_commits_late_is_not_missed"
)
@pytest.mark.parametrize("batch_rows", [2, *further(1, 50_000)])
async def test_everything_deleted_at_once_is_gone_everywhere(graph: TestGraph, batch_rows: int) -> None:
    await write(graph, SEED)
    await cycle(graph)
    for table in ("facts", "nodes", "edges", "raw_sources"):
        await write(graph, f"DELETE FROM write_{table}")
    for table in CHILDREN[1:]:
        await write(graph, f"DELETE FROM write_{table}")
    await write(
        graph,
        "DELETE FROM write_fact_sources; DELETE FROM write_node_fact_rejections;"
        "DELETE FROM write_prohibited_chunks; DELETE FROM write_llm_usage",
    )
    result = await cycle(graph, batch_rows)
    assert (result.parked, of(result, "nodes").deletes) == (0, 3)
    assert await graph.vectors.count("kg_nodes") == await graph.vectors.count("kg_facts") == 0
    for table in ("nodes", "edges", "facts", "node_stats", "sync_vector", "sync_parked_reference"):
        assert await read(graph, f"SELECT FROM {table}") == []


async def test_a_deleted_parent_parks_its_children_until_it_is_back(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(graph, "DELETE FROM write_nodes WHERE id = 'a'")
    result = await cycle(graph)
    assert of(result, "nodes").deletes == 1
    parked = await read(graph, "SELECT table_name, waits_for_key FROM sync_parked_row ORDER BY 1")
    assert {(row["table_name"], row["waits_for_key"]) for row in parked} == {
        (table, "a") for table in ("node_fact_rejections", *CHILDREN)
    }
    references = await read(graph, "SELECT name FROM sync_parked_reference ORDER BY 1")
    assert [row["name"] for row in references] == ["parent_id", "source_concept_id"]
    await write(graph, "INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('a', 'A again', '{f1,f2}')")
    result = await cycle(graph)
    assert result.parked == 0
    assert len(await read(graph, "SELECT FROM edges")) == 3


@pytest.mark.long(after=1)
@pytest.mark.parametrize("first", ["write_nodes", "write_edges"])
async def test_parent_and_child_leave_in_any_order_and_in_transactions_apart(
    graph: TestGraph, first: str
) -> None:
    await write(graph, SEED)
    await cycle(graph)
    tables = ["write_nodes", "write_edges"]
    tables.sort(key=lambda table: table != first)
    for table in tables:
        await write(graph, f"DELETE FROM {table}")
        await cycle(graph, batch_rows=2)
    assert await read(graph, "SELECT FROM sync_parked_row WHERE table_name = 'edges'") == []


async def test_a_row_deleted_and_written_again_stays(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(
        graph,
        "BEGIN; DELETE FROM write_facts WHERE id = 'f1';"
        "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'new', 'ready'); COMMIT",
    )
    result = await cycle(graph)
    assert (of(result, "facts").rows, of(result, "facts").deletes) == (1, 0)
    await write(graph, "DELETE FROM write_facts WHERE id = 'f1'")
    await write(graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'newer', 'ready')")
    assert of(await cycle(graph), "facts").rows == 1


async def test_a_row_that_is_put_back_by_an_open_transaction_comes_back_when_it_commits(
    graph: TestGraph,
) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(graph, "DELETE FROM write_llm_usage WHERE id = 'u1'")
    connection = await graph.connect_write()
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO write_llm_usage (id, model_id) VALUES ('u1', 'again')")
            await run_cycle(graph.context())
            assert await read(graph, "SELECT FROM llm_usage") == []
    finally:
        await connection.close()
    assert of(await cycle(graph), "llm_usage").rows == 1


async def test_a_delete_that_commits_late_is_not_missed(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    late = await graph.connect_write()
    try:
        async with late.transaction():
            await late.execute("DELETE FROM write_edges WHERE id = 'ab'")
            await write(graph, "DELETE FROM write_edges WHERE id = 'cc'")
            await run_cycle(graph.context())
    finally:
        await late.close()
    await cycle(graph)
    assert [row["key"] for row in await read(graph, "SELECT key FROM edges")] == ["bc"]


@pytest.mark.long(
    "test_all_ten_tables_and_the_numbers_arrive", "test_a_delete_that_commits_late_is_not_missed"
)
async def test_a_delete_that_is_rolled_back_deletes_nothing(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(graph, "BEGIN; DELETE FROM write_nodes; TRUNCATE write_edges; ROLLBACK")
    assert (await cycle(graph)).rows == 0


@pytest.mark.long(
    "test_all_ten_tables_and_the_numbers_arrive", "test_a_delete_that_commits_late_is_not_missed"
)
async def test_a_changed_key_is_the_end_of_the_old_row(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(
        graph,
        "UPDATE write_nodes SET id = 'z' WHERE id = 'c';"
        "UPDATE write_fact_sources SET raw_source_id = 'r2' WHERE fact_id = 'f1'",
    )
    result = await cycle(graph)
    assert of(result, "nodes").deletes == of(result, "fact_sources").deletes == 1
    assert result.parked == 2  # the edges that still name 'c'


async def test_whether_a_deleted_key_is_there_again_is_found_by_index_and_told_byte_by_byte(
    graph: TestGraph,
) -> None:
    query = SchemaStatements(KNOWLEDGE_GRAPH).capture_deleted_at("kg", Cursor(), horizon=9, limit=10)
    connection = await graph.connect_write()
    try:
        await connection.execute(
            "INSERT INTO write_llm_usage (id, model_id) SELECT i, 'm' FROM generate_series(1, 5000) i;"
            "DELETE FROM write_llm_usage WHERE id = '1'; ANALYZE write_llm_usage, sync_tombstone"
        )
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {query}"))
    finally:
        await connection.close()
    assert re.search(r"Index Cond: \(id = \(\S.*key\)\[1\]\)", plan)
    assert re.search(r"Filter: \(\(id\)::text = \(\S.*key\)\[1\]\)", plan)


async def test_packed_keys_are_read_one_by_one_from_any_position(graph: TestGraph) -> None:
    """Whatever the batches' sizes, and wherever one ends: within a pack, at its end, between single keys."""
    statements, cursor, limits = SchemaStatements(KNOWLEDGE_GRAPH), Cursor(), count(1)
    async with session(graph, graph.write_dsn) as connection:
        await connection.execute(
            "INSERT INTO write_llm_usage (id, model_id) SELECT i, 'm' FROM generate_series(1, 2300) i;"
            "INSERT INTO write_fact_sources (fact_id, raw_source_id) SELECT i, i || '\"' FROM generate_series(1, 20) i;"
            "DELETE FROM write_llm_usage WHERE id = '1'; DELETE FROM write_llm_usage; DELETE FROM write_fact_sources;"
            "INSERT INTO sync_tombstone (source_table, key) VALUES ('write_facts', '{}')"
        )
        packs = "SELECT count(*) FROM sync_tombstone WHERE array_ndims(key) = 2"
        assert await connection.fetchval(packs) == 4
        horizon = str(2**62)
        found: list[tuple[str, tuple[str, ...]]] = []
        sizes = [1000, 8, 990, 1, *(next(limits) for _ in range(30))]
        for limit in sizes:
            query = statements.capture_deleted_at("kg", cursor, horizon=int(horizon), limit=limit)
            rows = await connection.fetch(query)
            found += [(row["source_table"], tuple(row["key"])) for row in rows]
            first = await connection.fetchrow(
                statements.next_deleted("kg", cursor), *cursor.parameters(), horizon
            )
            assert first["seq"] == rows[0]["seq"]
            cursor = Cursor(xid=rows[-1]["sync_xid"], key=(str(rows[-1]["seq"]),))
            pending = f"SELECT count(*) FROM sync_tombstone WHERE {statements.rows_after_deleted(cursor, 1)}"
            left = await connection.fetchval(pending, *cursor.parameters())
            assert (left == 0) == (len(found) == 2321)
            if not left:
                break
    usage = {("write_llm_usage", (str(i),)) for i in range(1, 2301)}
    sources = {("write_fact_sources", (str(i), f'{i}"')) for i in range(1, 21)}
    assert len(found) == len(set(found)) == 2321
    assert set(found) == usage | sources | {("write_facts", ())}


async def test_a_truncated_table_is_empty_everywhere(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(graph, "TRUNCATE write_nodes, write_llm_usage")
    await cycle(graph)
    assert await read(graph, "SELECT FROM nodes") == await read(graph, "SELECT FROM llm_usage") == []


async def test_a_fact_that_is_no_longer_ready_takes_its_links_and_provenance_along(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(graph, "UPDATE write_facts SET dedup_status = 'duplicate' WHERE id = 'f1'")
    result = await cycle(graph)
    assert (of(result, "facts").deletes, of(result, "fact_sources").deletes) == (1, 1)
    assert await graph.vectors.count("kg_facts") == 1
    await write(graph, "UPDATE write_facts SET dedup_status = 'ready' WHERE id = 'f1'")
    await cycle(graph)
    assert len(await read(graph, "SELECT FROM node_facts")) == 2


async def test_a_later_rejection_removes_the_link_and_its_end_restores_it(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(graph, "INSERT INTO write_node_fact_rejections (node_id, fact_id) VALUES ('b', 'f1')")
    result = await cycle(graph)
    assert of(result, "nodes").links == 1
    await write(graph, "DELETE FROM write_node_fact_rejections WHERE node_id = 'b'")
    assert of(await cycle(graph), "nodes").links == 1
    # A rejection of a link that waits is not forgotten when its fact comes.
    await write(
        graph,
        "UPDATE write_nodes SET fact_ids = '{f1,f9}' WHERE id = 'c';"
        "INSERT INTO write_node_fact_rejections (node_id, fact_id) VALUES ('c', 'f9')",
    )
    await cycle(graph)
    await write(graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f9', 'late', 'ready')")
    await cycle(graph)


@pytest.mark.long(
    "test_all_ten_tables_and_the_numbers_arrive", "test_a_delete_that_commits_late_is_not_missed"
)
async def test_chunks_follow_the_content_of_their_sources(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    for change in (
        "DELETE FROM write_raw_sources WHERE id = 'r1'",  # r2 has the same content
        "UPDATE write_raw_sources SET content_hash = 'h2' WHERE id = 'r2'",  # nobody has it now
        "UPDATE write_raw_sources SET content_hash = 'h1' WHERE id = 'r3'",  # and p3 waits
        "INSERT INTO write_raw_sources (id, content_hash) VALUES ('r4', 'h3')",
        "UPDATE write_prohibited_chunks SET content_hash = 'h3' WHERE id = 'p1'",
    ):
        await write(graph, change)
        await cycle(graph)
    assert len(await read(graph, "SELECT FROM prohibited_chunks")) == 2


async def test_visibility_and_creator_travel_with_every_row_that_has_them(graph: TestGraph) -> None:
    await write(graph, SEED)
    await write(graph, "UPDATE write_nodes SET visibility = 'private', creator_id = 'u'")
    await write(graph, "UPDATE write_edges SET visibility = 'private', creator_id = 'u'")
    await cycle(graph)
    for table in ("nodes", "edges"):
        rows = await read(graph, f"SELECT DISTINCT visibility, creator_id FROM {table}")
        assert [tuple(row) for row in rows] == [("private", "u")]


async def test_deletes_are_told_and_numbers_follow(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(
        graph,
        "DELETE FROM write_edges WHERE id = 'bc'; UPDATE write_nodes SET parent_id = 'b' WHERE id = 'b'",
    )
    await cycle(graph)
    await write(graph, "UPDATE write_edges SET target_node_id = 'c' WHERE id = 'ab'")
    await cycle(graph)
    numbers = await read(
        graph, "SELECT n.key, s.edge_count, s.child_count FROM node_stats s JOIN nodes n ON n.id = s.node_id"
    )
    assert {row["key"]: (row["edge_count"], row["child_count"]) for row in numbers} == {
        "a": (1, 0), "b": (0, 2), "c": (2, 0),
    }  # fmt: skip


async def test_a_row_names_the_run_that_brought_it(graph: TestGraph) -> None:
    await write(graph, SEED)
    context = graph.context()
    await run_cycle(context)
    await write(graph, "UPDATE write_nodes SET concept = 'changed' WHERE id = 'b'")
    later = graph.context()
    await run_cycle(later)
    rows = await read(graph, "SELECT n.key, r.run_id FROM nodes n JOIN sync_run r ON r.fence = n.sync_run")
    assert {row["key"]: row["run_id"] for row in rows} == {
        "a": context.run.run_id, "b": later.run.run_id, "c": context.run.run_id,
    }  # fmt: skip


@pytest.mark.long(
    "test_all_ten_tables_and_the_numbers_arrive", "test_a_delete_that_commits_late_is_not_missed"
)
async def test_a_thousand_deletes_take_a_handful_of_batches(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 2000) i;"
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)"
        " SELECT 'e' || i, 'n' || i, 'n' || (i % 100 + 1), 'x' FROM generate_series(1, 2000) i",
    )
    await run_cycle(graph.context())
    await write(graph, "DELETE FROM write_nodes WHERE id LIKE 'n1%'")
    result = await run_cycle(graph.context())
    assert (result.status, of(result, "nodes").deletes) == (CycleStatus.DRAINED, 1111)
    assert result.batches < 10
    assert (
        await read(
            graph, "SELECT FROM edges e WHERE NOT EXISTS (SELECT FROM nodes n WHERE n.id = e.target_node_id)"
        )
        == []
    )
    waiting = await read(graph, "SELECT FROM sync_parked_row WHERE table_name = 'edges'")
    assert len(waiting) + len(await read(graph, "SELECT FROM edges")) == 2_000
