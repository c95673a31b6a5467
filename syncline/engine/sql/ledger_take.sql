-- Whoever held the fence before can no longer commit. Cursors of another write-db go in the same statement that
-- names the new one: a rescan that is cut short must not leave some behind, which would look like its own.
WITH forgotten AS (
    DELETE FROM sync_cursor WHERE $3 AND current_schema() = $8::text
), taken AS (
    UPDATE sync_state SET fence = fence + 1, holder_run_id = $1, write_cluster = $2 WHERE current_schema() = $8::text RETURNING fence
), noted AS (
    INSERT INTO sync_run (fence, run_id, workflow_id, attempt, provider, provider_version)
    SELECT fence, $1, $4, $5, $6, $7 FROM taken
), long_ago AS (
    DELETE FROM sync_run WHERE taken_at < now() - interval '90 days'
)
SELECT fence FROM taken
