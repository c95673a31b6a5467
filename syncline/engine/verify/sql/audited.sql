SELECT action, table_name, number, rows FROM sync_audit WHERE run_id = $1
