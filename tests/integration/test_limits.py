"""Limits of role, database and host that strike all the same: half the batch, and the message names the setting."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.capture.install.install import adopt
from syncline.engine import SyncEngine
from syncline.engine.batch_size import BatchSize
from syncline.engine.table_map import Column, SchemaMap, TableMap
from syncline.errors import StoreUnavailable
from syncline.messages.sync import CycleStatus
from syncline.provider import GraphSchema, SyncContext
from syncline.stores.connection import Connection
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read, write

MAP = SchemaMap(name="one", tables=(TableMap(name="t", source="w", columns=(Column(name="v"),)),))


class LimitedStore(PostgresStore):
    """A store whose sessions have settings that nobody overrides."""

    settings: tuple[str, ...] = ()

    async def _connect(self, purpose: str = "", **settings: str) -> Connection:
        connection = await super()._connect(purpose, **settings)
        for setting in self.settings:
            await connection.execute(setting)
        return connection


@pytest_asyncio.fixture(loop_scope="session")
async def one_table(graph: TestGraph) -> AsyncIterator[tuple[LimitedStore, LimitedStore]]:
    """A graph of one table; its write-db and graph-db as stores that can be limited."""
    await write(graph, "CREATE TABLE w (id text PRIMARY KEY, v text)")
    await on_target(
        graph, "CREATE TABLE t (id uuid PRIMARY KEY, key text, v text, sync_version bigint, sync_run bigint)"
    )
    await adopt(graph.write, "kg", MAP)
    stores = [
        LimitedStore(name, SecretStr(dsn), pool_size=4, application_name="limited")
        for name, dsn in (("write", graph.write_dsn), ("graph", graph.target_dsn))
    ]
    yield stores[0], stores[1]
    for store in stores:
        await store.close()


def limited(graph: TestGraph, stores: tuple[LimitedStore, LimitedStore]) -> SyncContext:
    context = graph.context()
    return replace(
        context,
        write=GraphSchema(store=stores[0], schema="kg"),
        target=GraphSchema(store=stores[1], schema="kg"),
    )


@pytest.mark.long(after=1)
@pytest.mark.parametrize("sides", [(0,), (1,)], ids=["write-db", "graph-db"])
async def test_statement_timeout_that_a_whole_batch_meets_halves_it(
    graph: TestGraph, one_table: tuple[LimitedStore, LimitedStore], sides: tuple[int, ...]
) -> None:
    for side in sides:
        one_table[side].settings = ("SET statement_timeout = '300ms'",)
    await write(graph, "INSERT INTO w SELECT i::text, repeat('v', 100) FROM generate_series(1, 60000) i")
    engine = SyncEngine(MAP)
    result = await engine.run_cycle(limited(graph, one_table))
    assert (result.status, result.failures, result.dead_letters) == (CycleStatus.DRAINED, 0, 0), result
    assert await read(graph, "SELECT count(*) FROM t") == [(60_000,)]


async def test_limit_that_a_single_row_meets_names_the_setting(
    graph: TestGraph, one_table: tuple[LimitedStore, LimitedStore]
) -> None:
    [[role, database]] = await read(
        graph, "SELECT quote_ident(current_user), quote_ident(current_database())"
    )
    await on_target(graph, f"ALTER ROLE {role} IN DATABASE {database} SET lock_timeout = '200ms'")
    one_table[1].settings = ("RESET lock_timeout",)
    await write(graph, "INSERT INTO w SELECT i::text, 'v' FROM generate_series(1, 4) i")
    blocker = await graph.connect_target()
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE t IN SHARE MODE")
        with pytest.raises(StoreUnavailable) as raised:
            await SyncEngine(MAP).run_cycle(limited(graph, one_table))
    await blocker.close()
    assert raised.value.sqlstate == "55P03"
    assert "lock_timeout" in str(raised.value)
    assert "200ms" in str(raised.value)
    assert f"ALTER ROLE {role} IN DATABASE" in str(raised.value)
    assert await read(graph, "SELECT FROM sync_dead_letter") == []
    result = await SyncEngine(MAP).run_cycle(limited(graph, one_table))
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, 0)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("sqlstate", ["57014", "53400"])
async def test_size_that_works_is_kept_for_the_next_cycle(
    graph: TestGraph, one_table: tuple[LimitedStore, LimitedStore], sqlstate: str
) -> None:
    # A statement that writes more than a hundred rows is too long.
    await on_target(
        graph,
        "CREATE FUNCTION long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF (SELECT count(*) > 100 FROM fresh) THEN RAISE 'too long' USING ERRCODE = '{sqlstate}'; END IF;"
        " RETURN NULL; END $$;"
        "CREATE TRIGGER long AFTER INSERT ON t REFERENCING NEW TABLE AS fresh EXECUTE FUNCTION long()",
    )
    engine = SyncEngine(MAP)
    await write(graph, "INSERT INTO w SELECT i::text, 'v' FROM generate_series(1, 1000) i")
    context = replace(limited(graph, one_table), budget=replace(graph.context().budget, batch_rows=1000))
    result = await engine.run_cycle(context)
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, 0)
    first = result.batches
    await write(
        graph, "UPDATE w SET v = 'u'; INSERT INTO w SELECT 'n' || i, 'v' FROM generate_series(1, 90) i"
    )
    context = replace(context, run=replace(context.run, run_id="second"))
    result = await engine.run_cycle(context)
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, 0)
    assert await read(graph, "SELECT count(*) FROM t WHERE v = 'u'") == [(1000,)]
    assert first >= 10


def test_batch_size_grows_cautiously_below_a_limit() -> None:
    known: dict[str, int] = {}
    size = BatchSize(1000, known=known, name="t")
    size.failed(struck=True)
    size.failed(struck=True)
    assert (size.rows, known) == (250, {"t": 250})
    for _ in range(7):
        size.passed()
    assert size.rows == 250
    size.passed()
    assert size.rows == 500
    assert BatchSize(1000, known=known, name="t").rows == 500
    for _ in range(8):
        size.passed()
    assert (size.rows, known) == (1000, {})


def test_batch_size_doubles_behind_a_row_that_failed() -> None:
    size = BatchSize(1000)
    while size.rows > 1:
        size.failed(struck=False)
    for expected in (2, 4, 8):
        size.passed()
        assert size.rows == expected
