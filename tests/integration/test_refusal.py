"""Refused rows: a poison row harms only itself, is found with its SQLSTATE, and is tried again for a while."""

from dataclasses import replace

import pytest

from syncline.capture.install.install import adopt
from syncline.engine import SyncEngine, run_cycle
from syncline.engine.table_map import Column, Reference, SchemaMap, TableMap
from syncline.errors import StoreUnavailable
from syncline.messages.sync import CycleStatus, SyncResult, TableProgress
from syncline.operator.dead_letters import list_dead_letters, summarize
from syncline.provider import RetryRules
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.truth import differences
from tests.kit.cases import further


def of(result: SyncResult, table: str) -> TableProgress:
    return next(progress for progress in result.tables if progress.table == table)


async def poisoned(graph: TestGraph) -> None:
    """From now on the graph-db refuses nodes whose concept is 'poison'."""
    await on_target(graph, "ALTER TABLE nodes ADD CONSTRAINT no_poison CHECK (concept <> 'poison')")


LETTERS = "SELECT key[1] AS key, sqlstate, attempts, next_retry_at, constraint_name, fingerprint FROM sync_dead_letter ORDER BY 1"


@pytest.mark.parametrize("rows", [5_000, *further(50_000)])
async def test_one_percent_of_poison_in_many_rows_harms_only_itself(graph: TestGraph, rows: int) -> None:
    await poisoned(graph)
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT 'n' || i,"
        " CASE WHEN hashint4(i) % 100 = 0 THEN 'poison' ELSE 'c' END FROM generate_series(1, $1) i",
        rows,
    )
    connection = await graph.connect_write()
    poison = {
        row["id"] for row in await connection.fetch("SELECT id FROM write_nodes WHERE concept = 'poison'")
    }
    await connection.close()
    assert rows / 200 < len(poison) < rows / 80
    statements: list[str] = []
    async with graph.target.driver() as connection:
        connection.add_query_logger(lambda record: statements.append(record.query))
    result = await run_cycle(replace(graph.context(batch_rows=rows), embedding=_Silent()))
    nodes = of(result, "nodes")
    assert (nodes.rows, nodes.failures, nodes.dead_letters) == (
        rows - len(poison),
        len(poison),
        len(poison),
    )
    assert (nodes.error, result.batches, result.failures) == (None, 2, len(poison))
    letters = await read(graph, LETTERS)
    assert {row["key"] for row in letters} == poison
    assert {(row["sqlstate"], row["constraint_name"], row["attempts"]) for row in letters} == {
        ("23514", "no_poison", 1)
    }
    assert len({row["fingerprint"] for row in letters}) == 1
    # Each try is one statement of the worker, and one more that runs inside it; a cycle without poison has some too.
    of_merging = [statement for statement in statements if "outbox" not in statement]
    assert len(of_merging) * 2 < 24 * len(poison) + 100, len(of_merging) / len(poison)


class _Silent:
    """No embedding service is needed here, and thousands of texts take their time."""

    name = "silent"
    dimensions = 4

    async def embed(self, texts: list[str]) -> object:
        from syncline.errors import EmbeddingUnavailable

        raise EmbeddingUnavailable("silent", "not needed")

    async def close(self) -> None:
        return None


@pytest.mark.long(after=1)
@pytest.mark.parametrize("batch_rows", [7, *further(1, 1000)])
@pytest.mark.parametrize("poison", [[1], [1, 2, 3, 99, 100], *further([50], [100], list(range(1, 101)))])
async def test_refused_rows_are_found_wherever_they_stand(
    graph: TestGraph, poison: list[int], batch_rows: int
) -> None:
    await poisoned(graph)
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT to_char(i, 'FM000'),"
        " CASE WHEN i = ANY ($1::int[]) THEN 'poison' ELSE 'c' END FROM generate_series(1, 100) i",
        poison,
    )
    result = await run_cycle(graph.context(batch_rows=batch_rows))
    assert (result.status, of(result, "nodes").rows, result.dead_letters) == (
        CycleStatus.DRAINED, 100 - len(poison), len(poison)
    )  # fmt: skip
    assert [row["key"] for row in await read(graph, LETTERS)] == [f"{number:03}" for number in poison]


@pytest.mark.long("test_one_percent_of_poison_in_many_rows_harms_only_itself")
async def test_rows_that_only_together_are_refused_leave_one_of_them_out(graph: TestGraph) -> None:
    await on_target(graph, "CREATE UNIQUE INDEX one_concept ON nodes (concept)")
    await write(
        graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'same'), ('b', 'same'), ('c', 'other')"
    )
    result = await run_cycle(graph.context())
    assert (of(result, "nodes").rows, result.dead_letters) == (2, 1)
    [letter] = await read(graph, LETTERS)
    assert letter["sqlstate"] == "23505"
    await write(graph, f"UPDATE write_nodes SET concept = 'different' WHERE id = '{letter['key']}'")
    assert (await run_cycle(graph.context())).dead_letters == 0
    assert await differences(graph) == []


@pytest.mark.long("test_one_percent_of_poison_in_many_rows_harms_only_itself")
async def test_a_constraint_that_is_deferred_to_the_commit_finds_its_row_too(graph: TestGraph) -> None:
    await on_target(
        graph, "ALTER TABLE nodes ADD CONSTRAINT one_concept UNIQUE (concept) DEFERRABLE INITIALLY DEFERRED"
    )
    await write(
        graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'same'), ('b', 'same'), ('c', 'other')"
    )
    result = await run_cycle(graph.context())
    assert (of(result, "nodes").rows, result.dead_letters, result.status) == (2, 1, CycleStatus.DRAINED)


async def test_retries_wait_twice_as_long_each_time_and_end(graph: TestGraph) -> None:
    await poisoned(graph)
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'poison')")
    waits = []
    for attempt in range(1, 6):
        result = await run_cycle(graph.context())
        assert of(result, "nodes").failures == 1
        [letter] = await read(graph, "SELECT *, next_retry_at - last_failed_at AS wait FROM sync_dead_letter")
        assert letter["attempts"] == attempt
        waits.append(letter["wait"] and round(letter["wait"].total_seconds()))
        # Before its time it is not tried again.
        assert (await run_cycle(graph.context())).batches == 0
        await on_target(
            graph, "UPDATE sync_dead_letter SET next_retry_at = now() WHERE next_retry_at IS NOT NULL"
        )
    assert waits == [60, 120, 240, 480, None]
    assert (await run_cycle(graph.context())).batches == 0  # dead, until somebody asks


@pytest.mark.long("test_retries_wait_twice_as_long_each_time_and_end")
async def test_how_often_and_how_soon_are_settings(graph: TestGraph) -> None:
    await poisoned(graph)
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'poison')")
    rules = RetryRules(dead_letter_seconds=7, dead_letter_attempts=2)
    await run_cycle(replace(graph.context(), retry=rules))
    [letter] = await read(graph, "SELECT next_retry_at - last_failed_at AS wait FROM sync_dead_letter")
    assert round(letter["wait"].total_seconds()) == 7
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    await run_cycle(replace(graph.context(), retry=rules))
    assert [row["next_retry_at"] for row in await read(graph, LETTERS)] == [None]


async def test_a_newer_version_takes_the_dead_letter_with_it(graph: TestGraph) -> None:
    await poisoned(graph)
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'poison'), ('b', 'poison')")
    await run_cycle(graph.context())
    await on_target(graph, "UPDATE sync_dead_letter SET attempts = 4")
    await write(graph, "UPDATE write_nodes SET concept = CASE id WHEN 'a' THEN 'good' ELSE concept END")
    result = await run_cycle(graph.context())
    assert (of(result, "nodes").rows, result.dead_letters) == (1, 1)
    [letter] = await read(graph, LETTERS)
    assert (letter["key"], letter["attempts"]) == ("b", 1)
    await write(graph, "DELETE FROM write_nodes WHERE id = 'b'")
    assert (await run_cycle(graph.context())).dead_letters == 0
    assert await differences(graph) == []


async def test_a_retry_that_succeeds_lands_the_row_and_releases_what_waited(graph: TestGraph) -> None:
    await poisoned(graph)
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) VALUES ('a', 'poison'), ('b', 'B');"
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type) VALUES ('e', 'a', 'b', 'x')",
    )
    result = await run_cycle(graph.context())
    assert (result.dead_letters, result.parked) == (1, 1)  # told apart
    await on_target(graph, "ALTER TABLE nodes DROP CONSTRAINT no_poison")
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    result = await run_cycle(graph.context())
    assert (result.dead_letters, result.parked, result.status) == (0, 0, CycleStatus.DRAINED)
    assert await differences(graph) == []


async def test_a_row_without_its_required_parent_is_refused_instead_of_waiting_for_ever(
    graph: TestGraph,
) -> None:
    await write(graph, "ALTER TABLE write_node_versions ALTER node_id DROP NOT NULL")
    await write(graph, "INSERT INTO write_node_versions (id, node_id, version) VALUES ('v', NULL, 1)")
    result = await run_cycle(graph.context())
    assert (result.parked, result.dead_letters) == (0, 1)
    assert [row["sqlstate"] for row in await read(graph, LETTERS)] == ["23502"]


async def test_a_link_that_is_refused_is_its_owners_dead_letter(graph: TestGraph) -> None:
    await on_target(
        graph,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'not this one' USING ERRCODE = 'P0001'; END $$",
    )
    await on_target(
        graph,
        "CREATE TRIGGER no BEFORE INSERT ON node_facts FOR EACH ROW"
        " WHEN (NEW.fact_id = syncline.key_uuid('f2')) EXECUTE FUNCTION no()",
    )
    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'F', 'ready');"
        "INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('a', 'A', '{f1}'), ('b', 'B', '{f2}')",
    )
    await run_cycle(graph.context())
    # The link of 'b' waits; that it is refused when it is released does not hold back its fact.
    await write(graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f2', 'F', 'ready')")
    result = await run_cycle(graph.context())
    assert (result.status, of(result, "facts").rows, result.dead_letters) == (CycleStatus.DRAINED, 1, 1)
    assert [(row["key"], row["sqlstate"]) for row in await read(graph, LETTERS)] == [("b", "P0001")]
    await on_target(graph, "DROP TRIGGER no ON node_facts")
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    await run_cycle(graph.context())
    assert await differences(graph) == []


async def test_a_delete_that_is_refused_holds_back_no_other(graph: TestGraph) -> None:
    await write(
        graph, "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, 20) i"
    )
    await run_cycle(graph.context())
    await on_target(graph, "CREATE TABLE theirs (node uuid REFERENCES nodes)")
    await on_target(graph, "INSERT INTO theirs VALUES (syncline.key_uuid('n7'))")
    await write(graph, "DELETE FROM write_nodes")
    result = await run_cycle(graph.context())
    assert (of(result, "nodes").deletes, of(result, "nodes").failures, result.status) == (
        19,
        1,
        CycleStatus.DRAINED,
    )
    assert [(row["key"], row["sqlstate"]) for row in await read(graph, LETTERS)] == [("n7", "23503")]
    for attempts in (2, 3):
        await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
        await run_cycle(graph.context())
        assert [row["attempts"] for row in await read(graph, LETTERS)] == [attempts]
    await on_target(graph, "DROP TABLE theirs")
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    assert (await run_cycle(graph.context())).dead_letters == 0
    assert await read(graph, "SELECT FROM nodes") == []


@pytest.mark.long(after=1)
@pytest.mark.parametrize("batch_rows", [3, 1000])
async def test_a_row_that_cannot_even_be_read_harms_only_itself(graph: TestGraph, batch_rows: int) -> None:
    await write(graph, "CREATE TABLE w (id text PRIMARY KEY, v text)")
    await on_target(
        graph, "CREATE TABLE t (id uuid PRIMARY KEY, key text, v text, sync_version bigint, sync_run bigint)"
    )
    schema_map = SchemaMap(
        name="one",
        tables=(TableMap(name="t", source="w", columns=(Column(name="v"),), present="v::int > 0"),),
    )
    await adopt(graph.write, "kg", schema_map)
    await write(
        graph,
        "INSERT INTO w SELECT i::text, CASE WHEN i % 10 = 0 THEN 'no' ELSE '1' END FROM generate_series(1, 30) i",
    )
    engine = SyncEngine(schema_map)
    result = await engine.run_cycle(graph.context(batch_rows=batch_rows))
    assert (of(result, "t").rows, result.dead_letters, result.status) == (27, 3, CycleStatus.DRAINED)
    assert {row["sqlstate"] for row in await read(graph, LETTERS)} == {"22P02"}
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    assert (await engine.run_cycle(graph.context())).dead_letters == 3  # by key it cannot be read either
    await write(graph, "UPDATE w SET v = '1' WHERE v = 'no'")
    assert (await engine.run_cycle(graph.context())).dead_letters == 0
    assert len(await read(graph, "SELECT FROM t")) == 30


async def test_keys_too_long_for_an_index_wait_and_are_refused_like_others(graph: TestGraph) -> None:
    key = "é" + "".join(
        chr(0x4E00 + (i * 7919) % 20000) for i in range(850)
    )  # 2,552 bytes that hardly compress
    await poisoned(graph)
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ($1, 'poison')", key)
    await write(
        graph,
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type) VALUES ($1, 'x', 'x', 'x')",
        key,
    )
    result = await run_cycle(graph.context())
    assert (result.parked, result.dead_letters, result.status) == (1, 1, CycleStatus.DRAINED)


async def test_a_table_that_refuses_everything_says_so_instead_of_filling_the_books(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.engine.dead_letters._TOO_MANY", 100)
    await poisoned(graph)
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'poison' FROM generate_series(1, 200) i",
    )
    await write(graph, "INSERT INTO write_llm_usage (id, model_id) VALUES ('u', 'm')")
    result = await run_cycle(graph.context())
    error = of(result, "nodes").error
    assert error is not None
    assert "23514" in error
    assert (result.status, of(result, "llm_usage").rows, result.dead_letters) == (CycleStatus.FAILED, 1, 0)
    await on_target(graph, "ALTER TABLE nodes DROP CONSTRAINT no_poison")
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    assert await differences(graph) == []


async def test_a_table_that_refuses_everything_does_not_quote_its_rows(
    graph: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.engine.dead_letters._TOO_MANY", 10)
    await on_target(graph, "ALTER TABLE nodes ADD CHECK (concept::int > 0)")
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'secret ' || i FROM generate_series(1, 20) i",
    )
    error = of(await run_cycle(graph.context()), "nodes").error or ""
    assert "[22P02] invalid input syntax for type integer …" in error
    assert "secret" not in error


async def test_a_poison_row_does_not_harm_the_families_that_it_arrives_with(graph: TestGraph) -> None:
    await poisoned(graph)
    # Grandparents last, in the order of their keys; and one child of the refused row.
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept, parent_id)"
        " SELECT 'n' || i, CASE i WHEN 150 THEN 'poison' ELSE 'c' END,"
        "        CASE i WHEN 7 THEN 'n150' WHEN 300 THEN NULL ELSE 'n' || i + 1 END FROM generate_series(1, 300) i",
    )
    result = await run_cycle(graph.context())
    assert (of(result, "nodes").failures, result.dead_letters) == (1, 1)
    landed = await read(graph, "SELECT key, parent_id FROM nodes WHERE key NOT IN ('n300', 'n149', 'n7')")
    assert len(landed) == 296
    assert all(row["parent_id"] for row in landed)
    waiting = await read(graph, "SELECT waits_for_key FROM sync_parked_reference")
    assert [row["waits_for_key"] for row in waiting] == ["n150", "n150"]
    await write(graph, "UPDATE write_nodes SET concept = 'mended' WHERE id = 'n150'")
    await run_cycle(graph.context())
    assert await differences(graph) == []


@pytest.mark.long("test_a_delete_that_is_refused_holds_back_no_other")
async def test_a_removal_that_is_refused_takes_no_waiting_version_of_others_along(graph: TestGraph) -> None:
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept) VALUES ('n', 'N');"
        "INSERT INTO write_node_versions (id, node_id, version) SELECT 'v' || i, 'n', i FROM generate_series(1, 6) i",
    )
    await run_cycle(graph.context())
    await on_target(graph, "CREATE TABLE theirs (version uuid REFERENCES node_versions)")
    await on_target(graph, "INSERT INTO theirs VALUES (syncline.key_uuid('v3'))")
    # The landed versions have to leave, since those that replace them wait; the graph-db keeps one of them.
    await write(graph, "UPDATE write_node_versions SET node_id = 'later'")
    result = await run_cycle(graph.context())
    assert (of(result, "node_versions").deletes, result.dead_letters) == (5, 1)
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('later', 'L')")
    await run_cycle(graph.context())
    landed = await read(
        graph,
        "SELECT key FROM node_versions WHERE node_id = syncline.key_uuid('later') AND key <> 'v3' ORDER BY 1",
    )
    assert [row["key"] for row in landed] == ["v1", "v2", "v4", "v5", "v6"]


async def test_what_waits_for_a_row_is_released_though_a_link_of_the_row_is_refused(graph: TestGraph) -> None:
    await on_target(
        graph,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'not this one' USING ERRCODE = 'P0001'; END $$",
    )
    await on_target(graph, "CREATE TRIGGER no BEFORE INSERT ON node_facts FOR EACH ROW EXECUTE FUNCTION no()")
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept, parent_id) VALUES ('child', 'C', 'a'), ('b', 'B', NULL);"
        "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)"
        " VALUES ('e', 'a', 'b', 'x')",
    )
    assert (await run_cycle(graph.context())).parked == 2
    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f', 'F', 'ready');"
        "INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('a', 'A', '{f}')",
    )
    result = await run_cycle(graph.context())
    assert [(row["key"], row["sqlstate"]) for row in await read(graph, LETTERS)] == [("a", "P0001")]
    assert (of(result, "edges").rows, result.parked) == (1, 0)
    [child] = await read(
        graph, "SELECT parent_id = syncline.key_uuid('a') AS there FROM nodes WHERE key = 'child'"
    )
    assert child["there"]
    await on_target(graph, "DROP TRIGGER no ON node_facts")
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    await run_cycle(graph.context())
    assert await differences(graph) == []


@pytest.mark.long("test_one_percent_of_poison_in_many_rows_harms_only_itself")
async def test_the_reference_of_a_version_that_was_refused_is_not_set_on_the_one_before(
    graph: TestGraph,
) -> None:
    await poisoned(graph)
    await write(
        graph,
        "INSERT INTO write_nodes (id, concept, parent_id) VALUES ('p', 'P', NULL), ('r', 'R', 'p'), ('s', 'S', 'p')",
    )
    await run_cycle(graph.context())
    await write(
        graph,
        "UPDATE write_nodes SET parent_id = 'later', concept = CASE id WHEN 'r' THEN 'poison' ELSE concept END"
        " WHERE id IN ('r', 's')",
    )
    assert (await run_cycle(graph.context())).dead_letters == 1
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('later', 'L')")
    await run_cycle(graph.context())
    parents = await read(
        graph, "SELECT c.key, p.key AS parent FROM nodes c JOIN nodes p ON p.id = c.parent_id ORDER BY 1"
    )
    assert [(row["key"], row["parent"]) for row in parents] == [("r", "p"), ("s", "later")]
    await write(graph, "UPDATE write_nodes SET concept = 'mended' WHERE id = 'r'")
    await run_cycle(graph.context())
    assert await differences(graph) == []


@pytest.mark.long(after=1)
@pytest.mark.parametrize("sqlstate", ["40P01", "55P03", "53200"])
async def test_trouble_of_the_store_while_offenders_are_found_is_worth_a_retry(
    graph: TestGraph, sqlstate: str
) -> None:
    # The whole is refused for a row; the first of its parts meets another transaction.
    await on_target(
        graph,
        "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF current_query() LIKE '%syncline.try_part%' THEN RAISE 'busy' USING ERRCODE = '{sqlstate}'; END IF;"
        " RAISE 'no' USING ERRCODE = '23514'; END $$",
    )
    await on_target(
        graph, "CREATE TRIGGER trouble BEFORE INSERT ON nodes FOR EACH ROW EXECUTE FUNCTION trouble()"
    )
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'A'), ('b', 'B')")
    with pytest.raises(StoreUnavailable, match=f"SQLSTATE {sqlstate}"):
        await run_cycle(graph.context())


async def test_a_graph_db_that_only_reads_after_a_failover_is_worth_a_retry(graph: TestGraph) -> None:
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('a', 'A')")
    async with graph.target.driver() as connection:
        await connection.execute("SET default_transaction_read_only = on")
        # The one connection of the pool that is free is the next to be used.
    with pytest.raises(StoreUnavailable, match="25006"):
        await run_cycle(graph.context())


async def test_a_row_that_cannot_be_kept_while_it_waits_harms_only_itself(graph: TestGraph) -> None:
    await write(graph, "CREATE TABLE w (id text PRIMARY KEY, parent text, other text, v json)")
    await write(graph, "CREATE TABLE q (id text PRIMARY KEY)")
    books = "key text, sync_version bigint, sync_run bigint"
    await on_target(graph, f"CREATE TABLE p (id uuid PRIMARY KEY, {books})")
    await on_target(
        graph,
        f"CREATE TABLE t (id uuid PRIMARY KEY, parent uuid REFERENCES p, other uuid REFERENCES p, v json, {books})",
    )
    schema_map = SchemaMap(
        name="two",
        tables=(
            TableMap(name="p", source="q"),
            TableMap(
                name="t",
                source="w",
                columns=(Column(name="v", type="json"),),
                references=(
                    Reference(column="parent", parent="p", required=True),
                    Reference(column="other", parent="p", required=True),
                ),
            ),
        ),
    )
    await adopt(graph.write, "kg", schema_map)
    await on_target(
        graph,
        "ALTER TABLE sync_parked_row ADD CONSTRAINT no_poison CHECK (image ->> 'v' NOT LIKE '%poison%')",
    )
    await write(
        graph,
        "INSERT INTO q VALUES ('here');"
        "INSERT INTO w SELECT i::text, CASE WHEN i % 2 = 0 THEN 'here' ELSE 'later' END,"
        " CASE WHEN i > 15 THEN 'here' ELSE 'later' END,"
        ' CASE WHEN i % 10 IN (0, 3) THEN \'{"a": "poison"}\' ELSE \'{"a": 1}\' END::json'
        " FROM generate_series(1, 20) i",
    )
    engine = SyncEngine(schema_map)
    result = await engine.run_cycle(graph.context())
    # Of 3, 10, 13 and 20 the last waits for nobody.
    assert (of(result, "t").error, of(result, "t").rows, result.parked) == (None, 3, 14)
    letters = await read(graph, LETTERS)
    assert [(row["key"], row["sqlstate"]) for row in letters] == [
        ("10", "23514"),
        ("13", "23514"),
        ("3", "23514"),
    ]
    await write(graph, "INSERT INTO q VALUES ('later')")
    await on_target(graph, "UPDATE sync_dead_letter SET next_retry_at = now()")
    result = await engine.run_cycle(graph.context())
    assert (result.parked, result.dead_letters) == (0, 0)
    assert len(await read(graph, "SELECT FROM t")) == 20


@pytest.mark.long(after=1)
@pytest.mark.parametrize("rows", [1, 40])
async def test_dead_letter_of_a_trigger_is_told_without_its_words(graph: TestGraph, rows: int) -> None:
    """Whatever SQLSTATE and constraint it names, and whether the batch was tried in parts or failed as it was."""
    await on_target(
        graph,
        "CREATE FUNCTION ban() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.concept LIKE '%@%' THEN"
        " RAISE EXCEPTION 'customer % is banned', NEW.concept USING ERRCODE = '23514', CONSTRAINT = NEW.concept;"
        " END IF; RETURN NEW; END $$",
    )
    await on_target(graph, "CREATE TRIGGER ban BEFORE INSERT ON nodes FOR EACH ROW EXECUTE FUNCTION ban()")
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n0', 'ada@example.com')")
    await write(
        graph,
        f"INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'c' FROM generate_series(1, {rows - 1}) i",
    )
    assert (await run_cycle(graph.context())).dead_letters == 1
    target = graph.context().target
    page, summary = await list_dead_letters(target), await summarize(target)
    assert [letter.sqlstate for letter in page.letters] == ["23514"]
    assert "ada@" not in page.model_dump_json() + summary.model_dump_json()
    [row] = await read(graph, "SELECT message FROM sync_dead_letter")
    assert row["message"] == "customer ada@example.com is banned"
