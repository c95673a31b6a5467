-- Whoever held the fence before can no longer commit.
UPDATE sync_state SET fence = fence + 1, holder_run_id = $1, write_system_id = $2 RETURNING fence
