"""Rows whose id comes from a column, and changes: what refers to them follows, though nothing else waits."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.testing.graphs import TestGraph, write
from tests.integration.test_shapes import made
from tests.kit.bare_graph import bare_graph

STAMPS = "sync_version bigint, sync_run bigint"
REFUSED = [
    "INSERT INTO p VALUES ('a', md5('a')::uuid), ('heir', md5('c')::uuid)",  # the heir waits for the id of c
    "UPDATE p SET uid = md5('a')::uuid WHERE id = 'c'",  # which wants that of a
    "UPDATE p SET uid = md5('z')::uuid WHERE id = 'c'",
]


@pytest_asyncio.fixture(loop_scope="session")
async def graph(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield graph


@pytest.mark.long(after=1)
@pytest.mark.parametrize("changes", [REFUSED[-1:], REFUSED], ids=["free", "refused first"])
async def test_links_and_references_follow_a_row_that_moves(graph: TestGraph, changes: list[str]) -> None:
    site = await made(
        graph,
        """
  ps: {source: p, id: {rule: column, source: uid, type: uuid}}
  cs:
    source: c
    references: {o: {parent: ps, required: false}}
    links: {c_ps: {source: arr, owner: c, member: p, parent: ps}}
""",
        source="CREATE TABLE p (id text PRIMARY KEY, uid uuid); CREATE TABLE c (id text PRIMARY KEY, o text, arr text[])",
        target=f"CREATE TABLE ps (id uuid PRIMARY KEY, key text, {STAMPS});"
        f"CREATE TABLE cs (id uuid PRIMARY KEY, key text, o uuid REFERENCES ps, {STAMPS});"
        "CREATE TABLE c_ps (c uuid REFERENCES cs, p uuid REFERENCES ps, PRIMARY KEY (c, p))",
    )
    await write(graph, "INSERT INTO p VALUES ('c', md5('c')::uuid); INSERT INTO c VALUES ('k', 'c', '{c}')")
    await site.cycle()
    for change in changes:
        await write(graph, change)
        assert (await site.cycle()).parked == 0
        await site.equal()
    found = await site.rows(
        "SELECT p.key, o = md5('z')::uuid AS moved FROM kg.cs JOIN kg.c_ps l ON l.c = cs.id JOIN kg.ps p ON p.id = l.p"
    )
    assert found == [{"key": "c", "moved": True}]
