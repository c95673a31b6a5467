"""Stores that are put back in time: what their past had is not believed to be the truth of now."""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.capture.install.install import adopt
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, run_cycle
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.migrations import migrate_graph, migrate_write
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.one_graph import session
from syncline.testing.truth import differences

SEED = """
INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready');
INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('n1', 'one', '{f1}'), ('n2', 'two', '{}')
"""


def _copy(folder: Path, other: Path) -> None:
    # With its owner: for root, the server runs as somebody else.
    subprocess.run(["cp", "-a", folder, other], check=True)


class Server:
    """A server whose data directory can be copied while it is stopped, and put back."""

    def __init__(self, folder: Path) -> None:
        self.data, self.copy = folder / "data", folder / "copy"
        self._server = PostgresServer(self.data)
        self.running = self._server.start()

    def keep(self) -> None:
        self._server.stop()
        shutil.rmtree(self.copy, ignore_errors=True)
        _copy(self.data, self.copy)
        self.running = self._server.start()

    def put_back(self) -> None:
        self._server.stop()
        shutil.rmtree(self.data)
        _copy(self.copy, self.data)
        self.running = self._server.start()

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="syncline-pg-") as folder:
        server = Server(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@dataclass
class Site:
    """A graph whose write-db, or graph-db, is on that server."""

    graph: TestGraph
    server: Server

    async def stop_using(self) -> None:
        # Connections of before would be met as an outage first.
        await self.graph.write.close()
        await self.graph.target.close()


async def _database(server: EmbeddedPostgres, name: str) -> str:
    server.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    server.ensure_database(name)
    return server.dsn(name)


@pytest_asyncio.fixture(loop_scope="session")
async def site(graph: TestGraph, server: Server) -> AsyncIterator[Site]:
    dsn = await _database(server.running, "write")
    store = PostgresStore("write", SecretStr(dsn), pool_size=4, application_name="t")
    await migrate_write(store, "kg")
    yield Site(replace(graph, write=store, write_dsn=dsn), server)
    await store.close()


async def _xid(graph: TestGraph) -> int:
    async with session(graph, graph.write_dsn) as connection:
        return int(await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))


async def _busy(graph: TestGraph, *, until: int) -> None:
    """Write in transactions that leave nothing, as a writer of another schema does."""
    connection = await graph.connect_write()
    try:
        while int(await connection.fetchval("SELECT pg_current_xact_id()::text")) < until:
            pass
    finally:
        await connection.close()


async def _cycle(graph: TestGraph) -> SyncResult:
    result = await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(graph.context())
    assert result.status is CycleStatus.DRAINED
    return result


@pytest.mark.long("test_each_sign_of_another_past_is_enough")
async def test_a_write_db_that_was_put_back_under_busy_writers(site: Site) -> None:
    graph = site.graph
    await write(graph, SEED)
    await _cycle(graph)
    site.server.keep()
    await site.stop_using()
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) VALUES ('lost', 'lost'); DELETE FROM write_nodes WHERE id = 'n2'",
    )
    await write(graph, "UPDATE write_nodes SET concept = 'lost too' WHERE id = 'n1'")
    await _busy(graph, until=await _xid(graph) + 50)
    await write(graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f2', 'lost', 'ready')")
    await _cycle(graph)
    reached = await _xid(graph)
    await site.stop_using()
    site.server.put_back()
    assert await _xid(graph) < reached
    await write(graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f3', 'new', 'ready')")
    await _busy(graph, until=reached + 50)
    result = await _cycle(graph)
    assert result.rescanned
    assert result.rescan_reason
    assert await differences(graph) == []
    assert [row["key"] for row in await read(graph, "SELECT key FROM nodes ORDER BY key")] == ["n1", "n2"]
    assert [row["key"] for row in await read(graph, "SELECT key FROM facts ORDER BY key")] == ["f1", "f3"]
    result = await _cycle(graph)
    assert (result.rescanned, result.idle) == (False, True)


async def test_a_restart_is_no_other_past(site: Site) -> None:
    graph = site.graph
    await write(graph, SEED)
    await _cycle(graph)
    await site.stop_using()
    site.server.keep()
    await write(graph, "UPDATE write_nodes SET concept = 'X'")
    result = await _cycle(graph)
    assert (result.rescanned, result.rows, result.unknown) == (False, 2, ())


@pytest.mark.long("test_each_sign_of_another_past_is_enough")
async def test_commits_of_either_side_that_are_lost_with_a_worker_are_no_other_past(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    # A worker that ended between its token and its cursor, more than once; and a graph-db of an hour before.
    await write(graph, "UPDATE sync_position SET number = number + 1, tokens = gen_random_uuid() || tokens")
    await write(graph, "UPDATE sync_position SET number = number + 1, tokens = gen_random_uuid() || tokens")
    result = await run_cycle(graph.context())
    assert (result.rescanned, result.idle) == (False, True)
    await write(graph, "UPDATE write_nodes SET concept = 'X'")
    assert not (await run_cycle(graph.context())).rescanned
    # More tokens than are kept: it is known by its number alone.
    await write(graph, "UPDATE sync_position SET number = number + 200, tokens = ARRAY[gen_random_uuid()]")
    assert not (await run_cycle(graph.context())).rescanned


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    "other",
    [
        "UPDATE sync_position SET tokens[1] = gen_random_uuid()",
        "UPDATE sync_position SET branch = gen_random_uuid()",
        "UPDATE sync_position SET number = number - 1, tokens = tokens[2:]",
    ],
)
async def test_each_sign_of_another_past_is_enough(graph: TestGraph, other: str) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    await write(graph, "UPDATE write_nodes SET concept = 'X'")
    await run_cycle(graph.context())
    await on_target(
        graph,
        "INSERT INTO nodes SELECT (jsonb_populate_record(n, jsonb_build_object('id', gen_random_uuid(), 'key', 'gone'))).* FROM nodes n LIMIT 1",
    )
    await write(graph, other)
    result = await run_cycle(graph.context())
    assert result.rescanned
    assert await differences(graph) == []
    assert not (await run_cycle(graph.context())).rescanned


async def test_a_write_db_that_never_met_the_graph_db_empties_nothing(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    # The wrong address: the same tables, empty, and it knows nobody.
    await write(
        graph, "DELETE FROM sync_position; TRUNCATE write_nodes, write_facts; TRUNCATE sync_tombstone"
    )
    result = await run_cycle(graph.context())
    assert result.rescanned
    assert len(await read(graph, "SELECT key FROM nodes")) == 2


@pytest.mark.long("test_each_sign_of_another_past_is_enough")
async def test_a_graph_db_from_before_the_positions_goes_on(graph: TestGraph) -> None:
    await write(graph, SEED)
    await run_cycle(graph.context())
    await write(graph, "DROP TABLE sync_position")
    await on_target(graph, "UPDATE sync_state SET position = NULL; DELETE FROM sync_source")
    result = await run_cycle(graph.context())
    assert not result.rescanned
    assert ["sync_position" in sentence for sentence in result.unknown] == [True]
    await write(graph, "UPDATE write_nodes SET concept = 'X'")
    assert (await run_cycle(graph.context())).rows == 2
    await adopt(graph.write, "kg", KNOWLEDGE_GRAPH)
    await write(graph, "UPDATE write_nodes SET concept = 'Y'")
    result = await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(graph.context())
    assert (result.rescanned, result.rows, result.unknown) == (False, 2, ())


async def test_a_role_that_may_not_leave_a_token_says_so(graph: TestGraph) -> None:
    role = f"reader_{graph.write_dsn.split('/')[3].split('?')[0]}"
    await write(
        graph,
        f"{SEED}; CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA kg TO {role};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA kg TO {role}",
    )
    store = PostgresStore(
        "write",
        SecretStr(graph.write_dsn.replace("postgres@", f"{role}@")),
        pool_size=2,
        application_name="t",
    )
    try:
        result = await _cycle(replace(graph, write=store))
        assert ["GRANT SELECT, INSERT, UPDATE" in sentence for sentence in result.unknown] == [True]
        assert result.rows == 3
    finally:
        await store.close()
        await write(graph, f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.long("test_each_sign_of_another_past_is_enough")
async def test_a_graph_db_put_back_to_before_deleted_keys_were_cleared_away(
    graph: TestGraph, server: Server
) -> None:
    dsn = await _database(server.running, "graph")
    target = PostgresStore("graph", SecretStr(dsn), pool_size=4, application_name="t")
    await migrate_graph(target, "kg")
    site = Site(replace(graph, target=target, target_dsn=dsn), server)
    graph = site.graph
    await write(graph, SEED)
    await _cycle(graph)
    server.keep()
    await site.stop_using()
    await write(graph, "DELETE FROM write_nodes WHERE id = 'n2'")
    await _cycle(graph)
    await write(
        graph,
        "UPDATE sync_tombstone SET deleted_at = now() - interval '8 days'; DELETE FROM write_nodes WHERE id = 'none'",
    )
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) VALUES ('n9', 'x'); DELETE FROM write_nodes WHERE id = 'n9'",
    )
    await _cycle(graph)
    connection = await graph.connect_write()
    assert await connection.fetchval("SELECT count(*) FROM sync_tombstone") == 1
    await connection.close()
    await site.stop_using()
    server.put_back()
    result = await _cycle(graph)
    assert not result.rescanned
    assert all(table.compared for table in result.tables)
    assert await differences(graph) == []
    result = await _cycle(graph)
    assert (any(table.compared for table in result.tables), result.idle) == (False, True)
    await target.close()


@pytest.mark.long("integration/test_visible.py::test_token_of_before_a_restore_is_not_believed")
async def test_token_of_a_lost_write_is_refused_and_one_of_before_a_restart_is_not(site: Site) -> None:
    graph = site.graph

    async def token() -> str:
        async with session(graph, graph.write_dsn) as writer, writer.transaction():
            await writer.execute(
                "INSERT INTO write_nodes (id, concept) VALUES (gen_random_uuid()::text, 'c')"
            )
            return str(await writer.fetchval("SELECT syncline.token()"))

    async def visible(mine: str) -> bool:
        [row] = await read(graph, f"SELECT visible FROM syncline.visible('kg', '{mine}')")
        return bool(row["visible"])

    await write(graph, SEED)
    before = await token()
    await _cycle(graph)
    site.server.keep()
    await site.stop_using()
    assert await visible(before)
    lost = await token()
    await _cycle(graph)
    # Another start of the same history.
    assert await visible(before)
    assert await visible(lost)
    reached = await _xid(graph)
    await site.stop_using()
    site.server.put_back()
    await _busy(graph, until=reached + 50)
    mine = await token()
    assert not await visible(mine)
    assert (await _cycle(graph)).rescanned
    assert await visible(mine)
    for each in (before, lost):
        with pytest.raises(asyncpg.InvalidParameterValueError, match="past"):
            await visible(each)
