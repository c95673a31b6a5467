"""A graph's second embedding model: both generations are kept in step, and neither waits for the other."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from syncline.embeddings.openai import OpenAIEmbedding
from syncline.engine import SchemaMap, SyncEngine, run_cycle
from syncline.engine.keys import key_uuid
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.vectors import drain as drain_module
from syncline.engine.vectors.generations import Generations
from syncline.engine.vectors.live_alias import LiveAlias
from syncline.engine.vectors.outbox import Entry, Outbox, Settled
from syncline.errors import CycleFenced, EmbeddingDiffers, StoreUnavailable, VectorStoreUnavailable
from syncline.messages.sync import CycleStatus, SecondVectors, SyncResult
from syncline.migrations import migrate_bookkeeping
from syncline.operator.explain import explain
from syncline.operator.second_model import (
    drop_second,
    generations_of,
    make_second_main,
    mark_switched,
    start_second,
)
from syncline.provider import RetryRules, SyncContext
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.testing.graphs import TestGraph, write
from syncline.testing.lab import eventually
from syncline.testing.one_graph import on_target, read
from syncline.verify.verify import SecondGraphVectors, verify
from tests.integration.test_visible import NODE, said, written
from tests.kit.faulty_http import Answer
from tests.kit.vector_services import DIMENSIONS, EmbeddingServer, QdrantServer

LARGE = DIMENSIONS + 4
AT_ONCE = RetryRules(vector_seconds=0, dead_letter_seconds=0)


@dataclass
class Change:
    """A graph whose model changes, and the two services."""

    graph: TestGraph
    first: EmbeddingServer
    second: EmbeddingServer
    services: tuple[OpenAIEmbedding, OpenAIEmbedding]

    def context(self, *, both: bool = True) -> SyncContext:
        context = replace(self.graph.context(), retry=AT_ONCE)
        return replace(context, second_embedding=self.services[1]) if both else context

    async def cycle(self, *, both: bool = True) -> SyncResult:
        return await run_cycle(self.context(both=both))

    async def start(self) -> Generations:
        return await start_second(self.context().target, KNOWLEDGE_GRAPH)

    async def points(self, name: str) -> dict[UUID, dict[str, object]]:
        pages = [page async for page in self.graph.vectors.scroll(name)]
        return {point.id: dict(point.payload) for page in pages for point in page}

    async def both(self) -> tuple[dict[UUID, dict[str, object]], dict[UUID, dict[str, object]]]:
        return await self.points("kg_nodes"), await self.points("kg_nodes.2")

    async def owed(self) -> dict[str, int]:
        rows = await read(self.graph, "SELECT collection, count(*) FROM sync_outbox GROUP BY 1")
        return {row["collection"]: row["count"] for row in rows}


def second_of(result: SyncResult) -> SecondVectors:
    assert result.vectors.second is not None
    return result.vectors.second


async def filled(change: Change) -> bool:
    """Return whether the second generation has owed nothing once."""
    second = (await generations_of(change.context().target)).second
    return second is not None and second.filled_at is not None


@pytest.fixture
def servers() -> Iterator[tuple[EmbeddingServer, EmbeddingServer]]:
    with EmbeddingServer() as first, EmbeddingServer() as second:
        second.dimensions = LARGE
        yield first, second


@pytest.fixture
def qdrant() -> Iterator[QdrantServer]:
    with QdrantServer() as server:
        yield server


@pytest.fixture
async def embedded(
    graph: TestGraph, servers: tuple[EmbeddingServer, EmbeddingServer]
) -> AsyncIterator[Change]:
    """Five nodes are synced; the model is to change."""
    first, second = servers
    services = (
        OpenAIEmbedding(first.url, "small", DIMENSIONS, timeout_seconds=5),
        OpenAIEmbedding(second.url, "large", LARGE, timeout_seconds=5),
    )
    graph.embedding = services[0]
    await write_nodes(graph, 1, 5)
    yield Change(graph, first, second, services)
    for service in services:
        await service.close()


@pytest.fixture(params=["embedded", "served"])
async def change(
    request: pytest.FixtureRequest, embedded: Change, qdrant: QdrantServer
) -> AsyncIterator[Change]:
    """The same over each kind of vector store."""
    if request.param == "embedded":
        yield embedded
        return
    local, store = embedded.graph.vectors, QdrantServerStore("qdrant", qdrant.url, None, 5)
    embedded.graph.vectors = store
    yield embedded
    embedded.graph.vectors = local
    await store.close()


async def write_nodes(graph: TestGraph, first: int, last: int) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'node ' || i"
        " FROM generate_series($1::int, $2::int) i",
        first,
        last,
    )


async def test_a_second_generation_is_filled_in_the_transaction_of_its_last_point(
    embedded: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedded.cycle()
    await embedded.start()
    real = Outbox.settle

    async def dies_after_it(outbox: Outbox, settled: Settled) -> object:
        await real(outbox, settled)
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "settle", dies_after_it)
        with pytest.raises(asyncio.CancelledError):
            await embedded.cycle()
    await embedded.graph.wait_until_free()
    # No later cycle has a reason to look.
    assert (await embedded.cycle()).idle
    assert await filled(embedded)


@pytest.mark.long(after=1)
async def test_both_generations_follow_every_change_and_each_text_is_paid_once_per_model(
    change: Change,
) -> None:
    await change.cycle()
    started = await change.start()
    assert (started.main, started.second and started.second.generation) == (1, 2)
    assert await change.start() == started
    result = await change.cycle()
    assert result.status is CycleStatus.DRAINED
    assert (result.vectors.upserted, result.vectors.embedded) == (0, 0)
    assert second_of(result) == SecondVectors(upserted=5, embedded=5)
    assert await filled(change)
    assert (await generations_of(change.context().target)).live == 1
    await write(change.graph, "UPDATE write_nodes SET concept = 'other' WHERE id = 'n1'")
    await write(change.graph, "UPDATE write_nodes SET node_type = 'event' WHERE id = 'n2'")
    await write(change.graph, "DELETE FROM write_nodes WHERE id = 'n3'")
    await write_nodes(change.graph, 6, 6)
    result = await change.cycle()
    assert (result.vectors.upserted, result.vectors.deleted, result.vectors.embedded) == (3, 1, 2)
    assert second_of(result) == SecondVectors(upserted=3, deleted=1, embedded=2)
    main, second = await change.both()
    assert main == second
    assert len(main) == 5
    assert main[key_uuid("n1")]["concept"] == "other"
    texts = {f"node {number}" for number in range(1, 7)} | {"other"}
    for server in (change.first, change.second):
        assert dict(server.embedded) == dict.fromkeys(texts, 1)
    assert await change.graph.vectors.aliases() == {"kg_nodes.live": "kg_nodes"}
    idle = await change.cycle()
    assert (idle.vectors.second, idle.owes) == (None, False)


async def test_a_worker_without_the_second_service_writes_the_main_vectors_and_says_why_no_others(
    embedded: Change,
) -> None:
    await embedded.cycle()
    await embedded.start()
    await embedded.cycle(both=False)
    assert not await filled(embedded)
    await embedded.cycle()
    assert await filled(embedded)
    await write_nodes(embedded.graph, 6, 6)
    result = await embedded.cycle(both=False)
    assert (result.status, result.vectors.embedded, result.vectors.error) == (CycleStatus.DRAINED, 1, None)
    second = second_of(result)
    assert (second.embedded, second.pending) == (0, 1)
    assert second.error is not None
    assert second.error.startswith(f"{EmbeddingDiffers.__name__}: ")
    assert "SYNCLINE_SECOND_EMBEDDING" in second.error
    # Not a delay: another worker may have it.
    assert second_of(await embedded.cycle()).embedded == 1


@pytest.mark.long(after=1)
@pytest.mark.parametrize("which", ["first", "second"])
async def test_a_text_that_one_model_refuses_is_of_that_model_alone(embedded: Change, which: str) -> None:
    server = embedded.first if which == "first" else embedded.second
    server.refuses = lambda text: text == "node 2"
    result = await embedded.cycle()
    await embedded.start()
    result = await embedded.cycle()
    second = second_of(result)
    refused = {"first": result.vectors.refused, "second": second.refused}
    assert refused == {"first": 0, "second": 0, which: 1}
    main, others = await embedded.both()
    assert {"first": len(main), "second": len(others)} == {"first": 5, "second": 5, which: 4}
    server.refuses = lambda text: False
    await write(embedded.graph, "UPDATE write_nodes SET concept = 'better' WHERE id = 'n2'")
    await embedded.cycle()
    main, others = await embedded.both()
    assert main == others
    assert len(main) == 5


@pytest.mark.long(after=1)
@pytest.mark.parametrize("which", ["first", "second"])
async def test_a_service_that_is_away_delays_its_own_generation(embedded: Change, which: str) -> None:
    await embedded.cycle()
    await embedded.start()
    await embedded.cycle()
    server = embedded.first if which == "first" else embedded.second
    server.failing = Answer(503, b"{}")
    await write_nodes(embedded.graph, 6, 6)
    result = await embedded.cycle()
    second = second_of(result)
    assert {"first": result.vectors.embedded, "second": second.embedded} == {
        "first": 1,
        "second": 1,
        which: 0,
    }
    errors = {"first": result.vectors.error, "second": second.error}
    assert [name for name, error in errors.items() if error is not None] == [which]
    # What readers do not look at is no delay of theirs.
    late, fine = CycleStatus.VECTORS_DELAYED, CycleStatus.DRAINED
    assert result.status is (late if which == "first" else fine)
    await mark_switched(embedded.context().target, switched=True)
    assert (await embedded.cycle()).status is late
    server.failing = None
    await embedded.cycle()
    main, others = await embedded.both()
    assert (main == others, len(main)) == (True, 6)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("step", ["mark_unconfirmed", "settle", "resolve"])
async def test_a_cycle_that_dies_in_the_second_generation_is_repeated_there_alone(
    change: Change, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change.cycle()
    await change.start()
    real = getattr(Outbox, step)

    async def dies(outbox: Outbox, *arguments: object, **named: object) -> object:
        if outbox.collection == "nodes@second":
            raise asyncio.CancelledError
        return await real(outbox, *arguments, **named)

    monkeypatch.setattr(Outbox, step, dies)
    with pytest.raises(asyncio.CancelledError):
        await change.cycle()
    monkeypatch.setattr(Outbox, step, real)
    await change.graph.wait_until_free()
    result = await change.cycle()
    assert (result.vectors.upserted, second_of(result).upserted) == (0, 5)
    main, second = await change.both()
    assert main == second
    # What was paid for and not written was kept.
    assert set(change.second.embedded.values()) == {1}


@pytest.mark.long(after=2)
@pytest.mark.parametrize("lost", ["kg_nodes", "kg_nodes.2"])
@pytest.mark.parametrize("switched", [False, True])
async def test_a_collection_that_is_lost_is_built_again_by_its_own_model_and_gets_its_alias(
    change: Change, lost: str, switched: bool
) -> None:
    await change.cycle()
    await change.start()
    await change.cycle()
    live = "kg_nodes.2" if switched else "kg_nodes"
    await change.graph.vectors.set_aliases({"kg_nodes.live": live})
    await mark_switched(change.context().target, switched=switched)
    await change.graph.vectors.drop_collection(lost)
    await write(change.graph, "UPDATE write_nodes SET node_type = 'event' WHERE id = 'n2'")
    result = await change.cycle()
    rebuilt = (result.vectors.rebuilt, second_of(result).rebuilt)
    assert rebuilt == (((), ("nodes",)) if lost.endswith(".2") else (("nodes",), ()))
    await change.cycle()
    main, second = await change.both()
    assert (main == second, len(main)) == (True, 5)
    assert await change.graph.vectors.aliases() == {"kg_nodes.live": live}
    kept = change.first if lost.endswith(".2") else change.second
    assert set(kept.embedded.values()) == {1}


async def test_a_cycle_that_ends_between_a_collection_and_its_alias_is_followed_by_one_that_makes_it(
    embedded: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedded.cycle()
    await embedded.graph.vectors.drop_collection("kg_nodes")
    await write_nodes(embedded.graph, 6, 6)

    async def ends(*_: object, **__: object) -> None:
        # As if another collection, which is drained at the same time, had found the graph taken.
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(LiveAlias, "keep", ends)
        with pytest.raises(asyncio.CancelledError):
            await embedded.cycle()
    await embedded.graph.wait_until_free()
    assert (await embedded.cycle()).vectors.rebuilt == ("nodes",)
    assert await embedded.graph.vectors.aliases() == {"kg_nodes.live": "kg_nodes"}


@pytest.mark.long(after=2)
@pytest.mark.parametrize("what", ["an idle cycle", "a change", "the second is looked at"])
async def test_an_alias_that_somebody_deleted_is_made_again_by_the_next_cycle(
    change: Change, what: str, qdrant: QdrantServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.engine.vectors.live_alias._SEEN_FOR", 0.0)
    await change.cycle()
    live = "kg_nodes"
    if what == "the second is looked at":
        await change.start()
        await change.cycle()
        await mark_switched(change.context().target, switched=True)
        live = "kg_nodes.2"
    store = change.graph.vectors
    await store.set_aliases({"kg_nodes.live": live})
    qdrant.aliases.clear()
    if isinstance(store, EmbeddedQdrantStore):
        store._aliases.change(lambda _: {})
    assert await store.aliases() == {}
    if what == "a change":
        await write_nodes(change.graph, 6, 6)
    await change.cycle()
    assert await store.aliases() == {"kg_nodes.live": live}


QUEUE = "INSERT INTO kg.sync_outbox (collection, point_id) SELECT 'nodes', id FROM kg.nodes"


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    "queued",
    [
        QUEUE,
        f"{QUEUE} ON CONFLICT DO NOTHING",
        f"{QUEUE} ON CONFLICT (collection, point_id) DO UPDATE SET seq = excluded.seq, error = NULL",
        f"WITH gone AS (DELETE FROM kg.sync_vector WHERE collection = 'nodes') {QUEUE}",
    ],
)
async def test_whoever_queues_by_plain_sql_queues_for_both(embedded: Change, queued: str) -> None:
    await embedded.cycle()
    await embedded.start()
    await embedded.cycle()
    await on_target(embedded.graph, "UPDATE kg.nodes SET node_type = 'by hand'")
    connection = await asyncpg.connect(embedded.graph.target_dsn)  # another search_path
    for _ in range(2 if "ON CONFLICT" in queued else 1):
        await connection.execute(queued)
    await connection.close()
    assert await embedded.owed() == {"nodes": 5, "nodes@second": 5}
    result = await embedded.cycle()
    assert second_of(result).embedded == 0
    main, second = await embedded.both()
    assert main == second
    assert {point["node_type"] for point in second.values()} == {"by hand"}


async def test_an_entry_that_is_queued_again_while_it_waits_is_read_again_by_both(embedded: Change) -> None:
    await embedded.cycle()
    await embedded.start()
    embedded.first.failing = Answer(503, b"{}")
    await write(embedded.graph, "UPDATE write_nodes SET concept = 'one' WHERE id = 'n1'")
    await embedded.cycle()
    assert await embedded.owed() == {"nodes": 1}
    # The main one still has its entry: it changes, and the second, which had none left, gets one.
    await write(embedded.graph, "UPDATE write_nodes SET concept = 'two' WHERE id = 'n1'")
    await embedded.cycle()
    assert (await embedded.points("kg_nodes.2"))[key_uuid("n1")]["concept"] == "two"
    embedded.first.failing = None
    await embedded.cycle()
    main, second = await embedded.both()
    assert main == second


@pytest.mark.long(after=1)
async def test_the_second_becomes_the_main_one_in_one_step_and_again_changes_nothing(change: Change) -> None:
    await change.cycle()
    started = await change.start()
    await change.cycle()
    target = change.context().target
    await write_nodes(change.graph, 6, 6)
    change.second.refuses = lambda text: text == "node 6"
    await change.cycle()
    done = await make_second_main(target)
    assert (done.main, done.second) == (2, None)
    assert await make_second_main(target) == done
    assert started.second is not None
    await change.graph.vectors.drop_collection("kg_nodes")
    rows = await read(
        change.graph,
        "SELECT DISTINCT collection FROM sync_vector UNION SELECT collection FROM sync_outbox"
        " UNION SELECT collection FROM sync_vector_embedding UNION SELECT name FROM sync_count"
        " WHERE counted = 'sync_outbox' AND entries > 0",
    )
    assert [row["collection"] for row in rows] == ["nodes"]
    # Its refused point is the main one's, and heals; nothing is embedded twice.
    change.second.refuses = lambda text: False
    await write(change.graph, "UPDATE write_nodes SET node_type = 'event' WHERE id = 'n6'")
    before = change.second.embedded.copy()
    result = await change.cycle()
    assert (result.vectors.embedded, result.vectors.second) == (1, None)
    assert change.second.embedded - before == {"node 6": 1}
    assert len(await change.points("kg_nodes.2")) == 6
    assert await change.points("kg_nodes") == {}
    found = await verify(
        KNOWLEDGE_GRAPH,
        write=change.context().write,
        target=target,
        vectors=change.context().vectors.of_generation(2),
        embedding=change.services[1].name,
    )
    assert [relation.name for relation in found.relations if relation.damaged] == []
    # The next one is the third, also while the record of the second stays.
    third = await change.start()
    assert third.second is not None
    assert (third.main, third.second.generation) == (2, 3)


async def test_a_second_generation_that_is_dropped_leaves_nothing_and_no_number_is_used_again(
    embedded: Change,
) -> None:
    await embedded.cycle()
    await embedded.start()
    await embedded.cycle()
    target = embedded.context().target
    await write_nodes(embedded.graph, 6, 6)
    for _ in range(2):
        dropped = await drop_second(target)
        assert (dropped.main, dropped.second) == (1, None)
    rows = await read(embedded.graph, "SELECT count(*) FROM sync_vector WHERE collection LIKE '%@%'")
    assert rows[0]["count"] == 0
    result = await embedded.cycle()
    assert (result.vectors.embedded, result.vectors.second) == (1, None)
    again = await embedded.start()
    assert again.second is not None
    assert again.second.generation == 3


async def test_the_fill_takes_a_part_of_the_time_and_fresh_rows_pass_it(
    embedded: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "_SECOND_SECONDS", 0.0)
    monkeypatch.setattr("syncline.engine.vectors.collection_drain._ROWS", 1)
    await embedded.cycle()
    await embedded.start()
    landed: list[set[str]] = []

    def fresh(texts: list[str]) -> None:
        landed.append(set(embedded.first.embedded))

    embedded.second.before = fresh
    context = replace(embedded.context(), budget=replace(embedded.context().budget, seconds=0.5))
    result = await run_cycle(context)
    assert result.status is CycleStatus.BUDGET_SPENT
    assert result.look_owed
    assert not await filled(embedded)
    monkeypatch.undo()
    await write_nodes(embedded.graph, 6, 6)
    result = await embedded.cycle()
    assert "node 6" in landed[-1]
    assert (result.status, second_of(result).pending) == (CycleStatus.DRAINED, 0)


async def test_an_alias_that_may_not_be_set_is_told_once_and_vectors_are_written(
    embedded: Change, qdrant: QdrantServer
) -> None:
    denied = Answer(403, b'{"status": {"error": "Forbidden: Global manage access is required"}}')
    qdrant.before = lambda request: denied if "aliases" in request.path else None
    local, store = embedded.graph.vectors, QdrantServerStore("qdrant", qdrant.url, None, 5)
    embedded.graph.vectors = store
    with capture_logs() as logs:
        for number in (6, 7):
            await write_nodes(embedded.graph, number, number)
            assert (await embedded.cycle()).vectors.error is None
    told = [line for line in logs if line["event"] == "alias of a collection not made"]
    assert [(line["alias"], line["log_level"]) for line in told] == [("kg_nodes.live", "warning")]
    assert "global access `m`" in told[0]["fix"]
    assert len(qdrant.collections["kg_nodes"]) == 7
    embedded.graph.vectors = local
    await store.close()


async def test_a_comparison_says_which_generation_differs_and_a_repair_mends_that_one(
    embedded: Change,
) -> None:
    await embedded.cycle()
    await embedded.start()
    await embedded.cycle()
    await embedded.graph.vectors.delete("kg_nodes.2", [key_uuid("n1")])
    context = embedded.context()

    async def compared(*, repair: bool = False) -> dict[str, int]:
        found = await verify(
            KNOWLEDGE_GRAPH,
            write=context.write,
            target=context.target,
            vectors=context.vectors,
            embedding=embedded.services[0].name,
            second=SecondGraphVectors(
                vectors=context.vectors.of_generation(2), embedding=embedded.services[1].name
            ),
            tables=["nodes"],
            repair=repair,
            who="ada",
            why="a point is missing",
        )
        return {relation.name: relation.damaged for relation in found.relations if relation.kind == "vectors"}

    assert await compared(repair=True) == {"nodes": 0, "nodes@second": 1}
    assert await embedded.owed() == {"nodes@second": 1}
    explained = await explain(
        context.write, context.target, context.vectors, KNOWLEDGE_GRAPH, table="nodes", key=["n1"]
    )
    assert explained.second is not None
    assert (explained.vector is not None and explained.vector.point, explained.second.point) == (True, False)
    assert "its second vector is queued" in explained.verdict
    await embedded.cycle()
    assert await compared() == {"nodes": 0, "nodes@second": 0}


async def test_an_idle_cycle_asks_as_much_as_without_a_second_model(embedded: Change) -> None:
    await embedded.cycle()
    asked: list[str] = []
    async with embedded.graph.target.driver() as connection:
        connection.add_query_logger(lambda record: asked.append(record.query))

    async def idle() -> int:
        asked.clear()
        assert (await embedded.cycle()).idle
        return len(asked)

    before = await idle()
    await embedded.start()
    await embedded.cycle()
    assert await idle() == before


async def test_a_worker_that_is_newer_than_the_bookkeeping_tables_knows_of_one_generation(
    embedded: Change,
) -> None:
    await on_target(
        embedded.graph,
        "DROP TRIGGER sync_second_added ON sync_outbox; DROP TRIGGER sync_second_changed ON sync_outbox;"
        " DROP TABLE sync_second; ALTER TABLE sync_state DROP vector_generation, DROP vector_generations",
    )
    result = await embedded.cycle()
    assert (result.status, result.vectors.embedded) == (CycleStatus.DRAINED, 5)
    assert await generations_of(embedded.context().target) == Generations()
    assert await embedded.graph.vectors.aliases() == {"kg_nodes.live": "kg_nodes"}


@pytest.mark.long(after=1)
@pytest.mark.parametrize("step", ["start", "drop", "main"])
async def test_whoever_queues_meanwhile_queues_for_as_many_generations_as_there_are(
    embedded: Change, step: str
) -> None:
    await embedded.cycle()
    if step != "start":
        await embedded.start()
        await embedded.cycle()
    target = embedded.context().target
    writer = await embedded.graph.connect_target()
    writing = writer.transaction()
    await writing.start()
    await writer.execute(
        "UPDATE nodes SET concept = 'by hand' WHERE key = 'n1';"
        " INSERT INTO sync_outbox (collection, point_id) SELECT 'nodes', id FROM nodes WHERE key = 'n1'"
    )
    steps = {
        "start": embedded.start,
        "drop": lambda: drop_second(target),
        "main": lambda: make_second_main(target),
    }
    pid = writer.get_server_pid()
    deciding = asyncio.create_task(steps[step]())
    await eventually(lambda: waits_for(embedded.graph, pid))
    await writing.commit()
    await writer.close()
    await deciding
    expected = {"start": {"nodes": 1, "nodes@second": 5}, "drop": {"nodes": 1}, "main": {"nodes": 1}}
    assert await embedded.owed() == expected[step]
    await embedded.cycle()
    assert await embedded.owed() == {}
    for name in {"start": ("kg_nodes", "kg_nodes.2"), "drop": ("kg_nodes",), "main": ("kg_nodes.2",)}[step]:
        assert (await embedded.points(name))[key_uuid("n1")]["concept"] == "by hand"


async def waits_for(graph: TestGraph, pid: int) -> bool:
    """Return whether a session waits for this one."""
    query = "SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"
    return bool(await read(graph, query, pid))


async def test_a_point_that_only_the_second_has_goes_with_a_row_that_left_while_its_collection_was_out(
    embedded: Change,
) -> None:
    embedded.first.refuses = lambda text: text == "node 2"
    await embedded.cycle()
    await embedded.start()
    await embedded.cycle()
    tables = [replace(table, vector=None) if table.name == "nodes" else table for table in KNOWLEDGE_GRAPH]
    without = SyncEngine(SchemaMap(name=KNOWLEDGE_GRAPH.name, tables=tuple(tables)))
    await without.run_cycle(embedded.context())
    await write(embedded.graph, "DELETE FROM write_nodes WHERE id = 'n2'")
    await without.run_cycle(embedded.context())
    await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(embedded.context())
    main, second = await embedded.both()
    assert (len(main), main == second) == (4, True)


async def test_each_step_waits_for_the_cycle_and_ends_what_it_could_commit(
    embedded: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedded.cycle()
    target, graph = embedded.context().target, embedded.graph
    monkeypatch.setattr("syncline.operator.second_model._PATIENCE", "50ms")
    holder = await graph.connect_target()
    fences = []
    for step in (
        embedded.start,
        lambda: drop_second(target),
        embedded.start,
        lambda: make_second_main(target),
    ):
        await holder.execute("SELECT pg_advisory_lock(hashtextextended('syncline:kg', 0))")
        with pytest.raises(StoreUnavailable, match="a cycle"):
            await step()
        await holder.execute("SELECT pg_advisory_unlock_all()")
        await step()
        fences.append((await read(graph, "SELECT fence FROM sync_state"))[0]["fence"])
    await holder.close()
    assert [fence - fences[0] for fence in fences] == [0, 1, 2, 3]


async def test_a_superseded_cycle_writes_nothing_of_the_second_generation(
    embedded: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedded.cycle()
    await embedded.start()
    real = Outbox.mark_unconfirmed

    async def taken_over(outbox: Outbox, *, gone: Iterable[Entry], changed: Iterable[Entry]) -> None:
        await real(outbox, gone=gone, changed=changed)
        await on_target(embedded.graph, "UPDATE sync_state SET fence = fence + 1")

    monkeypatch.setattr(Outbox, "mark_unconfirmed", taken_over)
    with pytest.raises(CycleFenced):
        await embedded.cycle()
    main, second = await embedded.both()
    assert (len(main), second) == (5, {})


async def test_a_store_that_is_away_is_asked_once_for_both_generations(
    embedded: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedded.cycle()
    await embedded.start()
    asked: list[str] = []

    async def away(collection: str, **_: object) -> bool:
        asked.append(collection)
        raise VectorStoreUnavailable("vectors", "it is away")

    monkeypatch.setattr(embedded.graph.vectors, "ensure_collection", away)
    await write_nodes(embedded.graph, 6, 6)
    result = await embedded.cycle()
    assert asked == ["kg_nodes"]
    assert (result.vectors.pending, second_of(result).pending) == (1, 6)
    assert "it is away" in str(second_of(result).error)


async def test_vectors_of_a_token_are_those_of_the_generation_that_readers_look_at(embedded: Change) -> None:
    await embedded.cycle()
    await embedded.start()
    await embedded.cycle()
    target = embedded.context().target
    embedded.second.failing = Answer(503, b"{}")
    token = await written(embedded.graph, (NODE, "n1", "other"))
    await embedded.cycle()
    assert (await said(embedded.graph, token)).vectors
    await mark_switched(target, switched=True)
    waits = await said(embedded.graph, token)
    assert (waits.visible, waits.vectors) == (True, False)
    assert "nodes@second is delayed" in str(waits.reason)
    await make_second_main(target)
    assert not (await said(embedded.graph, token)).vectors
    embedded.second.failing = None
    await embedded.cycle()
    assert (await said(embedded.graph, token)).vectors


async def test_entries_of_a_generation_that_there_is_not_go(embedded: Change) -> None:
    await on_target(
        embedded.graph,
        "INSERT INTO sync_outbox (collection, point_id) VALUES ('nodes@second', gen_random_uuid())",
    )
    result = await embedded.cycle()
    assert (result.vectors.second, await embedded.owed()) == (None, {})
    assert not (await embedded.cycle()).owes


@pytest.mark.long("test_whoever_queues_by_plain_sql_queues_for_both")
async def test_roles_that_may_queue_points_may_do_so_after_the_migration(embedded: Change) -> None:
    role = f"plugin_{uuid4().hex[:8]}"
    await on_target(
        embedded.graph,
        "DROP TABLE sync_second, sync_owed, sync_made, sync_checkpoint, sync_recent, sync_absent, sync_range; DROP FUNCTION sync_keep_second CASCADE;"
        " ALTER TABLE sync_state DROP vector_generation, DROP vector_generations, DROP visible, DROP visible_clean,"
        " DROP load_below, DROP load_due_at, DROP checkpoint_at, DROP noted_fence, DROP lanes_after; ALTER TABLE sync_cursor DROP below;"
        " ALTER TABLE sync_run DROP position; ALTER TABLE sync_comparison DROP seen, DROP withheld;"
        " DROP TABLE sync_visible; DROP SEQUENCE sync_wanted;"
        " DROP INDEX sync_parked_row_version, sync_dead_letter_version;"
        " UPDATE sync_engine_version SET version_num = 'engine_0003';"
        f" CREATE ROLE {role}; GRANT USAGE ON SCHEMA kg TO {role}; GRANT SELECT ON nodes TO {role};"
        f" GRANT INSERT ON sync_outbox TO {role}; GRANT USAGE ON SEQUENCE sync_outbox_seq_seq TO {role};"
        f" GRANT SELECT, INSERT, UPDATE ON sync_count TO {role}",
    )
    await embedded.cycle()
    target = embedded.context().target
    assert await migrate_bookkeeping(target.store, target.schema) == [
        "engine_0004",
        "engine_0005",
        "engine_0006",
        "engine_0007",
        "engine_0008",
        "engine_0009",
        "engine_0010",
    ]
    queue = f"SET ROLE {role}; INSERT INTO sync_outbox SELECT 'nodes', id FROM nodes; RESET ROLE"
    connection = await embedded.graph.connect_target()
    await connection.execute(queue)
    assert await embedded.owed() == {"nodes": 5}
    await embedded.cycle()
    # Also while there are entries of a second generation, which that role may not change.
    await embedded.start()
    await connection.execute(queue)
    assert await embedded.owed() == {"nodes": 5, "nodes@second": 5}
    await connection.execute(f"SET ROLE {role}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(
            "CREATE TEMP TABLE mine (i int);"
            " CREATE TRIGGER mine AFTER INSERT ON mine EXECUTE FUNCTION kg.sync_keep_second()"
        )
    await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    await connection.close()


@pytest.mark.parametrize("why", ["a refused text", "a delay"])
async def test_a_second_generation_that_only_waits_is_left_as_it_is(embedded: Change, why: str) -> None:
    await embedded.cycle()
    await embedded.start()
    # Another collection, which owes nothing, was made with the second model too.
    await on_target(
        embedded.graph, "INSERT INTO sync_vector_embedding VALUES ('facts@second', 'openai-large-12')"
    )
    if why == "a delay":
        embedded.second.failing = Answer(503, b"{}")
    embedded.second.refuses = lambda text: text == "node 2"
    context = replace(embedded.context(), retry=RetryRules())
    await run_cycle(context)
    made = "SELECT collection, embedding FROM sync_vector_embedding ORDER BY 1"
    before = await read(embedded.graph, made), embedded.first.embedded.copy(), await embedded.both()
    with capture_logs() as logs:
        result = await run_cycle(context)
    assert "embedding service changed, all points are embedded again" not in [line["event"] for line in logs]
    owed = (second_of(result).refused, second_of(result).pending)
    assert owed == ((1, 0) if why == "a refused text" else (0, 5))
    assert (await read(embedded.graph, made), embedded.first.embedded, await embedded.both()) == before
