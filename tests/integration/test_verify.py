"""Verification: hand-made damage is found by its key, healed by a repair, and never seen where there is none."""

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import asyncpg
import numpy as np
import pytest
import pytest_asyncio

from syncline.engine import KNOWLEDGE_GRAPH, run_cycle
from syncline.engine.keys import key_uuid
from syncline.errors import InputInvalid
from syncline.messages.sync import CycleStatus
from syncline.messages.verification import Relation, Verdict, Verification
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.stores.vectors import PointPayload
from syncline.testing.graphs import TestGraph, read, write
from syncline.testing.one_graph import LOCK, session
from syncline.testing.truth import differences
from syncline.verify import in_flight as unsettled
from syncline.verify import stats as numbers
from syncline.verify import verify
from tests.kit.cases import further

SEED = """
INSERT INTO write_raw_sources (id, uri, title, content_hash)
    VALUES ('r1', 'https://example.org', 'One', 'h1'), ('r2', NULL, 'Two', 'h2'), ('r3', NULL, '', 'h2');
INSERT INTO write_facts (id, content, dedup_status)
    VALUES ('f1', 'one', 'ready'), ('f2', 'two', 'ready'), ('f3', 'three', 'pending'), ('f4', '', 'ready');
INSERT INTO write_fact_sources (fact_id, raw_source_id, attribution)
    VALUES ('f1', 'r1', 'a'), ('f2', 'r2', 'b'), ('f3', 'r1', 'waits for f3');
INSERT INTO write_nodes (id, concept, definition, parent_id, source_concept_id, fact_ids, visibility, metadata)
    VALUES ('n1', 'Child', 'a child', 'n2', NULL, '{f1,f2,f1,NULL}', 'private', '{"a": [1, null, 1.50]}'),
           ('n2', 'Parent', NULL, NULL, 'n1', '{f2,f3}', 'public', 'null'),
           ('n3', 'Waits', NULL, 'nobody', 'n3', '{f1,f4,f9}', 'public', NULL);
INSERT INTO write_node_fact_rejections (node_id, fact_id, reason)
    VALUES ('n1', 'f2', 'wrong'), ('n2', 'f3', 'its fact is not there'), ('n1', 'f4', 'never claimed');
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed, fact_ids, weight)
    VALUES ('e1', 'n1', 'n2', 'child_of', true, '{f1}', 0.1), ('e2', 'n2', 'n1', 'sibling', false, '{}', '-0'),
           ('e3', 'n1', 'n2', 'sibling', false, '{}', 1e300), ('e4', 'n1', 'n9', 'waits', true, '{f1}', 1);
INSERT INTO write_dimensions (id, node_id, model_id, content, fact_ids)
    VALUES ('d1', 'n1', 'm', 'text', '{f1,f2}'), ('d2', 'n9', 'm', 'waits', '{f1}');
INSERT INTO write_convergence_reports (node_id, convergence_score, converged_claims)
    VALUES ('n1', 0.7, '["a"]'), ('n2', NULL, NULL);
INSERT INTO write_node_counters (node_id, access_count) VALUES ('n1', 3), ('n2', 4);
INSERT INTO write_node_versions (id, node_id, version, snapshot)
    VALUES ('v1', 'n1', 1, '{}'), ('v2', 'n1', 2, '{"b": 1}');
INSERT INTO write_prohibited_chunks (id, content_hash, chunk_text)
    VALUES ('p1', 'h1', 'chunk'), ('p2', 'h2', 'of either'), ('p3', 'h3', 'waits for h3');
INSERT INTO write_llm_usage (id, model_id, cost_usd) VALUES ('u1', 'm', 0.10), ('u2', 'm', NULL);
"""


@asynccontextmanager
async def _connected(opened: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    try:
        yield opened
    finally:
        await opened.close()


async def damage(graph: TestGraph, sql: str, *arguments: object) -> None:
    async with session(graph, graph.target_dsn) as connection:
        await connection.execute(sql, *arguments)


async def verified(graph: TestGraph, *, repair: bool = False, **options: object) -> Verification:
    context = graph.context()
    return await verify(
        KNOWLEDGE_GRAPH,
        write=context.write,
        target=context.target,
        vectors=context.vectors,
        embedding=context.embedding.name,
        repair=repair,
        who="tester",
        why="a test",
        **options,
    )


Key = tuple[str, ...]


def of(verification: Verification, name: str) -> Relation:
    [relation] = [relation for relation in verification.relations if relation.name == name]
    return relation


def damage_in(verification: Verification) -> dict[tuple[str, str, str], tuple[Key, ...]]:
    """Return (kind, relation, verdict) -> keys of everything that only a repair can mend."""
    return {
        (relation.kind.value, relation.name, verdict.value): relation.found(verdict).keys
        for relation in verification.relations
        for verdict in Verdict
        if verdict.damage and relation.found(verdict).count
    }


@pytest_asyncio.fixture(loop_scope="session")
async def seeded(graph: TestGraph) -> TestGraph:
    await write(graph, SEED)
    await run_cycle(graph.context())
    return graph


async def healed(graph: TestGraph) -> None:
    """Run the next cycle, after which nothing is damaged."""
    result = await run_cycle(graph.context())
    assert result.status is CycleStatus.DRAINED
    after = await verified(graph)
    assert damage_in(after) == {}
    assert after.equal
    assert await differences(graph) == []


async def test_a_graph_in_step_is_equal_and_what_waits_is_told_apart(seeded: TestGraph) -> None:
    found = await verified(seeded)
    assert found.equal
    assert {relation.name: relation.equal for relation in found.relations if relation.kind.value == "rows"} == {
        "raw_sources": 3, "facts": 3, "fact_sources": 2, "nodes": 2, "node_fact_rejections": 2, "edges": 3,
        "dimensions": 1, "convergence_reports": 2, "node_counters": 2, "node_versions": 2,
        "prohibited_chunks": 2, "llm_usage": 2,
    }  # fmt: skip
    parked = {relation.name: relation.parked.keys for relation in found.relations if relation.parked.count}
    assert parked == {
        "fact_sources": (("f3", "r1"),), "nodes": (("n3",),), "node_facts": (("n2", "f3"), ("n3", "f9")),
        "node_fact_rejections": (("n2", "f3"),), "edges": (("e4",),), "dimensions": (("d2",),),
        "prohibited_chunks": (("p3",),),
    }  # fmt: skip


DAMAGE = [
    [
        ("DELETE FROM llm_usage WHERE key = 'u1'", {("rows", "llm_usage", "missing"): (("u1",),)}),
        ("DELETE FROM fact_sources WHERE attribution = 'a'", {("rows", "fact_sources", "missing"): (("f1", "r1"),)}),
        ("DELETE FROM node_counters WHERE access_count = 3", {("rows", "node_counters", "missing"): (("n1",),)}),
        ("UPDATE nodes SET concept = 'forged' WHERE key = 'n2'", {
            ("rows", "nodes", "stale"): (("n2",),), ("vectors", "nodes", "stale"): (("n2",),),
        }),
        ("UPDATE nodes SET parent_id = NULL WHERE key = 'n1'", {("rows", "nodes", "stale"): (("n1",),), ("stats", "node_stats", "stale"): (("n2",),)}),
        ("UPDATE edges SET weight = 0.10000000000000002 WHERE key = 'e1'", {("rows", "edges", "stale"): (("e1",),)}),
        ("UPDATE convergence_reports SET converged_claims = NULL WHERE convergence_score = 0.7", {("rows", "convergence_reports", "stale"): (("n1",),)}),
        ("UPDATE prohibited_chunks SET raw_source_id = syncline.key_uuid('r1') WHERE key = 'p2'", {("rows", "prohibited_chunks", "stale"): (("p2",),)}),
        ("INSERT INTO dimension_facts SELECT id, syncline.key_uuid('f4') FROM dimensions", {("links", "dimension_facts", "extra"): (("d1", "f4"),)}),
        ("DELETE FROM sync_parked_row WHERE table_name = 'edges'", {("rows", "edges", "missing"): (("e4",),)}),
        ("DELETE FROM sync_parked_reference WHERE waits_for_key = 'f9'", {("links", "node_facts", "missing"): (("n3", "f9"),)}),
    ],
    [
        ("UPDATE llm_usage SET cost_usd = 0.1 WHERE key = 'u1'", {("rows", "llm_usage", "stale"): (("u1",),)}),
        ("UPDATE nodes SET visibility = 'public' WHERE key = 'n1'", {
            ("rows", "nodes", "stale"): (("n1",),), ("vectors", "nodes", "stale"): (("n1",),),
        }),
        ("UPDATE edges SET source_node_id = target_node_id, target_node_id = source_node_id WHERE key = 'e2'", {("rows", "edges", "stale"): (("e2",),)}),
        ("INSERT INTO fact_sources SELECT syncline.key_uuid('f2'), syncline.key_uuid('r1'), NULL, NULL, now(), now(), 1, 1", {("rows", "fact_sources", "extra"): (("f2", "r1"),)}),
        ("DELETE FROM edge_facts", {("links", "edge_facts", "missing"): (("e1", "f1"),)}),
        ("UPDATE node_stats SET edge_count = 7 WHERE node_id = syncline.key_uuid('n3')", {("stats", "node_stats", "stale"): (("n3",),)}),
        ("DELETE FROM sync_parked_reference WHERE name = 'parent_id'", {("rows", "nodes", "stale"): (("n3",),)}),
        ("INSERT INTO sync_parked_row SELECT table_name, ARRAY['e9'], image, waits_for_table, waits_for, waits_for_key, now(), false, syncline.key_uuid('e9') FROM sync_parked_row WHERE table_name = 'edges'", {("rows", "edges", "extra"): (("e9",),)}),
        ("UPDATE sync_parked_row SET waits_for_key = 'h1' WHERE table_name = 'prohibited_chunks'", {("rows", "prohibited_chunks", "missing"): (("p3",),)}),
    ],
    [
        ("INSERT INTO llm_usage SELECT syncline.key_uuid('x'), 'x', task, model_id, 1, 1, 1, now(), 1, 1 FROM llm_usage LIMIT 1", {("rows", "llm_usage", "extra"): (("x",),)}),
        ("INSERT INTO llm_usage SELECT gen_random_uuid(), 'u1', task, model_id, 1, 1, 1, now(), 1, 1 FROM llm_usage LIMIT 1", {("rows", "llm_usage", "extra"): (("u1",),)}),
        ("INSERT INTO node_facts SELECT syncline.key_uuid('n1'), syncline.key_uuid('f2')", {
            ("links", "node_facts", "extra"): (("n1", "f2"),), ("stats", "node_stats", "stale"): (("n1",),),
        }),
        ("DELETE FROM node_stats WHERE node_id = syncline.key_uuid('n2')", {("stats", "node_stats", "missing"): (("n2",),)}),
        ("UPDATE sync_parked_row SET waits_for = syncline.key_uuid('n1') WHERE table_name = 'dimensions'", {("rows", "dimensions", "missing"): (("d2",),)}),
        ("INSERT INTO sync_parked_reference SELECT table_name, name, syncline.key_uuid('n8'), waits_for_table, waits_for, waits_for_key FROM sync_parked_reference WHERE waits_for_key = 'f3'", {("links", "node_facts", "extra"): ((str(key_uuid("n8")), "f3"),)}),
        ("INSERT INTO sync_dead_letter (table_name, row_id, key, version, sqlstate, message, fingerprint, run_id) VALUES ('llm_usage', syncline.key_uuid('u9'), '{u9}', 1, '23514', 'no', 'f', 'r')", {("rows", "llm_usage", "extra"): (("u9",),)}),
    ],
    [
        ("UPDATE nodes SET key = 'n7' WHERE key = 'n2'", {
            ("rows", "nodes", "stale"): (("n2",),), ("vectors", "nodes", "stale"): (("n7",),),
        }),
        ("DELETE FROM raw_sources WHERE key = 'r1'", {
            ("rows", "raw_sources", "missing"): (("r1",),), ("rows", "fact_sources", "missing"): (("f1", "r1"),),
            ("rows", "prohibited_chunks", "missing"): (("p1",),),
        }),
    ],
]  # fmt: skip
"""What is damaged at once, and as what it is found: nothing of a round hides anything else of it. What waits (the books of
parked rows and references) is part of the graph-db too: nothing else would bring it."""


async def test_damage_by_hand_is_found_by_its_key_and_healed(seeded: TestGraph) -> None:
    for number, together in enumerate(DAMAGE):
        expected: dict[tuple[str, str, str], list[Key]] = {}
        for sql, damaged in together:
            await damage(seeded, sql)
            for found_as, keys in damaged.items():
                expected[found_as] = sorted([*expected.get(found_as, []), *keys])
        assert _sorted(damage_in(await verified(seeded))) == expected, number
        # Looking alone mends nothing, and a repair asks for just that.
        found = await verified(seeded, repair=True)
        assert _sorted(damage_in(found)) == expected, number
        table_of = {relation.name: relation.table for relation in found.relations}
        asked = await read(seeded, "SELECT table_name, key FROM sync_requeue")
        assert {(row["table_name"], tuple(row["key"])) for row in asked} == {
            (table_of[name], key[:1] if kind == "links" else key)
            for (kind, name, _), keys in expected.items()
            if kind in ("rows", "links")
            for key in keys
        }, number
        # One line for each relation that was repaired, and none for the others.
        audit = await read(seeded, "DELETE FROM sync_audit RETURNING action, table_name, who, why, rows")
        repaired: Counter[tuple[str, str]] = Counter()
        for (kind, name, _), keys in expected.items():
            repaired[kind, name] += len(keys)
        assert sorted(tuple(row) for row in audit) == sorted(
            (f"repair {kind}", name, "tester", "a test", rows) for (kind, name), rows in repaired.items()
        ), number
        await healed(seeded)


def _sorted(damaged: dict[tuple[str, str, str], tuple[Key, ...]]) -> dict[tuple[str, str, str], list[Key]]:
    return {found_as: sorted(keys) for found_as, keys in damaged.items()}


@pytest.mark.long(
    "test_damage_by_hand_is_found_by_its_key_and_healed",
    "test_a_graph_in_step_is_equal_and_what_waits_is_told_apart",
)
async def test_a_whole_table_that_was_emptied_comes_back(seeded: TestGraph) -> None:
    await damage(seeded, "TRUNCATE nodes CASCADE")
    found = await verified(seeded, repair=True)
    assert of(found, "edge_facts").damaged == 0  # it is its edge that is missing, and told once
    await healed(seeded)


async def test_lost_extra_and_stale_points_are_found_and_healed(seeded: TestGraph) -> None:
    store = seeded.vectors
    n1, n2, stranger = key_uuid("n1"), key_uuid("n2"), uuid4()
    await store.delete("kg_nodes", [n1])
    await store.overwrite_payload("kg_nodes", [PointPayload(n2, {"key": "n2", "concept": "forged"})])
    await store.upsert("kg_facts", [PointPayload(stranger, {"key": "x"})], np.ones((1, 64), dtype=np.float32))
    found = await verified(seeded, repair=True)
    assert damage_in(found) == {
        ("vectors", "nodes", "missing"): (("n1",),),
        ("vectors", "nodes", "stale"): (("n2",),),
        ("vectors", "facts", "extra"): ((str(stranger),),),
    }
    await healed(seeded)


@pytest.mark.long(
    "test_damage_by_hand_is_found_by_its_key_and_healed",
    "test_a_graph_in_step_is_equal_and_what_waits_is_told_apart",
)
async def test_a_lost_collection_is_missing_whole_and_comes_back(seeded: TestGraph) -> None:
    await seeded.vectors.drop_collection("kg_facts")
    found = await verified(seeded, repair=True)
    vectors = next(r for r in found.relations if r.kind.value == "vectors" and r.name == "facts")
    assert vectors.missing.count == 3
    await healed(seeded)


@pytest.mark.long(
    "test_damage_by_hand_is_found_by_its_key_and_healed",
    "test_a_graph_in_step_is_equal_and_what_waits_is_told_apart",
)
async def test_vectors_of_another_model_are_stale(seeded: TestGraph) -> None:
    await damage(seeded, "UPDATE sync_vector SET embedding = 'another' WHERE collection = 'facts'")
    found = await verified(seeded)
    assert {verdict for _, _, verdict in damage_in(found)} == {"stale"}


@pytest.mark.long(
    "test_damage_by_hand_is_found_by_its_key_and_healed",
    "test_a_graph_in_step_is_equal_and_what_waits_is_told_apart",
)
async def test_a_vector_store_that_is_away_leaves_the_databases_compared(seeded: TestGraph) -> None:
    store = QdrantServerStore("gone", "http://127.0.0.1:9", None, 1)
    try:
        context = seeded.context()
        found = await verify(
            KNOWLEDGE_GRAPH,
            write=context.write,
            target=context.target,
            vectors=replace(context.vectors, store=store),
            embedding=context.embedding.name,
        )
    finally:
        await store.close()
    assert not found.equal
    assert [r.name for r in found.relations if r.problem] == ["facts", "nodes"]
    assert of(found, "edges").equal == 3


async def test_what_is_on_its_way_is_pending(seeded: TestGraph) -> None:
    await write(
        seeded,
        "UPDATE write_llm_usage SET model_id = 'new' WHERE id = 'u1'; DELETE FROM write_llm_usage WHERE id = 'u2';"
        "INSERT INTO write_llm_usage (id, model_id) VALUES ('u3', 'm');"
        "UPDATE write_facts SET content = 'changed' WHERE id = 'f1';"
        # Nor are the links of an owner that changed, or whose rejection left or came.
        "UPDATE write_edges SET fact_ids = '{f2}' WHERE id = 'e1'; DELETE FROM write_dimensions WHERE id = 'd1';"
        "DELETE FROM write_node_fact_rejections WHERE node_id = 'n1';"
        "INSERT INTO write_node_fact_rejections (node_id, fact_id) VALUES ('n3', 'f1')",
    )
    found = await verified(seeded)
    assert damage_in(found) == {}
    assert set(of(found, "llm_usage").pending.keys) == {("u1",), ("u2",), ("u3",)}
    await healed(seeded)


@pytest.mark.long(
    "test_damage_by_hand_is_found_by_its_key_and_healed",
    "test_a_graph_in_step_is_equal_and_what_waits_is_told_apart",
)
async def test_with_another_write_db_everything_is_on_its_way(seeded: TestGraph) -> None:
    await damage(seeded, "UPDATE sync_state SET write_cluster = 'another'")
    found = await verified(seeded)
    assert found.rescan
    assert damage_in(found) == {}
    assert of(found, "edges").pending.count == 4
    assert (await run_cycle(seeded.context())).rescanned
    assert not (await verified(seeded)).rescan
    await healed(seeded)


@pytest.mark.long("test_what_is_on_its_way_is_pending")
async def test_many_rows_on_their_way_are_not_left_out_one_by_one(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsettled, "_FEW", 3)
    await write(graph, SEED)
    found = await verified(graph)
    assert damage_in(found) == {}
    assert (of(found, "edges").pending.count, of(found, "llm_usage").pending.count) == (4, 2)
    await run_cycle(graph.context())
    await damage(graph, "DELETE FROM edges WHERE key = 'e1'")
    await write(
        graph, "UPDATE write_edges SET weight = 3 WHERE id <> 'e1'; DELETE FROM write_nodes WHERE id = 'n3'"
    )
    found = await verified(graph, repair=True)
    assert damage_in(found) == {
        ("rows", "edges", "missing"): (("e1",),), ("stats", "node_stats", "stale"): of(found, "node_stats").stale.keys,
    }  # fmt: skip
    await healed(graph)


@pytest.mark.long(
    "test_damage_by_hand_is_found_by_its_key_and_healed",
    "test_a_graph_in_step_is_equal_and_what_waits_is_told_apart",
)
async def test_a_table_that_cannot_be_compared_is_told_and_the_others_are_compared(seeded: TestGraph) -> None:
    await damage(seeded, "ALTER TABLE dimensions RENAME COLUMN content TO contents")
    found = await verified(seeded)
    assert not found.equal
    assert {
        relation.name: relation.problem is not None for relation in found.relations if relation.problem
    } == {"dimensions": True}
    assert "content" in str(of(found, "dimensions").problem)
    assert of(found, "llm_usage").equal == 2


@pytest.mark.long(
    "test_damage_by_hand_is_found_by_its_key_and_healed",
    "test_a_graph_in_step_is_equal_and_what_waits_is_told_apart",
)
async def test_a_second_repair_asks_for_nothing_that_is_asked_for_already(seeded: TestGraph) -> None:
    await damage(seeded, "DELETE FROM edges WHERE key IN ('e1', 'e2')")
    first = await verified(seeded, repair=True)
    assert of(first, "edges").queued == 2
    again = await verified(seeded, repair=True)
    assert (of(again, "edges").queued, of(again, "edges").pending.count) == (0, 2)
    audit = await read(seeded, "SELECT rows FROM sync_audit WHERE table_name = 'edges'")
    assert [row["rows"] for row in audit] == [2]
    await healed(seeded)


@pytest.mark.long(
    "test_damage_by_hand_is_found_by_its_key_and_healed",
    "test_a_graph_in_step_is_equal_and_what_waits_is_told_apart",
)
async def test_numbers_are_not_counted_again_under_a_cycle_that_does_not_end(
    seeded: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "_PATIENCE", "200ms")
    await damage(seeded, "UPDATE node_stats SET edge_count = 7")
    async with _connected(await seeded.connect_target()) as cycle:
        await cycle.execute(LOCK)
        found = await verified(seeded, repair=True)
    assert (of(found, "node_stats").queued, of(found, "node_stats").stale.count) == (0, 3)
    assert "a cycle has held the graph" in str(of(found, "node_stats").problem)
    assert of(await verified(seeded, repair=True), "node_stats").queued == 3
    await healed(seeded)


async def test_what_a_cycle_brings_between_the_two_snapshots_is_pending(seeded: TestGraph) -> None:
    opened = 0

    class Interrupted:
        """A store whose connection is the second of two: before it opens, rows come and a cycle runs."""

        def __init__(self, store: PostgresStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> object:
            return getattr(self._store, name)

        @asynccontextmanager
        async def driver(self) -> AsyncIterator[asyncpg.Connection]:
            nonlocal opened
            opened += 1
            if opened == 2:
                await write(
                    seeded,
                    "INSERT INTO write_llm_usage (id, model_id) VALUES ('u3', 'm');"
                    "UPDATE write_llm_usage SET model_id = 'new' WHERE id = 'u1';"
                    "DELETE FROM write_llm_usage WHERE id = 'u2'",
                )
                assert (await run_cycle(seeded.context())).rows == 3
            async with self._store.driver() as connection:
                yield connection

    context = seeded.context()
    found = await verify(
        KNOWLEDGE_GRAPH,
        write=replace(context.write, store=Interrupted(context.write.store)),
        target=replace(context.target, store=Interrupted(context.target.store)),
        vectors=None,
        embedding="none",
        tables=["llm_usage"],
    )
    assert damage_in(found) == {}
    assert set(of(found, "llm_usage").pending.keys) == {("u1",), ("u2",), ("u3",)}


async def test_refused_rows_are_dead_not_missing(seeded: TestGraph) -> None:
    await damage(
        seeded,
        "ALTER TABLE llm_usage ADD CONSTRAINT no CHECK (model_id <> 'no');"
        "ALTER TABLE edges ADD CONSTRAINT no CHECK (relationship_type <> 'no')",
    )
    # The links of a version that was refused are not those of the version that is there.
    await write(seeded, "UPDATE write_edges SET relationship_type = 'no', fact_ids = '{f2}' WHERE id = 'e1'")
    await write(
        seeded,
        "INSERT INTO write_llm_usage (id, model_id) VALUES ('u3', 'no');"
        "UPDATE write_llm_usage SET model_id = 'no' WHERE id = 'u1'",
    )
    await run_cycle(seeded.context())
    found = await verified(seeded)
    assert damage_in(found) == {}
    assert set(of(found, "llm_usage").dead.keys) == {("u1",), ("u3",)}
    assert of(found, "edges").dead.keys == (("e1",),)


BESIDE = """
INSERT INTO write_raw_sources (id, content_hash) SELECT 'r{number}-' || i, 'h' || (i + {turn}) % 7
    FROM generate_series(1, 5) i ON CONFLICT (id) DO UPDATE SET content_hash = excluded.content_hash;
INSERT INTO write_prohibited_chunks (id, content_hash, chunk_text) SELECT 'p{number}-' || i, 'h' || i, 'x'
    FROM generate_series(1, 8) i ON CONFLICT DO NOTHING;
INSERT INTO write_fact_sources (fact_id, raw_source_id) SELECT 'f{other}-' || i, 'r{number}-' || i % 5 + 1
    FROM generate_series(1, 20) i ON CONFLICT DO NOTHING;
DELETE FROM write_raw_sources WHERE id = 'r{number}-' || {turn} % 6;
INSERT INTO write_node_fact_rejections (node_id, fact_id) SELECT 'n{number}-' || i, 'f{other}-' || i
    FROM generate_series(1, 20) i WHERE i % 5 = {turn} % 5 ON CONFLICT DO NOTHING;
DELETE FROM write_node_fact_rejections WHERE node_id LIKE 'n{number}-%' || ({turn} + 3) % 10;
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed, fact_ids)
    SELECT 'e{number}-' || i, 'n0-' || i, 'n1-' || (i + {turn}) % 25, 'x', i % 2 = 0, ARRAY['f0-' || i, 'f1-' || i]
    FROM generate_series(1, 20) i
    ON CONFLICT (id) DO UPDATE SET target_node_id = excluded.target_node_id, fact_ids = excluded.fact_ids[1:{turn} % 3];
INSERT INTO write_convergence_reports (node_id, convergence_score) SELECT 'n{number}-' || i, {turn}
    FROM generate_series(1, 5) i ON CONFLICT (node_id) DO UPDATE SET convergence_score = excluded.convergence_score;
DELETE FROM write_edges WHERE id LIKE 'e{number}-%' || {turn} % 10;
"""
"""Rejections, required parents that come and go, parents by value, undirected edges; in a transaction of its own."""


@pytest.mark.long(
    "test_damage_by_hand_is_found_by_its_key_and_healed",
    "test_a_graph_in_step_is_equal_and_what_waits_is_told_apart",
)
@pytest.mark.parametrize("times", [2, *further(40)])
async def test_nothing_is_damaged_while_writers_and_cycles_are_at_work(graph: TestGraph, times: int) -> None:
    working = True

    async def writer(number: int) -> None:
        async with _connected(await graph.connect_write()) as connection:
            turn = 0
            while working:
                turn += 1
                async with connection.transaction():
                    await connection.execute(
                        "INSERT INTO write_facts (id, content, dedup_status)"
                        " SELECT $1 || i, 'fact ' || $2, CASE i % 3 WHEN 0 THEN 'pending' ELSE 'ready' END"
                        " FROM generate_series(1, 20) i"
                        " ON CONFLICT (id) DO UPDATE SET content = excluded.content,"
                        " dedup_status = CASE $2::int % 2 WHEN 0 THEN 'ready' ELSE 'pending' END",
                        f"f{number}-",
                        str(turn),
                    )
                    await connection.execute(
                        "INSERT INTO write_nodes (id, concept, parent_id, fact_ids)"
                        " SELECT $1 || i, 'c ' || $2, 'n0-' || (i + 1), ARRAY['f0-' || i, 'f1-' || i]"
                        " FROM generate_series(1, 20) i ON CONFLICT (id) DO UPDATE SET concept = excluded.concept",
                        f"n{number}-",
                        str(turn),
                    )
                    await connection.execute(
                        "DELETE FROM write_nodes WHERE id LIKE $1", f"n{number}-%{turn % 10}"
                    )
                await connection.execute(BESIDE.format(number=number, turn=turn, other=1 - number))
                await asyncio.sleep(0)

    async def cycles() -> None:
        while working:
            await run_cycle(graph.context(batch_rows=17))

    tasks = [asyncio.create_task(work) for work in (writer(0), writer(1), cycles())]
    seen = 0
    try:
        for _ in range(times):
            found = await verified(graph)
            seen += found.compared
            assert damage_in(found) == {}
    finally:
        working = False
        await asyncio.gather(*tasks)
    assert seen > 0
    await healed(graph)


@pytest.mark.proof
async def test_memory_does_not_grow_with_what_is_missing(graph: TestGraph) -> None:
    rows = 30_000
    await write(
        graph,
        "INSERT INTO write_llm_usage (id, model_id) SELECT 'usage-' || i, repeat('m', 100) FROM generate_series(1, $1) i",
        rows,
    )
    await run_cycle(graph.context())
    await damage(graph, "TRUNCATE llm_usage")
    tracemalloc.start()
    try:
        found = await verified(graph, repair=True, tables=["llm_usage"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert of(found, "llm_usage").missing.count == of(found, "llm_usage").queued == rows
    assert len(of(found, "llm_usage").missing.keys) == 100
    assert peak < 8 * 2**20
    result = await run_cycle(graph.context())
    assert (result.rows, result.status) == (rows, CycleStatus.DRAINED)


async def test_only_the_tables_that_are_asked_for_are_looked_at(seeded: TestGraph) -> None:
    found = await verified(seeded, tables=["edges"])
    assert [relation.name for relation in found.relations] == ["edges", "edge_facts"]
    with pytest.raises(InputInvalid, match=r"No table 'edgse' is synced. Known: convergence_reports"):
        await verified(seeded, tables=["edgse"])


async def test_a_repair_needs_somebody_and_a_reason(seeded: TestGraph) -> None:
    context = seeded.context()
    with pytest.raises(InputInvalid, match="give `who` and `why`"):
        await verify(
            KNOWLEDGE_GRAPH,
            write=context.write,
            target=context.target,
            vectors=None,
            embedding="x",
            repair=True,
        )
