-- What the workers of the product have written: the same rows every time.

INSERT INTO write_raw_sources (id, uri, title, content_hash, state, provider_metadata, created_at)
SELECT md5('source ' || n)::uuid, 'https://example.org/' || n, 'Source ' || n, md5('content ' || n), 'fetched',
       jsonb_build_object('lang', 'en'), timestamp '2026-03-29 02:30' + n * interval '1 h'
FROM generate_series(1, 12) n;
INSERT INTO write_facts (id, content, fact_type, dedup_status, deleted_at, created_at)
SELECT md5('fact ' || n)::uuid, 'Fact ' || n, CASE WHEN n % 4 > 0 THEN 'claim' END,
       CASE WHEN n % 10 = 0 THEN 'pending' ELSE 'ready' END,
       CASE WHEN n % 13 = 0 THEN timestamp '2026-05-01' END, timestamp '2026-04-01' + n * interval '1 h'
FROM generate_series(1, 60) n;
-- Arrays of varchar, in which uuids stand as their writers spelled them.
INSERT INTO write_nodes (key, node_uuid, concept, node_type, parent_key, fact_ids, definition, created_at)
SELECT 'concept:' || n, md5('node ' || n)::uuid, 'Concept ' || n, CASE WHEN n % 5 = 0 THEN 'entity' ELSE 'concept' END,
       CASE WHEN n > 1 THEN 'concept:' || n / 2 END,
       ARRAY[md5('fact ' || n)::uuid::text, upper(md5('fact ' || n + 1)::uuid::text), md5('fact ' || n + 30)::uuid::text],
       CASE WHEN n % 3 > 0 THEN 'About ' || n END, timestamp '2026-04-02' + n * interval '1 h'
FROM generate_series(1, 30) n;
INSERT INTO write_node_fact_rejections
SELECT 'concept:' || n, md5('fact ' || n)::uuid FROM generate_series(1, 30, 6) n;
INSERT INTO write_edges (key, source_node_key, target_node_key, relationship_type, weight, fact_ids)
SELECT 'concept:' || n || '|' || 'concept:' || n + k || '|related', 'concept:' || n, 'concept:' || n + k, 'related', n / 10.0,
       ARRAY[md5('fact ' || n + k)::uuid::text]
FROM generate_series(1, 20) n, generate_series(1, 2) k;
INSERT INTO write_provenance (id, fact_id, content_hash, source_uri, context_snippet)
SELECT md5('provenance ' || n)::uuid, md5('fact ' || n)::uuid, md5('content ' || 1 + n % 14), 'https://example.org/' || 1 + n % 14,
       'as in ' || n
FROM generate_series(1, 60) n;
INSERT INTO write_convergence_reports SELECT 'concept:' || n, n / 30.0, 'Report ' || n FROM generate_series(3, 30, 3) n;
INSERT INTO write_convergence_claims (node_key, claim)
SELECT 'concept:' || n, 'Claim ' || k FROM generate_series(3, 30, 3) n, generate_series(1, 2) k;
INSERT INTO write_llm_usage VALUES
    ('3F2504E0-4F89-11D3-9A0C-0305E82C3301', 'large', 1200, '2026-04-01', upper(md5('source 2'))),
    ('run/7', 'small', 80, '2026-04-02', 'chat'),
    ('', 'small', 7, '2026-04-03', '');
