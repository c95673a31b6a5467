-- Which Temporal run did it for them. One line of each kind for a run, however often its activity is tried.
-- Runs with search_path set to the graph's schema.
ALTER TABLE sync_audit ADD COLUMN run_id text;
CREATE UNIQUE INDEX sync_audit_run ON sync_audit (run_id, action, coalesce(table_name, '')) WHERE run_id IS NOT NULL;
