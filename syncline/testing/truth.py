"""What the stores of a knowledge graph should say: an independent model in plain Python, for tests.

It reads both sides whole and knows nothing of cursors, batches or parking, so it is for small graphs.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable

import asyncpg

from syncline.engine.keys import key_uuid
from syncline.testing.one_graph import TestGraph, session

Row = dict[str, object]
Rows = dict[object, Row]

_RENAMED = {
    "fact_id",
    "raw_source_id",
    "parent_id",
    "source_concept_id",
    "source_node_id",
    "target_node_id",
    "node_id",
}
_DROPPED = {"sync_xid", "fact_ids", "dedup_status"}
_LINKS = {"node_facts": "node_id", "edge_facts": "edge_id", "dimension_facts": "dimension_id"}
_KEYED = {
    "fact_sources": ("fact_id", "raw_source_id"),
    "node_fact_rejections": ("node_id", "fact_id"),
    "convergence_reports": ("node_id",),
    "node_counters": ("node_id",),
    "node_stats": ("node_id",),
}
_VECTORS = {
    "facts": ("key", "fact_type"),
    "nodes": ("key", "concept", "node_type", "visibility", "creator_id"),
}


async def differences(graph: TestGraph, *, vectors: bool = True) -> list[str]:
    """Return one sentence per difference between what the graph-db and the vectors say and should say.

    Without `vectors`, the graph-db alone is compared.
    """
    async with (
        session(graph, graph.write_dsn, graph.source_schema) as write,
        session(graph, graph.target_dsn) as target,
    ):
        expected = await _expected(write)
        found: list[str] = []
        for table, rows in expected.items():
            found.extend(_compare(table, rows, await _actual(target, table)))
        return found + (await _compare_vectors(graph, expected) if vectors else [])


async def _expected(write: asyncpg.Connection) -> dict[str, Rows]:
    async def table(name: str) -> list[asyncpg.Record]:
        return list(await write.fetch(f"SELECT * FROM write_{name}"))  # noqa: S608 # a name from this module

    sources = {row["id"]: row for row in await table("raw_sources")}
    facts = {row["id"]: row for row in await table("facts") if row["dedup_status"] == "ready"}
    nodes = {row["id"]: row for row in await table("nodes")}
    edges = {
        row["id"]: row
        for row in await table("edges")
        if row["source_node_id"] in nodes and row["target_node_id"] in nodes
    }
    rejections = [
        row
        for row in await table("node_fact_rejections")
        if row["node_id"] in nodes and row["fact_id"] in facts
    ]
    dimensions = {row["id"]: row for row in await table("dimensions") if row["node_id"] in nodes}
    expected_nodes: Rows = {}
    for key, row in nodes.items():
        node = _translated(row)
        for reference in ("parent_id", "source_concept_id"):
            if row[reference] not in nodes:
                node[reference] = None
        expected_nodes[key_uuid(key)] = node
    expected_edges: Rows = {}
    for key, row in edges.items():
        edge = _translated(row)
        if not row["directed"]:
            ends = sorted([key_uuid(row["source_node_id"]), key_uuid(row["target_node_id"])])
            edge["source_node_id"], edge["target_node_id"] = ends
        expected_edges[key_uuid(key)] = edge
    hashes = {row["content_hash"] for row in sources.values()} - {None}
    node_facts = _links(nodes.values(), facts)
    for row in rejections:
        node_facts.pop((key_uuid(row["node_id"]), key_uuid(row["fact_id"])), None)
    expected = {
        "raw_sources": _identified(sources.values()),
        "facts": _identified(facts.values()),
        "fact_sources": _keyed(
            "fact_sources",
            [
                row
                for row in await table("fact_sources")
                if row["fact_id"] in facts and row["raw_source_id"] in sources
            ],
        ),
        "nodes": expected_nodes,
        "node_facts": node_facts,
        "node_fact_rejections": _keyed("node_fact_rejections", rejections),
        "edges": expected_edges,
        "edge_facts": _links(edges.values(), facts),
        "dimensions": _identified(dimensions.values()),
        "dimension_facts": _links(dimensions.values(), facts),
        "convergence_reports": _keyed(
            "convergence_reports",
            [row for row in await table("convergence_reports") if row["node_id"] in nodes],
        ),
        "node_counters": _keyed(
            "node_counters", [row for row in await table("node_counters") if row["node_id"] in nodes]
        ),
        "node_versions": _identified(
            [row for row in await table("node_versions") if row["node_id"] in nodes]
        ),
        "prohibited_chunks": _identified(
            [row for row in await table("prohibited_chunks") if row["content_hash"] in hashes]
        ),
        "llm_usage": _identified(await table("llm_usage")),
    }
    expected["node_stats"] = _stats(expected)
    return expected


def _stats(expected: dict[str, Rows]) -> Rows:
    """Return what the numbers of each node should be, counted one row at a time."""
    facts = Counter(link[0] for link in expected["node_facts"] if isinstance(link, tuple))
    edges = Counter(
        end for edge in expected["edges"].values() for end in {edge["source_node_id"], edge["target_node_id"]}
    )
    children = Counter(child["parent_id"] for child in expected["nodes"].values())
    dimensions = Counter(row["node_id"] for row in expected["dimensions"].values())
    return {
        (node,): {
            "node_id": node,
            "fact_count": facts[node],
            "edge_count": edges[node],
            "child_count": children[node],
            "dimension_count": dimensions[node],
            "convergence_score": expected["convergence_reports"].get((node,), {}).get("convergence_score"),
        }
        for node in expected["nodes"]
    }


def _identified(rows: Iterable[asyncpg.Record]) -> Rows:
    return {key_uuid(row["id"]): _translated(row) for row in rows}


def _keyed(table: str, rows: Iterable[asyncpg.Record]) -> Rows:
    return {tuple(key_uuid(row[name]) for name in _KEYED[table]): _translated(row) for row in rows}


def _translated(row: asyncpg.Record) -> Row:
    translated: Row = {}
    for name, value in row.items():
        if name in _DROPPED:
            continue
        if name == "id":
            translated |= {"id": key_uuid(value), "key": value}
        elif name in _RENAMED:
            translated[name] = None if value is None else key_uuid(value)
        else:
            translated[name] = value
    return translated


def _links(owners: Iterable[asyncpg.Record], facts: dict[str, asyncpg.Record]) -> Rows:
    links: Rows = {}
    for row in owners:
        links |= {(key_uuid(row["id"]), key_uuid(fact)): {} for fact in row["fact_ids"] if fact in facts}
    return links


async def _actual(target: asyncpg.Connection, table: str) -> Rows:
    actual: Rows = {}
    query = f"SELECT * FROM {table}"  # noqa: S608 # a name from this module
    if table == "prohibited_chunks":
        # Which of several sources with one content it belongs to is free.
        query = (
            "SELECT c.* FROM prohibited_chunks c JOIN raw_sources s"
            " ON s.id = c.raw_source_id AND s.content_hash = c.content_hash"
        )
    for row in await target.fetch(query):
        values = {name: value for name, value in row.items() if name not in ("sync_version", "sync_run")}
        if table in _LINKS:
            actual[(values[_LINKS[table]], values["fact_id"])] = {}
        elif table in _KEYED:
            actual[tuple(values[name] for name in _KEYED[table])] = values
        else:
            actual[values["id"]] = values
    return actual


def _compare(table: str, expected: Rows, actual: Rows) -> list[str]:
    found = [f"{table}: missing {expected[key] or key}" for key in expected.keys() - actual.keys()]
    found += [f"{table}: extra {actual[key] or key}" for key in actual.keys() - expected.keys()]
    for key in expected.keys() & actual.keys():
        for name, value in expected[key].items():
            if actual[key][name] != value:
                found.append(f"{table} {key}: {name} is {actual[key][name]!r}, should be {value!r}")
    return found


async def _compare_vectors(graph: TestGraph, expected: dict[str, Rows]) -> list[str]:
    found: list[str] = []
    for collection, fields in _VECTORS.items():
        points: dict[object, Row] = {}
        async for batch in graph.vectors.scroll(f"kg_{collection}"):
            points |= {point.id: dict(point.payload) for point in batch}
        rows = {key: _point(collection, row, fields) for key, row in expected[collection].items()}
        found += [f"vectors of {collection}: missing {rows[key]}" for key in rows if key not in points]
        found += [f"vectors of {collection}: extra {points[key]}" for key in points if key not in rows]
        found += [
            f"vectors of {collection} {key}: payload is {points[key]}, should be {rows[key]}"
            for key in rows
            if key in points and points[key] != rows[key]
        ]
    return found


def _point(collection: str, row: Row, fields: tuple[str, ...]) -> Row:
    payload = {name: row[name] for name in fields}
    parts = (row["concept"], row["definition"]) if collection == "nodes" else (row["content"],)
    text = "\n".join(str(part) for part in parts if part is not None)
    # As Postgres writes jsonb: shorter keys first, and no character escaped that need not be.
    ordered = dict(sorted(payload.items(), key=lambda item: (len(item[0]), item[0])))
    hashed = f"{text}\n{json.dumps(ordered, ensure_ascii=False)}"
    return payload | {"sync_hash": hashlib.sha256(hashed.encode()).hexdigest()[:32]}
