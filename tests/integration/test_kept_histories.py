"""Histories of rows that leave and return, marked, and of stubs: whatever happens, in the end each row is what it should be."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio

from syncline.engine import SyncEngine
from syncline.testing.graphs import on_target, write
from tests.integration.test_shapes import Site, made
from tests.integration.test_stubs import MAP, SOURCE, TARGET
from tests.kit.bare_graph import bare_graph

KEYS = "pqr"
HASHES = ("h1", "h2", "h3", "h4")
KEPT = """
  notes:
    source: note
    present: NOT hidden
    columns: {body: text, state: {value: "'here'"}}
    marked: {state: "'gone'"}
    references: {person: {parent: people, target: person_id, stub: true}}
  answers:
    source: answer
    references: {note: {parent: notes, target: note_id}, hash: {parent: sources, target: source_id, by: content_hash, stub: true}}
    columns: {body: text}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def site(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Site]:
    async with bare_graph(new_database, tmp_path) as graph:
        document = MAP.replace(
            "    stats: {table: people",
            "    columns: {gone: {value: \"'no'\"}}\n    marked: {gone: \"'yes'\"}\n    stats: {table: people",
        )
        document = document.replace(
            "{quotes: {counted: quotes, by: person_id}}",
            "{quotes: {counted: quotes, by: person_id}, notes: {counted: notes, by: person_id}}",
        )
        yield await made(
            graph,
            document + KEPT,
            source=SOURCE
            + "CREATE TABLE note (id text PRIMARY KEY, body text, person text, hidden boolean DEFAULT false);"
            "CREATE TABLE answer (id text PRIMARY KEY, note text, hash text, body text);",
            target=TARGET.replace(
                "key text NOT NULL UNIQUE,", "key text NOT NULL UNIQUE, gone text DEFAULT 'stub',"
            )
            .replace("uri text NOT NULL,", "uri text,")
            .replace("state text NOT NULL", "state text")
            .replace("quotes integer DEFAULT 0)", "quotes integer DEFAULT 0, notes integer DEFAULT 0)")
            + """
            CREATE TABLE notes (
                id uuid PRIMARY KEY, key text, body text, state text, person_id uuid NOT NULL REFERENCES people, reads integer DEFAULT 0,
                sync_version bigint, sync_run bigint
            );
            CREATE TABLE answers (
                id uuid PRIMARY KEY, key text, note_id uuid NOT NULL REFERENCES notes, source_id uuid NOT NULL REFERENCES sources,
                body text, sync_version bigint, sync_run bigint
            );
            """,
        )


def _change(random: Random) -> str:
    key, hash_, number = random.choice(KEYS), random.choice(HASHES), random.randint(1, 4)
    match random.randint(0, 12):
        case 0 | 1:
            return (
                f"INSERT INTO raw_source VALUES ('{number:032x}', 'http://{number}', '{hash_}', 'fetched')"
                " ON CONFLICT (id) DO UPDATE SET content_hash = excluded.content_hash"
            )
        case 2:
            return f"DELETE FROM raw_source WHERE id = '{number:032x}'"
        case 3:
            return (
                "UPDATE raw_source s SET content_hash = o.content_hash FROM raw_source o"
                f" WHERE s.id <> o.id AND '{number:032x}' IN (s.id, o.id) AND '{number % 4 + 1:032x}' IN (s.id, o.id)"
            )
        case 4:
            return f"INSERT INTO person VALUES ('{key}') ON CONFLICT DO NOTHING"
        case 5:
            return f"DELETE FROM person WHERE id = '{key}'"
        case 6 | 7:
            return (
                f"INSERT INTO quote VALUES ('{random.choice('fg')}', {number}, '{hash_}', 'http://{number}', '{key}', 'w{number}')"
                " ON CONFLICT (fact, number) DO UPDATE SET hash = excluded.hash, person = excluded.person"
            )
        case 8:
            return f"DELETE FROM quote WHERE number = {number}"
        case 9:
            return (
                f"INSERT INTO note VALUES ('{number}', 'n', '{key}', {random.choice(['true', 'false'])})"
                " ON CONFLICT (id) DO UPDATE SET person = excluded.person, hidden = excluded.hidden"
            )
        case 10:
            return f"DELETE FROM note WHERE id = '{number}'"
        case 11:
            return (
                f"INSERT INTO answer VALUES ('{key}', '{number}', '{hash_}', 'a')"
                " ON CONFLICT (id) DO UPDATE SET note = excluded.note, hash = excluded.hash"
            )
    return f"DELETE FROM answer WHERE id = '{key}'"


ALONE = """
SELECT k.table_name, k.key FROM kg.sync_kept k WHERE CASE k.table_name
    WHEN 'sources' THEN k.stub AND NOT EXISTS (SELECT FROM kg.quotes q WHERE q.source_id::text = k.target_key[1])
        AND NOT EXISTS (SELECT FROM kg.answers a WHERE a.source_id::text = k.target_key[1])
    WHEN 'people' THEN k.stub AND NOT EXISTS (SELECT FROM kg.quotes q WHERE q.person_id::text = k.target_key[1])
        AND NOT EXISTS (SELECT FROM kg.notes n WHERE n.person_id::text = k.target_key[1])
    ELSE k.stub
END
"""
"""Stubs to which nothing refers."""
ASTRAY = """
SELECT table_name, key FROM kg.sync_kept k
WHERE NOT EXISTS (
    SELECT FROM (
        SELECT 'sources', id FROM kg.sources UNION ALL SELECT 'people', id FROM kg.people UNION ALL SELECT 'notes', id FROM kg.notes
    ) t (name, id) WHERE t.name = k.table_name AND ARRAY[t.id::text] = k.target_key
)
"""
"""Entries of the list that no row has."""
MARKED = """
SELECT 'notes' AS name, key FROM kg.notes WHERE (state = 'gone') <> EXISTS (
    SELECT FROM kg.sync_kept k WHERE k.table_name = 'notes' AND k.target_key = ARRAY[notes.id::text]
)
UNION ALL
SELECT 'people', key FROM kg.people WHERE (gone = 'yes') <> EXISTS (
    SELECT FROM kg.sync_kept k WHERE k.table_name = 'people' AND NOT k.stub AND k.target_key = ARRAY[people.id::text]
)
"""
"""Rows that are marked and not listed, or listed and not marked."""


async def _consistent(site: Site, seed: int) -> None:
    await site.equal()
    for query in (ALONE, ASTRAY, MARKED):
        assert await site.rows(query) == [], (seed, query)


async def _history(site: Site, seed: int, rounds: int) -> None:
    random = Random(seed)
    engine = SyncEngine(site.map)
    for _ in range(rounds):
        changes = [_change(random) for _ in range(random.randint(1, 8))]
        await write(site.graph, "SET search_path = kg; " + "; ".join(changes))
        if random.random() < 0.8:
            result = await engine.run_cycle(site.graph.context(batch_rows=random.choice([1, 2, 1000])))
            assert [table.error for table in result.tables if table.error] == []
            await _consistent(site, seed)
    # What was in conflict is put in order: everything is there, and every stub has been taken over.
    await write(
        site.graph,
        "UPDATE kg.raw_source SET content_hash = 'x' || id; DELETE FROM kg.quote WHERE number > 1; DELETE FROM kg.answer;"
        + "".join(
            f"INSERT INTO kg.raw_source VALUES ('{number:032x}', 'http://{number}', '{hash_}', 'fetched')"
            f" ON CONFLICT (id) DO UPDATE SET content_hash = '{hash_}';"
            for number, hash_ in enumerate(HASHES, 1)
        )
        + "".join(f"INSERT INTO kg.person VALUES ('{key}') ON CONFLICT DO NOTHING;" for key in KEYS),
    )
    for _ in range(3):
        await engine.run_cycle(site.graph.context())
    await _consistent(site, seed)
    assert await site.rows("SELECT table_name, key, message FROM kg.sync_dead_letter") == [], seed
    assert await site.rows("SELECT key FROM kg.sync_kept WHERE stub") == [], seed
    [row] = await site.rows("SELECT count(*) AS rows FROM kg.sources WHERE state = 'fetched'")
    assert row["rows"] == len(HASHES)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("seed", [1, 2])
async def test_rows_that_are_kept(site: Site, seed: int) -> None:
    await _history(site, seed, rounds=8)


@pytest.mark.proof
@pytest.mark.parametrize("part", range(5))
async def test_rows_that_are_kept_in_many_histories(site: Site, part: int) -> None:
    for seed in range(100 + 10 * part, 110 + 10 * part):
        await write(site.graph, "TRUNCATE kg.quote, kg.note, kg.answer, kg.raw_source, kg.person")
        await on_target(site.graph, "DELETE FROM kg.sync_dead_letter")
        await _history(site, seed, rounds=10)
