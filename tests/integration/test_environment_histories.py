"""A state machine in which the environment acts too: limits, triggers, partitions, snapshots, policies.

The worker is a role that owns nothing. After each cycle that calls itself drained the stores are equal, or the
cycle said what it could not do; once the environment is as it should be again, they are equal.
"""

import asyncio
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic import SecretStr

from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.engine import KNOWLEDGE_GRAPH, run_cycle
from syncline.errors import SynclineError
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.migrations import migrate_graph, migrate_write
from syncline.provider import RetryRules
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.testing.one_graph import SCHEMA, TestGraph
from syncline.testing.truth import differences
from tests.kit.loads import every_load
from tests.kit.writer import KEYS, Writer

T = TypeVar("T")
WRITERS = 2
SOURCES = [table.source for table in KNOWLEDGE_GRAPH]
TARGETS = [table.name for table in KNOWLEDGE_GRAPH]
OWNER, WORKER = "histories_owner", "histories_worker"
PARTITIONED = "write_node_versions"

ROLES = f"""
DO $$ BEGIN
    IF to_regrole('{OWNER}') IS NULL THEN
        CREATE ROLE {OWNER} LOGIN;
        CREATE ROLE {WORKER} LOGIN;
    END IF;
END $$
"""
RIGHTS = f"""
GRANT USAGE ON SCHEMA {SCHEMA}, syncline TO {WORKER};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {SCHEMA}, syncline TO {WORKER};
GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {WORKER};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA syncline TO {WORKER}
"""
# Two of the tables' layouts that the field has: one source in partitions, and a target with a unique value.
PARTITIONS = f"""
CREATE SCHEMA {SCHEMA};
CREATE TABLE {SCHEMA}.{PARTITIONED} (
    id text PRIMARY KEY, node_id text NOT NULL, version integer NOT NULL, snapshot jsonb, creator_id text,
    created_at timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (id);
CREATE TABLE {SCHEMA}.versions_others PARTITION OF {SCHEMA}.{PARTITIONED} DEFAULT
"""
UNIQUE = f"ALTER TABLE {SCHEMA}.nodes ADD UNIQUE (definition)"
LIMITS = [
    "statement_timeout = '5ms'",
    "transaction_timeout = '20ms'",
    "idle_session_timeout = '5ms'",
    "idle_in_transaction_session_timeout = '5ms'",
    "default_transaction_read_only = on",
    "default_transaction_isolation = 'serializable'",
    "search_path = pg_catalog",
    "lock_timeout = '1ms'",
]


class World:
    """One graph for all histories. Its write-db is a server of its own, since it is put back in time."""

    def __init__(self, graph_server: EmbeddedPostgres, target_dsn: str, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._graph_server = graph_server
        self._target_dsn = target_dsn
        self._folder = folder
        self._data = folder / "write" / "data"
        self._snapshot = folder / "snapshot"
        self._partitions = count(1)
        self.history: list[str] = []
        self.failures: list[str] = []
        self.server = PostgresServer(self._data)
        self._write_server = self.server.start()
        self.run(self._make())
        self.graph, self.writers, self.admin = self.run(self._open())
        # A write-db of before the two have met is another one, by mistake or not: nothing is removed for it.
        self.run(self.cycle())
        self.take_snapshot()

    def run(self, work: Coroutine[object, object, T]) -> T:
        try:
            return self._runner.run(work)
        except Exception:
            self._note(traceback.format_exc())
            raise

    def _note(self, problem: str) -> None:
        self.failures.append("\n".join([problem, "after", *self.history]))

    def require(self, found: list[str]) -> None:
        """Raise with what was found, if anything was, and the history so far."""
        if found:
            self._note("\n".join(found))
            raise AssertionError(self.failures[-1])

    def _dsn(self, side: str, role: str = "postgres") -> str:
        dsn = self._write_server.dsn("write") if side == "write" else self._target_dsn
        return dsn.replace("postgresql://postgres@", f"postgresql://{role}@")

    async def _make(self) -> None:
        self._write_server.psql("ALTER SYSTEM SET fsync = off")
        self._write_server.psql("SELECT pg_reload_conf()")
        self._write_server.ensure_database("write")
        for side in ("write", "graph"):
            connection = await asyncpg.connect(self._dsn(side))
            await connection.execute(ROLES)
            database = await connection.fetchval("SELECT quote_ident(current_database())")
            await connection.execute(f"GRANT CREATE ON DATABASE {database} TO {OWNER}")
            await connection.close()
        await self._as_owner("write", PARTITIONS)
        for side, migrate in (("write", migrate_write), ("graph", migrate_graph)):
            store = PostgresStore(
                side, SecretStr(self._dsn(side, OWNER)), pool_size=2, application_name="owner"
            )
            await migrate(store, SCHEMA)
            await store.close()
            connection = await asyncpg.connect(self._dsn(side))
            await connection.execute(RIGHTS)
            await connection.close()
        await self._as_owner("graph", UNIQUE)

    async def _as_owner(self, side: str, script: str) -> None:
        connection = await asyncpg.connect(self._dsn(side, OWNER))
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    async def _open(self) -> tuple[TestGraph, list[Writer], asyncpg.Connection]:
        write, target = (
            PostgresStore(name, SecretStr(self._dsn(name, WORKER)), pool_size=4, application_name="histories")
            for name in ("write", "graph")
        )
        graph = TestGraph(
            write=write,
            target=target,
            write_dsn=self._dsn("write"),
            target_dsn=self._dsn("graph"),
            vectors=EmbeddedQdrantStore("vectors", self._folder / "qdrant"),
            embedding=DevelopmentEmbedding(16),
        )
        writers = [Writer(await graph.connect_write(), number) for number in range(WRITERS)]
        return graph, writers, await graph.connect_write()

    async def _close(self) -> None:
        await self.graph.vectors.close()
        await self.graph.write.close()
        await self.graph.target.close()

    def close(self) -> None:
        self.run(self._close())
        self.server.stop()
        self._runner.close()

    def _stopped(self, act: Callable[[], object]) -> None:
        """Do something while the write-db is down; everybody's connections are others afterwards."""
        self.run(self._close())
        self.server.stop()
        act()
        self._write_server = self.server.start()
        self.graph, self.writers, self.admin = self.run(self._open())

    def take_snapshot(self) -> None:
        """Copy the write-db as it is on disk."""

        def copy() -> None:
            shutil.rmtree(self._snapshot, ignore_errors=True)
            _copy(self._data, self._snapshot)

        self._stopped(copy)

    def put_back(self, transactions: int) -> None:
        """Put the write-db back to that copy; others write there before any cycle looks."""

        def replace_data() -> None:
            shutil.rmtree(self._data)
            _copy(self._snapshot, self._data)

        self._stopped(replace_data)

        async def write() -> None:
            for _ in range(transactions):
                await self.admin.execute("SELECT pg_current_xact_id()")

        self.run(write())

    async def environment(self, side: str, statement: str) -> None:
        """Change something as whoever may."""
        connection = await (self.graph.connect_write() if side == "write" else self.graph.connect_target())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def limit(self, side: str, setting: str) -> None:
        """Give the worker's role another default; its sessions begin anew."""
        if setting.startswith("transaction_timeout"):
            version = int(await self.admin.fetchval("SELECT current_setting('server_version_num')"))
            if version < 170_000:
                return
        await self.environment(side, f"ALTER ROLE {WORKER} SET {setting}")
        await self._end_sessions(side)

    async def _end_sessions(self, side: str) -> None:
        await self.environment(
            side, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{WORKER}'"
        )

    async def attach(self, node: int, flag: bool) -> None:
        """Attach a partition that has a row already."""
        number = next(self._partitions)
        name, key = f"versions_{number}", f"x{number:06}"
        await self.environment(
            "write",
            f"""
            CREATE TABLE {name} (LIKE {PARTITIONED} INCLUDING ALL);
            INSERT INTO {name} (id, node_id, version) VALUES ('{key}', 'node{node}', {node});
            ALTER TABLE {name} OWNER TO {OWNER};
            ALTER TABLE {PARTITIONED} ATTACH PARTITION {name} FOR VALUES FROM ('{key}') TO ('{key}z');
            """,
        )
        if flag:
            await self.environment("write", f"ALTER TABLE {PARTITIONED} DETACH PARTITION {name}")

    async def calm(self) -> None:
        """Undo whatever the environment did, but for what was written meanwhile."""
        for writer in self.writers:
            await writer.end(commit=True)
        for side in ("write", "graph"):
            await self.environment(side, f"ALTER ROLE {WORKER} RESET ALL")
            for table in SOURCES if side == "write" else TARGETS:
                await self.environment(side, f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
            await self._end_sessions(side)
        for table in SOURCES:
            await self._triggers(table, "ENABLE ALWAYS")

    async def _triggers(self, table: str, how: str) -> None:
        names = await self.admin.fetch(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass($1) AND NOT tgisinternal", table
        )
        for row in names:
            await self.admin.execute(f'ALTER TABLE {table} {how} TRIGGER "{row["tgname"]}"')

    async def switch_off(self, table: str) -> None:
        await self._triggers(table, "DISABLE")

    async def clear(self) -> None:
        await self.calm()
        await self.admin.execute(f"TRUNCATE {', '.join(SOURCES)}")
        self.require(await self.settled())

    async def cycle(self, batch_rows: int = 1000) -> SyncResult | SynclineError:
        """Run a cycle; return what it said."""
        rules = RetryRules(vector_seconds=0, dead_letter_seconds=0.001, dead_letter_attempts=100)
        context = replace(self.graph.context(batch_rows=batch_rows), retry=rules)
        try:
            return await run_cycle(context)
        except SynclineError as error:
            await self.graph.wait_until_free()
            return error

    async def settled(self) -> list[str]:
        """Return what still differs after some cycles in calm."""
        said: SyncResult | SynclineError | None = None
        for _ in range(4):
            said = await self.cycle()
            found = await differences(self.graph)
            if not found and isinstance(said, SyncResult) and said.status is CycleStatus.DRAINED:
                return []
        return [*found, str(said)]


def _copy(folder: Path, to: Path) -> None:
    """Copy a folder with its owners, as the server may have a user of its own."""
    subprocess.run(["cp", "-a", folder, to], check=True)


@pytest.fixture
def world(postgres_server: EmbeddedPostgres, new_database: Callable[..., str]) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="syncline-world-") as folder:
        world = World(postgres_server, new_database(), Path(folder))
        yield world
        world.close()


writer = st.integers(0, WRITERS - 1)
key = st.integers(0, KEYS - 1)
refers = st.tuples(*[st.integers(0, WRITERS * KEYS - 1)] * 3)
table = st.sampled_from([*SOURCES, *["write_nodes"] * 4, *["write_facts"] * 2, *[PARTITIONED] * 2])
side = st.sampled_from(["write", "graph"])


def machine_in(world: World) -> type[RuleBasedStateMachine]:
    class Histories(RuleBasedStateMachine):
        """Writers write, cycles run, and what is around them changes."""

        def __init__(self) -> None:
            super().__init__()
            self.open: set[int] = set()

        @initialize()
        def empty(self) -> None:
            world.history.clear()
            world.run(world.clear())

        @rule(by=writer, table=table, key=key, refers=refers, flag=st.booleans())
        def put(self, by: int, table: str, key: int, refers: tuple[int, int, int], flag: bool) -> None:
            world.history.append(f"put {by} {table} {key} {refers} {flag}")
            self.open.add(by)
            world.run(world.writers[by].put(table, key, refers, flag))

        @rule(by=writer, table=table, key=key)
        def delete(self, by: int, table: str, key: int) -> None:
            world.history.append(f"delete {by} {table} {key}")
            self.open.add(by)
            world.run(world.writers[by].delete(table, key))

        @rule(by=writer, refers=refers, shift=st.integers(1, KEYS - 1))
        def hand_on(self, by: int, refers: tuple[int, int, int], shift: int) -> None:
            """Unique values change their owners, all at once."""
            world.history.append(f"hand_on {by} {refers} {shift}")

            async def hand_on() -> None:
                writer = world.writers[by]
                for key in range(KEYS):
                    await writer.put("write_nodes", key, refers, False)
                await writer.execute(
                    "UPDATE write_nodes SET definition = 'd' || $1 || ((substr(id, 5)::int + $2 + n) % $3)"
                    " FROM (SELECT coalesce(max(version), 0) AS n FROM write_node_versions) v"
                    " WHERE id = ANY ($4)",
                    str(by),
                    shift,
                    KEYS,
                    [f"node{by * KEYS + key}" for key in range(KEYS)],
                )
                await writer.end(commit=True)

            self.open.discard(by)
            world.run(hand_on())

        @precondition(lambda self: self.open)
        @rule(commit=st.sampled_from([True, True, True, False]), data=st.data())
        def end(self, commit: bool, data: st.DataObject) -> None:
            world.history.append(f"end {commit}")
            by = data.draw(st.sampled_from(sorted(self.open)))
            self.open.discard(by)
            world.run(world.writers[by].end(commit=commit))

        @rule(batch_rows=st.sampled_from([1, 2, 1000]))
        def cycle(self, batch_rows: int) -> None:
            world.history.append(f"cycle {batch_rows}")
            said = world.run(world.cycle(batch_rows))
            if self.open or not isinstance(said, SyncResult):
                return
            if said.status is CycleStatus.DRAINED and not said.failures and not said.dead_letters:
                world.require(world.run(differences(world.graph)))

        @rule(side=side, setting=st.sampled_from(LIMITS))
        def limit(self, side: str, setting: str) -> None:
            world.history.append(f"limit {side} {setting}")
            world.run(world.limit(side, setting))

        @precondition(lambda self: not self.open)
        @rule(table=table)
        def capture_off(self, table: str) -> None:
            world.history.append(f"capture_off {table}")
            world.run(world.switch_off(table))

        @precondition(lambda self: not self.open)
        @rule(table=table)
        def capture_on(self, table: str) -> None:
            world.history.append(f"capture_on {table}")
            world.run(world._triggers(table, "ENABLE ALWAYS"))

        @precondition(lambda self: not self.open)
        @rule(node=st.integers(0, WRITERS * KEYS - 1), away=st.booleans())
        def partition(self, node: int, away: bool) -> None:
            world.history.append(f"partition {node} {away}")
            world.run(world.attach(node, away))

        @precondition(lambda self: not self.open)
        @rule(side=side, position=st.integers(0, len(SOURCES) - 1))
        def policy(self, side: str, position: int) -> None:
            world.history.append(f"policy {side} {position}")
            table = (SOURCES if side == "write" else TARGETS)[position % len(TARGETS)]
            world.run(world.environment(side, f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"))

        @rule(by=writer, table=table, key=key, refers=refers)
        def write_as_replica(self, by: int, table: str, key: int, refers: tuple[int, int, int]) -> None:
            world.history.append(f"write_as_replica {by} {table} {key} {refers}")

            async def write() -> None:
                writer = world.writers[by]
                await writer.execute("SET LOCAL session_replication_role = replica")
                await writer.put(table, key, refers, True)
                await writer.end(commit=True)

            self.open.discard(by)
            world.run(write())

        @rule(table=st.sampled_from(TARGETS))
        def read_again(self, table: str) -> None:
            world.history.append(f"read_again {table}")
            forget = f"DELETE FROM sync_cursor WHERE table_name = '{table}'"
            world.run(world.environment("graph", forget))

        @rule()
        def calm(self) -> None:
            world.history.append("calm")
            self.open.clear()
            world.run(world.calm())

        @rule()
        def snapshot(self) -> None:
            world.history.append("snapshot")
            self.open.clear()
            world.take_snapshot()

        @rule(transactions=st.integers(0, 60))
        def put_back(self, transactions: int) -> None:
            world.history.append(f"put_back {transactions}")
            self.open.clear()
            world.put_back(transactions)

        def teardown(self) -> None:
            async def settle() -> list[str]:
                await world.calm()
                return await world.settled()

            world.require(world.run(settle()))

    return Histories


def test_no_history_of_a_changing_environment_loses_a_change(world: World) -> None:
    tell(world, histories=2, steps=15)


@pytest.mark.proof
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(1, 7), ids="part {} of 6".format)
def test_three_hundred_histories_of_a_changing_environment(
    world: World, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """In every second part, what is read from the start is read in turns with what changes."""
    if part % 2 == 0:
        every_load(monkeypatch)
    tell(world, histories=50, steps=20)


def tell(world: World, *, histories: int, steps: int) -> None:
    """Have so many histories happen. The first that fails is told as it was: it cannot be told again alike."""
    try:
        run_state_machine_as_test(
            machine_in(world),
            settings=settings(
                max_examples=histories,
                stateful_step_count=steps,
                deadline=None,
                derandomize=False,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.explicit, Phase.generate],
            ),
        )
    except Exception:
        if world.failures:
            pytest.fail(world.failures[0])
        raise
