"""Synthetic graphs of any size, in the proportions of WordNet: made set-wise, the same every time."""

import asyncpg

from benchmarks.observed import SCHEMA

_SOURCES = 4
_STATEMENTS = """
INSERT INTO write_raw_sources (id, uri, title, content_hash, content_type, provider_id, fetch_status)
SELECT 'source:' || i, 'https://example.org/' || i, 'Source ' || i, md5(i::text), 'text/plain', 'synthetic',
       'fetched'
FROM generate_series(0, {sources} - 1) i;

INSERT INTO write_facts (id, content, fact_type, dedup_status)
SELECT 'gloss:' || lpad(i::text, 8, '0'), md5(i::text) || ' ' || md5('f' || i), 'definition', 'ready'
FROM generate_series(0, {nodes} - 1) i;

INSERT INTO write_fact_sources (fact_id, raw_source_id, attribution)
SELECT 'gloss:' || lpad(i::text, 8, '0'), 'source:' || i % {sources}, 'a generated fact'
FROM generate_series(0, {nodes} - 1) i;

INSERT INTO write_nodes (id, concept, node_type, definition, parent_id, fact_ids, metadata)
SELECT 'synset:' || lpad(i::text, 8, '0'), left(md5('c' || i), 12),
       (ARRAY['noun', 'verb', 'adjective'])[1 + i % 3],
       md5(i::text) || ' ' || md5('d' || i),
       CASE WHEN i % 10 < 7 AND i > 0 THEN 'synset:' || lpad((i / 4)::text, 8, '0') END,
       ARRAY['gloss:' || lpad(i::text, 8, '0')],
       jsonb_build_object('words', jsonb_build_array(left(md5('c' || i), 12)), 'lex_file', 'noun.' || i % 40)
FROM generate_series(0, {nodes} - 1) i;

-- Ends are spread over all nodes: the multiplier is prime, so that no two edges of a node are alike.
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed, fact_ids, metadata)
SELECT 'edge:' || lpad(i::text, 9, '0'), 'synset:' || lpad((i % {nodes})::text, 8, '0'),
       'synset:' || lpad((((i::bigint + 1) * 1000003) % {nodes})::text, 8, '0'),
       (ARRAY['hypernym', 'hyponym', 'derivation', 'part_meronym'])[1 + i % 4], true,
       ARRAY['gloss:' || lpad((i % {nodes})::text, 8, '0')], jsonb_build_object('symbol', i % 4)
FROM generate_series(0, {edges} - 1) i;
"""


async def generate(write: asyncpg.Connection, rows: int) -> int:
    """Fill a migrated, empty write-db with about `rows` rows; return how many it has."""
    nodes = rows * 16 // 100
    edges = rows - 3 * nodes - _SOURCES
    await write.execute(f"SET search_path = {SCHEMA}")
    await write.execute(_STATEMENTS.format(sources=_SOURCES, nodes=nodes, edges=edges))
    await write.execute("RESET search_path")
    await write.execute("ANALYZE")
    return _SOURCES + 3 * nodes + edges
