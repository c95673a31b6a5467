-- Whoever held the fence before can no longer commit. Cursors of another write-db go in the same statement that
-- names the new one: a rescan that is cut short must not leave some behind, which would look like its own.
WITH forgotten AS (DELETE FROM sync_cursor WHERE $3)
UPDATE sync_state SET fence = fence + 1, holder_run_id = $1, write_cluster = $2 RETURNING fence
