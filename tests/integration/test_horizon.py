"""The horizon: what runs in other databases of the cluster does not hold it back, whatever this database's own does."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest
from pydantic import SecretStr

from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, capture, news, run_cycle
from syncline.engine import visible as engine_visible
from syncline.engine.capture import Pending
from syncline.engine.news import look_for_news
from syncline.engine.render import statements as rendered
from syncline.engine.render.statements import SchemaStatements
from syncline.provider import GraphSchema, RetryRules
from syncline.stores.horizon import HORIZON, NEXT_TRANSACTION
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.one_graph import session
from syncline.testing.truth import differences

NODE = "INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')"
XID = "SELECT pg_current_xact_id()::text::bigint"
MOMENT = f"SELECT {HORIZON}::text::bigint AS horizon, pg_current_snapshot()::text AS snapshot"
SERVER_WIDE = "pg_snapshot_xmin(pg_current_snapshot())"
"""The horizon of workers before this one was."""


@asynccontextmanager
async def elsewhere(graph: TestGraph) -> AsyncIterator[int]:
    """Hold a transaction that writes open in another database of the write-db's cluster; yield its id."""
    other = await asyncpg.connect(graph.write_dsn, database="postgres")
    try:
        async with other.transaction():
            yield await other.fetchval(XID)
    finally:
        await other.close()


def noted(monkeypatch: pytest.MonkeyPatch, then: Callable[[SchemaStatements], None]) -> list[Pending]:
    """Return what cycles find pending from now on; `then` is called after each question."""
    asked: list[Pending] = []
    ask = capture.pending_at

    async def pending_at(
        source: object, statements: SchemaStatements, *given: object, **named: object
    ) -> Pending:
        asked.append(await ask(source, statements, *given, **named))  # type: ignore[arg-type]
        then(statements)
        return asked[-1]

    monkeypatch.setattr(capture, "pending_at", pending_at)
    return asked


@pytest.mark.parametrize("role", ["postgres", "onlooker"])
async def test_a_transaction_of_another_database_holds_nothing_back(graph: TestGraph, role: str) -> None:
    """A role without rights over other sessions sees whose they are all the same."""
    admin = await graph.connect_write()
    await admin.execute(
        "DROP ROLE IF EXISTS onlooker; CREATE ROLE onlooker LOGIN;"
        "GRANT USAGE ON SCHEMA kg TO onlooker; GRANT SELECT ON ALL TABLES IN SCHEMA kg TO onlooker"
    )
    dsn = SecretStr(graph.write_dsn.replace("postgres@", f"{role}@"))
    store = PostgresStore("write", dsn, pool_size=2, application_name="onlooker")
    context = replace(graph.context(), write=GraphSchema(store=store, schema="kg"))
    try:
        async with elsewhere(graph), admin.transaction():
            await admin.execute(NODE, "held")
            await write(graph, NODE, "later")
            result = await run_cycle(context)
            assert (result.rows, result.oldest_writer is not None) == (0, True)
        async with elsewhere(graph):
            await write(graph, NODE, "n")
            result = await run_cycle(context)
            assert (result.rows, result.oldest_writer) == (3, None)
    finally:
        await store.close()
        await admin.execute("DROP OWNED BY onlooker; DROP ROLE onlooker")
        await admin.close()
    assert await differences(graph) == []


async def test_a_horizon_that_falls_back_is_no_other_past(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a transaction elsewhere ends between snapshot and question: what an earlier one said stays true."""
    asked = noted(monkeypatch, lambda _: None)
    async with elsewhere(graph) as oldest:
        await write(graph, NODE, "n")
        assert (await run_cycle(graph.context())).rows == 1
        read_below = asked[-1].horizon
        await write(graph, NODE, "o")
        monkeypatch.setattr(rendered, "HORIZON", SERVER_WIDE)
        result = await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(graph.context())
        assert (result.rows, result.rescanned, result.rewound_to) == (0, False, None)
        assert asked[-1].horizon == read_below > oldest
        monkeypatch.undo()
        result = await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(graph.context())
        assert (result.rows, result.rescanned, result.rewound_to) == (1, False, None)
    assert await differences(graph) == []


async def test_what_ends_behind_a_transaction_of_another_database_is_news(graph: TestGraph) -> None:
    statements = SyncEngine(KNOWLEDGE_GRAPH).statements
    place = graph.context().write
    async with elsewhere(graph) as oldest:
        async with session(graph, graph.write_dsn) as writer, writer.transaction():
            await writer.execute(NODE, "n")
            await write(graph, NODE, "newer")
            seen = await look_for_news(place, statements, oldest, quiet=None)
            assert seen is not None
            assert not seen.can_be_read(seen.below)
        later = await look_for_news(place, statements, seen.below, quiet=seen.snapshot)
        assert later is not None
        assert later.can_be_read(seen.below)


async def test_no_open_transaction_of_the_database_is_ever_below_it(graph: TestGraph) -> None:
    """Sessions of two databases come and go, with subtransactions, while a third asks."""
    own: set[int] = set()
    generator = random.Random(1)
    over = asyncio.Event()

    async def transacting(known: set[int]) -> None:
        while not over.is_set():
            one = await asyncpg.connect(graph.write_dsn, database=None if known is own else "postgres")
            try:
                for _ in range(generator.randrange(1, 4)):
                    async with one.transaction():
                        async with one.transaction():
                            known.add(await one.fetchval(XID))
                        await asyncio.sleep(generator.random() / 100)
            finally:
                await one.close()

    others: set[int] = set()
    tasks = [asyncio.create_task(transacting(known)) for known in [own, others] * 4]
    asking = await graph.connect_write()
    beyond = 0
    try:
        moments = [await asking.fetchrow(MOMENT) for _ in range(400)]
    finally:
        over.set()
        await asyncio.gather(*tasks)
        await asking.close()
    for moment in moments:
        first, last, listed = moment["snapshot"].split(":")
        still_open = {int(xid) for xid in listed.split(",") if xid}
        assert int(first) <= moment["horizon"] <= min([*(still_open & own), int(last)])
        beyond += moment["horizon"] > int(first)
    assert beyond > 0


async def test_what_is_held_back_by_what_has_just_ended_is_asked_again(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a change would wait for the next run, behind nobody, with a lag of nothing."""

    def rise(statements: SchemaStatements) -> None:
        monkeypatch.setattr(rendered, "HORIZON", HORIZON)
        # A cycle keeps the text of the query.
        statements._pending.clear()

    engine = SyncEngine(KNOWLEDGE_GRAPH)
    await engine.run_cycle(graph.context())
    async with elsewhere(graph):
        await write(graph, NODE, "n")
        engine.statements._pending.clear()
        monkeypatch.setattr(rendered, "HORIZON", SERVER_WIDE)
        asked = noted(monkeypatch, rise)
        result = await engine.run_cycle(graph.context())
    assert [(one.held, one.fallen) for one in asked[:2]] == [(True, True), (False, False)]
    assert result.rows == 1


async def test_a_look_that_fell_says_no_more_of_vectors_than_is_so(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its position has the newest point that is queued; one of a transaction above it is queued before that."""
    await run_cycle(graph.context())
    await graph.vectors.close()
    context = replace(graph.context(), retry=RetryRules(vector_seconds=0))
    said = "SELECT visible, vectors FROM syncline.visible('kg', $1)"
    async with elsewhere(graph):
        async with session(graph, graph.write_dsn) as writer, writer.transaction():
            await writer.execute(NODE, "n")
            token = await writer.fetchval("SELECT syncline.token()")
        monkeypatch.setattr(engine_visible, "HORIZON", SERVER_WIDE)
        await SyncEngine(KNOWLEDGE_GRAPH).run_cycle(context)
        monkeypatch.undo()
        await on_target(graph, "SELECT nextval('sync_wanted')")
        await run_cycle(context)
        assert [tuple(row) for row in await read(graph, said, token)] == [(True, False)]


async def test_news_that_fell_between_two_questions_are_asked_for_again(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = news.sql

    def fallen(name: str, /, **fragments: str) -> str:
        return ask(name, **fragments | ({"horizon": SERVER_WIDE} if name == "linger_newer" else {}))

    monkeypatch.setattr(news, "sql", fallen)
    statements = SyncEngine(KNOWLEDGE_GRAPH).statements
    async with elsewhere(graph) as oldest:
        await write(graph, NODE, "n")
        seen = await look_for_news(graph.context().write, statements, oldest, quiet=None)
    assert seen is not None
    assert (seen.snapshot, seen.can_be_read(oldest)) == (None, False)


async def test_an_open_transaction_beyond_the_last_that_has_ended_has_begun(graph: TestGraph) -> None:
    """The server's own bound is below it: a muted one would be taken for covered."""
    sessions = [await graph.connect_write() for _ in range(3)]
    try:
        for one in sessions[:2]:
            await one.execute("BEGIN")
            last = await one.fetchval(XID)
        asked = (
            f"SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, {NEXT_TRANSACTION}::text::bigint"
        )
        bound, following = await sessions[2].fetchrow(asked)
        assert bound <= last < following
    finally:
        for one in sessions:
            await one.close()
