-- What an engine before Syncline left in the graph-db: half of the rows, some stale, some extra. Ids are as the map makes them.

INSERT INTO raw_sources
SELECT md5('source ' || n)::uuid, 'https://example.org/' || n, CASE WHEN n % 3 = 0 THEN 'Old' ELSE 'Source ' || n END,
       md5('content ' || n), 'fetched', 'en', 0, timestamp '2026-03-29 02:30' + n * interval '1 h'
FROM generate_series(1, 6) n;
INSERT INTO facts
SELECT md5('fact ' || n)::uuid, CASE WHEN n % 7 = 0 THEN 'Stale' ELSE 'Fact ' || n END, CASE WHEN n % 4 > 0 THEN 'claim' END,
       n, timestamp '2026-04-01' + n * interval '1 h'
FROM generate_series(1, 30) n WHERE n % 10 > 0 AND n % 13 > 0;
INSERT INTO facts VALUES (md5('fact of nobody')::uuid, 'Gone', NULL, 3, '2025-01-01');
INSERT INTO nodes (id, concept, node_type, parent_id, definition, access_count, created_at)
SELECT md5('node ' || n)::uuid, 'Concept ' || n, CASE WHEN n % 5 = 0 THEN 'entity' ELSE 'concept' END,
       CASE WHEN n > 1 THEN md5('node ' || n / 2)::uuid END, CASE WHEN n % 4 = 0 THEN 'Stale' WHEN n % 3 > 0 THEN 'About ' || n END,
       n, timestamp '2026-04-02' + n * interval '1 h'
FROM generate_series(1, 15) n;
INSERT INTO node_facts
SELECT md5('node ' || n)::uuid, md5('fact ' || n)::uuid, 0.5, '2026-04-03' FROM generate_series(2, 5) n;
-- A reader's own link, which no array names.
INSERT INTO node_facts VALUES (md5('node 1')::uuid, md5('fact 29')::uuid, 0.9, '2026-04-04');
INSERT INTO edges
SELECT syncline.uuid5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'concept:' || n || '|' || 'concept:' || n + 1 || '|related'),
       md5('node ' || n)::uuid, md5('node ' || n + 1)::uuid, 'related', CASE WHEN n % 2 = 0 THEN 0 ELSE n / 10.0 END
FROM generate_series(1, 10) n;
INSERT INTO fact_sources
SELECT md5('provenance ' || n)::uuid, md5('fact ' || n)::uuid, md5('source ' || 1 + n % 14)::uuid, 'as in ' || n
FROM generate_series(1, 5) n;
INSERT INTO convergence_reports (node_id, convergence_score, summary)
SELECT md5('node ' || n)::uuid, 0, 'Report ' || n FROM generate_series(15, 3, -3) n;
INSERT INTO convergence_claims
SELECT 1, id, 'Stale' FROM convergence_reports WHERE node_id = md5('node 3')::uuid;
INSERT INTO node_fact_rejections VALUES (md5('node 1')::uuid, md5('fact 1')::uuid);
INSERT INTO llm_usage
VALUES (syncline.uuid5('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'run/7'), 'small', 79, '2026-04-02', md5('source 1')::uuid);
