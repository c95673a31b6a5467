"""Pruning: deleted keys are cleared away once they are old, until none is left, and no others."""

from dataclasses import replace

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from syncline.engine import run_cycle
from syncline.engine.cycle import SyncEngine
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.render.statements import DELETES
from syncline.engine.template import sql
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.one_graph import session

OLD = "UPDATE sync_tombstone SET deleted_at = now() - interval '8 days'"


async def left(graph: TestGraph) -> int:
    async with session(graph, graph.write_dsn) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM sync_tombstone"))


async def deleted(graph: TestGraph, number: int) -> None:
    """Have so many keys deleted, and read."""
    await write(
        graph,
        f"INSERT INTO write_llm_usage (id, model_id) SELECT i, 'm' FROM generate_series(1, {number}) i;"
        # One by one: those of a large statement are packed.
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT id FROM write_llm_usage LOOP"
        " DELETE FROM write_llm_usage WHERE id = r.id; END LOOP; END $$",
    )
    await run_cycle(graph.context())


async def test_idle_cycles_clear_away_what_is_old_until_nothing_is_left(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.engine.pruning._ROWS", 10, raising=False)
    await deleted(graph, 35)
    assert await left(graph) == 35
    await write(graph, f"{OLD} WHERE seq <= 33")
    result = await run_cycle(graph.context())
    assert (result.batches, await left(graph)) == (0, 2)
    await run_cycle(graph.context())
    assert await left(graph) == 2


async def test_a_cycle_that_reads_deletes_clears_away_more_than_one_batch_of_old_ones(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.engine.pruning._ROWS", 10, raising=False)
    await write(
        graph,
        "INSERT INTO write_llm_usage (id, model_id) SELECT i, 'm' FROM generate_series(1, 35) i;"
        f"DELETE FROM write_llm_usage; {OLD}",
    )
    assert (await run_cycle(graph.context())).batches == 1
    assert await left(graph) == 0


async def test_what_was_not_read_stays_however_old_it_is(graph: TestGraph) -> None:
    await deleted(graph, 3)
    await write(graph, f"{OLD}")
    await on_target(graph, f"UPDATE sync_cursor SET xid = 3 WHERE table_name = '{DELETES}'")
    context = graph.context(seconds=0)  # so that nothing is read either
    await run_cycle(context)
    assert await left(graph) == 3
    await run_cycle(graph.context())
    assert await left(graph) == 0


async def test_an_idle_cycle_with_nothing_old_asks_no_more_than_before(graph: TestGraph) -> None:
    await deleted(graph, 3)
    asked: list[str] = []
    for store in (graph.write, graph.target):
        async with store.driver() as connection:
            connection.add_query_logger(lambda record: asked.append(record.query))
    await run_cycle(graph.context())
    assert len(asked) == 7, asked
    assert not any("DELETE" in query and "tombstone" in query for query in asked if "looked_at" in query)


async def test_a_limit_of_the_role_makes_the_batches_smaller(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(name: str, **fragments: str) -> str:
        text = sql(name, **fragments)
        return f"(pg_sleep(0.005)::text IS NULL OR {text})" if name == "kept" else text

    monkeypatch.setattr("syncline.engine.pruning._ROWS", 1_000, raising=False)
    monkeypatch.setattr("syncline.engine.pruning.sql", slow)
    await deleted(graph, 200)
    await write(
        graph,
        f"{OLD};"
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = ''300ms''', current_database()); END $$",
    )
    store = PostgresStore("write", SecretStr(graph.write_dsn), pool_size=2, application_name="test")
    try:
        result = await run_cycle(replace(graph, write=store).context())
    finally:
        await store.close()
    assert result.failures == 0
    assert await left(graph) == 0


async def test_a_role_that_may_not_is_told_of_once_and_fails_no_cycle(graph: TestGraph) -> None:
    await deleted(graph, 3)
    await write(
        graph,
        f"{OLD};"
        "DO $$ BEGIN IF to_regrole('mere_reader') IS NULL THEN CREATE ROLE mere_reader LOGIN; END IF; END $$;"
        "GRANT USAGE ON SCHEMA kg TO mere_reader; GRANT SELECT ON ALL TABLES IN SCHEMA kg TO mere_reader",
    )
    dsn = graph.write_dsn.replace("postgres@", "mere_reader@")
    store = PostgresStore("write", SecretStr(dsn), pool_size=2, application_name="test")
    engine = SyncEngine(KNOWLEDGE_GRAPH)
    try:
        with capture_logs() as logs:
            for _ in range(3):
                result = await engine.run_cycle(replace(graph, write=store).context())
                assert result.failures == 0
    finally:
        await store.close()
    told = [entry for entry in logs if entry["event"] == "tombstones pile up"]
    assert [entry["reason"] for entry in told] == ["its role has no DELETE on kg.sync_tombstone"]
    assert await left(graph) == 3


async def test_a_graph_that_is_not_alone_keeps_what_others_read(graph: TestGraph) -> None:
    await deleted(graph, 3)
    await write(graph, OLD)
    await run_cycle(replace(graph.context(), alone=False))
    assert await left(graph) == 3
    assert await read(graph, "SELECT FROM sync_run") != []
