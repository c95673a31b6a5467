-- sync_state has what the latest run that wrote has committed, over all of its attempts; sync_run has who that was.
WITH recorded AS (
    INSERT INTO audit_trail AS known (
        run_id, table_name, workflow_id, provider, provider_version, began_at, rows, links, deletes, failures
    )
    SELECT run.run_id, counted."table", run.workflow_id, run.provider, run.provider_version, run.taken_at,
           counted.rows, counted.links, counted.deletes, counted.failures
    FROM sync_state state
    CROSS JOIN LATERAL (
        SELECT * FROM sync_run WHERE run_id = state.progress ->> 'run_id' ORDER BY fence LIMIT 1
    ) run
    CROSS JOIN LATERAL jsonb_to_recordset(state.progress -> 'tables')
        AS counted ("table" text, rows bigint, links bigint, deletes bigint, failures bigint)
    WHERE counted.rows + counted.links + counted.deletes + counted.failures > 0
    ON CONFLICT (run_id, table_name) DO UPDATE SET
        rows = excluded.rows, links = excluded.links, deletes = excluded.deletes, failures = excluded.failures
    WHERE (known.rows, known.links, known.deletes, known.failures)
        IS DISTINCT FROM (excluded.rows, excluded.links, excluded.deletes, excluded.failures)
    RETURNING 1
)
SELECT count(*) FROM recorded
