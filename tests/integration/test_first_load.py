"""First loads: keys, indexes and counts of empty tables are put off, put back as they were, or named as owed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.engine import KNOWLEDGE_GRAPH, SchemaMap, SyncEngine, first_load, owed, run_cycle
from syncline.engine.first_load import FirstLoad
from syncline.engine.keys import key_uuid
from syncline.engine.merge import PutOff
from syncline.engine.render.recount import Recount
from syncline.errors import StoreUnavailable
from syncline.messages.sync import CycleProgress, CycleStatus, SyncResult
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.truth import differences
from syncline.verify import verify

SEED = """
INSERT INTO write_raw_sources (id, title, content_hash) VALUES ('r1', 'One', 'h1'), ('r2', 'Two', 'h1'), ('r3', 'Three', 'h3');
INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready'), ('f2', 'two', 'ready');
INSERT INTO write_fact_sources (fact_id, raw_source_id) VALUES ('f1', 'r1'), ('f2', 'r3');
INSERT INTO write_nodes (id, concept, parent_id, source_concept_id, fact_ids)
    VALUES ('a', 'A', NULL, NULL, '{f1,f2}'), ('b', 'B', 'a', 'a', '{f1}'), ('c', 'C', 'z', NULL, '{f9}');
INSERT INTO write_node_fact_rejections (node_id, fact_id) VALUES ('a', 'f2');
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids, directed)
    VALUES ('ab', 'a', 'b', 'x', '{f1}', true), ('az', 'a', 'z', 'x', '{f2}', false);
INSERT INTO write_dimensions (id, node_id, model_id, content, fact_ids) VALUES ('d1', 'a', 'm', 'dim', '{f1}');
INSERT INTO write_convergence_reports (node_id, convergence_score) VALUES ('a', 0.5), ('b', 0.25);
INSERT INTO write_node_versions (id, node_id, version) VALUES ('v1', 'a', 1), ('v2', 'z', 2);
INSERT INTO write_prohibited_chunks (id, content_hash, chunk_text) VALUES ('p1', 'h1', 'no'), ('p9', 'h9', 'no');
"""
ARRIVES = """
INSERT INTO write_nodes (id, concept) VALUES ('z', 'Z');
INSERT INTO write_facts (id, content, dedup_status) VALUES ('f9', 'nine', 'ready');
"""
COUNTED = """
INSERT INTO write_nodes (id, concept, parent_id, fact_ids)
    SELECT 'n' || n, 'node ' || n, CASE WHEN n > 1 THEN 'n' || n / 2 END, '{f1}' FROM generate_series(1, 7) n;
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)
    SELECT 'e' || n, 'n' || n, 'a', 'x' FROM generate_series(1, 7) n;
"""
RECOUNTED = """
INSERT INTO write_nodes (id, concept, parent_id, fact_ids)
    SELECT 'm' || n, 'node', 'n' || n, '{f2}' FROM generate_series(1, 7) n;
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)
    SELECT 'ee' || n, 'n' || n, 'b', 'x' FROM generate_series(1, 7) n;
DELETE FROM write_edges WHERE id IN ('e1', 'e2', 'e3');
UPDATE write_nodes SET fact_ids = '{f1,f2}' WHERE id > 'n3';
DELETE FROM write_nodes WHERE id IN ('n6', 'n7');
"""
"""Changes the counts of every node, so also of those for which a page has counted."""
ALTERED = """
COMMENT ON CONSTRAINT edges_source_node_id_fkey ON edges IS 'It''s "ours"';
ALTER TABLE fact_sources ALTER CONSTRAINT fact_sources_fact_id_fkey DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE node_versions DROP CONSTRAINT node_versions_node_id_fkey;
ALTER TABLE node_versions ADD CONSTRAINT "Odd ""n"" ame" FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE NOT VALID;
CREATE INDEX "Lower; --" ON nodes (lower(concept), metadata) INCLUDE (visibility) WITH (fillfactor = 70) WHERE parent_id IS NULL;
ALTER INDEX "Lower; --" ALTER COLUMN 1 SET STATISTICS 7;
COMMENT ON INDEX "Lower; --" IS 'of readers';
ALTER TABLE edges CLUSTER ON edges_source_node_id;
ALTER TABLE edge_facts DISABLE TRIGGER ALL;
"""
"""What others may have said of keys and indexes; keys whose triggers are off cannot be put back as they were."""
CATALOG = """
SELECT jsonb_agg(o ORDER BY o ->> 0) FROM (
    SELECT jsonb_build_array(
        format('%s %s', k.conrelid::regclass, k.conname), pg_get_constraintdef(k.oid), to_jsonb(k) - 'oid',
        obj_description(k.oid, 'pg_constraint'),
        ARRAY(SELECT jsonb_build_array(t.tgrelid, t.tgfoid, t.tgenabled, t.tgdeferrable, t.tginitdeferred)
              FROM pg_trigger t WHERE t.tgconstraint = k.oid ORDER BY t.tgrelid, t.tgfoid)
    ) FROM pg_constraint k WHERE k.connamespace = current_schema()::regnamespace AND contype = 'f'
    UNION ALL
    SELECT jsonb_build_array(
        i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), to_jsonb(i) - '{indexrelid,indcheckxmin,indexprs,indpred}'::text[],
        obj_description(i.indexrelid, 'pg_class'), c.relowner, c.reloptions, c.reltablespace,
        ARRAY(SELECT a.attstattarget FROM pg_attribute a WHERE a.attrelid = c.oid ORDER BY a.attnum)
    ) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = current_schema()::regnamespace
) AS u (o)
"""
THERE = """
SELECT format('%s %s', k.conrelid::regclass, k.conname) AS name FROM pg_constraint k
WHERE k.connamespace = current_schema()::regnamespace AND contype = 'f'
UNION ALL SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relnamespace = current_schema()::regnamespace
UNION ALL
SELECT CASE kind WHEN 'index' THEN format('%I', name) ELSE format('%I %s', table_name, name) END FROM sync_owed
"""
DIES = """
CREATE SEQUENCE public.steps;
CREATE TABLE public.kill (at bigint);
CREATE FUNCTION public.die() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF nextval('steps') = (SELECT at FROM kill) THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
END $$;
CREATE EVENT TRIGGER die ON ddl_command_end EXECUTE FUNCTION public.die();
"""


@pytest.fixture(autouse=True)
def _every_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_load, "WORTH_ROWS", 1)


class _StoppedError(Exception):
    """Stops a cycle between two commits."""


async def _catalog(graph: TestGraph) -> object:
    [row] = await read(graph, CATALOG)
    return json.loads(row[0])


async def _names(graph: TestGraph) -> set[str]:
    return {row["name"] for row in await read(graph, THERE)}


async def _cycle(graph: TestGraph, seconds: float = 600) -> SyncResult:
    return await run_cycle(graph.context(seconds=seconds))


async def test_first_load_puts_everything_back_as_it_was(graph: TestGraph) -> None:
    """Whatever others have said of keys and indexes, and without a row more or less than a plain load has."""
    await on_target(graph, ALTERED)
    before = await _catalog(graph)
    await write(graph, SEED)
    result = await _cycle(graph)
    assert (result.status, result.failures, result.owed) == (CycleStatus.DRAINED, 0, ())
    assert {note.partition(" in the first load")[0] for note in result.load_notes} == {
        "edge_facts keeps foreign key edge_facts_edge_id_fkey",
        "edge_facts keeps foreign key edge_facts_fact_id_fkey",
    }
    assert await _catalog(graph) == before
    assert result.parked == 5  # as with the keys: a child, an edge, a version, a chunk and a link
    assert await differences(graph) == []
    await write(graph, ARRIVES)
    result = await _cycle(graph)
    assert (result.parked, result.load_notes) == (1, ())
    assert await differences(graph) == []
    assert (await _cycle(graph)).batches == 0


async def test_first_load_that_stops_between_batches_continues(graph: TestGraph) -> None:
    """Rows come and leave meanwhile: what hangs on them is removed, parked and counted without any key."""
    before = await _catalog(graph)
    await write(graph, SEED)

    def beat(progress: CycleProgress) -> None:
        if any(table.table == "edges" and table.captured for table in progress.tables):
            raise _StoppedError

    with pytest.raises(_StoppedError):
        await run_cycle(replace(graph.context(batch_rows=1), heartbeat=beat))
    await graph.wait_until_free()
    assert await read(graph, "SELECT FROM edges")
    await write(
        graph, "DELETE FROM write_facts WHERE id = 'f1'; DELETE FROM write_raw_sources WHERE id = 'r3'"
    )
    result = await _cycle(graph, seconds=0)
    assert (result.status, result.owes, result.idle) == (CycleStatus.BUDGET_SPENT, True, False)
    assert {owed.kind for owed in result.owed} == {"counts", "index", "foreign key"}
    result = await run_cycle(graph.context(batch_rows=1))
    assert (result.status, result.failures, result.owed) == (CycleStatus.DRAINED, 0, ())
    assert await _catalog(graph) == before
    assert await differences(graph) == []


@pytest.mark.parametrize("step", ["_place", "_validate"])
async def test_putting_back_waits_for_a_vacuum(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Nobody else waits meanwhile. Autovacuum comes when many rows did; Postgres cancels it after a second."""
    connection = await graph.connect_target()
    tasks: list[asyncio.Task[None]] = []

    async def vacuumed(target: asyncpg.Connection, each: owed.OwedObject) -> None:
        if not tasks:
            vacuum = connection.transaction()
            await vacuum.start()
            # What VACUUM holds.
            await connection.execute(f"LOCK TABLE kg.{each.table} IN SHARE UPDATE EXCLUSIVE MODE")

            async def ends() -> None:
                await asyncio.sleep(0.8)
                await vacuum.rollback()

            tasks.append(asyncio.create_task(ends()))
        await act(target, each)

    act = getattr(owed, step)
    monkeypatch.setattr(owed, step, vacuumed)
    await write(graph, SEED)
    result = await _cycle(graph)
    await asyncio.gather(*tasks)
    await connection.close()
    assert tasks
    assert (result.status, result.owed) == (CycleStatus.DRAINED, ())


async def test_a_row_that_breaks_a_key_is_told_until_it_leaves(graph: TestGraph) -> None:
    before = await _catalog(graph)
    await write(graph, SEED)
    await _cycle(graph, seconds=0)
    await on_target(graph, "INSERT INTO edge_facts VALUES (gen_random_uuid(), gen_random_uuid())")
    result = await _cycle(graph)
    assert (result.status, result.failures) == (CycleStatus.DRAINED, 0)
    assert {(owed.name, owed.not_valid) for owed in result.owed} == {
        ("edge_facts_edge_id_fkey", True),
        ("edge_facts_fact_id_fkey", True),
    }
    assert all("VALIDATE CONSTRAINT" in owed.statement and owed.problem for owed in result.owed)
    found = await verify(
        KNOWLEDGE_GRAPH,
        write=graph.context().write,
        target=graph.context().target,
        vectors=None,
        embedding=graph.embedding.name,
    )
    assert any("edge_facts_fact_id_fkey" in sentence for sentence in found.owed)
    await write(graph, ARRIVES)
    later = await _cycle(graph)
    assert (later.rows > 0, len(later.owed)) == (True, 2)  # sync goes on, and says so again
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await on_target(graph, "INSERT INTO edge_facts VALUES (gen_random_uuid(), gen_random_uuid())")
    assert len((await _cycle(graph)).owed) == 2  # not tried in each cycle, yet told in each
    await on_target(
        graph, "DELETE FROM edge_facts e WHERE NOT EXISTS (SELECT FROM edges WHERE id = e.edge_id)"
    )
    await on_target(graph, "UPDATE sync_state SET load_due_at = now()")
    assert (await _cycle(graph)).owed == ()
    assert await _catalog(graph) == before
    assert await differences(graph) == []


async def test_first_load_of_tables_of_others_puts_off_their_counts_alone(graph: TestGraph) -> None:
    """By a map of tables that Syncline has not made: no key leaves, and the counts are made once, at the end."""
    before = await _catalog(graph)
    engine = SyncEngine(SchemaMap(name="of others", tables=tuple(KNOWLEDGE_GRAPH)))
    await write(graph, SEED)

    def beat(progress: CycleProgress) -> None:
        if any(table.table == "edges" and table.captured for table in progress.tables):
            raise _StoppedError

    with pytest.raises(_StoppedError):
        await engine.run_cycle(replace(graph.context(batch_rows=1), heartbeat=beat))
    await graph.wait_until_free()
    assert await read(graph, "SELECT FROM node_facts")
    assert await read(graph, "SELECT FROM node_stats") == []
    assert await _catalog(graph) == before
    result = await engine.run_cycle(graph.context(seconds=0))
    assert [(owed.kind, owed.name) for owed in result.owed] == [("counts", "nodes")]
    result = await engine.run_cycle(graph.context())
    assert (result.status, result.failures, result.owed, result.load_notes) == (
        CycleStatus.DRAINED,
        0,
        (),
        (),
    )
    assert await differences(graph) == []


@pytest.mark.parametrize("between", ["nobody", "an earlier version", "another map"])
async def test_counts_of_large_tables_are_made_page_by_page(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    """Changes come between the pages, and are counted; so they are when a cycle dies after some of them.

    Where somebody had the graph meanwhile who counted otherwise, or not at all, pages begin anew.
    """
    run_page, after = Recount.run_page, list[str | None]()
    at = {2: RECOUNTED, 4: None, 6: ARRIVES}

    async def counted(self: Recount, *given: object, **named: object) -> str | None:
        after.append(named["after"])  # type: ignore[arg-type]
        if (come := at.get(len(after), "")) is None:
            raise _StoppedError
        if come:
            await write(graph, come)
        return await run_page(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Recount, "run_page", counted)
    monkeypatch.setattr(owed, "_AT_ONCE", 0)
    monkeypatch.setattr(owed, "_PAGE", 2)
    monkeypatch.setattr(first_load, "_SECONDS", 0.0)
    before = await _catalog(graph)
    await write(graph, SEED + COUNTED)
    with pytest.raises(_StoppedError):
        await _cycle(graph)
    await graph.wait_until_free()
    left = [row["kind"] for row in await read(graph, "SELECT DISTINCT kind FROM sync_owed ORDER BY 1")]
    assert left == ["counts", "foreign key"]  # pages find rows by indexes, which are back
    assert await read(
        graph, "SELECT FROM node_stats WHERE node_id IN (SELECT id FROM nodes WHERE key LIKE 'm%')"
    )
    if between == "an earlier version":
        await _uncounted_changes(graph, monkeypatch)
    if between == "another map":
        await on_target(graph, "UPDATE sync_owed SET statements[3] = 'another' WHERE kind = 'counts'")
    result = await _cycle(graph)
    assert (result.status, result.failures, result.owed) == (CycleStatus.DRAINED, 0, ())
    assert (after.count(None), len(after) > 6) == (1 if between == "nobody" else 2, True)
    assert await _catalog(graph) == before
    assert await differences(graph) == []


async def _uncounted_changes(graph: TestGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a cycle apply changes and die, as one of a version does that counts nothing while counts are owed."""

    async def dies(*given: object, **named: object) -> None:
        raise _StoppedError

    async def passes(*given: object) -> None:
        """Say nothing."""

    await write(
        graph, "DELETE FROM write_edges; INSERT INTO write_nodes (id, concept) VALUES ('later', 'later')"
    )
    with monkeypatch.context() as earlier:
        earlier.setattr(
            FirstLoad, "put_off", property(lambda self: PutOff(indexes=True, counts=frozenset({"nodes"})))
        )
        earlier.setattr(FirstLoad, "_go_on", passes)
        earlier.setattr(first_load, "put_back", dies)
        with pytest.raises(_StoppedError):
            await _cycle(graph)
    await graph.wait_until_free()


async def test_counts_are_made_at_once_where_an_index_for_pages_is_refused(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page would read whole tables."""
    monkeypatch.setattr(owed, "_AT_ONCE", 0)
    monkeypatch.setattr(owed, "_PAGE", 1)
    monkeypatch.setattr(owed, "_INDEX_LOCK_TIMEOUT", "SET LOCAL lock_timeout = '100ms'")
    monkeypatch.delattr(Recount, "run_page")
    await write(graph, SEED)
    await _cycle(graph, seconds=0)
    connection = await graph.connect_target()
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE kg.edges IN ROW EXCLUSIVE MODE")
            result = await _cycle(graph)
    finally:
        await connection.close()
    assert {each.table for each in result.owed} >= {"edges"}
    assert "counts" not in {each.kind for each in result.owed}
    assert await differences(graph) == []


async def test_owed_counts_of_a_table_that_left_the_map_are_forgotten(graph: TestGraph) -> None:
    await write(graph, SEED)
    await _cycle(graph)
    await on_target(
        graph,
        "INSERT INTO sync_owed (number, kind, table_name, name, statements) VALUES (1, 'counts', 'left', 'left', '{}');"
        "UPDATE sync_state SET load_below = 1, load_due_at = now()",
    )
    result = await _cycle(graph)
    assert (result.status, result.owed) == (CycleStatus.DRAINED, ())


@pytest.mark.parametrize("place", ["first", "middle", "last"])
async def test_first_load_killed_at_a_step_leaves_nothing_unnamed(graph: TestGraph, place: str) -> None:
    await _killed_at(graph, lambda steps: {"first": 1, "middle": steps // 2, "last": steps}[place])


@pytest.mark.proof
@pytest.mark.parametrize("part", range(10))
async def test_first_load_killed_at_every_step(graph: TestGraph, part: int) -> None:
    await _killed_at(graph, *(lambda steps, n=n: n for n in range(part * 25, part * 25 + 25)))


async def _killed_at(graph: TestGraph, *places: Callable[[int], int]) -> None:
    """Let Postgres end the cycle's session at statements that change the catalog; look, then continue."""
    before, names = await _catalog(graph), await _names(graph)
    await on_target(graph, DIES)
    await write(graph, SEED)
    await _cycle(graph)
    [(steps,)] = await read(graph, "SELECT last_value FROM public.steps")
    for place in places:
        if (at := place(steps)) > steps or at < 1:
            continue
        tables = ", ".join(
            row[0]
            for row in await read(
                graph,
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
                " AND relname NOT LIKE 'sync\\_%'",
            )
        )
        await on_target(
            graph,
            f"TRUNCATE {tables}, sync_cursor, sync_parked_row, sync_parked_reference, sync_outbox, sync_mapped CASCADE;"
            "UPDATE sync_state SET map_hash = NULL; SELECT setval('public.steps', 1, false); TRUNCATE public.kill;"
            f"INSERT INTO public.kill VALUES ({at})",
        )
        with pytest.raises(StoreUnavailable):
            await _cycle(graph)
        assert names <= await _names(graph), at
        await on_target(graph, "TRUNCATE public.kill")
        await graph.wait_until_free()
        result = await _cycle(graph)
        assert (result.status, result.failures, result.owed, result.parked) == (
            CycleStatus.DRAINED,
            0,
            (),
            5,
        ), at
        assert await _catalog(graph) == before, at
        assert await differences(graph, vectors=False) == [], at


async def test_first_load_leaves_tables_with_rows_and_those_of_others_alone(
    graph: TestGraph, new_database: Callable[..., str]
) -> None:
    before = await _catalog(graph)
    await on_target(
        graph,
        "INSERT INTO raw_sources (id, key, fetch_status, created_at, updated_at, sync_version)"
        f" VALUES ('{key_uuid('q')}', 'q', 'x', now(), now(), 1);"
        f"INSERT INTO facts VALUES ('{key_uuid('q')}', 'q', 'q', 'x', NULL, now(), now(), 1);"
        f"INSERT INTO fact_sources VALUES ('{key_uuid('q')}', '{key_uuid('q')}', NULL, NULL, now(), now(), 1)",
    )
    await write(graph, SEED)
    result = await _cycle(graph, seconds=0)
    owing = {owed.table for owed in result.owed}
    assert "fact_sources" not in owing
    assert "edges" in owing
    assert "fact_sources keeps its keys and indexes in the first load: it has rows." in result.load_notes
    await _cycle(graph)
    assert await _catalog(graph) == before


@pytest_asyncio.fixture(loop_scope="session")
async def worker(graph: TestGraph) -> AsyncIterator[TestGraph]:
    """The graph with a graph-db role that owns nothing."""
    await on_target(
        graph,
        """
    DO $$ BEGIN CREATE ROLE first_load_worker LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    GRANT USAGE ON SCHEMA kg, syncline TO first_load_worker;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA kg TO first_load_worker;
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA kg TO first_load_worker;
    """,
    )
    owner, dsn = graph.target, SecretStr(graph.target_dsn.replace("postgres@", "first_load_worker@"))
    graph.target = PostgresStore("graph", dsn, pool_size=2, application_name="worker")
    yield graph
    await graph.target.close()
    graph.target = owner
    await on_target(graph, "DROP OWNED BY first_load_worker")


async def test_first_load_without_ownership_is_plain_and_told(worker: TestGraph) -> None:
    before = await _catalog(worker)
    await write(worker, SEED)
    result = await _cycle(worker)
    assert (result.status, result.failures, result.owed) == (CycleStatus.DRAINED, 0, ())
    assert any("role first_load_worker does not own it" in note for note in result.load_notes)
    assert await _catalog(worker) == before
    assert await differences(worker) == []
