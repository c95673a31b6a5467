SELECT key, row_id FROM sync_dead_letter WHERE table_name = $1 LIMIT $2
