-- Whoever held the fence before can no longer commit. Cursors of another write-db go in the same statement that
-- names the new one: a rescan that is cut short must not leave some behind, which would look like its own. So do those of
-- tables that are read again, and with them goes what is known of how a source is captured.
WITH forgotten AS (
    DELETE FROM sync_cursor WHERE ($3 OR table_name = ANY ($10::text[])) AND current_schema() = $8::text
), captured AS (
    INSERT INTO sync_source (table_name, hash, captured)
    SELECT table_name, hash, captured FROM unnest($11::text[], $12::text[], $13::text[]) AS u (table_name, hash, captured)
    ON CONFLICT (table_name) DO UPDATE SET hash = excluded.hash, captured = excluded.captured
), owed AS (
    INSERT INTO sync_comparison (table_name, reason)
    SELECT table_name, reason FROM unnest($14::text[], $15::text[]) AS u (table_name, reason)
    ON CONFLICT (table_name) DO UPDATE SET reason = excluded.reason, part = 'rows', after = NULL
), taken AS (
    UPDATE sync_state
    SET fence = fence + 1, holder_run_id = $1, write_cluster = $2,
        position = CASE WHEN $3 THEN $9 ELSE coalesce($9, position) END
    WHERE current_schema() = $8::text
    RETURNING fence
), noted AS (
    INSERT INTO sync_run (fence, run_id, workflow_id, attempt, provider, provider_version)
    SELECT fence, $1, $4, $5, $6, $7 FROM taken
), long_ago AS (
    DELETE FROM sync_run WHERE taken_at < now() - interval '90 days'
)
SELECT fence FROM taken
