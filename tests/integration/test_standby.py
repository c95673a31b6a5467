"""A standby as write-db: read, never written to, and what it cannot tell is told.

Where one address leads to it and to its primary, it is read only if it has what was shown there.
"""

import asyncio
import random
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import AdaptedConnection
from sqlalchemy.exc import DisconnectionError

from syncline import names
from syncline.capture.listen.connection import obstacle
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine
from syncline.engine.source_check import SourceCheck
from syncline.errors import StoreUnavailable
from syncline.messages.sync import CycleStatus, LaneEnd, SyncResult
from syncline.migrations import migrate_graph, migrate_write
from syncline.operator.health.postgres import check_postgres
from syncline.shadow import lag
from syncline.stores.dsn import Host
from syncline.stores.horizon import HORIZON
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read
from syncline.testing.truth import differences
from syncline.verify import verify
from tests.kit.cases import further
from tests.kit.lanes import Lanes, every_load_in_ranges
from tests.kit.loads import end_after_turns
from tests.kit.writer import KEYS, Writer

SEED = """
INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready');
INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('n1', 'one', '{f1}'), ('n2', 'two', '{}')
"""
_STREAMING = "\nwal_level = replica\nmax_wal_senders = 4\nmax_prepared_transactions = 4\n"


# The standby can only have what was flushed.
_WRITER: Final = {"search_path": "kg", "synchronous_commit": "on"}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A primary and its standby."""

    primary: EmbeddedPostgres
    standby: EmbeddedPostgres


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="syncline-pg-") as folder:
        yield from _pair(Path(folder))


def _pair(folder: Path) -> Iterator[Pair]:
    primary = PostgresServer(folder / "primary")
    running = primary.start()
    primary.stop()
    with (folder / "primary" / "postgresql.conf").open("a") as settings:
        settings.write(_STREAMING)
    primary.start()
    primary.stop()
    # With its owner: for root, the server runs as somebody else.
    subprocess.run(["cp", "-a", folder / "primary", folder / "standby"], check=True)
    with (folder / "standby" / "postgresql.conf").open("a") as settings:
        settings.write(f"\nprimary_conninfo = 'host={running.socket_dir} user=postgres'\nhot_standby = on\n")
    (folder / "standby" / "standby.signal").touch()
    standby = PostgresServer(folder / "standby")
    try:
        yield Pair(primary=primary.start(), standby=standby.start())
    finally:
        standby.stop()
        primary.stop()


@dataclass(frozen=True, kw_only=True)
class Site:
    """A graph that reads the standby of the server where its writers are."""

    graph: TestGraph
    writer: asyncpg.Connection
    store: PostgresStore

    async def write(self, sql: str) -> None:
        """Write on the primary; return when the standby has it."""
        await self.writer.execute(sql)
        await self.caught_up()

    async def caught_up(self) -> None:
        """Return when the standby has what was written on the primary."""
        position = await self.writer.fetchval("SELECT pg_current_wal_flush_lsn()::text")
        async with asyncio.timeout(60):
            while not await self._replayed(position):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def _replayed(self, position: str) -> bool:
        async with self.store.driver() as connection:
            return bool(
                await connection.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position)
            )

    async def cycle(self) -> SyncResult:
        return await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(self.graph.context())


class Either(PostgresStore):
    """A store whose address leads to both servers; the test says to which one connections go."""

    def __init__(self, pair: Pair) -> None:
        self.primary = [True]
        hosts = f"{pair.primary.socket_dir},{pair.standby.socket_dir}"
        dsn = SecretStr(f"postgresql://postgres@/write?host={hosts}")
        super().__init__("write", dsn, pool_size=4, application_name="t")

    @property
    def _host(self) -> Host:
        primary, standby = self.login.dsn.hosts
        return primary if self.primary[0] else standby

    async def _dial(self, purpose: str, at: Host | None = None) -> Any:
        return await super()._dial(purpose, at or self._host)

    def _refuse_useless(self, connection: AdaptedConnection, *given: Any) -> None:
        super()._refuse_useless(connection, *given)
        if connection.driver_connection.host != self._host:
            raise DisconnectionError("it is the other server's")

    @contextmanager
    def at(self, *, primary: bool) -> Iterator[None]:
        before, self.primary[0] = self.primary[0], primary
        try:
            yield
        finally:
            self.primary[0] = before


@dataclass(frozen=True, kw_only=True)
class Sites(Site):
    """The same graph, whose address leads to both servers; what is true is what the primary says."""

    either: Either
    pair: Pair
    engine: SyncEngine = field(default_factory=lambda: SyncEngine(KNOWLEDGE_GRAPH))

    async def cycle(self, *, primary: bool = True) -> SyncResult:
        """Run a cycle on one of the servers."""
        with self.either.at(primary=primary):
            result = await self.engine.run_cycle(self.graph.context())
        assert result.status is CycleStatus.DRAINED, result
        return result

    @contextmanager
    def lagging(self) -> Iterator[None]:
        """Let the standby replay nothing meanwhile."""
        self.pair.standby.psql("SELECT pg_wal_replay_pause()")
        try:
            yield
        finally:
            self.pair.standby.psql("SELECT pg_wal_replay_resume()")

    async def refused(self, reading: Awaitable[object]) -> str:
        """Return why the standby was not read; empty if it was."""
        try:
            await reading
        except StoreUnavailable as error:
            return str(error)
        return ""


@pytest_asyncio.fixture(loop_scope="session")
async def site(graph: TestGraph, pair: Pair) -> AsyncIterator[Site]:
    pair.primary.psql('DROP DATABASE IF EXISTS "write" WITH (FORCE)')
    pair.primary.ensure_database("write")
    primary = PostgresStore("write", SecretStr(pair.primary.dsn("write")), pool_size=2, application_name="t")
    await migrate_write(primary, "kg")
    await primary.close()
    writer = await asyncpg.connect(pair.primary.dsn("write"), server_settings=_WRITER)
    store = PostgresStore("write", SecretStr(pair.standby.dsn("write")), pool_size=4, application_name="t")
    found = Site(
        graph=replace(graph, write=store, write_dsn=pair.standby.dsn("write")), writer=writer, store=store
    )
    async with asyncio.timeout(60):
        while not pair.standby.psql("SELECT 1 FROM pg_database WHERE datname = 'write'"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await found.write(SEED)
    yield found
    await store.close()
    await writer.close()


async def test_a_graph_that_reads_a_standby(site: Site) -> None:
    result = await site.cycle()
    assert (result.status, result.rows, result.lag_known) == (CycleStatus.DRAINED, 3, False)
    assert ["cannot be seen from a standby" in sentence for sentence in result.unknown] == [True]
    await site.write(
        "DELETE FROM write_nodes WHERE id = 'n2'; UPDATE sync_tombstone SET deleted_at = now() - interval '9 days'"
    )
    result = await site.cycle()
    assert (result.status, result.rescanned) == (CycleStatus.DRAINED, False)
    assert [row["key"] for row in await read(site.graph, "SELECT key FROM nodes")] == ["n1"]
    assert await differences(site.graph) == []


async def test_prepared_transactions_hold_back_their_own_database_alone(site: Site, pair: Pair) -> None:
    async def horizon(connection: asyncpg.Connection) -> int:
        found: int = await connection.fetchval(f"SELECT {HORIZON}::text::bigint")
        return found

    elsewhere = await asyncpg.connect(pair.primary.dsn("postgres"))
    primary = PostgresStore("write", SecretStr(pair.primary.dsn("write")), pool_size=1, application_name="t")
    try:
        await elsewhere.execute("BEGIN")
        other = await elsewhere.fetchval("SELECT pg_current_xact_id()::text::bigint")
        await elsewhere.execute("PREPARE TRANSACTION 'elsewhere'")
        await site.writer.execute("BEGIN")
        own = await site.writer.fetchval("SELECT pg_current_xact_id()::text::bigint")
        await site.writer.execute("PREPARE TRANSACTION 'here'")
        checks = await check_postgres(
            "write-db", primary, wanted=1, setting="SYNCLINE_WRITE_DSN", writers=True
        )
        [writers] = [check for check in checks if check.name.endswith("open transactions")]
        assert "prepared transaction here" in writers.found
        # The standby's snapshot has no list of them.
        await site.write("UPDATE write_nodes SET concept = concept")
        async with site.store.driver() as standby:
            assert (await horizon(site.writer), await horizon(standby), other < own) == (own, other, True)
        await site.writer.execute("COMMIT PREPARED 'here'")
        assert await horizon(site.writer) > own
    finally:
        await primary.close()
        await elsewhere.execute("ROLLBACK PREPARED 'elsewhere'")
        await elsewhere.close()


@pytest.mark.long("test_a_graph_that_reads_a_standby")
async def test_rows_that_an_open_transaction_holds_back(site: Site, pair: Pair) -> None:
    await site.cycle()
    slow = await asyncpg.connect(pair.primary.dsn("write"), server_settings=_WRITER)
    try:
        async with slow.transaction():
            await slow.execute(
                "INSERT INTO write_facts (id, content, dedup_status) VALUES ('late', 'x', 'ready')"
            )
            await site.write(
                "INSERT INTO write_facts (id, content, dedup_status) VALUES ('early', 'x', 'ready')"
            )
            result = await site.cycle()
            assert (result.rows, result.owes, result.lag_known) == (0, True, False)
    finally:
        await slow.close()
    await site.write("SELECT 1")
    assert (await site.cycle()).rows == 2
    assert await differences(site.graph) == []


async def test_a_standby_is_not_listened_to_and_the_doctor_says_what_it_cannot_see(site: Site) -> None:
    async with site.store.driver() as connection:
        found = await obstacle(connection.fetchval)
    assert found is not None
    assert "standby" in found.problem
    checks = await check_postgres(
        "write-db", site.store, wanted=1, setting="SYNCLINE_WRITE_DSN", writers=True
    )
    [writers] = [check for check in checks if check.name.endswith("open transactions")]
    assert writers.status == "warn"
    assert "standby" in writers.found


@pytest_asyncio.fixture(loop_scope="session")
async def sites(site: Site, pair: Pair) -> AsyncIterator[Sites]:
    either = Either(pair)
    graph = replace(site.graph, write=either, write_dsn=pair.primary.dsn("write"))
    yield Sites(graph=graph, writer=site.writer, store=site.store, either=either, pair=pair)
    await either.close()


async def _ask(sites: Sites, name: str) -> None:
    """Ask for node `name` by its key."""
    await on_target(
        sites.graph,
        "INSERT INTO sync_requeue (table_name, row_id, key, reason)"
        f" SELECT 'nodes', id, ARRAY[key], 'a test' FROM nodes WHERE key = '{name}'",
    )


async def _compare(sites: Sites, name: str) -> None:
    await on_target(
        sites.graph, "INSERT INTO sync_comparison (table_name, reason) VALUES ('nodes', 'a test')"
    )


@pytest.mark.parametrize(
    ("change", "then"),
    [
        ("INSERT INTO write_nodes (id, concept) VALUES ('x', 'x')", None),
        ("DELETE FROM write_nodes WHERE id = 'n2'", None),
        ("INSERT INTO write_nodes (id, concept) VALUES ('x', 'x')", _ask),
        ("INSERT INTO write_nodes (id, concept) VALUES ('x', 'x')", _compare),
    ],
    ids=["rows", "deletes", "by key", "compared"],
)
async def test_a_standby_that_lags_behind_the_horizon_is_not_read(
    sites: Sites,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    then: Callable[[Sites, str], Awaitable[None]] | None,
) -> None:
    """The primary was asked for the horizon, then connections lead to the standby."""
    await sites.cycle()
    await sites.caught_up()
    with sites.lagging(), monkeypatch.context() as patched:
        await sites.writer.execute(change)
        if then is not None:
            # What was read is removed if it is not there.
            await sites.cycle()
            await then(sites, "x")
        for name in ("ask", "take"):
            patched.setattr(SourceCheck, name, _on_the_primary(sites.either, getattr(SourceCheck, name)))
        problem = await sites.refused(sites.cycle(primary=False))
    await sites.caught_up()
    assert not (await sites.cycle()).rescanned
    assert await differences(sites.graph) == []
    assert "replay" in problem


def _on_the_primary(
    either: Either, done: Callable[..., Awaitable[object]]
) -> Callable[..., Awaitable[object]]:
    async def on_the_primary(*given: object) -> object:
        with either.at(primary=True):
            return await done(*given)

    return on_the_primary


async def test_a_standby_that_lags_is_no_earlier_point_in_time(sites: Sites) -> None:
    """Neither where it lacks the token, nor where it lacks transactions that were read."""
    with sites.lagging():
        await sites.cycle()
        problems = [await sites.refused(sites.cycle(primary=False))]
        for name in ("x", "y"):
            await sites.writer.execute(f"INSERT INTO write_nodes (id, concept) VALUES ('{name}', 'x')")
            await sites.cycle()
        problems.append(await sites.refused(sites.cycle(primary=False)))
        with sites.either.at(primary=False):
            problems.append(await sites.refused(_verify(sites)))
        assert len(await read(sites.graph, "SELECT key FROM nodes")) == 4
    await sites.caught_up()
    assert not (await sites.cycle(primary=False)).rescanned
    assert await differences(sites.graph) == []
    assert ["replay" in problem for problem in problems] == [True] * 3


async def _verify(sites: Sites) -> None:
    context = sites.graph.context()
    found = await verify(
        KNOWLEDGE_GRAPH, write=context.write, target=context.target, vectors=None, embedding=""
    )
    assert not [relation for relation in found.relations if relation.damaged]


async def test_a_standby_does_not_show_what_a_shadow_lacks(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primary shows what the live graph has read, then the standby what is left for the shadow."""
    live = sites.graph.context()
    shadow = replace(live.target, schema=names.shadow_schema(live.target.schema))
    await migrate_graph(shadow.store, shadow.schema)
    await sites.engine.run_cycle(replace(live, target=shadow, shadow=True))
    await sites.caught_up()
    asked, primary = lag.progress_of, iter([True, False])

    async def progress_of(*given: Any) -> lag.Progress:
        with sites.either.at(primary=next(primary)):
            return await asked(*given)

    monkeypatch.setattr(lag, "progress_of", progress_of)
    with sites.lagging():
        await sites.writer.execute("INSERT INTO write_nodes (id, concept) VALUES ('x', 'x')")
        await sites.cycle()
        async with shadow.store.driver() as connection, connection.transaction():
            both = lag.progress_of_both(connection, live.target, shadow, live.write, sites.engine.statements)
            problem = await sites.refused(both)
    assert "replay" in problem


async def test_a_lane_does_not_read_what_has_changed_since(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standby has all of the load, in which a row is older than the fresh change that is here."""
    await sites.write(
        "INSERT INTO write_nodes (id, concept) SELECT 'o' || n, 'x' FROM generate_series(10, 40) n"
    )
    every_load_in_ranges(monkeypatch)
    context = replace(sites.graph.context(batch_rows=4), lanes=_NoLanes())
    with sites.lagging():
        with monkeypatch.context() as patched:
            end_after_turns(patched, 1)
            await sites.engine.run_cycle(context)
            await sites.writer.execute("UPDATE write_nodes SET concept = 'newer' WHERE id = 'o40'")
            await sites.engine.run_cycle(context)
        assert await _concepts(sites, "o40") == ["newer"]
        with sites.either.at(primary=False):
            # It would wait for the cycle once no range is left.
            looks = iter(range(100))
            lane = await sites.engine.load_ranges(
                context, lane="lane 1", over=lambda: next(looks, None) is None
            )
    assert await _concepts(sites, "o40") == ["newer"]
    assert (lane.end, "replay" in (lane.problem or "")) == (LaneEnd.FAILED, True)
    await sites.caught_up()
    await sites.cycle()
    assert await differences(sites.graph) == []


class _NoLanes(Lanes):
    async def call(self) -> None:
        """None comes."""


async def _concepts(sites: Sites, name: str) -> list[str]:
    rows = await read(sites.graph, f"SELECT concept FROM nodes WHERE key = '{name}'")
    return [row["concept"] for row in rows]


class Wandering(Either):
    """Each connection that is asked for leads to a server by chance, as with load_balance_hosts=random."""

    def __init__(self, pair: Pair, chance: random.Random) -> None:
        super().__init__(pair)
        self._chance, self.wanders = chance, False
        self._choosing = asyncio.Lock()

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        async with AsyncExitStack() as stack:
            async with self._choosing:
                if self.wanders:
                    self.primary[0] = self._chance.random() < 0.6
                connection = await stack.enter_async_context(super().driver())
            yield connection


@pytest.mark.long("test_a_standby_that_lags_behind_the_horizon_is_not_read")
@pytest.mark.parametrize("seed", [1, *further(*range(2, 21))])
async def test_drill_of_two_servers(site: Site, pair: Pair, seed: int) -> None:
    """Writers with open transactions, a standby that stops and catches up, cycles that read either server."""
    chance = random.Random(seed)
    store = Wandering(pair, chance)
    graph = replace(site.graph, write=store, write_dsn=pair.primary.dsn("write"))
    sites = Sites(graph=graph, writer=site.writer, store=site.store, either=store, pair=pair)
    writers = [
        Writer(await asyncpg.connect(graph.write_dsn, server_settings=_WRITER), number) for number in range(3)
    ]
    try:
        for _ in range(120):
            await _step(sites, store, chance, chance.choice(writers))
        pair.standby.psql("SELECT pg_wal_replay_resume()")
        for writer in writers:
            await writer.end(commit=True)
        store.wanders = False
        for _ in range(2):
            assert not (await sites.cycle()).rescanned
        assert await differences(graph) == []
    finally:
        pair.standby.psql("SELECT pg_wal_replay_resume()")
        for writer in writers:
            await writer.close()
        await store.close()


async def _step(sites: Sites, store: Wandering, chance: random.Random, writer: Writer) -> None:
    table, key, what = chance.choice(list(KNOWLEDGE_GRAPH)), chance.randrange(KEYS), chance.random()
    if what < 0.35:
        refers = (chance.randrange(9), chance.randrange(9), chance.randrange(9))
        await writer.put(table.source, key, refers, chance.random() < 0.5)
    elif what < 0.45:
        await writer.delete(table.source, key)
    elif what < 0.6:
        await writer.end(commit=chance.random() < 0.8)
    elif what < 0.7:
        sites.pair.standby.psql(f"SELECT pg_wal_replay_{chance.choice(['pause', 'resume', 'resume'])}()")
    elif what < 0.75:
        # A wait for what is visible: what is newer is asked for by key.
        await on_target(sites.graph, "SELECT nextval('sync_wanted')")
    elif what < 0.8:
        await on_target(
            sites.graph,
            "INSERT INTO sync_comparison (table_name, reason) VALUES ($1, 'a test') ON CONFLICT DO NOTHING",
            table.name,
        )
    else:
        store.wanders = True
        with suppress(StoreUnavailable):
            context = sites.graph.context(batch_rows=chance.choice([3, 50_000]))
            assert not (await sites.engine.run_cycle(context)).rescanned
        store.wanders, store.primary[0] = False, True


async def test_doctor_asks_for_the_primary_of_several_hosts(sites: Sites) -> None:
    async def servers(store: PostgresStore) -> list[str]:
        found = await check_postgres("write-db", store, wanted=1, setting="SYNCLINE_WRITE_DSN", writers=True)
        return [check.fix or "" for check in found if check.name.endswith("servers")]

    [fix] = await servers(sites.either)
    assert "target_session_attrs=primary" in fix
    hosts = ",".join(reversed([host.name for host in sites.either.login.dsn.hosts]))
    dsn = SecretStr(f"postgresql://postgres@/write?host={hosts}&target_session_attrs=primary")
    asking = PostgresStore("write", dsn, pool_size=1, application_name="t")
    try:
        assert await servers(asking) == []
    finally:
        await asking.close()
