"""What a running cycle says of how far it is."""

from dataclasses import replace

import asyncpg
import pytest
from pydantic import SecretStr

from syncline.engine import run_cycle
from syncline.engine.render.statements import Cursor, TableStatements
from syncline.messages.sync import CycleStatus
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, write


async def test_what_is_expected_is_told_where_one_batch_is_not_enough(graph: TestGraph) -> None:
    insert = "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'node' FROM generate_series(1, 25) AS i"
    await write(graph, insert)
    result = await run_cycle(graph.context(batch_rows=10))
    assert result.status is CycleStatus.DRAINED
    told = [
        (table.captured, table.expected)
        for progress in graph.heartbeats
        for table in progress.tables
        if table.table == "nodes"
    ]
    assert list(dict.fromkeys(told)) == [(10, 25), (20, 25), (25, 25)]


async def test_nothing_is_counted_for_a_cycle_of_one_batch(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'a node')")
    await run_cycle(graph.context())
    assert {table.expected for progress in graph.heartbeats for table in progress.tables} == {None}


class _Impatient(PostgresStore):
    """A graph-db that ends whoever has been idle in a transaction for two seconds."""

    async def _connect(self, **server_settings: str) -> asyncpg.Connection:
        return await super()._connect(idle_in_transaction_session_timeout="2000", **server_settings)


async def test_a_backlog_that_takes_long_to_count_is_read_without_a_number(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = TableStatements.behind

    def slow(table: TableStatements, schema: str, cursor: Cursor) -> str:
        return f"SELECT n FROM ({behind(table, schema, cursor)}) AS counted (n), pg_sleep(5)"

    monkeypatch.setattr(TableStatements, "behind", slow)
    monkeypatch.setattr("syncline.engine.drain._COUNT_SECONDS", 0.2, raising=False)
    insert = "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'node' FROM generate_series(1, 25) AS i"
    await write(graph, insert)
    store = _Impatient("graph", SecretStr(graph.target_dsn), pool_size=2, application_name="test")
    try:
        result = await run_cycle(replace(graph, target=store).context(batch_rows=10))
    finally:
        await store.close()
    assert result.status is CycleStatus.DRAINED
    assert result.rows == 25
    assert {table.expected for progress in graph.heartbeats for table in progress.tables} == {None}
