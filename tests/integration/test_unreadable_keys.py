"""Keys and values that are no text, in a write-db without an encoding: each harms only its own row."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.capture.install.install import adopt
from syncline.control.audit import Actor
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.engine import Column, Links, Reference, SchemaMap, SyncEngine, TableMap
from syncline.engine.keys import key_of_bytes, key_uuid, presented, reading_of, readings, row_uuid
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.messages.verification import Verdict, Verification
from syncline.migrations import migrate_bookkeeping
from syncline.operator.dead_letters import Selection, list_dead_letters, retry, show, summarize
from syncline.operator.explain import explain
from syncline.operator.explanation import RowState
from syncline.provider import RetryRules
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify
from tests.kit.cases import further

BOOKS = "sync_version bigint, sync_run bigint"
MAP = SchemaMap(
    name="bytes",
    tables=(
        TableMap(name="facts", source="fact_rows", columns=(Column(name="content"), Column(name="raw", type="json"))),
        TableMap(
            name="nodes",
            source="node_rows",
            links=(Links(table="node_facts", source="fact_ids", owner="node_id", member="fact_id", parent="facts"),),
        ),
        TableMap(
            name="pairs",
            source="pair_rows",
            key=("one", "other"),
            references=(
                Reference(column="one", parent="nodes", required=True),
                Reference(column="other", parent="nodes", required=True),
            ),
        ),
    ),
)  # fmt: skip
SOURCE = """
CREATE SCHEMA IF NOT EXISTS kg;
CREATE FUNCTION kg.raw(digits text) RETURNS text LANGUAGE sql RETURN convert_from(decode(digits, 'hex'), 'SQL_ASCII');
CREATE TABLE fact_rows (id text PRIMARY KEY, content text, raw json);
CREATE TABLE node_rows (id text PRIMARY KEY, fact_ids text[]);
CREATE TABLE pair_rows (one text, other text, PRIMARY KEY (one, other));
"""
TARGET = f"""
CREATE SCHEMA IF NOT EXISTS kg;
CREATE TABLE facts (id uuid PRIMARY KEY, key text, content text, raw json, {BOOKS});
CREATE TABLE nodes (id uuid PRIMARY KEY, key text, {BOOKS});
CREATE TABLE node_facts (node_id uuid REFERENCES nodes, fact_id uuid REFERENCES facts, PRIMARY KEY (node_id, fact_id));
CREATE TABLE pairs (one uuid REFERENCES nodes, other uuid REFERENCES nodes, PRIMARY KEY (one, other), {BOOKS});
"""
ROWS = """
INSERT INTO fact_rows SELECT 'f' || i, 'content', '{"a": 1}' FROM generate_series(1, 9) i;
INSERT INTO fact_rows VALUES (raw('e9'), 'x', NULL), ('f5' || raw('ff41'), 'x', NULL), ('\\xe9', 'no bytes', NULL),
    ('content', raw('e9'), NULL), ('json', 'x', raw('22e922')::json), ('zz' || raw('80'), 'x', NULL);
INSERT INTO node_rows VALUES ('n1', '{f1,f2}'), ('n2', ARRAY['f1', raw('e9')]), (raw('e9'), '{f1}'), ('n3', '{f3}');
INSERT INTO pair_rows VALUES ('n1', 'n3'), ('n1', raw('e9')), (raw('e9'), 'n1');
"""
REFUSED = {
    ("facts", ("\\xe9",)),
    ("facts", ("\\x6635ff41",)),
    ("facts", ("content",)),
    ("facts", ("json",)),
    ("facts", ("\\x7a7a80",)),
    ("nodes", ("n2",)),
    ("nodes", ("\\xe9",)),
    ("pairs", ("n1", "\\xe9")),
    ("pairs", ("\\xe9", "n1")),
}

_names = count(1)


@pytest_asyncio.fixture(loop_scope="session")
async def graph(
    postgres_server: EmbeddedPostgres,
    postgres_admin: Callable[[str], object],
    new_database: Callable[..., str],
    tmp_path: Path,
) -> AsyncIterator[TestGraph]:
    name = f"bytes_{next(_names)}"
    postgres_admin(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    dsns = {"write": postgres_server.dsn(name), "graph": new_database()}
    stores = {
        role: PostgresStore(role, SecretStr(dsn), pool_size=3, application_name="bytes")
        for role, dsn in dsns.items()
    }
    vectors = EmbeddedQdrantStore("vectors", tmp_path / "qdrant")
    graph = TestGraph(
        write=stores["write"],
        target=stores["graph"],
        write_dsn=dsns["write"],
        target_dsn=dsns["graph"],
        vectors=vectors,
        embedding=DevelopmentEmbedding(16),
    )
    await write(graph, SOURCE)
    await on_target(graph, TARGET)
    await migrate_bookkeeping(graph.target, "kg")
    await adopt(graph.write, "kg", MAP)
    yield graph
    for store in (vectors, *stores.values()):
        await store.close()
    postgres_admin(f"DROP DATABASE {name} WITH (FORCE)")


async def cycle(graph: TestGraph, *, batch_rows: int = 1000) -> SyncResult:
    result = await SyncEngine(MAP).run_cycle(graph.context(batch_rows=batch_rows))
    assert [table.error for table in result.tables if table.error] == []
    assert result.status is CycleStatus.DRAINED
    return result


async def letters(graph: TestGraph) -> set[tuple[str, tuple[str, ...]]]:
    return {(row["t"], tuple(row["key"])) for row in await read(graph, "SELECT table_name AS t, key FROM sync_dead_letter")}  # fmt: skip


async def landed(graph: TestGraph) -> dict[str, int]:
    [row] = await read(
        graph,
        "SELECT (SELECT count(*) FROM facts) AS facts, (SELECT count(*) FROM nodes) AS nodes,"
        " (SELECT count(*) FROM node_facts) AS links, (SELECT count(*) FROM pairs) AS pairs",
    )
    return dict(row)


async def verified(graph: TestGraph, *, repair: bool = False) -> Verification:
    context = graph.context()
    found = await verify(
        MAP, write=context.write, target=context.target, vectors=None, embedding="none", repair=repair,
        who="tester", why="a test",
    )  # fmt: skip
    assert [relation.problem for relation in found.relations if relation.problem] == []
    return found


def told(found: Verification, verdict: Verdict) -> set[tuple[str, tuple[str, ...]]]:
    return {
        (relation.name, key)
        for relation in found.relations
        if relation.kind.value == "rows"
        for key in relation.found(verdict).keys
    }


@pytest.mark.parametrize("batch_rows", [4, *further(1, 1000)])
async def test_a_row_whose_key_is_no_text_is_refused_alone(graph: TestGraph, batch_rows: int) -> None:
    await write(graph, ROWS)
    assert len(told(await verified(graph), Verdict.PENDING)) == 21  # two keys look the same
    result = await cycle(graph, batch_rows=batch_rows)
    assert result.dead_letters == len(REFUSED)
    assert await letters(graph) == REFUSED
    assert await landed(graph) == {"facts": 10, "nodes": 2, "links": 3, "pairs": 1}
    found = await verified(graph)
    assert found.equal
    assert told(found, Verdict.DEAD) == REFUSED
    assert (await cycle(graph)).failures == 0


@pytest.mark.long("test_a_row_whose_key_is_no_text_is_refused_alone")
async def test_a_cycle_that_is_cut_short_behind_such_a_key_goes_on_there(graph: TestGraph) -> None:
    await write(graph, ROWS)
    stored: set[bool] = set()

    class CutError(Exception):
        pass

    for _ in range(60):
        beats = count(1)

        def beat(_: object, beats: "count[int]" = beats) -> None:
            # The first tells what the cycle before has committed.
            if next(beats) > 1:
                raise CutError

        context = replace(graph.context(batch_rows=1), heartbeat=beat)
        try:
            await SyncEngine(MAP).run_cycle(context)
        except CutError:
            await graph.wait_until_free()
            cursors = await read(graph, "SELECT array_ndims(key) = 2 AS bytes FROM sync_cursor")
            stored |= {row["bytes"] for row in cursors}
            found = await verified(graph)
            assert not any(relation.damaged for relation in found.relations)
        else:
            break
    assert True in stored
    await cycle(graph)
    assert await letters(graph) == REFUSED
    assert await landed(graph) == {"facts": 10, "nodes": 2, "links": 3, "pairs": 1}


@pytest.mark.long("test_a_deleted_key_that_is_none_stops_nothing")
@pytest.mark.parametrize("batch_rows", [3, *further(1, 1000)])
async def test_deletes_of_such_keys_stop_no_other_delete(graph: TestGraph, batch_rows: int) -> None:
    await write(graph, ROWS)
    await cycle(graph)
    await write(
        graph,
        "DELETE FROM pair_rows; DELETE FROM node_rows WHERE id <> 'n1';"
        "DELETE FROM fact_rows WHERE id > 'f3' AND id <> '\\xe9'; DELETE FROM fact_rows WHERE id = raw('e9')",
    )
    found = await verified(graph)
    assert not any(relation.damaged for relation in found.relations)
    result = await cycle(graph, batch_rows=batch_rows)
    assert (result.dead_letters, result.failures) == (1, 0)
    assert await letters(graph) == {("facts", ("content",))}
    assert await landed(graph) == {"facts": 4, "nodes": 1, "links": 2, "pairs": 0}
    # The text that looks like the bytes of the deleted key is a key of its own.
    assert next(row["key"] for row in await read(graph, "SELECT key FROM facts ORDER BY key")) == "\\xe9"
    assert (await verified(graph)).equal


@pytest.mark.long("test_a_row_whose_key_is_no_text_is_refused_alone")
async def test_a_key_that_came_back_keeps_its_dead_letter(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO fact_rows VALUES (raw('e9'), 'x')")
    await cycle(graph)
    await write(graph, "DELETE FROM fact_rows; INSERT INTO fact_rows VALUES (raw('e9'), 'y')")
    assert (await cycle(graph)).dead_letters == 1
    # Renamed, it lands, and nothing is left of the old key.
    await write(graph, "UPDATE fact_rows SET id = 'e'")
    assert (await cycle(graph)).dead_letters == 0
    assert (await landed(graph))["facts"] == 1


@pytest.mark.long("test_a_row_whose_key_is_no_text_is_refused_alone")
async def test_such_rows_are_shown_explained_and_tried_again(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO fact_rows VALUES (raw('e9'), 'x'), ('\\xe9', 'text'), ('a', 'b')")
    rules = RetryRules(dead_letter_seconds=0, dead_letter_attempts=3)
    context = graph.context()
    place = context.target

    async def run() -> SyncResult:
        # Of one run all refusals of a version are one attempt.
        return await SyncEngine(MAP).run_cycle(replace(graph.context(), retry=rules))

    await run()
    letter = await show(place, "facts", ("\\xe9",))
    assert letter is not None
    assert (letter.key, letter.sqlstate) == (("\\xe9",), "22021")
    assert [each.key for each in (await list_dead_letters(place)).letters] == [("\\xe9",)]
    [group] = (await summarize(place)).groups
    assert (group.rows, group.example_key) == (1, ("\\xe9",))

    async def explained(table: str, key: str) -> tuple[RowState, bool]:
        row = await explain(context.write, place, context.vectors, MAP, table=table, key=(key,))
        return row.state, row.write.exists

    # A text is preferred; the same by its bytes where there is no such text.
    assert await explained("facts", "\\xe9") == (RowState.IN_STEP, True)
    await write(graph, "DELETE FROM fact_rows WHERE id = '\\xe9'")
    await run()
    await write(graph, "DELETE FROM kg.sync_tombstone")
    assert await explained("facts", "\\xe9") == (RowState.RETRYING, True)
    for _ in range(3):
        await run()
    assert await explained("facts", "\\xe9") == (RowState.DEAD, True)
    selection = Selection(table="facts", key=("\\xe9",))
    assert await retry(place, selection, by=Actor(who="tester", why="a test")) == 1
    assert (await run()).dead_letters == 1
    await write(graph, "DELETE FROM fact_rows WHERE id = raw('e9'); DELETE FROM kg.sync_tombstone")
    await retry(place, selection, by=Actor(who="tester", why="a test"))
    assert (await run()).dead_letters == 0


async def test_a_deleted_key_that_is_none_stops_nothing(graph: TestGraph) -> None:
    key = "k" * 1_000_000
    await write(graph, "INSERT INTO fact_rows VALUES ('a'), ('b')")
    await cycle(graph)
    await write(
        graph,
        "DELETE FROM fact_rows WHERE id = 'a';"
        "INSERT INTO sync_tombstone (source_table, key) VALUES ('fact_rows', '{}'), ('fact_rows', '{NULL}'),"
        " ('pair_rows', '{x}'), ('nobody', '{x}')",
    )
    await write(graph, "INSERT INTO sync_tombstone (source_table, key) VALUES ('fact_rows', ARRAY[$1])", key)
    await write(graph, "DELETE FROM fact_rows WHERE id = 'b'")
    result = await cycle(graph)
    assert (result.dead_letters, result.failures) == (0, 2)
    assert (await landed(graph))["facts"] == 0


async def test_keys_that_are_no_text_can_be_told_from_every_text() -> None:
    [raw] = key_of_bytes([b"a\xe9"])
    assert presented((raw, "b")) == ("\\x61e9", "b")
    assert readings(("\\x61e9",)) == (("\\x61e9",), (raw,))
    assert readings(("\\x61", "\\x6", "x", "\\xc3a9")) == (("\\x61", "\\x6", "x", "\\xc3a9"),)
    assert reading_of(("\\x61e9",), row_uuid((raw,))) == (raw,)
    assert reading_of(("\\x61e9",), row_uuid(("\\x61e9",))) == ("\\x61e9",)
    assert key_uuid(raw) != key_uuid("\\x61e9")
