INSERT INTO sync_audit (who, action, why, table_name, rows, run_id, starter)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING number
