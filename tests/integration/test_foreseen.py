"""A dry run before the first sync, of tables whose rows are listed: by id, by a column, by a natural key."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio

from syncline.messages.takeover import Takeover
from syncline.messages.verification import RelationKind, Verdict
from syncline.testing.graphs import TestGraph, on_target
from syncline.verify.takeover import take_over
from tests.integration.test_shapes import Site, made
from tests.kit.bare_graph import bare_graph

MAP = """
  nodes:
    source: node
    key: slug
    id: {rule: column, source: node_uuid, type: uuid, beside: true}
    columns: [title]
    references: {parent: {parent: nodes, required: false, target: parent_id}}
    stats: {columns: {claims: {counted: claims, by: node_id}}}
    vector: {collection: nodes, text: t.title, payload: {}}
  tags:
    source: tag
    id: {rule: uuid5, namespace: 6ba7b811-9dad-11d1-80b4-00c04fd430c8, beside: true}
    columns: [word]
  edges:
    source: edge
    types: {tags: "text[]"}
    id: {rule: hash, natural: [a_id, kind], beside: true}
    references: {a: {parent: nodes, target: a_id}}
    columns: [kind, note]
    links: {edge_tags: {source: tags, owner: edge, member: tag, parent: tags}}
  reports:
    source: report
    key: node
    id: {rule: assigned, type: bigint, natural: node_id, beside: true}
    references: {node: {parent: nodes, target: node_id}}
    columns: [summary]
  claims:
    source: claim
    types: {id: bigint}
    id: same
    stamped: false
    references: {node: {parent: nodes, target: node_id}, report: {parent: reports, target: report_id}}
    columns: [claim]
"""
SOURCE = """
CREATE TABLE node (slug text PRIMARY KEY, node_uuid uuid, title text, parent text);
CREATE TABLE tag (id text PRIMARY KEY, word text);
CREATE TABLE edge (id text PRIMARY KEY, a text, kind text, note text, tags text[]);
CREATE TABLE report (node text PRIMARY KEY, summary text);
CREATE TABLE claim (id bigint PRIMARY KEY, node text, report text, claim text);
INSERT INTO node SELECT 'n' || n, md5('n' || n)::uuid, 'Node ' || n, CASE WHEN n > 1 THEN 'n' || n - 1 END FROM generate_series(1, 6) n;
INSERT INTO tag SELECT 't' || n, 'Tag ' || n FROM generate_series(1, 4) n;
INSERT INTO edge SELECT 'e' || n, 'n' || n, 'knows', 'Edge ' || n, ARRAY['t' || n, 't1'] FROM generate_series(1, 4) n;
INSERT INTO report SELECT 'n' || n, 'Report ' || n FROM generate_series(1, 4) n;
INSERT INTO claim SELECT n, 'n' || n, 'n' || n, 'Claim ' || n FROM generate_series(1, 4) n;
"""
TARGET = """
CREATE TABLE nodes (id uuid PRIMARY KEY, title text, parent_id uuid REFERENCES nodes, claims bigint DEFAULT 0);
CREATE TABLE tags (id uuid PRIMARY KEY, word text);
CREATE TABLE edges (id uuid PRIMARY KEY, a_id uuid REFERENCES nodes, kind text, note text, UNIQUE (a_id, kind));
CREATE TABLE edge_tags (edge uuid REFERENCES edges, tag uuid REFERENCES tags, PRIMARY KEY (edge, tag));
CREATE TABLE reports (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, node_id uuid UNIQUE REFERENCES nodes, summary text);
CREATE TABLE claims (id bigint PRIMARY KEY, node_id uuid REFERENCES nodes, report_id bigint REFERENCES reports, claim text);
"""
EARLIER = """
INSERT INTO kg.nodes SELECT md5('n' || n)::uuid, CASE n WHEN 3 THEN 'Old' ELSE 'Node ' || n END, CASE WHEN n > 1 THEN md5('n' || n - 1)::uuid END,
    CASE WHEN n < 4 THEN 1 ELSE 0 END FROM generate_series(1, 4) n;
INSERT INTO kg.nodes VALUES (md5('reader')::uuid, 'A reader''s', NULL, 0);
INSERT INTO kg.tags SELECT syncline.uuid5('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 't' || n), 'Tag ' || n FROM generate_series(1, 2) n;
INSERT INTO kg.edges SELECT md5('old edge ' || n)::uuid, md5('n' || n)::uuid, 'knows', CASE n WHEN 2 THEN 'Old' ELSE 'Edge ' || n END
    FROM generate_series(1, 2) n;
INSERT INTO kg.edge_tags SELECT md5('old edge 1')::uuid, id FROM kg.tags;
INSERT INTO kg.reports (node_id, summary) SELECT md5('n' || n)::uuid, CASE n WHEN 1 THEN 'Old' ELSE 'Report ' || n END FROM generate_series(3, 1, -1) n;
INSERT INTO kg.claims SELECT n, md5('n' || n)::uuid, (SELECT id FROM kg.reports WHERE node_id = md5('n' || CASE n WHEN 2 THEN 1 ELSE n END)::uuid), 'Claim ' || n
    FROM generate_series(1, 3) n;
"""


@pytest_asyncio.fixture(loop_scope="session")
async def site(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Site]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield await made(graph, MAP, source=SOURCE, target=TARGET)


async def dry_run(site: Site) -> Takeover:
    context = site.graph.context()
    return await take_over(
        site.map, graph="kg", write=context.write, target=context.target, vectors=context.vectors,
        embedding=context.embedding.name, keys=10,
    )  # fmt: skip


def told(found: Takeover) -> dict[str, tuple[int, dict[str, list[str]]]]:
    """Return relation -> equal, and verdict -> keys."""
    return {
        f"{one.kind} {one.name}": (
            one.equal,
            {
                str(verdict): sorted(" ".join(key) for key in one.found(verdict).keys)
                for verdict in Verdict
                if one.found(verdict).count
            },
        )
        for one in found.found.relations
        if one.kind in (RelationKind.ROWS, RelationKind.LINKS)
    }


async def everything(graph: TestGraph, site: Site) -> list[object]:
    names = ("nodes", "tags", "edges", "edge_tags", "reports", "claims", "sync_row")
    sequences = await site.rows(
        "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'kg' ORDER BY 1"
    )
    return [
        sequences,
        *[await site.rows(f"SELECT t::text, xmin::text FROM kg.{name} t ORDER BY 1") for name in names],
    ]


async def test_a_dry_run_compares_rows_that_no_list_has(site: Site) -> None:
    await on_target(site.graph, EARLIER)
    before = await everything(site.graph, site)
    found = await dry_run(site)
    assert await everything(site.graph, site) == before
    assert told(found) == {
        "rows nodes": (3, {"missing": ["n5", "n6"], "stale": ["n3"]}),
        "rows tags": (2, {"missing": ["t3", "t4"]}),
        "rows edges": (1, {"missing": ["e3", "e4"], "stale": ["e2"]}),
        "links edge_tags": (1, {"extra": ["e1 t2"], "missing": ["e2 t1", "e2 t2"]}),
        "rows reports": (2, {"missing": ["n4"], "stale": ["n1"]}),
        "rows claims": (2, {"missing": ["4"], "stale": ["2"]}),
    }
    assert found.unlisted == {"nodes": 1}
    assert (found.extra_links, found.extra_points, found.written) == (1, 0, 14)

    # The first sync writes these, and no others.
    ids = "SELECT id::text FROM kg.{} ORDER BY 1"
    stood = {
        name: {row["id"] for row in await site.rows(ids.format(name))}
        for name in ("nodes", "edges", "reports")
    }
    versions = {row["id"]: row["v"] for row in await site.rows("SELECT id, xmin::text AS v FROM kg.edges")}
    await site.cycle()
    for name, earlier in stood.items():
        assert earlier <= {row["id"] for row in await site.rows(ids.format(name))}
    after = {row["id"]: row["v"] for row in await site.rows("SELECT id, xmin::text AS v FROM kg.edges")}
    assert sum(after[key] != version for key, version in versions.items()) == 1
    await site.equal()
