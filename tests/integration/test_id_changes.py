"""Every change of how a table's ids are made, or where its keys are kept, of a map in use: applied, or refused."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import SchemaMap, SyncEngine
from syncline.maps.document import read_map, write_map
from syncline.messages.sync import SyncResult
from syncline.migrations import migrate_bookkeeping
from syncline.operator.map_check import check_map
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by

RULES: Final = {
    "hash": "rule: hash",
    "same": "rule: same",
    "uuid5": "rule: uuid5, namespace: 6ba7b811-9dad-11d1-80b4-00c04fd430c8",
    "expression": "rule: expression, type: uuid, expression: md5($1::text)::uuid",
    "column": "rule: column, source: uid, type: uuid",
    "assigned": "rule: assigned, type: uuid, natural: [nat]",
}
KINDS: Final = {
    **{name: f"{{{rule}}}" for name, rule in RULES.items()},
    **{f"{name}, beside": f"{{{rule}, beside: true}}" for name, rule in RULES.items() if name != "same"},
    **{
        f"{name}, natural": f"{{{rule}, natural: [nat], beside: true}}"
        for name, rule in RULES.items()
        if name not in ("same", "assigned")
    },
}
"""Kind -> `id`. Keys and ids are uuids in all of them, so that one target can have each."""


@pytest_asyncio.fixture(loop_scope="session")
async def graph(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield graph


def schema_map(kinds: list[str]) -> SchemaMap:
    """Return the map with a table of each kind, and one that refers to it and has links to it."""
    tables = "".join(
        f"""
  items{n}:
    source: w_items{n}
    key: k
    types: {{k: uuid}}
    id: {KINDS[kind]}
    columns: [name, nat]
    marked: {{name: "'gone'"}}
  steps{n}:
    source: w_steps{n}
    types: {{item: uuid, items: "uuid[]"}}
    references: {{item: items{n}}}
    links: {{links{n}: {{source: items, owner: step, member: item, parent: items{n}}}}}
"""
        for n, kind in enumerate(kinds)
    )
    return read_map(f"version: 1\nname: ids\ntables:\n{tables}", source="ids.yaml")


def sources(count: int) -> str:
    return "".join(
        f"""
CREATE TABLE w_items{n} (k uuid PRIMARY KEY, uid uuid, name text, nat text);
CREATE TABLE w_steps{n} (id text PRIMARY KEY, item uuid, items uuid[]);
INSERT INTO w_items{n} SELECT md5('k' || i)::uuid, md5('u' || i)::uuid, 'n' || i, 'nat' || i FROM generate_series(1, 5) i;
INSERT INTO w_steps{n} SELECT i::text, md5('k' || i)::uuid, ARRAY[md5('k1')::uuid, md5('k' || i)::uuid] FROM generate_series(1, 4) i;
"""
        for n in range(count)
    )


def targets(count: int) -> str:
    return "".join(
        f"""
CREATE TABLE items{n} (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), key uuid, name text, nat text UNIQUE, sync_version bigint, sync_run bigint);
CREATE TABLE steps{n} (id uuid PRIMARY KEY, key text, item uuid NOT NULL REFERENCES items{n}, sync_version bigint, sync_run bigint);
CREATE TABLE links{n} (step uuid REFERENCES steps{n}, item uuid REFERENCES items{n}, PRIMARY KEY (step, item));
"""
        for n in range(count)
    )


async def cycle(graph: TestGraph, by: SchemaMap) -> SyncResult:
    return await SyncEngine(by).run_cycle(graph.context())


async def wrong(graph: TestGraph, by: SchemaMap) -> dict[str, str]:
    context = graph.context()
    found = await verify(by, write=context.write, target=context.target, vectors=None, embedding="none")
    return {each.name: str(each) for each in found.relations if each.damaged or each.problem}


async def rows(graph: TestGraph, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await read(graph, sql)]


def others(before: str, now: str) -> bool:
    """Whether rows that stand there have to have another id."""
    rule, other = (kind.partition(",")[0] for kind in (before, now))
    if "natural" in now or other == "assigned":
        return False
    return rule != other


def moved(before: str, now: str) -> bool:
    """Whether that is done by the next cycle: a listed row whose id comes from a column follows that."""
    listed = before in ("column", "assigned") or (before not in RULES and before != "hash, beside")
    return others(before, now) and listed and now.startswith("column")


def refused(before: str, now: str) -> bool:
    """Whether rows under ids of before have to leave first."""
    return others(before, now) and not moved(before, now)


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("before", "after"),
    [("hash", ["same", "assigned", "uuid5", "hash, natural"]), *((kind, list(KINDS)) for kind in KINDS)],
    ids=["some", *KINDS],
)
async def test_no_change_of_ids_is_silent(graph: TestGraph, before: str, after: list[str]) -> None:
    places = range(len(after))
    await made_by(
        graph,
        write=f"SET search_path = kg; {sources(len(after))}",
        target=f"SET search_path = kg; {targets(len(after))}",
    )
    await migrate_bookkeeping(graph.target, "kg")
    first, now = schema_map([before] * len(after)), schema_map(after)
    await adopt(graph.write, "kg", now)
    result = await cycle(graph, first)
    assert [table.error for table in result.tables if table.error] == []
    await write(graph, ";".join(f"DELETE FROM w_items{n} WHERE k = md5('k5')::uuid" for n in places))
    await cycle(graph, first)
    assert await wrong(graph, first) == {}
    named = [
        f"SELECT name, id FROM items{n} WHERE name IN ('n1', 'n2', 'n3', 'n4') ORDER BY 1" for n in places
    ]
    ids = [await rows(graph, named[n]) for n in places]
    # With the new map come a row that has another natural value by now, and one that has its value instead.
    await write(graph, ";".join(
        f"UPDATE w_items{n} SET nat = 'other' WHERE k = md5('k2')::uuid;"
        f"INSERT INTO w_items{n} VALUES (md5('k6')::uuid, md5('u6')::uuid, 'n6', 'nat2')" for n in places
    ))  # fmt: skip
    # `map check` says beforehand what the cycle will.
    context = graph.context()
    checked = await check_map(now, context.write, context.target, text=write_map(now))
    said = {one.table: one for one in checked.misfits if one.path.endswith(".id") and one.weight == "error"}
    assert said.keys() == {f"items{n}" for n, kind in enumerate(after) if refused(before, kind)}
    assert all(one.line and "DELETE FROM" in (one.statement or "") for one in said.values())
    result = await cycle(graph, now)
    errors = {table.table: table.error for table in result.tables if table.error}
    told = {kind: f"items{n}" in errors for n, kind in enumerate(after)}
    assert told == {kind: refused(before, kind) for kind in after}
    for error in errors.values():
        # As an operator would run it: in no schema of theirs.
        await on_target(graph, f"SET search_path = public; {error[error.index('DELETE FROM') :]}")
    if errors:
        await cycle(graph, now)
        result = await cycle(graph, now)
    assert ([table.error for table in result.tables if table.error], result.parked) == ([], 0)
    assert await rows(graph, "SELECT table_name, key, message FROM sync_dead_letter") == []
    assert await wrong(graph, now) == {}
    for n, kind in enumerate(after):
        marked = [] if told[kind] else [("gone", "nat5")]
        assert await rows(graph, f"SELECT name, nat FROM items{n} ORDER BY 1") == [
            *marked, ("n1", "nat1"), ("n2", "other"), ("n3", "nat3"), ("n4", "nat4"), ("n6", "nat2")
        ], kind  # fmt: skip
        assert others(before, kind) or await rows(graph, named[n]) == ids[n], kind
        assert await rows(
            graph, f"SELECT s.key, i.name FROM steps{n} s JOIN items{n} i ON i.id = s.item ORDER BY 1"
        ) == [(str(i), f"n{i}") for i in range(1, 5)], kind
        assert await rows(graph, f"SELECT count(*) FROM links{n}") == [(7,)], kind
    # From now on it is a map like any other.
    await write(graph, ";".join(
        f"DELETE FROM w_items{n} WHERE nat = 'nat3'; UPDATE w_items{n} SET name = 'new' WHERE nat = 'nat4';"
        f"DELETE FROM w_steps{n} WHERE id = '3'; UPDATE w_steps{n} SET item = md5('k6')::uuid WHERE id = '4'" for n in places
    ))  # fmt: skip
    await cycle(graph, now)
    assert await wrong(graph, now) == {}
