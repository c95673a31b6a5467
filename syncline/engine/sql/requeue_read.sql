SELECT row_id, key FROM sync_requeue WHERE table_name = $1 ORDER BY queued_at, row_id LIMIT $2
