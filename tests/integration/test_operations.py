"""What operators see and do about rows that did not land, on real stores."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from syncline.control.audit import Actor
from syncline.engine.dead_letters import fingerprint
from syncline.engine.keys import key_uuid, row_uuid
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.errors import InputInvalid, StoreRejected
from syncline.masking import without_values
from syncline.operator.dead_letters import (
    AuditEntry,
    DeadLetter,
    DeadLetterState,
    Selection,
    discard,
    list_audit,
    list_dead_letters,
    retry,
    show,
    summarize,
)
from syncline.operator.explain import explain
from syncline.operator.explanation import Explanation, RowState
from syncline.operator.parked import Obstacle, ParkedEntry, list_parked, summarize_parked
from syncline.provider import GraphSchema, GraphVectors
from syncline.stores.vectors import PointPayload
from syncline.testing.graphs import SCHEMA, TestGraph, write
from syncline.testing.one_graph import session

NASTY = """'; DROP TABLE sync_dead_letter; --"$1\\ {}%_\n\N{SNOWMAN}"""
WEIGHT = 'new row for relation "nodes" violates check constraint "weight"'


def target(graph: TestGraph) -> GraphSchema:
    return GraphSchema(store=graph.target, schema=SCHEMA)


def source(graph: TestGraph) -> GraphSchema:
    return GraphSchema(store=graph.write, schema=SCHEMA)


async def books(graph: TestGraph, sql: str, *arguments: object) -> list[tuple[object, ...]]:
    async with session(graph, graph.target_dsn) as connection:
        return [tuple(row) for row in await connection.fetch(sql, *arguments)]


async def bury(
    graph: TestGraph,
    table: str,
    *keys: Sequence[str],
    sqlstate: str = "23514",
    message: str = WEIGHT,
    constraint: str | None = "weight",
    attempts: int = 1,
    dead: bool = False,
) -> str:
    """Write dead letters as the engine does; return their fingerprint."""
    cause = fingerprint(sqlstate, message, constraint)
    for key in keys:
        await books(
            graph,
            "INSERT INTO sync_dead_letter (table_name, row_id, key, version, sqlstate, message,"
            " constraint_name, fingerprint, attempts, next_retry_at, run_id) VALUES ($1, $2, $3, 7, $4, $5,"
            " $6, $7, $8, CASE WHEN NOT $9 THEN now() + interval '1 hour' END, 'r')",
            table,
            row_uuid(key),
            list(key),
            sqlstate,
            message,
            constraint,
            cause,
            attempts,
            dead,
        )
    return cause


async def everything(graph: TestGraph) -> tuple[DeadLetter, ...]:
    return (await list_dead_letters(target(graph), limit=10_000)).letters


async def audit(graph: TestGraph) -> tuple[AuditEntry, ...]:
    return (await list_audit(target(graph))).entries


async def test_a_dead_letter_says_what_postgres_said_and_what_comes_next(graph: TestGraph) -> None:
    cause = await bury(graph, "nodes", ["n1"], attempts=2)
    await bury(graph, "fact_sources", ["f1", "r1"], dead=True)
    found = await show(target(graph), "nodes", ["n1"])
    assert found is not None
    assert (found.state, found.attempts, found.version) == (DeadLetterState.RETRYING, 2, 7)
    assert (found.sqlstate, found.message, found.constraint) == ("23514", WEIGHT, "weight")
    assert (found.fingerprint, found.run_id) == (cause, "r")
    assert found.next_retry_at is not None
    dead = await show(target(graph), "fact_sources", ["f1", "r1"])
    assert dead is not None
    assert (dead.state, dead.next_retry_at) == (DeadLetterState.DEAD, None)
    for key in (["n2"], ["n1", ""], [], ["r1", "f1"]):
        assert await show(target(graph), "nodes", key) is None


async def test_dead_letters_are_listed_by_every_filter_together(graph: TestGraph) -> None:
    weight = await bury(graph, "nodes", ["n1"], ["n2"])
    await bury(graph, "nodes", ["n3"], dead=True)
    await bury(graph, "edges", ["e1"], sqlstate="22003", message="integer out of range", constraint=None)

    async def keys(**filters: Any) -> set[tuple[str, ...]]:
        page = await list_dead_letters(target(graph), **filters)
        return {letter.key for letter in page.letters}

    assert await keys() == {("n1",), ("n2",), ("n3",), ("e1",)}
    assert await keys(table="nodes") == {("n1",), ("n2",), ("n3",)}
    assert await keys(fingerprint=weight, state=DeadLetterState.DEAD) == {("n3",)}
    assert await keys(fingerprint=weight, state=DeadLetterState.RETRYING, table="nodes") == {("n1",), ("n2",)}
    assert await keys(table="edges", fingerprint=weight) == set()
    assert await keys(table="") == set()


async def test_pages_hold_each_dead_letter_once_while_others_come_and_go(graph: TestGraph) -> None:
    await bury(graph, "nodes", *([f"n{number}"] for number in range(25)))
    await bury(graph, "a/b", ["odd"])
    seen: list[tuple[str, ...]] = []
    after = None
    while True:
        page = await list_dead_letters(target(graph), limit=4, after=after)
        assert len(page.letters) <= 4
        seen += [letter.key for letter in page.letters]
        if page.next is None:
            break
        after = page.next
        # A retry changes no place, and what has been read may go.
        await retry(target(graph), Selection(everything=True), by=Actor(who="me", why="paging"))
        await discard(
            target(graph),
            Selection(table=page.letters[0].table, key=seen[-1]),
            by=Actor(who="me", why="read"),
        )
    assert len(seen) == len(set(seen)) == 26


async def test_a_page_has_a_size_and_a_place(graph: TestGraph) -> None:
    for limit in (0, -1, 10_001):
        for asked in (
            list_dead_letters(target(graph), limit=limit),
            summarize(target(graph), limit=limit),
            list_audit(target(graph), limit=limit),
            summarize_parked(source(graph), target(graph), KNOWLEDGE_GRAPH, limit=limit),
            list_parked(target(graph), KNOWLEDGE_GRAPH, "nodes", limit=limit),
        ):
            with pytest.raises(InputInvalid, match="must be 1 to 10000"):
                await asked
    for after in ("", "nodes", "nodes/n1", "/", f"/{UUID(int=1)}x", NASTY):
        with pytest.raises(InputInvalid, match="is not the `next` of a page"):
            await list_dead_letters(target(graph), after=after)
        with pytest.raises(InputInvalid, match="is not the `next` of a page"):
            await list_parked(target(graph), KNOWLEDGE_GRAPH, "nodes", after=after)
    with pytest.raises(InputInvalid, match="is not the `next` of a page"):
        await list_parked(target(graph), KNOWLEDGE_GRAPH, "nodes", after=f"name/{UUID(int=1)}")


async def test_the_summary_counts_rows_of_one_cause_and_shows_one_of_them(graph: TestGraph) -> None:
    weight = await bury(graph, "nodes", *([f"n{number}"] for number in range(9)))
    await bury(graph, "nodes", ["n9"], dead=True)
    await bury(
        graph, "edges", ["e1"], ["e0"], sqlstate="22003", message="integer out of range", constraint=None
    )
    found = await summarize(target(graph))
    assert (found.rows, found.dead, found.left_off) == (12, 1, 0)
    assert [(group.table, group.state, group.rows) for group in found.groups] == [
        ("nodes", DeadLetterState.RETRYING, 9),
        ("edges", DeadLetterState.RETRYING, 2),
        ("nodes", DeadLetterState.DEAD, 1),
    ]
    first, second, third = found.groups
    assert first.fingerprint == third.fingerprint == weight
    assert (first.example_message, first.example_key) == (WEIGHT, ("n0",))
    assert (second.sqlstate, second.constraint, second.example_key) == ("22003", None, ("e0",))
    assert third.next_retry_at is None
    assert third.example_key == ("n9",)
    assert first.oldest is not None
    assert first.newest is not None
    assert first.oldest <= first.newest < (first.next_retry_at or first.oldest)
    top = await summarize(target(graph), limit=1)
    assert (len(top.groups), top.left_off, top.rows) == (1, 2, 12)
    dead = await summarize(target(graph), state=DeadLetterState.DEAD)
    assert (dead.rows, dead.dead, len(dead.groups)) == (1, 1, 1)
    assert (await summarize(target(graph), table="facts")).groups == ()


async def test_a_retry_gives_all_tries_again_at_once(graph: TestGraph) -> None:
    await bury(graph, "nodes", ["n1"], ["n2"], attempts=5, dead=True)
    assert (
        await retry(target(graph), Selection(table="nodes", key=("n1",)), by=Actor(who="ada", why="fixed"))
        == 1
    )
    due = await books(
        graph,
        "SELECT key, attempts FROM sync_dead_letter WHERE next_retry_at <= now() AND version = 7",
    )
    assert due == [(["n1"], 0)]
    untouched = await show(target(graph), "nodes", ["n2"])
    assert untouched is not None
    assert untouched.state is DeadLetterState.DEAD


async def test_rows_are_selected_by_key_table_fingerprint_or_all(graph: TestGraph) -> None:
    weight = await bury(graph, "nodes", ["n1"], ["n2"])
    await bury(graph, "edges", ["e1"], ["e2"])
    other = await bury(
        graph, "edges", ["e3"], sqlstate="22003", message="integer out of range", constraint=None
    )
    await bury(graph, "fact_sources", ["f1", "r1"])

    async def chosen(**how: Any) -> int:
        return await discard(target(graph), Selection(**how), by=Actor(who="ada", why="test"))

    assert await chosen(table="nodes", key=("n3",)) == 0
    assert await chosen(table="edges", key=("n1",)) == 0
    assert await chosen(table="fact_sources", key=("r1", "f1")) == 0
    assert await chosen(table="fact_sources", key=("f1", "r1")) == 1
    assert await chosen(fingerprint="0" * 12) == 0
    assert await chosen(fingerprint=other) == 1
    assert await chosen(table="edges") == 2
    assert {letter.fingerprint for letter in await everything(graph)} == {weight}
    assert await chosen(everything=True) == 2
    assert await everything(graph) == ()
    assert await chosen(everything=True) == 0


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"everything": False},
        {"key": ("n1",)},
        {"table": "nodes", "everything": True},
        {"table": "nodes", "fingerprint": "abc"},
        {"fingerprint": "abc", "everything": True},
        {"fingerprint": "abc", "key": ("n1",)},
        {"table": "nodes", "key": ()},
    ],
)
def test_a_selection_that_is_not_exactly_one_is_refused(how: dict[str, Any]) -> None:
    with pytest.raises(InputInvalid):
        Selection(**how)


async def test_every_action_is_audited_with_who_why_and_what(graph: TestGraph) -> None:
    cause = await bury(graph, "nodes", ["n1"], ["n2"], ["n3"])
    before = datetime.now(UTC) - timedelta(minutes=1)
    await retry(
        target(graph), Selection(table="nodes", key=("n1",)), by=Actor(who=" ada ", why=" the check is gone ")
    )
    await retry(target(graph), Selection(fingerprint=cause), by=Actor(who="bob", why="all of it"))
    await discard(target(graph), Selection(table="nodes"), by=Actor(who="ada", why="given up"))
    found = await audit(graph)
    assert [
        (one.action, one.who, one.why, one.table, one.key, one.fingerprint, one.rows) for one in found
    ] == [
        ("discard", "ada", "given up", "nodes", None, None, 3),
        ("retry", "bob", "all of it", None, None, cause, 3),
        ("retry", "ada", "the check is gone", "nodes", ("n1",), None, 1),
    ]
    assert all(one.at > before for one in found)
    first = await list_audit(target(graph), limit=2)
    assert [one.number for one in first.entries] == [3, 2]
    second = await list_audit(target(graph), limit=2, before=first.next)
    assert ([one.number for one in second.entries], second.next) == ([1], None)


async def test_who_and_why_are_wanted_before_anything_is_done(graph: TestGraph) -> None:
    await bury(graph, "nodes", ["n1"])
    for who, why in (("", "x"), ("x", ""), (" \t", "x"), ("x", "\n")):
        for action in (retry, discard):
            with pytest.raises(InputInvalid, match="`who` and `why`"):
                await action(target(graph), Selection(everything=True), by=Actor(who=who, why=why))
    assert len(await everything(graph)) == 1
    assert await audit(graph) == ()


async def test_what_touched_nothing_is_not_audited(graph: TestGraph) -> None:
    assert (
        await retry(target(graph), Selection(everything=True), by=Actor(who="ada", why="nothing there")) == 0
    )
    assert await audit(graph) == ()


async def test_an_action_that_fails_leaves_neither_effect_nor_audit(graph: TestGraph) -> None:
    await bury(graph, "nodes", ["n1"], ["n2"])
    await books(
        graph,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$",
    )
    await books(
        graph,
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE OR DELETE ON sync_dead_letter"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.key = '{n2}') EXECUTE FUNCTION refuse()",
    )
    # And the other way round: no action without its audit.
    await books(graph, "ALTER TABLE sync_audit ADD CONSTRAINT unaudited CHECK (why <> 'in secret')")
    for action in (retry, discard):
        with pytest.raises(StoreRejected, match="P0001"):
            await action(target(graph), Selection(everything=True), by=Actor(who="ada", why="now"))
        with pytest.raises(StoreRejected, match="unaudited"):
            await action(
                target(graph), Selection(table="nodes", key=("n1",)), by=Actor(who="ada", why="in secret")
            )
    assert await audit(graph) == ()
    assert {letter.attempts for letter in await everything(graph)} == {1}
    assert len(await everything(graph)) == 2


async def test_an_action_waits_for_a_batch_that_has_some_of_the_rows(graph: TestGraph) -> None:
    await bury(graph, "nodes", ["n1"], ["n2"])
    batch = await graph.connect_target()
    running = batch.transaction()
    await running.start()
    await batch.execute("DELETE FROM sync_dead_letter WHERE key = '{n2}'")
    action = asyncio.create_task(
        discard(target(graph), Selection(everything=True), by=Actor(who="ada", why="while a cycle runs"))
    )
    await asyncio.sleep(0.3)
    # It holds nothing that the batch needs, so that the batch goes on.
    await batch.execute("SET LOCAL lock_timeout = '5s'")
    await batch.execute("UPDATE sync_dead_letter SET attempts = attempts + 1")
    assert not action.done()
    await running.commit()
    await batch.close()
    assert await action == 1
    assert [one.rows for one in await audit(graph)] == [1]


async def test_a_discard_forgets_the_retry_that_no_cycle_has_in_hand(graph: TestGraph) -> None:
    await bury(graph, "nodes", ["n1"], ["n2"], ["n3"])
    await books(
        graph,
        "INSERT INTO sync_requeue (table_name, row_id, key, reason)"
        " SELECT table_name, row_id, key, CASE WHEN key = '{n3}' THEN 'its parent left' ELSE 'retry' END"
        " FROM sync_dead_letter",
    )
    batch = await graph.connect_target()
    async with batch.transaction():
        await batch.execute("DELETE FROM sync_requeue WHERE key = '{n2}'")
        assert await discard(target(graph), Selection(table="nodes"), by=Actor(who="ada", why="no more")) == 3
        assert await books(graph, "SELECT key FROM sync_requeue ORDER BY key") == [(["n2"],), (["n3"],)]
    await batch.close()


async def test_keys_tables_and_fingerprints_are_only_ever_values(graph: TestGraph) -> None:
    await bury(graph, NASTY, [NASTY], [NASTY, NASTY], message=NASTY, constraint=NASTY, sqlstate="22000")
    await bury(graph, "nodes", ["n1"])
    cause = fingerprint("22000", NASTY, NASTY)
    assert len((await list_dead_letters(target(graph), table=NASTY, fingerprint=cause)).letters) == 2
    found = await show(target(graph), NASTY, [NASTY, NASTY])
    assert found is not None
    assert (found.key, found.message) == ((NASTY, NASTY), without_values(NASTY))
    [group, _] = (await summarize(target(graph))).groups
    assert (group.table, group.example_message) == (NASTY, without_values(NASTY))
    page = await list_dead_letters(target(graph), table=NASTY, limit=1)
    assert page.next is not None
    assert len((await list_dead_letters(target(graph), after=page.next)).letters) >= 1
    assert await retry(target(graph), Selection(fingerprint=NASTY), by=Actor(who=NASTY, why=NASTY)) == 0
    assert await retry(target(graph), Selection(fingerprint=cause), by=Actor(who=NASTY, why=NASTY)) == 2
    assert (
        await discard(target(graph), Selection(table=NASTY, key=(NASTY,)), by=Actor(who=NASTY, why=NASTY))
        == 1
    )
    assert await discard(target(graph), Selection(table=NASTY), by=Actor(who=NASTY, why=NASTY)) == 1
    assert [letter.key for letter in await everything(graph)] == [("n1",)]
    # Blanks around it are not kept.
    assert {(one.who, one.why) for one in await audit(graph)} == {(NASTY.strip(), NASTY.strip())}


async def park(
    graph: TestGraph,
    table: str,
    key: Sequence[str],
    waits_for: tuple[str, str],
    *,
    name: str | None = None,
    image: str = '{"sync_xid": 7}',
    hours: int = 1,
    released: bool = False,
) -> None:
    """Park a row, or with `name` one of its links or references, as the engine does."""
    parent, parent_key = waits_for
    if name is None:
        await books(
            graph,
            "INSERT INTO sync_parked_row (table_name, row_id, key, image, waits_for_table, waits_for,"
            " waits_for_key, since, released)"
            " VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, $7, now() - make_interval(hours => $8), $9)",
            table,
            row_uuid(key),
            list(key),
            image,
            parent,
            key_uuid(parent_key),
            parent_key,
            hours,
            released,
        )
        return
    await books(
        graph,
        "INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for,"
        " waits_for_key, since) VALUES ($1, $2, $3, $4, $5, $6, now() - make_interval(hours => $7))",
        table,
        name,
        row_uuid(key),
        parent,
        key_uuid(parent_key),
        parent_key,
        hours,
    )


async def land_node(
    graph: TestGraph, key: str, *, version: int = 1, run: int | None = None, vector: bool = True
) -> None:
    await books(
        graph,
        "WITH landed AS ("
        " INSERT INTO nodes (id, key, concept, node_type, visibility, created_at, updated_at, sync_version,"
        " sync_run) VALUES (syncline.key_uuid($1), $1, 'c', 'concept', 'public', now(), now(), $2, $3)"
        " RETURNING id"
        ") INSERT INTO sync_vector (collection, point_id, text_hash, embedding)"
        " SELECT 'nodes', id, sha256('c'), 'm' FROM landed WHERE $4",
        key,
        version,
        run,
        vector,
    )
    if vector:
        await graph.vectors.ensure_collection("kg_nodes", dimensions=2)
        point = PointPayload(key_uuid(key), {"key": key})
        await graph.vectors.upsert("kg_nodes", [point], np.ones((1, 2), dtype=np.float32))


async def land_fact(graph: TestGraph, key: str) -> None:
    await books(
        graph,
        "INSERT INTO facts (id, key, content, fact_type, created_at, updated_at, sync_version)"
        " VALUES (syncline.key_uuid($1), $1, 'c', 'claim', now(), now(), 1)",
        key,
    )


async def land_raw_source(graph: TestGraph, key: str, content_hash: str) -> None:
    await books(
        graph,
        "INSERT INTO raw_sources (id, key, content_hash, fetch_status, created_at, updated_at, sync_version)"
        " VALUES (syncline.key_uuid($1), $1, $2, 'fetched', now(), now(), 1)",
        key,
        content_hash,
    )


async def write_edge(graph: TestGraph, key: str) -> None:
    await write(
        graph,
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)"
        " VALUES ($1, 'a', 'b', 't')",
        key,
    )


async def test_what_holds_back_most_comes_first_with_its_reason(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) VALUES ('pending', 'c'), ('dead', 'c'), ('refused', 'c'),"
        " ('landed', 'c'), ('gone', 'c')",
    )
    await write(graph, "DELETE FROM write_nodes WHERE id = 'gone'")
    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status) VALUES ('raw', 'c', 'pending')",
    )
    await write_edge(graph, "e")
    await land_node(graph, "landed")
    await bury(graph, "nodes", ["dead"], dead=True)
    await bury(graph, "nodes", ["refused"])
    for number in range(3):
        await park(graph, "edges", [f"e{number}"], ("nodes", "pending"), hours=number + 1)
    await park(graph, "nodes", ["n1"], ("nodes", "pending"), name="parent_id", hours=9)
    await park(graph, "nodes", ["n1"], ("facts", "raw"), name="node_facts")
    await park(graph, "nodes", ["n2"], ("facts", "raw"), name="node_facts")
    await park(graph, "edges", ["e4"], ("nodes", "missing"))
    await park(graph, "edges", ["e5"], ("nodes", "gone"))
    await park(graph, "edges", ["e6"], ("nodes", "dead"))
    await park(graph, "edges", ["e7"], ("nodes", "refused"))
    await park(graph, "edges", ["e8"], ("nodes", "landed"))
    await park(graph, "edges", ["e"], ("nodes", "missing"))
    await park(graph, "edge_children", ["x"], ("edges", "e"))
    await park(graph, "edges", ["e9"], ("nodes", "landed"), released=True)
    await park(graph, "edges", ["e10"], ("elsewhere", "k"))
    found = await summarize_parked(source(graph), target(graph), KNOWLEDGE_GRAPH)
    assert (found.rows, found.references, found.released, found.left_off) == (11, 3, 1, 0)
    first = found.awaited[0]
    assert (first.table, first.key, first.waiting) == ("nodes", "pending", 4)
    assert [(part.table, part.name, part.waiting) for part in first.parts] == [
        ("edges", None, 3),
        ("nodes", "parent_id", 1),
    ]
    assert first.since == first.parts[1].since
    assert first.since is not None
    assert timedelta(hours=8) < datetime.now(UTC) - first.since < timedelta(hours=10)
    assert [one.waiting for one in found.awaited] == sorted(
        (one.waiting for one in found.awaited), reverse=True
    )
    reasons = {(one.table, one.key): (one.obstacle, one.reason) for one in found.awaited}
    gone = reasons.pop(("nodes", "gone"))
    refused = reasons.pop(("nodes", "refused"))
    assert gone[0] is Obstacle.DELETED
    assert gone[1].startswith("deleted from the write-db 20")
    assert refused[0] is Obstacle.RETRYING
    assert refused[1].startswith(f"refused: [23514] {WEIGHT}; next try 20")
    assert reasons == {
        ("nodes", "pending"): (Obstacle.PENDING, "in the write-db, not synced yet"),
        ("facts", "raw"): (Obstacle.NOT_READY, "in the write-db, but not: dedup_status = 'ready'"),
        ("nodes", "missing"): (Obstacle.MISSING, "not in the write-db"),
        ("nodes", "dead"): (Obstacle.DEAD, f"dead: [23514] {WEIGHT}"),
        ("nodes", "landed"): (
            Obstacle.LANDED,
            "it has arrived: the next cycle applies the rows that wait for it",
        ),
        ("edges", "e"): (Obstacle.PARKED, "parked itself, waits for nodes 'missing'"),
        ("elsewhere", "k"): (Obstacle.UNKNOWN, "its table is not in the table map"),
    }
    top = await summarize_parked(source(graph), target(graph), KNOWLEDGE_GRAPH, limit=1)
    assert ([one.key for one in top.awaited], top.left_off) == (["pending"], 8)


async def test_a_row_that_names_its_parent_by_value_waits_for_that_value(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_raw_sources (id, content_hash) VALUES ('r1', 'h1'), ('r2', 'h1'), ('h2', 'other')",
    )
    for key, value in (("p1", "h1"), ("p2", "h2"), ("p3", "h3")):
        image = f'{{"sync_xid": 7, "content_hash": "{value}"}}'
        await park(graph, "prohibited_chunks", [key], ("raw_sources", value), image=image)
    await park(graph, "fact_sources", ["f", "h1"], ("raw_sources", "h1"))
    await land_raw_source(graph, "r3", "h3")
    found = await summarize_parked(source(graph), target(graph), KNOWLEDGE_GRAPH)
    assert {(one.key, one.named_by, one.obstacle) for one in found.awaited} == {
        ("h1", "content_hash", Obstacle.PENDING),
        ("h1", None, Obstacle.MISSING),
        ("h2", "content_hash", Obstacle.MISSING),
        ("h3", "content_hash", Obstacle.LANDED),
    }


async def test_what_waits_of_one_table_is_listed_in_pages(graph: TestGraph) -> None:
    await land_node(graph, "n1")
    for number in range(5):
        await park(graph, "nodes", ["n1"], ("facts", f"f{number}"), name="node_facts")
    await park(graph, "nodes", ["n1"], ("nodes", "n9"), name="parent_id")
    await park(graph, "fact_sources", ["f1", "r1"], ("raw_sources", "r1"), released=True)
    seen: list[ParkedEntry] = []
    after = None
    while True:
        page = await list_parked(target(graph), KNOWLEDGE_GRAPH, "nodes", limit=2, after=after)
        seen += page.entries
        after = page.next
        if after is None:
            break
    assert {(one.key, one.name, one.waits_for_table, one.waits_for_key) for one in seen} == {
        (("n1",), "parent_id", "nodes", "n9"),
        *((("n1",), "node_facts", "facts", f"f{number}") for number in range(5)),
    }
    assert len(seen) == 6
    [one] = (await list_parked(target(graph), KNOWLEDGE_GRAPH, "write_fact_sources")).entries
    assert (one.key, one.name, one.released) == (("f1", "r1"), None, True)
    assert (await list_parked(target(graph), KNOWLEDGE_GRAPH, "edges")).entries == ()
    with pytest.raises(InputInvalid, match=r"No table 'node_facts' is synced\. Known: raw_sources, facts"):
        await list_parked(target(graph), KNOWLEDGE_GRAPH, "node_facts")


async def test_parked_keys_are_only_ever_values(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')", NASTY)
    await park(graph, "edges", [NASTY], ("nodes", NASTY))
    await park(graph, NASTY, [NASTY], (NASTY, NASTY), name=NASTY)
    found = await summarize_parked(source(graph), target(graph), KNOWLEDGE_GRAPH)
    assert {(one.table, one.obstacle) for one in found.awaited} == {
        ("nodes", Obstacle.PENDING),
        (NASTY, Obstacle.UNKNOWN),
    }
    with pytest.raises(InputInvalid, match="No table"):
        await list_parked(target(graph), KNOWLEDGE_GRAPH, NASTY)


async def told(graph: TestGraph, table: str, *key: str) -> Explanation:
    vectors = GraphVectors(store=graph.vectors, prefix="kg_")
    return await explain(source(graph), target(graph), vectors, KNOWLEDGE_GRAPH, table=table, key=key)


async def move_cursor(graph: TestGraph, table: str, xid: int, *key: str) -> None:
    await books(
        graph,
        "INSERT INTO sync_cursor (table_name, xid, key) VALUES ($1, $2, $3)"
        " ON CONFLICT (table_name) DO UPDATE SET xid = excluded.xid, key = excluded.key",
        table,
        xid,
        list(key) or None,
    )


async def stamp(graph: TestGraph, key: str) -> int:
    connection = await graph.connect_write()
    try:
        xid: int = await connection.fetchval(
            "SELECT sync_xid::text::bigint FROM write_nodes WHERE id = $1", key
        )
    finally:
        await connection.close()
    return xid


async def judged(graph: TestGraph, *row: str) -> tuple[RowState, str]:
    found = await told(graph, *row)
    return found.state, found.verdict


async def test_a_row_is_pending_until_the_cursor_has_passed_it(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('B', 'c'), ('a', 'c')")
    xid = await stamp(graph, "a")
    pending = (RowState.PENDING, f"pending: version {xid} will be read by the next cycle")
    lost = "out of step: not in the graph-db, and the engine state does not say why"
    assert await judged(graph, "nodes", "a") == pending
    for cursor, expected in (
        ((xid,), pending),
        ((xid + 1,), (RowState.OUT_OF_STEP, lost)),
        # Keys are in the order of their bytes, whatever the database's collation says.
        ((xid, "B"), pending),
        ((xid, "a"), (RowState.OUT_OF_STEP, lost)),
        ((xid - 1, "z"), pending),
    ):
        await move_cursor(graph, "nodes", *cursor)
        assert await judged(graph, "nodes", "a") == expected
    await move_cursor(graph, "nodes", xid, "a")
    assert (await judged(graph, "nodes", "B"))[0] is RowState.OUT_OF_STEP


async def test_a_row_above_the_horizon_says_that_it_is_held_back(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c')")
    xid = await stamp(graph, "n1")
    await land_node(graph, "n1", version=xid)
    await move_cursor(graph, "nodes", xid + 1)
    open_writer = await graph.connect_write()
    writing = open_writer.transaction()
    await writing.start()
    await open_writer.execute("INSERT INTO write_facts (id, content) VALUES ('f', 'c')")
    await write(graph, "UPDATE write_nodes SET concept = 'd'")
    found = await told(graph, "nodes", "n1")
    await writing.rollback()
    await open_writer.close()
    assert (found.state, found.write.pending, found.write.held_back) == (RowState.PENDING, True, True)
    assert found.graph.behind
    assert found.verdict == (
        f"pending: version {found.write.version} cannot be read until all earlier transactions of the"
        f" write-db have ended; the graph-db has version {xid}"
    )
    assert not (await told(graph, "nodes", "n1")).write.held_back


async def test_a_row_in_step_says_who_brought_it(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c')")
    xid = await stamp(graph, "n1")
    await books(
        graph,
        "INSERT INTO sync_run (fence, run_id, workflow_id, attempt, provider, provider_version)"
        " VALUES (3, 'run', 'sync-graph/kg', 2, 'acme', '1.2')",
    )
    await land_node(graph, "n1", version=xid, run=3, vector=False)
    await move_cursor(graph, "nodes", xid + 1)
    await park(graph, "nodes", ["n1"], ("facts", "f9"), name="node_facts", hours=2)
    await park(graph, "nodes", ["n1"], ("nodes", "n9"), name="parent_id", hours=1)
    await park(graph, "edges", ["e1"], ("nodes", "n1"))
    await park(graph, "edges", ["e2"], ("nodes", "n1"), released=True)
    await park(graph, "nodes", ["n2"], ("nodes", "n1"), name="parent_id")
    await books(
        graph,
        "INSERT INTO sync_outbox (collection, point_id, attempts, error)"
        " VALUES ('nodes', syncline.key_uuid('n1'), 2, 'too long')",
    )
    found = await told(graph, "write_nodes", "n1")
    assert (found.table, found.key, found.state) == ("nodes", ("n1",), RowState.IN_STEP)
    assert (found.write.exists, found.write.belongs, found.write.pending) == (True, True, False)
    assert (found.graph.id, found.graph.version, found.graph.behind) == (key_uuid("n1"), xid, False)
    by = found.graph.synced_by
    assert by is not None
    assert (by.run_id, by.workflow_id, by.attempt, by.provider, by.provider_version) == (
        *("run", "sync-graph/kg", 2),
        *("acme", "1.2"),
    )
    assert by.taken_at is not None
    assert [(wait.name, wait.waits_for_key) for wait in found.waits] == [
        ("node_facts", "f9"),
        ("parent_id", "n9"),
    ]
    assert found.waits_in_all == 2
    assert [(part.table, part.name, part.waiting) for part in found.waiting_for_it] == [
        ("edges", None, 1),
        ("nodes", "parent_id", 1),
    ]
    vector = found.vector
    assert vector is not None
    assert (vector.collection, vector.wanted, vector.written, vector.current) == ("nodes", True, False, False)
    assert (vector.attempts, vector.error) == (2, "too long")
    assert found.verdict.startswith(
        "in step; its node_facts waits for facts 'f9' and 1 more; 1 of edges, 1 of nodes (parent_id) wait for"
        " it; its vector is queued since 20"
    )


async def test_a_vector_that_nobody_owes_and_nobody_wrote_is_told(graph: TestGraph) -> None:
    await land_node(graph, "n1", vector=False)
    neither = "; its vector is neither written nor queued"
    assert (await judged(graph, "nodes", "n1"))[1].endswith(neither)
    await books(
        graph,
        "INSERT INTO sync_vector (collection, point_id, text_hash, embedding)"
        " SELECT 'nodes', id, sha256('old'), 'm' FROM nodes",
    )
    assert (await judged(graph, "nodes", "n1"))[1].endswith(
        "; its vector is that of an older text, and nothing is queued"
    )
    await books(graph, "UPDATE sync_vector SET text_hash = sha256('c')")
    vector = (await told(graph, "nodes", "n1")).vector
    assert vector is not None
    assert (vector.written, vector.current, vector.embedding) == (True, True, "m")
    await books(graph, "DELETE FROM nodes")
    assert (await judged(graph, "nodes", "n1"))[1].endswith(
        "; its point should be gone, and that is not queued"
    )
    await books(
        graph,
        "INSERT INTO sync_outbox (collection, point_id) SELECT 'nodes', point_id FROM sync_vector",
    )
    await books(
        graph,
        "INSERT INTO sync_vector_delay (collection, attempts, next_retry_at, error)"
        " VALUES ('nodes', 3, now(), 'Qdrant is away')",
    )
    found = await told(graph, "nodes", "n1")
    assert found.verdict.endswith(" UTC: Qdrant is away")
    assert found.vector is not None
    assert found.vector.delayed_since is not None


async def test_a_row_that_waits_says_for_whom_and_since_when(graph: TestGraph) -> None:
    await write_edge(graph, "e1")
    await move_cursor(graph, "edges", 2**40)
    await park(graph, "edges", ["e1"], ("nodes", "a"))
    found = await told(graph, "edges", "e1")
    assert found.state is RowState.PARKED
    assert found.verdict.startswith("waits for nodes 'a' since 20")
    assert found.vector is None
    await books(graph, "UPDATE sync_parked_row SET released = true")
    assert await judged(graph, "edges", "e1") == (
        RowState.PENDING,
        "pending: it waited for nodes 'a', which is there now",
    )


async def test_a_dead_row_says_why_and_a_newer_version_comes_before_it(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c')")
    await move_cursor(graph, "nodes", 2**40)
    await bury(graph, "nodes", ["n1"], dead=True)
    assert await judged(graph, "nodes", "n1") == (RowState.DEAD, f"dead: [23514] {WEIGHT}")
    assert (await told(graph, "nodes", "n1")).dead_letter == await show(target(graph), "nodes", ["n1"])
    await retry(target(graph), Selection(table="nodes"), by=Actor(who="ada", why="again"))
    state, verdict = await judged(graph, "nodes", "n1")
    assert state is RowState.RETRYING
    assert verdict.startswith(f"refused: [23514] {WEIGHT}; next try 20")
    await move_cursor(graph, "nodes", 1)
    state, verdict = await judged(graph, "nodes", "n1")
    assert state is RowState.PENDING
    assert f"; its version 7 is refused: [23514] {WEIGHT}" in verdict


async def test_a_discarded_version_says_who_gave_it_up(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c'), ('n2', 'c'), ('n3', 'c')")
    xid = await stamp(graph, "n1")
    await move_cursor(graph, "nodes", 2**40)
    await books(
        graph,
        "INSERT INTO sync_run (fence, run_id, workflow_id, attempt, provider) VALUES (1, 'r', 'w', 1, 'p')",
    )
    await land_node(graph, "n3", version=xid - 1, run=1)
    await land_node(graph, "n4", version=xid - 1, run=1)
    cause = await bury(graph, "nodes", ["n1"], ["n2"], ["n3"])
    await discard(target(graph), Selection(table="nodes", key=("n1",)), by=Actor(who="ada", why="nonsense"))
    await discard(target(graph), Selection(fingerprint=cause), by=Actor(who="bob", why="all nonsense"))
    assert (await judged(graph, "nodes", "n1"))[1].startswith("not in the graph-db, given up by ada, 20")
    state, verdict = await judged(graph, "nodes", "n2")
    assert state is RowState.GIVEN_UP
    assert verdict.startswith("not in the graph-db, perhaps given up by bob, 20")
    assert verdict.endswith(": all nonsense")
    assert (await judged(graph, "nodes", "n3"))[1].startswith(
        f"in step if version {xid} changed no replicated column; else perhaps given up by bob"
    )
    # What a later run brought is no longer what was given up.
    await books(graph, "UPDATE sync_run SET taken_at = clock_timestamp()")
    state, verdict = await judged(graph, "nodes", "n3")
    assert state is RowState.IN_STEP
    assert verdict.startswith(f"in step: version {xid} changed no replicated column")


async def test_a_deleted_row_says_when_and_what_is_left_of_it(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c')")
    await land_node(graph, "n1")
    await write(graph, "DELETE FROM write_nodes")
    state, verdict = await judged(graph, "nodes", "n1")
    assert state is RowState.PENDING
    assert verdict.startswith("pending: not in the write-db, deleted 20")
    assert verdict.endswith("UTC; that will be read by the next cycle")
    await move_cursor(graph, "sync_tombstone", 2**40, "1")
    state, verdict = await judged(graph, "nodes", "n1")
    assert state is RowState.OUT_OF_STEP
    assert verdict.endswith("UTC, and still in the graph-db")
    await books(
        graph, "INSERT INTO sync_requeue SELECT 'nodes', id, ARRAY[key], 'its parent left' FROM nodes"
    )
    assert (await judged(graph, "nodes", "n1"))[1].endswith(
        "the next cycle asks again, because its parent left"
    )
    await books(graph, "DELETE FROM sync_requeue")
    await books(graph, "DELETE FROM nodes")
    state, verdict = await judged(graph, "nodes", "n1")
    assert state is RowState.IN_STEP
    assert verdict.startswith("not in the write-db, deleted 20")
    # The same key, written again, is not deleted.
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c')")
    found = await told(graph, "nodes", "n1")
    assert (found.state, found.write.deleted_at) == (RowState.PENDING, None)


async def test_a_row_that_the_map_keeps_out_is_in_step(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'c', 'pending')")
    kept_out = "in step: the table map's condition keeps it out of the graph-db"
    assert await judged(graph, "facts", "f1") == (RowState.IN_STEP, kept_out)
    await land_fact(graph, "f1")
    assert (await judged(graph, "facts", "f1"))[0] is RowState.PENDING
    await move_cursor(graph, "facts", 2**40)
    assert (await judged(graph, "facts", "f1"))[0] is RowState.OUT_OF_STEP


async def test_a_row_known_by_its_parents_is_found_by_its_whole_key(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_fact_sources (fact_id, raw_source_id) VALUES ('f1', 'r1')")
    await land_fact(graph, "f1")
    await land_raw_source(graph, "r1", "h1")
    await books(
        graph,
        "INSERT INTO fact_sources (fact_id, raw_source_id, created_at, updated_at, sync_version)"
        " VALUES (syncline.key_uuid('f1'), syncline.key_uuid('r1'), now(), now(), 2^40::bigint)",
    )
    await move_cursor(graph, "fact_sources", 2**40)
    found = await told(graph, "fact_sources", "f1", "r1")
    assert (found.state, found.graph.exists, found.graph.id) == (RowState.IN_STEP, True, None)
    assert (await told(graph, "fact_sources", "r1", "f1")).state is RowState.UNKNOWN_KEY
    await write(graph, "INSERT INTO write_convergence_reports (node_id) VALUES ('n1')")
    assert (await told(graph, "convergence_reports", "n1")).state is RowState.PENDING


async def test_what_waits_for_a_value_of_a_row_waits_for_the_row(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_raw_sources (id, content_hash) VALUES ('r1', 'h1')")
    await park(graph, "prohibited_chunks", ["p1"], ("raw_sources", "h1"))
    [part] = (await told(graph, "raw_sources", "r1")).waiting_for_it
    assert (part.table, part.waiting) == ("prohibited_chunks", 1)


async def test_a_row_stamped_by_another_cluster_is_told(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c')")
    await write(graph, "ALTER TABLE write_nodes DISABLE TRIGGER USER")
    await write(graph, "UPDATE write_nodes SET sync_xid = '99999999'")
    found = await told(graph, "nodes", "n1")
    assert (found.state, found.write.ahead) == (RowState.OUT_OF_STEP, True)
    assert "is in the future of this write-db" in found.verdict


async def test_a_row_asked_for_again_says_why(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c')")
    await land_node(graph, "n1", version=2**40)
    await move_cursor(graph, "nodes", 2**40)
    await books(
        graph, "INSERT INTO sync_requeue SELECT 'nodes', id, ARRAY[key], 'a rejection left' FROM nodes"
    )
    found = await told(graph, "nodes", "n1")
    assert (found.state, found.verdict) == (
        RowState.PENDING,
        "pending: the next cycle reads it again, because a rejection left",
    )
    assert found.requeued is not None


async def test_an_unknown_key_table_or_shape_of_key_is_told_apart(graph: TestGraph) -> None:
    assert await judged(graph, "nodes", "n1") == (RowState.UNKNOWN_KEY, "unknown key: no store has or had it")
    assert (await told(graph, "nodes", NASTY)).state is RowState.UNKNOWN_KEY
    assert (await told(graph, "fact_sources", NASTY, "'")).state is RowState.UNKNOWN_KEY
    with pytest.raises(
        InputInvalid, match=r"No table 'node' is synced\. Known: raw_sources, facts, fact_sources"
    ):
        await told(graph, "node", "n1")
    with pytest.raises(InputInvalid, match="A key of nodes has one part, id; not 2"):
        await told(graph, "nodes", "n1", "n2")
    with pytest.raises(
        InputInvalid, match="A key of fact_sources has 2 parts, fact_id and raw_source_id; not 1"
    ):
        await told(graph, "fact_sources", "f1")


async def test_models_survive_the_road_through_temporal(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'c')")
    await bury(graph, "nodes", ["n1"])
    await park(graph, "edges", ["e1"], ("nodes", "n1"))
    for model in (
        await told(graph, "nodes", "n1"),
        await list_dead_letters(target(graph)),
        await summarize(target(graph)),
        await summarize_parked(source(graph), target(graph), KNOWLEDGE_GRAPH),
        await list_parked(target(graph), KNOWLEDGE_GRAPH, "edges"),
        Selection(table="nodes", key=("n1",)),
    ):
        assert type(model).model_validate_json(model.model_dump_json()) == model
