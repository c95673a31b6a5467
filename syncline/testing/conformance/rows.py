"""What the writers of a small knowledge graph write."""

WORLD = """
INSERT INTO write_raw_sources (id, uri, title, content_hash)
    SELECT 'r' || i, 'https://example.org/' || i, 'Source ' || i, 'hash-' || i FROM generate_series(1, 3) i;
INSERT INTO write_facts (id, content, dedup_status)
    SELECT 'f' || i, 'fact number ' || i, CASE WHEN i % 10 = 0 THEN 'pending' ELSE 'ready' END
    FROM generate_series(1, 30) i;
INSERT INTO write_fact_sources (fact_id, raw_source_id, attribution)
    SELECT 'f' || i, 'r' || 1 + i % 3, 'said by ' || i FROM generate_series(1, 30, 3) i WHERE i % 10 <> 0;
INSERT INTO write_nodes (id, concept, definition, parent_id, fact_ids, visibility, metadata)
    SELECT 'n' || i, 'concept ' || i, 'what it means', CASE WHEN i > 1 THEN 'n' || i / 2 END,
        ARRAY['f' || i, 'f' || 1 + i % 7], CASE WHEN i % 4 = 0 THEN 'private' ELSE 'public' END,
        '{"of": "us"}'
    FROM generate_series(1, 30) i WHERE i % 10 <> 0;
INSERT INTO write_node_fact_rejections (node_id, fact_id, reason) VALUES ('n2', 'f2', 'it is about another');
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed, fact_ids)
    SELECT 'e' || i, 'n' || i, 'n' || i + 1, 'near', i % 2 = 0, ARRAY['f' || i]
    FROM generate_series(1, 8) i;
INSERT INTO write_dimensions (id, node_id, model_id, content, fact_ids)
    SELECT 'd' || i, 'n' || i, 'small', 'a view of ' || i, ARRAY['f' || i] FROM generate_series(1, 5) i;
INSERT INTO write_convergence_reports (node_id, convergence_score) VALUES ('n1', 0.5);
INSERT INTO write_node_counters (node_id, access_count) VALUES ('n1', 7);
INSERT INTO write_node_versions (id, node_id, version, snapshot) VALUES ('v1', 'n1', 1, '{}');
INSERT INTO write_prohibited_chunks (id, content_hash, chunk_text) VALUES ('p1', 'hash-1', 'not this');
INSERT INTO write_llm_usage (id, model_id, prompt_tokens) VALUES ('u1', 'small', 12);
"""

MORE = """
UPDATE write_facts SET dedup_status = 'ready' WHERE id = 'f10';
UPDATE write_nodes SET concept = 'renamed ' || id WHERE id IN ('n1', 'n2', 'n3');
INSERT INTO write_nodes (id, concept, parent_id, fact_ids)
    SELECT 'm' || i, 'later ' || i, 'n1', '{f1}' FROM generate_series(1, 40) i;
"""

TIES = """
INSERT INTO write_nodes (id, concept, created_at, updated_at)
    SELECT 'n' || i, 'written at once ' || i, '2020-01-01', '2020-01-01' FROM generate_series(1, 100) i;
"""

REMOVED = """
DELETE FROM write_edges WHERE id = 'e1';
DELETE FROM write_facts WHERE id IN ('f1', 'f2');
DELETE FROM write_nodes WHERE id = 'n5';
UPDATE write_nodes SET parent_id = NULL, fact_ids = '{}' WHERE id = 'n7';
UPDATE write_facts SET dedup_status = 'pending' WHERE id = 'f3';
TRUNCATE write_dimensions;
"""

CHILDREN = """
INSERT INTO write_nodes (id, concept, parent_id, fact_ids) VALUES ('child', 'came first', 'parent', '{said}');
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)
    VALUES ('e', 'child', 'parent', 'near');
INSERT INTO write_dimensions (id, node_id, model_id, content) VALUES ('d', 'parent', 'small', 'a view of it');
"""

PARENTS = """
INSERT INTO write_nodes (id, concept) VALUES ('parent', 'came last');
INSERT INTO write_facts (id, content, dedup_status) VALUES ('said', 'that it was so', 'ready');
"""

POISON = "ALTER TABLE nodes ADD CONSTRAINT no_poison CHECK (concept <> 'poison')"
POISONED = "INSERT INTO write_nodes (id, concept) VALUES ('bad', 'poison')"
MENDED = "UPDATE write_nodes SET concept = 'mended' WHERE id = 'bad'"

CANARY = "a value that nobody may tell"
CANARY_ROW = "INSERT INTO write_nodes (id, concept, definition) VALUES ('quiet', $1, $1)"

TELL_COMMITS = """
CREATE FUNCTION tell_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_notify('conformance', ''); RETURN NULL; END $$;
DO $$ DECLARE told text; BEGIN
    FOR told IN SELECT tablename FROM pg_tables
        WHERE schemaname = current_schema() AND tablename NOT LIKE 'sync\\_%' LOOP
        EXECUTE format('CREATE TRIGGER tell_commit AFTER INSERT OR UPDATE OR DELETE ON %I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION tell_commit()', told);
    END LOOP;
END $$;
"""
