"""Kept counts: how much waits, was refused and is owed, by numbers that are never counted again."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncline.control.audit import Actor
from syncline.engine import run_cycle
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.messages.verification import RelationKind, Verification
from syncline.operator.dead_letters import Selection, discard, retry
from syncline.provider import GraphSchema
from syncline.testing.graphs import SCHEMA, TestGraph, on_target, read, write
from syncline.verify import verify

DIFFERING = """
WITH counted (counted, name, refused, entries) AS (
    SELECT 'sync_parked_row', table_name, false, count(*) FROM sync_parked_row GROUP BY 2
    UNION ALL SELECT 'sync_parked_reference', table_name, false, count(*) FROM sync_parked_reference GROUP BY 2
    UNION ALL SELECT 'sync_dead_letter', table_name, false, count(*) FROM sync_dead_letter GROUP BY 2
    UNION ALL SELECT 'sync_outbox', collection, error IS NOT NULL, count(*) FROM sync_outbox GROUP BY 2, 3
)
SELECT counted, name, refused, k.entries AS kept, c.entries AS found
FROM (SELECT * FROM sync_count WHERE entries <> 0) k FULL JOIN counted c USING (counted, name, refused)
WHERE k.entries IS DISTINCT FROM c.entries
"""
FEW = st.integers(0, 3)
TABLES = {
    "sync_parked_row": "(table_name, row_id, key, image, waits_for_table, waits_for, waits_for_key)"
    " VALUES ({name}, md5('{number}')::uuid, '{{a}}', '{{}}', 'nodes', md5('w')::uuid, 'w')"
    " ON CONFLICT (table_name, row_id) DO UPDATE SET released = true",
    "sync_parked_reference": "(table_name, name, owner, waits_for_table, waits_for, waits_for_key)"
    " VALUES ({name}, 'l', md5('{number}')::uuid, 'nodes', md5('w')::uuid, 'w') ON CONFLICT DO NOTHING",
    "sync_dead_letter": "(table_name, row_id, key, version, sqlstate, message, fingerprint, run_id)"
    " VALUES ({name}, md5('{number}')::uuid, '{{a}}', 1, 'x', 'x', 'x', 'x')"
    " ON CONFLICT (table_name, row_id) DO UPDATE SET attempts = 2",
    "sync_outbox": "(collection, point_id, error) VALUES ({name}, md5('{number}')::uuid, {error})"
    " ON CONFLICT (collection, point_id) DO UPDATE SET error = {error}, seq = excluded.seq",
}


@st.composite
def statements(draw: st.DrawFn) -> str:
    """One statement on one of the counted tables."""
    table = draw(st.sampled_from(sorted(TABLES)))
    kind = draw(st.sampled_from(["insert", "insert", "insert", "delete", "update", "truncate"]))
    name = "'" + draw(st.sampled_from(["nodes", "edges"])) + "'"
    error = draw(st.sampled_from(["NULL", "'no'"]))
    if kind == "insert":
        return f"INSERT INTO {table} " + TABLES[table].format(name=name, number=draw(FEW), error=error)
    if kind == "delete":
        where = f"WHERE {'collection' if table == 'sync_outbox' else 'table_name'} = {name}"
        return f"DELETE FROM {table} {where if draw(st.booleans()) else ''}"
    if kind == "update" and table == "sync_outbox":
        return f"UPDATE sync_outbox SET error = {error}"
    return f"TRUNCATE {table}" if kind == "truncate" else "SELECT 1"


@pytest.fixture
async def books(graph: TestGraph) -> AsyncIterator[asyncpg.Connection]:
    connection = await graph.connect_target()
    yield connection
    await connection.close()


async def test_whatever_happens_to_the_books_the_counts_are_what_is_there(
    books: asyncpg.Connection,
) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.lists(statements(), min_size=1, max_size=4), st.booleans()), max_size=6))
    def histories(transactions: list[tuple[list[str], bool]]) -> None:
        asyncio.run_coroutine_threadsafe(_live(books, transactions), loop).result(30)

    await asyncio.to_thread(histories)


async def _live(books: asyncpg.Connection, transactions: list[tuple[list[str], bool]]) -> None:
    for script, commits in transactions:
        transaction = books.transaction()
        await transaction.start()
        for statement in script:
            await books.execute(statement)
        await (transaction.commit() if commits else transaction.rollback())
        assert await books.fetch(DIFFERING) == []


async def test_a_statement_without_the_schema_on_its_search_path_is_counted_too(graph: TestGraph) -> None:
    bare = await asyncpg.connect(graph.target_dsn)
    await bare.execute(
        f"INSERT INTO {SCHEMA}.sync_outbox (collection, point_id) VALUES ('nodes', gen_random_uuid())"
    )
    await bare.execute(f"ALTER SCHEMA {SCHEMA} RENAME TO other")
    await bare.execute(
        "INSERT INTO other.sync_outbox (collection, point_id) VALUES ('nodes', gen_random_uuid())"
    )
    assert await bare.fetchval("SELECT entries FROM other.sync_count") == 2
    await bare.close()


async def test_a_cycle_tells_what_waits_was_refused_and_is_owed(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('a', 'A', '{gone}');"
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)"
        " VALUES ('e', 'a', 'nowhere', 'x'), ('f', 'nobody', 'a', 'x');"
        "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f', 'a fact', 'ready')",
    )
    await on_target(graph, "ALTER TABLE facts ADD CHECK (content <> 'a fact')")
    for _ in range(2):
        result = await run_cycle(graph.context())
        assert (result.parked, result.dead_letters) == (3, 1)
        assert {table.table: table.parked for table in result.tables if table.parked} == {
            "nodes": 1,
            "edges": 2,
        }
        assert await read(graph, DIFFERING) == []
    place = GraphSchema(store=graph.target, schema=SCHEMA)
    assert await discard(place, Selection(everything=True), by=Actor(who="me", why="test")) == 1
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('nowhere', 'here'), ('nobody', 'here')")
    result = await run_cycle(graph.context())
    assert (result.parked, result.dead_letters) == (1, 0)
    assert await read(graph, DIFFERING) == []


@pytest.mark.long("test_counts_that_drifted_are_found_and_mended_by_verify")
async def test_operators_and_a_cycle_at_once_lose_no_count_and_block_no_one(graph: TestGraph) -> None:
    await on_target(graph, "ALTER TABLE facts ADD CHECK (content <> 'bad')")
    place = GraphSchema(store=graph.target, schema=SCHEMA)

    async def operate() -> None:
        for turn in range(20):
            action = discard if turn % 2 else retry
            await action(place, Selection(everything=True), by=Actor(who="me", why="test"))

    for turn in range(4):
        await write(
            graph,
            "INSERT INTO write_facts (id, content, dedup_status)"
            f" SELECT 'f{turn}-' || i, CASE i % 10 WHEN 0 THEN 'bad' ELSE 'good' END, 'ready'"
            " FROM generate_series(1, 200) i",
        )
        await asyncio.gather(run_cycle(graph.context(batch_rows=50)), operate())
    assert await read(graph, DIFFERING) == []


async def test_counts_that_drifted_are_found_and_mended_by_verify(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type) VALUES ('e', 'a', 'b', 'x')",
    )
    await run_cycle(graph.context())
    assert [relation for relation in (await verified(graph)).relations if relation.name == "sync_count"] == []
    await on_target(
        graph,
        "SET session_replication_role = replica; DELETE FROM sync_parked_row;"
        "INSERT INTO sync_outbox (collection, point_id) VALUES ('nodes', gen_random_uuid())",
    )
    found = await verified(graph)
    assert not found.equal
    [counts] = [relation for relation in found.relations if relation.name == "sync_count"]
    assert set(counts.stale.keys) == {("sync_parked_row", "edges"), ("sync_outbox", "nodes")}
    assert {relation.kind for relation in found.relations if relation.damaged} >= {RelationKind.STATS}
    mended = await verified(graph, repair=True)
    assert sum(relation.queued for relation in mended.relations if relation.name == "sync_count") == 2
    assert await read(graph, DIFFERING) == []
    [line] = await read(graph, "SELECT rows FROM sync_audit WHERE table_name = 'sync_count'")
    assert line["rows"] == 2


async def verified(graph: TestGraph, *, repair: bool = False) -> Verification:
    context = graph.context()
    return await verify(
        KNOWLEDGE_GRAPH,
        write=context.write,
        target=context.target,
        vectors=context.vectors,
        embedding=context.embedding.name,
        repair=repair,
        who="me",
        why="test",
    )
