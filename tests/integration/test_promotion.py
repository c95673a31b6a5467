"""A standby is promoted that lacks the last transactions: what only the lost primary had is gone, and little is read again."""

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from pydantic import SecretStr

from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, source_check
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.migrations import migrate_write
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, write
from syncline.testing.truth import differences
from syncline.verify import verify
from tests.kit.cases import further
from tests.kit.failover import Failover
from tests.kit.pages import one_row, replace_lines
from tests.kit.writer import KEYS, Writer

SEED = """
INSERT INTO write_facts (id, content, dedup_status) SELECT 'f' || i, 'fact ' || i, 'ready' FROM generate_series(1, 20) i;
INSERT INTO write_nodes (id, concept, fact_ids) SELECT 'n' || i, 'node ' || i, ARRAY['f' || i] FROM generate_series(1, 20) i;
INSERT INTO write_llm_usage (id, model_id) SELECT 'u' || i, 'm' FROM generate_series(1, 3000) i
"""
TABLES = [table.source for table in KNOWLEDGE_GRAPH]
WRITERS = 3
DRILLS = 20
PAGE = Path(__file__).parents[2] / "docs" / "operations" / "postgres-failover.md"


@dataclass
class Told:
    """What promotions came to, for the page that tells of it."""

    again: dict[int, list[int]] = field(default_factory=dict)
    """Drill -> rows that were read again after each of its promotions."""
    under_load: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return them as a table; all stores were equal afterwards, or a test failed."""
        laps = sorted(again for drill in self.again.values() for again in drill)
        cells = {
            "Drills": str(len(self.again)),
            "Promotions": str(len(laps)),
            "Equal after": str(len(laps)),
            "Rows read again in one": f"{laps[len(laps) // 2]}, at most {laps[-1]}, of 3,000",
        }
        return one_row({**cells, **self.under_load})


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest) -> Iterator[Told]:
    failed, told = request.session.testsfailed, Told()
    yield told
    well = request.session.testsfailed == failed and len(told.again) == DRILLS
    if request.config.getoption("--record-failover") and well and told.under_load:
        replace_lines(PAGE, "proof:failover", told.lines())


@pytest.fixture(scope="module")
def failover() -> Iterator[Failover]:
    with tempfile.TemporaryDirectory(prefix="syncline-pg-") as folder:
        servers = Failover(Path(folder))
        try:
            yield servers
        finally:
            servers.stop()


@dataclass
class Site:
    """A graph whose write-db is the primary."""

    graph: TestGraph
    servers: Failover
    database: str

    async def add_standby(self) -> None:
        await self.graph.write.close()
        self.servers.add_standby()
        self.servers.caught_up()

    async def promote(self) -> None:
        """From now on the graph's write-db is what was the standby."""
        await self.graph.write.close()
        self.servers.promote()
        self.graph = replace(self.graph, **_write_db(self.servers, self.database))

    async def restart(self, *, crash: bool) -> None:
        """Start the primary again, whose write-db the graph has."""
        await self.graph.write.close()
        self.servers.restart(crash=crash)
        self.graph = replace(self.graph, **_write_db(self.servers, self.database))

    async def cycle(self) -> SyncResult:
        result = await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(self.graph.context())
        assert result.status is CycleStatus.DRAINED, result
        return result


def _write_db(servers: Failover, database: str) -> dict[str, object]:
    dsn = servers.primary.dsn(database)
    store = PostgresStore("write", SecretStr(dsn), pool_size=4, application_name="t")
    return {"write": store, "write_dsn": dsn, "kept": None}


@pytest_asyncio.fixture(loop_scope="session")
async def site(graph: TestGraph, failover: Failover, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(source_check, "SECONDS", 0.0)
    database = graph.write_dsn.split("/")[3].split("?")[0]
    failover.primary.ensure_database(database)
    # What another test has promoted tells its timeline from its own first checkpoint on.
    failover.primary.psql("CHECKPOINT")
    site = Site(replace(graph, **_write_db(failover, database)), failover, database)
    await migrate_write(site.graph.write, "kg")
    yield site
    await site.graph.write.close()


def captured(result: SyncResult) -> int:
    return sum(table.captured for table in result.tables)


async def test_promotion_reads_again_what_was_read_since_a_checkpoint(site: Site) -> None:
    await write(site.graph, SEED)
    await site.cycle()
    await write(site.graph, "UPDATE write_nodes SET concept = 'before' WHERE id = 'n1'")
    await site.cycle()
    await site.add_standby()
    site.servers.cut()
    await write(
        site.graph,
        """
        UPDATE write_nodes SET concept = 'lost', fact_ids = '{f5,f6}' WHERE id = 'n4';
        DELETE FROM write_nodes WHERE id = 'n5';
        DELETE FROM write_facts WHERE id = 'f7';
        INSERT INTO write_nodes (id, concept, parent_id) VALUES ('lost', 'lost', 'n1');
        INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type) VALUES ('lost', 'lost', 'n1', 'x');
        INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type) VALUES ('waits', 'n1', 'none', 'x');
        """,
    )
    await site.cycle()
    await site.promote()
    # Transactions that are given the same ids.
    for number in range(12):
        await write(
            site.graph, f"UPDATE write_nodes SET concept = 'new {number}' WHERE id = 'n{8 + number % 2}'"
        )
    await write(site.graph, "INSERT INTO write_nodes (id, concept) VALUES ('new', 'new')")
    result = await site.cycle()
    assert result.rewound_to is not None
    assert not result.rescanned
    assert result.rescan_reason
    assert captured(result) + result.rewound_rows < 100
    assert await differences(site.graph) == []

    # Again, from the promoted one. An open transaction divides what is kept from what is lost: the cycle passes by what is
    # kept, since a lost version hides it, or takes a delete back.
    await site.add_standby()
    await write(
        site.graph,
        "UPDATE write_nodes SET concept = 'kept' WHERE id IN ('n2', 'n6'); DELETE FROM write_nodes WHERE id = 'n3'",
    )
    slow = await site.graph.connect_write()
    await slow.execute("BEGIN; SELECT pg_current_xact_id()")
    site.servers.caught_up()
    site.servers.cut()
    await write(
        site.graph,
        "UPDATE write_nodes SET concept = 'hides' WHERE id = 'n2';"
        "INSERT INTO write_nodes (id, concept) VALUES ('n3', 'is back')",
    )
    await site.cycle()
    slow.terminate()
    await site.promote()
    # It has no time for more than to go back.
    spent = await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(site.graph.context(seconds=0.0))
    assert (spent.status, spent.rewound_to is not None) == (CycleStatus.BUDGET_SPENT, True)
    result = await site.cycle()
    assert not result.rescanned
    assert captured(result) + spent.rewound_rows < 100
    assert await differences(site.graph) == []


async def test_crash_that_loses_what_was_not_flushed_is_gone_back_from(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that is lost has hidden the one before from a cycle, which has passed that."""
    with site.servers.set("wal_writer_delay = '10s'", "autovacuum = off", "synchronous_commit = off"):
        # Nobody else flushes the log meanwhile.
        await crashes_are_gone_back_from(site, monkeypatch)


async def crashes_are_gone_back_from(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    written = source_check.write_position

    async def then_hides(*arguments: Any, **options: Any) -> object:
        token = await written(*arguments, **options)
        await write(site.graph, "UPDATE write_nodes SET concept = 'hides' WHERE id = 'n2'")
        return token

    async def read_while_hidden(concept: str) -> None:
        await write(site.graph, "UPDATE write_nodes SET concept = $1 WHERE id = 'n2'", concept)
        with monkeypatch.context() as patched:
            patched.setattr(source_check, "write_position", then_hides)
            await site.cycle()

    await write(site.graph, SEED)
    await site.cycle()
    await write(site.graph, "UPDATE write_nodes SET concept = 'before' WHERE id = 'n1'")
    await site.cycle()
    await read_while_hidden("kept")
    await site.restart(crash=True)
    assert await _concept(site) == "kept"
    result = await site.cycle()
    assert (result.rewound_to is not None, result.rescanned) == (True, False)
    assert captured(result) + result.rewound_rows < 100
    assert await differences(site.graph) == []

    # A shutdown loses nothing.
    await write(site.graph, "UPDATE write_nodes SET concept = 'later' WHERE id = 'n3'")
    await site.cycle()
    await site.restart(crash=False)
    await write(site.graph, "UPDATE write_nodes SET concept = 'latest' WHERE id = 'n3'")
    result = await site.cycle()
    assert (result.rewound_to, result.unknown, captured(result)) == (None, (), 1)

    # Without a checkpoint it is told.
    await read_while_hidden("kept too")
    await on_target(site.graph, "DELETE FROM sync_checkpoint")
    await on_target(site.graph, "UPDATE sync_state SET checkpoint_at = NULL")
    await site.restart(crash=True)
    assert await _concept(site) == "kept too"
    told = await site.cycle()
    assert (told.rewound_to, told.rescanned) == (None, False)
    assert "recovered from a crash" in " ".join(told.unknown)


async def _concept(site: Site) -> str:
    connection = await site.graph.connect_write()
    try:
        return str(await connection.fetchval("SELECT concept FROM write_nodes WHERE id = 'n2'"))
    finally:
        await connection.close()


@pytest.mark.long("test_promotion_reads_again_what_was_read_since_a_checkpoint")
async def test_what_cannot_be_told_by_a_checkpoint_is_read_again_whole(site: Site) -> None:
    """Cycles of an earlier release note nothing: one in between is noticed by its fence."""
    await write(site.graph, SEED)
    await site.cycle()
    await write(site.graph, "UPDATE write_nodes SET concept = 'before' WHERE id = 'n1'")
    await site.cycle()
    await site.add_standby()
    site.servers.cut()
    await write(site.graph, "UPDATE write_nodes SET concept = 'lost' WHERE id = 'n2'")
    await site.cycle()
    await on_target(site.graph, "UPDATE sync_state SET fence = fence + 1")
    await site.promote()
    result = await site.cycle()
    assert (result.rescanned, result.rewound_to) == (True, None)
    assert await differences(site.graph) == []


@pytest.mark.long("test_promotion_reads_again_what_was_read_since_a_checkpoint")
@pytest.mark.parametrize("seed", [1, *further(*range(2, DRILLS + 1))])
async def test_drill_of_a_promotion(site: Site, told: Told, seed: int) -> None:
    """Writers with open transactions, cycles, a cut, a promotion: at the end the stores say the same."""
    chance = random.Random(seed)
    await write(site.graph, SEED)
    await site.cycle()
    # The first checkpoint: a graph without one has nothing to go back to.
    await write(site.graph, "UPDATE write_nodes SET concept = 'before' WHERE id = 'n1'")
    await site.cycle()
    for lap in range(2):
        writers = await _writers(site)
        await _steps(site, chance, writers, chance.randint(5, 25))
        await _end(writers)
        await site.add_standby()
        writers = await _writers(site)
        await _steps(site, chance, writers, chance.randint(5, 25))
        if chance.random() < 0.5:
            site.servers.caught_up()
        site.servers.cut()
        await _steps(site, chance, writers, chance.randint(5, 40))
        if chance.random() < 0.7:
            await site.cycle()
        await _abandon(writers)
        await site.promote()
        writers = await _writers(site)
        if chance.random() < 0.5:
            await _steps(site, chance, writers, chance.randint(1, 40), cycles=False)
        result = await site.cycle()
        await _steps(site, chance, writers, chance.randint(1, 20))
        await _end(writers)
        await site.cycle()
        assert await differences(site.graph) == [], (seed, lap)
        assert not result.rescanned
        again = captured(result) + result.rewound_rows
        assert again < 1000
        told.again.setdefault(seed, []).append(again)


@pytest.mark.proof
async def test_promotion_under_500_writes_a_second(
    site: Site, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million rows at most 1 % are read again, and the stores are equal within 30 s."""
    monkeypatch.undo()
    rows = 1_000_000
    await write(
        site.graph,
        "INSERT INTO write_llm_usage (id, model_id, prompt_tokens) SELECT 'u' || i, 'm', i FROM generate_series(1, $1) i",
        rows,
    )
    await write(
        site.graph,
        "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'x' FROM generate_series(1, 2000) i",
    )
    engine, written = SyncEngine(KNOWLEDGE_GRAPH), Counter[str]()
    await engine.run_cycle(site.graph.context())
    await site.add_standby()
    lost = asyncio.create_task(_load(site.graph, rows, seconds=25, done=written))
    began = time.monotonic()
    await _cycles(engine, site, seconds=20)
    rate = written.total() / (time.monotonic() - began)
    # Asynchronous replication: what is committed now is lost, and synced before.
    site.servers.cut()
    await _cycles(engine, site, seconds=3)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    await site.promote()
    promoted = time.monotonic()
    load = asyncio.create_task(_load(site.graph, rows, seconds=600))
    result = await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(site.graph.context())
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)
    await site.cycle()
    context = site.graph.context()
    found = await verify(
        KNOWLEDGE_GRAPH,
        write=context.write,
        target=context.target,
        vectors=context.vectors,
        embedding=context.embedding.name,
    )
    took = time.monotonic() - promoted
    again = captured(result) + result.rewound_rows
    told.under_load = {
        "Under load: rows": f"{rows:,}",
        "Writes a second": f"{rate:.0f} of 500",
        "Read again": f"{again:,}",
        "Equal after the promotion": f"{took:.1f} s",
    }
    structlog.get_logger().info("promoted under load", **told.under_load)
    assert not result.rescanned
    assert again <= rows / 100
    assert not [relation for relation in found.relations if relation.damaged or relation.problem]
    assert took < 30


async def _load(graph: TestGraph, rows: int, *, seconds: float, done: Counter[str] | None = None) -> None:
    """Write 500 times a second, each time in a transaction: inserts, updates and deletes; count them in `done`."""
    chance = random.Random(rows)
    connection = await graph.connect_write()
    began, writes = time.monotonic(), 0
    try:
        while time.monotonic() - began < seconds:
            while writes < 500 * (time.monotonic() - began):
                key, what = f"u{chance.randint(1, rows)}", chance.random()
                if what < 0.4:
                    await connection.execute(
                        "UPDATE write_llm_usage SET prompt_tokens = $2 WHERE id = $1", key, writes
                    )
                elif what < 0.5:
                    await connection.execute("DELETE FROM write_llm_usage WHERE id = $1", key)
                elif what < 0.9:
                    await connection.execute(
                        "INSERT INTO write_llm_usage (id, model_id) VALUES (gen_random_uuid(), 'x')"
                    )
                else:
                    await connection.execute(
                        "INSERT INTO write_nodes (id, concept) VALUES ($1, 'x') ON CONFLICT DO NOTHING", key
                    )
                writes += 1
                if done is not None:
                    done["written"] += 1
            await asyncio.sleep(0.01)
    finally:
        connection.terminate()


async def _cycles(engine: SyncEngine, site: Site, *, seconds: float) -> None:
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        await engine.run_cycle(site.graph.context())
        await asyncio.sleep(0.3)


async def _writers(site: Site) -> list[Writer]:
    return [Writer(await site.graph.connect_write(), number) for number in range(WRITERS)]


async def _steps(
    site: Site, chance: random.Random, writers: list[Writer], number: int, *, cycles: bool = True
) -> None:
    for _ in range(number):
        writer, table, key = chance.choice(writers), chance.choice(TABLES), chance.randrange(KEYS)
        what = chance.random()
        if what < 0.5:
            refers = (chance.randrange(9), chance.randrange(9), chance.randrange(9))
            await writer.put(table, key, refers, chance.random() < 0.5)
        elif what < 0.65:
            await writer.delete(table, key)
        elif what < 0.85 or not cycles:
            await writer.end(commit=chance.random() < 0.8)
        else:
            await site.cycle()


async def _end(writers: list[Writer]) -> None:
    for writer in writers:
        await writer.end(commit=True)
        await writer.close()


async def _abandon(writers: list[Writer]) -> None:
    for writer in writers:
        writer.terminate()
