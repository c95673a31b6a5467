"""Plans of each statement: none reads a table that grows from end to end, with statistics or without.

What each statement of a cycle reads of each table is counted while the cycle runs (`tests/kit/statement_reads.py`).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from syncline.engine import run_cycle
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.testing.graphs import TestGraph, on_target, write
from syncline.verify import verify
from tests.integration.test_plans import _FORGET, both, fill, pooled
from tests.kit.growing_statements import UNMEASURED, growing
from tests.kit.pages import replace_lines
from tests.kit.statement_reads import StatementReads

REFUSING = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF NEW.concept = 'poison' THEN RAISE check_violation; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON nodes FOR EACH ROW EXECUTE FUNCTION refuse()
"""
OTHERS = """
CREATE SCHEMA others;
CREATE FUNCTION others.nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
DO $$ BEGIN
    FOR number IN 1..300 LOOP
        EXECUTE format('CREATE TABLE others.t%s (a int, b int, c int, d int, e int, f int, g int, h int)', number);
        FOR one IN 1..5 LOOP
            EXECUTE format(
                'CREATE TRIGGER capture_%s BEFORE INSERT ON others.t%s FOR EACH ROW EXECUTE FUNCTION others.nothing()', one, number
            );
        END LOOP;
    END LOOP;
END $$
"""
STEPS = (
    # Rows, links and references, those too that have to wait for what they name.
    """
    INSERT INTO write_facts (id, content, dedup_status) VALUES ('new{n}', 'a fact', 'ready');
    INSERT INTO write_nodes (id, concept, parent_id, fact_ids) VALUES ('new{n}', 'a node', 'late{n}', '{{f3,late{n}}}');
    INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids)
        VALUES ('new{n}', 'n7', 'new{n}', 'x', '{{f2}}'), ('waits{n}', 'n7', 'late{n}', 'x', '{{}}');
    INSERT INTO write_llm_usage (id, model_id) VALUES ('new{n}', 'm');
    INSERT INTO write_nodes (id, concept) VALUES ('bad{n}', 'poison');
    UPDATE write_nodes SET concept = 'changed {n}', fact_ids = '{{f1,new{n}}}' WHERE id IN ('n1', 'n20', 'n300')
    """,
    # What they wait for arrives, and the next version of what was refused.
    """
    INSERT INTO write_nodes (id, concept) VALUES ('late{n}', 'a parent');
    INSERT INTO write_facts (id, content, dedup_status) VALUES ('late{n}', 'a late fact', 'ready');
    UPDATE write_nodes SET concept = 'good' WHERE id = 'bad{n}';
    INSERT INTO write_node_fact_rejections (node_id, fact_id) VALUES ('new{n}', 'f3')
    """,
    # Rows leave: those that depend on them, and links and references to them, wait.
    """
    DELETE FROM write_nodes WHERE id IN ('late{n}', 'n4{n}'); DELETE FROM write_facts WHERE id = 'late{n}';
    UPDATE write_facts SET dedup_status = 'duplicate' WHERE id = 'new{n}'; DELETE FROM write_edges WHERE id = 'e{n}'
    """,
)
MANY = """
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids)
    SELECT 'many' || i, 'n' || i * 107 % 300000, 'n' || i * 111 % 300000 + 1, 'x', ARRAY['f' || i * 100]
    FROM generate_series(1, 2500) i
"""
RETRIED = "UPDATE sync_dead_letter SET next_retry_at = now() WHERE key[1] LIKE 'bad%'"
OLD = "UPDATE sync_tombstone SET deleted_at = now() - interval '8 days' WHERE sync_xid = '3' AND seq <= 5000"
COVERED = frozenset(
    f"engine/{name}"
    for name in (
        "pending", "visible_look", "ledger_read", "ledger_commit", "position_write",
        "capture", "capture_by_key", "capture_deletes",
        "insert", "merge", "insert_links", "merge_links", "reject_links", "park_rows", "park_reference",
        "release_rows", "release_links", "release_reference", "unpark_rows", "unpark_references",
        "deletes_gone", "gone_absent", "gone_children", "remove_rows", "remove_links_of", "remove_links_to", "remove_reference_to",
        "remove_waiting", "stats", "insert_dead_letters", "resolve_dead_letters", "requeue_read", "requeue_done",
        "outbox_read", "outbox_filled", "outbox_mark_unconfirmed", "outbox_done", "outbox_left", "prune",
    )
)  # fmt: skip
"""What must have run, so that the check does not become one of less than it says."""
ALL_OF_IT: Mapping[str, str] = {
    "verify/": "verification compares all rows",
}
"""Statements that may read a table from end to end -> why."""
Measured = Mapping[str, Mapping[str, tuple[int, str]]]
"""What Postgres knows of its tables -> statement -> the most that it read of one table."""
LISTED = frozenset(
    f"engine/{name}"
    for name in (
        "adopt_stubs", "claims_held", "claims_holders", "counters", "gone_keyed_children", "gone_listed_children",
        "kept_give_way", "kept_landed", "kept_removed", "list_elsewhere", "list_kept", "list_known", "list_landed",
        "list_moved", "list_reference_beside", "list_remove", "list_unclear", "list_unmoved", "make_stubs", "mark_rows",
        "marked_aside", "name_stubs", "oust_stubs", "resolve_by_value", "stubs_aside", "stubs_left",
    )
)  # fmt: skip
"""What must have run where rows are listed beside the target, marked, or stubs (`test_listed_plans.py`)."""
ALSO_RUN = frozenset(
    f"engine/{name}"
    for name in (
        "asked_for", "checkpoint_take", "columns_known", "gone_counted", "gone_keyed_children", "gone_missing",
        "ledger_fence", "ledger_take", "list_default", "not_landed", "outbox_state", "recent_asked", "recent_deletes",
        "reject_parked", "reject_references", "requeue_rings", "retry_held", "retry_ring", "stage_released",
        "state_of_rows", "visible_advance",
    )
)  # fmt: skip
"""What runs too, as the table in docs/performance.md lists it, or only in some histories."""
_ROWS, _ENTRIES = 5_000_000, 1_000_000
_ROUNDS = 7
"""A plan for any parameters is made at the sixth execution."""


_EVERY: Final = (("statistics", "ANALYZE"), ("no statistics", _FORGET))


async def measured(
    graph: TestGraph, *, rows: int, entries: int, rounds: int, states: Sequence[tuple[str, str]] = _EVERY
) -> Measured:
    """Return what each statement read at most, by what Postgres knows of its tables."""
    await fill(graph, rows=rows, entries=entries)
    await on_target(graph, REFUSING)
    await write(graph, OLD)
    found = {}
    for number, (state, prepare) in enumerate(states):
        await both(graph, prepare)
        reads = StatementReads()
        async with pooled(graph) as fresh:
            for n in range(10 * number, 10 * number + rounds):
                for step in (*STEPS, None):
                    if step is None:
                        await on_target(graph, RETRIED)
                    else:
                        await write(graph, step.format(n=n))
                    with reads.counting():
                        result = await run_cycle(fresh.context())
                    assert result.failures <= 1, result  # what is refused
            if number == 0:
                context = fresh.context()
                with reads.counting():
                    await verify(
                        KNOWLEDGE_GRAPH,
                        write=context.write,
                        target=context.target,
                        vectors=None,
                        embedding="none",
                        tables=["facts", "edges"],
                    )
        found[state] = reads.most_read()
    return found


def too_much(found: Measured, *, most: int, of: str) -> list[str]:
    """Return the statements that read more than that of one table whose name fits, and may not."""
    return [
        f"{name}, {state}: {rows:,} of {table}"
        for state, statements in found.items()
        for name, (rows, table) in statements.items()
        if rows > most and re.search(of, table) and not name.startswith(tuple(ALL_OF_IT))
    ]


def missing(found: Measured, expected: Collection[str] = COVERED) -> set[str]:
    """Return the statements that should have run, and did not."""
    return {name for name in expected if not any(name in statements for statements in found.values())}


def test_every_statement_over_a_table_that_grows_is_measured_or_says_why_not() -> None:
    reasons = {name for names in UNMEASURED.values() for name in names.split()}
    measured = COVERED | LISTED | ALSO_RUN
    assert growing() - measured - reasons == set(), (
        "measure them, or give a reason in tests/kit/growing_statements.py"
    )
    assert reasons - growing() == set()
    assert reasons & measured == set()


@pytest.mark.timeout(300)
async def test_no_statement_reads_a_table_that_grows(graph: TestGraph) -> None:
    found = await measured(graph, rows=20_000, entries=40_000, rounds=2, states=_EVERY[1:])
    # Targets of so few pages are read whole where that is cheaper: the proof has more.
    assert too_much(found, most=1_500, of="^(sync|write)_") == []
    assert missing(found) == set()


async def test_no_statement_reads_what_the_catalogs_have_of_other_schemas(graph: TestGraph) -> None:
    """A fleet has hundreds of schemas in one database: an idle cycle would take longer for each."""
    for on in (write, on_target):
        await on(graph, OTHERS)
    reads = StatementReads(catalogs=True)
    async with pooled(graph) as fresh:
        await run_cycle(fresh.context())
        with reads.counting():
            for number, step in enumerate(("SELECT 1", *STEPS)):
                await write(graph, step.format(n=number))
                await run_cycle(fresh.context())
    assert too_much({"": reads.most_read()}, most=1_000, of="") == []


@pytest.mark.proof
@pytest.mark.timeout(3600)
async def test_no_statement_reads_a_table_of_five_million_rows_from_end_to_end(
    graph: TestGraph, request: pytest.FixtureRequest
) -> None:
    found = await measured(graph, rows=_ROWS, entries=_ENTRIES, rounds=_ROUNDS)
    assert too_much(found, most=2_000, of="") == []
    assert missing(found) == set()
    if request.config.getoption("--record-proofs") is not None:
        page = Path(__file__).parents[2] / "docs" / "performance.md"
        size = f"{_ROWS:,} rows, {_ENTRIES:,} entries of each kind"
        replace_lines(page, "proof:statements", table_of(found, size=size).splitlines())


@pytest.mark.proof
@pytest.mark.timeout(600)
async def test_a_batch_of_thousands_looks_up_what_is_a_hundred_times_as_many(graph: TestGraph) -> None:
    """As in a load, whose time would grow with the square of its rows."""
    await fill(graph, rows=1_500_000, entries=10)
    await both(graph, "ANALYZE")
    await write(graph, MANY)
    reads = StatementReads()
    async with pooled(graph) as fresh:
        with reads.counting():
            result = await run_cycle(fresh.context())
    assert result.failures == 0, result
    assert sum(table.captured for table in result.tables) == 2_500
    assert too_much({"": reads.most_read()}, most=40_000, of="") == []


def table_of(found: Measured, *, size: str) -> str:
    """Return the table of the docs: of each statement with a name, what it read most of."""
    names = sorted(
        {name for statements in found.values() for name in statements if re.match(r"\w+/\w+$", name)}
    )

    def cell(state: str, name: str) -> str:
        rows, table = found[state].get(name, (0, ""))
        return f"{rows:,} of `{table}`" if rows else ""

    lines = [f"| `{name}` | {' | '.join(cell(state, name) for state in found)} |" for name in names]
    head = f"| {size}: the most that one execution read of one table | {' | '.join(found)} |"
    return "\n".join([head, "|---|--:|--:|", *lines, ""])
