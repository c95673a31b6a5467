"""Sessions as hosts and networks make them: limits of roles, connections that die without a word, old plans."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import run_cycle
from syncline.errors import StatementOutdated, StoreRejected, StoreUnavailable
from syncline.messages.sync import CycleStatus
from syncline.provider import GraphSchema, SyncContext
from syncline.stores.postgres import PostgresStore, map_driver_error, postgres_error
from syncline.stores.session import begin_session
from syncline.stores.watch import Patience
from syncline.testing.graphs import SCHEMA, TestGraph, on_target, read, write
from syncline.testing.lab import eventually
from tests.kit.proxy import SilentProxy, silent_proxy

SOCKET = ".s.PGSQL.5432"
QUICK = Patience(connect=2, silent=0.5, answer=1, close=1)
LIMITS = {
    "statement_timeout": "300ms",
    "lock_timeout": "300ms",
    "idle_in_transaction_session_timeout": "300ms",
    "idle_session_timeout": "300ms",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "row_security": "on",
    "standard_conforming_strings": "off",
    "search_path": "nowhere",
    "DateStyle": "German, DMY",
    "TimeZone": "Asia/Kathmandu",
}


@pytest.fixture
def limited(postgres_server: EmbeddedPostgres, postgres_admin: Callable[[str], object]) -> Iterator[None]:
    """Every limit that a host may set on a role, on ours."""
    limits = dict(LIMITS)
    if int(postgres_server.psql("SHOW server_version_num")) >= 170000:
        limits["transaction_timeout"] = "300ms"
    for name, value in limits.items():
        postgres_admin(f"ALTER ROLE postgres SET {name} = '{value}'")
    yield
    postgres_admin("ALTER ROLE postgres RESET ALL")


@asynccontextmanager
async def opened(dsn: str, **options: object) -> AsyncIterator[PostgresStore]:
    given = {"pool_size": 4, "application_name": "sessions"} | options
    store = PostgresStore("graph", SecretStr(dsn), **given)  # type: ignore[arg-type]
    yield store
    await store.close()


async def write_rows(graph: TestGraph, number: int, size: int = 10) -> None:
    await write(
        graph,
        "INSERT INTO write_raw_sources (id, title, content)"
        " SELECT 'r' || i, 't', repeat(md5(i::text), $2) FROM generate_series(1, $1) i",
        number,
        size,
    )


@pytest.mark.usefixtures("limited")
async def test_session_limits_of_role(graph: TestGraph) -> None:
    """Each setting of the role that would end a batch is another one in our sessions."""
    async with opened(graph.target_dsn) as store, store.driver() as connection:
        shown = {name: await connection.fetchval(f"SHOW {name}") for name in LIMITS}
        assert await connection.fetchval("SHOW client_connection_check_interval") == "2s"
        assert await connection.fetchval("SHOW temp_buffers") == "64MB"
        assert await connection.fetchval("SHOW jit") == "off"
        # As while texts are embedded: outside a transaction, and in one.
        await asyncio.sleep(0.5)
        async with connection.transaction():
            await connection.execute("CREATE TEMP TABLE t (i int)")
            await asyncio.sleep(0.5)
            await connection.execute("INSERT INTO pg_temp.t SELECT 1 FROM pg_sleep(0.5)")
    assert shown == {
        "statement_timeout": "0",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "2min",
        "idle_session_timeout": "0",
        "default_transaction_read_only": "off",
        "default_transaction_isolation": "read committed",
        "default_transaction_deferrable": "off",
        "row_security": "off",
        "standard_conforming_strings": "on",
        "search_path": "pg_catalog, pg_temp",
        "DateStyle": "ISO, MDY",
        "TimeZone": "UTC",
    }


@pytest.mark.usefixtures("limited")
async def test_cycle_under_limits_of_role(graph: TestGraph) -> None:
    """A cycle whose batches take longer than the role's limits drains."""
    await write_graph_trigger(graph)
    await write_one(graph)
    result = await run_cycle(graph.context())
    assert (result.status, result.rows) == (CycleStatus.DRAINED, 1)


async def write_graph_trigger(graph: TestGraph) -> None:
    connection = await asyncpg.connect(
        graph.target_dsn, server_settings={"default_transaction_read_only": "off", "statement_timeout": "0"}
    )
    await connection.execute(
        f"CREATE FUNCTION {SCHEMA}.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END';"
        f" CREATE TRIGGER slow AFTER INSERT ON {SCHEMA}.raw_sources EXECUTE FUNCTION {SCHEMA}.slow()"
    )
    await connection.close()


async def write_one(graph: TestGraph) -> None:
    connection = await asyncpg.connect(
        graph.write_dsn, server_settings={"default_transaction_read_only": "off"}
    )
    await connection.execute(f"INSERT INTO {SCHEMA}.write_raw_sources (id, title) VALUES ('r1', 'one')")
    await connection.close()


async def test_statement_of_killed_worker_ends(graph: TestGraph) -> None:
    """A server that works for nobody finds out, in spite of having nothing to send."""
    alive = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND datname = $1"
    database = urlsplit(graph.target_dsn).path.removeprefix("/")
    async with graph.target.driver() as watching:

        async def works() -> bool:
            return bool(await watching.fetchval(alive, database))

        async def ended() -> bool:
            return not await works()

        async with graph.target.alone("killed") as connection:
            asleep = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
            await eventually(works)
        with pytest.raises(asyncpg.PostgresError):
            await asleep
        await eventually(ended)


async def test_temp_buffers_too_late(graph: TestGraph) -> None:
    """What a server does not let a session have is left out, and nothing else."""
    plain = await graph.connect_target()
    await plain.execute("CREATE TEMP TABLE t (i int); INSERT INTO t VALUES (1)")
    assert await begin_session(plain, {}, only_at=None, seconds=5)
    assert await plain.fetchval("SHOW row_security") == "off"
    assert await plain.fetchval("SHOW client_connection_check_interval") == "2s"
    assert await plain.fetchval("SHOW temp_buffers") == "8MB"
    await plain.close()


@pytest.mark.parametrize(
    ("sqlstate", "setting"),
    [
        ("57014", "statement_timeout"),
        ("55P03", "lock_timeout"),
        ("25P03", "idle_in_transaction_session_timeout"),
        ("25P04", "transaction_timeout"),
        ("57P05", "idle_session_timeout"),
    ],
)
def test_limit_names_its_setting(sqlstate: str, setting: str) -> None:
    error = postgres_error("graph", sqlstate, "terminating connection")
    assert isinstance(error, StoreUnavailable)
    assert setting in str(error)


@asynccontextmanager
async def behind_proxy(
    graph: TestGraph, server: EmbeddedPostgres, side: str, patience: Patience = QUICK
) -> AsyncIterator[tuple[SilentProxy, SyncContext]]:
    """A proxy in front of one side, and a context over it; the other side is reached as ever."""
    dsn = graph.target_dsn if side == "target" else graph.write_dsn
    async with (
        silent_proxy(server.socket_dir / SOCKET) as proxy,
        opened(proxy.through(dsn), patience=patience) as store,
    ):
        yield proxy, replace(graph.context(seconds=5), **{side: GraphSchema(store=store, schema=SCHEMA)})


@pytest.mark.long(after=1)
@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("side", ["target", "write"])
async def test_silent_connection_ends_cycle(
    graph: TestGraph, postgres_server: EmbeddedPostgres, side: str, deaf: bool
) -> None:
    """A connection that dies without a word between two cycles ends the next one soon, and says so."""
    async with behind_proxy(graph, postgres_server, side) as (proxy, context):
        assert (await run_cycle(context)).status is CycleStatus.DRAINED
        proxy.fall_silent()
        proxy.deaf = deaf
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"no answer for \d+ s"):
            await run_cycle(context)
        assert time.monotonic() - began < 30
        proxy.deaf = False
        assert (await run_cycle(context)).status is CycleStatus.DRAINED


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("side", "way"), [("target", 0), ("write", 1)])
async def test_silent_copy_ends_cycle(
    graph: TestGraph, postgres_server: EmbeddedPostgres, side: str, way: int
) -> None:
    """The same in the middle of a COPY, when one side is waited for by the other."""
    await write_rows(graph, 3000, 100)
    async with behind_proxy(graph, postgres_server, side) as (proxy, context):
        proxy.silent_after = (2_000_000, None) if way == 0 else (None, 2_000_000)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer"):
            await run_cycle(context)
        assert time.monotonic() - began < 30
    assert await read(graph, "SELECT FROM raw_sources") == []
    await graph.wait_until_free()
    assert (await run_cycle(graph.context())).rows == 3000


async def test_long_statement_is_left_alone(graph: TestGraph, postgres_server: EmbeddedPostgres) -> None:
    """A statement that the server works on is not cut off, nor is a COPY whose source takes its time."""
    async with (
        silent_proxy(postgres_server.socket_dir / SOCKET) as proxy,
        opened(proxy.through(graph.target_dsn), patience=QUICK) as store,
        store.driver() as one,
    ):
        await one.execute("SELECT pg_sleep(1.3)")
        await one.execute("CREATE TEMP TABLE t (i int)")

        async def slowly() -> AsyncIterator[bytes]:
            for _ in range(3):
                await asyncio.sleep(0.6)
                yield b"1\n"

        assert await one.copy_to_table("t", source=slowly()) == "COPY 3"
        assert await one.fetchval("SELECT count(*) FROM pg_temp.t") == 3


async def test_silent_bookkeeping_says_so(graph: TestGraph, postgres_server: EmbeddedPostgres) -> None:
    """What goes through sessions and connections of SQLAlchemy is watched like the rest."""
    async with (
        silent_proxy(postgres_server.socket_dir / SOCKET) as proxy,
        opened(proxy.through(graph.target_dsn), patience=QUICK) as store,
    ):
        async with store.begin() as connection:
            await connection.execute(text("SELECT 1"))
        proxy.fall_silent()
        with pytest.raises(StoreUnavailable, match="no answer"):
            async with store.begin() as connection:
                await connection.execute(text("SELECT 1"))
        async with store.session() as session:
            await session.execute(text("SELECT 1"))
            proxy.fall_silent()
            with pytest.raises(DBAPIError):
                await session.execute(text("SELECT 1"))
            await session.invalidate()


async def test_store_closes_in_time(graph: TestGraph, postgres_server: EmbeddedPostgres) -> None:
    """Connections that nobody answers on keep no worker from its end."""
    async with silent_proxy(postgres_server.socket_dir / SOCKET) as proxy:
        store = PostgresStore(
            "graph",
            SecretStr(proxy.through(graph.target_dsn)),
            pool_size=2,
            application_name="sessions",
            patience=replace(QUICK, silent=60, close=0.5),
        )
        async with store.driver(), store.driver():
            pass
        proxy.fall_silent()
        began = time.monotonic()
        await store.close()
        assert time.monotonic() - began < 45


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    "alter",
    [
        "ALTER TABLE facts ALTER COLUMN content TYPE varchar",
        "ALTER TABLE sync_state ALTER COLUMN fence TYPE int",
        "ALTER TABLE sync_parked_row ALTER COLUMN table_name TYPE varchar(100)",
    ],
)
async def test_altered_table_fails_no_cycle(graph: TestGraph, alter: str) -> None:
    """A type that changed between two cycles costs new connections, and neither a table nor a retry."""
    await write(graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready')")
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    await on_target(graph, alter)
    await write(graph, "UPDATE write_facts SET content = 'another'")
    result = await run_cycle(graph.context())
    assert (result.status, result.rows, result.failures) == (CycleStatus.DRAINED, 1, 0)
    assert (result.vectors.upserted, result.vectors.pending) == (1, 0)


async def test_outdated_statements_leave_the_pool(graph: TestGraph) -> None:
    """One connection finds out that its statements are outdated; none of the others has to."""
    await on_target(graph, "CREATE TABLE shapes (id int)")
    query = f"SELECT * FROM {SCHEMA}.shapes"
    async with graph.target.driver() as one, graph.target.driver() as two:
        await one.fetch(query)
        await two.fetch(query)
    await on_target(graph, "ALTER TABLE shapes ALTER COLUMN id TYPE bigint")
    with pytest.raises(StatementOutdated):
        async with graph.target.driver() as one, one.transaction():
            await one.fetch(query)
    async with graph.target.driver() as one, graph.target.driver() as two:
        for connection in (one, two):
            async with connection.transaction():
                await connection.fetch(query)


async def test_discarded_statements_are_outdated(graph: TestGraph) -> None:
    with pytest.raises(StatementOutdated):
        async with graph.target.driver() as connection:
            await connection.fetch("SELECT 1")
            await connection.execute("DEALLOCATE ALL")
            await connection.fetch("SELECT 1")


def test_feature_not_supported_is_no_outdated_statement() -> None:
    raised = asyncpg.FeatureNotSupportedError("a trigger's own words")
    assert isinstance(map_driver_error("graph", raised), StoreRejected)


async def test_cycle_leaves_its_session_as_it_was(graph: TestGraph) -> None:
    """Plans that a batch keeps, and joins that it forbids, are no other transaction's."""

    async def settings() -> list[tuple[int, str, str]]:
        async with graph.target.driver() as connection:
            shown = "SELECT name, setting FROM pg_settings WHERE name NOT LIKE '%.%' ORDER BY 1"
            return [
                (connection.get_server_pid(), name, value) for name, value in await connection.fetch(shown)
            ]

    before = await settings()
    assert ("plan_cache_mode", "force_custom_plan") in {(name, value) for _, name, value in before}
    await write_rows(graph, 3)
    assert (await run_cycle(graph.context())).rows == 3
    assert await settings() == before
