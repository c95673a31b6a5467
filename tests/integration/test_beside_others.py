"""Rows of readers, where bookkeeping stands beside: what leaves the write-db before it landed takes none of them."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import SyncEngine
from syncline.maps.document import read_map
from syncline.messages.sync import CycleStatus
from syncline.testing.graphs import TestGraph, on_target, read, write
from tests.integration.test_shapes import made
from tests.kit.bare_graph import bare_graph

NAMESPACE = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"
RULES = {
    "hash": ("rule: hash", "syncline.key_uuid('a')"),
    "uuid5": (f"rule: uuid5, namespace: {NAMESPACE}", f"syncline.uuid5('{NAMESPACE}'::uuid, 'a')"),
    "expression": ("rule: expression, type: uuid, expression: md5($1)::uuid", "md5('a')::uuid"),
}


@pytest_asyncio.fixture(loop_scope="session")
async def graph(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield graph


SOURCE = """
CREATE TABLE p (id text PRIMARY KEY, title text); CREATE TABLE s (p text PRIMARY KEY, score integer);
CREATE TABLE c (id text PRIMARY KEY, p text, o text, arr text[]);
"""
TARGET = """
CREATE TABLE ps (id uuid PRIMARY KEY, title text, score integer, n bigint DEFAULT 0);
CREATE TABLE cs (id uuid PRIMARY KEY, key text, p uuid REFERENCES ps, o uuid REFERENCES ps, sync_version bigint, sync_run bigint);
CREATE TABLE c_ps (c uuid REFERENCES cs, p uuid REFERENCES ps, PRIMARY KEY (c, p));
"""


def shop(rule: str, mark: str = "") -> str:
    return f"""
  ps:
    source: p
    id: {{{rule}, beside: true}}
    columns: [title]
    stats: {{columns: {{n: {{counted: cs, by: p}}}}}}
    vector: {{collection: ps, text: t.title, payload: {{title: t.title}}}}
{mark}  sc: {{source: s, key: p, into: ps, columns: {{score: integer}}}}
  cs:
    source: c
    references: {{p: ps, o: {{parent: ps, required: false}}}}
    links: {{c_ps: {{source: arr, owner: c, member: p, parent: ps}}}}
"""


MARKED = "    marked: {title: \"'gone'\"}\n"


@pytest.mark.parametrize(
    ("rule", "mark"),
    [
        ("hash", MARKED),
        ("hash", ""),
        ("uuid5", MARKED),
        ("uuid5", ""),
        ("expression", MARKED),
        ("expression", ""),
    ],
    ids=["hash, marked", "hash", "uuid5, marked", "uuid5", "expression, marked", "expression"],
)
@pytest.mark.long(after=1)
async def test_what_left_before_it_landed_takes_no_row_of_readers(
    graph: TestGraph, rule: str, mark: str
) -> None:
    says, made_id = RULES[rule]
    site = await made(graph, shop(says, mark), source=SOURCE, target=TARGET)
    await on_target(graph, f"INSERT INTO kg.ps VALUES ({made_id}, 'readers', 7, 5)")
    await write(graph, "INSERT INTO p VALUES ('b', 'B'); INSERT INTO c VALUES ('x', 'b', NULL, '{b}')")
    await site.cycle()
    row = "SELECT title, score, n FROM kg.ps ORDER BY title"
    queued = f"SELECT true FROM kg.sync_outbox WHERE point_id = {made_id}"
    await on_target(graph, "DELETE FROM kg.sync_outbox")
    # What refers to it waits for it, or names the readers' row: nothing of that row changes.
    await write(graph, "INSERT INTO p VALUES ('a', 'A'); INSERT INTO s VALUES ('a', 3)")
    await write(graph, "INSERT INTO c VALUES ('y', 'a', NULL, '{a}'), ('z', 'b', 'a', '{a}')")
    await write(graph, "DELETE FROM p WHERE id = 'a'")
    await site.cycle()
    [b, theirs] = await site.rows(row)
    assert (b["title"], theirs["title"], theirs["score"]) == ("B", "readers", 7)
    assert await site.rows(queued) == []
    await site.equal()
    await write(graph, "DELETE FROM s; DELETE FROM c WHERE id <> 'x'")
    await site.cycle()
    assert [tuple(each.values())[:2] for each in await site.rows(row)] == [("B", None), ("readers", 7)]
    # Once it has landed it is ours, and leaves or is marked like any other.
    await write(graph, "INSERT INTO s VALUES ('a', 3); INSERT INTO p VALUES ('a', 'A')")
    await site.cycle()
    assert [tuple(each.values())[:2] for each in await site.rows(row)] == [("A", 3), ("B", None)]
    await write(graph, "DELETE FROM p WHERE id = 'a'")
    await site.cycle()
    assert [each["title"] for each in await site.rows(row)] == (["B", "gone"] if mark else ["B"])


@pytest.mark.long(after=1)
@pytest.mark.parametrize("rule", ["uuid5", "hash", "expression"])
async def test_what_leaves_while_the_map_begins_to_list_rows_leaves_the_target(
    graph: TestGraph, rule: str
) -> None:
    says, _ = RULES[rule]

    def document(own: str) -> str:
        return f"  ps: {{source: p, id: {{{own}}}, columns: [title]}}\n"

    site = await made(
        graph,
        document(says),
        source="CREATE TABLE p (id text PRIMARY KEY, title text)",
        target="CREATE TABLE ps (id uuid PRIMARY KEY, key text, title text, sync_version bigint, sync_run bigint)",
    )
    await write(graph, "INSERT INTO p VALUES ('a', 'A'), ('b', 'B')")
    await site.cycle()
    await on_target(graph, "INSERT INTO kg.ps (id, title) VALUES (gen_random_uuid(), 'readers')")
    now = read_map(f"version: 1\nname: shapes\ntables:\n{document(f'{says}, beside: true')}", source="now")
    await adopt(graph.write, "kg", now)
    await write(graph, "DELETE FROM p WHERE id = 'a'")
    result = await SyncEngine(now).run_cycle(graph.context())
    assert result.status is CycleStatus.DRAINED
    assert await read(graph, "SELECT title FROM ps ORDER BY 1") == [("B",), ("readers",)]
    assert await read(graph, "SELECT key[1] FROM sync_row") == [("b",)]


async def test_what_was_parked_before_readers_made_a_row_waits_for_ours(graph: TestGraph) -> None:
    says, made_id = RULES["hash"]
    site = await made(graph, shop(says), source=SOURCE, target=TARGET)
    await write(graph, "INSERT INTO p VALUES ('b', 'B'); INSERT INTO s VALUES ('a', 3)")
    await write(graph, "INSERT INTO c VALUES ('x', 'b', 'a', '{a}'), ('y', 'a', NULL, NULL)")
    await site.cycle()
    await on_target(graph, f"INSERT INTO kg.ps VALUES ({made_id}, 'readers')")
    await site.equal()
    await write(graph, "INSERT INTO p VALUES ('a', 'A')")
    await site.cycle()
    await site.equal()
    assert len(await site.rows("SELECT FROM kg.cs WHERE o IS NOT NULL OR key = 'y'")) == 2


@pytest.mark.parametrize("keys", [True, False], ids=["returns", "returns without its keys"])
async def test_a_table_that_returns_with_a_list_has_what_stood_there_in_it(
    graph: TestGraph, keys: bool
) -> None:
    ps, qs = "  ps: {{source: p, id: {{{own}}}, columns: [title]}}\n", "  qs: {source: q}\n"
    site = await made(
        graph,
        ps.format(own="rule: hash") + qs,
        source="CREATE TABLE p (id text PRIMARY KEY, title text); CREATE TABLE q (id text PRIMARY KEY)",
        target="CREATE TABLE ps (id uuid PRIMARY KEY, key text, title text, sync_version bigint, sync_run bigint);"
        "CREATE TABLE qs (id uuid PRIMARY KEY, key text, sync_version bigint, sync_run bigint)",
    )
    await write(graph, "INSERT INTO p VALUES ('a', 'A'), ('b', 'B')")
    await site.cycle()
    context = graph.context()
    for tables in (qs, ps.format(own="rule: hash, beside: true") + qs):
        now = read_map(f"version: 1\nname: shapes\ntables:\n{tables}", source="now")
        await adopt(graph.write, "kg", now)
        if tables != qs:
            await write(graph, "DELETE FROM p WHERE id = 'a'")
            if not keys:
                await on_target(graph, "ALTER TABLE kg.ps DROP key")
        result = await SyncEngine(now).run_cycle(context)
        assert [table.error for table in result.tables if table.error] == []
    titles = [title for (title,) in await read(graph, "SELECT title FROM ps ORDER BY 1")]
    said = [note for note in result.map_changes if "does not tell" in note]
    assert (titles, len(said)) == ((["B"], 0) if keys else (["A", "B"], 1))
