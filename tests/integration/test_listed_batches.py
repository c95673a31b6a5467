"""Large batches of listed rows: entered before they are merged, and looked up by index whatever is believed of the list."""

import asyncio
import re

import pytest

from syncline.engine import SyncEngine
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.render.recount import Recount
from syncline.engine.render.stats import stats_label
from syncline.testing.graphs import TestGraph, on_target, read, write
from tests.integration.test_listed_histories import _history
from tests.integration.test_listed_rows import BOOK, compared, cycle, site, uuid
from tests.integration.test_plans import TARGET, difference, pooled, rows_read
from tests.kit.statement_reads import StatementReads

__all__ = ["site"]

LISTED = "SELECT key[1] FROM sync_row WHERE table_name = 'nodes' ORDER BY 1"


@pytest.fixture
def any_is_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every batch for a large one."""
    monkeypatch.setattr("syncline.engine.merge._ANALYZE_FROM", 1)


@pytest.mark.usefixtures("any_is_many")
async def test_rows_that_are_rejected_leave_the_list_in_which_they_were_entered(site: TestGraph) -> None:
    await on_target(site, "ALTER TABLE nodes ADD CHECK (title <> 'refused')")
    engine = SyncEngine(BOOK)
    await cycle(
        site,
        engine,
        "INSERT INTO w_nodes VALUES "
        f"('a', '{uuid(1)}', 'A', 'c', '{{b}}'), ('b', '{uuid(2)}', 'refused', 'a', '{{}}'), ('c', '{uuid(3)}', 'C', 'a', '{{}}')",
    )
    assert await read(site, LISTED) == [("a",), ("c",)]
    assert await read(site, "SELECT title, parent_id::text FROM nodes ORDER BY 1") == [
        ("A", uuid(3)),
        ("C", uuid(1)),
    ]
    await cycle(site, engine, "UPDATE w_nodes SET title = 'B' WHERE key = 'b'")
    assert await read(site, LISTED) == [("a",), ("b",), ("c",)]
    await compared(site)


@pytest.mark.usefixtures("any_is_many")
async def test_a_batch_that_the_list_refuses_is_asked_about_row_by_row(site: TestGraph) -> None:
    engine = SyncEngine(BOOK)
    await cycle(site, engine, f"INSERT INTO w_nodes VALUES ('a', '{uuid(1)}', 'A', NULL, '{{}}')")
    # One row that is listed and has left the target, two with one id, one with another's, one without.
    await on_target(site, "DELETE FROM nodes")
    await cycle(
        site,
        engine,
        "UPDATE w_nodes SET title = 'A again'; INSERT INTO w_nodes VALUES "
        f"('b', '{uuid(2)}', 'B', 'a', '{{}}'), ('c', '{uuid(2)}', 'C', 'a', '{{}}'),"
        f"('d', '{uuid(1)}', 'D', 'a', '{{}}'), ('e', NULL, 'E', 'a', '{{}}')",
    )
    assert await read(site, LISTED) == [("a",), ("c",)]
    letters = "SELECT key[1], sqlstate FROM sync_dead_letter ORDER BY 1"
    assert await read(site, letters) == [("b", "23505"), ("d", "23505"), ("e", "23502")]
    for place, key in enumerate("bde", 3):
        await write(site, f"UPDATE w_nodes SET node_uuid = '{uuid(place)}' WHERE key = '{key}'")
    await cycle(site, engine)
    assert await read(site, letters) == []
    await compared(site)


async def test_a_deleted_row_is_looked_up_in_the_list_once(site: TestGraph) -> None:
    """For its id, for the links and the row that leave by it, and for the entry that leaves."""
    engine = SyncEngine(BOOK)
    await cycle(
        site,
        engine,
        "INSERT INTO w_nodes SELECT 'n' || n, md5(n::text)::uuid, 'N', NULL, '{}' FROM generate_series(1, 50) n;"
        "INSERT INTO w_sources SELECT 's' || n, 'http://' || n FROM generate_series(1, 50) n",
    )
    await write(site, "DELETE FROM w_nodes WHERE key <> 'n1'; DELETE FROM w_sources WHERE key <> 's1'")
    reads = StatementReads()
    with reads.counting():
        await cycle(site, engine)
    assert await read(site, "SELECT key[1] FROM sync_row ORDER BY 1") == [("n1",), ("s1",)]
    assert await read(site, "SELECT count(*) FROM nodes UNION ALL SELECT count(*) FROM sources") == [
        (1,),
        (1,),
    ]
    looked_up = {name: rows for (name, table), rows in reads.most.items() if table == "sync_row"}
    assert sum(looked_up.values()) == 98, looked_up


@pytest.mark.usefixtures("any_is_many")
async def test_ids_that_change_hands_in_large_batches(site: TestGraph) -> None:
    await _history(site, 7, rounds=8)


@pytest.mark.proof
@pytest.mark.usefixtures("any_is_many")
@pytest.mark.parametrize("seed", range(140, 160))
async def test_ids_that_change_hands_in_many_histories_of_large_batches(site: TestGraph, seed: int) -> None:
    await _history(site, seed, rounds=12)


async def test_a_row_is_found_in_the_list_by_its_id_whatever_is_believed_of_its_table(
    site: TestGraph,
) -> None:
    engine = SyncEngine(BOOK)
    await on_target(
        site, "ALTER TABLE sync_row SET (autovacuum_enabled = off); CREATE INDEX ON nodes (parent_id)"
    )
    await cycle(site, engine, "INSERT INTO w_sources SELECT i, 'http://' || i FROM generate_series(1, 300) i")
    # The list is analyzed while the table has no row in it.
    await on_target(site, "ANALYZE sync_row")
    await cycle(
        site,
        engine,
        "INSERT INTO w_nodes SELECT i, md5('id ' || i)::uuid, i FROM generate_series(1, 1500) i",
    )
    before = await rows_read(site, ended=False)
    async with pooled(site) as fresh:
        await cycle(
            fresh, engine, "UPDATE w_nodes SET node_uuid = md5('new ' || key)::uuid WHERE key::int % 10 = 0"
        )
    assert difference(before, await rows_read(site, ended=False))["sync_row"] < 10_000


async def test_touched_rows_are_not_compared_in_pairs(graph: TestGraph) -> None:
    recount, asked, table = Recount(KNOWLEDGE_GRAPH), list[str](), KNOWLEDGE_GRAPH["nodes"]
    stats = table.stats.columns if table.stats else ()
    await on_target(graph, TARGET.format(rows=10_000) + "; ANALYZE")
    connection = await graph.connect_target()
    async with connection.transaction():
        await connection.execute(recount.create)
        await connection.execute(
            f"INSERT INTO pg_temp.{recount.noted} SELECT label, md5('n' || i)::uuid"
            " FROM generate_series(1, 250) i, unnest($1::text[]) label",
            [table.name, *{stats_label(table, stat) for stat in stats}],
        )
        with connection.query_logger(lambda record: asked.append(record.query)):
            await recount.run(connection)
            await asyncio.sleep(0)
        [counted] = [query for query in asked if "touched" in query and "MATERIALIZED" in query]
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {counted}"))
    await connection.close()
    # A nested loop over what was counted has the ids' equality as a filter of the join.
    assert re.findall("Join Filter: .* = ", plan) == [], plan
