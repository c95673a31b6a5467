"""Plans of one tenant among fifty: what a cycle reads does not grow with the rows of the others."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from syncline.engine.render.statements import DELETES, Cursor
from tests.kit.bare_graph import bare_graph
from tests.kit.saas import SHARED, Saas, rows_of, tenant

OTHERS = """
SET session_replication_role = replica;
INSERT INTO task (tenant_id, project_id, title, sync_xid)
SELECT ('0190a5b0-0000-7000-8000-' || lpad((2 + i % 49)::text, 12, '0'))::uuid, gen_random_uuid(), 'other', (3 + i % 300)::text::xid8
FROM generate_series(1, 15000) i;
INSERT INTO sync_tombstone (source_table, key, tenant, sync_xid)
SELECT 'task', ARRAY['k' || i], '0190a5b0-0000-7000-8000-' || lpad((2 + i % 49)::text, 12, '0'), (3 + i % 300)::text::xid8
FROM generate_series(1, 8000) i
"""
FORGET = """
DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'saas'::regnamespace);
UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE relnamespace = 'saas'::regnamespace AND relkind = 'r'
"""


@pytest_asyncio.fixture(loop_scope="session")
async def crowd(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Saas]:
    """Tenant 1 with three tasks among 49 others with 15,000, and 8,000 deleted keys of theirs."""
    async with bare_graph(new_database, tmp_path) as stores:
        saas = Saas(stores)
        await saas.prepare([1])
        await saas.source(rows_of([1]))
        await saas.source(OTHERS)
        yield saas


async def reads(connection: asyncpg.Connection, query: str, *values: object) -> int:
    """Return how many rows, and entries of indexes, a statement passes, and fail on a scan of a whole table."""
    plan = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {query}", *values)
    text = "\n".join(row[0] for row in plan)
    assert not re.search(r"Seq Scan on (task|sync_tombstone)\b", text), text
    passed = sum(
        int(rows) * int(loops) for rows, loops in re.findall(r"actual rows=(\d+)(?:\.\d+)? loops=(\d+)", text)
    )
    removed = sum(int(rows) for rows in re.findall(r"Rows Removed by \w+(?: \w+)*: (\d+)", text))
    return passed + removed


@pytest.mark.parametrize("known", [True, False], ids=["analyzed", "without statistics"])
async def test_one_tenant_is_read_by_its_index_however_many_rows_the_others_have(
    crowd: Saas, known: bool
) -> None:
    await crowd.source(
        "ALTER TABLE task SET (autovacuum_enabled = off); ALTER TABLE sync_tombstone SET (autovacuum_enabled = off);"
        + ("ANALYZE task; ANALYZE sync_tombstone" if known else FORGET)
    )
    statements = crowd.engine.of_tenant(tenant(1)).statements
    shared = crowd.engine.of_tenant(tenant(2)).statements
    table = statements.tables["tasks"]
    horizon = str(2**62)
    behind = Cursor(xid=5, key=("00000001-0000-4000-8000-000000000001",))
    connection = await crowd.stores.connect_write()
    try:
        for cursors in (
            dict.fromkeys([*statements.tables, DELETES], Cursor()),
            {
                **dict.fromkeys([*statements.tables, DELETES], Cursor(xid=200)),
                "tasks": Cursor(xid=200, key=behind.key),
            },
        ):
            query, values = statements.pending(SHARED, cursors, list(statements.tables))
            assert query is shared.pending(SHARED, cursors, list(shared.tables))[0], (
                "one text for all tenants"
            )
            for _ in range(7):  # a plan for any parameters is made at the sixth execution
                await connection.fetch(query, *values)
            plan = "\n".join(
                row[0]
                for row in await connection.fetch(
                    f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {query}", *values
                )
            )
            assert not re.search(r"Seq Scan on (task|sync_tombstone)\b", plan), plan
            removed = [
                int(rows) for rows in re.findall(r"Rows Removed by (?:Index Recheck|Filter): (\d+)", plan)
            ]
            assert sum(removed) < 100, plan
        for cursor in (Cursor(), behind):
            given = [*cursor.parameters(), horizon]
            assert await reads(connection, table.capture(SHARED, cursor, limit=1000), *given) < 100
            assert await reads(connection, table.behind(SHARED, cursor), *given) < 100
            assert await reads(connection, table.next_key(SHARED, cursor), *given) < 100
        for deleted in (Cursor(), Cursor(xid=100, key=("5",))):
            query = statements.capture_deleted_at(SHARED, deleted, horizon=int(horizon), limit=1000)
            assert await reads(connection, query) < 100
    finally:
        await connection.close()

    # The cycle itself, and one that has nothing to do.
    result = await crowd.cycle(1)
    assert {table.table: table.captured for table in result.tables if table.captured} == {
        "plans": 2, "customers": 1, "labels": 1, "projects": 1, "tasks": 3,
    }  # fmt: skip
    assert (await crowd.cycle(1)).batches == 0
