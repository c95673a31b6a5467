"""Histories of rows whose ids change hands: whatever happens, no id is another key's, and in the end all is equal."""

from random import Random

import pytest

from syncline.engine import SyncEngine
from syncline.testing.graphs import TestGraph, on_target, read, write
from tests.integration.test_listed_rows import BOOK, compared, site, uuid

__all__ = ["site"]

KEYS = "abcdef"
THEIRS = f"""
INSERT INTO nodes VALUES ('{uuid(90)}', 'theirs', NULL, 7); INSERT INTO sources (uri, title) VALUES ('http://x', 'theirs');
"""


def _array(random: Random) -> str:
    return "'{" + ",".join(random.sample(KEYS, random.randint(0, 3))) + "}'"


def change(random: Random) -> str:
    """One statement, often one that leads to a conflict."""
    key, other = random.choice(KEYS), random.choice(KEYS)
    id_ = random.choice([f"'{uuid(random.randint(1, 7))}'", f"'{uuid(random.randint(1, 7))}'", "NULL"])
    match random.randint(0, 11):
        case 0 | 1:
            return (
                f"INSERT INTO w_nodes VALUES ('{key}', {id_}, '{key}', '{other}', {_array(random)})"
                " ON CONFLICT (key) DO UPDATE SET node_uuid = excluded.node_uuid, parent = excluded.parent"
            )
        case 2:
            return f"UPDATE w_nodes SET node_uuid = {id_} WHERE key = '{key}'"
        case 3:
            return (
                "UPDATE w_nodes n SET node_uuid = o.node_uuid FROM w_nodes o"
                f" WHERE (n.key, o.key) IN (('{key}', '{other}'), ('{other}', '{key}'))"
            )
        case 4:
            return f"UPDATE w_nodes SET related = {_array(random)}, parent = NULL WHERE key = '{key}'"
        case 5:
            return f"DELETE FROM w_nodes WHERE key = '{key}'"
        case 6 | 7:
            return (
                f"INSERT INTO w_sources VALUES ('{key}', 'http://{other}', '{key}', '{other}', {_array(random)})"
                " ON CONFLICT (key) DO UPDATE SET uri = excluded.uri, origin = excluded.origin"
            )
        case 8:
            return f"DELETE FROM w_sources WHERE key = '{key}'"
        case 9:
            return (
                "UPDATE w_sources n SET uri = o.uri FROM w_sources o"
                f" WHERE (n.key, o.key) IN (('{key}', '{other}'), ('{other}', '{key}'))"
            )
        case 10:
            return f"DELETE FROM w_pages WHERE node = '{key}'"
    return (
        f"INSERT INTO w_pages VALUES ('{key}', {random.randint(1, 2)}, 'p', '{other}')"
        " ON CONFLICT (node, number) DO UPDATE SET source = excluded.source"
    )


_AGREEMENT = """
SELECT n.key[1], t.id::text FROM sync_row n LEFT JOIN nodes t ON t.id::text = n.target_id
WHERE n.table_name = 'nodes' ORDER BY 1
"""


async def _history(graph: TestGraph, seed: int, rounds: int) -> None:
    random = Random(seed)
    engine = SyncEngine(BOOK)
    await on_target(graph, THEIRS)
    for _ in range(rounds):
        await write(graph, "; ".join(change(random) for _ in range(random.randint(1, 6))))
        if random.random() < 0.7:
            result = await engine.run_cycle(graph.context())
            assert [table.error for table in result.tables if table.error] == []
            await compared(graph)
    # What was in conflict is put in order: everything lands.
    ids = ", ".join(f"('{key}', '{uuid(20 + place)}'::uuid)" for place, key in enumerate(KEYS))
    await write(
        graph,
        f"UPDATE w_nodes SET node_uuid = v.id FROM (VALUES {ids}) v (key, id) WHERE w_nodes.key = v.key;"
        "UPDATE w_sources SET uri = 'http://' || key",
    )
    for _ in range(3):
        await engine.run_cycle(graph.context())
    assert await read(graph, "SELECT table_name, key, message FROM sync_dead_letter") == []
    await compared(graph)
    connection = await graph.connect_write()
    wanted = [
        tuple(r) for r in await connection.fetch("SELECT key, node_uuid::text FROM kg.w_nodes ORDER BY 1")
    ]
    await connection.close()
    assert await read(graph, _AGREEMENT) == wanted
    assert await read(graph, "SELECT title, access_count FROM nodes WHERE title = 'theirs'") == [
        ("theirs", 7)
    ]
    assert await read(graph, "SELECT count(*) FROM sources WHERE title = 'theirs'") == [(1,)]
    assert await read(graph, "SELECT count(*) FROM nodes") == [(1 + len(wanted),)]


@pytest.mark.long(after=1)
@pytest.mark.parametrize("seed", [2, 114])
async def test_ids_that_change_hands(site: TestGraph, seed: int) -> None:
    await _history(site, seed, rounds=12)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(100, 140))
async def test_ids_that_change_hands_in_many_histories(site: TestGraph, seed: int) -> None:
    await _history(site, seed, rounds=12)
