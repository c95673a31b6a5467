"""What the stores of a knowledge graph should say: an independent model in plain Python, for tests.

It reads both sides whole and knows nothing of cursors, batches or parking, so it is for small graphs.
"""

from collections.abc import Iterable

import asyncpg

from syncline.engine.keys import key_uuid
from syncline.testing.graphs import TestGraph

Row = dict[str, object]
Rows = dict[object, Row]

_RENAMED = {"fact_id", "raw_source_id", "parent_id", "source_concept_id", "source_node_id", "target_node_id"}
_DROPPED = {"sync_xid", "fact_ids", "dedup_status"}


async def differences(graph: TestGraph) -> list[str]:
    """Return one sentence per difference between what the graph-db and the vectors say and should say."""
    write, target = await graph.connect_write(), await graph.connect_target()
    try:
        expected = await _expected(write)
        found: list[str] = []
        for table, rows in expected.items():
            found.extend(_compare(table, rows, await _actual(target, table)))
        found.extend(await _compare_vectors(graph, expected["nodes"]))
        return found
    finally:
        await write.close()
        await target.close()


async def _expected(write: asyncpg.Connection) -> dict[str, Rows]:
    sources = {row["id"]: row for row in await write.fetch("SELECT * FROM write_raw_sources")}
    facts = {
        row["id"]: row for row in await write.fetch("SELECT * FROM write_facts WHERE dedup_status = 'ready'")
    }
    nodes = {row["id"]: row for row in await write.fetch("SELECT * FROM write_nodes")}
    edges = {
        row["id"]: row
        for row in await write.fetch("SELECT * FROM write_edges")
        if row["source_node_id"] in nodes and row["target_node_id"] in nodes
    }
    provenance = [
        row
        for row in await write.fetch("SELECT * FROM write_fact_sources")
        if row["fact_id"] in facts and row["raw_source_id"] in sources
    ]
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
    return {
        "raw_sources": {key_uuid(key): _translated(row) for key, row in sources.items()},
        "facts": {key_uuid(key): _translated(row) for key, row in facts.items()},
        "fact_sources": {
            (key_uuid(row["fact_id"]), key_uuid(row["raw_source_id"])): _translated(row) for row in provenance
        },
        "nodes": expected_nodes,
        "node_facts": _links(nodes.values(), facts),
        "edges": expected_edges,
        "edge_facts": _links(edges.values(), facts),
    }


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
    for row in await target.fetch(f"SELECT * FROM {table}"):  # noqa: S608 # a name from this module
        values = {name: value for name, value in row.items() if name != "sync_version"}
        if table in ("node_facts", "edge_facts"):
            owner = values.get("node_id", values.get("edge_id"))
            actual[(owner, values["fact_id"])] = {}
        elif table == "fact_sources":
            actual[(values["fact_id"], values["raw_source_id"])] = values
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


async def _compare_vectors(graph: TestGraph, nodes: Rows) -> list[str]:
    points: dict[object, object] = {}
    async for batch in graph.vectors.scroll("kg_nodes"):
        points |= {point.id: dict(point.payload) for point in batch}
    payload = ("key", "concept", "node_type", "visibility", "creator_id")
    expected = {key: {name: node[name] for name in payload} for key, node in nodes.items()}
    found = [f"vectors: missing {expected[key]}" for key in expected if key not in points]
    found += [f"vectors: extra {points[key]}" for key in points if key not in expected]
    found += [
        f"vectors {key}: payload is {points[key]}, should be {expected[key]}"
        for key in expected
        if key in points and points[key] != expected[key]
    ]
    return found
