SELECT rows FROM sync_audit WHERE run_id = $1 AND action = $2
