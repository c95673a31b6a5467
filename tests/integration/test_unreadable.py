"""References whose text is no key of the parent: NULL, a uuid5, or another row, as the map says."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID, uuid5

import pytest_asyncio

from syncline.testing.graphs import on_target, write
from tests.integration.test_shapes import Site, made
from tests.kit.bare_graph import bare_graph

NAMESPACE = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
ZERO = "00000000-0000-0000-0000-000000000000"
MAP = f"""
  threads: {{source: thread, types: {{id: uuid}}, id: same, columns: [title]}}
  agents:
    source: agent
    types: {{nr: bigint}}
    key: nr
    id: {{rule: assigned, type: bigint, natural: name, beside: true}}
    columns: [name]
  prices: {{source: price, types: {{id: numeric}}, columns: [name]}}
  usages:
    source: usage
    references:
      thread: {{parent: threads, required: false, unreadable: none}}
      message: {{parent: threads, required: false, unreadable: {{rule: uuid5, namespace: {NAMESPACE}, key: {ZERO}}}}}
      about: {{parent: threads, unreadable: {{rule: uuid5, namespace: {NAMESPACE}}}}}
      agent: {{parent: agents, required: false, unreadable: none}}
      other: {{parent: agents, target: other_agent, unreadable: {{rule: key, key: "7"}}}}
      price: {{parent: prices, required: false, unreadable: {{rule: key, key: "0.50"}}}}
    columns: [note]
"""
SOURCE = """
CREATE TABLE thread (id uuid PRIMARY KEY, title text);
CREATE TABLE agent (nr bigint PRIMARY KEY, name text);
CREATE TABLE price (id numeric PRIMARY KEY, name text);
CREATE TABLE usage (id text PRIMARY KEY, thread text, message varchar(900), about text, agent text, other varchar, price text, note text);
"""
TARGET = """
CREATE TABLE threads (id uuid PRIMARY KEY, title text, sync_version bigint, sync_run bigint);
CREATE TABLE agents (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE);
CREATE TABLE prices (id uuid PRIMARY KEY, key numeric, name text, sync_version bigint, sync_run bigint);
CREATE TABLE usages (
    id uuid PRIMARY KEY, key text, thread uuid REFERENCES threads, message uuid REFERENCES threads, about uuid NOT NULL REFERENCES threads,
    agent bigint REFERENCES agents, other_agent bigint NOT NULL REFERENCES agents, price uuid REFERENCES prices, note text,
    sync_version bigint, sync_run bigint
);
"""
ROWS = """
SELECT ARRAY[u.key, t.id::text, m.id::text, a.title, g.name, o.name, p.name] AS found
FROM kg.usages u LEFT JOIN kg.threads t ON t.id = u.thread LEFT JOIN kg.threads m ON m.id = u.message JOIN kg.threads a ON a.id = about
LEFT JOIN kg.agents g ON g.id = u.agent JOIN kg.agents o ON o.id = other_agent LEFT JOIN kg.prices p ON p.id = u.price
ORDER BY u.key
"""
LONG = "é" * 150
"""More than one block of SHA-1."""


@pytest_asyncio.fixture(loop_scope="session")
async def site(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Site]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield await made(graph, MAP, source=SOURCE, target=TARGET)


def named(text: str) -> str:
    return str(uuid5(NAMESPACE, text))


async def test_a_text_that_is_no_key_names_what_the_map_says(site: Site) -> None:
    assert await site.misfits() == {}
    a = "0a000000-0000-4000-8000-00000000000a"
    await write(
        site.graph,
        f"INSERT INTO kg.thread VALUES ('{a}', 'A'), ('{ZERO}', 'nothing'), ('{named('run/7')}', 'run'), ('{named('')}', 'empty');"
        "INSERT INTO kg.agent VALUES (7, 'seven'), (8, 'eight');"
        "INSERT INTO kg.price VALUES (0.5, 'half'), (12, 'dozen');"
        "INSERT INTO kg.usage VALUES"
        f" ('1', upper('{a}'), '{{{a}}}', replace('{a}', '-', ''), ' 8 ', '+8', '12.000'),"
        f" ('2', 'run/7', 'run/7', 'run/7', 'nobody', 'nobody', 'a dozen'),"
        f" ('3', '', '', '', '', '', ''),"
        f" ('4', NULL, NULL, '{a}', NULL, '99999999999999999999', NULL),"
        f" ('5', '{a}-', '{LONG}', '{a}\n', '8.0', '8', '1e1')",
    )
    result = await site.cycle()
    assert result.dead_letters == 0
    run, zero = named("run/7"), ZERO
    assert [row["found"] for row in await site.rows(ROWS)] == [
        ["1", a, a, "A", "eight", "eight", "dozen"],
        ["2", None, run, "run", None, "seven", "half"],
        ["3", None, zero, "empty", None, "seven", "half"],
        ["4", None, None, "A", None, "seven", None],
    ]
    await site.equal()

    # What the others name arrives: they are released, and follow it.
    newline = named(f"{a}\n")
    await write(
        site.graph,
        f"INSERT INTO kg.thread VALUES ('{named(LONG)}', 'long'), ('{newline}', 'newline'); INSERT INTO kg.price VALUES (10, 'ten')",
    )
    assert (await site.cycle()).parked == 0
    [row] = await site.rows(ROWS.replace("ORDER", "WHERE u.key = '5' ORDER"))
    assert row["found"] == ["5", None, named(LONG), "newline", None, "eight", "ten"]
    await site.equal()

    # Changes and deletes: a text becomes a key and the other way round, parents leave and return.
    await write(
        site.graph,
        f"UPDATE kg.usage SET thread = message, agent = '7', price = NULL WHERE id IN ('2', '5');"
        f"UPDATE kg.usage SET thread = '{a}', message = 'none' WHERE id = '3'; DELETE FROM kg.usage WHERE id = '4';"
        f"DELETE FROM kg.thread WHERE id = '{run}'; DELETE FROM kg.agent WHERE nr = 8",
    )
    assert (await site.cycle()).parked > 0
    await site.equal()
    await write(
        site.graph,
        f"INSERT INTO kg.thread VALUES ('{run}', 'again'); INSERT INTO kg.agent VALUES (8, 'again')",
    )
    assert (await site.cycle()).parked == 1
    assert [row["found"] for row in await site.rows(ROWS)] == [
        ["1", a, a, "A", "again", "again", "dozen"],
        ["2", None, run, "again", "seven", "seven", None],
        ["3", a, None, "empty", None, "seven", "half"],
        ["5", None, named(LONG), "newline", "seven", "again", None],
    ]
    await site.equal()


async def test_verify_finds_and_mends_what_such_a_reference_should_be(site: Site) -> None:
    await write(
        site.graph,
        f"INSERT INTO kg.thread VALUES ('{ZERO}', 'nothing'), ('{named('x')}', 'x'); INSERT INTO kg.agent VALUES (7, 'seven');"
        "INSERT INTO kg.usage VALUES ('1', 'x', 'x', 'x', 'x', 'x', NULL)",
    )
    await site.cycle()
    await site.equal()
    await on_target(site.graph, f"UPDATE kg.usages SET thread = '{ZERO}', message = NULL, about = '{ZERO}'")
    found = await site.verified(repair=True)
    assert [(each.name, each.stale.count) for each in found.relations if each.damaged] == [("usages", 1)]
    await site.cycle()
    await site.equal()
