SELECT row_id, key FROM sync_requeue WHERE table_name = $1 ORDER BY row_id LIMIT $2
