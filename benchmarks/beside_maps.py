"""What `benchmarks.beside` measures: maps with bookkeeping in the row and beside, and the same by hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from benchmarks.bare import COPIES, DELETES, MERGES, NUMBERS, NUMBERS_TOUCHED, UNLINKS
from benchmarks.by_hand import ByHand, Listed
from benchmarks.growth import FILL
from syncline.engine import Column, Reference, SchemaMap, TableMap
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.maps.document import read_map
from syncline.maps.ids import Id, IdRule

__all__ = ["BESIDE", "IN_ROW", "Subject", "subjects"]

IN_ROW, BESIDE = "in the row", "beside"
CHANGED, DELETED = "10% changed", "10% deleted"
_EXAMPLE = Path(__file__).parent.parent / "examples" / "graph_product"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One map: its tables, what happens to them, and the ways to move them."""

    name: str
    built_in: bool = False
    """Whether the migrations make its tables."""
    write: str = ""
    fill: str
    changes: Mapping[str, Sequence[str]]
    """Step -> what is written before it."""
    ways: Mapping[str, SchemaMap]
    targets: Mapping[str, str]
    """Way -> its tables, or what is changed of the tables of the migrations. By hand it is as in the row."""
    by_hand: ByHand


def subjects(rows: int) -> Sequence[Subject]:
    """Return all that is measured, with about that many rows each."""
    return (_built_in(rows), _example(rows), *(_rule(rule, rows) for rule in _RULES))


def _tenth(key: str, salt: str) -> str:
    return f"(hashtext({key} || '{salt}') & 2147483647) % 10 = 0"


def _built_in(rows: int) -> Subject:
    listed = [name for name in COPIES if KNOWLEDGE_GRAPH[name].identified]
    beside = SchemaMap(name="beside", tables=tuple(map(_kept_beside, KNOWLEDGE_GRAPH)))
    unlinks = {
        f"{owner}_facts": UNLINKS.format(links=f"{owner}_facts", table=f"write_{owner}s", owner=f"{owner}_id")
        for owner in ("node", "edge")
    }
    staged = {name: statement.replace("bare_", "bare_write_") for name, statement in MERGES.items()}
    touched = NUMBERS_TOUCHED.replace("bare_", "bare_write_")
    return Subject(
        name="Built-in map",
        built_in=True,
        fill=FILL.format(nodes=rows // 6),
        changes={
            CHANGED: (
                f"UPDATE write_facts SET content = content || '.' WHERE {_tenth('id', 'c')}",
                f"UPDATE write_nodes SET definition = definition || '.' WHERE {_tenth('id', 'c')}",
                f"UPDATE write_edges SET weight = weight + 1 WHERE {_tenth('id', 'c')}",
            ),
            DELETED: (f"DELETE FROM write_edges WHERE {_tenth('id', 'd')}",),
        },
        ways={IN_ROW: KNOWLEDGE_GRAPH, BESIDE: beside},
        targets={
            IN_ROW: "",
            BESIDE: "".join(
                f"ALTER TABLE {table.name} DROP COLUMN key, DROP COLUMN sync_version, DROP COLUMN sync_run;"
                for table in beside
                if table.beside
            ),
        },
        by_hand=ByHand(
            copies={
                f"write_{name}": "dedup_status = 'ready'" if name == "facts" else "true" for name in COPIES
            },
            merges=(*staged.values(), NUMBERS),
            changes=(
                *(each for name, merge in staged.items() for each in (*_of(unlinks, name), merge)),
                touched,
            ),
            deletes=(*DELETES.values(), NUMBERS),
            asked=[
                _POINTS.format(table=table.name, id="syncline.key_uuid(id)")
                for table in KNOWLEDGE_GRAPH
                if table.vector is not None and table.name in COPIES
            ],
            keys={"write_edges": "id = d.key[1]"},
            listed=[Listed(table=name, stage=f"write_{name}", key="b.id") for name in listed],
        ),
    )


def _kept_beside(table: TableMap) -> TableMap:
    if not (table.identified and table.hashed):
        return table
    vector = table.vector
    if vector is not None:
        # The target has no column with the key.
        vector = replace(vector, payload=dict(vector.payload) | {"key": "t.id"})
    return replace(table, id=Id(rule=IdRule.HASH, beside=True), vector=vector)


def _of(statements: Mapping[str, str], name: str) -> Sequence[str]:
    return (statements[name],) if name in statements else ()


_POINTS = """
    INSERT INTO sync_outbox (collection, point_id) SELECT '{table}', {id} FROM bare_write_{table} ORDER BY 2
    ON CONFLICT (collection, point_id) DO UPDATE SET seq = excluded.seq, queued_at = excluded.queued_at"""
_OWN_LINKS = """
    INSERT INTO sync_link (name, owner, member, ours)
    SELECT DISTINCT 'node_facts', b.node_uuid, f::uuid, true
    FROM bare_write_nodes b, unnest(b.fact_ids) f
    WHERE NOT EXISTS (SELECT FROM node_fact_rejections r WHERE r.node_id = b.node_uuid AND r.fact_id = f::uuid)
    ON CONFLICT DO NOTHING"""
"""Without them, links of readers would leave with the next version of a node."""
_RULES = {
    "hash": Id(rule=IdRule.HASH),
    "column": Id(rule=IdRule.COLUMN, source="u", type="uuid"),
    "assigned": Id(rule=IdRule.ASSIGNED, type="bigint"),
}
_RULE_TABLES = """
CREATE TABLE s_parents (k text PRIMARY KEY, u uuid DEFAULT gen_random_uuid(), a text, n bigint);
CREATE TABLE s_children (k text PRIMARY KEY, u uuid DEFAULT gen_random_uuid(), a text, n bigint, parent text);
"""
_RULE_FILL = """
INSERT INTO s_parents SELECT 'parent' || i, gen_random_uuid(), md5(i::text), i FROM generate_series(1, {parents}) i;
INSERT INTO s_children
    SELECT 'child' || i, gen_random_uuid(), md5(i::text), i, 'parent' || 1 + i % {parents}
    FROM generate_series(1, 4 * {parents}) i;
"""


def _rule(rule: str, rows: int) -> Subject:
    columns = (Column(name="a"), Column(name="n", type="bigint"))
    parent = Reference(column="parent", parent="parents")

    def shape(id_: Id) -> SchemaMap:
        parents = TableMap(name="parents", source="s_parents", key=("k",), id=id_, columns=columns)
        children = TableMap(
            name="children", source="s_children", key=("k",), id=id_, columns=columns, references=(parent,)
        )
        return SchemaMap(name="rule", tables=(parents, children))

    kind = "bigint GENERATED BY DEFAULT AS IDENTITY" if rule == "assigned" else "uuid"

    def target(own: str) -> str:
        refers = f"{kind.partition(' ')[0]} NOT NULL REFERENCES parents"
        return (
            f"CREATE TABLE parents (id {kind} PRIMARY KEY, a text, n bigint{own});"
            f"CREATE TABLE children (id {kind} PRIMARY KEY, a text, n bigint, parent {refers}{own});"
            "CREATE INDEX ON children (parent);"
        )

    return Subject(
        name=f"`{rule}`, four children to a parent",
        write=_RULE_TABLES,
        fill=_RULE_FILL.format(parents=rows // 5),
        changes={
            CHANGED: (
                "UPDATE s_parents SET n = -n WHERE n % 10 = 1",
                "UPDATE s_children SET n = -n WHERE n % 10 = 1",
            ),
            DELETED: (
                "DELETE FROM s_children WHERE n % 10 = 2",
                "DELETE FROM s_parents WHERE NOT EXISTS (SELECT FROM s_children c WHERE c.parent = s_parents.k)",
            ),
        },
        ways={IN_ROW: shape(_RULES[rule]), BESIDE: shape(replace(_RULES[rule], beside=True))},
        targets={
            # By hand, rows are found by their keys unless these make the ids.
            IN_ROW: target(
                f", key text NOT NULL{' UNIQUE' * (rule != 'hash')}, sync_version bigint, sync_run bigint"
            ),
            BESIDE: target(""),
        },
        by_hand=_rule_by_hand(rule),
    )


def _rule_by_hand(rule: str) -> ByHand:
    made = {"hash": "syncline.key_uuid(b.k), ", "column": "b.u, ", "assigned": ""}[rule]
    refers = "syncline.key_uuid(b.parent)" if rule == "hash" else "p.id"
    joined = "" if rule == "hash" else " JOIN parents p ON p.key = b.parent"
    conflict = "key" if rule == "assigned" else "id"
    again = "a = excluded.a, n = excluded.n, key = excluded.key, sync_version = excluded.sync_version"
    named = "" if rule == "assigned" else "id, "
    merges = (
        f"INSERT INTO parents ({named}key, a, n, sync_version)"
        f" SELECT {made}b.k, b.a, b.n, b.sync_xid::text::bigint FROM bare_s_parents b"
        f" ON CONFLICT ({conflict}) DO UPDATE SET {again}",
        f"INSERT INTO children ({named}key, a, n, parent, sync_version)"
        f" SELECT {made}b.k, b.a, b.n, {refers}, b.sync_xid::text::bigint FROM bare_s_children b{joined}"
        f" ON CONFLICT ({conflict}) DO UPDATE SET parent = excluded.parent, {again}",
    )
    is_gone = "t.id = syncline.key_uuid(d.key[1])" if rule == "hash" else "t.key = d.key[1]"
    ids = {"hash": "NULL", "column": "b.u::text", "assigned": "t.id::text"}[rule]
    return ByHand(
        copies={"s_parents": "true", "s_children": "true"},
        merges=merges,
        changes=merges,
        deletes=[
            f"DELETE FROM {name} t USING bare_deleted d WHERE d.source_table = 's_{name}' AND {is_gone}"
            for name in ("children", "parents")
        ],
        listed=[
            Listed(
                table=name,
                stage=f"s_{name}",
                key="b.k",
                id=ids,
                joined=f"JOIN {name} t ON t.key = b.k" if rule == "assigned" else "",
            )
            for name in ("parents", "children")
        ],
    )


_EXAMPLE_FILL = """
INSERT INTO write_raw_sources (id, uri, title, content_hash, state, provider_metadata, created_at)
SELECT md5('source ' || n)::uuid, 'https://example.org/' || n, 'Source ' || n, md5('content ' || n), 'fetched',
       jsonb_build_object('lang', 'en'), timestamp '2026-03-29 02:30' + n * interval '1 s'
FROM generate_series(1, {nodes} / 10) n;
INSERT INTO write_facts (id, content, fact_type, dedup_status, created_at)
SELECT md5('fact ' || n)::uuid, 'Fact ' || n, 'claim', 'ready', timestamp '2026-04-01' + n * interval '1 s'
FROM generate_series(1, 2 * {nodes}) n;
INSERT INTO write_nodes (key, node_uuid, concept, node_type, parent_key, fact_ids, definition, created_at)
SELECT 'concept:' || n, md5('node ' || n)::uuid, 'Concept ' || n, 'concept', CASE WHEN n > 1 THEN 'concept:' || n / 2 END,
       ARRAY[md5('fact ' || n)::uuid::text, md5('fact ' || n + {nodes})::uuid::text], 'About ' || n,
       timestamp '2026-04-02' + n * interval '1 s'
FROM generate_series(1, {nodes}) n;
INSERT INTO write_node_fact_rejections
SELECT 'concept:' || n, md5('fact ' || n)::uuid FROM generate_series(1, {nodes}, 10) n;
INSERT INTO write_edges (key, source_node_key, target_node_key, relationship_type, weight, fact_ids)
SELECT 'concept:' || n || '|concept:' || m || '|related', 'concept:' || n, 'concept:' || m, 'related', n / 10.0,
       ARRAY[md5('fact ' || n)::uuid::text]
FROM generate_series(1, {nodes}) n, LATERAL (SELECT 1 + (n * k * 7919) % {nodes} FROM generate_series(1, 2) k) AS e (m)
ON CONFLICT DO NOTHING;
INSERT INTO write_provenance (id, fact_id, content_hash, source_uri, context_snippet)
SELECT md5('provenance ' || n)::uuid, md5('fact ' || n)::uuid, md5('content ' || 1 + n % ({nodes} / 10)), '', 'as in ' || n
FROM generate_series(1, 2 * {nodes}) n;
INSERT INTO write_convergence_reports SELECT 'concept:' || n, n / 30.0, 'Report ' || n FROM generate_series(3, {nodes}, 3) n;
INSERT INTO write_convergence_claims (node_key, claim)
SELECT 'concept:' || n, 'Claim ' || k FROM generate_series(3, {nodes}, 3) n, generate_series(1, 2) k;
INSERT INTO write_llm_usage SELECT 'run/' || n, 'small', n, '2026-04-02' FROM generate_series(1, {nodes}) n;
"""
_EXAMPLE_INDEXES = """
CREATE INDEX ON nodes (parent_id);
CREATE INDEX ON edges (target_node_id);
CREATE INDEX ON edge_facts (fact_id);
CREATE INDEX ON fact_sources (raw_source_id);
CREATE INDEX ON node_fact_rejections (fact_id);
CREATE INDEX ON convergence_claims (report_id);
"""
_LISTED = ("nodes", "edges", "convergence_reports", "llm_usage")
_USAGE_ID = (
    "CASE WHEN {id} ~* '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN {id}::uuid"
    " WHEN {id} <> '' THEN syncline.uuid5('6ba7b811-9dad-11d1-80b4-00c04fd430c8', {id})"
    " ELSE '00000000-0000-0000-0000-000000000000' END"
)
_EDGE_ID = "syncline.uuid5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', {key})"
_EXAMPLE_MERGES = {
    "raw_sources": """
        INSERT INTO raw_sources (id, uri, title, content_hash, state, language, created_at)
        SELECT id, uri, title, content_hash, state, provider_metadata->>'lang', created_at FROM bare_write_raw_sources
        ON CONFLICT (id) DO UPDATE SET uri = excluded.uri, title = excluded.title, content_hash = excluded.content_hash,
            state = excluded.state, language = excluded.language, created_at = excluded.created_at""",
    "facts": """
        INSERT INTO facts (id, content, fact_type, created_at)
        SELECT id, content, fact_type, created_at FROM bare_write_facts
        ON CONFLICT (id) DO UPDATE SET content = excluded.content, fact_type = excluded.fact_type,
            created_at = excluded.created_at""",
    "fact_sources": """
        INSERT INTO fact_sources (id, fact_id, raw_source_id, context_snippet)
        SELECT b.id, b.fact_id, r.id, b.context_snippet
        FROM bare_write_provenance b JOIN raw_sources r ON r.content_hash = b.content_hash
        ON CONFLICT (id) DO UPDATE SET fact_id = excluded.fact_id, raw_source_id = excluded.raw_source_id,
            context_snippet = excluded.context_snippet""",
    "nodes": """
        INSERT INTO nodes (id, key, concept, node_type, definition, parent_id, created_at, sync_version)
        SELECT b.node_uuid, b.key, b.concept, b.node_type, b.definition, coalesce(s.node_uuid, t.id), b.created_at,
               b.sync_xid::text::bigint
        FROM bare_write_nodes b LEFT JOIN bare_write_nodes s ON s.key = b.parent_key
        LEFT JOIN nodes t ON t.key = b.parent_key
        ON CONFLICT (id) DO UPDATE SET key = excluded.key, concept = excluded.concept, node_type = excluded.node_type,
            definition = excluded.definition, parent_id = excluded.parent_id, created_at = excluded.created_at,
            sync_version = excluded.sync_version""",
    "rejections": """
        INSERT INTO node_fact_rejections
        SELECT n.id, b.fact_id FROM bare_write_node_fact_rejections b JOIN nodes n ON n.key = b.node_key
        ON CONFLICT DO NOTHING""",
    "node_facts": """
        INSERT INTO node_facts
        SELECT b.node_uuid, f::uuid, 1.0, now() FROM bare_write_nodes b, unnest(b.fact_ids) f
        WHERE NOT EXISTS (SELECT FROM node_fact_rejections r WHERE r.node_id = b.node_uuid AND r.fact_id = f::uuid)
        ON CONFLICT DO NOTHING""",
    "scores": """
        UPDATE nodes n SET convergence_score = b.convergence_score FROM bare_write_convergence_reports b
        WHERE n.key = b.node_key""",
    "edges": f"""
        INSERT INTO edges (id, key, source_node_id, target_node_id, relationship_type, weight, sync_version)
        SELECT {_EDGE_ID.format(key="b.key")}, b.key, s.id, t.id, b.relationship_type, b.weight, b.sync_xid::text::bigint
        FROM bare_write_edges b JOIN nodes s ON s.key = b.source_node_key JOIN nodes t ON t.key = b.target_node_key
        ON CONFLICT (id) DO UPDATE SET key = excluded.key, source_node_id = excluded.source_node_id,
            target_node_id = excluded.target_node_id, relationship_type = excluded.relationship_type,
            weight = excluded.weight, sync_version = excluded.sync_version""",
    "edge_facts": """
        INSERT INTO edge_facts
        SELECT e.id, f::uuid, 1.0, now() FROM bare_write_edges b JOIN edges e ON e.key = b.key, unnest(b.fact_ids) f
        ON CONFLICT DO NOTHING""",
    "convergence_reports": """
        INSERT INTO convergence_reports (key, node_id, convergence_score, summary, sync_version)
        SELECT b.node_key, n.id, b.convergence_score, b.summary, b.sync_xid::text::bigint
        FROM bare_write_convergence_reports b JOIN nodes n ON n.key = b.node_key
        ON CONFLICT (node_id) DO UPDATE SET key = excluded.key, convergence_score = excluded.convergence_score,
            summary = excluded.summary, sync_version = excluded.sync_version""",
    "convergence_claims": """
        INSERT INTO convergence_claims
        SELECT b.id, r.id, b.claim FROM bare_write_convergence_claims b JOIN convergence_reports r ON r.key = b.node_key
        ON CONFLICT (id) DO UPDATE SET report_id = excluded.report_id, claim = excluded.claim""",
    "llm_usage": f"""
        INSERT INTO llm_usage (id, key, model, tokens, spent_on, sync_version)
        SELECT {_USAGE_ID.format(id="b.id")}, b.id, b.model, b.tokens, b.spent_on, b.sync_xid::text::bigint
        FROM bare_write_llm_usage b
        ON CONFLICT (id) DO UPDATE SET key = excluded.key, model = excluded.model, tokens = excluded.tokens,
            spent_on = excluded.spent_on, sync_version = excluded.sync_version""",
}
_EXAMPLE_UNLINKS = {
    "node_facts": """
        DELETE FROM node_facts l USING bare_write_nodes b
        WHERE l.node_id = b.node_uuid AND NOT EXISTS (SELECT FROM unnest(b.fact_ids) f WHERE f::uuid = l.fact_id)""",
    "edge_facts": """
        DELETE FROM edge_facts l USING bare_write_edges b JOIN edges e ON e.key = b.key
        WHERE l.edge_id = e.id AND NOT EXISTS (SELECT FROM unnest(b.fact_ids) f WHERE f::uuid = l.fact_id)""",
}
_NODE_COUNTS = """
    UPDATE nodes n SET fact_count = c.facts, edge_count = c.edges, child_count = c.children
    FROM (
        SELECT n.id, coalesce(f.number, 0) AS facts, coalesce(e.number, 0) AS edges, coalesce(p.number, 0) AS children
        FROM nodes n
        LEFT JOIN (SELECT node_id AS id, count(*) AS number FROM node_facts GROUP BY 1) f USING (id)
        LEFT JOIN (
            SELECT id, count(*) AS number FROM (
                SELECT source_node_id AS id FROM edges
                UNION ALL SELECT target_node_id FROM edges WHERE target_node_id <> source_node_id
            ) ends GROUP BY 1
        ) e USING (id)
        LEFT JOIN (SELECT parent_id AS id, count(*) AS number FROM nodes GROUP BY 1) p USING (id)
    ) c
    WHERE c.id = n.id AND (n.fact_count, n.edge_count, n.child_count) IS DISTINCT FROM (c.facts, c.edges, c.children)"""
_SOURCE_COUNTS = """
    UPDATE raw_sources r SET fact_count = c.number
    FROM (SELECT raw_source_id AS id, count(*) AS number FROM fact_sources GROUP BY 1) c
    WHERE c.id = r.id AND r.fact_count IS DISTINCT FROM c.number"""


def _example(rows: int) -> Subject:
    document = yaml.safe_load((_EXAMPLE / "map.yaml").read_text())
    beside = read_map(json.dumps(document), source="map.yaml")
    for name in _LISTED:
        del document["tables"][name]["id"]["beside"]
        if name == "edges":
            # Only beside can rows keep an id that the rule does not make.
            del document["tables"][name]["id"]["natural"]
    graph = (_EXAMPLE / "graph.sql").read_text() + _EXAMPLE_INDEXES
    keys = "".join(
        f"ALTER TABLE {name} ADD key text NOT NULL, ADD sync_version bigint, ADD sync_run bigint; "
        f"CREATE UNIQUE INDEX ON {name} (key);"
        for name in _LISTED
    )
    merges = _EXAMPLE_MERGES
    return Subject(
        name="Example 1",
        write=(_EXAMPLE / "write.sql").read_text(),
        fill=_EXAMPLE_FILL.format(nodes=rows // 10),
        changes={
            CHANGED: (
                f"UPDATE write_facts SET content = content || '.' WHERE {_tenth('id', 'c')}",
                f"UPDATE write_nodes SET definition = definition || '.' WHERE {_tenth('key', 'c')}",
                f"UPDATE write_edges SET weight = weight + 1 WHERE {_tenth('key', 'c')}",
                f"UPDATE write_provenance SET context_snippet = 'more' WHERE {_tenth('id', 'c')}",
                f"UPDATE write_convergence_reports SET summary = 'more' WHERE {_tenth('node_key', 'c')}",
                f"UPDATE write_llm_usage SET tokens = tokens + 1 WHERE {_tenth('id', 'c')}",
            ),
            DELETED: (
                f"DELETE FROM write_edges WHERE {_tenth('key', 'd')}",
                f"DELETE FROM write_provenance WHERE {_tenth('id', 'd')}",
                f"DELETE FROM write_llm_usage WHERE {_tenth('id', 'd')}",
                f"DELETE FROM write_convergence_claims WHERE {_tenth('id', 'd')}",
            ),
        },
        ways={IN_ROW: read_map(json.dumps(document), source="map.yaml"), BESIDE: beside},
        targets={IN_ROW: graph + keys, BESIDE: graph},
        by_hand=ByHand(
            copies=dict.fromkeys((table.source for table in beside), "true"),
            merges=(*merges.values(), _NODE_COUNTS, _SOURCE_COUNTS),
            changes=(
                *(each for name, merge in merges.items() for each in (*_of(_EXAMPLE_UNLINKS, name), merge)),
                _NODE_COUNTS,
                _SOURCE_COUNTS,
            ),
            deletes=(
                *(
                    f"DELETE FROM {name} t USING bare_deleted d WHERE d.source_table = '{source}' AND {gone}"
                    for name, source, gone in (
                        ("edges", "write_edges", "t.key = d.key[1]"),
                        ("fact_sources", "write_provenance", "t.id = d.key[1]::uuid"),
                        ("llm_usage", "write_llm_usage", "t.key = d.key[1]"),
                        ("convergence_claims", "write_convergence_claims", "t.id = d.key[1]::bigint"),
                    )
                ),
                _NODE_COUNTS,
                _SOURCE_COUNTS,
            ),
            asked=(_OWN_LINKS, _POINTS.format(table="facts", id="id")),
            keys={
                "write_edges": "key = d.key[1]",
                "write_provenance": "id = d.key[1]::uuid",
                "write_llm_usage": "id = d.key[1]",
                "write_convergence_claims": "id = d.key[1]::bigint",
            },
            listed=[
                Listed(table="nodes", stage="write_nodes", key="b.key", id="b.node_uuid::text"),
                *(
                    Listed(
                        table=name,
                        stage=f"write_{name}",
                        key=f"b.{key}",
                        id="t.id::text",
                        joined=f"JOIN {name} t ON t.key = b.{key}",
                    )
                    for name, key in (
                        ("edges", "key"),
                        ("convergence_reports", "node_key"),
                        ("llm_usage", "id"),
                    )
                ),
            ],
        ),
    )
