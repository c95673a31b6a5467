"""A standby as write-db: read, never written to, and what it cannot tell is told."""

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.capture.listen.connection import obstacle
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.migrations import migrate_write
from syncline.operator.health.postgres import check_postgres
from syncline.stores.horizon import HORIZON
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, read
from syncline.testing.truth import differences

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
