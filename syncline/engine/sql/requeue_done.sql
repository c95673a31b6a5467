DELETE FROM sync_requeue WHERE table_name = $1 AND row_id = ANY ($2::uuid[])
