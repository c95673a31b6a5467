"""Plans of the statements for rows that are listed beside the target, marked, or stubs: none reads a table that grows."""

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

import pytest

from syncline.engine import SchemaMap, SyncEngine
from syncline.messages.sync import CycleStatus
from syncline.testing.graphs import TestGraph, on_target, write
from tests.integration.test_features_together import graph
from tests.integration.test_large_together import IDS, STAMPS, document
from tests.integration.test_listed_histories import THEIRS, change
from tests.integration.test_listed_rows import BOOK, site
from tests.integration.test_plans import _FREEZE, both, pooled
from tests.integration.test_shapes import made
from tests.integration.test_statement_plans import _EVERY, LISTED, Measured, missing, table_of, too_much
from tests.kit.pages import replace_lines
from tests.kit.statement_reads import StatementReads

__all__ = ["graph", "site"]

_ROWS: Final = 3_000_000
_OF_QUOTES: Final = frozenset(
    f"engine/{name}"
    for name in (
        "adopt_stubs", "counters", "gone_listed_children", "kept_give_way", "kept_landed", "kept_removed", "make_stubs",
        "mark_rows", "marked_aside", "name_stubs", "oust_stubs", "resolve_by_value", "stubs_aside", "stubs_left",
    )
)  # fmt: skip
_BOOK_ROWS: Final = """
INSERT INTO w_nodes SELECT 'n' || i, md5('n' || i)::uuid, 'N', 'n' || i / 2, ARRAY['n' || i / 3]
    FROM generate_series(1, {rows} / 3) i;
INSERT INTO w_sources SELECT 's' || i, 'http://s' || i, 'S', 's' || i / 2, ARRAY['s' || i / 3] FROM generate_series(1, {rows} / 3) i;
INSERT INTO w_pages SELECT 'n' || i, 1, 'text', 's' || i FROM generate_series(1, {rows} / 3) i
"""
_INDEXES: Final = """
CREATE INDEX ON nodes (parent_id); CREATE INDEX ON related (other); CREATE INDEX ON sources (origin);
CREATE INDEX ON cites (b); CREATE INDEX ON pages (source_id)
"""


async def measured(
    graph: TestGraph,
    schema_map: SchemaMap,
    changes: Sequence[Sequence[str]],
    *,
    states: Sequence[tuple[str, str]],
) -> Measured:
    """Return what each statement read at most in cycles with these changes, by what Postgres knows of its tables."""
    engine, found = SyncEngine(schema_map), {}
    for (state, prepare), steps in zip(states, changes, strict=True):
        await vacuum(graph)  # of what waited during the load
        await both(graph, prepare)
        reads = StatementReads()
        async with pooled(graph) as fresh:
            for step in steps:
                await write(graph, step)
                with reads.counting():
                    result = await engine.run_cycle(fresh.context())
                assert [table.error for table in result.tables if table.error] == []
        found[state] = reads.most_read()
    return found


async def vacuum(graph: TestGraph) -> None:
    for connect in (graph.connect_write, graph.connect_target):
        connection = await connect()
        await connection.execute("VACUUM")
        await connection.close()


async def loaded(graph: TestGraph, schema_map: SchemaMap) -> None:
    """Run cycles until all is there: a large table is read in turns with what comes meanwhile."""
    while (await SyncEngine(schema_map).run_cycle(graph.context())).status is not CycleStatus.DRAINED:
        pass


async def of_the_book(
    site: TestGraph, *, rows: int, rounds: int, states: Sequence[tuple[str, str]]
) -> Measured:
    """Rows whose ids come from a column, or are assigned, and change hands among so many that do not change."""
    await on_target(site, THEIRS + _INDEXES)
    await both(site, _FREEZE)
    await write(site, _BOOK_ROWS.format(rows=rows))
    await loaded(site, BOOK)
    random = Random(2)
    changes = [["; ".join(change(random) for _ in range(6)) for _ in range(rounds)] for _ in states]
    return await measured(site, BOOK, changes, states=states)


@pytest.mark.long("test_no_statement_reads_the_marked_rows_from_end_to_end")
@pytest.mark.timeout(300)
async def test_no_statement_reads_the_list_from_end_to_end(site: TestGraph) -> None:
    found = await of_the_book(site, rows=15_000, rounds=10, states=_EVERY[1:])
    assert too_much(found, most=1_500, of="^(sync|w)_") == []


async def of_quotes(graph: TestGraph, *, rows: int, states: Sequence[tuple[str, str]]) -> Measured:
    """Rows that are marked when they leave, under assigned ids, and stubs for what they refer to by a value."""
    quotes = await made(
        graph,
        re.sub(r"\n    vector: .*", "", document(IDS["assigned"][0])),
        source="CREATE TABLE src (id uuid PRIMARY KEY, hash text, uri text);"
        "CREATE TABLE quote (id text PRIMARY KEY, uid uuid, hash text, reply text, words text)",
        target=f"CREATE TABLE sources (id uuid PRIMARY KEY, hash text UNIQUE, uri text, quotes integer, {STAMPS});"
        f"CREATE TABLE quotes (id bigint {IDS['assigned'][2]} PRIMARY KEY, source_id uuid NOT NULL REFERENCES sources,"
        " reply_id bigint REFERENCES quotes, words text CHECK (words <> 'bad'), state text);"
        "CREATE UNIQUE INDEX ON quotes (source_id, words); CREATE INDEX ON quotes (reply_id)",
    )
    await both(graph, _FREEZE)
    one = "md5('{0}' || i)::uuid, 'h' || i, 'http' FROM generate_series({1}, {2}) i"
    new = "SELECT 'q' || i, md5('u' || i)::uuid, 'h' || i, 'q' || i / 2, 'w' || i FROM generate_series({0}, {1}) i"
    await write(
        graph,
        f"INSERT INTO src SELECT {one.format('h', 1, rows // 2)}; INSERT INTO quote {new.format(1, rows // 2)}",
    )
    await loaded(graph, quotes.map)
    changes = []
    for number in range(len(states)):
        at = rows + 100 * number
        changes.append(
            [
                f"INSERT INTO quote {new.format(at, at + 5)}; DELETE FROM quote WHERE id IN ('q{number + 1}', 'q{number + 11}')",
                f"UPDATE quote SET words = 'bad' WHERE id = 'q{at}'; UPDATE quote SET words = 'new' WHERE id = 'q{at + 1}'",
                f"INSERT INTO src SELECT {one.format('s', at, at + 2)}; UPDATE quote SET words = 'good' WHERE id = 'q{at}'",
                f"INSERT INTO quote {new.format(number + 1, number + 1)}; DELETE FROM quote WHERE id = 'q{at + 5}'",
                f"DELETE FROM src WHERE hash = 'h{number + 20}'; DELETE FROM quote WHERE id = 'q{number + 20}'",
            ]
        )
    return await measured(graph, quotes.map, changes, states=states)


@pytest.mark.timeout(300)
async def test_no_statement_reads_the_marked_rows_from_end_to_end(graph: TestGraph) -> None:
    found = await of_quotes(graph, rows=15_000, states=_EVERY[1:])
    assert too_much(found, most=1_500, of="^(sync|src|quote$)") == []
    assert missing(found, _OF_QUOTES) == set()


@pytest.mark.proof
@pytest.mark.timeout(3600)
async def test_no_statement_reads_three_million_listed_rows_from_end_to_end(
    site: TestGraph, request: pytest.FixtureRequest
) -> None:
    found = await of_the_book(site, rows=_ROWS, rounds=30, states=_EVERY)
    assert too_much(found, most=2_000, of="") == []
    assert missing(found, LISTED - _OF_QUOTES) == set()
    _record(request, "book", found)


@pytest.mark.proof
@pytest.mark.timeout(3600)
async def test_no_statement_reads_three_million_marked_rows_from_end_to_end(
    graph: TestGraph, request: pytest.FixtureRequest
) -> None:
    found = await of_quotes(graph, rows=_ROWS, states=_EVERY)
    assert too_much(found, most=2_000, of="") == []
    assert missing(found, _OF_QUOTES) == set()
    _record(request, "quotes", found)


def _record(request: pytest.FixtureRequest, name: str, found: Measured) -> None:
    """Write what only these maps run into its table of the docs."""
    if request.config.getoption("--record-proofs") is None:
        return
    page = Path(__file__).parents[2] / "docs" / "performance.md"
    only = {
        state: {each: read for each, read in reads.items() if each in LISTED}
        for state, reads in found.items()
    }
    replace_lines(page, f"proof:statements-{name}", table_of(only, size=f"{_ROWS:,} rows").splitlines())
